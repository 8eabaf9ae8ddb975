package format

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"berth/internal/fault"
)

// Row is one listed thing: the value of each field by its name in templates.
type Row struct {
	Values map[string]string
	Labels map[string]string // nil for things without labels
}

// Column is one column of a default table.
type Column struct {
	Field    string
	Header   string
	Flexible bool // may be cut when the terminal is too narrow
}

// List is what a command lists and how.
type List struct {
	Columns []Column          // of the default table
	Headers map[string]string // of every field that templates may use
	Width   int               // of the terminal; 0 means unlimited
}

// columnGap is the number of spaces between two columns.
const columnGap = 3

// narrowest is the least width to which a flexible column is cut.
const narrowest = 12

// Write prints rows as the template says.
func (l List) Write(w io.Writer, t *Template, rows []Row) error {
	switch {
	case t.Kind == Table && t.tmpl == nil:
		return l.writeTable(w, rows)
	case t.Kind == Table:
		return l.writeCustomTable(w, t, rows)
	}
	for _, row := range rows {
		var value any = row.fields()
		if t.Kind == JSON {
			value = row.Values
		}
		if err := t.Execute(w, value); err != nil {
			return err
		}
	}
	return nil
}

func (l List) writeTable(w io.Writer, rows []Row) error {
	cells := make([][]string, 0, len(rows)+1)
	head := make([]string, len(l.Columns))
	for i, c := range l.Columns {
		head[i] = c.Header
	}
	cells = append(cells, head)
	for _, row := range rows {
		line := make([]string, len(l.Columns))
		for i, c := range l.Columns {
			line[i] = row.Values[c.Field]
		}
		cells = append(cells, line)
	}
	l.fit(cells)
	return writeAligned(w, cells)
}

// fit cuts the flexible columns, the widest first, until a line fits.
func (l List) fit(cells [][]string) {
	if l.Width <= 0 || len(cells) == 0 {
		return
	}
	widths := columnWidths(cells)
	for {
		total, widest := -columnGap, -1
		for i, w := range widths {
			total += w + columnGap
			if i < len(l.Columns) && l.Columns[i].Flexible && w > narrowest && (widest < 0 || w > widths[widest]) {
				widest = i
			}
		}
		if total <= l.Width || widest < 0 {
			break
		}
		widths[widest] = max(narrowest, widths[widest]-(total-l.Width), nextWidest(l.Columns, widths, widest))
	}
	for _, line := range cells {
		for i := range line {
			line[i] = Ellipsis(line[i], widths[i])
		}
	}
}

// nextWidest returns one less than the second widest flexible column, so that
// no column is cut much below another.
func nextWidest(columns []Column, widths []int, widest int) int {
	second := 0
	for i, w := range widths {
		if i != widest && i < len(columns) && columns[i].Flexible && w < widths[widest] {
			second = max(second, w)
		}
	}
	if second == 0 {
		return 0
	}
	return second - 1
}

func columnWidths(cells [][]string) []int {
	var widths []int
	for _, line := range cells {
		for i, cell := range line {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return widths
}

// writeAligned prints cells in columns, without spaces at line ends.
func writeAligned(w io.Writer, cells [][]string) error {
	for _, line := range cells {
		for i := range line {
			line[i] = Printable(line[i])
		}
	}
	widths := columnWidths(cells)
	var b bytes.Buffer
	for _, line := range cells {
		spaces := 0
		for i, cell := range line {
			if cell != "" {
				b.WriteString(strings.Repeat(" ", spaces))
				b.WriteString(cell)
				spaces = 0
			}
			spaces += widths[i] - utf8.RuneCountInString(cell) + columnGap
		}
		b.WriteByte('\n')
	}
	_, err := w.Write(b.Bytes())
	return err
}

// writeCustomTable prints a table whose cells are made by a template with tabs
// between them; its heading is the template over the fields' headers.
func (l List) writeCustomTable(w io.Writer, t *Template, rows []Row) error {
	var cells [][]string
	add := func(value any) error {
		var b bytes.Buffer
		if err := t.tmpl.Execute(&b, value); err != nil {
			return fault.New(fault.Invalid, "--format", "", "%s", trimTemplateError(err)).
				WithHint("fields: %s", strings.Join(l.fieldNames(), " "))
		}
		for line := range strings.SplitSeq(b.String(), "\n") {
			cells = append(cells, strings.Split(line, "\t"))
		}
		return nil
	}
	if err := add(headings(l.Headers)); err != nil {
		return err
	}
	for _, row := range rows {
		if err := add(row.fields()); err != nil {
			return err
		}
	}
	return writeAligned(w, cells)
}

func (l List) fieldNames() []string {
	names := make([]string, 0, len(l.Headers))
	for name := range l.Headers {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// labelsKey holds a row's labels beside its fields; no field has this name.
const labelsKey = "\x00labels"

// fields is what templates see of a row.
type fields map[string]any

func (r Row) fields() fields {
	f := make(fields, len(r.Values)+1)
	for name, value := range r.Values {
		f[name] = value
	}
	f[labelsKey] = r.Labels
	return f
}

// Label returns the value of a label, for {{.Label "name"}}.
func (f fields) Label(name string) string {
	labels, _ := f[labelsKey].(map[string]string)
	return labels[name]
}

// MarshalJSON leaves the labels' place out, for {{json .}} within a template.
func (f fields) MarshalJSON() ([]byte, error) {
	plain := make(map[string]any, len(f))
	for name, value := range f {
		if name != labelsKey {
			plain[name] = value
		}
	}
	return []byte(marshal(plain)), nil
}

// headings is what templates see in a table's first line.
type headings map[string]string

// Label returns the heading of a label's column.
func (headings) Label(name string) string {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		name = name[i+1:]
	}
	return strings.NewReplacer("-", " ", "_", " ").Replace(name)
}

// Columns prints cells in aligned columns, the first line being the heading.
func Columns(w io.Writer, cells [][]string) error { return writeAligned(w, cells) }
