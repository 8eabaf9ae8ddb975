package buildview

import (
	"slices"
	"strings"
	"time"

	"berth/internal/wire"
)

type state int

const (
	waiting state = iota
	running
	cached
	done
	failed
)

// step is what is known about one step.
type step struct {
	id              int
	name            string
	stage, position string // "builder", "2/5"
	title           string // the instruction
	internal        bool
	inputs          []int
	line            int

	state             state
	started, finished time.Time
	why, err          string
	current, total    int64

	tail    []string // the last lines of its output
	partial string   // a line without its end yet
	skipped int      // lines that are no longer in tail
}

// tailKept is how many lines of a running step's output are kept to be shown.
const tailKept = 12

// model is the state of a build.
type model struct {
	began    time.Time
	steps    []*step
	byID     map[int]*step
	stages   []string // in the order of their last steps
	warnings []*wire.BuildEvent
	pulls    []*pull
	sent     int64
	sending  bool
}

// pull is a base image that is being fetched.
type pull struct {
	name           string
	current, total int64
	done, send     bool
}

func newModel(now time.Time) *model { return &model{began: now, byID: map[int]*step{}} }

// Count says how many steps a build has, without those that no Dockerfile names.
type Count struct{ Total, Done, Cached int }

func (m *model) count() Count {
	var c Count
	for _, s := range m.steps {
		if s.internal {
			continue
		}
		c.Total++
		switch s.state {
		case cached:
			c.Cached++
			c.Done++
		case done:
			c.Done++
		}
	}
	return c
}

// event takes in what happened and returns the step that it happened to, if any.
func (m *model) event(e *wire.BuildEvent) *step {
	switch e.Kind {
	case wire.BuildPlanned:
		return m.plan(e)
	case wire.BuildWarning:
		m.warnings = append(m.warnings, e)
		return nil
	case wire.BuildProgress:
		if e.Step == 0 {
			m.pull(e)
			return nil
		}
	}
	s := m.byID[e.Step]
	if s == nil {
		return nil
	}
	switch e.Kind {
	case wire.BuildStarted:
		s.state, s.started, s.why = running, e.Time, e.Why
	case wire.BuildCached:
		s.why = e.Why
		s.end(cached, e)
	case wire.BuildDone:
		s.end(done, e)
	case wire.BuildErrored:
		s.err = e.Message
		s.end(failed, e)
	case wire.BuildOutput:
		s.output(string(e.Data))
	case wire.BuildProgress:
		s.current, s.total = e.Current, e.Total
	}
	return s
}

func (s *step) end(how state, e *wire.BuildEvent) {
	s.state, s.finished = how, e.Time
	if s.started.IsZero() {
		s.started = e.Time
	}
}

// plan adds a step, unless a second request asks for the same build again.
func (m *model) plan(e *wire.BuildEvent) *step {
	if old := m.byID[e.Step]; old != nil && old.name == e.Name {
		return nil
	}
	s := &step{id: e.Step, name: clean(e.Name), inputs: e.Inputs, line: e.Line}
	place, title := nameOf(s.name)
	s.title = title
	if place == "internal" {
		s.internal = true
	} else if stage, position, ok := cutLast(strings.TrimSpace(place), " "); ok {
		s.stage, s.position = strings.TrimSpace(stage), position
	} else {
		s.position = strings.TrimSpace(place)
	}
	m.byID[e.Step] = s
	m.steps = append(m.steps, s)
	if !s.internal { // in the order of their last steps: the target's comes last
		m.stages = append(slices.DeleteFunc(m.stages, func(known string) bool { return known == s.stage }), s.stage)
	}
	return s
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

func (m *model) pull(e *wire.BuildEvent) {
	for _, p := range m.pulls {
		if p.name == e.Name {
			p.current, p.total, p.done = e.Current, e.Total, e.Message == "done"
			return
		}
	}
	m.pulls = append(m.pulls, &pull{e.Name, e.Current, e.Total, e.Message == "done", e.Send})
}

// output keeps the end of what a step wrote, and returns the lines that became
// complete.
func (s *step) output(text string) []string {
	s.partial += text
	lines := strings.Split(s.partial, "\n")
	s.partial = lines[len(lines)-1]
	const longest = 64 << 10
	if len(s.partial) > longest {
		s.partial = s.partial[len(s.partial)-longest:]
	}
	lines = lines[:len(lines)-1]
	for i := range lines {
		lines[i] = clean(lines[i])
	}
	s.tail = append(s.tail, lines...)
	if over := len(s.tail) - tailKept; over > 0 {
		s.skipped += over
		s.tail = append(s.tail[:0], s.tail[over:]...)
	}
	return lines
}

// last returns the last n lines of a step's output, the unfinished one included.
func (s *step) last(n int) []string {
	lines := s.tail
	if text := clean(s.partial); text != "" {
		lines = append(append([]string(nil), lines...), text)
	}
	return lines[max(0, len(lines)-n):]
}
