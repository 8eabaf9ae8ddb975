package stdio

import (
	"slices"

	"golang.org/x/sys/unix"
)

// feedAll passes on what clients say.
func (p *Proc) feedAll(mem *scratch) {
	for _, c := range slices.Clone(p.conns) {
		if c.readable && !c.ending || len(c.pending) > 0 {
			p.feed(c, mem)
		}
	}
}

const readInput = 32 << 10

// feed passes on one client's input until there is none or the process takes no
// more. Input for which there is no taker is thrown away.
func (p *Proc) feed(c *conn, mem *scratch) {
	for {
		if len(c.pending) > 0 {
			n := p.input(c.pending)
			if c.pending = c.pending[n:]; len(c.pending) > 0 {
				return // an event of the process's side brings us back
			}
			c.pending = nil
		}
		if c.ended {
			p.inputEnded(c)
			return
		}
		n, err := unix.Read(c.fd, mem.in[:readInput])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			c.readable = false
			return
		case err != nil || n == 0:
			c.ended, c.readable = true, false
			c.pending = c.keys.rest()
			continue
		}
		if !c.stdin {
			continue
		}
		text, detach := c.keys.filter(mem.in[:n])
		if taken := p.input(text); taken < len(text) {
			c.pending = slices.Clone(text[taken:])
		}
		if detach {
			p.end(c)
			if p.cfg.OnDetach != nil {
				p.after = append(p.after, p.cfg.OnDetach)
			}
			return
		}
	}
}

// input gives the process what it takes of text.
func (p *Proc) input(text []byte) (taken int) {
	for taken < len(text) {
		fd := p.files.Stdin
		if p.isTTY {
			fd = p.files.TTY
		}
		if fd < 0 {
			return len(text)
		}
		n, err := unix.Write(fd, text[taken:])
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			p.awaitInput()
			return taken
		case err != nil: // nobody reads it any more
			p.closeInput()
			return len(text)
		default:
			taken += n
		}
	}
	return taken
}

// awaitInput asks for an event once the process takes input again. Most
// processes never have to be waited for, so that their pipe is not watched from
// the beginning.
func (p *Proc) awaitInput() {
	if p.isTTY || p.files.Stdin < 0 {
		return // the terminal is watched anyway
	}
	if p.stdinAt == noTicket {
		var err error
		if p.stdinAt, err = p.pump.add(p.files.Stdin, unix.EPOLLOUT, p, bitStdin, nil); err != nil {
			p.warn("watch input: %v", err)
		}
		return
	}
	p.pump.change(p.files.Stdin, unix.EPOLLOUT, p.stdinAt)
}

func (p *Proc) inputEnded(c *conn) {
	if c.stdin && p.cfg.CloseStdin && !p.isTTY {
		p.closeInput()
	}
	c.stdin = false
}

func (p *Proc) closeInput() {
	if p.isTTY || p.files.Stdin < 0 {
		return
	}
	p.closeStdin()
	if p.cfg.OnStdinClosed != nil {
		p.after = append(p.after, p.cfg.OnStdinClosed)
	}
}

// detachKeys recognises a sequence of keys in a client's input.
type detachKeys struct {
	keys    []byte
	matched int // of keys, held back
}

// filter returns what of text is to be passed on, and whether the keys were
// typed. What may be the beginning of the keys is held back until it is not.
func (d *detachKeys) filter(text []byte) (passed []byte, detach bool) {
	if len(d.keys) == 0 || d.matched == 0 && !slices.Contains(text, d.keys[0]) {
		return text, false
	}
	for _, b := range text {
		if d.matched > 0 && b != d.keys[d.matched] {
			passed = append(passed, d.keys[:d.matched]...)
			d.matched = 0
		}
		if b != d.keys[d.matched] {
			passed = append(passed, b)
			continue
		}
		if d.matched++; d.matched == len(d.keys) {
			d.matched = 0
			return passed, true
		}
	}
	return passed, false
}

// rest returns what is held back when no more will come.
func (d *detachKeys) rest() []byte {
	held := d.keys[:d.matched]
	d.matched = 0
	return slices.Clone(held)
}
