package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"sync"
	"unsafe"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// routeConn is a route netlink socket that sends several requests in one system
// call and asks for one acknowledgement. A socket belongs for ever to the
// namespace of the thread that opened it, so that work inside a new namespace
// needs no thread to stay there.
type routeConn struct {
	mu  sync.Mutex // serialises users: replies are matched by sequence number
	seq uint32
	fd  int
	buf [8192]byte
}

func dialRoute() (*routeConn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route socket: %w", err)
	}
	// Without the refused request in each error message; best effort.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	// The kernel answers before sendto returns; the limit only keeps a defect from hanging us.
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 60})
	return &routeConn{fd: fd}, nil
}

func (c *routeConn) close() { unix.Close(c.fd) }

// stepError says which of several requests was refused.
type stepError struct {
	step int
	err  error
}

func (e *stepError) Error() string { return fmt.Sprintf("request %d: %v", e.step+1, e.err) }
func (e *stepError) Unwrap() error { return e.err }

// do sends the requests in order and returns the first refusal as *stepError.
// The kernel carries on after a refused request, so callers undo the whole.
func (c *routeConn) do(reqs ...*nl.NetlinkRequest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []byte
	for i, r := range reqs {
		c.seq++
		r.Seq = c.seq
		r.Flags |= unix.NLM_F_REQUEST
		if i == len(reqs)-1 {
			r.Flags |= unix.NLM_F_ACK
		}
		out = append(out, r.Serialize()...)
	}
	if err := unix.Sendto(c.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send route request: %w", err)
	}
	first, last := reqs[0].Seq, reqs[len(reqs)-1].Seq
	var refused error
	for {
		n, err := unix.Read(c.fd, c.buf[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read route reply: %w", err)
		}
		done, err := scanReplies(c.buf[:n], first, last)
		if refused == nil {
			refused = err
		}
		if done {
			return refused
		}
	}
}

// scanReplies walks one datagram of replies; done reports that the answer to
// the last request was in it.
func scanReplies(b []byte, first, last uint32) (done bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := binary.NativeEndian.Uint32(b)
		kind := binary.NativeEndian.Uint16(b[4:])
		seq := binary.NativeEndian.Uint32(b[8:])
		if size < unix.SizeofNlMsghdr || int(size) > len(b) {
			return true, errors.New("malformed route reply")
		}
		if kind == unix.NLMSG_ERROR && size >= unix.SizeofNlMsghdr+4 && seq-first <= last-first {
			code := int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr:]))
			if code != 0 && err == nil {
				err = &stepError{step: int(seq - first), err: unix.Errno(-code)}
			}
			done = done || seq == last
		}
		b = b[min(len(b), int(size+3)&^3):]
	}
	return done, err
}

// indexOf returns the number of the named interface in the socket's namespace,
// by ioctl because that takes no lock which link changes hold.
func (c *routeConn) indexOf(name string) (int, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(c.fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, err
	}
	return int(ifr.Uint32()), nil
}

// nameOf returns the name of interface index, or ENODEV.
func (c *routeConn) nameOf(index int) (string, error) {
	var req struct {
		name  [unix.IFNAMSIZ]byte
		index int32
		_     [20]byte
	}
	req.index = int32(index)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), unix.SIOCGIFNAME, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return "", errno
	}
	return unix.ByteSliceToString(req.name[:]), nil
}

func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// linkRequest starts a request about one interface, by number or (0) by name.
func linkRequest(kind, flags, index int, up bool) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, flags)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	if up {
		msg.Flags, msg.Change = unix.IFF_UP, unix.IFF_UP
	}
	req.AddData(msg)
	return req
}

// attributes walks a list of netlink attributes up to the first malformed one.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			size := int(binary.NativeEndian.Uint16(b))
			kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if size < unix.SizeofNlAttr || size > len(b) || !yield(kind, b[unix.SizeofNlAttr:size]) {
				return
			}
			b = b[min(len(b), (size+3)&^3):]
		}
	}
}
