// Package manifest is the list of what is in a build context: what a client sends
// first, so that an engine elsewhere asks only for contents that it lacks. It
// exists because both sides keep such lists and must read and compare them in the
// same way; one of the sides is not trusted, so a list that could mean something
// outside of its directory does not pass Check.
package manifest

import (
	"crypto/sha256"
	"slices"
	"strings"

	"berth/internal/fault"
)

// Kind is what an entry is.
type Kind byte

// The kinds. Gone is for changes only: what the base has there is no more.
const (
	Gone Kind = iota
	Dir
	File
	Symlink
	Link // another name of a file that comes before
	Fifo
	Char
	Block
	kinds
)

// Entry is one thing in a context. Owners are not listed: a context belongs to
// root wherever it is built.
type Entry struct {
	Path         string // below the context, elements separated by slashes
	Kind         Kind
	Mode         uint32   // permission bits, with set-id and sticky ones
	Mtime        int64    // nanoseconds since 1970
	Size         int64    // of a file, bytes
	Digest       [32]byte // sha256 of a file's content
	Target       string   // of a symlink; of a Link, the path of the file
	Major, Minor uint32   // of a device
	Xattrs       []Xattr  // sorted by name
}

// Xattr is an extended attribute.
type Xattr struct{ Name, Value string }

// Equal reports whether two entries say the same.
func (e *Entry) Equal(o *Entry) bool {
	return e.Path == o.Path && e.Kind == o.Kind && e.Mode == o.Mode && e.Mtime == o.Mtime && e.Size == o.Size && e.Digest == o.Digest &&
		e.Target == o.Target && e.Major == o.Major && e.Minor == o.Minor && slices.Equal(e.Xattrs, o.Xattrs)
}

// Compare orders paths as a walk meets them: a directory, what is below it, what
// comes after it.
func Compare(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		x, y := a[i], b[i]
		if x == y {
			continue
		}
		if x == '/' {
			x = 0
		}
		if y == '/' {
			y = 0
		}
		if x < y {
			return -1
		}
		return 1
	}
	return len(a) - len(b)
}

// Sum identifies a list.
func Sum(list []Entry) [32]byte {
	h := sha256.New()
	var b []byte
	for i := range list {
		b = list[i].Append(b[:0])
		h.Write(b)
	}
	return [32]byte(h.Sum(nil))
}

// Changes returns what Apply makes next of base.
func Changes(base, next []Entry) []Entry {
	var out []Entry
	for len(base) > 0 || len(next) > 0 {
		order := 0
		switch {
		case len(base) == 0:
			order = 1
		case len(next) == 0:
			order = -1
		default:
			order = Compare(base[0].Path, next[0].Path)
		}
		if order < 0 {
			out, base = append(out, Entry{Path: base[0].Path, Kind: Gone}), base[1:]
			continue
		}
		if order > 0 || !base[0].Equal(&next[0]) {
			out = append(out, next[0])
		}
		if next = next[1:]; order == 0 {
			base = base[1:]
		}
	}
	return out
}

// Apply returns base with changes made, which are in order. Check says whether
// the result makes sense.
func Apply(base, changes []Entry) []Entry {
	out := make([]Entry, 0, len(base)+len(changes))
	for len(base) > 0 || len(changes) > 0 {
		switch {
		case len(changes) == 0:
			return append(out, base...)
		case len(base) > 0 && Compare(base[0].Path, changes[0].Path) < 0:
			out, base = append(out, base[0]), base[1:]
			continue
		case len(base) > 0 && base[0].Path == changes[0].Path:
			base = base[1:]
		}
		if changes[0].Kind != Gone {
			out = append(out, changes[0])
		}
		changes = changes[1:]
	}
	return out
}

// limits of a list, as those of archives.
const (
	MaxEntries = 2_000_000
	MaxBytes   = 64 << 30 // of all files
	maxPath    = 4096
)

// Check reports what is wrong with a list from somewhere else: each entry must be
// in a directory that comes before it, and in its place of the order, so none is
// there twice or anywhere else than below the context.
func Check(list []Entry) error {
	if len(list) > MaxEntries {
		return fault.New(fault.Invalid, "read list of files", "", "it has more than %d entries", MaxEntries)
	}
	var size int64
	var above []string // directories that the last entry is in, or is
	files := map[string]bool{}
	for i := range list {
		e := &list[i]
		bad := func(why string) error {
			return fault.New(fault.Invalid, "read list of files", quote(e.Path), "%s", why)
		}
		if i > 0 && Compare(list[i-1].Path, e.Path) >= 0 {
			return bad("it is not in order")
		}
		dir, base := "", e.Path
		if cut := strings.LastIndexByte(e.Path, '/'); cut > 0 {
			dir, base = e.Path[:cut], e.Path[cut+1:]
		}
		if e.Path[:min(1, len(e.Path))] == "/" || base == "" || base == "." || base == ".." || strings.IndexByte(base, 0) >= 0 {
			return bad("this is no name of a file")
		}
		for len(above) > 0 && above[len(above)-1] != dir {
			above = above[:len(above)-1]
		}
		if dir != "" && len(above) == 0 {
			return bad("the directory that it is in is not listed")
		}
		if e.Mode&^0o7777 != 0 {
			return bad("its mode has unknown bits")
		}
		switch e.Kind {
		case Dir:
			above = append(above, e.Path)
		case File:
			if e.Size < 0 || e.Size > MaxBytes-size {
				return bad("the files are too large")
			}
			size += e.Size
			files[e.Path] = true
		case Link:
			if !files[e.Target] {
				return bad("it is another name of a file that is not listed before")
			}
		case Symlink:
			if e.Target == "" {
				return bad("it is a link to nothing")
			}
		case Fifo, Char, Block:
		default:
			return bad("it is of an unknown kind")
		}
	}
	return nil
}
