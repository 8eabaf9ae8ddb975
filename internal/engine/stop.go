package engine

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"berth/internal/container"
	"berth/internal/fault"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"
)

const (
	defaultStopTimeout = 10 // seconds, docker's
	// deafPatience is how long a process is waited for that shows no way to act
	// on its stop signal.
	deafPatience = time.Second
)

// ContainerStop ends a container: first by its stop signal, then by force. It
// does not wait for a process that can't act on the signal.
func (e *Engine) ContainerStop(ctx context.Context, ref string, o StopOptions) error {
	c, err := e.containers.Find(ref)
	if err != nil {
		return err
	}
	if !c.State().Up() {
		return fault.New(fault.NotModified, "", "", "container %s is not running", c.ID)
	}
	ctx, end := e.finishing(ctx)
	defer end()
	if err := e.stop(ctx, c, o); err != nil {
		return err
	}
	e.emit(c.Record(), events.ActionStop, noteAttr(c.State().Note))
	return nil
}

// finishing returns a context for what is finished once it has begun, whether the client
// waits for it or not, as docker does: a container that got its stop signal is killed in
// time, and one that is restarted starts again. It ends with the engine.
func (e *Engine) finishing(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(e.life, cancel)
	return ctx, func() { stop(); cancel() }
}

func noteAttr(note string) map[string]string {
	if note == "" {
		return nil
	}
	return map[string]string{"note": note}
}

// stopping is what the container and the request say about a stop.
func stopping(rec *container.Record, o StopOptions) (signal int, timeout time.Duration, err error) {
	name := o.Signal
	if name == "" {
		name = rec.Config.StopSignal
	}
	if name == "" {
		name = "SIGTERM"
	}
	if signal, err = container.ParseSignal(name); err != nil {
		return 0, 0, err
	}
	seconds := defaultStopTimeout
	if rec.Config.StopTimeout != nil {
		seconds = *rec.Config.StopTimeout
	}
	if o.Timeout != nil {
		seconds = *o.Timeout
	}
	return signal, time.Duration(seconds) * time.Second, nil
}

// stop ends a container and returns when it has ended.
func (e *Engine) stop(ctx context.Context, c *container.Container, o StopOptions) error {
	rec := c.Record()
	signal, timeout, err := stopping(rec, o)
	if err != nil {
		return err
	}
	if err := e.leave(ctx, c, o.revive, askedBy(o, signal, timeout)); err != nil {
		return err
	}
	ended, forget := c.Wait(api.WaitConditionNotRunning)
	defer forget()
	state := c.State()
	if !state.Alive() {
		return nil
	}
	patience, why := timeout, ""
	if timeout != 0 {
		if err := e.signal(ctx, c, signal); err != nil && !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Conflict) {
			return err
		}
		// Negative means: as long as it takes.
		if deaf(rec, state.Pid, signal) && (patience < 0 || patience > deafPatience) {
			patience = deafPatience
			why = fmt.Sprintf("killed: PID 1 has no handler for %s, so the kernel drops the signal; run it with --init to stop at once", unix.SignalName(unix.Signal(signal)))
		}
	}
	if done, err := waitFor(ctx, ended, patience); done || err != nil {
		return err
	}
	if why != "" {
		c.Change(func(s *container.State) { s.Note = why })
		if o.Note != nil {
			o.Note(why)
		}
	}
	return e.finishOff(ctx, c, ended)
}

// askedBy is what is remembered of a request to stop.
func askedBy(o StopOptions, signal int, timeout time.Duration) *container.Asked {
	a := &container.Asked{By: o.by, At: time.Now(), Signal: signal}
	if a.By == "" {
		a.By = container.ByHand
	}
	if timeout == 0 {
		a.Signal = 0
	}
	return a
}

// forced is a request to end, followed by a kill.
func forced(a *container.Asked) *container.Asked {
	if a == nil {
		return nil
	}
	n := *a
	n.Forced = true
	return &n
}

// leaveStopped tells the restart policy to leave a container alone. Under a
// policy this must be on disk before the container ends. A container between two
// starts ends here and now.
func (e *Engine) leaveStopped(ctx context.Context, c *container.Container) error {
	return e.leave(ctx, c, false, &container.Asked{By: container.ByHand, At: time.Now()})
}

// leave is leaveStopped, or, with revive, the same for a container that is to be
// started again after its end by this engine or by the next one.
func (e *Engine) leave(ctx context.Context, c *container.Container, revive bool, asked *container.Asked) error {
	if err := c.Lock(ctx); err != nil {
		return err
	}
	defer c.Unlock()
	if c.Gone() {
		return nil
	}
	e.restarts.forget(c.ID)
	was := c.State().Reviving
	rec := c.Change(func(s *container.State) {
		s.StoppedByHand, s.Wanted, s.Note, s.Reviving, s.Asked = true, false, "", revive, asked
		if s.Status == api.StateRestarting {
			s.Status = api.StateExited
		}
	})
	if rec.State.Status == api.StateExited {
		c.AnswerExit(container.Result{ExitCode: rec.State.ExitCode})
	}
	if mustSaveStart(rec) || was || revive {
		return e.save(rec)
	}
	return nil
}

// signal sends a signal to a container's process and thaws a frozen one, which
// could not act on it.
func (e *Engine) signal(ctx context.Context, c *container.Container, signal int) error {
	if err := e.monitor.Signal(context.WithoutCancel(ctx), c.ID, "", signal); err != nil {
		return err
	}
	e.emit(c.Record(), events.ActionKill, map[string]string{"signal": strconv.Itoa(signal)})
	if c.State().Status == api.StatePaused {
		return e.unpause(ctx, c)
	}
	return nil
}

// waitFor waits for the end, for at most patience unless that is negative.
func waitFor(ctx context.Context, ended <-chan container.Result, patience time.Duration) (done bool, err error) {
	var late <-chan time.Time
	if patience >= 0 {
		t := time.NewTimer(patience)
		defer t.Stop()
		late = t.C
	}
	select {
	case <-ended:
		return true, nil
	default:
	}
	select {
	case <-ended:
		return true, nil
	case <-late:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// finishOff kills everything in a container and waits until it has ended.
func (e *Engine) finishOff(ctx context.Context, c *container.Container, ended <-chan container.Result) error {
	// The client may go away; the kill that was promised happens.
	c.Change(func(s *container.State) { s.Asked = forced(s.Asked) })
	if err := e.monitor.KillAll(context.WithoutCancel(ctx), c.ID); err != nil && !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Conflict) {
		return err
	}
	e.emit(c.Record(), events.ActionKill, map[string]string{"signal": strconv.Itoa(int(unix.SIGKILL))})
	done, err := waitFor(ctx, ended, killPatience)
	if err == nil && !done {
		err = fault.New(fault.Internal, "", "", "container %s does not end although it was killed", c.ID).
			WithHint("a process of it may hang in the kernel; look for state D in ps")
	}
	return err
}
