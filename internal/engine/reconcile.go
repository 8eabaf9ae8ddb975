package engine

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"berth/internal/container"
	"berth/internal/fault"
	"berth/internal/metadata"
	"berth/internal/monitor"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// reconcile takes everything over: it compares the records, what the monitor
// knows and what is on disk, and makes them agree. What runs goes on running.
func (e *Engine) reconcile(ctx context.Context) error {
	if err := e.readRecords(); err != nil {
		return err
	}
	known, err := e.monitor.List(ctx)
	if err != nil {
		return err
	}
	states := make(map[string]monitor.ContainerState, len(known))
	for _, s := range known {
		states[s.ID] = s
	}
	live := make(map[string]bool)
	for id, s := range states {
		if c := e.containers.Get(id); c == nil {
			e.dropUnknown(ctx, s)
		} else if !s.Exited {
			live[id] = true
		}
	}
	if err := e.network.Adopt(ctx, live); err != nil {
		return err
	}
	e.adoptVolumes(live)
	var wanted []*container.Container
	for _, c := range e.containers.All() {
		s, running := states[c.ID]
		again, err := e.adopt(ctx, c, s, running)
		if err != nil {
			// A disk that is full or read-only: the next start tries again.
			e.log.Error("what became of a container cannot be written down", "container", c.ID, "error", err)
		}
		if again {
			wanted = append(wanted, c)
		}
	}
	for id := range live {
		if c := e.containers.Get(id); c != nil {
			e.nets.Settle(ctx, c.Record())
		}
	}
	e.sweep(live)
	e.startWanted(wanted)
	return nil
}

// readRecords fills the index. A record that can't be read costs one container
// its life under this engine, not the engine its start; its files stay.
func (e *Engine) readRecords() error {
	var bad []metadata.BadRecord
	err := e.db.View(func(tx *metadata.Tx) error {
		var err error
		bad, err = e.records.ForEach(tx, func(id string, rec container.Record) error {
			if rec.Config == nil || rec.HostConfig == nil || rec.ID != id {
				e.log.Error("a container's record is incomplete; it is left alone", "container", id)
				return nil
			}
			e.index(&rec)
			return nil
		})
		return err
	})
	for _, b := range bad {
		e.log.Error("a container's record can't be read; it is left alone", "container", b.Key, "error", b.Err)
	}
	return fault.Wrap("read containers", "", err)
}

func (e *Engine) index(rec *container.Record) {
	if err := e.containers.Reserve(rec.Name, rec.ID); err != nil {
		// Two records of one name can't come from this engine; both stay usable.
		e.log.Error("a container's name is taken", "container", rec.ID, "error", err)
		rec.Name = e.containers.ReserveFree(rec.ID, container.RandomName)
	}
	c := container.New(rec)
	c.Hold() // what an earlier engine held is not known
	e.containers.Add(c)
}

// dropUnknown ends what the monitor runs for a container without a record: its
// removal was committed, and the engine died before it could tell the monitor.
func (e *Engine) dropUnknown(ctx context.Context, s monitor.ContainerState) {
	if e.hasUnreadableRecord(s.ID) {
		return
	}
	if !s.Exited {
		if err := e.monitor.KillAll(ctx, s.ID); err != nil {
			e.log.Warn("end a container without a record", "container", s.ID, "error", err)
		}
		e.awaitEnd(ctx, s.ID)
	}
	if err := e.monitor.Forget(ctx, s.ID); err != nil {
		e.log.Warn("forget a container without a record", "container", s.ID, "error", err)
	}
}

// awaitEnd waits a moment for the monitor to notice the end of a container.
func (e *Engine) awaitEnd(ctx context.Context, id string) {
	for range 100 {
		known, err := e.monitor.List(ctx)
		if err != nil {
			return
		}
		over := true
		for _, s := range known {
			if s.ID == id && !s.Exited {
				over = false
			}
		}
		if over {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// hasUnreadableRecord reports whether the database has a record that the index
// has not.
func (e *Engine) hasUnreadableRecord(id string) bool {
	err := e.db.View(func(tx *metadata.Tx) error {
		_, err := e.records.Get(tx, id)
		return err
	})
	return !fault.Is(err, fault.NotFound)
}

// adopt makes one container's record agree with what the monitor says. It
// reports whether the container's policy wants it started now.
func (e *Engine) adopt(ctx context.Context, c *container.Container, s monitor.ContainerState, known bool) (bool, error) {
	rec := c.Record()
	switch {
	case known && !s.Exited:
		e.adoptRunning(c, s)
		return false, nil
	case known:
		if e.adoptExited(c, s) && c.State().Status == api.StateRestarting {
			return true, nil
		}
		return !c.Gone() && wantedAtStart(c.Record()), nil
	case rec.State.Status == api.StateRemoving:
		_, err := e.destroy(ctx, c, rec.HostConfig.AutoRemove)
		return false, err
	case rec.State.Alive():
		return e.adoptLost(ctx, c)
	case rec.State.Status == api.StateRestarting:
		return true, nil
	}
	// An end that was committed, but whose container was to vanish with it.
	if rec.HostConfig.AutoRemove && rec.State.Status == api.StateExited {
		_, err := e.destroy(ctx, c, true)
		return false, err
	}
	return wantedAtStart(rec), nil
}

// wantedAtStart tells whether a container that has ended is started when the engine
// comes up. With the policy always it is, as with docker, also when it was stopped by
// hand.
func wantedAtStart(rec *container.Record) bool {
	p, s := rec.HostConfig.RestartPolicy, rec.State
	if s.Status != api.StateExited && s.Status != api.StateCreated {
		return false
	}
	return s.Reviving || p.IsAlways() && !s.StartedAt.IsZero() || s.Wanted && policyWants(p, max(s.ExitCode, 1), 0)
}

// adoptRunning takes over a container that runs, whatever its record says.
func (e *Engine) adoptRunning(c *container.Container, s monitor.ContainerState) {
	config := c.Record().Config
	fresh := false
	rec := c.Change(func(st *container.State) {
		fresh = !st.Alive() || !st.StartedAt.Equal(s.StartedAt)
		st.Status = api.StateRunning
		if s.Paused {
			st.Status = api.StatePaused
		}
		st.Pid, st.StartedAt, st.Boot = s.PID, s.StartedAt, e.boot
		st.StartedUp = time.Duration(s.StartTime) * container.Tick
		st.ExitCode, st.Error, st.OOMKilled = 0, "", false
		if fresh || st.Health == nil {
			st.Health = initialHealth(config)
		}
	})
	e.retighten(c.Record()) // the engine before this one may have died between
	if fresh {
		e.emitStart(rec)
	}
	e.adoptExecs(s)
	e.laggards.add(c)
	e.probes.start(e, c)
	if h := c.State().Health; h != nil && h.Status == api.Unhealthy {
		e.unhealthy(c)
	}
}

// adoptExited records an end, unless the last engine got to that: what it did not get
// to then is to tell of it, and to tell the monitor.
func (e *Engine) adoptExited(c *container.Container, s monitor.ContainerState) (known bool) {
	exit := monitor.Exit{Code: monitor.UnknownCode, At: time.Now(), Unknown: true}
	if s.Exit != nil {
		exit = *s.Exit
	}
	st := c.State()
	if (st.Status == api.StateExited || st.Status == api.StateRestarting) && st.StartedAt.Equal(s.StartedAt) {
		x := exitOf(exit)
		x.Ran = x.At.Sub(s.StartedAt)
		e.emitDie(c.Record(), x)
		e.release(e.life, c)
		return true
	}
	rec := c.Change(func(st *container.State) {
		st.Status, st.StartedAt, st.StartedUp, st.Boot = api.StateRunning, s.StartedAt, 0, e.boot
	})
	e.emitStart(rec)
	e.ended(c, exit)
	return false
}

// emitStart tells of the start of a container that was taken over, unless the engine
// before this one got to that.
func (e *Engine) emitStart(rec *container.Record) {
	if !e.bus.Has(events.ActionStart, rec.ID, rec.State.StartedAt) {
		e.emit(rec, events.ActionStart, nil)
	}
}

// adoptLost records the end of a container of which only the record is left: the
// machine went down with it.
func (e *Engine) adoptLost(ctx context.Context, c *container.Container) (bool, error) {
	rec := c.Record()
	why := "the monitor does not know the container any more"
	if rec.State.Boot != e.boot {
		why = ""
	}
	if rec.HostConfig.AutoRemove {
		_, err := e.destroy(ctx, c, true)
		return false, err
	}
	rec = c.SetState(rec.State.Lost(time.Now(), why))
	if err := e.save(rec); err != nil {
		return false, err
	}
	goesOn := !rec.State.StoppedByHand && policyWants(rec.HostConfig.RestartPolicy, rec.State.ExitCode, rec.State.Restarts)
	return goesOn || wantedAtStart(rec), nil
}

// adoptExecs makes the monitor's execs of a container known again.
func (e *Engine) adoptExecs(s monitor.ContainerState) {
	for _, x := range s.Execs {
		known := e.execs.Get(x.ID)
		if known == nil {
			known = container.NewExec(x.ID, s.ID, api.ExecCreateRequest{})
			known.Claim()
			e.execs.Add(known)
		}
		known.Began(x.PID)
		if x.Exited && x.Exit != nil {
			known.Ended(x.Exit.Code)
		}
	}
}

// sweep removes what no container owns: directories of creates that were not
// finished and of removals that were.
func (e *Engine) sweep(live map[string]bool) {
	ids, err := e.layers.Writables()
	if err != nil {
		e.log.Warn("list the containers' files", "error", err)
	}
	for _, id := range ids {
		if e.containers.Get(id) != nil || e.hasUnreadableRecord(id) {
			continue
		}
		if err := e.layers.RemoveWritable(id); err != nil {
			e.log.Warn("remove a container's files", "container", id, "error", err)
		}
	}
	shm := filepath.Join(e.cfg.RunDir, "shm")
	entries, err := os.ReadDir(shm)
	if err != nil {
		return
	}
	for _, entry := range entries {
		if live[entry.Name()] {
			continue
		}
		if err := e.unmountShm(entry.Name()); err != nil {
			e.log.Warn("unmount shared memory", "container", entry.Name(), "error", err)
		}
	}
}

// startWanted starts what its policy wants up, after a boot or a crash. What does
// not start, because of a port that is taken or a network that is still to come, is
// tried again as after any other failure, and what somebody stops before its turn
// stays down.
func (e *Engine) startWanted(list []*container.Container) {
	list = inOrder(list)
	asked := make([]*container.Asked, len(list))
	for i, c := range list {
		asked[i] = c.State().Asked
	}
	e.work.Go(func() {
		for i, c := range list {
			if e.life.Err() != nil || c.Lock(e.life) != nil {
				return
			}
			if startable(c) == nil && c.State().Asked == asked[i] {
				e.startWantedNow(c)
			}
			c.Unlock()
		}
	})
}

// startWantedNow starts a container whose operation lock the caller holds. What was
// stopped by hand before is so no longer: its policy holds again.
func (e *Engine) startWantedNow(c *container.Container) {
	if c.State().StoppedByHand {
		rec := c.Change(func(s *container.State) { s.StoppedByHand, s.Restarts, s.Wanted = false, 0, true })
		if err := e.save(rec); err != nil {
			e.log.Error("record a start", "container", c.ID, "error", err)
		}
	}
	if err := e.start(e.life, c); err != nil {
		e.tryAgain(c, err)
	}
}
