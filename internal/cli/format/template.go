// Package format lays out what commands print: tables whose columns fit the
// terminal, JSON, and the Go templates that --format takes, with the functions
// that docker's users know. It exists so that every command that lists
// something looks and behaves the same.
package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/template"
	"unicode"
	"unicode/utf8"

	"berth/internal/fault"
)

// Template is a parsed --format argument.
type Template struct {
	Kind Kind
	tmpl *template.Template // nil for plain tables and JSON
}

// Kind is the form of the output.
type Kind uint8

// The kinds of output.
const (
	Table  Kind = iota // aligned columns with a heading
	JSON               // one JSON object a line
	Custom             // the template's text a line
)

// Parse reads a --format argument: "" or "table" for the default table, "json",
// "table TEMPLATE", or a template.
func Parse(text string) (*Template, error) {
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	body, isTable := strings.CutPrefix(text, "table")
	switch {
	case text == "" || isTable && strings.TrimSpace(body) == "":
		return &Template{Kind: Table}, nil
	case text == "json" || text == "{{json .}}":
		return &Template{Kind: JSON}, nil
	case isTable && (body[0] == ' ' || body[0] == '\t'):
		tmpl, err := parse(strings.TrimSpace(body))
		return &Template{Kind: Table, tmpl: tmpl}, err
	}
	tmpl, err := parse(text)
	return &Template{Kind: Custom, tmpl: tmpl}, err
}

func parse(text string) (*template.Template, error) {
	tmpl, err := template.New("").Funcs(functions()).Parse(text)
	if err != nil {
		return nil, fault.New(fault.Invalid, "--format", "", "%s", trimTemplateError(err)).
			WithHint("use json, or a Go template such as '{{.ID}} {{.Names}}'")
	}
	return tmpl.Option("missingkey=error"), nil
}

// trimTemplateError drops the parts of a template error that say nothing to a
// person.
func trimTemplateError(err error) string {
	text := strings.TrimPrefix(err.Error(), "template: ")
	if i := strings.Index(text, "executing "); i >= 0 {
		text = text[i:]
		if _, rest, ok := strings.Cut(text, " at "); ok {
			text = rest
		}
	}
	return strings.TrimLeft(text, ":0123456789 ")
}

// Execute writes one value.
func (t *Template) Execute(w io.Writer, value any) error {
	switch {
	case t.Kind == JSON || t.tmpl == nil:
		_, err := fmt.Fprintln(w, marshal(value))
		return err
	}
	var b bytes.Buffer
	if err := t.tmpl.Execute(&b, value); err != nil {
		return fault.New(fault.Invalid, "--format", "", "%s", trimTemplateError(err))
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}

// functions are those of docker's templates.
func functions() template.FuncMap {
	return template.FuncMap{
		"json":     marshal,
		"split":    strings.Split,
		"join":     join,
		"title":    title,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"pad":      pad,
		"truncate": Truncate,
		"println":  func(v ...any) string { return fmt.Sprintln(v...) },
	}
}

func marshal(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return ""
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// join also takes the lists of untyped JSON.
func join(list any, sep string) (string, error) {
	switch list := list.(type) {
	case nil:
		return "", nil
	case []string:
		return strings.Join(list, sep), nil
	case []any:
		parts := make([]string, len(list))
		for i, v := range list {
			parts[i] = fmt.Sprint(v)
		}
		return strings.Join(parts, sep), nil
	}
	return "", fmt.Errorf("join: %T is not a list", list)
}

func title(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return s
	}
	return string(unicode.ToTitle(r)) + s[n:]
}

func pad(s string, prefix, suffix int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", max(prefix, 0)) + s + strings.Repeat(" ", max(suffix, 0))
}

// Truncate cuts s to at most n characters, without a mark.
func Truncate(s string, n int) string {
	if n < 0 {
		return s
	}
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// Ellipsis cuts s to at most n characters, the last of which is a mark when
// anything was cut.
func Ellipsis(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	if n <= 1 {
		return Truncate(s, n)
	}
	return Truncate(s, n-1) + "…"
}
