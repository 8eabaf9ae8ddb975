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
		case o == "U":
			return bad("invalid volume specification: '%s': invalid mode: %s", spec, mode).WithHint("U, podman's change of owner, is not docker's; change it in the container or on the host")
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
	// Consistency says how far a remote file system may lag; here there is none.
	m := Mount{Type: typ, Destination: dst, ReadOnly: in.ReadOnly}
	switch typ {
	case mount.TypeBind:
		return m, m.readBind(in, wrong)
	case mount.TypeVolume:
		return m, m.readVolume(in, wrong)
	case mount.TypeTmpfs:
		return m, m.readTmpfs(in, wrong)
	case mount.TypeImage:
		return m, m.readImage(in, wrong)
	case mount.TypeCluster:
		return Mount{}, wrong("cluster volumes need a swarm, and this node is not part of one")
	case mount.TypeNamedPipe:
		return Mount{}, wrong("named pipes exist on Windows only")
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
	o := in.VolumeOptions
	switch {
	case in.Source != "":
		if err := CheckName(in.Source); err != nil {
			return wrong("%v", err)
		}
	case o != nil && o.Subpath != "":
		return wrong("must not set Subpath when using anonymous volumes")
	case in.ReadOnly:
		return wrong("must not set ReadOnly mode when using anonymous volumes")
	default:
		m.Anonymous = true
	}
	if o == nil {
		return nil
	}
	if err := subpath(o.Subpath); err != nil {
		return wrong("%v", err)
	}
	m.Subpath = o.Subpath
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

func (m *Mount) readImage(in mount.Mount, wrong wrongf) error {
	switch {
	case in.BindOptions != nil:
		return wrong("field BindOptions must not be specified")
	case in.VolumeOptions != nil:
		return wrong("field VolumeOptions must not be specified")
	case in.TmpfsOptions != nil:
		return wrong("field TmpfsOptions must not be specified")
	case in.Source == "":
		return wrong("field Source must not be empty")
	}
	m.Name, m.ReadOnly = in.Source, true
	if in.ImageOptions == nil {
		return nil
	}
	m.Subpath = in.ImageOptions.Subpath
	if err := subpath(m.Subpath); err != nil {
		return wrong("%v", err)
	}
	return nil
}

// ParseFrom reads a reference to a container whose mounts are taken over:
// NAME[:MODE]. Of a mode only what concerns writing has a meaning here.
func ParseFrom(spec string) (name string, readOnly bool, err error) {
	if spec == "" {
		return "", false, bad("volumes-from specification cannot be an empty string")
	}
	name, mode, _ := strings.Cut(spec, ":")
	m := Mount{Type: "volumes-from"} // neither copies nor propagates
	if err := m.readMode(spec, mode); err != nil {
		return "", false, bad("invalid mode: %s", mode)
	}
	return name, m.ReadOnly, nil
}
