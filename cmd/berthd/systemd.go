package main

import (
	"crypto/tls"
	"net"
	"os"
	"strconv"
	"strings"

	"berth/internal/fault"

	"golang.org/x/sys/unix"
)

// firstSocket is the number of the first descriptor that is passed at start
// (sd_listen_fds(3)).
const firstSocket = 3

// inheritedSocket is a socket that whoever started this program opened for it.
type inheritedSocket struct {
	number int
	name   string // "" when it has none
}

// inheritedSockets takes what LISTEN_FDS says was passed. Nothing that this
// program starts gets the sockets or hears of them.
func inheritedSockets() (list []inheritedSocket) {
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name)
	}
	n, err := strconv.Atoi(count)
	if err != nil || n <= 0 || pid != strconv.Itoa(os.Getpid()) {
		return nil
	}
	named := strings.Split(names, ":")
	for i := range min(n, 1024) {
		s := inheritedSocket{number: firstSocket + i}
		if len(named) == n {
			s.name = named[i]
		}
		unix.CloseOnExec(s.number)
		list = append(list, s)
	}
	return list
}

// listenInherited serves the sockets that an address fd://WHICH means: all of them,
// or one by its number or its name. They stay where they are in the file system:
// they are not ours.
func (o *options) listenInherited(which string) (ls []*listener, err error) {
	for _, s := range o.inherited {
		if which != "" && which != "*" && which != strconv.Itoa(s.number) && which != s.name {
			continue
		}
		l, err := o.openInherited(s.number)
		if err != nil {
			return ls, err
		}
		ls = append(ls, l)
	}
	if len(ls) == 0 {
		return nil, fault.New(fault.Invalid, "", "", "address fd://%s: no such socket was passed by whoever started this program", which).
			WithHint("start it from a socket unit of systemd, or serve on unix://PATH")
	}
	return ls, nil
}

func (o *options) openInherited(number int) (*listener, error) {
	// FileListener works on a copy: a second address may mean the same socket.
	dup, err := unix.FcntlInt(uintptr(number), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fault.New(fault.Invalid, "listen on", "fd://"+strconv.Itoa(number), "%w", err)
	}
	f := os.NewFile(uintptr(dup), "socket")
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, fault.New(fault.Invalid, "listen on", "fd://"+strconv.Itoa(number), "it is no socket that listens: %w", err)
	}
	address := ln.Addr()
	tcp, remote := address.(*net.TCPAddr)
	l := &listener{Listener: ln, address: address.Network() + "://" + address.String(), remote: remote}
	if !remote {
		return l, nil
	}
	conf, err := o.protection(tcp.IP.IsLoopback(), address.String())
	if err != nil {
		ln.Close()
		return nil, err
	}
	if conf != nil {
		l.Listener = tls.NewListener(ln, conf)
	}
	return l, nil
}

// notify tells the service manager, if there is one, how this program gets on
// (sd_notify(3)).
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte(state))
}
