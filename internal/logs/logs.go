// Package logs is the output of containers at rest: files of entries, their
// rotation and compression, and reading them again by tail, time and following.
// It exists apart from the monitor, which writes the files, because the engine
// reads them, and both have to agree on every byte and on what a rotation looks
// like. What an entry looks like is the business of the drivers, one package
// each below this one.
package logs

import (
	"encoding/json"
	"errors"
	"time"

	"berth/internal/fault"
)

// The defaults bound what a container's log may occupy on disk.
const (
	DefaultMaxSize  = 10 << 20 // bytes of one file
	DefaultMaxFiles = 3        // files, the current one included
)

// PartialSize is how much of a line one entry holds at most, in bytes. Longer
// lines are several entries, all but the last without a newline.
const PartialSize = 16 << 10

// Entry is one line of a container's output, or a part of a long one.
type Entry struct {
	Time   time.Time
	Stream string // "stdout" or "stderr"
	// Line is the text with its newline, unless Partial. It is valid only
	// during the call it is passed to.
	Line    []byte
	Partial bool // the line goes on in the next entry, or its newline never came
	Attrs   map[string]string
	// Next is where a later Read goes on behind this entry.
	Next Position
}

// Format is how a driver writes entries: one line of the file for each, so that
// a torn one ends with the next newline.
type Format interface {
	NewEncoder() Encoder
	NewDecoder() Decoder
}

// Encoder writes entries. What is the same for all lines of one moment and one
// stream is put together once.
type Encoder interface {
	// Set says of which stream and from when the following lines are. attrs is
	// a JSON object, or empty; see EncodeAttrs.
	Set(stream string, attrs []byte, at time.Time)
	// Append appends the entry of a line to dst; line has no newline, and
	// partial says that it had none.
	Append(dst, line []byte, partial bool) []byte
}

// Decoder reads entries. It keeps what lines have in common, so that reading
// costs no allocation a line.
type Decoder interface {
	// Decode reads one line of a file, without its newline. It returns nil for
	// what is no entry: a torn or foreign line is left out, never an error,
	// because one bad byte must not hide the rest of a log. The entry is valid
	// until the next call.
	Decode(line []byte) *Entry
}

// EncodeAttrs returns attributes as Encoder.Set wants them.
func EncodeAttrs(attrs map[string]string) []byte {
	if len(attrs) == 0 {
		return nil
	}
	text, err := json.Marshal(attrs)
	if err != nil { // strings always can be
		return nil
	}
	return text
}

// ErrNotReadable is the answer to reading the log of a container whose driver
// keeps nothing.
var ErrNotReadable error = &fault.Error{
	Kind: fault.Unsupported,
	Err:  errors.New("configured logging driver does not support reading"),
}
