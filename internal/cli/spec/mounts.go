package spec

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/mount"
)

// volumes reads --volume: [SOURCE:]TARGET[:OPTIONS]. A SOURCE that begins with a
// dot is a path below the caller's directory; without a SOURCE the target is an
// anonymous volume.
func volumes(args []string) (binds []string, anonymous map[string]struct{}, err error) {
	for _, text := range args {
		source, rest, hasSource := strings.Cut(text, ":")
		if !hasSource {
			source, rest = "", text
		}
		target, _, _ := strings.Cut(rest, ":")
		if err := checkVolume(source, target, hasSource); err != nil {
			return nil, nil, fmt.Errorf("--volume %q: %w", text, err)
		}
		if !hasSource {
			if anonymous == nil {
				anonymous = map[string]struct{}{}
			}
			anonymous[path.Clean(target)] = struct{}{}
			continue
		}
		if source, err = absolute(source); err != nil {
			return nil, nil, fmt.Errorf("--volume %q: %w", text, err)
		}
		binds = append(binds, source+":"+rest)
	}
	return binds, anonymous, nil
}

func checkVolume(source, target string, hasSource bool) error {
	switch {
	case hasSource && source == "":
		return errors.New("the source is missing")
	case !strings.HasPrefix(target, "/"):
		return fmt.Errorf("%q is not an absolute path in the container", target)
	case path.Clean(target) == "/":
		return errors.New("the container's root cannot be mounted over")
	case hasSource && strings.Contains(source, "/") && source[0] != '/' && source[0] != '.' && source[0] != '~':
		return fmt.Errorf("%q is neither a volume's name nor a path; write ./%s for a path from here", source, source)
	}
	return nil
}

// absolute makes a source that begins with a dot absolute.
func absolute(source string) (string, error) {
	if source == "." || source == ".." || strings.HasPrefix(source, "./") || strings.HasPrefix(source, "../") {
		return filepath.Abs(source)
	}
	if source == "~" || strings.HasPrefix(source, "~/") {
		home, err := os.UserHomeDir()
		return filepath.Join(home, source[1:]), err
	}
	return source, nil
}

// parseMount reads one --mount argument.
func parseMount(text string) (mount.Mount, error) {
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return mount.Mount{}, fmt.Errorf("--mount %q: not comma-separated NAME=VALUE", text)
	}
	m := mount.Mount{Type: mount.TypeVolume}
	for _, field := range fields {
		name, value, hasValue := strings.Cut(field, "=")
		if err := setMountField(&m, strings.ToLower(strings.TrimSpace(name)), value, hasValue); err != nil {
			return m, fmt.Errorf("--mount %q: %w", text, err)
		}
	}
	if err := checkMount(&m); err != nil {
		return m, fmt.Errorf("--mount %q: %w", text, err)
	}
	return m, nil
}

func setMountField(m *mount.Mount, name, value string, hasValue bool) error {
	switch name {
	case "readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src":
		on, err := switchValue(name, value, hasValue)
		if err == nil {
			setMountSwitch(m, name, on)
		}
		return err
	}
	if !hasValue {
		return fmt.Errorf("%q needs a value", name)
	}
	switch name {
	case "type":
		m.Type = mount.Type(strings.ToLower(value))
	case "source", "src":
		var err error
		m.Source, err = absolute(value)
		return err
	case "target", "dst", "destination":
		m.Target = value
	case "consistency":
		m.Consistency = mount.Consistency(strings.ToLower(value))
	default:
		return setMountOption(m, name, value)
	}
	return nil
}

func switchValue(name, value string, hasValue bool) (bool, error) {
	if !hasValue {
		return true, nil
	}
	on, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("%s=%s is neither true nor false", name, value)
	}
	return on, nil
}

func setMountSwitch(m *mount.Mount, name string, on bool) {
	switch name {
	case "readonly", "ro":
		m.ReadOnly = on
	case "volume-nocopy":
		volumeOptions(m).NoCopy = on
	case "bind-nonrecursive":
		bindOptions(m).NonRecursive = on
	case "bind-create-src":
		bindOptions(m).CreateMountpoint = on
	}
}

func bindOptions(m *mount.Mount) *mount.BindOptions {
	if m.BindOptions == nil {
		m.BindOptions = &mount.BindOptions{}
	}
	return m.BindOptions
}

func volumeOptions(m *mount.Mount) *mount.VolumeOptions {
	if m.VolumeOptions == nil {
		m.VolumeOptions = &mount.VolumeOptions{}
	}
	return m.VolumeOptions
}

func tmpfsOptions(m *mount.Mount) *mount.TmpfsOptions {
	if m.TmpfsOptions == nil {
		m.TmpfsOptions = &mount.TmpfsOptions{}
	}
	return m.TmpfsOptions
}

func volumeDriver(m *mount.Mount) *mount.Driver {
	o := volumeOptions(m)
	if o.DriverConfig == nil {
		o.DriverConfig = &mount.Driver{}
	}
	return o.DriverConfig
}

func setMountOption(m *mount.Mount, name, value string) error {
	switch name {
	case "bind-propagation":
		bindOptions(m).Propagation = mount.Propagation(strings.ToLower(value))
	case "bind-recursive":
		return setRecursive(bindOptions(m), value)
	case "volume-subpath":
		volumeOptions(m).Subpath = value
	case "volume-driver":
		volumeDriver(m).Name = value
	case "volume-label":
		setPair(&volumeOptions(m).Labels, value)
	case "volume-opt":
		setPair(&volumeDriver(m).Options, value)
	case "image-subpath":
		m.ImageOptions = &mount.ImageOptions{Subpath: value}
	case "tmpfs-size":
		n, err := parseSize(value)
		tmpfsOptions(m).SizeBytes = n
		return err
	case "tmpfs-mode":
		mode, err := strconv.ParseUint(value, 8, 32)
		if err != nil {
			return fmt.Errorf("tmpfs-mode %q is not an octal mode such as 1777", value)
		}
		tmpfsOptions(m).Mode = os.FileMode(mode)
	default:
		return fmt.Errorf("unknown field %q", name)
	}
	return nil
}

func setRecursive(o *mount.BindOptions, value string) error {
	switch value {
	case "enabled":
	case "disabled":
		o.NonRecursive = true
	case "writable":
		o.ReadOnlyNonRecursive = true
	case "readonly":
		o.ReadOnlyForceRecursive = true
	default:
		return fmt.Errorf("bind-recursive %q: use enabled, disabled, writable or readonly", value)
	}
	return nil
}

func setPair(m *map[string]string, text string) {
	if *m == nil {
		*m = map[string]string{}
	}
	name, value, _ := strings.Cut(text, "=")
	(*m)[name] = value
}

// checkMount refuses combinations that cannot mean anything.
func checkMount(m *mount.Mount) error {
	switch m.Type {
	case mount.TypeBind, mount.TypeVolume, mount.TypeTmpfs, mount.TypeImage:
	case mount.TypeNamedPipe, mount.TypeCluster:
		return fmt.Errorf("the type %s does not exist on Linux hosts", m.Type)
	default:
		return fmt.Errorf("unknown type %q: use bind, volume, tmpfs or image", m.Type)
	}
	if m.Target == "" {
		return errors.New("the target is missing")
	}
	mixed := func(prefix string) error {
		return fmt.Errorf("%s-* fields do not go with type=%s", prefix, m.Type)
	}
	switch {
	case m.BindOptions != nil && m.Type != mount.TypeBind:
		return mixed("bind")
	case m.VolumeOptions != nil && m.Type != mount.TypeVolume:
		return mixed("volume")
	case m.TmpfsOptions != nil && m.Type != mount.TypeTmpfs:
		return mixed("tmpfs")
	case m.ImageOptions != nil && m.Type != mount.TypeImage:
		return mixed("image")
	case m.Type == mount.TypeTmpfs && m.Source != "":
		return errors.New("a tmpfs has no source")
	case m.Type == mount.TypeBind && m.Source == "":
		return errors.New("the source is missing")
	}
	return checkRecursive(m)
}

func checkRecursive(m *mount.Mount) error {
	o := m.BindOptions
	if o == nil || m.ReadOnly {
		if o != nil && o.ReadOnlyForceRecursive && o.Propagation != mount.PropagationRPrivate {
			return errors.New("bind-recursive=readonly needs bind-propagation=rprivate")
		}
		return nil
	}
	if o.ReadOnlyForceRecursive || o.ReadOnlyNonRecursive {
		return errors.New("bind-recursive=readonly and =writable need the field readonly")
	}
	return nil
}
