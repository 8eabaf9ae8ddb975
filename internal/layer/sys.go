package layer

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// futimens sets the times of an open file. The library has it only by path.
func futimens(fd int, times *[2]unix.Timespec) error {
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(times)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func dup(fd int) (int, error) {
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
}

// readlinkat returns a symlink's target, or EINVAL for what is no symlink.
func readlinkat(dirfd int, name string) (string, error) {
	buf := make([]byte, 4096)
	n, err := unix.Readlinkat(dirfd, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

func inode(dirfd int, name string) (uint64, error) {
	var st unix.Stat_t
	err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st.Ino, err
}

// spread tells ext4 that the directories below dir have nothing to do with each
// other, so that it does not put their files next to each other (chattr(1), T).
// It is a matter of speed: for minutes after a deletion ext4 goes through all of
// the deleted inodes again for each that it allocates nearby, which makes
// unpacking a layer after a removal several times slower. Other file systems do
// not know it.
func spread(dir string) {
	const topDir = 0x20000 // FS_TOPDIR_FL
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err == nil && flags&topDir == 0 {
		_ = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags|topDir)
	}
}
