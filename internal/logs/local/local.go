// Package local is the log driver for those who read logs through the engine
// only: a compact format of its own, written as fast as it can be, rotated and
// compressed without anybody having to ask for it.
//
// An entry is one line: a character of flags, the time in eleven characters,
// attributes if there are any (their length in four characters and a JSON
// object), and then the text as the container wrote it, byte for byte. A line of
// output holds no newline, so nothing needs to be escaped, and a reader finds
// lines from either end of a file. That is 13 bytes beside the text, where
// json-file has 66 and more.
package local

import (
	"bytes"
	"encoding/json"
	"time"

	"berth/internal/logs"
	"berth/internal/logs/jsonfile"
)

// Name is what users call the driver.
const Name = "local"

// The defaults are docker's.
const (
	DefaultMaxSize  = 20 << 20 // bytes of one file
	DefaultMaxFiles = 5        // files, the current one included
)

// The flags of an entry are bits beside flagBase.
const (
	flagBase    = '@'
	flagStderr  = 1
	flagPartial = 2
	flagAttrs   = 4

	timeSize  = 11 // characters of six bits, most significant first
	countSize = 4
)

// digits are the characters of numbers, in the order of their bytes so that
// times sort as text.
const digits = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"

var values = func() (v [256]int8) {
	for i := range v {
		v[i] = -1
	}
	for i := range len(digits) {
		v[digits[i]] = int8(i)
	}
	return v
}()

// Parse reads the options of the driver as users write them, with its defaults.
// The error names the option.
func Parse(options map[string]string) (logs.Options, error) {
	o := logs.Options{Files: logs.Files{Compress: true}}
	for name, value := range options {
		if err := o.Set(Name, name, value); err != nil {
			return logs.Options{}, err
		}
	}
	o.Default(DefaultMaxSize, DefaultMaxFiles)
	return o, o.Check()
}

// Format is the driver's format.
type Format struct{}

// NewEncoder is of logs.Format.
func (Format) NewEncoder() logs.Encoder { return new(Encoder) }

// NewDecoder is of logs.Format.
func (Format) NewDecoder() logs.Decoder { return new(Decoder) }

// Encoder writes entries.
type Encoder struct{ head []byte }

// Set is of logs.Encoder.
func (e *Encoder) Set(stream string, attrs []byte, at time.Time) {
	flags := byte(flagBase)
	if stream == "stderr" {
		flags |= flagStderr
	}
	if len(attrs) > 0 {
		flags |= flagAttrs
	}
	e.head = append(e.head[:0], flags)
	e.head = appendNumber(e.head, uint64(at.UnixNano()), timeSize)
	if len(attrs) > 0 {
		e.head = appendNumber(e.head, uint64(len(attrs)), countSize)
		e.head = append(e.head, attrs...)
	}
}

// Append is of logs.Encoder.
func (e *Encoder) Append(dst, line []byte, partial bool) []byte {
	at := len(dst)
	dst = append(append(append(dst, e.head...), line...), '\n')
	if partial {
		dst[at] |= flagPartial
	}
	return dst
}

func appendNumber(dst []byte, n uint64, size int) []byte {
	for i := size - 1; i >= 0; i-- {
		dst = append(dst, digits[n>>(6*i)&63])
	}
	return dst
}

func number(text []byte) (n uint64, ok bool) {
	for _, c := range text {
		v := values[c]
		if v < 0 {
			return 0, false
		}
		n = n<<6 | uint64(v)
	}
	return n, true
}

// Decoder reads entries. Engines wrote json-file's lines for this driver once;
// it reads those too.
type Decoder struct {
	entry logs.Entry
	old   jsonfile.Decoder
	text  []byte
	attrs []byte            // as they were written last, and what they mean
	known map[string]string //
}

// Decode is of logs.Decoder.
func (d *Decoder) Decode(line []byte) *logs.Entry {
	if len(line) > 0 && line[0] == '{' {
		return d.old.Decode(line)
	}
	if len(line) < 1+timeSize || line[0]&^7 != flagBase {
		return nil
	}
	flags := line[0]
	at, ok := number(line[1 : 1+timeSize])
	if !ok {
		return nil
	}
	line = line[1+timeSize:]
	d.entry.Attrs = nil
	if flags&flagAttrs != 0 {
		if line, ok = d.decodeAttrs(line); !ok {
			return nil
		}
	}
	d.entry.Time = time.Unix(0, int64(at)).UTC()
	d.entry.Stream = "stdout"
	if flags&flagStderr != 0 {
		d.entry.Stream = "stderr"
	}
	d.entry.Partial = flags&flagPartial != 0
	d.text = append(d.text[:0], line...)
	if !d.entry.Partial {
		d.text = append(d.text, '\n')
	}
	d.entry.Line = d.text
	return &d.entry
}

func (d *Decoder) decodeAttrs(line []byte) (rest []byte, ok bool) {
	if len(line) < countSize {
		return nil, false
	}
	size, ok := number(line[:countSize])
	line = line[countSize:]
	if !ok || size > uint64(len(line)) {
		return nil, false
	}
	if !bytes.Equal(line[:size], d.attrs) {
		var attrs map[string]string
		if json.Unmarshal(line[:size], &attrs) != nil {
			return nil, false
		}
		d.attrs, d.known = append(d.attrs[:0], line[:size]...), attrs
	}
	d.entry.Attrs = d.known
	return line[size:], true
}
