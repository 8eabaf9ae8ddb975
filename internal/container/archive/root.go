// Package archive copies files between a container and a tar stream. It exists
// because a container's names lead where the container wants: every path is
// resolved by the kernel below the container's own root (openat2 with
// RESOLVE_IN_ROOT), through the mounts that the container has, and everything
// after that is done relative to descriptors. No name is ever looked up on the
// host, and nothing of the container is executed or loaded (CVE-2018-15664,
// CVE-2019-14271, CVE-2021-41089, CVE-2026-41567, CVE-2026-41568,
// CVE-2026-42306).
package archive

import (
	"errors"
	"os"
	"path"
	"strconv"
	"strings"

	"berth/internal/fault"

	"golang.org/x/sys/unix"
)

// Root is the file system of one container, mounts included. It is held by
// descriptors alone, so that nothing is left when its holder is killed.
type Root struct {
	dir   int // of the root
	space int // the mount namespace, which keeps the mounts together; -1 without
	pid   int // a pidfd of the process whose root it is; -1 for a container that does not run
}

// Running opens the root of a running container through its process. id is a part
// of the process's cgroup: it proves that the process is still the container's.
func Running(pid int, id string) (*Root, error) {
	const op = "enter container"
	r := &Root{dir: -1, space: -1, pid: -1}
	fail := func(err error) (*Root, error) {
		r.Close()
		if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) {
			return nil, errEnded
		}
		return nil, fault.New(fault.Internal, op, id, "%w", err)
	}
	var err error
	if r.pid, err = unix.PidfdOpen(pid, 0); err != nil {
		return fail(err)
	}
	proc, err := unix.Open("/proc/"+strconv.Itoa(pid), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(proc)
	if r.space, err = unix.Openat(proc, "ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return fail(err)
	}
	if r.dir, err = unix.Openat(proc, "root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fail(err)
	}
	cgroup, err := unix.Openat(proc, "cgroup", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	f := os.NewFile(uintptr(cgroup), "cgroup")
	defer f.Close()
	text := make([]byte, 16<<10)
	n, err := f.Read(text)
	if err != nil {
		return fail(err)
	}
	if !strings.Contains(string(text[:n]), id) {
		r.Close()
		return nil, errEnded
	}
	return r, r.Check()
}

// errEnded says that the container's process is gone.
var errEnded = fault.New(fault.Conflict, "", "", "the container has ended meanwhile")

// Check returns an error when the process whose root this is has ended: whatever
// were written then might be written beside its successor's back.
func (r *Root) Check() error {
	if r.pid < 0 {
		return nil
	}
	poll := []unix.PollFd{{Fd: int32(r.pid), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 0); err == nil && n > 0 {
		return errEnded
	}
	return nil
}

// Dir returns the descriptor of the root; it belongs to r.
func (r *Root) Dir() int { return r.dir }

// Close lets go of the container's files.
func (r *Root) Close() {
	for _, fd := range []*int{&r.dir, &r.space, &r.pid} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
}

// open opens a path of the container below its root. The kernel gives up with
// EAGAIN when names are moved about meanwhile; then it is asked again.
func (r *Root) open(name string, flags uint64) (int, error) {
	return openBelow(r.dir, name, flags)
}

func openBelow(dir int, name string, flags uint64) (int, error) {
	how := &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(dir, name, how)
		if err == nil || (err != unix.EAGAIN && err != unix.EINTR) || try > 1000 {
			return fd, err
		}
	}
}

// Clean makes a path of a user's absolute and clean, and keeps the "/" or "/." at
// its end, which says that a link there is meant to be followed.
func Clean(name string) string {
	clean := path.Join("/", name)
	if clean == "/" {
		return clean
	}
	switch {
	case strings.HasSuffix(name, "/."):
		return clean + "/."
	case strings.HasSuffix(name, "/"):
		return clean + "/"
	}
	return clean
}

// maxLinks bounds the links followed on the way to one name, as the kernel does.
const maxLinks = 40

// resolve returns the path without links that a name leads to now. What does not
// exist is taken as it is written. The answer is for people and for putting names
// together; it is resolved again when it is used.
func (r *Root) resolve(name string) (string, error) {
	done, rest := "/", strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		to, err := r.readlink(next)
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
			done = next
			continue
		case err != nil:
			return "", err
		}
		if links++; links > maxLinks {
			return "", unix.ELOOP
		}
		if path.IsAbs(to) {
			done = "/"
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	return done, nil
}

// readlink returns EINVAL for what is no link.
func (r *Root) readlink(name string) (string, error) {
	fd, err := r.open(name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return linkAt(fd, "")
}

// linkAt reads a link of a directory, or the one that is open when name is "".
func linkAt(fd int, name string) (string, error) {
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(fd, name, buf[:])
	if err == unix.ENOENT && name == "" {
		err = unix.EINVAL // what is open is no link
	}
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}
