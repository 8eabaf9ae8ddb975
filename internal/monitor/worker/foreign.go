package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"berth/internal/fault"
	"berth/internal/runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// foreign is an OCI runtime that is used through its command line. Its
// containers become children of the keeper as well, because that is the
// subreaper above the runtime's processes.
type foreign struct {
	path string
	args []string
	root string // state of such runtimes
	dirs string // directories of containers
}

// patience bounds a command of a foreign runtime that ought to take
// milliseconds.
const patience = 2 * time.Minute

func (f *foreign) bundle(id string) string { return filepath.Join(f.dirs, id) }

// command prepares a command of the runtime. Its errors are read from a log
// file, because its standard error is the container's.
func (f *foreign) command(ctx context.Context, id string, args ...string) *exec.Cmd {
	log := filepath.Join(f.bundle(id), "runtime.log")
	all := append([]string{}, f.args...)
	all = append(all, "--root", filepath.Join(f.root, filepath.Base(f.path)), "--log", log, "--log-format", "json")
	cmd := exec.CommandContext(ctx, f.path, append(all, args...)...)
	cmd.Dir = f.bundle(id)
	// A successor must not find it still at work. It dies with the thread that
	// started it, which runLocked keeps for as long.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func runLocked(cmd *exec.Cmd) error {
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	return cmd.Run()
}

// run runs a command to its end and returns its output.
func (f *foreign) run(id string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := f.command(ctx, id, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := runLocked(cmd); err != nil {
		return nil, f.explain(id, args[0], err, errs.Bytes())
	}
	return out.Bytes(), nil
}

// runWith runs a command whose standard streams become those of a container's
// process, and returns what it launched. With a terminal the runtime passes its
// master to a socket instead.
func (f *foreign) runWith(id string, stdio runtime.Stdio, terminal bool, args ...string) (launched, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	result := launched{pidfd: -1, console: -1}
	pidFile := filepath.Join(f.bundle(id), "pid-"+args[0])
	args = append([]string{args[0], "--pid-file", pidFile}, args[1:]...)
	var consoles *consoleSocket
	if terminal {
		var err error
		if consoles, err = listenForConsole(f.bundle(id)); err != nil {
			return result, err
		}
		defer consoles.close()
		args = append([]string{args[0], "--console-socket", consoles.name}, args[1:]...)
	}
	cmd := f.command(ctx, id, args...)
	for i, to := range []func(*os.File){
		func(file *os.File) { cmd.Stdin = file },
		func(file *os.File) { cmd.Stdout = file },
		func(file *os.File) { cmd.Stderr = file },
	} {
		if stdio[i] != nil {
			to(stdio[i])
		}
	}
	if err := runLocked(cmd); err != nil {
		return result, f.explain(id, args[0], err, nil)
	}
	if consoles != nil {
		var err error
		if result.console, err = consoles.receive(); err != nil {
			return result, err
		}
	}
	text, err := os.ReadFile(pidFile)
	if err == nil {
		result.pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	_ = os.Remove(pidFile)
	if err == nil {
		result.pidfd, err = unix.PidfdOpen(result.pid, 0)
	}
	if err != nil {
		closeFD(result.console)
		return result, fault.New(fault.Internal, "find the process of", id, "%w", err)
	}
	result.startTime = startTimeOf(result.pid)
	return result, nil
}

func (f *foreign) start(l launch) (launched, error) {
	for _, m := range l.spec.Mounts {
		if runtime.IsOwnMount(&m) {
			return launched{}, fault.New(fault.Unsupported, "start container", l.id, "mount %s: the runtime %s cannot mount images or parts of volumes", m.Destination, filepath.Base(f.path)).
				WithHint("use the built-in runtime")
		}
	}
	if err := os.MkdirAll(f.root, 0o700); err != nil {
		return launched{}, fault.New(fault.Internal, "start container", l.id, "%w", err)
	}
	spec := *l.spec
	if l.overlay != nil {
		if err := mountOverlay(f.rootfs(l.id), l.overlay); err != nil {
			return launched{}, err
		}
		root := specs.Root{Path: "rootfs"}
		if spec.Root != nil {
			root.Readonly = spec.Root.Readonly
		}
		spec.Root = &root
	}
	text, err := json.Marshal(&spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(l.dir, "config.json"), text, 0o600)
	}
	if err != nil {
		f.unmount(l.id)
		return launched{}, fault.New(fault.Internal, "write bundle of", l.id, "%w", err)
	}
	terminal := spec.Process != nil && spec.Process.Terminal
	got, err := f.runWith(l.id, l.stdio, terminal, "create", "--bundle", l.dir, l.id)
	if err == nil {
		if _, err = f.run(l.id, "start", l.id); err == nil {
			return got, nil
		}
		closeFD(got.pidfd)
		closeFD(got.console)
	}
	_ = f.remove(l.id)
	return launched{}, err
}

func (f *foreign) exec(id string, process *specs.Process, stdio runtime.Stdio) (launched, error) {
	text, err := json.Marshal(process)
	if err != nil {
		return launched{}, fault.New(fault.Invalid, "exec in container", id, "%w", err)
	}
	file, err := os.CreateTemp(f.bundle(id), "process-*.json")
	if err != nil {
		return launched{}, fault.New(fault.Internal, "exec in container", id, "%w", err)
	}
	defer os.Remove(file.Name())
	_, err = file.Write(text)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return launched{}, fault.New(fault.Internal, "exec in container", id, "%w", err)
	}
	return f.runWith(id, stdio, process.Terminal, "exec", "--detach", "--process", file.Name(), id)
}

func (f *foreign) load(id string) int {
	text, err := f.run(id, "state", id)
	var state specs.State
	if err != nil || json.Unmarshal(text, &state) != nil || state.Status != specs.StateRunning {
		return 0
	}
	return state.Pid
}

func (f *foreign) signal(id string, signal unix.Signal) error {
	_, err := f.run(id, "kill", id, strconv.Itoa(int(signal)))
	return err
}

func (f *foreign) killAll(id string) error {
	_, err := f.run(id, "kill", "--all", id, "KILL")
	if err != nil { // newer ones kill all without being asked
		_, err = f.run(id, "kill", id, "KILL")
	}
	return err
}

func (f *foreign) pause(id string) error {
	_, err := f.run(id, "pause", id)
	return err
}

func (f *foreign) resume(id string) error {
	_, err := f.run(id, "resume", id)
	return err
}

func (f *foreign) update(id string, r *specs.LinuxResources) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := filepath.Join(f.bundle(id), "resources.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	_, err = f.run(id, "update", "--resources", path, id)
	return err
}

func (f *foreign) pids(id string) (pids []int, err error) {
	text, err := f.run(id, "ps", "--format", "json", id)
	if err == nil {
		err = json.Unmarshal(text, &pids)
	}
	return pids, err
}

// oomCount is not asked: the cgroups of foreign runtimes are watched.
func (f *foreign) oomCount(string) (uint64, error) { return 0, nil }

func (f *foreign) remove(id string) error {
	_, err := f.run(id, "delete", "--force", id)
	if !f.unmount(id) && err == nil {
		err = fault.New(fault.Internal, "unmount", f.rootfs(id), "it stays busy")
	}
	if err != nil && strings.Contains(err.Error(), "does not exist") {
		return errNothing
	}
	return err
}

func (f *foreign) rootfs(id string) string { return filepath.Join(f.bundle(id), "rootfs") }

func (f *foreign) unmount(id string) bool {
	for {
		err := unix.Unmount(f.rootfs(id), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil {
			return err == unix.EINVAL || err == unix.ENOENT
		}
	}
}

// explain turns a failed command into an error that says what the runtime wrote
// into its log.
func (f *foreign) explain(id, command string, err error, stderr []byte) error {
	text := lastError(filepath.Join(f.bundle(id), "runtime.log"))
	if text == "" {
		text = strings.TrimSpace(string(stderr))
	}
	if text == "" {
		text = err.Error()
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) && text == err.Error() {
		return fault.New(fault.Invalid, command, id, "runtime %s: %w", f.path, err)
	}
	for sign, code := range map[string]int{"executable file not found": 127, "no such file or directory": 127, "permission denied": 126, "exec format error": 126} {
		if (command == "create" || command == "start" || command == "exec") && strings.Contains(text, "exec") && strings.Contains(text, sign) {
			return fault.Wrap(command, id, &runtime.ExecError{Path: filepath.Base(f.path), Err: errors.New(text), Code: code})
		}
	}
	return fault.New(fault.Internal, command, id, "%s: %s", filepath.Base(f.path), text)
}

// lastError returns the last error of a log of JSON lines.
func lastError(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	last := ""
	for line := range bytes.Lines(text) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) == nil && entry.Level == "error" {
			last = entry.Msg
		}
	}
	return last
}
