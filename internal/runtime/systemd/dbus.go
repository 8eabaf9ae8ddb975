package systemd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// This file speaks as much D-Bus as one method call to the service manager
// takes: the handshake, the encoding of a few types, and replies.

// Types of messages and header fields, from the D-Bus specification.
const (
	msgCall   = 1
	msgReturn = 2
	msgError  = 3

	fieldPath        = 1
	fieldInterface   = 2
	fieldMember      = 3
	fieldErrorName   = 4
	fieldReplySerial = 5
	fieldDestination = 6
	fieldSignature   = 8
)

// maxMessage bounds what a peer may send; the protocol allows 128 MiB.
const maxMessage = 1 << 20

// body encodes the arguments of a call. Every value is aligned to its size,
// counted from the start of the message, whose header ends at a multiple of 8.
type body struct{ b []byte }

func (e *body) align(n int) {
	for len(e.b)%n != 0 {
		e.b = append(e.b, 0)
	}
}

func (e *body) uint32(v uint32) {
	e.align(4)
	e.b = binary.LittleEndian.AppendUint32(e.b, v)
}

func (e *body) uint64(v uint64) {
	e.align(8)
	e.b = binary.LittleEndian.AppendUint64(e.b, v)
}

func (e *body) boolean(v bool) {
	n := uint32(0)
	if v {
		n = 1
	}
	e.uint32(n)
}

func (e *body) str(s string) {
	e.uint32(uint32(len(s)))
	e.b = append(append(e.b, s...), 0)
}

func (e *body) signature(s string) {
	e.b = append(append(append(e.b, byte(len(s))), s...), 0)
}

// array encodes elements of the given alignment.
func (e *body) array(align int, elements func()) {
	e.uint32(0)
	at := len(e.b) - 4
	e.align(align)
	start := len(e.b)
	elements()
	binary.LittleEndian.PutUint32(e.b[at:], uint32(len(e.b)-start))
}

// property encodes one (sv).
func (e *body) property(p Property) {
	e.align(8)
	e.str(p.Name)
	switch v := p.Value.(type) {
	case string:
		e.signature("s")
		e.str(v)
	case bool:
		e.signature("b")
		e.boolean(v)
	case uint64:
		e.signature("t")
		e.uint64(v)
	case []uint32:
		e.signature("au")
		e.array(4, func() {
			for _, n := range v {
				e.uint32(n)
			}
		})
	}
}

// message encodes a call.
func message(serial uint32, path, iface, member, destination, signature string, args []byte) []byte {
	var h body
	h.b = append(h.b, 'l', msgCall, 0, 1)
	h.uint32(uint32(len(args)))
	h.uint32(serial)
	h.array(8, func() {
		field := func(code byte, typ, value string) {
			h.align(8)
			h.b = append(h.b, code)
			h.signature(typ)
			if typ == "g" {
				h.signature(value)
			} else {
				h.str(value)
			}
		}
		field(fieldPath, "o", path)
		field(fieldInterface, "s", iface)
		field(fieldMember, "s", member)
		if destination != "" {
			field(fieldDestination, "s", destination)
		}
		if signature != "" {
			field(fieldSignature, "g", signature)
		}
	})
	h.align(8)
	return append(h.b, args...)
}

// socket is a unix socket with blocking reads and writes. Package net would cost
// every start of a program that never talks to systemd.
type socket int

// connect opens a socket on which nothing takes longer than limit.
func connect(path string, limit time.Duration) (socket, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	tv := unix.NsecToTimeval(int64(limit))
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	}
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	}
	if err != nil {
		unix.Close(fd)
		return -1, &os.PathError{Op: "connect", Path: path, Err: err}
	}
	return socket(fd), nil
}

func (s socket) close() { unix.Close(int(s)) }

func (s socket) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(s), b)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

func (s socket) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, err := unix.SendmsgN(int(s), b[done:], nil, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, os.NewSyscallError("send", err)
		}
		done += n
	}
	return done, nil
}

// conn is an authenticated connection.
type conn struct {
	c      socket
	r      *bufio.Reader
	serial uint32
}

// dial connects to a socket and authenticates by the user id that the kernel
// vouches for.
func dial(path string, limit time.Duration) (*conn, error) {
	c, err := connect(path, limit)
	if err != nil {
		return nil, err
	}
	d := &conn{c: c, r: bufio.NewReader(c)}
	// The end of the handshake is sent with its start: systemd does not look at
	// a message that it reads in one go with that end until something else comes.
	uid := fmt.Sprintf("%x", strconv.Itoa(os.Geteuid()))
	_, err = fmt.Fprintf(c, "\x00AUTH EXTERNAL %s\r\nBEGIN\r\n", uid)
	if err == nil {
		var line string
		line, err = d.r.ReadString('\n')
		if err == nil && !strings.HasPrefix(line, "OK ") {
			err = fmt.Errorf("authentication was refused: %s", strings.TrimSpace(line))
		}
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return d, nil
}

func (d *conn) close() { d.c.close() }

// call calls a method and waits for its reply; what it returns is not needed.
func (d *conn) call(path, iface, member, destination, signature string, args []byte) error {
	d.serial++
	if _, err := d.c.Write(message(d.serial, path, iface, member, destination, signature, args)); err != nil {
		return err
	}
	for {
		typ, reply, text, err := d.read()
		switch {
		case err != nil:
			return err
		case reply != d.serial:
			continue // a signal, or somebody else's
		case typ == msgReturn:
			return nil
		case typ == msgError:
			return errors.New(text)
		}
	}
}

// read reads one message: its type, the serial it replies to, and for an error
// its name and text.
func (d *conn) read() (typ byte, reply uint32, text string, err error) {
	var h [16]byte
	if _, err = io.ReadFull(d.r, h[:]); err != nil {
		return 0, 0, "", err
	}
	if h[0] != 'l' || h[3] != 1 {
		return 0, 0, "", errors.New("the peer speaks another dialect of D-Bus")
	}
	le := binary.LittleEndian
	size, fields := le.Uint32(h[4:]), le.Uint32(h[12:])
	if size > maxMessage || fields > maxMessage {
		return 0, 0, "", errors.New("the peer sends a message that is too large")
	}
	rest := make([]byte, int(fields+7)&^7+int(size))
	if _, err = io.ReadFull(d.r, rest); err != nil {
		return 0, 0, "", err
	}
	name := ""
	p := parser{b: rest[:fields]}
	for p.at < len(p.b) && p.ok() {
		p.align(8)
		code := p.byte()
		switch sig := p.signature(); sig {
		case "u":
			if v := p.uint32(); code == fieldReplySerial {
				reply = v
			}
		case "s", "o":
			if v := p.str(); code == fieldErrorName {
				name = v
			}
		case "g":
			p.signature()
		default:
			p.bad = true
		}
	}
	if !p.ok() {
		return 0, 0, "", errors.New("the peer sends a malformed message")
	}
	if h[1] == msgError {
		b := parser{b: rest[int(fields+7)&^7:]}
		if text = b.str(); text == "" || !b.ok() {
			text = name
		}
	}
	return h[1], reply, text, nil
}

// parser reads header fields; after an attempt to read too far it is bad.
type parser struct {
	b   []byte
	at  int
	bad bool
}

func (p *parser) ok() bool { return !p.bad }

func (p *parser) align(n int) { p.at = (p.at + n - 1) / n * n }

func (p *parser) take(n int) []byte {
	if p.bad || n < 0 || p.at+n > len(p.b) {
		p.bad = true
		return nil
	}
	out := p.b[p.at : p.at+n]
	p.at += n
	return out
}

func (p *parser) byte() byte {
	if b := p.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (p *parser) uint32() uint32 {
	p.align(4)
	if b := p.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (p *parser) str() string {
	n := p.uint32()
	if n > maxMessage {
		p.bad = true
		return ""
	}
	s := string(p.take(int(n)))
	p.take(1)
	return s
}

func (p *parser) signature() string {
	s := string(p.take(int(p.byte())))
	p.take(1)
	return s
}
