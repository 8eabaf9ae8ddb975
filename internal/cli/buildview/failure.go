package buildview

import (
	"fmt"
	"strings"

	"berth/internal/cli/format"
	"berth/internal/wire"
)

// failure says what a person needs to know about a build that failed: the end of
// the step's output, the place in the Dockerfile, and what the program saw.
func (c *common) failure(e *wire.BuildEvent) string {
	if e == nil {
		return ""
	}
	var b strings.Builder
	const rule = "------\n"
	f := e.Failure
	if f != nil && strings.TrimSpace(f.Tail) != "" {
		fmt.Fprintf(&b, "%s > %s:\n", rule, format.Printable(oneLine(f.Step)))
		for line := range strings.SplitSeq(strings.TrimRight(f.Tail, "\n"), "\n") {
			b.WriteString(valid(clean(line)) + "\n")
		}
		b.WriteString(rule)
	}
	b.WriteString(c.paint(e.Excerpt))
	if f == nil {
		return b.String()
	}
	user := f.User
	if user == "" {
		user = "root"
	}
	dir := f.Dir
	if dir == "" {
		dir = "/"
	}
	fmt.Fprintf(&b, "It ran as %s in %s with:\n", format.Printable(user), format.Printable(dir))
	for _, v := range f.Env {
		const longest = 160
		b.WriteString("  " + format.Ellipsis(format.Printable(strings.ReplaceAll(v, "\n", "\\n")), longest) + "\n")
	}
	if e.Hint == "" {
		e.Hint = hintFor(f)
	}
	return b.String()
}

// paint colours the marked lines of an excerpt.
func (c *common) paint(excerpt string) string {
	if excerpt == "" {
		return ""
	}
	var b strings.Builder
	for line := range strings.Lines(excerpt) {
		text := format.Printable(strings.TrimRight(line, "\n"))
		if strings.Contains(text, "| >>>") || strings.HasSuffix(strings.TrimRight(text, "~"), "^") {
			text = c.colour("31", text)
		}
		b.WriteString(text + "\n")
	}
	return b.String()
}

// hintFor says what may help with a program that failed.
func hintFor(f *wire.BuildFailure) string {
	switch {
	case f.OOM:
		return "the step ran out of memory: give it more with --memory"
	case f.Code == 127:
		return "the image has no such program: install it in an earlier step, or look at PATH above"
	case f.Code == 126:
		return "the program cannot be executed: is it for another platform, or is its mode not 0755?"
	case f.Code == 137:
		return "the program was killed"
	case strings.Contains(f.Tail, "Temporary failure in name resolution"), strings.Contains(f.Tail, "bad address"),
		strings.Contains(f.Tail, "Could not resolve"):
		return "names cannot be resolved in the step: does --network none apply, or has this machine no name server?"
	}
	return "berth build --debug-shell opens a shell in the failed step; berth build history logs shows all of its output"
}

// warned lists the warnings: in a line each, or with all there is to say.
func (c *common) warned() string {
	if len(c.m.warnings) == 0 {
		return ""
	}
	var b strings.Builder
	if !c.o.Check {
		fmt.Fprintf(&b, "%s:\n", c.colour("33", format.Plural(len(c.m.warnings), "warning")))
	}
	for i, w := range c.m.warnings {
		place := ""
		if w.Line > 0 {
			place = fmt.Sprintf(" (line %d)", w.Line)
		}
		if !c.o.Check {
			rule := w.Rule
			if rule != "" {
				rule += ": "
			}
			fmt.Fprintf(&b, "  %s%s%s\n", rule, format.Printable(oneLine(w.Message)), place)
			continue
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		head := "WARNING: " + w.Rule
		if w.URL != "" {
			head += " - " + w.URL
		}
		fmt.Fprintf(&b, "%s\n%s\n", c.colour("33", head), format.Printable(w.Message))
		if w.Detail != "" {
			fmt.Fprintf(&b, "%s\n", format.Printable(w.Detail))
		}
		b.WriteString(c.paint(w.Excerpt))
	}
	return b.String()
}
