package source

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"berth/internal/build/tree"
	"berth/internal/fault"
)

// openRoot opens a directory of ours for changing.
func openRoot(dir string) (*tree.Root, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return tree.NewRoot(fd, nil), nil
}

// sumCache hands out what is known about contexts. Builds of one context at the
// same time share it.
type sumCache struct {
	dir string

	mu     sync.Mutex // guards what follows; taken before Sums.mu
	active map[string]*Sums
	idle   []*Sums // not in use, the least recently used first
}

// keptIdle is how many contexts' sums stay in memory between builds.
const keptIdle = 4

func (c *sumCache) open(dir string, as *tree.Credentials) *Sums {
	key := sumKey(dir, as)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active == nil {
		c.active = map[string]*Sums{}
	}
	s := c.active[key]
	if s == nil {
		s = &Sums{cache: c, key: key, path: filepath.Join(c.dir, key), known: map[string]*known{}}
		s.load()
		c.active[key] = s
	}
	if i := slices.Index(c.idle, s); i >= 0 {
		c.idle = slices.Delete(c.idle, i, i+1)
	}
	s.users++
	return s
}

func sumKey(dir string, as *tree.Credentials) string {
	uid := uint32(0)
	if as != nil {
		uid = as.UID
	}
	name := sha256.Sum256(fmt.Appendf(nil, "%d %s", uid, dir))
	return hex.EncodeToString(name[:16])
}

// openOurs is open for a directory that nobody else changes. Unless what is known
// can be trusted, all of it is forgotten.
func (c *sumCache) openOurs(dir string, trusted bool) *Sums {
	if !trusted {
		c.forget(dir)
	}
	s := c.open(dir, nil)
	s.ours = true
	return s
}

// forget drops what is known about a directory that nobody reads.
func (c *sumCache) forget(dir string) {
	key := sumKey(dir, nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.active[key]; s != nil {
		c.idle = slices.DeleteFunc(c.idle, func(o *Sums) bool { return o == s })
		delete(c.active, key)
	}
	_ = os.Remove(filepath.Join(c.dir, key)) // where that fails, nothing new can be received either
}

// Sums remembers the digests of a directory's files together with what tells
// that they have not changed: size, times, inode and mode, as git's index does.
type Sums struct {
	cache *sumCache
	key   string
	path  string
	users int // guarded by sumCache.mu
	// ours tells that nobody but this program changes the files.
	ours bool

	mu    sync.Mutex // guards what follows
	known map[string]*known
	dirty bool
}

// known is what is remembered about one file.
type known struct {
	v    fileVersion
	sum  tree.Sum
	seen bool
}

// fileVersion tells versions of a file apart. The inode's change time cannot be set
// by programs, so together with the others it notices any change.
type fileVersion struct {
	Dev, Ino     uint64
	Size         int64
	Mtime, Ctime int64 // nanoseconds
	Mode         uint32
}

func versionOf(st *unix.Stat_t) fileVersion {
	return fileVersion{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano(), st.Mode}
}

// Get implements tree.Sums.
func (s *Sums) Get(path string, st *unix.Stat_t) (tree.Sum, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.known[path]
	if k == nil || k.v != versionOf(st) {
		return tree.Sum{}, false
	}
	k.seen = true
	return k.sum, true
}

// tick is more than the step in which a file system's times advance: a file that
// changed less than this ago can change again without looking different.
const tick = 20 * time.Millisecond

// Put implements tree.Sums.
func (s *Sums) Put(path string, st *unix.Stat_t, sum tree.Sum) {
	v := versionOf(st)
	if age := time.Now().UnixNano() - max(v.Mtime, v.Ctime); age < int64(tick) && !s.ours {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[path] = &known{v: v, sum: sum, seen: true}
	s.dirty = true
}

// release saves what was learned and lets go.
func (s *Sums) release() error {
	err := s.save()
	c := s.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.users--; s.users > 0 {
		return err
	}
	c.idle = append(c.idle, s)
	for len(c.idle) > keptIdle {
		delete(c.active, c.idle[0].key)
		c.idle = c.idle[1:]
	}
	return err
}

const sumsMagic = "berth sums 1\n"

// save writes the file anew. What no build asked for is dropped once it is more
// than what was asked for.
func (s *Sums) save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dirty {
		return nil
	}
	stale := 0
	for _, k := range s.known {
		if !k.seen {
			stale++
		}
	}
	var b bytes.Buffer
	b.WriteString(sumsMagic)
	for p, k := range s.known {
		if !k.seen && stale > len(s.known)/2 {
			delete(s.known, p)
			continue
		}
		b.Write(binary.AppendUvarint(nil, uint64(len(p))))
		b.WriteString(p)
		_ = binary.Write(&b, binary.LittleEndian, k.v)
		b.Write(k.sum.Data[:])
		b.Write(k.sum.Xattrs[:])
	}
	sum := sha256.Sum256(b.Bytes())
	b.Write(sum[:])
	next := s.path + ".new"
	if err := os.WriteFile(next, b.Bytes(), 0o600); err != nil {
		_ = os.Remove(next)
		return fault.Wrap("remember build context", s.path, err)
	}
	if err := os.Rename(next, s.path); err != nil {
		return fault.Wrap("remember build context", s.path, err)
	}
	s.dirty = false
	return nil
}

// load reads the file. One that is missing or damaged means that nothing is
// known.
func (s *Sums) load() {
	data, err := os.ReadFile(s.path)
	if err != nil || len(data) < len(sumsMagic)+32 || !strings.HasPrefix(string(data[:len(sumsMagic)]), sumsMagic) {
		return
	}
	body := data[:len(data)-32]
	if sha256.Sum256(body) != [32]byte(data[len(data)-32:]) {
		return
	}
	r := bufio.NewReader(bytes.NewReader(body[len(sumsMagic):]))
	entries := make([]known, len(body)/150+1)
	for n := 0; ; n++ {
		length, err := binary.ReadUvarint(r)
		if err != nil || length > 64<<10 {
			return
		}
		var fixed [44 + 64]byte
		name := make([]byte, length)
		if _, err := io.ReadFull(r, name); err != nil {
			return
		}
		if _, err := io.ReadFull(r, fixed[:]); err != nil {
			return
		}
		k := &known{}
		if n < len(entries) {
			k = &entries[n]
		}
		le := binary.LittleEndian
		k.v = fileVersion{le.Uint64(fixed[0:]), le.Uint64(fixed[8:]), int64(le.Uint64(fixed[16:])),
			int64(le.Uint64(fixed[24:])), int64(le.Uint64(fixed[32:])), le.Uint32(fixed[40:])}
		copy(k.sum.Data[:], fixed[44:76])
		copy(k.sum.Xattrs[:], fixed[76:])
		s.known[string(name)] = k
	}
}
