package network

import (
	"golang.org/x/sys/unix"
)

// holdPort binds a socket to a port without ever serving it, so that programs of
// the host, other engines and the kernel's choice of ephemeral ports stay away
// from it. It returns the socket and the port (the kernel's choice for port 0).
func holdPort(k portKey) (socket int, port uint16, err error) {
	socket, err = bindSocket(k, false)
	if err == unix.EADDRINUSE && k.proto == unix.IPPROTO_TCP && k.port != 0 {
		socket, err = holdBehindTimeWait(k)
	}
	if err != nil {
		return -1, 0, err
	}
	port = k.port
	if port == 0 {
		if port, err = boundPort(socket); err != nil {
			unix.Close(socket)
			return -1, 0, err
		}
	}
	if k.proto == unix.IPPROTO_UDP {
		refuseDatagrams(socket)
	}
	return socket, port, nil
}

func bindSocket(k portKey, reuse bool) (int, error) {
	kind := unix.SOCK_STREAM
	if k.proto == unix.IPPROTO_UDP {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(familyOf(k.addr), kind|unix.SOCK_CLOEXEC, int(k.proto))
	if err != nil {
		return -1, err
	}
	if reuse {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	var sa unix.Sockaddr
	if k.addr.Is4() {
		sa = &unix.SockaddrInet4{Port: int(k.port), Addr: k.addr.As4()}
	} else {
		sa = &unix.SockaddrInet6{Port: int(k.port), Addr: k.addr.As16()}
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
		}
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// holdBehindTimeWait takes a TCP port whose only users are connections that a
// server before left in TIME_WAIT. SO_REUSEADDR gets past them, but alone it
// would also get past other bound sockets and let them get past ours: the
// kernel's full check is made by listen, after which the socket is shut for
// listening and stays bound.
func holdBehindTimeWait(k portKey) (int, error) {
	fd, err := bindSocket(k, true)
	if err != nil {
		return -1, err
	}
	if err = unix.Listen(fd, 0); err == nil {
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0); err == nil {
			err = unix.Shutdown(fd, unix.SHUT_RD)
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func boundPort(fd int) (uint16, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return uint16(a.Port), nil
	case *unix.SockaddrInet6:
		return uint16(a.Port), nil
	}
	return 0, unix.EAFNOSUPPORT
}

// refuseDatagrams keeps a bound UDP socket from hoarding what reaches it while
// the table is gone. Best effort: nobody reads the socket in any case.
func refuseDatagrams(fd int) {
	none := [1]unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	_ = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &none[0]})
}
