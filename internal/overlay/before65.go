package overlay

import (
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// allAtOnce mounts with mount(2), whose options must fit a page: layers are named
// by descriptor, relative to /proc/thread-self/fd. That mount has to be attached
// somewhere, so a thread with a mount namespace of its own makes it there, takes a
// detached copy, and ends together with its namespace.
func allAtOnce(s Stack, attrs int) (int, error) {
	type result struct {
		fd  int
		err error
	}
	done := make(chan result, 1)
	OnSpoiltThread(func() {
		fd, err := mountAside(s, attrs)
		done <- result{fd, err}
	})
	r := <-done
	return r.fd, r.err
}

// OnSpoiltThread has a thread run do that ends afterwards, with whatever was changed
// about it (its namespaces, its rights), and does not wait for it. It is never the main
// thread, which cannot end, and whose namespaces are what /proc shows of the whole
// process.
func OnSpoiltThread(do func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			do() // and never unlock
			return
		}
		// While this goroutine holds the main thread, others run elsewhere.
		other := make(chan struct{})
		OnSpoiltThread(func() {
			defer close(other)
			do()
		})
		<-other
		runtime.UnlockOSThread()
	}()
}

func mountAside(s Stack, attrs int) (int, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return -1, failed("in a mount namespace of its own", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, failed("in a mount namespace of its own", err)
	}
	// Overlayfs wants its layers in the namespace of the mount, so they are
	// opened only now.
	var open []int
	defer func() {
		for _, fd := range open {
			_ = unix.Close(fd)
		}
	}()
	name := func(dir string) (string, error) {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", failed(dir, err)
		}
		open = append(open, fd)
		return strconv.Itoa(fd), nil
	}
	lower := make([]string, len(s.Lower))
	for i, dir := range s.Lower {
		var err error
		if lower[i], err = name(dir); err != nil {
			return -1, err
		}
	}
	options := "lowerdir=" + strings.Join(lower, ":")
	if s.Upper != "" {
		upper, err := name(s.Upper)
		if err != nil {
			return -1, err
		}
		work, err := name(s.Work)
		if err != nil {
			return -1, err
		}
		options += ",upperdir=" + upper + ",workdir=" + work
		for _, name := range shareable() {
			options += "," + name + "=off"
		}
	}
	if err := unix.Chdir("/proc/thread-self/fd"); err != nil {
		return -1, failed("", err)
	}
	at := s.Lower[0]
	if err := unix.Mount("overlay", at, "overlay", 0, options); err != nil {
		return -1, failed(at, err)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, at, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, failed(at, err)
	}
	if attrs != 0 {
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: uint64(attrs)}); err != nil {
			_ = unix.Close(fd)
			return -1, failed(at, err)
		}
	}
	return fd, nil
}
