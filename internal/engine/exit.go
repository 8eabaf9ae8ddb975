package engine

import (
	"context"
	"strconv"
	"time"

	"berth/internal/container"
	"berth/internal/engine/why"
	"berth/internal/metadata"
	"berth/internal/monitor"

	"github.com/moby/moby/api/types/events"
)

// follow acts on what the monitor tells, until the engine ends. What concerns
// one container never waits for another one.
func (e *Engine) follow(happenings <-chan monitor.Event) {
	for ev := range happenings {
		switch ev.Type {
		case monitor.EventExit:
			if c := e.containers.Get(ev.ID); c != nil && ev.Exit != nil {
				e.work.Go(func() { e.handleExit(c, *ev.Exit) })
			}
		case monitor.EventOOM:
			if c := e.containers.Get(ev.ID); c != nil {
				e.counters.OOMs.Add(1)
				e.emit(c.Record(), events.ActionOOM, nil)
			}
		case monitor.EventExecExit:
			if ev.Exit != nil {
				e.handleExecExit(ev.ID, ev.ExecID, *ev.Exit)
			}
		case monitor.EventDetach:
			e.handleDetach(ev.ID, ev.ExecID)
		case monitor.EventLost:
			e.work.Go(e.catchUp)
		}
	}
}

// catchUp asks the monitor what happened while it could not be heard.
func (e *Engine) catchUp() {
	known, err := e.monitor.List(e.life)
	if err != nil {
		if e.life.Err() == nil {
			e.log.Error("ask the monitor for its containers", "error", err)
		}
		return
	}
	byID := make(map[string]monitor.ContainerState, len(known))
	for _, s := range known {
		byID[s.ID] = s
	}
	for _, c := range e.containers.All() {
		s, ok := byID[c.ID]
		if ok {
			e.adoptExecs(s)
		}
		if ok && !s.Exited {
			continue
		}
		if !c.State().Alive() {
			continue
		}
		exit := monitor.Exit{Code: monitor.UnknownCode, At: time.Now(), Unknown: true}
		if ok && s.Exit != nil {
			exit = *s.Exit
		} else if e.stillThere(c) {
			continue // started after the list was made
		}
		e.handleExit(c, exit)
	}
}

// stillThere asks the monitor about one container anew, under its lock, so that
// a start which is under way is over.
func (e *Engine) stillThere(c *container.Container) bool {
	if c.Lock(e.life) != nil {
		return true
	}
	defer c.Unlock()
	return e.knownToRun(c.ID)
}

// knownToRun asks the monitor whether a container runs; it does when the monitor
// can't be asked.
func (e *Engine) knownToRun(id string) bool {
	s, known, err := e.monitor.State(e.life, id)
	return err != nil || known && !s.Exited
}

// monitorState returns what the monitor knows of one container; nothing when it can't
// be asked.
func (e *Engine) monitorState(id string) (monitor.ContainerState, bool) {
	s, known, err := e.monitor.State(e.life, id)
	return s, known && err == nil
}

// handleExit records the end of a container and does what follows from it. The
// order is what clients rely on: first the disk, then the event, so that nobody has
// an answer whose event a kill can take away, then those who wait, then the rest.
func (e *Engine) handleExit(c *container.Container, exit monitor.Exit) {
	if c.Lock(e.life) != nil {
		return // the next engine will hear of it from the monitor
	}
	defer c.Unlock()
	e.ended(c, exit)
}

// ended is handleExit for those who hold the operation lock.
func (e *Engine) ended(c *container.Container, exit monitor.Exit) {
	state := c.State()
	if c.Gone() {
		return
	}
	if !state.Alive() {
		// Told before, or the end of a run which another engine began and did not
		// live to tell of.
		if s, ok := e.monitorState(c.ID); ok && s.Exited {
			e.adoptExited(c, s)
		}
		return
	}
	// An end of a run before this one was dealt with already. One that only seems to
	// be from before, because the clock went back, is this run's.
	if last, ok := state.LastEnding(); (exit.At.Before(state.StartedAt) || ok && last.At.Equal(exit.At)) && e.knownToRun(c.ID) {
		return
	}
	ctx := context.WithoutCancel(e.life)
	e.probes.stop(c.ID)
	e.execs.EndAll(c.ID, monitor.UnknownCode)
	x := exitOf(exit)
	x.Ran = state.Ran(x.At)
	if x.OOMKilled {
		x.Victim = why.OOMVictim(c.Record())
	}
	delay, again := e.restarts.next(c.Record(), x)
	e.counters.Exits.Add(1)
	if again {
		e.counters.Restarts.Add(1)
	}
	if c.Record().HostConfig.AutoRemove {
		e.endForGood(ctx, c, x)
		return
	}
	next, err := afterEnd(state, x, again)
	if err != nil {
		e.log.Error("record the end of a container", "container", c.ID, "error", err)
		return
	}
	rec := c.Record().Clone()
	rec.State = next
	e.laggards.drop(c.ID)
	if err := e.save(rec); err != nil {
		// Those who wait must not wait for a disk to be repaired. The monitor
		// keeps the exit, so the next engine can try again.
		e.log.Error("record the end of a container", "container", c.ID, "error", err)
		c.Set(rec)
		c.AnswerExit(container.Result{ExitCode: x.Code})
		return
	}
	c.Set(rec)
	e.emitDie(rec, x)
	if !again {
		c.AnswerExit(container.Result{ExitCode: x.Code})
	}
	e.release(ctx, c)
	if again {
		e.restarts.schedule(e, c, delay)
	}
}

// afterEnd is the state that an end leads to, whether or not the restart policy wants
// the container up again.
func afterEnd(state container.State, x container.Exit, again bool) (next container.State, err error) {
	if again {
		next, err = state.Restarting(x)
		next.Restarts++
	} else if next, err = state.Exited(x); next.Health != nil {
		next.Health = unhealthyAtEnd(next.Health)
	}
	next.Wanted = again
	return next, err
}

// exitOf is a monitor's exit as a container's state has it.
func exitOf(m monitor.Exit) container.Exit {
	x := container.Exit{Code: m.Code, OOMKilled: m.OOMKilled, At: m.At, Signal: m.Signal, PeakMemory: m.PeakMemory}
	if m.Unknown {
		x.Error = "the container ended while nobody could see how"
	}
	return x
}

// endForGood ends and removes a container in one transaction.
func (e *Engine) endForGood(ctx context.Context, c *container.Container, x container.Exit) {
	state, err := c.State().Exited(x)
	if err != nil {
		e.log.Error("record the end of a container", "container", c.ID, "error", err)
		return
	}
	rec := c.SetState(state)
	gone := e.takeOwnVolumes(rec)
	err = e.db.Update(func(tx *metadata.Tx) error { return e.deleteRecord(tx, rec.ID, gone) })
	if err != nil {
		e.spareVolumes(gone)
		e.log.Error("remove a container at its end", "container", c.ID, "error", err)
	}
	e.emitDie(rec, x)
	c.AnswerExit(container.Result{ExitCode: x.Code})
	if err == nil {
		_, err = e.clear(ctx, c, gone)
	}
	if err != nil {
		c.FailRemoval(container.Result{ExitCode: x.Code, Err: err})
	}
}

// emitDie publishes docker's event of an end, with what nobody else tells: why
// it had to be killed. An end that the engine before this one had told of is told
// once.
func (e *Engine) emitDie(rec *container.Record, x container.Exit) {
	if e.bus.Has(events.ActionDie, rec.ID, x.At) {
		return
	}
	more := map[string]string{
		"exitCode":     strconv.Itoa(x.Code),
		"execDuration": strconv.Itoa(int(x.Ran.Seconds())),
	}
	if rec.State.Note != "" {
		more["note"] = rec.State.Note
	}
	e.emit(rec, events.ActionDie, more)
}

// handleExecExit records the end of an exec.
func (e *Engine) handleExecExit(containerID, execID string, exit monitor.Exit) {
	x := e.execs.Get(execID)
	if x == nil || x.ContainerID != containerID {
		return
	}
	x.Ended(exit.Code)
	if c := e.containers.Get(containerID); c != nil && !x.Quiet {
		e.emit(c.Record(), "exec_die", map[string]string{"execID": execID, "exitCode": strconv.Itoa(exit.Code)})
	}
}

// handleDetach tells that a client typed its detach keys.
func (e *Engine) handleDetach(containerID, execID string) {
	c := e.containers.Get(containerID)
	if c == nil {
		return
	}
	if execID != "" {
		e.emit(c.Record(), "exec_detach", map[string]string{"execID": execID})
		return
	}
	e.emit(c.Record(), events.ActionDetach, nil)
}
