package layer

import (
	"bufio"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// DiffOptions says how a directory becomes an archive. The zero value is what
// is usual.
type DiffOptions struct {
	// Epoch replaces every modification time that is later (SOURCE_DATE_EPOCH,
	// https://reproducible-builds.org/specs/source-date-epoch/).
	Epoch *time.Time
	// Root writes an entry for the directory itself, so that its owner, mode
	// and attributes count.
	Root bool
	// Parents, for Adopt and Commit, are the layers below, base first. If it is
	// not nil, Root is set when the directory's owner, mode or attributes differ
	// from what they make of the root.
	Parents []digest.Digest
	// Exclude leaves out a path, relative and clean, with all below it: what the
	// engine put there for itself, such as mount points. Adopt removes it.
	Exclude func(path string) bool
	// Skipped is told of what no archive can hold (sockets), and why.
	Skipped func(path, why string)
}

// Diff writes the upper directory of an overlay as a layer's uncompressed tar.
// Equal directories give equal bytes, whatever made them and wherever they are:
// entries are sorted, whiteouts are of no time, access times are left out.
// Sockets are left out as docker does. What a layer cannot say (a file named
// ".wh.x", the kernel's redirects) is fault.Unsupported. Files that change in
// the meantime are written with the size that they had when they were opened,
// zeros for what was cut off.
func Diff(ctx context.Context, upper string, w io.Writer, o DiffOptions) error {
	_, err := writeTree(ctx, upper, w, packer{o: o, upper: true, live: true})
	return fault.Wrap("pack layer", upper, err)
}

// ExportTree writes everything below root, a whole root file system, as one tar
// without whiteouts. It does not go into other mounts.
func ExportTree(ctx context.Context, root string, w io.Writer) error {
	_, err := writeTree(ctx, root, w, packer{live: true})
	return fault.Wrap("export file system", root, err)
}

func writeTree(ctx context.Context, root string, w io.Writer, p packer) (Layer, error) {
	out := bufio.NewWriterSize(w, 64<<10)
	l, err := p.run(ctx, root, &sink{w: out})
	if err == nil {
		err = out.Flush()
	}
	return l, err
}

// Commit makes a layer of an upper directory that goes on being used, by
// copying: the result is that of Diff and Apply. The layer is held.
func (h *Hold) Commit(ctx context.Context, upper string, o DiffOptions) (Layer, error) {
	if err := h.store.compareRoot(upper, &o); err != nil {
		return Layer{}, fault.Wrap("commit layer", upper, err)
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(Diff(ctx, upper, w, o)) }()
	l, err := h.store.apply(ctx, "", r, h)
	r.CloseWithError(io.ErrClosedPipe) // lets Diff end
	return l, err
}

// Adopt makes a layer of an upper directory that nobody needs any more, without
// copying its files: they are read once, for digest and record, and the
// directory is renamed into the store. Digest and layer are those of Diff and
// Apply. Nobody may write to upper meanwhile; when Adopt has succeeded it is
// gone. On another file system it is copied. The layer is held.
func (h *Hold) Adopt(ctx context.Context, upper string, o DiffOptions) (Layer, error) {
	const op = "adopt layer"
	s := h.store
	if err := s.compareRoot(upper, &o); err != nil {
		return Layer{}, fault.Wrap(op, upper, err)
	}
	if same, err := sameFileSystem(upper, s.layers); err != nil || !same {
		l, err2 := Layer{}, err
		if err == nil {
			l, err2 = h.Commit(ctx, upper, o)
		}
		if err2 == nil {
			err2 = removeTree(upper)
		}
		return l, fault.Wrap(op, upper, err2)
	}
	tmp := filepath.Join(s.layers, ".tmp", s.unique())
	l, err := s.recordTree(ctx, tmp, upper, o)
	if err == nil {
		err = s.take(upper, tmp, l, h)
	}
	if err != nil {
		return Layer{}, fault.Wrap(op, upper, errors.Join(err, removeTree(tmp)))
	}
	return l, nil
}

// recordTree makes everything of a layer but its tree.
func (s *Store) recordTree(ctx context.Context, tmp, upper string, o DiffOptions) (Layer, error) {
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return Layer{}, err
	}
	record, err := createRecord(filepath.Join(tmp, recordName))
	if err != nil {
		return Layer{}, err
	}
	sum := newDigester()
	p := packer{o: o, upper: true, adopt: true}
	l, err := p.run(ctx, upper, &sink{w: sum, record: record})
	l.DiffID = sum.digest()
	if e := record.close(); err == nil {
		err = e
	}
	if err != nil {
		return Layer{}, err
	}
	l.Exact = true
	return l, finishRecord(tmp, l)
}

// take moves upper to its place in tmp and tmp to its place in the store. If
// that fails upper is where it was.
func (s *Store) take(upper, tmp string, l Layer, hold *Hold) error {
	tree := filepath.Join(tmp, "tree")
	if err := os.Rename(upper, tree); err != nil {
		return err
	}
	if err := s.publish(tmp, l, hold); err != nil {
		return errors.Join(err, os.Rename(tree, upper))
	}
	return nil
}

// compareRoot decides about the entry for the root directory.
func (s *Store) compareRoot(upper string, o *DiffOptions) error {
	if o.Parents == nil || o.Root {
		return nil
	}
	s.mu.Lock()
	below, err := s.rootOf(o.Parents)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	here, err := readRoot(upper)
	if err != nil {
		return err
	}
	drop := func(name string, _ []byte) bool { return !storable(name) }
	maps.DeleteFunc(here.xattrs, drop)
	was := maps.Clone(below.xattrs)
	maps.DeleteFunc(was, drop)
	o.Root = here.mode != below.mode || here.uid != below.uid || here.gid != below.gid ||
		!maps.EqualFunc(here.xattrs, was, func(a, b []byte) bool { return string(a) == string(b) })
	return nil
}

func sameFileSystem(a, b string) (bool, error) {
	var x, y unix.Stat_t
	if err := unix.Lstat(a, &x); err != nil {
		return false, &os.PathError{Op: "stat", Path: a, Err: err}
	}
	if err := unix.Lstat(b, &y); err != nil {
		return false, &os.PathError{Op: "stat", Path: b, Err: err}
	}
	return x.Dev == y.Dev, nil
}
