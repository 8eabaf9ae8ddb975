package manifest

import (
	"bufio"
	"encoding/binary"
	"io"
	"strconv"

	"berth/internal/fault"
)

// Limits of one entry's encoded parts, as the kernel has them.
const (
	maxXattrs     = 256
	maxXattrName  = 256
	maxXattrValue = 64 << 10
)

// Append appends the encoded entry: the kind, the path after its length, and
// unless it is Gone mode, time, what the kind has, and the attributes. Numbers are
// variable-length integers.
func (e *Entry) Append(b []byte) []byte {
	b = append(b, byte(e.Kind))
	b = appendString(b, e.Path)
	if e.Kind == Gone {
		return b
	}
	b = binary.AppendUvarint(b, uint64(e.Mode))
	b = binary.AppendVarint(b, e.Mtime)
	switch e.Kind {
	case File:
		b = binary.AppendUvarint(b, uint64(e.Size))
		b = append(b, e.Digest[:]...)
	case Symlink, Link:
		b = appendString(b, e.Target)
	case Char, Block:
		b = binary.AppendUvarint(b, uint64(e.Major))
		b = binary.AppendUvarint(b, uint64(e.Minor))
	}
	b = binary.AppendUvarint(b, uint64(len(e.Xattrs)))
	for _, x := range e.Xattrs {
		b = appendString(appendString(b, x.Name), x.Value)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// Read reads one entry. At the end of r it returns io.EOF, and in the middle of an
// entry an error of the kind fault.Invalid.
func Read(r *bufio.Reader) (Entry, error) {
	var e Entry
	kind, err := r.ReadByte()
	if err != nil {
		return e, err
	}
	d := decoder{r: r}
	e.Kind = Kind(kind)
	if e.Kind >= kinds {
		return e, fault.New(fault.Invalid, "read list of files", "", "an entry is of an unknown kind")
	}
	e.Path = d.text(maxPath)
	if e.Kind == Gone {
		return e, d.failed()
	}
	e.Mode = uint32(d.number(0o7777))
	if e.Mtime, err = binary.ReadVarint(r); err != nil {
		d.err = err
	}
	switch e.Kind {
	case File:
		e.Size = int64(d.number(MaxBytes))
		d.bytes(e.Digest[:])
	case Symlink, Link:
		e.Target = d.text(maxPath)
	case Char, Block:
		e.Major, e.Minor = uint32(d.number(1<<32-1)), uint32(d.number(1<<32-1))
	}
	for range d.number(maxXattrs) {
		e.Xattrs = append(e.Xattrs, Xattr{d.text(maxXattrName), d.text(maxXattrValue)})
	}
	return e, d.failed()
}

// ReadAll reads entries up to the end of r.
func ReadAll(r *bufio.Reader) ([]Entry, error) {
	var out []Entry
	for {
		e, err := Read(r)
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if out = append(out, e); len(out) > MaxEntries {
			return nil, fault.New(fault.Invalid, "read list of files", "", "it has more than %d entries", MaxEntries)
		}
	}
}

// decoder reads the parts of an entry; after an error it reads nothing.
type decoder struct {
	r   *bufio.Reader
	err error
}

func (d *decoder) failed() error {
	if d.err == nil {
		return nil
	}
	if d.err == io.EOF {
		d.err = io.ErrUnexpectedEOF
	}
	return fault.New(fault.Invalid, "read list of files", "", "%w", d.err)
}

func (d *decoder) number(most uint64) uint64 {
	if d.err != nil {
		return 0
	}
	n, err := binary.ReadUvarint(d.r)
	if err == nil && n > most {
		err = strconv.ErrRange
	}
	if d.err = err; err != nil {
		return 0
	}
	return n
}

func (d *decoder) bytes(to []byte) {
	if d.err == nil {
		_, d.err = io.ReadFull(d.r, to)
	}
}

func (d *decoder) text(most int) string {
	n := d.number(uint64(most))
	if n == 0 {
		return ""
	}
	b := make([]byte, n)
	d.bytes(b)
	return string(b)
}

func quote(s string) string {
	if len(s) > 300 {
		s = s[:300] + "..."
	}
	return strconv.Quote(s)
}
