package tree

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// ErrChanged says that a file changed while it was read.
var ErrChanged = fmt.Errorf("the file changes while it is being read")

// Item is one entry of a Contents: a path and what identifies what is there.
type Item struct {
	Path     string
	Mode     uint32 // with the kind
	UID, GID uint32
	Sum      [8]byte // of content, extended attributes and a link's target
}

// Contents is what a digest was made of, so that two can be compared.
type Contents struct {
	d       *Dir
	matches []Match
	sums    [][8]byte // of all entries in order
}

// Len returns how many entries there are.
func (c *Contents) Len() int { return len(c.sums) }

// All calls yield for each entry in order.
func (c *Contents) All(yield func(Item) bool) {
	k := 0
	for i := range c.matches {
		for j := range c.matches[i].Entries {
			e := &c.matches[i].Entries[j]
			item := Item{Path: e.Path, Mode: e.Stat.Mode, Sum: c.sums[k]}
			item.UID, item.GID = c.d.owner(e)
			if !yield(item) {
				return
			}
			k++
		}
	}
}

// Digest identifies what the matches would copy: names, order, kinds, modes,
// owners, links, extended attributes and content, but not times. What it read is
// remembered in the tree's Sums.
func (d *Dir) Digest(ctx context.Context, matches []Match) (digest.Digest, *Contents, error) {
	sums, err := d.sums(ctx, matches)
	if err != nil {
		return "", nil, err
	}
	all := sha256.New()
	c := &Contents{d: d, matches: matches, sums: make([][8]byte, 0, len(sums))}
	var buf []byte
	k := 0
	for i := range matches {
		m := &matches[i]
		fmt.Fprintf(all, "match %q %v\n", m.Name, m.Dir())
		for j := range m.Entries {
			buf = d.describe(buf[:0], &m.Entries[j], &sums[k])
			sum := sha256.Sum256(buf)
			all.Write(sum[:])
			c.sums = append(c.sums, sums[k].short(&m.Entries[j]))
			k++
		}
	}
	return digest.NewDigest(digest.SHA256, all), c, nil
}

// short is enough of the sum to see that something changed, and for a link of its
// target.
func (s *Sum) short(e *Entry) (out [8]byte) {
	sum := binary.BigEndian.Uint64(s.Data[:]) ^ bits.RotateLeft64(binary.BigEndian.Uint64(s.Xattrs[:]), 1)
	for i := range len(e.Link) {
		sum = (sum ^ uint64(e.Link[i])) * 1099511628211 // FNV-1a
	}
	binary.BigEndian.PutUint64(out[:], sum)
	return out
}

// describe appends everything that identifies an entry. Strings come with their
// lengths, so that no two entries have the same description.
func (d *Dir) describe(b []byte, e *Entry, s *Sum) []byte {
	uid, gid := d.owner(e)
	mode, size, rdev := e.Stat.Mode, int64(0), uint64(0)
	switch e.format() {
	case unix.S_IFREG:
		size = e.Stat.Size
	case unix.S_IFLNK:
		mode = unix.S_IFLNK | 0o777
	case unix.S_IFCHR, unix.S_IFBLK:
		rdev = uint64(e.Stat.Rdev)
	}
	for _, text := range [...]string{e.Rel, e.Link} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
		b = append(b, text...)
	}
	for _, n := range [...]uint64{uint64(mode), uint64(uid), uint64(gid), uint64(size), rdev, uint64(int64(e.Same))} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = append(b, s.Data[:]...)
	return append(b, s.Xattrs[:]...)
}

// owner returns whom the copy of an entry belongs to.
func (d *Dir) owner(e *Entry) (uid, gid uint32) {
	if d.o.Flat {
		return 0, 0
	}
	return e.Stat.Uid, e.Stat.Gid
}

// sums returns the sums of all entries in order. Files that are not remembered
// are read, several at once.
func (d *Dir) sums(ctx context.Context, matches []Match) ([]Sum, error) {
	var entries []*Entry
	for i := range matches {
		for j := range matches[i].Entries {
			entries = append(entries, &matches[i].Entries[j])
		}
	}
	out := make([]Sum, len(entries))
	var unknown []int
	for i, e := range entries {
		switch {
		case e.format() != unix.S_IFREG && e.format() != unix.S_IFDIR:
		case e.Dir():
			unknown = append(unknown, i)
		default:
			if d.o.Sums != nil {
				if s, ok := d.o.Sums.Get(e.Path, &e.Stat); ok {
					out[i] = s
					continue
				}
			}
			unknown = append(unknown, i)
		}
	}
	return out, parallel(ctx, len(unknown), 16, func(ctx context.Context, n int) (err error) {
		i := unknown[n]
		out[i], err = d.sum(ctx, entries[i])
		return err
	})
}

// parallel calls do with 0 to n-1 until the first error, on as many processors as
// there are times each that are worth one.
func parallel(ctx context.Context, n, each int, do func(ctx context.Context, i int) error) error {
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range min(runtime.GOMAXPROCS(0), 1+n/each) {
		g.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := do(ctx, i); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

var buffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// tries is how often a file that changes meanwhile is read again.
const tries = 3

// sum reads one entry.
func (d *Dir) sum(ctx context.Context, e *Entry) (Sum, error) {
	for try := 1; ; try++ {
		s, err := d.sumOnce(ctx, e)
		if err == nil || try == tries || !isChanged(err) {
			return s, err
		}
	}
}

func isChanged(err error) bool {
	return err != nil && strings.Contains(err.Error(), ErrChanged.Error())
}

func (d *Dir) sumOnce(ctx context.Context, e *Entry) (Sum, error) {
	var s Sum
	fd, err := d.openEntry(e)
	if err != nil {
		return s, err
	}
	defer unix.Close(fd)
	xattrs, err := readXattrs(fd)
	if err != nil {
		return s, classify("read attributes", e.Path, err)
	}
	if len(xattrs) > 0 {
		s.Xattrs = hashXattrs(xattrs)
	}
	if e.Dir() {
		return s, nil
	}
	h := sha256.New()
	buf := buffers.Get().(*[256 << 10]byte)
	defer buffers.Put(buf)
	n, err := copyContent(ctx, h, fd, &e.Stat, zeroWriter(ctx, h), buf[:])
	if err != nil {
		return s, classify("read file", e.Path, err)
	}
	h.Sum(s.Data[:0])
	var after unix.Stat_t
	if err := unix.Fstat(fd, &after); err != nil {
		return s, classify("look at", e.Path, err)
	}
	if n != after.Size || !sameVersion(&e.Stat, &after) {
		e.Stat = after
		return s, changed(e.Path)
	}
	if d.o.Sums != nil {
		d.o.Sums.Put(e.Path, &e.Stat, s)
	}
	return s, nil
}

func changed(p string) error {
	return fault.New(fault.Conflict, "read file", quote(p), "%w", ErrChanged).
		WithHint("build again when nothing writes to it, or leave it out with .dockerignore")
}

func sameVersion(a, b *unix.Stat_t) bool {
	return a.Ino == b.Ino && a.Dev == b.Dev && a.Size == b.Size && a.Mtim == b.Mtim && a.Ctim == b.Ctim && a.Mode == b.Mode
}

// copyBuffer copies until the end, with an eye on ctx.
func copyBuffer(ctx context.Context, w io.Writer, r io.Reader, buf []byte) (int64, error) {
	var total int64
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return total, werr
			}
			total += int64(n)
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		if n == len(buf) && ctx.Err() != nil {
			return total, ctx.Err()
		}
	}
}

// openEntry opens what an entry stands for. It is an error when something else
// took its place.
func (d *Dir) openEntry(e *Entry) (fd int, err error) {
	err = d.do(func() (err error) {
		flags := uint64(unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK)
		if e.Dir() {
			flags |= unix.O_DIRECTORY
		}
		if fd, err = openat2(d.root, e.Path, flags, 0, beneath); err != nil {
			return err
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		if err == nil && st.Mode&unix.S_IFMT != e.format() {
			err = changed(e.Path)
		}
		if err != nil {
			unix.Close(fd)
			return err
		}
		if e.Stat.Ino != st.Ino { // renamed over meanwhile
			e.Stat = st
		}
		return nil
	})
	if err == unix.ENOENT || err == unix.ELOOP || err == unix.ENOTDIR || err == unix.EXDEV {
		return -1, changed(e.Path)
	}
	return fd, classify("open", e.Path, err)
}

// copied tells which attributes a copy takes over: those that mean something in
// an image. Labels and lists of the host's access control are not among them.
func copied(name string) bool {
	return name == "security.capability" || strings.HasPrefix(name, "user.")
}

// readXattrs returns the attributes that are copied.
func readXattrs(fd int) (map[string][]byte, error) {
	var small [512]byte
	n, err := unix.Flistxattr(fd, small[:])
	buf := small[:]
	if err == unix.ERANGE {
		buf = make([]byte, 64<<10)
		n, err = unix.Flistxattr(fd, buf)
	}
	if err == unix.ENOTSUP || err == unix.EBADF || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out map[string][]byte
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if !copied(name) {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Fgetxattr(fd, name, value)
		if err == unix.ENODATA || err == unix.ENOTSUP {
			continue
		}
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = map[string][]byte{}
		}
		out[name] = value[:n]
	}
	return out, nil
}

func hashXattrs(x map[string][]byte) (sum [32]byte) {
	h := sha256.New()
	var keys []string
	for k := range x {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var length [8]byte
	for _, k := range keys {
		fmt.Fprintf(h, "%q", k)
		binary.BigEndian.PutUint64(length[:], uint64(len(x[k])))
		h.Write(length[:])
		h.Write(x[k])
	}
	h.Sum(sum[:0])
	return sum
}
