package buildview

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"berth/internal/cli/format"
	"berth/internal/wire"
)

// plain writes lines as BuildKit does, which people and programs know how to
// read: "#5 [build 2/4] RUN make", then "#5 0.312 output", then "#5 DONE 1.2s".
type plain struct {
	common
	mu   sync.Mutex
	last int // the step of the last line
	sent bool
}

// Event implements View.
func (p *plain) Event(e *wire.BuildEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.Kind == wire.BuildProgress && e.Step == 0 {
		known := len(p.m.pulls)
		p.m.event(e)
		if len(p.m.pulls) > known {
			p.print("%sing %s\n", verb(e.Send), format.Printable(e.Name))
		}
		if e.Message == "done" {
			p.print("%sed %s, %s\n", verb(e.Send), format.Printable(e.Name), format.Bytes(e.Total))
		}
		return
	}
	if e.Kind == wire.BuildOutput {
		if s := p.m.byID[e.Step]; s != nil {
			p.lines(s, s.output(string(e.Data)), e.Time)
		}
		return
	}
	s := p.m.event(e)
	if s == nil {
		return
	}
	switch e.Kind {
	case wire.BuildStarted:
		p.turn(s, true)
		if p.o.Why && s.why != "" {
			p.print("#%d WHY %s\n", s.id, format.Printable(s.why))
		}
	case wire.BuildCached:
		p.turn(s, false)
		p.print("#%d CACHED\n", s.id)
		if p.o.Why && s.why != "" {
			p.print("#%d WHY %s\n", s.id, format.Printable(s.why))
		}
	case wire.BuildDone:
		p.rest(s, e.Time)
		p.turn(s, false)
		p.print("#%d DONE %s\n", s.id, seconds(s.finished.Sub(s.started)))
	case wire.BuildErrored:
		p.rest(s, e.Time)
		p.turn(s, false)
		p.print("#%d ERROR: %s\n", s.id, format.Printable(oneLine(s.err)))
	}
}

// verb is what is done to images and caches, to which endings are put.
func verb(send bool) string {
	if send {
		return "push"
	}
	return "pull"
}

// turn begins the lines of another step with its name.
func (p *plain) turn(s *step, always bool) {
	if p.last == s.id && !always {
		return
	}
	if p.last != 0 && p.last != s.id {
		p.print("\n")
	}
	if p.last != s.id {
		p.print("#%d %s\n", s.id, valid(oneLine(s.name)))
	}
	p.last = s.id
}

func (p *plain) lines(s *step, lines []string, at time.Time) {
	if len(lines) == 0 {
		return
	}
	p.turn(s, false)
	for _, line := range lines {
		p.print("#%d %.3f %s\n", s.id, at.Sub(s.started).Seconds(), valid(line))
	}
}

// rest writes a line that never ended.
func (p *plain) rest(s *step, at time.Time) {
	if s.partial != "" {
		p.lines(s, s.output("\n"), at)
	}
}

func (p *plain) print(layout string, args ...any) { fmt.Fprintf(p.o.Out, layout, args...) }

// Sent implements View.
func (p *plain) Sent(n int64, end bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if end && !p.sent {
		p.sent = true
		p.print("build context: %s sent\n", format.Bytes(n))
	}
}

// Close implements View.
func (p *plain) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if text := p.warned(); text != "" {
		_, _ = io.WriteString(p.o.Out, "\n"+text)
	}
}

// Failure implements View.
func (p *plain) Failure(e *wire.BuildEvent) string { return p.failure(e) }

// Built implements View.
func (p *plain) Built(b *wire.Build, tags []string) {
	if b == nil {
		return
	}
	p.print("\n")
	if b.ImageID != "" {
		p.print("%s ", b.ImageID)
	}
	p.print("%s\n", p.m.summary(time.Now()))
	if len(tags) > 0 {
		p.print("tagged %s\n", strings.Join(tags, ", "))
	}
}
