package container

import (
	"fmt"
	"time"

	"berth/internal/fault"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
)

// exitUnknown is the exit code of a container whose end nobody saw.
const exitUnknown = 255

// next lists the states that may follow each state. A state may always follow
// itself where its details change (a second failed start, say).
var next = map[container.ContainerState][]container.ContainerState{
	container.StateCreated:    {container.StateCreated, container.StateRunning, container.StateRemoving, container.StateExited},
	container.StateRunning:    {container.StatePaused, container.StateExited, container.StateRestarting},
	container.StatePaused:     {container.StateRunning, container.StateExited, container.StateRestarting},
	container.StateRestarting: {container.StateRestarting, container.StateRunning, container.StateExited},
	container.StateExited:     {container.StateExited, container.StateRunning, container.StateRestarting, container.StateRemoving},
	container.StateRemoving:   {container.StateRemoving, container.StateDead},
	container.StateDead:       {container.StateRemoving},
}

// to checks that a transition is allowed and sets the status.
func (s State) to(status container.ContainerState) (State, error) {
	for _, ok := range next[s.Status] {
		if ok == status {
			s.Status = status
			return s, nil
		}
	}
	return s, fault.New(fault.Conflict, "", "", "a container which is %s cannot become %s", s.Status, status)
}

// Running returns the state after a start or an unpause.
func (s State) Running(pid int, at time.Time, boot string) (State, error) {
	n, err := s.to(container.StateRunning)
	if err != nil {
		return s, err
	}
	n.Pid, n.StartedAt, n.StartedUp, n.Boot = pid, at, Uptime(), boot
	n.FinishedAt = s.FinishedAt
	n.ExitCode, n.Error, n.OOMKilled, n.Reviving, n.Asked = 0, "", false, false, nil
	return n, nil
}

// Paused returns the state of a frozen container.
func (s State) Paused() (State, error) { return s.to(container.StatePaused) }

// Resumed returns the state of a container which was frozen and runs again.
func (s State) Resumed() (State, error) {
	if s.Status != container.StatePaused {
		return s, fault.New(fault.Conflict, "", "", "the container is not paused")
	}
	return s.to(container.StateRunning)
}

// Exit tells how a container ended.
type Exit struct {
	Code      int
	OOMKilled bool
	At        time.Time
	Ran       time.Duration // how long it was up
	Error     string

	Signal     int     // that ended the process
	PeakMemory int64   // bytes; 0: not known
	Victim     *Victim // of an OOM kill, if the kernel's log names it
}

// Exited returns the state after the end of the container's process.
func (s State) Exited(x Exit) (State, error) {
	n, err := s.to(container.StateExited)
	if err != nil {
		return s, err
	}
	return n.ended(x), nil
}

// Restarting returns the state between an exit and the restart that the policy
// asks for.
func (s State) Restarting(x Exit) (State, error) {
	n, err := s.to(container.StateRestarting)
	if err != nil {
		return s, err
	}
	return n.ended(x), nil
}

func (s State) ended(x Exit) State {
	s.remember(Ending{StartedAt: s.StartedAt, At: x.At, Code: x.Code, Signal: x.Signal, Pid: s.Pid, OOM: x.OOMKilled,
		Victim: x.Victim, PeakMemory: x.PeakMemory, Error: x.Error, Asked: s.Asked})
	s.Pid = 0
	s.ExitCode, s.OOMKilled, s.FinishedAt, s.Error = x.Code, x.OOMKilled, x.At, x.Error
	return s
}

// Lost returns the state of a container whose end nobody saw: its monitor or the
// whole machine went away.
func (s State) Lost(at time.Time, why string) State {
	s.Status = container.StateExited
	n := s.ended(Exit{Code: exitUnknown, At: at, Error: why})
	n.Ends[len(n.Ends)-1].Lost = true
	return n
}

// FailedStart returns the state after a start that did not succeed.
func (s State) FailedStart(code int, msg string) State {
	if s.Status == container.StateRestarting {
		s.Status = container.StateExited
	}
	s.Pid, s.ExitCode, s.Error = 0, code, msg
	s.remember(Ending{At: time.Now(), Code: code, StartFailed: true, Error: msg})
	return s
}

// Removing returns the state of a container about to be removed.
func (s State) Removing() (State, error) { return s.to(container.StateRemoving) }

// Dead returns the state of a container whose removal failed.
func (s State) Dead(why string) State {
	s.Status, s.Error, s.Pid = container.StateDead, why, 0
	return s
}

// Alive reports whether the container has a process.
func (s State) Alive() bool {
	return s.Status == container.StateRunning || s.Status == container.StatePaused
}

// Up reports what docker calls running: alive, or between two starts of the
// restart policy.
func (s State) Up() bool { return s.Alive() || s.Status == container.StateRestarting }

// Describe returns docker's words for the state, as `ps` shows them.
func (s State) Describe(now time.Time) string {
	up := func() string { return units.HumanDuration(s.Ran(now)) }
	switch s.Status {
	case container.StatePaused:
		return fmt.Sprintf("Up %s (Paused)", up())
	case container.StateRestarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, units.HumanDuration(now.Sub(s.FinishedAt)))
	case container.StateRunning:
		if h := s.healthNote(); h != "" {
			return fmt.Sprintf("Up %s (%s)", up(), h)
		}
		return "Up " + up()
	case container.StateRemoving:
		return "Removal In Progress"
	case container.StateDead:
		return "Dead"
	case container.StateCreated:
		return "Created"
	}
	return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, units.HumanDuration(now.Sub(s.FinishedAt)))
}

func (s State) healthNote() string {
	if s.Health == nil {
		return ""
	}
	switch s.Health.Status {
	case container.Starting:
		return "health: starting"
	case container.Healthy, container.Unhealthy:
		return string(s.Health.Status)
	}
	return ""
}

// Docker returns the state as docker's API shows it.
func (s State) Docker() *container.State {
	d := &container.State{
		Status:     s.Status,
		Running:    s.Up(),
		Paused:     s.Status == container.StatePaused,
		Restarting: s.Status == container.StateRestarting,
		OOMKilled:  s.OOMKilled,
		Dead:       s.Status == container.StateDead,
		Pid:        s.Pid,
		ExitCode:   s.ExitCode,
		Error:      s.Error,
		StartedAt:  s.StartedAt.UTC().Format(time.RFC3339Nano),
		FinishedAt: s.FinishedAt.UTC().Format(time.RFC3339Nano),
	}
	if s.Health != nil {
		h := *s.Health
		d.Health = &h
	}
	return d
}
