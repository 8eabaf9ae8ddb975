package plan

import (
	"encoding/binary"
	"strconv"

	"berth/internal/runtime/boot"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Requests of the init to its parent: packets of two 64-bit words, the request
// and a number. A first word that is none of these is the address of an
// operation that failed, and the second its errno.
const (
	ReqStarted  = 1 + iota // the process exists: set mappings, limits, scores; answered
	ReqForked              // number: pid of the second process; descriptor: its pidfd
	ReqTarget              // number: index of a target to make; answered
	ReqCopyUp              // number: index of a target to copy into the tmpfs that comes along; answered
	ReqConsole             // descriptor: the master of the terminal
	ReqHooks               // run the hooks that come before the root changes; answered
	ReqListener            // number: descriptor of the seccomp listener in the init; answered
	ReqReady               // the init waits at the fence
	ReqStart               // run the hooks that come before the user's program; answered
	reqEnd
)

// IsRequest tells a request from a failure.
func IsRequest(word uint64) bool { return word < reqEnd }

// packet puts a request into the image. Its second word may be changed.
func (b *builder) packet(req int) boot.Arg {
	var p [16]byte
	binary.LittleEndian.PutUint64(p[:], uint64(req))
	return b.Bytes(p[:])
}

// send sends a request with a number known when the program is made.
func (b *builder) send(req, number int) {
	var p [16]byte
	binary.LittleEndian.PutUint64(p[:], uint64(req))
	binary.LittleEndian.PutUint64(p[8:], uint64(number))
	b.sendPacket(b.Bytes(p[:]))
}

func (b *builder) sendPacket(at boot.Arg) {
	b.Call(unix.SYS_SENDTO, boot.Int(b.sync), at, boot.Int(16), boot.Int(unix.MSG_NOSIGNAL), boot.Int(0), boot.Int(0))
}

// ask sends a request and waits until it is answered. A parent that is gone or
// refuses closes the socket.
func (b *builder) ask(req, number int) {
	b.send(req, number)
	b.wait()
}

func (b *builder) wait() {
	b.Call(unix.SYS_READ, boot.Int(b.sync), b.reply, boot.Int(1)).Into(b.answer)
	b.Test(b.answer.Addr(), ^uint64(0), 1, unix.ECANCELED)
}

// sendFD sends a request together with a descriptor.
func (b *builder) sendFD(req int, number, fd boot.Arg) {
	pkt := b.packet(req)
	b.Store(pkt.Plus(8), number)
	ctl := make([]byte, 24)
	binary.LittleEndian.PutUint64(ctl, 20)
	binary.LittleEndian.PutUint32(ctl[8:], unix.SOL_SOCKET)
	binary.LittleEndian.PutUint32(ctl[12:], unix.SCM_RIGHTS)
	control := b.Bytes(ctl)
	b.Store(control.Plus(16), fd)
	zero := boot.Int(0)
	iov := b.Words(pkt, boot.Int(16))
	msg := b.Words(zero, zero, iov, boot.Int(1), control, boot.Int(24), zero)
	b.Call(unix.SYS_SENDMSG, boot.Int(b.sync), msg, boot.Int(unix.MSG_NOSIGNAL))
}

// finish says how a program ends.
type finish struct {
	fence, report, ready int
	hooks                bool
	late                 *boot.Label // failure handler behind the fence
	lateOp               int
}

// failures appends what happens after a failed operation: the parent is told,
// and the process stays until the parent has looked at it.
func (b *builder) failures(f *finish) {
	one := boot.Int(1)
	b.Bind(b.fail)
	b.Call(unix.SYS_SENDTO, boot.Int(b.sync), b.Report(), boot.Int(16), boot.Int(unix.MSG_NOSIGNAL), boot.Int(0), boot.Int(0)).Ignore()
	b.Call(unix.SYS_READ, boot.Int(b.sync), b.reply, one).Ignore()
	b.Call(unix.SYS_EXIT_GROUP, one)
	if f.late == nil {
		return
	}
	// Behind the fence there is no parent; whoever opened it watches the fifo
	// and reads the report.
	b.Bind(f.late)
	b.Call(unix.SYS_WRITE, boot.Int(f.report), b.Report(), boot.Int(16)).Ignore()
	b.Call(unix.SYS_CLOSE, boot.Int(f.fence)).Ignore()
	b.Call(unix.SYS_NANOSLEEP, b.Words(boot.Int(3), boot.Int(0)), boot.Int(0)).Ignore()
	b.Call(unix.SYS_EXIT_GROUP, one)
}

// how builds a struct open_how.
func (b *builder) how(flags, mode, resolve uint64) boot.Arg {
	return b.Words(boot.Int(flags|unix.O_CLOEXEC), boot.Int(mode), boot.Int(resolve))
}

// openIn opens a path below dir, never leaving it.
func (b *builder) openIn(dir boot.Arg, path string, flags, resolve uint64) (boot.Op, boot.Slot) {
	fd := b.Slot()
	if path == "" || path == "/" {
		path = "."
	}
	op := b.Call(unix.SYS_OPENAT2, dir, b.Str(path), b.how(flags, 0, resolve), boot.Int(24)).Into(fd)
	return op, fd
}

// inRoot is how paths of the container are resolved: its root is "/", and links
// in /proc that lead elsewhere are refused.
const inRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// openProc opens a file of the real procfs. Nothing mounted on it is crossed,
// so what is opened belongs to procfs.
func (b *builder) openProc(path string, flags uint64, resolve uint64) boot.Slot {
	if resolve == 0 && flags != unix.O_RDONLY {
		resolve = unix.RESOLVE_NO_MAGICLINKS
	}
	beneath := uint64(unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV)
	if flags == unix.O_RDONLY {
		beneath = 0 // namespace files are magic links
	}
	_, fd := b.openIn(boot.Int(b.proc), path, flags, beneath|resolve)
	return fd
}

func (b *builder) writeProc(path, value string) boot.Op {
	fd := b.openProc(path, unix.O_WRONLY, 0)
	return b.Call(unix.SYS_WRITE, fd.Val(), b.Str(value), boot.Int(len(value)))
}

func timeOffset(clock string, o specs.LinuxTimeOffset) string {
	return clock + " " + strconv.FormatInt(o.Secs, 10) + " " + strconv.FormatUint(uint64(o.Nanosecs), 10)
}
