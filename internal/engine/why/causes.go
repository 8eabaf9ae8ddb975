package why

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/container"
	"berth/internal/wire"

	api "github.com/moby/moby/api/types/container"
)

// causes ranks what may explain a container's state.
func (k *Evidence) causes(w *wire.Why) []wire.WhyCause {
	s := k.Record.State
	end, ended := s.LastEnding()
	sure := func(kind string) []wire.WhyCause { return []wire.WhyCause{{Kind: kind, Sure: wire.WhyCertain}} }
	switch s.Status {
	case api.StateDead, api.StateRemoving:
		return []wire.WhyCause{{Kind: wire.WhyDead, Sure: wire.WhyCertain, Evidence: s.Error}}
	case api.StatePaused:
		return append(sure(wire.WhyPaused), runningCauses(s, w)...)
	case api.StateRunning:
		list := runningCauses(s, w)
		if k.loops() && ended {
			loop := wire.WhyCause{Kind: wire.WhyLoop, Sure: wire.WhyCertain}
			list = slices.Concat([]wire.WhyCause{loop}, k.endCauses(w, end), list)
		}
		if len(list) == 0 {
			return sure(wire.WhyFine)
		}
		return list
	case api.StateRestarting:
		if !ended {
			return sure(wire.WhyLoop)
		}
		return append(k.endCauses(w, end), sure(wire.WhyLoop)...)
	}
	switch {
	case ended:
		return k.endCauses(w, end)
	case s.Error != "":
		return k.startCauses(s.Error)
	case s.StartedAt.IsZero():
		return sure(wire.WhyNever)
	}
	// An end that an engine recorded which did not remember more.
	return k.endCauses(w, container.Ending{StartedAt: s.StartedAt, At: s.FinishedAt, Code: s.ExitCode, OOM: s.OOMKilled, Error: s.Error})
}

// loops tells whether a running container has been started again and again of
// late.
func (k *Evidence) loops() bool {
	s := k.Record.State
	return s.Restarts > 1 && s.Ran(time.Now()) < 2*k.Settled
}

// runningCauses is what may be wrong with a container that runs.
func runningCauses(s container.State, w *wire.Why) (list []wire.WhyCause) {
	add := func(kind, sure, subject string) {
		list = append(list, wire.WhyCause{Kind: kind, Sure: sure, Subject: subject})
	}
	if h := s.Health; h != nil && (h.Status == api.Unhealthy || h.FailingStreak > 0) {
		c := wire.WhyCause{Kind: wire.WhyUnhealthy, Sure: wire.WhyCertain, Subject: string(h.Status)}
		if n := len(h.Log); n > 0 {
			c.Evidence = cutText(strings.TrimSpace(h.Log[n-1].Output), maxOutput)
		}
		list = append(list, c)
	}
	if m := w.Memory; m.Limit > 0 && m.Now*100 >= m.Limit*closeShare {
		add(wire.WhyMemory, wire.WhyLikely, "limit")
	} else if p := w.Pressure.Memory; p != nil && p.Full60 >= 10 {
		add(wire.WhyMemory, wire.WhyLikely, "pressure")
	}
	if p := w.Pids; p != nil && p.Limit > 0 && p.Now*100 >= p.Limit*closeShare {
		add(wire.WhyProcesses, wire.WhyLikely, "")
	}
	if t := w.Pressure.Throttle; t != nil && t.Periods >= 20 && t.Throttled*4 >= t.Periods {
		add(wire.WhyThrottled, wire.WhyLikely, "")
	}
	if k := kernelCause(w.Kernel); k != nil {
		list = append(list, *k)
	}
	return list
}

// endCauses ranks what may explain an end.
func (k *Evidence) endCauses(w *wire.Why, end container.Ending) (list []wire.WhyCause) {
	if end.StartFailed {
		return k.startCauses(end.Error)
	}
	add := func(c wire.WhyCause) { list = append(list, c) }
	if end.Asked != nil && meantEnd(end) {
		add(wire.WhyCause{Kind: wire.WhyAsked, Sure: wire.WhyCertain, Subject: end.Asked.By})
	}
	if end.OOM {
		add(oomCause(end))
	}
	if len(list) > 0 {
		return list
	}
	signal := end.Signal
	if signal == 0 && end.Code > 128 && end.Code <= 128+64 {
		signal = end.Code - 128
	}
	kernel := kernelCause(w.Kernel)
	switch {
	case end.Lost || end.Error != "":
		where := "monitor"
		if end.Lost && end.Error == "" {
			where = "boot"
		}
		return []wire.WhyCause{{Kind: wire.WhyLost, Sure: wire.WhyCertain, Subject: where, Evidence: end.Error}}
	case end.Code == 0 && waitsForInput(k.Record):
		return []wire.WhyCause{{Kind: wire.WhyNoShell, Sure: wire.WhyLikely, Subject: path.Base(k.Record.Path)}}
	case end.Code == 0:
		return []wire.WhyCause{{Kind: wire.WhyFinished, Sure: wire.WhyCertain}}
	case kernel != nil:
		add(*kernel)
	case signal == 31:
		add(wire.WhyCause{Kind: wire.WhyDenied, Sure: wire.WhyLikely, Subject: "seccomp"})
	}
	words := slices.DeleteFunc(k.wordCauses(w, end), func(c wire.WhyCause) bool { return kernel != nil && c.Kind == kernel.Kind })
	switch {
	case end.Signal == 9:
		return append(append(list, wire.WhyCause{Kind: wire.WhyKilled, Sure: wire.WhyCertain}), words...)
	case signal != 0:
		sure := wire.WhyLikely
		if end.Signal != 0 {
			sure = wire.WhyCertain
		}
		return append(append(list, wire.WhyCause{Kind: wire.WhySignal, Sure: sure, Subject: signalName(signal)}), words...)
	}
	return append(append(list, words...), wire.WhyCause{Kind: wire.WhyExit, Sure: wire.WhyCertain, Subject: strconv.Itoa(end.Code)})
}

func oomCause(end container.Ending) wire.WhyCause {
	c := wire.WhyCause{Kind: wire.WhyOOM, Sure: wire.WhyCertain}
	if end.Signal != 9 && end.Code != 137 {
		c.Sure = wire.WhyLikely // something in it was killed, and the rest did not cope
	}
	if v := end.Victim; v != nil {
		c.Subject = v.Name
		if v.Host {
			c.Kind = wire.WhyHostOOM
		}
	}
	return c
}

// shells are programs that read commands from their input when they have no
// arguments, and end with it.
var shells = []string{"sh", "bash", "ash", "dash", "zsh", "fish", "python", "python3", "node", "irb", "ruby", "perl", "php", "lua", "R", "ghci", "jshell"}

func waitsForInput(rec *container.Record) bool {
	return !rec.Config.OpenStdin && slices.Contains(shells, path.Base(rec.Path)) &&
		!slices.ContainsFunc(rec.Args, func(a string) bool { return a != "-i" && a != "-l" && a != "--login" })
}

// kernelCause reads what the kernel wrote about a container's processes.
func kernelCause(lines []string) *wire.WhyCause {
	for _, line := range slices.Backward(lines) {
		c := &wire.WhyCause{Sure: wire.WhyCertain, Evidence: line}
		switch {
		case strings.Contains(line, "type=1326"):
			c.Kind, c.Subject = wire.WhyDenied, "seccomp"
		case strings.Contains(line, `apparmor="DENIED"`):
			c.Kind, c.Subject = wire.WhyDenied, "apparmor"
		case strings.Contains(line, "avc:") && strings.Contains(line, "denied"):
			c.Kind, c.Subject = wire.WhyDenied, "selinux"
		case strings.Contains(line, "fork rejected by pids controller"):
			c.Kind = wire.WhyProcesses
		case strings.Contains(line, "segfault at"), strings.HasPrefix(line, "traps:"):
			c.Kind, c.Subject = wire.WhySignal, "SIGSEGV"
			if strings.Contains(line, "trap invalid opcode") {
				c.Subject = "SIGILL"
			}
		default:
			continue
		}
		return c
	}
	return nil
}
