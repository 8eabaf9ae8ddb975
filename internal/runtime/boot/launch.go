package boot

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Launch says how to start an image.
type Launch struct {
	Flags    uint64 // CLONE_NEW*, CLONE_PARENT; not CLONE_NEWTIME or CLONE_NEWCGROUP
	CgroupFD int    // directory of a v2 cgroup to start in, or -1
	Inherit  []int  // descriptors that the init keeps, under the same numbers
	Name     string // argv[0] of the init
}

// cloneArgs is struct clone_args of clone3(2).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal     uint64
	stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// spawnArgs is known to the assembly by offset.
type spawnArgs struct {
	clone     uintptr // 0
	cloneSize uintptr // 8
	fds       uintptr // 16
	nfds      uintptr // 24
	execFD    uintptr // 32
	empty     uintptr // 40
	argv      uintptr // 48
	envp      uintptr // 56
	childErr  uintptr // 64
	result    uintptr // 72
	all       uint64  // 80
	_         uint64  // 88: the old mask, which only the assembly looks at
}

//go:noescape
func spawn(a *spawnArgs)

// block is everything the child reads: one object on the heap, whose address
// stays the same while the goroutine's stack may move.
type block struct {
	spawn spawnArgs
	clone cloneArgs
	pidfd int32
	fds   []int32
	empty [1]byte
	name  [16]byte
	argv  [2]uintptr
	envp  [1]uintptr
}

// block prepares the clone and the exec of the file exe. It is not inlined, for
// what it returns must not come to lie on a stack.
//
//go:noinline
func (l *Launch) block(exe int) *block {
	b := &block{fds: make([]int32, len(l.Inherit)+1)}
	b.pidfd = -1
	b.clone.flags = l.Flags | unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_PIDFD
	b.clone.pidfd = uint64(uintptr(unsafe.Pointer(&b.pidfd)))
	if l.Flags&unix.CLONE_PARENT == 0 {
		b.clone.exitSignal = uint64(unix.SIGCHLD)
	}
	if l.CgroupFD >= 0 {
		b.clone.flags |= unix.CLONE_INTO_CGROUP
		b.clone.cgroup = uint64(l.CgroupFD)
	}
	for i, fd := range l.Inherit {
		b.fds[i] = int32(fd)
	}
	copy(b.name[:15], l.Name)
	b.argv[0] = uintptr(unsafe.Pointer(&b.name))
	b.spawn = spawnArgs{
		clone:     uintptr(unsafe.Pointer(&b.clone)),
		cloneSize: unsafe.Sizeof(b.clone),
		fds:       uintptr(unsafe.Pointer(unsafe.SliceData(b.fds))),
		nfds:      uintptr(len(l.Inherit)),
		execFD:    uintptr(exe),
		empty:     uintptr(unsafe.Pointer(&b.empty)),
		argv:      uintptr(unsafe.Pointer(&b.argv)),
		envp:      uintptr(unsafe.Pointer(&b.envp)),
		all:       ^uint64(0),
	}
	return b
}

// Start runs the image. It returns the pid and a pidfd of the
// new process, which has executed the image when Start returns.
func (l *Launch) Start(image *Image) (pid int, pidfd *os.File, err error) {
	exe, err := seal(image)
	if err != nil {
		return 0, nil, err
	}
	defer unix.Close(exe)

	b := l.block(exe)
	spawn(&b.spawn)
	runtime.KeepAlive(b)

	if n := int64(b.spawn.result); n < 0 {
		return 0, nil, os.NewSyscallError("clone3", unix.Errno(-n))
	}
	pid = int(b.spawn.result)
	if b.pidfd >= 0 {
		pidfd = os.NewFile(uintptr(b.pidfd), "pidfd")
	}
	if b.spawn.childErr != 0 {
		if l.Flags&unix.CLONE_PARENT == 0 {
			unix.Wait4(pid, nil, 0, nil)
		}
		if pidfd != nil {
			pidfd.Close()
		}
		return 0, nil, os.NewSyscallError("execveat", unix.Errno(b.spawn.childErr))
	}
	return pid, pidfd, nil
}

// seal puts the image into a memfd that nobody can change any more.
func seal(image *Image) (int, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("berth-init", flags|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate("berth-init", flags)
	}
	if err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	if err := image.write(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("seal memfd", err)
	}
	return fd, nil
}
