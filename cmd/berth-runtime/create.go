package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"berth/internal/runtime"
	"berth/internal/runtime/config"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// creation holds the flags that create and run share.
type creation struct {
	bundle, consoleSocket, pidFile string
	pidfdSocket                    string
	noPivot, noNewKeyring          bool
	preserveFDs                    int
}

func (c *creation) register(fs *flag.FlagSet) {
	fs.StringVar(&c.bundle, "bundle", ".", "directory of config.json")
	fs.StringVar(&c.bundle, "b", ".", "same as --bundle")
	fs.StringVar(&c.consoleSocket, "console-socket", "", "unix socket that receives the terminal's master")
	fs.StringVar(&c.pidfdSocket, "pidfd-socket", "", "unix socket that receives a pidfd of the process")
	fs.StringVar(&c.pidFile, "pid-file", "", "file to write the process id to")
	fs.BoolVar(&c.noPivot, "no-pivot", false, "do not use pivot_root (for a root on a ramdisk)")
	fs.BoolVar(&c.noNewKeyring, "no-new-keyring", false, "keep the session keyring")
	fs.IntVar(&c.preserveFDs, "preserve-fds", 0, "pass this many descriptors from 3 on to the container")
}

func (c *creation) options(g *global, id string) (runtime.CreateOptions, error) {
	bundle, err := filepath.Abs(c.bundle)
	if err != nil {
		return runtime.CreateOptions{}, err
	}
	spec, text, err := config.Load(bundle)
	if err != nil {
		return runtime.CreateOptions{}, err
	}
	extra, err := listenFDs(spec)
	if err != nil {
		return runtime.CreateOptions{}, err
	}
	return runtime.CreateOptions{
		ID: id, Root: g.root, Bundle: bundle, Spec: spec, SpecJSON: text,
		Stdio:         runtime.Stdio{os.Stdin, os.Stdout, os.Stderr},
		ConsoleSocket: c.consoleSocket, PidFile: c.pidFile,
		PreserveFDs: c.preserveFDs + extra,
		NoPivot:     c.noPivot, NoNewKeyring: c.noNewKeyring, SystemdCgroup: g.systemdCgroup,
	}, nil
}

// listenFDs passes sockets on that a service manager handed to us
// (sd_listen_fds(3)), as runc does, and returns their number.
func listenFDs(spec *specs.Spec) (int, error) {
	text := os.Getenv("LISTEN_FDS")
	if text == "" || spec.Process == nil {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("LISTEN_FDS is %q, not a number of descriptors", text)
	}
	spec.Process.Env = append(spec.Process.Env, "LISTEN_FDS="+text, "LISTEN_PID=1")
	return n, nil
}

func setupCreate(g *global, fs *flag.FlagSet) func([]string) (int, error) {
	var c creation
	c.register(fs)
	return func(args []string) (int, error) {
		opts, err := c.options(g, args[0])
		if err != nil {
			return 1, err
		}
		if err := checkTerminal(opts.Spec.Process, c.consoleSocket, true); err != nil {
			return 1, err
		}
		container, err := runtime.Create(context.Background(), opts)
		if err != nil {
			return 1, err
		}
		return 0, sendPidFD(c.pidfdSocket, &container.Init)
	}
}

func setupStart(g *global, _ *flag.FlagSet) func([]string) (int, error) {
	return func(args []string) (int, error) {
		container, err := runtime.Load(g.root, args[0])
		if err != nil {
			return 1, err
		}
		return 0, container.Start(context.Background())
	}
}

func setupRun(g *global, fs *flag.FlagSet) func([]string) (int, error) {
	var c creation
	c.register(fs)
	detach := fs.Bool("detach", false, "return when the program runs")
	fs.BoolVar(detach, "d", false, "same as --detach")
	keep := fs.Bool("keep", false, "keep the container's state when it ended")
	noSubreaper := fs.Bool("no-subreaper", false, "do not adopt orphans of the container")
	return func(args []string) (int, error) {
		opts, err := c.options(g, args[0])
		if err != nil {
			return 1, err
		}
		if err := checkTerminal(opts.Spec.Process, c.consoleSocket, *detach); err != nil {
			return 1, err
		}
		if !*detach && !*noSubreaper {
			if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
				return 1, fmt.Errorf("become a subreaper: %w", err)
			}
		}
		container, err := runtime.Run(context.Background(), opts)
		if err != nil {
			return executableCode(err), err
		}
		if err := sendPidFD(c.pidfdSocket, &container.Init); err != nil {
			return 1, err
		}
		if *detach {
			return 0, nil
		}
		code, err := foreground(&container.Init)
		if *keep {
			return code, err
		}
		return code, errors.Join(err, container.Delete(context.Background(), true))
	}
}

// checkTerminal refuses what cannot work: a terminal that nobody would hold, and
// a socket for one that there is not.
func checkTerminal(p *specs.Process, socket string, detached bool) error {
	terminal := p != nil && p.Terminal
	switch {
	case terminal && detached && socket == "":
		return errors.New("process.terminal is set, and nobody would hold the terminal: give --console-socket or do not detach")
	case socket != "" && !detached:
		return errors.New("--console-socket needs --detach: in the foreground the terminal is connected here")
	case socket != "" && !terminal:
		return errors.New("--console-socket is given, and process.terminal is not set")
	}
	return nil
}

// foreground connects the process's terminal, if it has one, to ours, passes
// signals on, and returns the exit code when the process ends.
func foreground(p *runtime.Process) (int, error) {
	restore := func() {}
	var drained <-chan struct{}
	if p.Console != nil {
		var err error
		if drained, restore, err = connectTerminal(p.Console); err != nil {
			return 1, err
		}
	}
	forwardSignals(p)
	status, err := waitFor(p.PID)
	if drained != nil {
		<-drained
	}
	restore()
	if err != nil {
		return 1, err
	}
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// waitFor reaps children until the one with this pid ended: as a subreaper we
// get orphans of the container as well.
func waitFor(pid int) (unix.WaitStatus, error) {
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, fmt.Errorf("wait for process %d: %w", pid, err)
		case got == pid && (status.Exited() || status.Signaled()):
			return status, nil
		}
	}
}

// sendPidFD passes a pidfd of the process over a unix socket.
func sendPidFD(socket string, p *runtime.Process) error {
	if socket == "" {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("--pidfd-socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return fmt.Errorf("--pidfd-socket: connect %s: %w", socket, err)
	}
	pidfd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return fmt.Errorf("--pidfd-socket: open process %d: %w", p.PID, err)
	}
	defer unix.Close(pidfd)
	if err := unix.Sendmsg(fd, []byte("pidfd"), unix.UnixRights(pidfd), nil, 0); err != nil {
		return fmt.Errorf("--pidfd-socket: send to %s: %w", socket, err)
	}
	return nil
}
