package quota

import (
	"errors"
	"path/filepath"
	"unsafe"

	"berth/internal/fault"

	"golang.org/x/sys/unix"
)

// whyNot says which condition of a limit does not hold at dir, and what would help.
// What fails is what the kernel answers; only the advice goes by the name of the
// file system.
func whyNot(dir string) error {
	no := func(format string, args ...any) *fault.Error {
		return fault.New(fault.Unsupported, "limit sizes", "", format, args...)
	}
	if quotactl(-1, getFormat, 0, nil) == unix.ENOSYS {
		return no("the kernel lacks quotactl_fd").WithHint("it is there since Linux 5.14, with CONFIG_QUOTACTL")
	}
	fd, err := openDir(dir)
	if err != nil {
		return fault.Wrap("look for quotas", dir, err)
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return fault.Wrap("look for quotas", dir, err)
	}
	fs := kindOf(&st)
	fs.at = mountPoint(dir)
	var format uint32
	err = quotactl(fd, getFormat, 0, unsafe.Pointer(&format))
	switch on := state(fd); {
	case on&enforcing != 0:
		return nil // switched on since
	case on&accounting != 0:
		return no("%s counts what projects take, and enforces no limits", fs).WithHint("%s", fs.enforce)
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		return no("%s has no project quotas in this kernel", fs).WithHint("%s", fs.kernel)
	}
	if err := tryProject(dir); err != nil {
		return no("%s cannot give files a project: %w", fs, err).WithHint("%s", fs.make)
	}
	return no("project quotas of %s are not switched on", fs).WithHint("%s", fs.mount)
}

// kind is what is known about a file system by its name, for advice.
type kind struct {
	name                         string
	kernel, make, mount, enforce string // what helps where that is missing
	at                           string // where it is mounted
}

func (k kind) String() string { return "the file system at " + k.at + " (" + k.name + ")" }

// mountPoint returns where the file system of a directory is mounted.
func mountPoint(dir string) string {
	for dir != "/" && dir != "." {
		var st unix.Statx_t
		if unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, 0, &st) == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

const elsewhere = "put the data directory on XFS that is mounted with pquota, or on ext4 that is made with -O project,quota and mounted with prjquota"

func kindOf(st *unix.Statfs_t) kind {
	other := kind{name: "of an unknown type", kernel: elsewhere, make: elsewhere, mount: elsewhere, enforce: elsewhere}
	switch uint32(st.Type) {
	case unix.EXT4_SUPER_MAGIC:
		return kind{name: "ext4",
			kernel:  "the kernel needs CONFIG_QUOTA and CONFIG_QFMT_V2",
			make:    "make it with mkfs.ext4 -O project,quota, or unmount it and use tune2fs -O project,quota; then mount it with prjquota",
			mount:   "unmount it, use tune2fs -O project,quota -Q prjquota, and mount it with prjquota; the kernel needs CONFIG_QFMT_V2",
			enforce: "mount it with prjquota; mount -o remount,prjquota does"}
	case unix.XFS_SUPER_MAGIC:
		return kind{name: "XFS",
			kernel:  "the kernel needs CONFIG_XFS_QUOTA",
			make:    "make it with mkfs.xfs -m crc=1 and mount it with pquota",
			mount:   "mount it with pquota; a remount is not enough, and a root file system needs rootflags=pquota on the kernel's command line",
			enforce: "mount it with pquota instead of pqnoenforce"}
	case unix.BTRFS_SUPER_MAGIC:
		other.name = "Btrfs"
	case unix.TMPFS_MAGIC:
		other.name = "tmpfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		other.name = "overlay"
	}
	return other
}

// tryProject gives a file without a name a project, which tells whether the file
// system was made for it. Whatever happens, nothing is left of the file.
func tryProject(dir string) error {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return setProject(fd, firstID)
}
