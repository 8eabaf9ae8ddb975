package volume

import (
	"cmp"
	"errors"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"berth/internal/fault"
	"berth/internal/quota"

	"golang.org/x/sys/unix"
)

// CheckOptions refuses options that the local driver does not have: type, device
// and o are mount(8)'s, the first two go together; size bounds a volume whose files
// are in the data directory.
func CheckOptions(opts map[string]string) error {
	for key := range opts {
		switch key {
		case "type", "device", "o":
		case "size":
			if len(opts) > 1 {
				return bad("option size bounds the files of a volume in the data directory, and is of no use beside type, device and o")
			}
			_, err := quota.Size(opts[key])
			return err
		default:
			return bad("invalid option: %q", key)
		}
	}
	typ, device := opts["type"], opts["device"]
	switch {
	case len(opts) == 0:
		return nil
	case typ == "":
		return bad(`missing required option: "type"`)
	case device == "":
		return bad(`missing required option: "device"`)
	}
	m := readMountOptions(typ, opts["o"])
	if m.flags&unix.MS_BIND != 0 && !path.IsAbs(device) {
		return bad("the device of a volume that is a bind must be an absolute path: %q", device)
	}
	return nil
}

// mountFlags are the options of mount(8) that are flags of mount(2).
var mountFlags = map[string]struct {
	clear bool
	flag  uintptr
}{
	"defaults": {}, "rw": {true, unix.MS_RDONLY}, "ro": {false, unix.MS_RDONLY},
	"suid": {true, unix.MS_NOSUID}, "nosuid": {false, unix.MS_NOSUID}, "dev": {true, unix.MS_NODEV}, "nodev": {false, unix.MS_NODEV},
	"exec": {true, unix.MS_NOEXEC}, "noexec": {false, unix.MS_NOEXEC}, "async": {true, unix.MS_SYNCHRONOUS}, "sync": {false, unix.MS_SYNCHRONOUS},
	"dirsync": {false, unix.MS_DIRSYNC}, "atime": {true, unix.MS_NOATIME}, "noatime": {false, unix.MS_NOATIME},
	"diratime": {true, unix.MS_NODIRATIME}, "nodiratime": {false, unix.MS_NODIRATIME}, "relatime": {false, unix.MS_RELATIME},
	"norelatime": {true, unix.MS_RELATIME}, "strictatime": {false, unix.MS_STRICTATIME}, "nostrictatime": {true, unix.MS_STRICTATIME},
	"bind": {false, unix.MS_BIND}, "rbind": {false, unix.MS_BIND | unix.MS_REC},
}

type mountOptions struct {
	flags uintptr
	data  []string
}

// readMountOptions splits an option string into the flags of mount(2) and what the
// file system reads itself.
func readMountOptions(typ, text string) (m mountOptions) {
	if typ == "bind" {
		m.flags |= unix.MS_BIND
	}
	for o := range strings.SplitSeq(text, ",") {
		if f, known := mountFlags[o]; known {
			if f.clear {
				m.flags &^= f.flag
			} else {
				m.flags |= f.flag
			}
		} else if o != "" {
			m.data = append(m.data, o)
		}
	}
	return m
}

// Mounted reports whether a volume with options is mounted at its place.
func (s *Store) Mounted(name string) bool { return isMountPoint(s.Path(name)) }

func isMountPoint(dir string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, &st)
	return err == nil && st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// bound keeps a volume that has a size below it.
func (s *Store) bound(v Volume) error {
	size, err := quota.Size(cmp.Or(v.Options["size"], "0"))
	if err != nil || size == 0 {
		return err
	}
	return quota.Set(size, 0, filepath.Join(s.dir, v.Name), s.Path(v.Name))
}

// Mount mounts a volume that has options at its place, unless it is. One without
// options needs nothing, and one with a size is held to it. The mount is the host's,
// so that all containers which use the volume see the same files; Unmount ends it.
func (s *Store) Mount(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.byName[name]
	if v.Options["type"] == "" {
		return s.bound(v)
	}
	if isMountPoint(s.Path(name)) {
		return nil
	}
	typ, device := v.Options["type"], v.Options["device"]
	m := readMountOptions(typ, v.Options["o"])
	if strings.HasPrefix(typ, "nfs") || typ == "cifs" {
		if err := resolveServer(&m); err != nil {
			return fault.New(fault.Invalid, "", "", "failed to mount local volume %s: %w", name, err)
		}
	}
	if m.flags&unix.MS_BIND != 0 {
		typ = ""
	}
	err := unix.Mount(device, s.Path(name), typ, m.flags, strings.Join(m.data, ","))
	// A bind takes its flags in a second step.
	if rest := m.flags &^ (unix.MS_BIND | unix.MS_REC); err == nil && m.flags&unix.MS_BIND != 0 && rest != 0 {
		if err = unix.Mount("", s.Path(name), "", rest|unix.MS_BIND|unix.MS_REMOUNT, ""); err != nil {
			_ = unmount(s.Path(name))
		}
	}
	if err == nil {
		return fault.Wrap("mount volume", name, unix.Mount("", s.Path(name), "", unix.MS_PRIVATE, ""))
	}
	e := fault.New(fault.Invalid, "", "", "failed to mount local volume: mount %s:%s, flags: 0x%x, data: %s: %w",
		device, s.Path(name), m.flags, strings.Join(m.data, ","), err)
	if errors.Is(err, unix.ENODEV) {
		return e.WithHint("the kernel has no file system of the type %q; is its module installed?", typ)
	}
	return e
}

// resolveServer gives the kernel the address of a file server: it knows no names.
func resolveServer(m *mountOptions) error {
	for i, o := range m.data {
		host, ok := strings.CutPrefix(o, "addr=")
		if !ok || net.ParseIP(host) != nil {
			continue
		}
		ip, err := net.ResolveIPAddr("ip", host)
		if err != nil {
			return err
		}
		m.data[i] = "addr=" + ip.String()
	}
	if !slices.ContainsFunc(m.data, func(o string) bool { return strings.HasPrefix(o, "addr=") }) {
		return errors.New("option o needs addr=, the address of the server")
	}
	return nil
}

// Unmount ends the mount of a volume with options, if there is one.
func (s *Store) Unmount(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byName[name].Options["type"] == "" {
		return nil
	}
	return fault.Wrap("unmount volume", name, unmount(s.Path(name)))
}

func unmount(dir string) error {
	for {
		err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// removeDir removes a volume's directory, and never what is mounted there.
func removeDir(dir string) error {
	data := path.Join(dir, "_data")
	if err := unmount(data); err != nil {
		return err
	}
	if isMountPoint(data) {
		return unix.EBUSY
	}
	if err := quota.Release(dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}
