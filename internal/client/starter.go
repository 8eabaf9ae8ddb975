package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

const (
	// startPatience bounds how long a starting engine may take until it listens:
	// it re-adopts every container first.
	startPatience = 60 * time.Second
	// startPoll bounds how long a missed wake-up can delay noticing the socket.
	startPoll = 50 * time.Millisecond
	// logTail is how much of a failed engine's log is shown.
	logTail = 2 << 10
)

// StartEngine starts berthd for a socket that has no listener and returns when
// it listens. Only a socket called berth.sock is an engine's own: its directory
// is the engine's run directory. Clients that arrive together start one engine.
func StartEngine(ctx context.Context, socket string) error {
	run := filepath.Dir(socket)
	if filepath.Base(socket) != "berth.sock" {
		return fault.New(fault.Unavailable, "cannot reach the engine at", "unix://"+socket, "nothing listens there").
			WithHint("berth starts an engine only for a socket called berth.sock")
	}
	program, err := FindEngine()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(run, 0o711); err != nil {
		return startFailed(err, "")
	}
	turn, err := takeTurn(filepath.Join(run, "berthd.start"))
	if err != nil {
		return startFailed(err, "")
	}
	defer turn.Close()
	if listens(socket) { // somebody else started it while this one waited for its turn
		return nil
	}
	return startAndWait(ctx, program, run, socket)
}

// FindEngine looks for berthd beside this program, then in PATH.
func FindEngine() (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "berthd")
		if info, err := os.Stat(beside); err == nil && info.Mode()&0o111 != 0 {
			return beside, nil
		}
	}
	path, err := exec.LookPath("berthd")
	if err != nil {
		return "", fault.New(fault.Unavailable, "no engine runs, and", "berthd", "is neither beside berth nor in PATH").
			WithHint("install berthd, or name a running engine with --host")
	}
	return path, nil
}

func startFailed(err error, log string) error {
	if errors.Is(err, os.ErrPermission) {
		return fault.New(fault.Forbidden, "no engine runs, and one cannot be started", "", "%w", err).
			WithHint("an engine needs root: run this with sudo, or ask for one to be started")
	}
	if log != "" {
		return fault.New(fault.Unavailable, "the engine did not start", "", "%w; the end of its log:\n%s", err, log)
	}
	return fault.New(fault.Unavailable, "the engine did not start", "", "%w", err)
}

// takeTurn locks a file, so that one client at a time starts an engine.
func takeTurn(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func listens(socket string) bool {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

func startAndWait(ctx context.Context, program, run, socket string) error {
	args, err := engineArguments(run)
	if err != nil {
		return err
	}
	logPath := filepath.Join(run, "berthd.log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return startFailed(err, "")
	}
	defer log.Close()
	before, _ := log.Seek(0, 2)
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return startFailed(err, "")
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, run, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ATTRIB); err != nil {
		return startFailed(err, "")
	}
	engine := exec.Command(program, args...)
	engine.Dir = "/"
	engine.Stdout, engine.Stderr = log, log
	engine.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := engine.Start(); err != nil {
		return startFailed(err, "")
	}
	if err := awaitListener(ctx, engine, watch, socket); err != nil {
		return startFailed(err, tail(logPath, before))
	}
	return nil
}

// engineArguments returns the flags that make an engine serve a run directory:
// those that its last engine left there, so that the same data directory is
// served again; else the defaults, with the data directory of BERTH_ROOT. A run
// directory of its own without either is refused, because an engine that joins
// the state of one directory to the data of another harms both.
func engineArguments(run string) ([]string, error) {
	if text, err := os.ReadFile(filepath.Join(run, "berthd.args")); err == nil {
		var args []string
		if err := json.Unmarshal(text, &args); err == nil {
			return args, nil
		}
	}
	var args []string
	root := os.Getenv("BERTH_ROOT")
	if root != "" {
		args = append(args, "--root", root)
	}
	if run != filepath.Dir(strings.TrimPrefix(DefaultHost, "unix://")) {
		if root == "" {
			return nil, fault.New(fault.Unavailable, "no engine runs for", run, "where its data directory is, is not known").
				WithHint("set BERTH_ROOT, or start berthd with --run and --root")
		}
		args = append(args, "--run", run)
	}
	return args, nil
}

// awaitListener returns when the socket accepts, or when the engine ended.
func awaitListener(ctx context.Context, engine *exec.Cmd, watch int, socket string) error {
	ended := make(chan error, 1)
	go func() { ended <- engine.Wait() }()
	deadline := time.Now().Add(startPatience)
	buf := make([]byte, 4096)
	for {
		if listens(socket) {
			return nil
		}
		select {
		case err := <-ended:
			if listens(socket) { // lost the race against an engine started elsewhere
				return nil
			}
			if err == nil {
				err = errors.New("it ended at once")
			}
			return err
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		if time.Now().After(deadline) {
			_ = engine.Process.Kill()
			return fmt.Errorf("it did not listen within %v", startPatience)
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(watch), Events: unix.POLLIN}}, int(startPoll.Milliseconds()))
		_, _ = unix.Read(watch, buf)
	}
}

func tail(path string, from int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	from = max(from, info.Size()-logTail)
	text := make([]byte, info.Size()-from)
	n, _ := f.ReadAt(text, from)
	return strings.TrimSpace(string(text[:n]))
}
