// Package why judges from evidence how a container ended, why it does not start or
// how it fares. It exists apart from the engine because it decides nothing and
// changes nothing: the engine hands over what it knows of a container, and what the
// kernel and the machine tell is looked up here.
package why

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/container"
	"berth/internal/engine/spec"
	"berth/internal/runtime/cgroup"
	"berth/internal/wire"

	api "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// LogLines is how many lines of a log are evidence.
const LogLines = 15

const (
	maxLine    = 2000 // bytes of one line
	maxKernel  = 5    // messages of the kernel
	maxOutput  = 500  // bytes of the output of a health check
	closeShare = 90   // percent of a limit from which on it is worth a word
)

// Others are the containers beside the one in question; *container.Index is.
type Others interface {
	Find(ref string) (*container.Container, error)
}

// Evidence is what an engine knows of a container.
type Evidence struct {
	Record *container.Record
	Boot   string // id of the running boot
	Others Others

	Check     []string      // the command of its health check; nil when it has none
	Unhealthy string        // what happens when that has failed; "" is nothing
	Settled   time.Duration // how long a container must be up to count as started for good

	Log   string   // the last LogLines lines that it wrote
	NoLog error    // why they cannot be read
	Root  []string // directories of its root file system, the uppermost first; empty when they are not known
}

// Explain says what is known, and what explains it, the most likely first.
func (k *Evidence) Explain() *wire.Why {
	rec := k.Record
	s := rec.State
	w := &wire.Why{
		ID: rec.ID, Name: rec.Name, Image: rec.ImageRef, Command: append([]string{rec.Path}, rec.Args...), User: rec.Config.User,
		Status: string(s.Status), Created: rec.Created, Started: s.StartedAt, Finished: s.FinishedAt, Tty: rec.Config.Tty,
		Health:   k.health(),
		Restarts: restarts(rec),
		Memory:   wire.WhyMemoryUse{Limit: max(rec.HostConfig.Memory, 0)},
		Log:      k.lastLines(),
		Kernel:   k.kernel(),
	}
	for _, end := range slices.Backward(s.Ends) {
		w.Ends = append(w.Ends, ending(end))
	}
	if len(w.Ends) > 0 {
		w.End, w.Ends = &w.Ends[0], w.Ends[1:]
		if !s.Alive() {
			w.End.Note = s.Note
		}
		w.End.StartFailed = w.End.StartFailed && !s.Alive()
	}
	use(rec, w)
	w.Causes = k.causes(w)
	return w
}

// ending is an end as it is told.
func ending(end container.Ending) wire.WhyEnd {
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
	return "signal " + strconv.Itoa(n)
}

func (k *Evidence) health() *wire.WhyHealth {
	h := k.Record.State.Health
	if h == nil {
		return nil
	}
	out := &wire.WhyHealth{Status: string(h.Status), Streak: h.FailingStreak, Test: k.Check,
		Action: k.Unhealthy, Results: []wire.WhyProbe{}}
	for _, r := range h.Log {
		out.Results = append(out.Results, wire.WhyProbe{At: r.Start, Took: r.End.Sub(r.Start), Code: r.ExitCode, Output: cutText(strings.TrimSpace(r.Output), maxOutput)})
	}
	return out
}

func cutText(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + " ..."
	}
	return s
}

func restarts(rec *container.Record) wire.WhyRestarts {
	p, s := rec.HostConfig.RestartPolicy, rec.State
	r := wire.WhyRestarts{Policy: string(p.Name), Count: s.Restarts, Next: s.Status == api.StateRestarting || s.Reviving}
	if p.Name == "" {
		r.Policy = string(api.RestartPolicyDisabled)
	}
	if p.IsOnFailure() && p.MaximumRetryCount > 0 {
		r.Policy += ":" + strconv.Itoa(p.MaximumRetryCount)
		r.GaveUp = s.Status == api.StateExited && !s.StoppedByHand && s.ExitCode != 0 && s.Restarts >= p.MaximumRetryCount
	}
	return r
}

// use reads what a running container uses and how long it waited; of one that
// has ended what was remembered.
func use(rec *container.Record, w *wire.Why) {
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

// lastLines is the end of the container's log.
func (k *Evidence) lastLines() wire.WhyLog {
	out := wire.WhyLog{Lines: []string{}}
	if k.NoLog != nil {
		out.Missing = k.NoLog.Error()
		return out
	}
	for line := range strings.Lines(k.Log) {
		out.Lines = append(out.Lines, cutText(strings.TrimSuffix(line, "\n"), maxLine))
	}
	return out
}

// kernel is what the kernel wrote about the container's processes in its last
// run.
func (k *Evidence) kernel() []string {
	rec := k.Record
	s := rec.State
	if s.StartedAt.IsZero() || s.Boot != k.Boot {
		return nil
	}
	from, until, pids := s.Began(), time.Now(), []int{s.Pid}
	if s.Alive() {
		if m, err := cgroup.New(spec.CgroupPath(rec)); err == nil {
			more, _ := m.Pids()
			pids = append(pids, more...)
		}
	} else {
		from, until = s.StartedAt, s.FinishedAt
		if end, ok := s.LastEnding(); ok {
			pids = []int{end.Pid}
		}
	}
	var marks []string
	for _, pid := range pids {
		if pid > 0 {
			marks = append(marks, "["+strconv.Itoa(pid)+"]", " pid="+strconv.Itoa(pid)+" ", "process "+strconv.Itoa(pid)+" ")
		}
	}
	marks = append(marks, rec.ID)
	lines := kernelLog(from.Add(-kernelSlack), until.Add(kernelSlack), func(text string) bool {
		return slices.ContainsFunc(marks, func(mark string) bool { return strings.Contains(text, mark) })
	})
	var out []string
	for _, l := range lines[max(0, len(lines)-maxKernel):] {
		out = append(out, cutText(l.text, maxOutput))
	}
	return out
}
