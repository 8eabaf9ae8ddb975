package quota

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of linux/quota.h and linux/dqblk_xfs.h. File systems answer either family of
// commands, whichever they were made for.
const (
	projectQuota = 2 // PRJQUOTA
	getFormat    = 0x800004
	getQuota     = 0x800007
	setQuota     = 0x800008
	getState     = 'X'<<8 + 8 // Q_XGETQSTATV

	blockSize   = 1024 // of limits
	validLimits = 1    // QIF_BLIMITS

	accounting = 1 << 4 // FS_QUOTA_PDQ_ACCT
	enforcing  = 1 << 5 // FS_QUOTA_PDQ_ENFD

	getXattr = 0x801c581f // FS_IOC_FSGETXATTR, of linux/fs.h
	setXattr = 0x401c5820 // FS_IOC_FSSETXATTR
)

// usage is struct if_dqblk: what a project has and may have.
type usage struct {
	hardBlocks, softBlocks uint64 // limits, in blocks of 1 KiB
	bytes                  uint64
	hardInodes, softInodes uint64
	inodes                 uint64
	blockTime, inodeTime   uint64
	valid                  uint32
	_                      uint32
}

func (u *usage) inUse() bool {
	return u.hardBlocks|u.softBlocks|u.bytes|u.hardInodes|u.softInodes|u.inodes != 0
}

// quotactl asks about the file system that fd is on (Linux 5.14).
func quotactl(fd, command int, id uint32, to unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, uintptr(fd), uintptr(command<<8|projectQuota), uintptr(id), uintptr(to), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// read returns what the file system knows of a project.
func read(fd int, id uint32) (*usage, error) {
	u := new(usage)
	err := quotactl(fd, getQuota, id, unsafe.Pointer(u))
	if err == unix.ENOENT {
		return new(usage), nil // XFS of a project that never had anything
	}
	return u, err
}

// limit sets the limit of a project in blocks of 1 KiB; 0 is none.
func limit(fd int, id uint32, blocks uint64) error {
	u := &usage{hardBlocks: blocks, valid: validLimits}
	return quotactl(fd, setQuota, id, unsafe.Pointer(u))
}

// state returns what of project quotas is switched on: accounting, enforcing.
func state(fd int) uint16 {
	var s struct { // struct fs_quota_statv
		version int8
		_       uint8
		flags   uint16
		_       [252]byte // more than there is
	}
	s.version = 1 // FS_QSTATV_VERSION1
	if quotactl(fd, getState, 0, unsafe.Pointer(&s)) != nil {
		return 0 // what is off altogether is an error to the kernel
	}
	return s.flags
}

func enforced(fd int) bool { return state(fd)&enforcing != 0 }

// attributes is struct fsxattr.
type attributes struct {
	flags, extentSize, extents, project, cowExtentSize uint32
	_                                                  [8]byte
}

// inherit has what is made in a directory get its project (FS_XFLAG_PROJINHERIT).
const inherit = 0x200

func getAttributes(fd int) (*attributes, error) {
	a := new(attributes)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), getXattr, uintptr(unsafe.Pointer(a)))
	if errno != 0 {
		return nil, errno
	}
	return a, nil
}

func projectOf(fd int) (uint32, error) {
	a, err := getAttributes(fd)
	if err != nil {
		return 0, err
	}
	return a.project, nil
}

// setProject puts an open file or directory under a project, and what will be made
// in the directory.
func setProject(fd int, id uint32) error {
	a, err := getAttributes(fd)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	a.project = id
	if a.flags &^= inherit; id != 0 && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		a.flags |= inherit
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), setXattr, uintptr(unsafe.Pointer(a)))
	if errno != 0 {
		return errno
	}
	return nil
}
