// Package jsonfile is the log driver that writes what docker's json-file writes,
// byte for byte, so that whatever collects logs from docker's files can read
// these.
package jsonfile

import (
	"encoding/binary"
	"time"
	"unicode/utf8"
)

// Encoder writes lines in the json-file format. What is the same for all lines
// of one moment and one stream is put together once.
type Encoder struct {
	whole   []byte // what follows the text of a complete line
	partial []byte // what follows the text of a partial one
}

// Set is of logs.Encoder.
func (e *Encoder) Set(stream string, attrs []byte, at time.Time) {
	e.whole = append(e.whole[:0], `\n`...)
	e.whole = append(e.whole, `","stream":"`...)
	e.whole = append(e.whole, stream...)
	e.whole = append(e.whole, '"')
	if len(attrs) > 0 {
		e.whole = append(e.whole, `,"attrs":`...)
		e.whole = append(e.whole, attrs...)
	}
	e.whole = append(e.whole, `,"time":"`...)
	e.whole = at.UTC().AppendFormat(e.whole, time.RFC3339Nano)
	e.whole = append(e.whole, "\"}\n"...)
	e.partial = e.whole[2:]
}

// Append is of logs.Encoder.
func (e *Encoder) Append(dst, line []byte, partial bool) []byte {
	dst = append(dst, `{"log":"`...)
	dst = appendEscaped(dst, line)
	if partial {
		return append(dst, e.partial...)
	}
	return append(dst, e.whole...)
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// unsafeIn returns a word with a bit set if any of the eight bytes of x has to
// be escaped or is not ASCII. Borrows may set further bits only beside true
// ones, so zero is exact.
func unsafeIn(x uint64) uint64 {
	// '<' | 2 == '>' and '"' | 4 == '&': two bytes with one comparison each.
	angle := x | 0x02*ones ^ '>'*ones
	quote := x | 0x04*ones ^ '&'*ones
	slash := x ^ '\\'*ones
	found := x - 0x20*ones // control characters
	found |= angle - ones
	found |= quote - ones
	found |= slash - ones
	return (found | x) & highs
}

// appendEscaped appends text as the inside of a JSON string, byte for byte as
// docker's json-file driver does: control characters but newline and return as
// \u00xx, the characters that matter in HTML likewise, invalid UTF-8 as \ufffd.
func appendEscaped(dst, text []byte) []byte {
	start, i := 0, 0
	for i < len(text) {
		for i+8 <= len(text) && unsafeIn(binary.LittleEndian.Uint64(text[i:])) == 0 {
			i += 8
		}
		// The next eight hold something, or fewer than eight are left.
		for stop := min(i+8, len(text)); i < stop; {
			b := text[i]
			if b < utf8.RuneSelf {
				if b >= 0x20 && b != '\\' && b != '"' && b != '<' && b != '>' && b != '&' {
					i++
					continue
				}
				dst = append(dst, text[start:i]...)
				dst = appendEscapedByte(dst, b)
				i++
				start = i
				continue
			}
			r, size := utf8.DecodeRune(text[i:])
			if r == utf8.RuneError && size == 1 || r == '\u2028' || r == '\u2029' {
				dst = append(dst, text[start:i]...)
				dst = appendEscapedRune(dst, r)
				start = i + size
			}
			i += size
		}
	}
	return append(dst, text[start:]...)
}

const hex = "0123456789abcdef"

func appendEscapedByte(dst []byte, b byte) []byte {
	switch b {
	case '\\', '"':
		return append(dst, '\\', b)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	}
	return append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&0xf])
}

func appendEscapedRune(dst []byte, r rune) []byte {
	if r == utf8.RuneError {
		return append(dst, `\ufffd`...)
	}
	return append(dst, '\\', 'u', '2', '0', '2', hex[r&0xf])
}
