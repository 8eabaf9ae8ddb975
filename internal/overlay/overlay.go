// Package overlay makes overlay mounts, and mounts of a part of one or of a
// directory, that are attached nowhere: they live exactly as long as a descriptor,
// or as the mount namespace they are moved into. It exists so that the runtime, the
// monitor and the engine stack layers in one way, with any number of layers, on
// every kernel since 5.12, and in one way find what is below a directory that
// others write to.
package overlay

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"berth/internal/fault"

	"golang.org/x/sys/unix"
)

// Stack is the directories of an overlay.
type Stack struct {
	Lower []string // read-only, top first; two or more unless Upper is set
	Upper string   // writable; "" makes a read-only mount
	Work  string   // overlayfs' own, beside Upper
}

// Mount makes a detached mount of s with the attributes attrs (MOUNT_ATTR_*) and
// returns its descriptor, which is close-on-exec. Errors name the directory.
func Mount(s Stack, attrs int) (int, error) {
	if len(s.Lower) == 0 {
		return -1, fault.New(fault.Invalid, "mount overlay", "", "no lower layer is given")
	}
	if !oldKernel.Load() {
		fd, err := layerByLayer(s, attrs)
		if !errors.Is(err, errOneByOne) {
			return fd, err
		}
		oldKernel.Store(true) // each attempt would leave a line in its log
	}
	return allAtOnce(s, attrs)
}

var oldKernel atomic.Bool

// shareable keeps the upper directory free of what means something in this
// mount only: a moved directory that refers to a lower one by name, a file
// whose data is in a lower layer. An upper directory can become a layer, of
// which others read everything. Some distributions' kernels switch them on.
var shareable = sync.OnceValue(func() (off []string) {
	for _, name := range [...]string{"redirect_dir", "metacopy"} {
		if b, err := os.ReadFile("/sys/module/overlay/parameters/" + name); err == nil && strings.HasPrefix(string(b), "Y") {
			off = append(off, name)
		}
	}
	return off
})

// errOneByOne says that the kernel does not take layers one by one: Linux
// before 6.5.
var errOneByOne = errors.New("layers are added one by one since Linux 6.5")

// legacy begins what the kernel says for a file system that does not use the
// mount interface itself and was given more parameters than fit a page.
const legacy = "VFS: Legacy:"

func failed(what string, err error) error {
	return fault.New(fault.Internal, "mount overlay", what, "%w", err)
}

// layerByLayer uses the mount interface that takes layers one by one.
func layerByLayer(s Stack, attrs int) (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fault.New(fault.Unsupported, "mount overlay", "", "%w", err).WithHint("the kernel needs overlayfs: modprobe overlay")
	}
	defer unix.Close(fs)
	for i, dir := range s.Lower {
		if err := set(fs, "lowerdir+", dir); err != nil {
			if errors.Is(err, unix.EINVAL) && !spoke(err) && i == 0 || strings.Contains(err.Error(), legacy) {
				return -1, errOneByOne
			}
			return -1, failed(fmt.Sprintf("lower layer %d (%s)", i, dir), err)
		}
	}
	if s.Upper != "" {
		if err := set(fs, "upperdir", s.Upper); err != nil {
			return -1, failed(s.Upper, err)
		}
		if err := set(fs, "workdir", s.Work); err != nil {
			return -1, failed(s.Work, err)
		}
		for _, name := range shareable() {
			if err := set(fs, name, "off"); err != nil {
				return -1, failed(name, err)
			}
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		// Before 6.5 an unknown parameter is refused here.
		err = explain(fs, err)
		if errors.Is(err, unix.EINVAL) && !spoke(err) {
			return -1, errOneByOne
		}
		return -1, failed(s.Lower[0], err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, failed(s.Lower[0], err)
	}
	return fd, nil
}

func set(fs int, key, path string) error {
	if len(path) >= 256 { // the kernel's limit for a value
		fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		path = fmt.Sprintf("/proc/self/fd/%d", fd)
	}
	if err := unix.FsconfigSetString(fs, key, path); err != nil {
		return explain(fs, err)
	}
	return nil
}

// explained is an error that the file system said something about.
type explained struct {
	error
	words string
}

func (e *explained) Error() string { return e.error.Error() + ": " + e.words }
func (e *explained) Unwrap() error { return e.error }

// spoke reports whether the file system explained err. Only those that use the
// mount interface themselves do, and they know layers one by one.
func spoke(err error) bool {
	var e *explained
	return errors.As(err, &e)
}

func explain(fs int, err error) error {
	var b [1024]byte
	n, rerr := unix.Read(fs, b[:])
	if rerr != nil || n <= 2 {
		return err
	}
	return &explained{err, strings.TrimSpace(string(b[2:n]))} // after the severity, as in "e "
}
