package buildview

import (
	"fmt"
	"time"

	"berth/internal/cli/format"
)

// The ways to make a picture smaller, one after the other.
const (
	allSteps   = iota // each step that ran has a line; what was cached or waits is counted
	fewerLines        // what is over is counted, too
	onlyNow           // what runs, and nothing else
)

// picture returns the lines that show the build in at most rows lines.
func (f *fancy) picture(now time.Time, rows, columns int, last bool) []line {
	head := f.head(now, last)
	for detail := allSteps; ; detail++ {
		body, slots := f.body(now, columns, detail, last)
		free := rows - len(head) - len(body)
		if free < 0 && detail < onlyNow {
			continue
		}
		lines := append(head, f.withTails(body, slots, free, last)...)
		if len(lines) > rows && rows > 0 {
			hidden := len(lines) - rows + 1
			lines = append(lines[:rows-1:rows-1], line{text: fmt.Sprintf("  and %s more", format.Plural(hidden, "line")), dim: true})
		}
		return lines
	}
}

// head is what is above the steps.
func (f *fancy) head(now time.Time, last bool) []line {
	s := f.symbols()
	var out []line
	if !last {
		c := f.m.count()
		text := "Building " + valid(format.Printable(f.o.Title))
		if c.Total > 0 {
			text += fmt.Sprintf("  %d/%d steps", c.Done, c.Total)
			if c.Cached > 0 {
				text += fmt.Sprintf(", %d cached", c.Cached)
			}
		}
		out = append(out, line{mark: s.spinner[f.frame%len(s.spinner)], colour: "36", text: text, right: seconds(now.Sub(f.m.began))})
		if f.m.sending {
			out = append(out, line{mark: " ", text: "sending the build context", right: format.Bytes(f.m.sent)})
		}
	}
	for _, p := range f.m.pulls {
		size := format.Bytes(p.current)
		switch {
		case p.done && p.total > 0:
			out = append(out, line{mark: s.done, colour: "32", text: verb(p.send) + "ed " + format.Printable(p.name), right: format.Bytes(p.total)})
		case p.done:
			out = append(out, line{mark: s.done, colour: "32", text: verb(p.send) + "ed " + format.Printable(p.name)})
		default:
			if p.total > 0 {
				size += "/" + format.Bytes(p.total)
			}
			out = append(out, line{mark: s.spinner[f.frame%len(s.spinner)], colour: "36", text: verb(p.send) + "ing " + format.Printable(p.name), right: size})
		}
	}
	return out
}

// slot is a place after a line of the body where a step's output may be shown.
type slot struct {
	after int
	step  *step
	stage string
}

// body returns the lines of the steps, stage by stage.
func (f *fancy) body(now time.Time, columns, detail int, last bool) (out []line, slots []slot) {
	column := 0
	if len(f.m.stages) > 1 && columns >= 50 {
		for _, name := range f.m.stages {
			column = max(column, min(width(name), max(14, columns/4)))
		}
	}
	blank := pad("", column)
	if column > 0 {
		blank += " "
	}
	for _, stage := range append([]string{internalStage}, f.m.stages...) {
		label := blank
		if column > 0 && stage != internalStage {
			label = pad(fit(stage, column), column) + " "
		}
		begin := len(out)
		out, slots = f.stage(out, slots, stage, blank, now, detail, last)
		if len(out) > begin {
			out[begin].stage = label
		}
	}
	return out, slots
}

// internalStage stands for steps that no Dockerfile names.
const internalStage = "\x00"

// stage adds the lines of one stage.
func (f *fancy) stage(out []line, slots []slot, stage, blank string, now time.Time, detail int, last bool) ([]line, []slot) {
	s := f.symbols()
	var run []*step // steps that are counted in one line
	flush := func() {
		idle := detail > allSteps && len(run) > 0 && run[0].state == waiting && !last // the head counts them, too
		if l, ok := f.counted(run, last); ok && detail < onlyNow && !idle {
			l.stage = blank
			out = append(out, l)
		}
		run = nil
	}
	for _, st := range f.m.steps {
		if internal := stage == internalStage; internal != st.internal || !internal && st.stage != stage {
			continue
		}
		if st.internal && st.state != running && st.state != failed {
			continue
		}
		if f.counts(st, detail) {
			if len(run) > 0 && kind(run[0], detail) != kind(st, detail) {
				flush()
			}
			run = append(run, st)
			continue
		}
		flush()
		l := line{stage: blank, text: f.label(st)}
		switch st.state {
		case waiting:
			l.mark, l.dim = s.waiting, true
		case running:
			l.mark, l.colour, l.right = s.spinner[(f.frame+st.id)%len(s.spinner)], "36", seconds(now.Sub(st.started))
			if last {
				l.mark, l.colour, l.right = s.waiting, "33", "stopped"
			}
			if st.total > 0 {
				l.right = format.Bytes(st.current) + "/" + format.Bytes(st.total) + "  " + l.right
			}
		case cached:
			l.mark, l.colour, l.right = s.done, "34", "cached"
		case done:
			l.mark, l.colour, l.right = s.done, "32", seconds(st.finished.Sub(st.started))
		case failed:
			l.mark, l.colour, l.right = s.failed, "31", seconds(st.finished.Sub(st.started))
		}
		out = append(out, l)
		if f.o.Why && st.why != "" {
			out = append(out, line{stage: blank, mark: " ", text: s.because + " " + format.Printable(oneLine(st.why)), dim: true})
		}
		if st.state == running {
			slots = append(slots, slot{len(out), st, blank})
		}
	}
	flush()
	return out, slots
}

// label is a step's place in its stage and its instruction.
func (f *fancy) label(s *step) string {
	text := valid(oneLine(s.title))
	if s.position != "" {
		return s.position + " " + text
	}
	return text
}

// counts reports whether a step is only counted. Who asks why wants to see each.
func (f *fancy) counts(s *step, detail int) bool {
	switch s.state {
	case cached:
		return !f.o.Why || detail > allSteps
	case waiting:
		return true
	case done:
		return detail > allSteps
	}
	return false
}

// kind tells steps apart that are counted in different lines.
func kind(s *step, detail int) state {
	if s.state == done && detail > allSteps {
		return cached
	}
	return s.state
}

// counted puts a run of steps into one line.
func (f *fancy) counted(run []*step, last bool) (line, bool) {
	if len(run) == 0 {
		return line{}, false
	}
	s := f.symbols()
	first := f.label(run[0])
	over, allCached := 0, true
	for _, st := range run {
		if st.state != waiting {
			over++
		}
		allCached = allCached && st.state == cached
	}
	switch {
	case over > 0 && len(run) == 1:
		right := "cached"
		if !allCached {
			right = seconds(run[0].finished.Sub(run[0].started))
		}
		return line{mark: s.done, colour: "34", text: first, right: right, dim: allCached}, true
	case allCached:
		return line{mark: s.done, colour: "34", text: fmt.Sprintf("%d steps", len(run)), right: "cached", dim: true}, true
	case over > 0:
		return line{mark: s.done, colour: "32", text: fmt.Sprintf("%d steps", len(run)), right: "done", dim: true}, true
	case last:
		return line{mark: s.waiting, text: format.Plural(len(run), "step") + " not run", dim: true}, true
	case len(run) == 1:
		return line{mark: s.waiting, text: first, dim: true}, true
	}
	return line{mark: s.waiting, text: fmt.Sprintf("%d steps wait", len(run)), dim: true}, true
}

// withTails puts the last lines of what running steps write below them, as many as
// there is room for.
func (f *fancy) withTails(body []line, slots []slot, free int, last bool) []line {
	if len(slots) == 0 || free <= 0 || last {
		return body
	}
	const most = 6
	each := min(most, free/len(slots))
	if len(slots) == 1 {
		each = min(tailKept, free)
	}
	s := f.symbols()
	var out []line
	from := 0
	for i, at := range slots {
		out = append(out, body[from:at.after]...)
		from = at.after
		if i < free {
			each = max(1, each)
		} else if free < len(slots) {
			each = 0
		}
		for _, text := range at.step.last(each) {
			out = append(out, line{stage: at.stage, mark: " ", text: s.bar + " " + expandTabs(valid(text)), dim: true})
		}
	}
	return append(out, body[from:]...)
}
