package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/internal/build/solve"
	"berth/internal/runtime"
)

// runner executes steps with the runtime itself, as an engine without a monitor
// would.
type runner struct {
	state string
	runs  atomic.Int64 // steps that were started
	seen  sync.Map     // step id -> solve.Step
	// before, if set, is called with each step before it runs.
	before func(solve.Step)
}

var capabilities = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"}

func (r *runner) spec(step solve.Step) (*specs.Spec, func(), error) {
	strict := []string{"nosuid", "noexec", "nodev"}
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: strict},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=65536k"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: append(slices.Clone(strict), "mode=1777")},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: append(slices.Clone(strict), "ro")},
	}
	dir, err := os.MkdirTemp(filepath.Dir(r.state), "data")
	if err != nil {
		return nil, nil, err
	}
	clean := func() { os.RemoveAll(dir) }
	hosts := filepath.Join(dir, "hosts")
	os.WriteFile(hosts, []byte("127.0.0.1 localhost\n"), 0o644)
	mounts = append(mounts, specs.Mount{Destination: "/etc/hosts", Type: "bind", Source: hosts, Options: []string{"bind", "ro"}})
	for i, m := range step.Mounts {
		mode := "rw"
		if m.ReadOnly {
			mode = "ro"
		}
		switch m.Kind {
		case solve.OverlayMount:
			o := []string{mode} // one by one: the kernel takes 255 bytes for a value
			for _, dir := range m.Lower {
				o = append(o, "lowerdir+="+dir)
			}
			if m.Upper != "" {
				o = append(o, "upperdir="+m.Upper, "workdir="+m.Work)
			}
			mounts = append(mounts, specs.Mount{Destination: m.Target, Type: "overlay", Source: "overlay", Options: o})
		case solve.BindMount:
			mounts = append(mounts, specs.Mount{Destination: m.Target, Type: "bind", Source: m.Path, Options: []string{"bind", mode}})
		case solve.TmpfsMount:
			mounts = append(mounts, specs.Mount{Destination: m.Target, Type: "tmpfs", Source: "tmpfs", Options: []string{"size=" + strconv.FormatInt(max(m.Size, 1<<20), 10)}})
		case solve.DataMount:
			p := filepath.Join(dir, fmt.Sprint("data", i))
			if err := os.WriteFile(p, m.Data, 0o600); err != nil {
				return nil, clean, err
			}
			os.Chown(p, int(m.UID), int(m.GID))
			os.Chmod(p, os.FileMode(m.Mode))
			mounts = append(mounts, specs.Mount{Destination: m.Target, Type: "bind", Source: p, Options: []string{"bind", mode}})
		}
	}
	s := &specs.Spec{
		Version: specs.Version, Root: &specs.Root{Path: "rootfs"}, Hostname: "build", Mounts: mounts,
		Process: &specs.Process{Args: step.Args, Env: step.Env, Cwd: step.Dir, Capabilities: &specs.LinuxCapabilities{Bounding: capabilities, Permitted: capabilities, Effective: capabilities}},
		Linux: &specs.Linux{
			Namespaces:  []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace}},
			CgroupsPath: "/" + step.ID,
		},
	}
	if step.User != "" {
		uid, err := strconv.ParseUint(step.User, 10, 32)
		if err != nil {
			return nil, clean, err
		}
		s.Process.User.UID = uint32(uid)
	}
	return s, clean, nil
}

// Run implements solve.Executor.
func (r *runner) Run(ctx context.Context, step solve.Step) (solve.Exit, error) {
	r.runs.Add(1)
	r.seen.Store(step.ID, step)
	if r.before != nil {
		r.before(step)
	}
	spec, clean, err := r.spec(step)
	if clean != nil {
		defer clean()
	}
	if err != nil {
		return solve.Exit{}, err
	}
	var files [2]*os.File
	var copying sync.WaitGroup
	for i, w := range []io.Writer{step.Stdout, step.Stderr} {
		pr, pw, err := os.Pipe()
		if err != nil {
			return solve.Exit{}, err
		}
		files[i] = pw
		copying.Go(func() {
			io.Copy(w, pr)
			pr.Close()
		})
	}
	c, err := runtime.Run(ctx, runtime.CreateOptions{
		ID: step.ID, Root: r.state, Spec: spec, Overlay: &runtime.Overlay{Lower: step.Lower, Upper: step.Upper, Work: step.Work},
		Stdio: runtime.Stdio{nil, files[0], files[1]},
	})
	files[0].Close()
	files[1].Close()
	if err != nil {
		copying.Wait()
		var missing *runtime.ExecError
		if errors.As(err, &missing) {
			return solve.Exit{Code: 127}, nil
		}
		return solve.Exit{}, err
	}
	stop := context.AfterFunc(ctx, func() { c.KillAll() })
	var ws unix.WaitStatus
	for {
		if _, err = unix.Wait4(c.Init.PID, &ws, 0, nil); err != unix.EINTR {
			break
		}
	}
	stop()
	c.Init.PidFD.Close()
	derr := c.Delete(context.Background(), true)
	copying.Wait()
	if err = errors.Join(err, derr); err != nil {
		return solve.Exit{}, err
	}
	if ws.Signaled() {
		return solve.Exit{Code: 128 + int(ws.Signal())}, nil
	}
	return solve.Exit{Code: ws.ExitStatus()}, nil
}
