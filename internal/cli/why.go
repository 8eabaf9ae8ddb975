package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/internal/cli/format"
	"berth/internal/cli/terminal"
	"berth/internal/client"
	"berth/internal/fault"
	"berth/internal/wire"
)

const whyExample = `  berth why web
  berth why --json web | jq '.Causes[0].Kind'`

func buildWhy(a *app, cmd *cobra.Command) {
	var asJSON bool
	cmd.Flags().BoolVar(&asJSON, "json", false, "print everything that is known, as JSON")
	cmd.Args = exactly(1, "a container")
	cmd.ValidArgsFunction = a.completeContainer()
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.engine()
		if err != nil {
			return err
		}
		raw, err := c.ContainerWhy(cmd.Context(), args[0])
		var refused *client.Refusal
		if errors.As(err, &refused) && refused.Status == 404 && strings.Contains(strings.ToLower(refused.Message), "page not found") {
			return fault.New(fault.Unsupported, "", "", "this engine cannot say why").
				WithHint("only Berth's own engine can; 'berth inspect' and 'berth logs' tell what another one knows")
		}
		if err != nil {
			return a.missingContainer(cmd, c, args[0], err)
		}
		if asJSON {
			_, err := fmt.Fprintln(a.out, client.Indent(raw, "", "  "))
			return err
		}
		var w wire.Why
		if err := json.Unmarshal(raw, &w); err != nil {
			return fmt.Errorf("read the engine's answer: %w", err)
		}
		p := &whyPainter{w: &w, now: time.Now(), width: 80, rows: 40}
		if t := terminalOf(a.out); t != nil {
			p.bold = terminal.Colours(t)
			if rows, columns, ok := terminal.Size(t); ok {
				p.width, p.rows = min(max(int(columns), 40), 110), int(rows)
			}
		}
		_, err = io.WriteString(a.out, p.paint())
		return err
	}
}

// whyPainter puts what an engine knows of a container on one screen: the most
// likely cause first, then the figures, then the end of the log.
type whyPainter struct {
	strings.Builder
	w           *wire.Why
	now         time.Time
	width, rows int
	bold        bool
}

const (
	whyMargin  = 2  // columns before all but the first line
	whyLabel   = 11 // columns of what stands before a figure
	leastLines = 4  // of the log, however small the screen
	whyOthers  = 3  // causes shown after the first one
)

func (p *whyPainter) paint() string {
	w := p.w
	p.heading(format.Printable(w.Name) + " " + headline(w, p.now))
	for i := range w.Causes[:min(len(w.Causes), 1+whyOthers)] {
		c := &w.Causes[i]
		title, text, advice := explainCause(w, c, p.now)
		p.WriteByte('\n')
		mark := ""
		switch c.Sure {
		case wire.WhyLikely:
			mark = "Most likely: "
			if i > 0 {
				mark = "Perhaps: "
			}
		case wire.WhyGuess:
			mark = "A guess: "
		}
		if mark != "" {
			title = mark + inSentence(title)
		} else if rest, ok := strings.CutPrefix(title, "it "); ok {
			title = "It " + rest
		}
		if p.bold && i == 0 {
			title = "\x1b[1m" + title + "\x1b[0m"
		}
		p.wrap(title, whyMargin, whyMargin)
		p.wrap(text, whyMargin+2, whyMargin+2)
		if e := format.Printable(c.Evidence); e != "" && !(len(e) > 10 && strings.Contains(text, e)) && !repeats(c) {
			p.wrap("\""+format.Truncate(oneLine(e), 300)+"\"", whyMargin+2, whyMargin+2)
		}
		if advice != "" {
			p.wrap("-> "+advice, whyMargin+2, whyMargin+5)
		}
	}
	p.WriteByte('\n')
	p.figures()
	p.log()
	return p.String()
}

// repeats tells whether the evidence of a cause says no more than its words do: a
// start's error does, once it is understood.
func repeats(c *wire.WhyCause) bool {
	switch c.Kind {
	case wire.WhyCRLF, wire.WhyLoader, wire.WhyPlatform, wire.WhyExecutable, wire.WhyNotFound, wire.WhyPort, wire.WhyMount, wire.WhyPartner:
		return c.Sure == wire.WhyCertain
	}
	return false
}

// inSentence is a sentence that follows a colon.
func inSentence(text string) string {
	for _, word := range []string{"The ", "It ", "Its ", "A "} {
		if strings.HasPrefix(text, word) {
			return strings.ToLower(text[:1]) + text[1:]
		}
	}
	return text
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func (p *whyPainter) heading(text string) {
	if p.bold {
		text = "\x1b[1m" + text + "\x1b[0m"
	}
	p.wrap(text, 0, whyMargin)
}

// wrap writes a paragraph, broken at spaces.
func (p *whyPainter) wrap(text string, first, rest int) {
	at := first
	line := strings.Repeat(" ", first)
	fresh := true
	for word := range strings.FieldsSeq(text) {
		n := len([]rune(strings.NewReplacer("\x1b[1m", "", "\x1b[0m", "").Replace(word)))
		if !fresh && at+1+n > p.width {
			p.WriteString(line + "\n")
			line, at, fresh = strings.Repeat(" ", rest), rest, true
		}
		if !fresh {
			line, at = line+" ", at+1
		}
		line, at, fresh = line+word, at+n, false
	}
	if !fresh {
		p.WriteString(line + "\n")
	}
}

// figure writes one line of the table below the causes, nothing for no text.
func (p *whyPainter) figure(label, text string) {
	if text == "" {
		return
	}
	head := strings.Repeat(" ", whyMargin) + label + strings.Repeat(" ", max(1, whyLabel-len(label)))
	before := p.Len()
	p.wrap(text, whyMargin+whyLabel, whyMargin+whyLabel)
	line := p.String()[before:]
	rest := p.String()[:before]
	p.Reset()
	p.WriteString(rest + head + strings.TrimPrefix(line, strings.Repeat(" ", whyMargin+whyLabel)))
}

func (p *whyPainter) figures() {
	w := p.w
	p.figure("Image", format.Printable(w.Image))
	command := make([]string, len(w.Command))
	for i, word := range w.Command {
		command[i] = quoted(word)
	}
	p.figure("Command", format.Truncate(format.Printable(strings.Join(command, " ")), 2*p.width))
	p.figure("Ran", ranText(w, p.now))
	p.figure("Ended", endText(w))
	p.figure("Restarts", restartText(w))
	p.figure("Before", beforeText(w, p.now))
	p.figure("Health", healthText(w, p.now))
	p.figure("Memory", memoryText(w))
	p.figure("Processes", pidsText(w))
	p.figure("Pressure", pressureText(w))
	if n := len(w.Kernel); n > 0 && !slices.ContainsFunc(w.Causes, func(c wire.WhyCause) bool {
		return c.Kind == wire.WhyOOM || c.Kind == wire.WhyHostOOM || c.Evidence == w.Kernel[n-1]
	}) {
		p.figure("Kernel", format.Truncate(format.Printable(w.Kernel[n-1]), 2*p.width))
	}
}

// quoted is a word as a shell would need it.
func quoted(word string) string {
	if word != "" && !strings.ContainsAny(word, " \t\n'\"\\$`;&|<>(){}*?#~") {
		return word
	}
	return "'" + strings.ReplaceAll(strings.ReplaceAll(word, "'", `'\''`), "\n", " ") + "'"
}

// log writes the end of the log, as much of it as the screen still has room for.
func (p *whyPainter) log() {
	l := &p.w.Log
	switch {
	case l.Missing != "":
		p.figure("Log", "not readable: "+format.Printable(l.Missing))
		return
	case len(l.Lines) == 0 && p.w.Started.IsZero():
		return
	case len(l.Lines) == 0:
		p.figure("Log", "it wrote nothing")
		return
	}
	used := strings.Count(p.String(), "\n")
	n := min(len(l.Lines), max(leastLines, p.rows-used-2))
	p.figure("Log", fmt.Sprintf("the last %s:", format.Plural(n, "line")))
	for _, line := range l.Lines[len(l.Lines)-n:] {
		text := format.Truncate(strings.ReplaceAll(format.Printable(line), "\t", "    "), p.width-whyMargin-2)
		p.WriteString(strings.TrimRight(strings.Repeat(" ", whyMargin)+"| "+text, " ") + "\n")
	}
}
