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

// redrawEvery is the time between two pictures.
const redrawEvery = 100 * time.Millisecond

// fancy redraws a picture of the build in place. Events only change the model; a
// clock draws, so that a flood of output costs no more than silence.
type fancy struct {
	common
	mu     sync.Mutex // guards the model and what follows
	drawn  []int      // columns of each line that is on the terminal now
	frame  int
	closed bool
	stop   chan struct{}
	over   sync.WaitGroup
}

func newFancy(c common) *fancy {
	f := &fancy{common: c, stop: make(chan struct{})}
	f.over.Go(func() {
		tick := time.NewTicker(redrawEvery)
		defer tick.Stop()
		for {
			select {
			case <-f.stop:
				return
			case now := <-tick.C:
				f.mu.Lock()
				f.frame++
				f.draw(now, false)
				f.mu.Unlock()
			}
		}
	})
	return f
}

// Event implements View.
func (f *fancy) Event(e *wire.BuildEvent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.m.event(e)
}

// Sent implements View.
func (f *fancy) Sent(n int64, end bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.m.sent, f.m.sending = n, !end
}

// Close implements View.
func (f *fancy) Close() {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return
	}
	f.closed = true
	f.mu.Unlock()
	close(f.stop)
	f.over.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.draw(time.Now(), true)
	if text := f.warned(); text != "" {
		_, _ = io.WriteString(f.o.Out, text)
	}
}

// Failure implements View.
func (f *fancy) Failure(e *wire.BuildEvent) string { return f.failure(e) }

// Built implements View.
func (f *fancy) Built(b *wire.Build, tags []string) {
	if b == nil {
		return
	}
	what := f.o.Title
	if len(tags) > 0 {
		what = strings.Join(tags, ", ")
	}
	fmt.Fprintf(f.o.Out, "%s %s %s\n", f.colour("1;32", f.symbols().done), f.colour("1", valid(format.Printable(what))), f.m.summary(time.Now()))
	if b.ImageID != "" {
		fmt.Fprintf(f.o.Out, "  %s\n", f.colour("2", b.ImageID))
	}
}

// symbols are the marks before lines.
type symbols struct {
	done, failed, waiting, bar, because string
	spinner                             []string
}

func (f *fancy) symbols() symbols {
	if f.o.Unicode {
		return symbols{"✓", "✗", "·", "│", "↳", strings.Split("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "")}
	}
	return symbols{"+", "x", ".", "|", "->", strings.Split(`|/-\`, "")}
}

// line is one line of the picture.
type line struct {
	stage  string // in a column of its own
	mark   string
	colour string // of mark
	text   string
	dim    bool
	right  string // at the right edge
}

// draw puts the picture over the one before. The last one stays.
func (f *fancy) draw(now time.Time, last bool) {
	rows, columns := f.o.Size()
	if rows <= 0 {
		rows = 24
	}
	if columns <= 0 {
		columns = 80
	}
	if last {
		rows = 1 << 20
	}
	lines := f.picture(now, rows-1, columns, last)
	var b strings.Builder
	if up := f.height(columns); up > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", up)
	}
	b.WriteString("\r")
	f.drawn = f.drawn[:0]
	for _, l := range lines {
		text, n := f.lay(l, columns)
		b.WriteString(text)
		b.WriteString("\x1b[K\n")
		f.drawn = append(f.drawn, n)
	}
	b.WriteString("\x1b[J")
	if last {
		f.drawn = nil
	}
	_, _ = io.WriteString(f.o.Out, b.String())
}

// height is how many rows the last picture takes: terminals that became narrower
// have wrapped its lines.
func (f *fancy) height(columns int) int {
	n := 0
	for _, w := range f.drawn {
		n += max(1, (w+columns-1)/columns)
	}
	return n
}

// lay makes a line fit, and returns it with its colours and how wide it is.
func (f *fancy) lay(l line, columns int) (text string, used int) {
	room := columns - 1
	left := l.stage
	if l.mark != "" {
		left += l.mark + " "
	}
	right := l.right
	if right != "" && room < width(left)+width(right)+12 {
		right = ""
	}
	free := room - width(left)
	if right != "" {
		free -= width(right) + 2
	}
	body := fit(l.text, max(0, free))
	used = width(left) + width(body)
	styled := f.colour("36", l.stage)
	if l.mark != "" {
		styled += f.colour(l.colour, l.mark) + " "
	}
	if l.dim {
		styled += f.colour("2", body)
	} else {
		styled += body
	}
	if right != "" {
		gap := free - width(body) + 2
		styled += strings.Repeat(" ", gap) + f.colour("2", right)
		used += gap + width(right)
	}
	if used > room { // a terminal narrower than the marks
		cut := fit(left+body, room)
		return cut, width(cut)
	}
	return styled, used
}
