package dockerfile

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"berth/internal/build/graph"
	"berth/internal/fault"
)

// Error is a mistake in a Dockerfile and where it is.
type Error struct {
	File   string
	Lines  graph.Lines // of the instruction
	Line   int         // where the mark is, from 1
	Column int         // of the mark, in bytes from 1
	Width  int         // of what is marked, in bytes
	Err    error
	source *Source
}

// Error says what is wrong, without the excerpt.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Excerpt shows the lines around the mistake, as docker's builder does, with a
// mark below it.
func (e *Error) Excerpt() string { return e.source.Excerpt(e.Lines, e.Line, e.Column, e.Width) }

// Source is the text of a Dockerfile, for messages.
type Source struct {
	File  string
	lines []string
}

// NewSource splits a text into lines.
func NewSource(file string, text []byte) *Source {
	return &Source{File: file, lines: strings.Split(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n")}
}

// Excerpt shows the lines at with two lines of context. line, column and width
// are where a mark goes; line 0 means no mark.
func (s *Source) Excerpt(at graph.Lines, line, column, width int) string {
	if at.Start < 1 || at.Start > len(s.lines) {
		return ""
	}
	const around, most = 2, 30
	end := min(at.End, len(s.lines))
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d\n--------------------\n", s.File, at.Start)
	for n := max(1, at.Start-around); n <= min(end+around, len(s.lines)); n++ {
		if n-at.Start > most {
			fmt.Fprintf(&b, "%4s | (and %d more lines)\n", "", end-n+1)
			break
		}
		mark := "   "
		if n >= at.Start && n <= end {
			mark = ">>>"
		}
		fmt.Fprintf(&b, "%4d | %s %s\n", n, mark, s.lines[n-1])
		if n == line && column > 0 {
			fmt.Fprintf(&b, "%4s |     %s^%s\n", "", blank(s.lines[n-1], column-1), strings.Repeat("~", max(0, width-1)))
		}
	}
	b.WriteString("--------------------\n")
	return b.String()
}

// blank is as wide as the first n bytes of a line.
func blank(line string, n int) string {
	var b strings.Builder
	for _, r := range line[:min(n, len(line))] {
		if r == '\t' {
			b.WriteByte('\t')
		} else {
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// explain gives an error its place in the text and a hint.
func (s *Source) explain(err error) error {
	kind := fault.KindOf(err)
	var f *fault.Error
	if !errors.As(err, &f) && kind == fault.Internal {
		kind = fault.Invalid
	}
	hint := ""
	if f != nil {
		hint = f.Hint
	}
	var located *parser.LocationError
	if !errors.As(err, &located) || len(located.Locations) == 0 {
		if f != nil {
			return err
		}
		return &fault.Error{Kind: kind, Op: "read Dockerfile", Subject: s.File, Err: err, Hint: hintFor(err.Error())}
	}
	if kind == fault.NotFound && hint == "" {
		hint = "check the name, or pull or build the image first"
	}
	e := &Error{File: s.File, Lines: lines(located.Locations[0]), Err: cause(err), source: s}
	about := e.Err.Error()
	if m := (*marked)(nil); errors.As(err, &m) {
		about = strconv.Quote(m.word)
	}
	e.Line, e.Column, e.Width = s.mark(e.Lines, about)
	switch {
	case f != nil && f.Hint != "":
		hint = "" // it is in the text already
	case hint == "" && kind == fault.Invalid:
		hint = hintFor(e.Err.Error())
	}
	return &fault.Error{Kind: kind, Op: "read", Subject: fmt.Sprintf("%s:%d:%d", s.File, e.Line, e.Column), Err: e, Hint: hint}
}

var parsePrefix = regexp.MustCompile(`^dockerfile parse error on line \d+: `)

type plainError struct {
	text string
	err  error
}

func (p *plainError) Error() string { return p.text }
func (p *plainError) Unwrap() error { return p.err }

// cause drops what only repeats the line number.
func cause(err error) error {
	if text := parsePrefix.ReplaceAllString(err.Error(), ""); text != err.Error() {
		return &plainError{text, err}
	}
	return err
}

// words that a message quotes, or names after a colon
var quoted = regexp.MustCompile("(\"(?:[^\"\\\\]|\\\\.)+\")|'([^']+)'|`([^`]+)`|: (--?[-a-z]+|[A-Za-z]+)")

// marked is an error that knows the word it is about.
type marked struct {
	word string
	error
}

func (m *marked) Unwrap() error { return m.error }

// mark finds what a message is about among the lines of the instruction: the
// longest word that it quotes and that occurs there, else the instruction.
func (s *Source) mark(at graph.Lines, message string) (line, column, width int) {
	for _, m := range quoted.FindAllStringSubmatch(message, 16) {
		word := m[2] + m[3] + m[4]
		if text, err := strconv.Unquote(m[1]); err == nil {
			word = text
		}
		if len(word) < 2 && m[4] != "" {
			continue
		}
		for n := at.Start; n <= at.End && n <= len(s.lines) && n > 0; n++ {
			if i := strings.Index(strings.ToLower(s.lines[n-1]), strings.ToLower(word)); i >= 0 && i < len(s.lines[n-1]) {
				return n, i + 1, len(word)
			}
		}
	}
	if at.Start < 1 || at.Start > len(s.lines) {
		return max(at.Start, 1), 1, 1
	}
	text := s.lines[at.Start-1]
	start := len(text) - len(strings.TrimLeft(text, " \t"))
	word, _, _ := strings.Cut(text[start:], " ")
	return at.Start, start + 1, max(1, len(word))
}

// hints by what a message contains.
var hints = []struct{ part, hint string }{
	{"unknown instruction", "an instruction begins each line; join lines with a backslash at their end"},
	{"unknown flag", "flags stand between the instruction and its arguments, as in COPY --from=builder"},
	{"no build stage in current context", "the first instruction must be FROM; only ARG may stand before it"},
	{"requires either one or three arguments", "write FROM image, or FROM image AS name"},
	{"at least two arguments", "give a source and, last, a destination"},
	{"requires at least two arguments", "give a source and, last, a destination"},
	{"must be a key=value pair", "mount options are key=value pairs joined by commas"},
	{"unterminated heredoc", "end the text with a line that has only the word after <<"},
	{"unsupported mount type", "the types are bind, cache, tmpfs, secret and ssh"},
	{"invalid network mode", "the modes are default, none and host"},
	{"security", "the modes are sandbox and insecure"},
	{"ENV must have two arguments", "write ENV name=value"},
	{"must have two arguments", "write name=value"},
	{"can't find = in", "write every pair as name=value"},
	{"requires exactly one argument", "put the argument in quotes if it has spaces"},
	{"requires the arguments to be in JSON form", `write a JSON list of strings, as in SHELL ["/bin/bash", "-c"]`},
	{"circular dependency", "a stage must not need itself, not even by way of others"},
	{"could not be found", "name a stage with FROM image AS name"},
	{"needs to be defined before", "move that stage up"},
	{"invalid stage index", "stages are counted from 0"},
	{"variable expansion is not supported for --from", "make a stage of it: FROM $NAME AS files, then COPY --from=files"},
	{"doesn't support variable expansion", "make a stage of it: FROM $NAME AS files, then from=files"},
	{"should not be blank", "give the argument a default before FROM: ARG NAME=value"},
	{"invalid reference format", "image names are lower case: name, name:tag or name@sha256:..."},
	{"repository name must be lowercase", "image names are lower case: name, name:tag or name@sha256:..."},
	{"invalid chmod parameter", "write an octal mode such as 755, or a symbolic one such as u+x"},
	{"file with no instructions", "the file has only comments; begin with FROM and an image"},
	{"escape", "the escape directive is ` or \\"},
	{"syntax error", "quote a $ that is meant literally as \\$"},
	{"bad substitution", "known forms are ${x:-default}, ${x:+other}, ${x#prefix}, ${x%suffix} and ${x/old/new}"},
	{"unsupported modifier", "known forms are ${x:-default}, ${x:+other}, ${x#prefix}, ${x%suffix} and ${x/old/new}"},
	{"port", "write a number or a range from 0 to 65535, with /tcp, /udp or /sctp"},
	{"dockerfile line greater than maximum allowed size", "break the line with a backslash"},
	{"Maximum", "use shorter lines"},
	{"signal", "write a name such as SIGTERM, or a number"},
	{"HEALTHCHECK", "write HEALTHCHECK NONE, or HEALTHCHECK [options] CMD command"},
	{"ONBUILD", "ONBUILD takes any instruction but FROM, MAINTAINER and ONBUILD"},
	{"platform", "write os/architecture, such as linux/arm64"},
	{"checksum", "write it as sha256: and 64 hexadecimal digits"},
	{"lint violation", "fix what the warnings say, or remove error=true from the check directive"},
}

func hintFor(message string) string {
	for _, h := range hints {
		if strings.Contains(strings.ToLower(message), strings.ToLower(h.part)) {
			return h.hint
		}
	}
	return "see the reference of the Dockerfile language for the instruction's form"
}
