package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// The decoder below knows the specification's fields by name. A general one
// inspects every type at run time, for any operating system the specification
// covers, which costs a short-lived process a millisecond and its memory.

// maxDepth bounds how deep unknown values may nest.
const maxDepth = 1000

// decoder reads one JSON text from front to back. Its first error ends it; the
// methods then return at once.
type decoder struct {
	text []byte
	pos  int
	path []byte // of the value being read, as in linux.namespaces[2].path
	err  error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err != nil {
		return
	}
	line, col := position(d.text, int64(d.pos))
	where := fmt.Sprintf("line %d, column %d", line, col)
	if len(d.path) > 0 {
		where = string(d.path) + " (" + where + ")"
	}
	d.err = errors.New(where + ": " + fmt.Sprintf(format, args...))
}

// peek skips white space and returns the next byte, 0 at the end.
func (d *decoder) peek() byte {
	for d.pos < len(d.text) {
		switch c := d.text[d.pos]; c {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return c
		}
	}
	return 0
}

// next consumes c, or fails.
func (d *decoder) next(c byte) bool {
	if d.err != nil {
		return false
	}
	if d.peek() != c {
		d.fail("want %q, not %s", c, d.describe())
		return false
	}
	d.pos++
	return true
}

// describe names what comes next.
func (d *decoder) describe() string {
	switch c := d.peek(); {
	case d.pos >= len(d.text):
		return "the end of the text"
	case c == '{':
		return "an object"
	case c == '[':
		return "an array"
	case c == '"':
		return "a string"
	case c == 't' || c == 'f':
		return "a boolean"
	case c == 'n':
		return "null"
	case c == '-' || c >= '0' && c <= '9':
		return "a number"
	default:
		return strconv.QuoteRune(rune(c))
	}
}

// null consumes null, which leaves any value as it is.
func (d *decoder) null() bool {
	if d.err == nil && d.peek() == 'n' {
		return d.literal("null")
	}
	return false
}

func (d *decoder) literal(word string) bool {
	if len(d.text)-d.pos < len(word) || string(d.text[d.pos:d.pos+len(word)]) != word {
		d.fail("invalid value")
		return false
	}
	d.pos += len(word)
	return true
}

// object reads an object and calls field for every key; a field that is not
// known returns false and is skipped.
func (d *decoder) object(field func(key string) bool) {
	if d.null() || !d.next('{') {
		return
	}
	if d.peek() == '}' {
		d.pos++
		return
	}
	for d.err == nil {
		if d.peek() != '"' {
			d.fail("want a key, not %s", d.describe())
			return
		}
		key := d.readString()
		if !d.next(':') {
			return
		}
		mark := len(d.path)
		if mark > 0 {
			d.path = append(d.path, '.')
		}
		d.path = append(d.path, key...)
		if !field(key) {
			d.skip(0)
		}
		if d.err != nil {
			return
		}
		d.path = d.path[:mark]
		if d.peek() == ',' {
			d.pos++
			continue
		}
		d.next('}')
		return
	}
}

// array reads an array and calls element before each of its values.
func (d *decoder) array(element func()) {
	if d.null() || !d.next('[') {
		return
	}
	if d.peek() == ']' {
		d.pos++
		return
	}
	mark := len(d.path)
	for i := 0; d.err == nil; i++ {
		d.path = append(strconv.AppendInt(append(d.path[:mark], '['), int64(i), 10), ']')
		element()
		if d.err != nil {
			return
		}
		d.path = d.path[:mark]
		if d.peek() == ',' {
			d.pos++
			continue
		}
		d.next(']')
		return
	}
}

// skip reads over any value.
func (d *decoder) skip(depth int) {
	if d.err != nil {
		return
	}
	if depth > maxDepth {
		d.fail("nested too deeply")
		return
	}
	switch c := d.peek(); c {
	case '{':
		d.object(func(string) bool { d.skip(depth + 1); return true })
	case '[':
		d.array(func() { d.skip(depth + 1) })
	case '"':
		d.readString()
	case 't':
		d.literal("true")
	case 'f':
		d.literal("false")
	case 'n':
		d.literal("null")
	default:
		d.number()
	}
}

// readString reads a string. One without escapes, as nearly all are, is taken
// as it is.
func (d *decoder) readString() string {
	if !d.next('"') {
		return ""
	}
	start := d.pos
	for ; d.pos < len(d.text); d.pos++ {
		switch c := d.text[d.pos]; {
		case c == '"':
			s := d.text[start:d.pos]
			d.pos++
			return string(s)
		case c < ' ':
			d.fail("a control character is in a string")
			return ""
		case c == '\\' || c >= utf8.RuneSelf:
			return d.escaped(start - 1)
		}
	}
	d.fail("a string has no end")
	return ""
}

// escaped reads a string with escapes or other characters than ASCII, from its
// opening quote on.
func (d *decoder) escaped(start int) string {
	end := start + 1
	for end < len(d.text) && d.text[end] != '"' {
		if d.text[end] == '\\' {
			end++
		}
		end++
	}
	if end >= len(d.text) {
		d.fail("a string has no end")
		return ""
	}
	var s string
	if err := json.Unmarshal(d.text[start:end+1], &s); err != nil {
		d.fail("malformed string")
		return ""
	}
	d.pos = end + 1
	return s
}

// number reads a number and returns its text.
func (d *decoder) number() string {
	d.peek()
	start := d.pos
	digits := func() int {
		from := d.pos
		for d.pos < len(d.text) && d.text[d.pos] >= '0' && d.text[d.pos] <= '9' {
			d.pos++
		}
		return d.pos - from
	}
	at := func(c byte) bool { return d.pos < len(d.text) && d.text[d.pos] == c }
	if at('-') {
		d.pos++
	}
	zero := at('0')
	if n := digits(); n == 0 || zero && n > 1 {
		d.fail("invalid value")
		return ""
	}
	if at('.') {
		d.pos++
		if digits() == 0 {
			d.fail("malformed number")
			return ""
		}
	}
	if at('e') || at('E') {
		d.pos++
		if at('+') || at('-') {
			d.pos++
		}
		if digits() == 0 {
			d.fail("malformed number")
			return ""
		}
	}
	return string(d.text[start:d.pos])
}

func (d *decoder) str(to *string) {
	if d.null() || d.err != nil {
		return
	}
	if d.peek() != '"' {
		d.fail("want a string, not %s", d.describe())
		return
	}
	*to = d.readString()
}

func (d *decoder) boolean(to *bool) {
	switch c := d.peek(); {
	case d.null() || d.err != nil:
	case c == 't':
		*to = d.literal("true")
	case c == 'f':
		d.literal("false")
		*to = false
	default:
		d.fail("want a boolean, not %s", d.describe())
	}
}

// integer is any type that holds whole numbers.
type integer interface {
	~int | ~int32 | ~int64 | ~uint | ~uint16 | ~uint32 | ~uint64
}

// whole reads a whole number that fits T.
func whole[T integer](d *decoder, to *T) {
	if d.null() || d.err != nil {
		return
	}
	if c := d.peek(); c != '-' && (c < '0' || c > '9') {
		d.fail("want a number, not %s", d.describe())
		return
	}
	start := d.pos
	text := d.number()
	if d.err != nil {
		return
	}
	var n T
	ok := false
	if text[0] == '-' {
		v, err := strconv.ParseInt(text, 10, 64)
		n = T(v)
		ok = err == nil && n <= 0 && int64(n) == v
	} else {
		v, err := strconv.ParseUint(text, 10, 64)
		n = T(v)
		ok = err == nil && n >= 0 && uint64(n) == v && (v <= math.MaxInt64 || n > T(0))
	}
	if !ok {
		d.pos = start
		d.fail("%s is not a whole number of the right size", text)
		return
	}
	*to = n
}

// number into an optional field.
func optional[T integer](d *decoder, to **T) {
	if d.null() {
		*to = nil
		return
	}
	var n T
	whole(d, &n)
	if d.err == nil {
		*to = &n
	}
}

func (d *decoder) optionalBool(to **bool) {
	if d.null() {
		*to = nil
		return
	}
	var b bool
	d.boolean(&b)
	if d.err == nil {
		*to = &b
	}
}

// word reads a string into any string type.
func word[T ~string](d *decoder, to *T) {
	s := string(*to)
	d.str(&s)
	*to = T(s)
}

// listOf reads an array of values that read reads.
func listOf[T any](d *decoder, to *[]T, read func(*T)) {
	if d.null() {
		*to = nil
		return
	}
	list := []T{}
	d.array(func() {
		var v T
		read(&v)
		list = append(list, v)
	})
	*to = list
}

// words reads an array of strings.
func words[T ~string](d *decoder, to *[]T) { listOf(d, to, func(v *T) { word(d, v) }) }

// pointer reads an optional object.
func pointer[T any](d *decoder, to **T, read func(*T)) {
	if d.null() {
		*to = nil
		return
	}
	if *to == nil {
		*to = new(T)
	}
	read(*to)
}

// mapOf reads an object as a map.
func mapOf[T any](d *decoder, to *map[string]T, read func(*T)) {
	if d.null() {
		*to = nil
		return
	}
	if *to == nil {
		*to = map[string]T{}
	}
	d.object(func(key string) bool {
		var v T
		read(&v)
		(*to)[key] = v
		return true
	})
}

// end makes sure that nothing follows.
func (d *decoder) end() error {
	if d.err == nil && d.peek() != 0 {
		d.fail("unexpected text behind the end: %s", d.describe())
	}
	if d.err == nil && d.pos < len(d.text) {
		d.fail("unexpected text behind the end")
	}
	return d.err
}
