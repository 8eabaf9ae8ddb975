package volume

import (
	"path"
	"slices"
	"strings"

	"berth/internal/fault"

	"github.com/moby/moby/api/types/mount"
)

// ParseBind reads docker's short form: [source:]destination[:options]. An
// absolute source is a bind of the host's path, any other a volume's name, none
// an anonymous volume.
func ParseBind(spec string) (Mount, error) {
	parts := strings.Split(spec, ":")
	var src, dst, mode string
	switch len(parts) {
	case 1:
		dst = parts[0]
	case 2:
		src, dst = parts[0], parts[1]
	case 3:
		src, dst, mode = parts[0], parts[1], parts[2]
	default:
		return Mount{}, bad("invalid volume specification: '%s'", spec)
	}
	if len(parts) > 1 && src == "" {
		return Mount{}, bad("invalid volume specification: '%s': the source is empty", spec)
	}
	clean, err := destination(spec, dst)
	if err != nil {
		return Mount{}, err
	}
	m := Mount{Destination: clean, Mode: mode}
	switch {
	case src == "":
		m.Type, m.Anonymous, m.Driver = mount.TypeVolume, true, DriverLocal
	case path.IsAbs(src):
		m.Type, m.Source, m.CreateSource = mount.TypeBind, path.Clean(src), true
	default:
		if err := CheckName(src); err != nil {
			return Mount{}, err
		}
		m.Type, m.Name, m.Driver = mount.TypeVolume, src, DriverLocal
	}
	return m, m.readMode(spec, mode)
}

// readMode applies the comma-separated options of the short form.
func (m *Mount) readMode(spec, mode string) error {
	if mode == "" {
		return nil
	}
	seen := make(map[string]bool, 4)
	once := func(group, opt string) error {
		if seen[group] {
			return bad("invalid volume specification: '%s': invalid mode: %s", spec, mode)
		}
		seen[group] = true
		return nil
	}
	for _, o := range strings.Split(mode, ",") {
		group := ""
		switch {
		case o == "ro" || o == "rw":
			group, m.ReadOnly = "rw", o == "ro"
		case o == "z" || o == "Z":
			group = "label"
			if hasSELinux() {
				return fault.New(fault.Unsupported, "", "", "volume option %q (SELinux relabelling) in '%s' is not supported", o, spec)
			}
		case o == "nocopy" && m.Type == mount.TypeVolume:
			group, m.NoCopy = "copy", true
		case slices.Contains(mount.Propagations, mount.Propagation(o)) && m.Type == mount.TypeBind:
			group, m.Propagation = "propagation", mount.Propagation(o)
		case o == "consistent" || o == "cached" || o == "delegated" || o == "default":
			group = "consistency" // says how far a remote file system may lag; here there is none
		default:
			return bad("invalid volume specification: '%s': invalid mode: %s", spec, mode)
		}
		if err := once(group, o); err != nil {
			return err
		}
	}
	return nil
}

// ParseMount reads the long form.
func ParseMount(in mount.Mount) (Mount, error) {
	typ := in.Type
	wrong := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "", "", `invalid mount config for type "%s": `+format, append([]any{typ}, args...)...)
	}
	if in.Target == "" {
		return Mount{}, wrong("field Target must not be empty")
	}
	dst, err := destination(in.Target, in.Target)
	if err != nil {
		return Mount{}, wrong("%v", err)
	}
	switch in.Consistency {
	case "", mount.ConsistencyDefault, mount.ConsistencyFull, mount.ConsistencyCached, mount.ConsistencyDelegated:
	default:
		return Mount{}, wrong("invalid Consistency %q", in.Consistency)
	}
	m := Mount{Type: typ, Destination: dst, ReadOnly: in.ReadOnly}
	switch typ {
	case mount.TypeBind:
		return m, m.readBind(in, wrong)
	case mount.TypeVolume:
		return m, m.readVolume(in, wrong)
	case mount.TypeTmpfs:
		return m, m.readTmpfs(in, wrong)
	case mount.TypeImage, mount.TypeCluster, mount.TypeNamedPipe:
		return Mount{}, fault.New(fault.Unsupported, "", "", "mounts of type %q are not supported", typ).
			WithHint("this engine mounts bind, volume and tmpfs")
	}
	return Mount{}, fault.New(fault.Invalid, "", "", "mount type unknown: %q", typ)
}

type wrongf func(format string, args ...any) error

func (m *Mount) readBind(in mount.Mount, wrong wrongf) error {
	switch {
	case in.VolumeOptions != nil:
		return wrong("field VolumeOptions must not be specified")
	case in.TmpfsOptions != nil:
		return wrong("field TmpfsOptions must not be specified")
	case in.ImageOptions != nil:
		return wrong("field ImageOptions must not be specified")
	case in.Source == "":
		return wrong("field Source must not be empty")
	case !path.IsAbs(in.Source):
		return wrong("invalid mount path: '%s' mount path must be absolute", in.Source)
	}
	m.Source = path.Clean(in.Source)
	o := in.BindOptions
	if o == nil {
		return nil
	}
	if o.Propagation != "" && !slices.Contains(mount.Propagations, o.Propagation) {
		return wrong("invalid propagation mode: %s", o.Propagation)
	}
	if (o.ReadOnlyNonRecursive || o.ReadOnlyForceRecursive) && !in.ReadOnly {
		return wrong("mount must be set \"read-only\" for ReadOnlyNonRecursive and ReadOnlyForceRecursive")
	}
	if o.ReadOnlyNonRecursive && o.ReadOnlyForceRecursive {
		return wrong("ReadOnlyNonRecursive and ReadOnlyForceRecursive are mutually exclusive")
	}
	if o.ReadOnlyForceRecursive && (o.NonRecursive || (o.Propagation != "" && o.Propagation != mount.PropagationRPrivate)) {
		return wrong("ReadOnlyForceRecursive needs a recursive mount with propagation rprivate")
	}
	m.Propagation, m.NonRecursive, m.CreateSource = o.Propagation, o.NonRecursive, o.CreateMountpoint
	m.ReadOnlyShallow, m.ReadOnlyForce = o.ReadOnlyNonRecursive, o.ReadOnlyForceRecursive
	return nil
}

func (m *Mount) readVolume(in mount.Mount, wrong wrongf) error {
	switch {
	case in.BindOptions != nil:
		return wrong("field BindOptions must not be specified")
	case in.TmpfsOptions != nil:
		return wrong("field TmpfsOptions must not be specified")
	case in.ImageOptions != nil:
		return wrong("field ImageOptions must not be specified")
	}
	m.Driver, m.Name = DriverLocal, in.Source
	if in.Source == "" {
		m.Anonymous = true
	} else if err := CheckName(in.Source); err != nil {
		return wrong("%v", err)
	}
	o := in.VolumeOptions
	if o == nil {
		return nil
	}
	if o.Subpath != "" {
		return fault.New(fault.Unsupported, "", "", "mount option VolumeOptions.Subpath (%q) is not supported", o.Subpath)
	}
	if d := o.DriverConfig; d != nil {
		if d.Name != "" && d.Name != DriverLocal {
			return fault.New(fault.Unsupported, "", "", "volume driver %q is not supported", d.Name).WithHint("this engine has the driver %q", DriverLocal)
		}
		if err := CheckOptions(d.Options); err != nil {
			return wrong("%v", err)
		}
		m.DriverOptions = d.Options
	}
	m.NoCopy, m.Labels = o.NoCopy, o.Labels
	return nil
}
