package stdio

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// AttachOptions say what an attached client gets and gives.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	DetachKeys            []byte
	Prefix                []byte // sent first, unframed
}

// conn is an attached client. Its fields are guarded by its Proc, but for
// events.
type conn struct {
	fd     int
	at     ticket
	events atomic.Uint32 // of epoll, not looked at yet

	wants [2]bool
	pos   [2]int64 // in the spools: what was sent

	prefix  []byte // what is left to send of it
	header  [headerSize]byte
	headers int  // bytes of header left to send
	frame   int  // bytes left to send of the frame that was begun
	stream  int  // which it is of
	blocked bool // the socket was full

	stdin    bool
	readable bool
	ended    bool   // the client sends no more
	gone     bool   // it does not read either
	ending   bool   // everything was sent; the client has to close
	pending  []byte // input that the process did not take yet
	keys     detachKeys
}

const (
	headerSize  = 8 // stream number, three zeros, length in network order
	maxFrame    = 32 << 10
	connEvents  = unix.EPOLLIN | unix.EPOLLRDHUP
	connBlocked = connEvents | unix.EPOLLOUT
)

// ErrClosed says that a process's streams are closed for good.
var ErrClosed = errors.New("its output has ended")

// Attach connects a client, which gets what is written from now on. The Proc
// owns fd from here on, also on error.
func (p *Proc) Attach(fd int, o AttachOptions) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return err
	}
	c := &conn{fd: fd, at: noTicket, prefix: o.Prefix, stdin: o.Stdin, wants: [2]bool{o.Stdout, o.Stderr}, keys: detachKeys{keys: o.DetachKeys}}
	p.mu.Lock()
	if p.closed || p.drained {
		p.mu.Unlock()
		_ = unix.Close(fd)
		return ErrClosed
	}
	for i := range p.out {
		c.pos[i] = p.out[i].end
	}
	var err error
	if c.at, err = p.pump.add(fd, connEvents, p, bitConns, c); err != nil {
		p.mu.Unlock()
		_ = unix.Close(fd)
		return err
	}
	p.conns = append(p.conns, c)
	p.mu.Unlock()
	p.post(bitCheck)
	return nil
}

// drop closes a client's connection.
func (p *Proc) drop(c *conn) {
	p.pump.remove(c.fd, c.at)
	_ = unix.Close(c.fd)
	c.fd = -1
	if i := slices.Index(p.conns, c); i >= 0 {
		p.conns = slices.Delete(p.conns, i, i+1)
	}
}

// noteConns takes over what the event loop saw of sockets.
func (p *Proc) noteConns() {
	for _, c := range p.conns {
		events := c.events.Swap(0)
		if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			c.readable = true
		}
		if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			c.lose()
		}
		if events&unix.EPOLLOUT != 0 && c.blocked {
			c.blocked = false
			p.pump.change(c.fd, connEvents, c.at)
		}
	}
}

// lose notes that a client does not read any more, so that nobody waits for it.
func (c *conn) lose() {
	c.gone = true
	c.wants = [2]bool{}
	c.prefix, c.headers, c.frame = nil, 0, 0
}

// deliverAll sends clients what there is for them and closes those who have
// everything.
func (p *Proc) deliverAll(mem *scratch) {
	for _, c := range slices.Clone(p.conns) {
		if !c.ending && !c.gone {
			p.deliver(c, mem)
		}
		if c.fd < 0 {
			continue
		}
		if p.drained && !c.ending && p.idle(c) {
			p.end(c)
		}
		if c.ending && c.readable {
			p.linger(c, mem)
		}
		if c.fd >= 0 && p.useless(c) {
			p.drop(c)
		}
	}
}

// useless reports that nothing can be done for a client any more: it is gone,
// and what it had to say was passed on.
func (p *Proc) useless(c *conn) bool {
	said := c.ended && len(c.pending) == 0
	if !p.open || p.drained || !c.stdin {
		said = true // nobody will listen
	}
	return c.gone && said || c.ended && said && !c.wants[0] && !c.wants[1] && p.open
}

// idle reports that a client was sent everything there is.
func (p *Proc) idle(c *conn) bool {
	return len(c.prefix) == 0 && c.headers == 0 && c.frame == 0 && p.nextStream(c) < 0
}

func (p *Proc) nextStream(c *conn) int {
	for i := range p.out {
		if c.wants[i] && p.out[i].spool >= 0 && c.pos[i] < p.out[i].end {
			return i
		}
	}
	return -1
}

// deliver sends until the client has everything or takes no more.
func (p *Proc) deliver(c *conn, mem *scratch) {
	for !c.blocked && !p.idle(c) {
		header, data := p.nextPiece(c, mem)
		if header == nil && data == nil {
			return
		}
		n, err := unix.SendmsgBuffers(c.fd, [][]byte{header, data}, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			c.blocked = true
			p.pump.change(c.fd, connBlocked, c.at)
		case err != nil:
			c.lose()
			c.readable = true
			return
		default:
			c.sent(n)
		}
	}
}

// nextPiece returns what is to be sent next. A frame that was begun is
// completed before another one.
func (p *Proc) nextPiece(c *conn, mem *scratch) (header, data []byte) {
	if len(c.prefix) > 0 {
		return nil, c.prefix
	}
	if c.headers == 0 && c.frame == 0 {
		i := p.nextStream(c)
		c.stream = i
		c.frame = int(min(maxFrame, p.out[i].end-c.pos[i]))
		if !p.isTTY {
			c.headers = headerSize
			c.header = [headerSize]byte{byte(i + 1)}
			binary.BigEndian.PutUint32(c.header[4:], uint32(c.frame))
		}
	}
	n, err := unix.Pread(p.out[c.stream].spool, mem.in[:c.frame], c.pos[c.stream])
	if err != nil || n < c.frame {
		c.lose() // it cannot be given what it was promised
		return nil, nil
	}
	return c.header[headerSize-c.headers:], mem.in[:n]
}

// sent notes that the client took n bytes of the next piece.
func (c *conn) sent(n int) {
	if len(c.prefix) > 0 {
		c.prefix = c.prefix[n:]
		return
	}
	of := min(n, c.headers)
	c.headers -= of
	n -= of
	c.frame -= n
	c.pos[c.stream] += int64(n)
}

// end says to a client that nothing more will come. The connection stays until
// the client closes it too: closing it with input unread would take output that
// is still on its way with it.
func (p *Proc) end(c *conn) {
	c.ending = true
	c.wants = [2]bool{}
	c.stdin, c.pending = false, nil
	_ = unix.Shutdown(c.fd, unix.SHUT_WR)
	c.readable = true
}

// linger throws away what an ended client still sends, and closes the
// connection once it has ended its side.
func (p *Proc) linger(c *conn, mem *scratch) {
	for !c.ended {
		n, err := unix.Read(c.fd, mem.in[:])
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			c.readable = false
			return
		case err != nil || n == 0:
			c.ended = true
		}
	}
	p.drop(c)
}
