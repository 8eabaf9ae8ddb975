package monitor

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"berth/internal/fault"
	"berth/internal/monitor/keeper"
	"berth/internal/monitor/proto"

	"golang.org/x/sys/unix"
)

// Dial connects to the monitor of a run directory and starts one from the
// program runtimeBinary (berth-runtime) when none runs.
func Dial(ctx context.Context, runDir, runtimeBinary string) (*Client, error) {
	runDir, err := filepath.Abs(runDir) // the monitor works elsewhere
	if err != nil {
		return nil, fault.New(fault.Invalid, "reach the monitor", runDir, "%w", err)
	}
	d := dialer{runDir: runDir, binary: runtimeBinary}
	l, err := newLink(ctx, d.dial)
	if err != nil {
		return nil, fault.Wrap("reach the monitor", runDir, err)
	}
	return &Client{link: l}, nil
}

type dialer struct{ runDir, binary string }

// dial returns a connection that has been greeted.
func (d dialer) dial(ctx context.Context) (*proto.Conn, error) {
	for {
		conn, err := d.connect()
		if err == nil {
			if err = greet(ctx, conn); err == nil {
				return conn, nil
			}
			_ = conn.Close()
			if !fault.Is(err, fault.Unavailable) {
				return nil, err
			}
			// It ended while we came in.
		} else if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EAGAIN) {
			return nil, fault.New(fault.Unavailable, "connect to", filepath.Join(Dir(d.runDir), keeper.SocketName), "%w", err)
		} else if err := d.spawn(ctx); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fault.Wrap("connect to", filepath.Join(Dir(d.runDir), keeper.SocketName), ctx.Err())
		case <-time.After(time.Millisecond): // another one may be starting or ending just now
		}
	}
}

func (d dialer) connect() (*proto.Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	err = withShortPath(Dir(d.runDir), keeper.SocketName, func(path string) error {
		return unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	})
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return proto.NewConn(fd, "monitor")
}

// withShortPath calls use with a path of dir/name that fits a socket address.
func withShortPath(dir, name string, use func(string) error) error {
	path := filepath.Join(dir, name)
	if len(path) < 104 {
		return use(path)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return use("/proc/self/fd/" + strconv.Itoa(fd) + "/" + name)
}

// greet exchanges hellos, so that a monitor left by another version is noticed.
func greet(ctx context.Context, conn *proto.Conn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	head := []byte(`{"version":` + strconv.Itoa(proto.Version) + `,"pid":` + strconv.Itoa(os.Getpid()) + `}`)
	if err := conn.Send(&proto.Frame{Kind: proto.KindHello, Head: head}); err != nil {
		return err
	}
	f, err := conn.Receive()
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fault.New(fault.Unavailable, "greet the monitor", "", "%w", err)
	}
	if f.Kind == proto.KindError {
		return proto.DecodeError(f.Head)
	}
	var hello proto.Hello
	if err := f.Decode(&hello); err != nil {
		return err
	}
	if hello.Version != proto.Version {
		return fault.New(fault.Conflict, "greet the monitor", "pid "+strconv.Itoa(hello.PID), "it speaks version %d of the protocol, this engine %d", hello.Version, proto.Version).
			WithHint("stop the containers and end the old monitor, or start the engine of its version")
	}
	return nil
}

// spawn starts a monitor and returns once it listens, or once another one turns
// out to run already.
func (d dialer) spawn(ctx context.Context) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fault.New(fault.Internal, "start the monitor", d.binary, "%w", err)
	}
	defer r.Close()
	cmd := exec.Command(d.binary, "monitor", "--run", d.runDir, "--ready-fd", "3")
	cmd.ExtraFiles = []*os.File{w}
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Dir = "/"
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return fault.New(fault.Internal, "start the monitor", d.binary, "%w", err).
			WithHint("berth-runtime belongs beside berthd or into PATH")
	}
	go func() { _ = cmd.Wait() }() // it may end long after this call
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Now()) })
	defer stop()
	// It writes what is wrong, if anything, and closes the pipe when it listens.
	said := make([]byte, 4096)
	n := 0
	for n < len(said) {
		got, err := r.Read(said[n:])
		n += got
		if err != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return fault.Wrap("start the monitor", d.binary, ctx.Err())
	}
	if text := strings.TrimSpace(string(said[:n])); text != "" {
		return fault.New(fault.Internal, "start the monitor", d.binary, "%s", text)
	}
	return nil
}
