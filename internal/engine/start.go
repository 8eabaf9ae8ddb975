package engine

import (
	"context"
	"path/filepath"
	"strconv"
	"time"

	"berth/internal/container"
	"berth/internal/engine/cdi"
	"berth/internal/engine/spec"
	"berth/internal/engine/vocabulary"
	"berth/internal/engine/why"
	"berth/internal/fault"
	"berth/internal/monitor"
	"berth/internal/runtime"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// ContainerStart starts a container that does not run. When it returns without
// an error the user's program runs, or has run already.
func (e *Engine) ContainerStart(ctx context.Context, ref, detachKeys string) error {
	if _, err := vocabulary.DetachKeys(detachKeys); err != nil {
		return err
	}
	c, err := e.containers.Find(ref)
	if err != nil {
		return err
	}
	if err := c.Lock(ctx); err != nil {
		return err
	}
	defer c.Unlock()
	if err := startable(c); err != nil {
		return err
	}
	e.restarts.forget(c.ID)
	rec := c.Change(func(s *container.State) { s.StoppedByHand, s.Restarts, s.Wanted = false, 0, true })
	if mustSaveStart(rec) {
		if err := e.save(rec); err != nil {
			return err
		}
	}
	return e.start(ctx, c)
}

// startable refuses to start what runs or goes away. The caller holds the
// operation lock.
func startable(c *container.Container) error {
	if c.Gone() {
		return fault.New(fault.NotFound, "", "", "No such container: %s", c.ID)
	}
	switch c.State().Status {
	case api.StateRunning:
		return fault.New(fault.NotModified, "", "", "container %s is already running", c.ID)
	case api.StatePaused:
		return fault.New(fault.Conflict, "", "", "cannot start a paused container, try unpause instead")
	case api.StateRemoving, api.StateDead:
		return fault.New(fault.Conflict, "", "", "container is marked for removal and cannot be started")
	}
	return nil
}

// start starts a container whose operation lock the caller holds. A client that
// goes away meanwhile does not leave half a start.
func (e *Engine) start(ctx context.Context, c *container.Container) error {
	ctx = context.WithoutCancel(ctx)
	rec := c.Record()
	c.Hold()
	began := time.Now()
	started, err := e.launch(ctx, rec)
	if fault.Is(err, fault.Conflict) && e.beganBefore(c) {
		return nil
	}
	if err != nil {
		return e.startFailed(ctx, c, err)
	}
	state, err := rec.State.Running(started.PID, started.At, e.boot)
	if err != nil {
		return err
	}
	state.Health = initialHealth(rec.Config)
	c.SetState(state)
	e.nets.Relink(c.ID)
	e.counters.Started(time.Since(began))
	e.laggards.add(c)
	e.probes.start(e, c)
	e.forwards.start(e, c)
	e.emit(rec, events.ActionStart, nil)
	return nil
}

// beganBefore takes over a run which an engine before this one began and did not
// live to see: the monitor says that the container runs already.
func (e *Engine) beganBefore(c *container.Container) bool {
	s, ok := e.monitorState(c.ID)
	if !ok {
		return false
	}
	if s.Exited {
		e.adoptExited(c, s)
	} else {
		e.adoptRunning(c, s)
	}
	return true
}

// mustSaveStart tells whether a start changes something that must outlive the
// machine: whether the restart policy shall act after a boot.
func mustSaveStart(rec *container.Record) bool {
	return !rec.HostConfig.RestartPolicy.IsNone()
}

// launch does the work of a start: endpoint, files, specification, monitor. What
// it made is undone by startFailed.
func (e *Engine) launch(ctx context.Context, rec *container.Record) (monitor.Started, error) {
	none := monitor.Started{}
	ready, err := e.prepareMounts(rec, rec.ID)
	if err != nil {
		return none, err
	}
	upper, work, err := e.layers.Writable(rec.ID, rec.Layers, rec.MountedLayers()...)
	if err != nil {
		return none, err
	}
	mounted, err := e.loosen(rec)
	if err != nil {
		return none, err
	}
	defer mounted()
	lower, err := e.layers.Lower(rec.Layers)
	if err != nil {
		return none, err
	}
	full := rec.Clone()
	full.Mounts = ready
	in, err := e.specInput(ctx, full)
	if err != nil {
		return none, err
	}
	s, err := e.specs.Build(in)
	if err != nil {
		return none, err
	}
	if err := cdi.Apply(s, cdi.Dirs, deviceNames(rec)); err != nil {
		return none, err
	}
	encoded, err := e.specs.Encode(s, in)
	if err != nil {
		return none, err
	}
	req := monitor.StartRequest{
		ID:        rec.ID,
		Spec:      s,
		SpecJSON:  encoded,
		Overlay:   &runtime.Overlay{Lower: lower, Upper: upper, Work: work},
		OpenStdin: rec.Config.OpenStdin,
		StdinOnce: rec.Config.StdinOnce,
		Log:       e.logConfig(rec),
		Runtime:   e.cfg.Runtimes[rec.HostConfig.Runtime],
	}
	return e.monitor.Start(ctx, req)
}

// deviceNames are the devices of the Container Device Interface that a container has.
func deviceNames(rec *container.Record) (names []string) {
	for _, d := range rec.HostConfig.DeviceRequests {
		names = append(names, d.DeviceIDs...)
	}
	return names
}

// specInput collects what the specification is made from: who the process is,
// which namespaces it has, and the files that tell it about its network.
func (e *Engine) specInput(ctx context.Context, rec *container.Record) (spec.Input, error) {
	in := spec.Input{Record: rec, Hostname: rec.Config.Hostname, Host: e.host, LastCap: e.lastCap, InitFile: e.initPath()}
	var err error
	if in.Bounded, err = e.bounded(rec); err != nil {
		return in, err
	}
	if in.Identity, err = e.identity(rec, rec.Config.User, rec.HostConfig.GroupAdd); err != nil {
		return in, err
	}
	if err := e.joinNamespaces(rec, &in); err != nil {
		return in, err
	}
	if err := e.connect(ctx, rec, &in); err != nil {
		return in, err
	}
	e.nets.Announce(rec)
	return in, nil
}

// joinNamespaces resolves the modes of namespaces other than the network's.
func (e *Engine) joinNamespaces(rec *container.Record, in *spec.Input) error {
	hc := rec.HostConfig
	var err error
	switch {
	case hc.PidMode.IsHost():
		in.PID.Host = true
	case hc.PidMode.IsContainer():
		if in.PID.Path, err = e.namespaceOf(hc.PidMode.Container(), "pid"); err != nil {
			return err
		}
	}
	in.UTS.Host = hc.UTSMode.IsHost()
	if ref := vocabulary.Joined(hc.UTSMode); ref != "" {
		if in.UTS.Path, err = e.namespaceOf(ref, "uts"); err != nil {
			return err
		}
	}
	if ref := vocabulary.Joined(hc.CgroupnsMode); ref != "" {
		if in.Cgroupns, err = e.namespaceOf(ref, "cgroup"); err != nil {
			return err
		}
	}
	if ref := vocabulary.Joined(hc.UsernsMode); ref != "" {
		if _, err = e.namespaceOf(ref, "user"); err != nil { // which is the host's, as that of all containers
			return err
		}
	}
	switch m := hc.IpcMode; {
	case m.IsHost():
		in.IPC.Host, in.ShmSource = true, "/dev/shm"
	case m.IsNone():
		in.NoIPC = true
	case m.IsContainer():
		if in.IPC.Path, err = e.namespaceOf(m.Container(), "ipc"); err != nil {
			return err
		}
		in.ShmSource = e.shmPath(m.Container())
	case m.IsShareable():
		if in.ShmSource, err = e.mountShm(rec); err != nil {
			return err
		}
	}
	return nil
}

// namespaceOf returns the path of a namespace of another container, which must
// run.
func (e *Engine) namespaceOf(id, kind string) (string, error) {
	c, err := e.containers.Find(id)
	if err != nil {
		return "", err
	}
	s := c.State()
	if !s.Alive() || s.Pid == 0 {
		return "", fault.New(fault.Conflict, "", "", "cannot join %s namespace of a non running container: %s", kind, c.ID)
	}
	return filepath.Join("/proc", strconv.Itoa(s.Pid), "ns", kind), nil
}

// startFailed undoes what a failed start made and records why.
func (e *Engine) startFailed(ctx context.Context, c *container.Container, cause error) error {
	rec := c.Record()
	e.counters.StartFailures.Add(1)
	e.release(ctx, c)
	code, cause := why.StartFailed(cause)
	if rec.HostConfig.AutoRemove {
		e.emit(rec, events.ActionDie, map[string]string{"exitCode": strconv.Itoa(code)})
		c.SetState(rec.State.FailedStart(code, cause.Error()))
		if _, err := e.destroy(ctx, c, true); err != nil {
			e.log.Error("remove container after its failed start", "container", c.ID, "error", err)
		}
		return cause
	}
	rec = c.SetState(rec.State.FailedStart(code, cause.Error()))
	if err := e.save(rec); err != nil {
		e.log.Error("record a failed start", "container", c.ID, "error", err)
	}
	c.AnswerExit(container.Result{ExitCode: code, Err: cause})
	return cause
}

// release gives back what a container which does not run holds outside of the
// data directory.
func (e *Engine) release(ctx context.Context, c *container.Container) {
	if !c.Unhold() {
		return
	}
	rec := c.Record()
	if err := e.monitor.Forget(ctx, rec.ID); err != nil {
		e.log.Warn("forget container", "container", rec.ID, "error", err)
	}
	if err := e.nets.Detach(ctx, rec); err != nil {
		e.log.Warn("detach container from its network", "container", rec.ID, "error", err)
	}
	e.releaseVolumes(rec)
	if rec.HostConfig.IpcMode.IsShareable() {
		if err := e.unmountShm(rec.ID); err != nil {
			e.log.Warn("unmount shared memory", "container", rec.ID, "error", err)
		}
	}
}
