package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The descriptors with which keeper and worker are started, after the standard
// ones.
const (
	SocketFD   = 3 // to the other process
	ListenerFD = 4
	LockFD     = 5
)

// SocketName is the name of the socket for the engine below the directory.
const SocketName = "monitor.sock"

// The arguments that tell the processes of the monitor apart; they follow
// "monitor --run DIR".
const (
	WorkerFlag   = "--worker"
	TakeoverFlag = "--takeover"
)

// Start becomes the keeper of a run directory. It returns at once when another
// one works there. Errors go to ready, if that is not nil, which is closed once
// the socket listens.
func Start(runDir string, ready *os.File) error {
	dir := filepath.Join(runDir, "monitor")
	lock, err := lockDir(dir)
	if err != nil || lock < 0 {
		return err
	}
	listener, err := listen(dir)
	if err != nil {
		return err
	}
	if ready != nil {
		_ = ready.Close()
	}
	return serve(runDir, Config{Dir: dir, Lock: lock, Listener: listener, Worker: -1})
}

// TakeOver becomes the keeper after another one was killed: the worker has
// started this process and passes on what it holds, then ends.
func TakeOver(runDir string) error {
	for fd := SocketFD; fd <= LockFD; fd++ {
		unix.CloseOnExec(fd)
	}
	if err := unix.SetNonblock(SocketFD, true); err != nil {
		return fmt.Errorf("socket to the worker: %w", err)
	}
	return serve(runDir, Config{Dir: filepath.Join(runDir, "monitor"), Lock: LockFD, Listener: ListenerFD, Worker: SocketFD})
}

func serve(runDir string, c Config) error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become a subreaper: %w", err)
	}
	if err := detach(c.Dir); err != nil {
		return err
	}
	if err := WritePid(c.Dir, "keeper.pid"); err != nil {
		return err
	}
	c.Spawn = func(c Config, socket int) (int, int, error) { return Spawn(runDir, WorkerFlag, c, socket) }
	err := Run(c)
	for _, name := range []string{SocketName, "keeper.pid", "worker.pid"} {
		_ = unix.Unlink(filepath.Join(c.Dir, name))
	}
	return err
}

// lockDir makes the directory and locks it; -1 says that another monitor has
// it. The lock is passed on from process to process and ends with the last.
func lockDir(dir string) (int, error) {
	if err := os.MkdirAll(filepath.Join(dir, "containers"), 0o700); err != nil {
		return -1, err
	}
	path := filepath.Join(dir, "lock")
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err == nil {
		return fd, nil
	}
	_ = unix.Close(fd)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return -1, nil
	}
	return -1, &os.PathError{Op: "lock", Path: path, Err: err}
}

// listen makes the socket. It is bound under another name first, so that there
// is no instant at which a client finds one that does not listen.
func listen(dir string) (int, error) {
	path := filepath.Join(dir, SocketName)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(at)
	// By way of the directory's descriptor the name is never too long.
	temporary := "/proc/self/fd/" + strconv.Itoa(at) + "/" + SocketName + ".new"
	_ = unix.Unlink(temporary)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: temporary}); err != nil {
		return -1, &os.PathError{Op: "bind", Path: path, Err: err}
	}
	if err := unix.Chmod(temporary, 0o600); err != nil {
		return -1, &os.PathError{Op: "chmod", Path: path, Err: err}
	}
	if err := unix.Listen(fd, 128); err != nil {
		return -1, &os.PathError{Op: "listen", Path: path, Err: err}
	}
	if err := unix.Rename(temporary, path); err != nil {
		return -1, &os.PathError{Op: "rename", Path: path, Err: err}
	}
	return fd, nil
}

// Spawn starts the other process of the monitor: this very program, even if its
// file was replaced meanwhile, because the two have to understand each other.
func Spawn(runDir, flag string, c Config, socket int) (pid, pidfd int, err error) {
	pidfd = -1
	attr := &syscall.ProcAttr{
		Dir:   "/",
		Env:   environment(flag),
		Files: []uintptr{0, 1, 2, uintptr(socket), uintptr(c.Listener), uintptr(c.Lock)},
		Sys:   &syscall.SysProcAttr{PidFD: &pidfd},
	}
	pid, err = syscall.ForkExec("/proc/self/exe", []string{"berth-runtime", "monitor", "--run", runDir, flag}, attr)
	return pid, pidfd, err
}

// environment lets the worker use all processors and the keeper one: with one
// the Go runtime wakes no second thread for work that one can do.
func environment(flag string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GOMAXPROCS=") })
	if flag != WorkerFlag {
		env = append(env, "GOMAXPROCS=1")
	}
	return env
}

// longestLog bounds the file of the monitor's own messages, in bytes.
const longestLog = 1 << 20

// detach points the standard descriptors away from whoever started us.
func detach(dir string) error {
	path := filepath.Join(dir, "monitor.log")
	flags := unix.O_WRONLY | unix.O_CREAT | unix.O_APPEND | unix.O_CLOEXEC
	if info, err := os.Stat(path); err == nil && info.Size() > longestLog {
		flags |= unix.O_TRUNC
	}
	log, err := unix.Open(path, flags, 0o600)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(log)
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/dev/null", Err: err}
	}
	defer unix.Close(null)
	for to, from := range []int{null, log, log} {
		if err := unix.Dup3(from, to, 0); err != nil {
			return fmt.Errorf("redirect descriptor %d: %w", to, err)
		}
	}
	return nil
}
