package manifest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"

	"berth/internal/fault"
)

// Contents follow each other in the order in which they were asked for. Each
// comes in pieces of a length and so many bytes; the length 0 ends them, and a
// verdict follows: a file may change while it is sent.
type verdict byte

const (
	asListed  verdict = iota // it is the content of the list's entry
	asFollows                // it is that of the entry that follows, which replaces the list's
	again                    // it changed: forget it, it comes once more
)

// MaxPiece is how long a piece may be, in bytes.
const MaxPiece = 1 << 20

// ErrAgain says that what came is to be forgotten.
var ErrAgain = errors.New("the file changed while it was sent, and comes again")

// AppendPiece appends a piece of a content, which must not be empty.
func AppendPiece(b, piece []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(piece))), piece...)
}

// AppendEnd appends the end of a content: that of the entry listed if is is the
// same, of is otherwise; nil for a content that comes again.
func AppendEnd(b []byte, listed, is *Entry) []byte {
	b = append(b, 0)
	switch {
	case is == nil:
		return append(b, byte(again))
	case is.Equal(listed):
		return append(b, byte(asListed))
	}
	return is.Append(append(b, byte(asFollows)))
}

// ReadContent writes one content to w. It changes e when the content is that of
// another entry. Whether the content is the entry's is for the caller to see.
func ReadContent(r *bufio.Reader, w io.Writer, e *Entry) error {
	d := decoder{r: r}
	for left := uint64(MaxBytes); ; {
		n := d.number(min(MaxPiece, left))
		if d.err != nil {
			return cut(d.err)
		}
		if n == 0 {
			break
		}
		if _, err := io.CopyN(w, r, int64(n)); err != nil {
			return cut(err)
		}
		left -= n
	}
	end, err := r.ReadByte()
	if err != nil {
		return cut(err)
	}
	switch verdict(end) {
	case asListed:
		return nil
	case again:
		return ErrAgain
	case asFollows:
		is, err := Read(r)
		if err != nil {
			return cut(err)
		}
		if is.Kind != File || is.Path != e.Path {
			break
		}
		*e = is
		return nil
	}
	return fault.New(fault.Invalid, "read contents of files", "", "they are damaged")
}

// cut names the reason why a content ended early.
func cut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fault.New(fault.Invalid, "read contents of files", "", "they end early: %w", io.ErrUnexpectedEOF)
	}
	return err
}
