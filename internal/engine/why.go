package engine

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"

	"berth/internal/container"
	"berth/internal/engine/spec"
	"berth/internal/runtime/cgroup"
	"berth/internal/wire"

	api "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

const (
	whyLines   = 15   // of the log
	whyLine    = 2000 // bytes of one line
	whyKernel  = 5    // messages of the kernel
	whyOutput  = 500  // bytes of the output of a health check
	closeShare = 90   // percent of a limit from which on it is worth a word
)

// ContainerWhy collects what is known of how a container ended, why it does not
// start or how it fares, and what explains it, the most likely first.
func (e *Engine) ContainerWhy(ctx context.Context, ref string) (*wire.Why, error) {
	c, err := e.containers.Find(ref)
	if err != nil {
		return nil, err
	}
	rec := c.Record()
	s := rec.State
	w := &wire.Why{
		ID: rec.ID, Name: rec.Name, Image: rec.ImageRef, Command: append([]string{rec.Path}, rec.Args...), User: rec.Config.User,
		Status: string(s.Status), Created: rec.Created, Started: s.StartedAt, Finished: s.FinishedAt, Tty: rec.Config.Tty,
		Health:   whyHealth(rec),
		Restarts: whyRestarts(rec),
		Memory:   wire.WhyMemoryUse{Limit: max(rec.HostConfig.Memory, 0)},
	}
	for _, end := range slices.Backward(s.Ends) {
		w.Ends = append(w.Ends, whyEnd(end))
	}
	if len(w.Ends) > 0 {
		w.End, w.Ends = &w.Ends[0], w.Ends[1:]
		if !s.Alive() {
			w.End.Note = s.Note
		}
		w.End.StartFailed = w.End.StartFailed && !s.Alive()
	}
	e.whyUse(rec, w)
	w.Log = e.whyLog(ctx, rec)
	w.Kernel = e.whyKernel(rec)
	w.Causes = e.causes(rec, w)
	return w, ctx.Err()
}

// whyEnd is an end as it is told.
func whyEnd(end container.Ending) wire.WhyEnd {
	out := wire.WhyEnd{Started: end.StartedAt, At: end.At, Code: end.Code, OOM: end.OOM, StartFailed: end.StartFailed, Error: end.Error}
	if end.Signal != 0 {
		out.Signal, out.BySignal = signalName(end.Signal), true
	} else if end.Code > 128 && end.Code <= 128+64 && !end.Lost && !end.StartFailed {
		out.Signal = signalName(end.Code - 128)
	}
	if a := end.Asked; a != nil && meantEnd(end) {
		out.AskedBy, out.AskedAt, out.Forced = a.By, a.At, a.Forced
		if a.Signal != 0 {
			out.AskedSignal = signalName(a.Signal)
		}
	}
	return out
}

// meantEnd tells whether what was asked explains the end: a signal such as HUP is
// sent for other reasons, too.
func meantEnd(end container.Ending) bool {
	switch unix.Signal(end.Asked.Signal) {
	case unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGCONT, unix.SIGSTOP, unix.SIGCHLD:
		return end.Asked.Forced || end.Signal == end.Asked.Signal || end.Code == 128+end.Asked.Signal
	}
	return true
}

func signalName(n int) string {
	if name := unix.SignalName(unix.Signal(n)); name != "" {
		return name
	}
	return "signal " + itoa(n)
}

func whyHealth(rec *container.Record) *wire.WhyHealth {
	h := rec.State.Health
	if h == nil {
		return nil
	}
	out := &wire.WhyHealth{Status: string(h.Status), Streak: h.FailingStreak, Test: healthTest(rec.Config),
		Action: unhealthyAction(rec.Config, rec.HostConfig), Results: []wire.WhyProbe{}}
	for _, r := range h.Log {
		out.Results = append(out.Results, wire.WhyProbe{At: r.Start, Took: r.End.Sub(r.Start), Code: r.ExitCode, Output: cutText(strings.TrimSpace(r.Output), whyOutput)})
	}
	return out
}

func cutText(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + " ..."
	}
	return s
}

func whyRestarts(rec *container.Record) wire.WhyRestarts {
	p, s := rec.HostConfig.RestartPolicy, rec.State
	r := wire.WhyRestarts{Policy: string(p.Name), Count: s.Restarts, Next: s.Status == api.StateRestarting || s.Reviving}
	if p.Name == "" {
		r.Policy = string(api.RestartPolicyDisabled)
	}
	if p.IsOnFailure() && p.MaximumRetryCount > 0 {
		r.Policy += ":" + itoa(p.MaximumRetryCount)
		r.GaveUp = s.Status == api.StateExited && !s.StoppedByHand && s.ExitCode != 0 && s.Restarts >= p.MaximumRetryCount
	}
	return r
}

// whyUse reads what a running container uses and how long it waited; of one that
// has ended what was remembered.
func (e *Engine) whyUse(rec *container.Record, w *wire.Why) {
	if end, ok := rec.State.LastEnding(); ok && !rec.State.Alive() {
		w.Memory.Peak = end.PeakMemory
		if v := end.Victim; v != nil {
			w.Memory.Victim = &wire.WhyVictim{Name: v.Name, Pid: v.Pid, RSS: v.RSS}
		}
	}
	if !rec.State.Alive() {
		w.Pressure.Missing = "it does not run, and its cgroup went with it"
		return
	}
	m, err := cgroup.New(spec.CgroupPath(rec))
	if err != nil {
		w.Pressure.Missing = err.Error()
		return
	}
	if s, err := m.Stats(); err == nil {
		w.Memory.Now, w.Memory.Peak = int64(s.Memory.Usage), int64(s.Memory.MaxUsage)
		w.Pids = &wire.WhyCount{Now: s.Pids.Current, Limit: s.Pids.Limit}
		if s.CPU.Periods > 0 {
			w.Pressure.Throttle = &wire.WhyThrottle{Periods: s.CPU.Periods, Throttled: s.CPU.ThrottledPeriods}
		}
	}
	readPressure(m, &w.Pressure)
}

// whyLog is the end of the container's log.
func (e *Engine) whyLog(ctx context.Context, rec *container.Record) wire.WhyLog {
	out := wire.WhyLog{Lines: []string{}}
	var text bytes.Buffer
	err := e.ContainerLogs(ctx, rec.ID, LogsOptions{Stdout: true, Stderr: true, Tail: itoa(whyLines)}, &text, &text)
	if err != nil {
		out.Missing = err.Error()
		return out
	}
	for line := range strings.Lines(text.String()) {
		out.Lines = append(out.Lines, cutText(strings.TrimSuffix(line, "\n"), whyLine))
	}
	return out
}

// whyKernel is what the kernel wrote about the container's processes in its last
// run.
func (e *Engine) whyKernel(rec *container.Record) []string {
	s := rec.State
	if s.StartedAt.IsZero() || s.Boot != e.boot {
		return nil
	}
	until, pids := time.Now(), []int{s.Pid}
	if s.Alive() {
		if m, err := cgroup.New(spec.CgroupPath(rec)); err == nil {
			more, _ := m.Pids()
			pids = append(pids, more...)
		}
	} else {
		until = s.FinishedAt
		if end, ok := s.LastEnding(); ok {
			pids = []int{end.Pid}
		}
	}
	var marks []string
	for _, pid := range pids {
		if pid > 0 {
			marks = append(marks, "["+itoa(pid)+"]", " pid="+itoa(pid)+" ", "process "+itoa(pid)+" ")
		}
	}
	marks = append(marks, rec.ID)
	lines := kernelLog(s.StartedAt.Add(-kernelSlack), until.Add(kernelSlack), func(text string) bool {
		return slices.ContainsFunc(marks, func(mark string) bool { return strings.Contains(text, mark) })
	})
	var out []string
	for _, l := range lines[max(0, len(lines)-whyKernel):] {
		out = append(out, cutText(l.text, whyOutput))
	}
	return out
}
