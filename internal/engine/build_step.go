package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"berth/internal/build/graph"
	"berth/internal/build/solve"
	"berth/internal/container"
	"berth/internal/engine/spec"
	"berth/internal/engine/vocabulary"
	"berth/internal/fault"
	"berth/internal/monitor"
	"berth/internal/runtime"

	"github.com/moby/moby/api/pkg/stdcopy"
	api "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// steps runs the programs of builds: as containers without a record, isolated
// like all others, of which nothing is left when they end. It implements
// solve.Executor.
type steps struct{ e *Engine }

// Run implements solve.Executor.
func (s steps) Run(ctx context.Context, step solve.Step) (solve.Exit, error) {
	e := s.e
	rec := stepRecord(step, e.host)
	secrets, err := e.stepSecrets(step)
	defer secrets.remove(e)
	if err != nil {
		return solve.Exit{}, err
	}
	// Whoever stopped listening still wants nothing left behind.
	cleanup := context.WithoutCancel(ctx)
	defer e.forgetStep(cleanup, rec.ID)
	req, err := e.stepRequest(ctx, step, rec, secrets)
	if err != nil {
		return solve.Exit{}, err
	}
	listening, stop := context.WithCancel(e.life)
	defer stop()
	happenings := e.monitor.Events(listening)
	output, err := e.stepOutput(cleanup, step)
	if err != nil {
		return solve.Exit{}, err
	}
	if _, err := e.monitor.Start(cleanup, req); err != nil {
		output.end()
		return startOfStepFailed(step, err)
	}
	exit, err := e.stepEnd(ctx, rec.ID, happenings)
	if err != nil {
		output.end()
		return solve.Exit{}, err
	}
	output.wait()
	return solve.Exit{Code: exit.Code, OOMKilled: exit.OOMKilled}, nil
}

// startOfStepFailed tells a program that cannot be executed, which is the
// Dockerfile's mistake, from an engine that cannot execute it.
func startOfStepFailed(step solve.Step, err error) (solve.Exit, error) {
	var exec *runtime.ExecError
	if !errors.As(err, &exec) {
		return solve.Exit{}, err
	}
	_, _ = fmt.Fprintln(step.Stderr, execError(exec))
	return solve.Exit{Code: exec.Code}, nil
}

// stepRecord describes a step in the words of a container, so that it is made
// from the same defaults.
func stepRecord(step solve.Step, host vocabulary.Host) *container.Record {
	l := step.Limits
	r := &vocabulary.Request{
		Host:   host,
		Config: &api.Config{Env: step.Env, Cmd: step.Args, WorkingDir: step.Dir, User: step.User, Hostname: step.Hostname},
		HostConfig: &api.HostConfig{
			NetworkMode: api.NetworkMode(step.Network), ExtraHosts: step.Hosts, Privileged: step.Insecure, ShmSize: l.ShmSize,
			LogConfig: api.LogConfig{Type: vocabulary.LogNone},
			Resources: api.Resources{
				Memory: l.Memory, MemorySwap: l.MemorySwap, CPUShares: l.CPUShares, CPUPeriod: l.CPUPeriod, CPUQuota: l.CPUQuota,
				CpusetCpus: l.CPUSetCPUs, CpusetMems: l.CPUSetMs, CgroupParent: l.CgroupParent,
			},
		},
	}
	if step.Insecure {
		r.HostConfig.SecurityOpt = []string{"seccomp=unconfined"}
	}
	for _, u := range l.Ulimits {
		r.HostConfig.Ulimits = append(r.HostConfig.Ulimits, &api.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	if r.Config.Hostname == "" {
		r.Config.Hostname = "build"
	}
	r.Default()
	rec := &container.Record{ID: step.ID, Config: r.Config, HostConfig: r.HostConfig, Platform: step.Platform}
	rec.Path, rec.Args = step.Args[0], step.Args[1:]
	return rec
}

// stepRequest makes what the monitor starts.
func (e *Engine) stepRequest(ctx context.Context, step solve.Step, rec *container.Record, secrets stepSecrets) (monitor.StartRequest, error) {
	none := monitor.StartRequest{}
	in := spec.Input{Record: rec, Hostname: rec.Config.Hostname, Host: e.host, LastCap: e.lastCap}
	var err error
	if in.Identity, err = lookUp(step.Lower, step.User, nil); err != nil {
		return none, err
	}
	if err := os.MkdirAll(e.dir(rec.ID), 0o700); err != nil {
		return none, wrapFS("create", e.dir(rec.ID), err)
	}
	if err := e.connect(ctx, rec, &in); err != nil {
		return none, err
	}
	s, err := e.specs.Build(in)
	if err != nil {
		return none, err
	}
	for i, m := range step.Mounts {
		s.Mounts = append(s.Mounts, stepMount(m, secrets.files[i]))
	}
	encoded, err := e.specs.Encode(s, in)
	if err != nil {
		return none, err
	}
	return monitor.StartRequest{
		ID: rec.ID, Spec: s, SpecJSON: encoded, Log: monitor.LogConfig{Driver: monitor.NoLog},
		Overlay: &runtime.Overlay{Lower: step.Lower, Upper: step.Upper, Work: step.Work},
	}, nil
}

// stepMount turns a mount of a step into the runtime's. file is where the data of
// one that has data is.
func stepMount(m solve.Mount, file string) specs.Mount {
	access := "rw"
	if m.ReadOnly {
		access = "ro"
	}
	switch m.Kind {
	case solve.OverlayMount:
		options := []string{access}
		for _, dir := range m.Lower {
			options = append(options, "lowerdir+="+dir)
		}
		if m.Upper != "" {
			options = append(options, "upperdir="+m.Upper, "workdir="+m.Work)
		}
		return specs.Mount{Destination: m.Target, Type: "overlay", Source: "overlay", Options: options}
	case solve.TmpfsMount:
		options := []string{access, "nosuid", "nodev"}
		if m.Size > 0 {
			options = append(options, "size="+strconv.FormatInt(m.Size, 10))
		}
		return specs.Mount{Destination: m.Target, Type: "tmpfs", Source: "tmpfs", Options: options}
	case solve.DataMount:
		return specs.Mount{Destination: m.Target, Type: "bind", Source: file, Options: []string{"bind", "rprivate", access, "nosuid", "nodev", "noexec"}}
	}
	return specs.Mount{Destination: m.Target, Type: "bind", Source: m.Path, Options: []string{"rbind", "rprivate", access}}
}

// stepSecrets is where the data is that a step may see and no disk may: files in
// a tmpfs of the step's own.
type stepSecrets struct {
	dir   string         // "" when there are none
	files map[int]string // by the number of the mount
}

// secretsDir is below the run directory: what a killed engine left there is
// removed by the next.
func (e *Engine) secretsDir() string { return filepath.Join(e.cfg.RunDir, "secrets") }

func (e *Engine) stepSecrets(step solve.Step) (stepSecrets, error) {
	s := stepSecrets{files: map[int]string{}}
	for i, m := range step.Mounts {
		if m.Kind != solve.DataMount {
			continue
		}
		if s.dir == "" {
			s.dir = filepath.Join(e.secretsDir(), step.ID)
			if err := os.MkdirAll(s.dir, 0o700); err != nil {
				return s, wrapFS("create", s.dir, err)
			}
			if err := unix.Mount("secrets", s.dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
				return s, fault.New(fault.Internal, "mount secrets", s.dir, "%w", err)
			}
		}
		file := filepath.Join(s.dir, strconv.Itoa(i))
		if err := os.WriteFile(file, m.Data, 0o600); err != nil {
			return s, wrapFS("write", file, err)
		}
		if err := os.Chown(file, int(m.UID), int(m.GID)); err != nil {
			return s, wrapFS("set owner of", file, err)
		}
		if err := os.Chmod(file, os.FileMode(m.Mode&0o777)); err != nil {
			return s, wrapFS("set mode of", file, err)
		}
		s.files[i] = file
	}
	return s, nil
}

func (s stepSecrets) remove(e *Engine) {
	if s.dir == "" {
		return
	}
	err := e.unmountShmAt(s.dir)
	if err == nil {
		err = os.Remove(s.dir)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		e.log.Warn("remove secrets of a build step", "directory", s.dir, "error", err)
	}
}

// sweepSecrets removes what steps of a killed engine left.
func (e *Engine) sweepSecrets() {
	entries, _ := os.ReadDir(e.secretsDir())
	for _, entry := range entries {
		stepSecrets{dir: filepath.Join(e.secretsDir(), entry.Name())}.remove(e)
	}
}

// stepOutput is the way of a step's output to its writers.
type stepOutput struct {
	conn    *os.File
	copying sync.WaitGroup
}

func (e *Engine) stepOutput(ctx context.Context, step solve.Step) (*stepOutput, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fault.New(fault.Internal, "attach to build step", step.ID, "%w", err)
	}
	_ = unix.SetNonblock(fds[0], true) // so that Close ends a Read
	o := &stepOutput{conn: os.NewFile(uintptr(fds[0]), "output")}
	theirs := os.NewFile(uintptr(fds[1]), "output")
	defer theirs.Close()
	if err := e.monitor.Attach(ctx, monitor.AttachRequest{ContainerID: step.ID, Stdout: true, Stderr: true}, theirs); err != nil {
		o.conn.Close()
		return nil, err
	}
	stdout, stderr := orDiscard(step.Stdout), orDiscard(step.Stderr)
	o.copying.Go(func() { _, _ = stdcopy.StdCopy(stdout, stderr, o.conn) })
	return o, nil
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// wait returns when everything was passed on that the step wrote. The monitor
// closes the connection then.
func (o *stepOutput) wait() {
	o.copying.Wait()
	o.conn.Close()
}

// end cuts the connection.
func (o *stepOutput) end() {
	o.conn.Close()
	o.copying.Wait()
}

// stepEnd waits for the end of a step, and ends it when ctx does.
func (e *Engine) stepEnd(ctx context.Context, id string, happenings <-chan monitor.Event) (monitor.Exit, error) {
	canceled := ctx.Done()
	for {
		select {
		case <-canceled:
			canceled = nil
			if err := e.monitor.KillAll(context.WithoutCancel(ctx), id); err != nil && !fault.Is(err, fault.NotFound) {
				return monitor.Exit{}, err
			}
		case ev, open := <-happenings:
			switch {
			case !open:
				return monitor.Exit{}, fault.New(fault.Canceled, "run build step", id, "the engine is stopping")
			case ev.Type == monitor.EventExit && ev.ID == id && ev.Exit != nil:
				return *ev.Exit, nil
			case ev.Type == monitor.EventLost:
				if exit, over := e.stepOver(id); over {
					return exit, nil
				}
			}
		}
	}
}

// stepOver asks the monitor whether a step ended while it could not be heard.
func (e *Engine) stepOver(id string) (monitor.Exit, bool) {
	s, ok := e.monitorState(id)
	switch {
	case !ok:
		return monitor.Exit{Code: monitor.UnknownCode, Unknown: true}, true
	case s.Exited && s.Exit != nil:
		return *s.Exit, true
	}
	return monitor.Exit{}, s.Exited
}

// BuildLimits turns limits as requests have them, and the size of /dev/shm in
// bytes, into those of a build.
func BuildLimits(r api.Resources, shm int64) graph.Limits {
	l := graph.Limits{
		Memory: r.Memory, MemorySwap: r.MemorySwap, ShmSize: shm, CPUShares: r.CPUShares, CPUPeriod: r.CPUPeriod, CPUQuota: r.CPUQuota,
		CPUSetCPUs: r.CpusetCpus, CPUSetMs: r.CpusetMems, CgroupParent: r.CgroupParent,
	}
	for _, u := range r.Ulimits {
		l.Ulimits = append(l.Ulimits, graph.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	return l
}
