package jsonfile

import (
	"bytes"
	"encoding/json"
	"time"
	"unicode/utf8"

	"berth/internal/logs"
)

// Decoder turns lines of a log file into entries. It keeps what lines have in
// common, so that reading costs no allocation a line.
type Decoder struct {
	entry    logs.Entry
	text     []byte // unescaped text of the entry
	lastTime []byte // the time as it was written last, and what it means
	last     time.Time
}

// Decode is of logs.Decoder.
func (d *Decoder) Decode(line []byte) *logs.Entry {
	if d.decodeOwn(line) || d.decodeAny(line) {
		return &d.entry
	}
	return nil
}

// decodeOwn reads a line in the very form in which Encoder writes it without
// attributes.
func (d *Decoder) decodeOwn(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte(`{"log":"`))
	if !ok {
		return false
	}
	rest, ok = d.decodeText(rest)
	if !ok {
		return false
	}
	rest, ok = bytes.CutPrefix(rest, []byte(`,"stream":"std`))
	if !ok || len(rest) < 3 {
		return false
	}
	switch string(rest[:3]) {
	case "out":
		d.entry.Stream = "stdout"
	case "err":
		d.entry.Stream = "stderr"
	default:
		return false
	}
	rest, ok = bytes.CutPrefix(rest[3:], []byte(`","time":"`))
	if !ok {
		return false
	}
	rest, ok = bytes.CutSuffix(rest, []byte(`"}`))
	if !ok || !d.decodeTime(rest) {
		return false
	}
	d.finish(nil)
	return true
}

func (d *Decoder) decodeTime(text []byte) bool {
	if bytes.Equal(text, d.lastTime) {
		d.entry.Time = d.last
		return true
	}
	at, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil {
		return false
	}
	d.lastTime = append(d.lastTime[:0], text...)
	d.last = at
	d.entry.Time = at
	return true
}

// decodeText reads the inside of a JSON string up to its closing quote into
// d.text and returns what follows. It refuses escapes that Encoder never writes.
func (d *Decoder) decodeText(in []byte) ([]byte, bool) {
	d.text = d.text[:0]
	for {
		stop := bytes.IndexByte(in, '"')
		if stop < 0 {
			return nil, false
		}
		escape := bytes.IndexByte(in[:stop], '\\')
		if escape < 0 {
			d.text = append(d.text, in[:stop]...)
			return in[stop+1:], true
		}
		d.text = append(d.text, in[:escape]...)
		in = in[escape:] // begins with the backslash; a quote follows somewhere, so in[1] exists
		switch in[1] {
		case 'n':
			d.text = append(d.text, '\n')
		case 'r':
			d.text = append(d.text, '\r')
		case 't':
			d.text = append(d.text, '\t')
		case '\\', '"', '/':
			d.text = append(d.text, in[1])
		case 'u':
			r, ok := hexRune(in[2:])
			if !ok {
				return nil, false
			}
			d.text = utf8.AppendRune(d.text, r)
			in = in[4:]
		default:
			return nil, false
		}
		in = in[2:]
	}
}

// hexRune reads four hexadecimal digits; halves of surrogate pairs are refused.
func hexRune(in []byte) (rune, bool) {
	if len(in) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range in[:4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, r < 0xd800 || r > 0xdfff
}

// decodeAny reads any JSON object of the format's fields, in any order.
func (d *Decoder) decodeAny(line []byte) bool {
	var v struct {
		Log    string            `json:"log"`
		Stream string            `json:"stream"`
		Time   time.Time         `json:"time"`
		Attrs  map[string]string `json:"attrs"`
	}
	if json.Unmarshal(line, &v) != nil || v.Time.IsZero() {
		return false
	}
	d.text = append(d.text[:0], v.Log...)
	d.entry.Stream = v.Stream
	d.entry.Time = v.Time
	d.finish(v.Attrs)
	return true
}

func (d *Decoder) finish(attrs map[string]string) {
	d.entry.Line = d.text
	d.entry.Partial = len(d.text) == 0 || d.text[len(d.text)-1] != '\n'
	d.entry.Attrs = attrs
}
