package worker

import (
	"strconv"

	"berth/internal/fault"
	"berth/internal/monitor/proto"

	"golang.org/x/sys/unix"
)

// consoleSocket receives the master of a terminal from a foreign runtime.
type consoleSocket struct {
	fd, dir int
	name    string // below the runtime's working directory, so that it is short
}

func listenForConsole(dir string) (*consoleSocket, error) {
	s := &consoleSocket{fd: -1, dir: -1, name: "console.sock"}
	var err error
	if s.dir, err = unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
		_ = unix.Unlinkat(s.dir, s.name, 0)
		s.fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	}
	if err == nil {
		err = unix.Bind(s.fd, &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(s.dir) + "/" + s.name})
	}
	if err == nil {
		err = unix.Listen(s.fd, 1)
	}
	if err != nil {
		s.close()
		return nil, fault.New(fault.Internal, "listen for a terminal in", dir, "%w", err)
	}
	return s, nil
}

// receive returns the master. The runtime has ended by now, so that it is there
// or never comes.
func (s *consoleSocket) receive() (int, error) {
	fail := func(err error) (int, error) {
		return -1, fault.New(fault.Internal, "receive a terminal", "", "%w", err)
	}
	if err := unix.SetNonblock(s.fd, true); err != nil {
		return fail(err)
	}
	conn, _, err := unix.Accept4(s.fd, unix.SOCK_CLOEXEC)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(conn)
	var name [4096]byte
	var rights [64]byte
	_, n, _, _, err := unix.Recvmsg(conn, name[:], rights[:], unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return fail(err)
	}
	fds, err := proto.ParseRights(rights[:n])
	if err != nil || len(fds) != 1 {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		return fail(unix.EBADMSG)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		_ = unix.Close(fds[0])
		return fail(err)
	}
	return fds[0], nil
}

func (s *consoleSocket) close() {
	closeFD(s.fd)
	if s.dir >= 0 {
		_ = unix.Unlinkat(s.dir, s.name, 0)
		_ = unix.Close(s.dir)
	}
}
