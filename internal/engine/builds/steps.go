package builds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"

	"berth/internal/build/graph"
	"berth/internal/build/solve"
	"berth/internal/container"
	"berth/internal/container/identity"
	"berth/internal/engine/networks"
	"berth/internal/engine/spec"
	"berth/internal/engine/vocabulary"
	"berth/internal/engine/why"
	"berth/internal/monitor"
	"berth/internal/runtime"

	api "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Machine is what steps are run on.
type Machine struct {
	Life     context.Context // ends with the engine
	RunDir   string          // dies with the boot
	Host     vocabulary.Host
	LastCap  int // number of the last capability of the running kernel
	Monitor  *monitor.Client
	Networks *networks.Set
	Specs    *spec.Builder
	Log      *slog.Logger
}

// Steps runs the programs of builds: as containers without a record, isolated
// like all others, of which nothing is left when they end. It implements
// solve.Executor.
type Steps struct{ m Machine }

// NewSteps returns what runs the steps of builds on a machine.
func NewSteps(m Machine) *Steps { return &Steps{m} }

// Run implements solve.Executor.
func (s *Steps) Run(ctx context.Context, step solve.Step) (solve.Exit, error) {
	rec := stepRecord(step, s.m.Host)
	secrets, err := s.secrets(step)
	defer secrets.remove(s.m.Log)
	if err != nil {
		return solve.Exit{}, err
	}
	// Whoever stopped listening still wants nothing left behind.
	cleanup := context.WithoutCancel(ctx)
	defer s.forget(cleanup, rec)
	req, err := s.request(ctx, step, rec, secrets)
	if err != nil {
		return solve.Exit{}, err
	}
	listening, stop := context.WithCancel(s.m.Life)
	defer stop()
	happenings := s.m.Monitor.Events(listening)
	output, err := s.output(cleanup, step)
	if err != nil {
		return solve.Exit{}, err
	}
	if _, err := s.m.Monitor.Start(cleanup, req); err != nil {
		output.end()
		return startOfStepFailed(step, err)
	}
	exit, err := s.end(ctx, rec.ID, happenings)
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
	_, _ = fmt.Fprintln(step.Stderr, why.Exec(exec))
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

// request makes what the monitor starts.
func (s *Steps) request(ctx context.Context, step solve.Step, rec *container.Record, secrets secrets) (monitor.StartRequest, error) {
	none := monitor.StartRequest{}
	in := spec.Input{Record: rec, Hostname: rec.Config.Hostname, Host: s.m.Host, LastCap: s.m.LastCap}
	var err error
	if in.Identity, err = identity.InLayers(step.Lower, step.User, nil); err != nil {
		return none, err
	}
	in.Net.Host = rec.HostConfig.NetworkMode.IsHost()
	if in.Net.Path, err = s.m.Networks.Attach(ctx, rec); err != nil {
		return none, err
	}
	files := s.m.Networks.Files(rec.ID)
	in.Resolv, in.Hosts, in.HostnameFile = files.Resolv, files.Hosts, files.Hostname
	made, err := s.m.Specs.Build(in)
	if err != nil {
		return none, err
	}
	for i, m := range step.Mounts {
		made.Mounts = append(made.Mounts, stepMount(m, secrets.files[i]))
	}
	encoded, err := s.m.Specs.Encode(made, in)
	if err != nil {
		return none, err
	}
	return monitor.StartRequest{
		ID: rec.ID, Spec: made, SpecJSON: encoded, Log: monitor.LogConfig{Driver: monitor.NoLog},
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

// forget leaves nothing of a step behind, whoever stopped listening.
func (s *Steps) forget(ctx context.Context, rec *container.Record) {
	if err := s.m.Monitor.Forget(ctx, rec.ID); err != nil {
		s.m.Log.Warn("forget build step", "step", rec.ID, "error", err)
	}
	if err := s.m.Networks.Detach(ctx, rec); err != nil {
		s.m.Log.Warn("detach build step from its network", "step", rec.ID, "error", err)
	}
}

// Limits turns limits as requests have them, and the size of /dev/shm in
// bytes, into those of a build.
func Limits(r api.Resources, shm int64) graph.Limits {
	l := graph.Limits{
		Memory: r.Memory, MemorySwap: r.MemorySwap, ShmSize: shm, CPUShares: r.CPUShares, CPUPeriod: r.CPUPeriod, CPUQuota: r.CPUQuota,
		CPUSetCPUs: r.CpusetCpus, CPUSetMs: r.CpusetMems, CgroupParent: r.CgroupParent,
	}
	for _, u := range r.Ulimits {
		l.Ulimits = append(l.Ulimits, graph.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	return l
}
