// Package progress shows a pull, push, load or import under way: one line a layer with
// a bar, redrawn in place, on a terminal; plain lines without the counting
// elsewhere. It exists so that a person sees at a glance what is slow, and a log
// file holds what happened and nothing else.
package progress

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"berth/internal/cli/format"
	"berth/internal/client"
)

// redrawEvery bounds how often the terminal is written to.
const redrawEvery = 50 * time.Millisecond

// Options describe where progress is shown.
type Options struct {
	Out     io.Writer
	TTY     bool
	Rows    uint // of the terminal; 0 means unknown
	Columns uint // of the terminal; 0 means unknown
	Unicode bool // bars of block characters instead of = and >
	Colour  bool
}

// Display shows messages. It is safe for concurrent use.
type Display struct {
	o Options

	mu    sync.Mutex // guards the rest
	order []*line
	lines map[string]*line
	drawn int // lines of the region now on the terminal
	last  time.Time
	timer *time.Timer // a redraw that was put off; nil when none is
}

// line is what is known about one layer.
type line struct {
	id, status     string
	current, total int64
	passing        bool // not shown once everything is over
}

// New returns a display. Close must be called.
func New(o Options) *Display {
	if o.Rows == 0 {
		o.Rows = 24
	}
	if o.Columns == 0 {
		o.Columns = 80
	}
	return &Display{o: o, lines: map[string]*line{}}
}

// Update shows a message.
func (d *Display) Update(m client.Progress) {
	m.Stream, m.Status, m.ID = format.Printable(m.Stream), format.Printable(m.Status), format.Printable(m.ID)
	d.mu.Lock()
	defer d.mu.Unlock()
	if m.Stream != "" {
		d.print(m.Stream)
		return
	}
	if m.Status == "" {
		return
	}
	if !d.o.TTY {
		d.plain(m)
		return
	}
	if m.ID == "" || strings.HasPrefix(m.Status, "Pulling from") {
		text := m.Status
		if m.ID != "" {
			text = m.ID + ": " + text
		}
		d.print(text + "\n")
		return
	}
	l := d.line(m.ID)
	l.status, l.current, l.total = m.Status, m.Detail.Current, m.Detail.Total
	d.schedule()
}

// Sent shows how much of an archive has been sent to the engine; total is 0 when
// it is not known. It is shown on terminals alone and vanishes at the end.
func (d *Display) Sent(current, total int64) { d.archive("Sending", current, total) }

// Received shows how much of an archive has come from the engine, as Sent does.
func (d *Display) Received(current int64) { d.archive("Receiving", current, 0) }

func (d *Display) archive(status string, current, total int64) {
	if !d.o.TTY {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.line("archive")
	l.status, l.current, l.total, l.passing = status, current, total, true
	d.schedule()
}

// Close draws the last state.
func (d *Display) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := d.order[:0]
	for _, l := range d.order {
		if !l.passing {
			kept = append(kept, l)
		}
	}
	if len(kept) != len(d.order) || d.timer != nil {
		d.order = kept
		d.redraw()
	}
	d.order, d.lines, d.drawn = nil, map[string]*line{}, 0
}

func (d *Display) line(id string) *line {
	l := d.lines[id]
	if l == nil {
		l = &line{id: id}
		d.lines[id] = l
		d.order = append(d.order, l)
	}
	return l
}

// plain prints a message without counts, once for each status of a layer.
func (d *Display) plain(m client.Progress) {
	if m.Detail.Current > 0 || m.Detail.Total > 0 {
		return
	}
	if m.ID == "" {
		fmt.Fprintln(d.o.Out, m.Status)
		return
	}
	if l := d.line(m.ID); l.status != m.Status {
		l.status = m.Status
		fmt.Fprintf(d.o.Out, "%s: %s\n", m.ID, m.Status)
	}
}

// print writes lasting text: below the region when nothing in it moves any more,
// else above.
func (d *Display) print(text string) {
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if d.o.TTY && d.settled() {
		if d.timer != nil {
			d.redraw()
		}
		d.order, d.lines, d.drawn = nil, map[string]*line{}, 0
	}
	if d.o.TTY && d.drawn > 0 {
		d.erase()
		_, _ = io.WriteString(d.o.Out, text)
		d.redraw()
		return
	}
	_, _ = io.WriteString(d.o.Out, text)
}

// settled reports whether every layer is done.
func (d *Display) settled() bool {
	for _, l := range d.order {
		if !l.finished() {
			return false
		}
	}
	return true
}

// schedule redraws now, or soon when that was just done.
func (d *Display) schedule() {
	if d.timer != nil {
		return
	}
	wait := redrawEvery - time.Since(d.last)
	if wait <= 0 {
		d.redraw()
		return
	}
	d.timer = time.AfterFunc(wait, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.timer != nil {
			d.redraw()
		}
	})
}

func (d *Display) erase() {
	if d.drawn > 0 {
		fmt.Fprintf(d.o.Out, "\x1b[%dA\r\x1b[J", d.drawn)
		d.drawn = 0
	}
}

func (d *Display) redraw() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.last = time.Now()
	var b strings.Builder
	if d.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r", d.drawn)
	}
	shown := d.visible()
	for _, text := range shown {
		b.WriteString(text)
		b.WriteString("\x1b[K\n")
	}
	if len(shown) < d.drawn {
		b.WriteString("\x1b[J")
	}
	d.drawn = len(shown)
	_, _ = io.WriteString(d.o.Out, b.String())
}

// visible returns the region's lines; when they do not all fit, finished layers
// give way to those under way and are only counted.
func (d *Display) visible() []string {
	room := int(d.o.Rows) - 2
	shown := d.order
	hidden := 0
	if room > 0 && len(shown) > room {
		active := make([]*line, 0, room)
		for _, l := range d.order {
			if !l.finished() && len(active) < room-1 {
				active = append(active, l)
			}
		}
		shown, hidden = active, len(d.order)-len(active)
	}
	out := make([]string, 0, len(shown)+1)
	for _, l := range shown {
		out = append(out, d.render(l))
	}
	if hidden > 0 {
		out = append(out, fmt.Sprintf("  and %s done or waiting", format.Plural(hidden, "more layer")))
	}
	return out
}

func (l *line) finished() bool {
	switch l.status {
	case "Pull complete", "Already exists", "Loaded", "Download complete", "Pushed", "Layer already exists":
		return true
	}
	return strings.HasPrefix(l.status, "Mounted from")
}

// render lays one layer out: id, status, bar, counts.
func (d *Display) render(l *line) string {
	text := fmt.Sprintf("  %-12s  %s", format.Truncate(l.id, 12), l.status)
	if l.current > 0 || l.total > 0 {
		counts := format.Bytes(l.current)
		if l.total > 0 {
			counts += "/" + format.Bytes(max(l.total, l.current))
		}
		const statusWidth, countsWidth = 32, 18
		if bar := min(int(d.o.Columns)-statusWidth-countsWidth-2, 40); bar >= 8 && l.total > 0 {
			text += strings.Repeat(" ", max(0, statusWidth-utf8.RuneCountInString(text))) + d.bar(bar, l.current, l.total)
		}
		text += "  " + counts
	}
	if !d.o.Colour {
		return format.Truncate(text, int(d.o.Columns)-1)
	}
	if l.finished() {
		return "\x1b[32m" + format.Truncate(text, int(d.o.Columns)-1) + "\x1b[0m"
	}
	return format.Truncate(text, int(d.o.Columns)-1)
}

func (d *Display) bar(width int, current, total int64) string {
	done := int(float64(width) * min(float64(current)/float64(total), 1))
	if d.o.Unicode {
		return strings.Repeat("━", done) + strings.Repeat("╌", width-done)
	}
	if done == width {
		return "[" + strings.Repeat("=", width-2) + "]"
	}
	head := max(0, done-2)
	return "[" + strings.Repeat("=", head) + ">" + strings.Repeat(" ", max(0, width-3-head)) + "]"
}
