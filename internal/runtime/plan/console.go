package plan

import (
	"encoding/binary"

	"berth/internal/runtime/boot"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// console makes a terminal in the container's own devpts, sends its master to
// the parent and makes its other side standard input, output and error. No path
// below /dev/pts is ever opened but the multiplexer's, and that is checked; the
// other side comes from the master itself.
func (b *builder) console(p *specs.Process, bind bool) {
	b.Step("process.terminal: open a terminal")
	_, master := b.openIn(b.root, "dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY, inRoot|unix.RESOLVE_NO_SYMLINKS)
	const devpts = 0x1cd1
	b.Call(unix.SYS_FSTATFS, master.Val(), b.scratch)
	b.Test(b.scratch, ^uint64(0), devpts, unix.ENODEV)
	b.Call(unix.SYS_IOCTL, master.Val(), boot.Int(unix.TIOCSPTLCK), b.Words(boot.Int(0)))
	slave := b.Slot()
	b.Call(unix.SYS_IOCTL, master.Val(), boot.Int(unix.TIOCGPTPEER), boot.Int(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)).Into(slave)
	if p.ConsoleSize != nil {
		var ws [8]byte
		binary.NativeEndian.PutUint16(ws[0:], uint16(p.ConsoleSize.Height))
		binary.NativeEndian.PutUint16(ws[2:], uint16(p.ConsoleSize.Width))
		b.Call(unix.SYS_IOCTL, master.Val(), boot.Int(unix.TIOCSWINSZ), b.Bytes(ws[:]))
	}
	b.Call(unix.SYS_FCHOWN, slave.Val(), boot.Int(p.User.UID), boot.Int(-1)).Ignore(unix.EPERM, unix.EINVAL)
	b.sendFD(ReqConsole, boot.Int(0), master.Val())
	if bind {
		b.Step("process.terminal: mount /dev/console")
		tree := b.Slot()
		const clone = unix.OPEN_TREE_CLONE | unix.AT_EMPTY_PATH | unix.OPEN_TREE_CLOEXEC
		b.Call(unix.SYS_OPEN_TREE, slave.Val(), b.Str(""), boot.Int(clone)).Into(tree)
		b.place(tree.Val(), "/dev/console", placing{plain: true})
	}
	b.Step("process.terminal: take the terminal")
	for fd := range 3 {
		b.Call(unix.SYS_DUP3, slave.Val(), boot.Int(fd), boot.Int(0))
	}
	b.Call(unix.SYS_IOCTL, boot.Int(0), boot.Int(unix.TIOCSCTTY), boot.Int(0))
}
