// Package buildview shows a build: as a picture that moves on a terminal, as
// lines in a log, as BuildKit's JSON for programs. It exists so that a person
// sees at a glance what runs, what was found in the cache and why something
// failed, whatever width the terminal has.
package buildview

import (
	"io"
	"strings"
	"time"

	"berth/internal/wire"
)

// Mode is how a build is shown.
type Mode string

// The modes. Auto is TTY on a terminal and Plain elsewhere.
const (
	Auto    Mode = "auto"
	TTY     Mode = "tty"
	Plain   Mode = "plain"
	RawJSON Mode = "rawjson"
	Quiet   Mode = "quiet"
)

// Options say what is shown where.
type Options struct {
	Mode     Mode
	Out      io.Writer
	Terminal bool                       // Out is one
	Size     func() (rows, columns int) // of the terminal, asked before each redraw; 0 means unknown
	Unicode  bool
	Colour   bool

	Title string // what is built
	Why   bool   // say of each step why it was run
	Check bool   // show all about each warning
	File  string // what the Dockerfile is called
}

// View shows one build. It is safe for concurrent use.
type View interface {
	// Event shows what happened.
	Event(e *wire.BuildEvent)
	// Sent shows how much of the context has been sent to the engine.
	Sent(bytes int64, end bool)
	// Close draws the last state, with the warnings.
	Close()
	// Failure returns all that there is to say about a build that failed, but
	// for the message. It is called after Close.
	Failure(e *wire.BuildEvent) string
	// Built says what was built. It is called after Close.
	Built(b *wire.Build, tags []string)
	// Warnings returns how many there were.
	Warnings() int
}

// New returns a view. Close must be called.
func New(o Options) View {
	if o.Mode == Auto || o.Mode == "" {
		o.Mode = Plain
		if o.Terminal {
			o.Mode = TTY
		}
	}
	if o.Mode == "none" {
		o.Mode = Quiet
	}
	if o.Size == nil {
		o.Size = func() (int, int) { return 0, 0 }
	}
	c := common{o: o, m: newModel(time.Now())}
	switch o.Mode {
	case TTY:
		return newFancy(c)
	case RawJSON:
		return &raw{common: c}
	case Quiet:
		return &quiet{common: c}
	}
	return &plain{common: c}
}

// common is what all views have.
type common struct {
	o Options
	m *model
}

func (c *common) Warnings() int { return len(c.m.warnings) }

// colour puts text into a colour of ECMA-48, if there are any.
func (c *common) colour(code, text string) string {
	if !c.o.Colour || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// quiet shows a failure and nothing else.
type quiet struct{ common }

func (q *quiet) Event(e *wire.BuildEvent)          { q.m.event(e) }
func (q *quiet) Sent(int64, bool)                  {}
func (q *quiet) Close()                            {}
func (q *quiet) Built(*wire.Build, []string)       {}
func (q *quiet) Failure(e *wire.BuildEvent) string { return q.failure(e) }

// summary puts into words how much was done.
func (m *model) summary(now time.Time) string {
	c := m.count()
	text := "built in " + seconds(now.Sub(m.began))
	if c.Cached > 0 {
		text += ", " + itoa(c.Cached) + " of " + itoa(c.Total) + " steps cached"
	}
	return text
}

// nameOf drops the place of a step from its name.
func nameOf(name string) (place, title string) {
	if strings.HasPrefix(name, "[") {
		if inside, rest, ok := strings.Cut(name[1:], "] "); ok {
			return inside, rest
		}
	}
	return "", name
}
