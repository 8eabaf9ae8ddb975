package tree

import (
	"io"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"berth/internal/fault"
	"berth/internal/overlay"
)

// Credentials is whose rights apply when files are read.
type Credentials struct {
	UID, GID uint32
	Groups   []uint32
}

func (c Credentials) root() bool { return c.UID == 0 }

// actor is a thread with the file system rights of a user. The kernel keeps these
// for each thread, so the engine's other threads never lose theirs.
type actor struct {
	calls chan func()
	ready error
}

func newActor(c Credentials) *actor {
	a := &actor{calls: make(chan func())}
	up := make(chan struct{})
	overlay.OnSpoiltThread(func() {
		a.ready = assume(c)
		close(up)
		for fn := range a.calls {
			fn()
		}
	})
	<-up
	return a
}

// assume takes on a user's rights in this thread. Setting the file system's user
// to another than root also takes away what root may do with files.
func assume(c Credentials) error {
	groups := c.Groups
	if len(groups) == 0 {
		groups = []uint32{c.GID}
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); e != 0 {
		return e
	}
	// The calls return the old value; asking with -1 tells whether they worked.
	for _, id := range []struct {
		call uintptr
		id   uint32
	}{{unix.SYS_SETFSGID, c.GID}, {unix.SYS_SETFSUID, c.UID}} {
		unix.RawSyscall(id.call, uintptr(id.id), 0, 0)
		now, _, _ := unix.RawSyscall(id.call, ^uintptr(0), 0, 0)
		if uint32(now) != id.id {
			return fault.New(fault.Forbidden, "take on the rights of user", strconv.Itoa(int(c.UID)), "the kernel refused it").
				WithHint("the engine must run as root to read files for other users")
		}
	}
	return nil
}

func (a *actor) do(fn func() error) error {
	if a.ready != nil {
		return a.ready
	}
	done := make(chan error, 1)
	a.calls <- func() { done <- fn() }
	return <-done
}

func (a *actor) stop() { close(a.calls) }

func strconvQuote(s string) string { return strconv.Quote(s) }

// readAll reads a file that must not have more than limit bytes.
func readAll(f *os.File, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, fault.New(fault.Invalid, "read file", quote(f.Name()), "it is larger than %d bytes", limit)
	}
	return data, err
}

func itoa(n int) string { return strconv.Itoa(n) }
