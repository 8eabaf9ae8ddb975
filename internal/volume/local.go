package volume

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"berth/internal/fault"
	"berth/internal/quota"

	"golang.org/x/sys/unix"
)

// mounted is who uses a volume now. Its lock is held while the kernel mounts, which
// may wait for a file server; the store's is not.
type mounted struct {
	sync.Mutex
	users map[string]bool
}

func (s *Store) mountedOf(name string) (*mounted, Volume) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.mounts[name]
	if m == nil {
		m = &mounted{users: map[string]bool{}}
		s.mounts[name] = m
	}
	return m, s.byName[name]
}

// bound keeps a volume that has a size below it.
func (s *Store) bound(v Volume) error {
	size, err := quota.Size(cmp.Or(v.Options["size"], "0"))
	if err != nil || size == 0 {
		return err
	}
	return quota.Set(size, 0, filepath.Join(s.dir, v.Name), s.Path(v.Name))
}

// Mount notes that somebody uses a volume, holds one that has a size to it, and
// mounts one whose files are elsewhere at its place, unless it is. The mount is the host's, so that all users see the same
// files; it ends with the last one.
func (s *Store) Mount(name, user string) error {
	m, v := s.mountedOf(name)
	m.Lock()
	defer m.Unlock()
	switch {
	case !v.Elsewhere():
		if err := s.bound(v); err != nil {
			return err
		}
	case !isMountPoint(s.Path(name)):
		if err := mountLocal(v, s.Path(name)); err != nil {
			return err
		}
	}
	m.users[user] = true
	return nil
}

// Unmount takes back what Mount noted, and ends the mount when nobody is left who
// uses it. It reports whether the user was one.
func (s *Store) Unmount(name, user string) (bool, error) {
	m, v := s.mountedOf(name)
	m.Lock()
	defer m.Unlock()
	used := m.users[user]
	delete(m.users, user)
	if !v.Elsewhere() || len(m.users) > 0 {
		return used, nil
	}
	return used, fault.Wrap("unmount volume", name, unmount(s.Path(name)))
}

// Mounted reports whether a volume with options is mounted at its place.
func (s *Store) Mounted(name string) bool { return isMountPoint(s.Path(name)) }

func isMountPoint(dir string) bool {
	var st unix.Statx_t
	const how = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_STATX_DONT_SYNC // no file server is asked
	err := unix.Statx(unix.AT_FDCWD, dir, how, unix.STATX_TYPE, &st)
	return err == nil && st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// mountLocal mounts what a volume's options say at its place.
func mountLocal(v Volume, at string) error {
	failed := func(err error) *fault.Error {
		return fault.New(fault.Internal, "", "", "error while mounting volume '%s': %w", at, err)
	}
	typ, device := v.Options["type"], v.Options["device"]
	o := readMountOptions(typ, v.Options["o"])
	if strings.HasPrefix(typ, "nfs") || typ == "cifs" {
		var err error
		if device, o.data, err = resolveServer(typ, device, o.data); err != nil {
			return failed(err)
		}
	}
	source := device
	if o.loop {
		loop, err := attachLoop(device, o.flags&unix.MS_RDONLY != 0)
		if err != nil {
			return failed(err)
		}
		defer loop.Close() // the mount keeps the device, which is freed with it
		source = loop.Name()
	}
	if err := o.mount(source, at, typ); err != nil {
		e := failed(fmt.Errorf("failed to mount local volume: mount %s:%s, flags: 0x%x, data: %s: %w", device, at, o.flags, withoutSecrets(o.data), err))
		if missingType(err) {
			return e.WithHint("the kernel has no file system of the type %q; is its module installed?", typ)
		}
		return e
	}
	return nil
}

// mount calls mount(2) as often as it takes, and leaves nothing mounted when it
// fails.
func (o mountOptions) mount(source, at, typ string) error {
	isBind := o.flags&unix.MS_BIND != 0
	if isBind {
		typ = ""
	}
	if err := unix.Mount(source, at, typ, o.flags, strings.Join(o.data, ",")); err != nil {
		return err
	}
	var err error
	// A bind takes its flags in a second step.
	if rest := o.flags &^ (unix.MS_BIND | unix.MS_REC); isBind && rest != 0 {
		err = unix.Mount("", at, "", rest|unix.MS_BIND|unix.MS_REMOUNT, "")
	}
	if err == nil {
		err = unix.Mount("", at, "", o.propagation, "")
	}
	if err != nil {
		_ = unmount(at)
	}
	return err
}

// attachLoop makes a block device of a file. The kernel frees it when nobody has it
// open or mounted any more, however its owner ends.
func attachLoop(file string, readOnly bool) (*os.File, error) {
	how, flags := os.O_RDWR, uint32(unix.LO_FLAGS_AUTOCLEAR)
	if readOnly {
		how, flags = os.O_RDONLY, flags|unix.LO_FLAGS_READ_ONLY
	}
	backing, err := os.OpenFile(file, how, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range 100 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, os.NewSyscallError("LOOP_CTL_GET_FREE", err)
		}
		loop, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), how, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Flags: flags}}
		copy(config.Info.File_name[:len(config.Info.File_name)-1], file)
		if err = unix.IoctlLoopConfigure(int(loop.Fd()), &config); err == nil {
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody else was faster
			return nil, os.NewSyscallError("LOOP_CONFIGURE", err)
		}
	}
	return nil, errors.New("no loop device is free")
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

// clearPlace makes sure that nothing is mounted in a volume's directory, which is
// going to be removed, and that no limit is kept for it.
func clearPlace(dir string) error {
	data := path.Join(dir, "_data")
	if err := unmount(data); err != nil {
		return err
	}
	if isMountPoint(data) {
		return unix.EBUSY
	}
	return quota.Release(dir)
}
