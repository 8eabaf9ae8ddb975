package solve

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// Dial opens a connection to an ssh agent of the caller, wherever that is.
type Dial func(ctx context.Context) (io.ReadWriteCloser, error)

// AgentSocket makes a socket at which the caller's agent answers, for programs
// that know agents by their sockets only. It belongs to the user and group, who
// alone may connect if mode says so. release ends it with its connections.
func (s *Solver) AgentSocket(ctx context.Context, dial Dial, uid, gid, mode uint32) (socket string, release func(), err error) {
	const op = "forward ssh agent"
	dir, err := s.temp()
	if err != nil {
		return "", nil, fault.Wrap(op, "", err)
	}
	defer func() {
		if err != nil {
			removeAll(dir)
			err = fault.Wrap(op, "", err)
		}
	}()
	l, err := listenIn(dir)
	if err != nil {
		return "", nil, err
	}
	socket = filepath.Join(dir, "agent")
	if err = os.Lchown(socket, int(uid), int(gid)); err == nil {
		err = unix.Chmod(socket, mode&0o777)
	}
	if err != nil {
		l.Close()
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() { forward(ctx, c, dial) })
		}
	})
	return socket, func() {
		cancel()
		l.Close()
		work.Wait()
		removeAll(dir)
	}, nil
}

// listenIn makes a socket called agent in dir, however long its path is: the
// kernel takes about a hundred bytes.
func listenIn(dir string) (*net.UnixListener, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "/proc/self/fd/" + strconv.Itoa(fd) + "/agent", Net: "unix"})
	if err == nil {
		l.SetUnlinkOnClose(false)
	}
	return l, err
}

// forward connects a program to the agent until one of them has enough.
func forward(ctx context.Context, c net.Conn, dial Dial) {
	defer c.Close()
	agent, err := dial(ctx)
	if err != nil {
		return // the program says that the agent does not answer
	}
	defer agent.Close()
	ended := make(chan struct{}, 2)
	pump := func(to io.Writer, from io.Reader) {
		_, _ = io.Copy(to, from)
		ended <- struct{}{}
	}
	go pump(agent, c)
	go pump(c, agent)
	select {
	case <-ended:
	case <-ctx.Done():
	}
}
