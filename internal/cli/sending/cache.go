package sending

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"berth/internal/wire/manifest"
)

// cache is what is known about a directory since it was sent the last time: the
// list that an engine was given, and the digests of files with what tells that
// they have not changed. Its file is written anew and renamed; one that is missing
// or damaged means that nothing is known.
type cache struct {
	name  string
	list  []manifest.Entry // nil: none
	known map[string]known
	dirty bool
}

// known is what is known about one file.
type known struct {
	version version
	digest  [32]byte
	xattrs  []manifest.Xattr
}

const magic = "berth context 1\n"

// kept is how many directories are remembered.
const kept = 64

func (c *cache) path() string { return filepath.Join(home(), c.name) }

// openCache reads what is known about a slot.
func openCache(name string) *cache {
	c := &cache{name: name, known: map[string]known{}, dirty: true}
	if home() == "" {
		return c
	}
	data, err := os.ReadFile(c.path())
	if err != nil || len(data) < len(magic)+sha256.Size || !strings.HasPrefix(string(data[:len(magic)]), magic) {
		return c
	}
	body := data[:len(data)-sha256.Size]
	if sha256.Sum256(body) != [sha256.Size]byte(data[len(body):]) {
		return c
	}
	r := bufio.NewReader(bytes.NewReader(body[len(magic):]))
	list := []manifest.Entry{}
	for {
		e, err := manifest.Read(r)
		if err == io.EOF {
			break
		}
		if err != nil {
			return c
		}
		list = append(list, e)
		if e.Kind == manifest.File {
			var v version
			if binary.Read(r, binary.LittleEndian, &v) != nil {
				return c
			}
			c.known[e.Path] = known{v, e.Digest, e.Xattrs}
		}
	}
	c.list, c.dirty = list, false
	return c
}

// put notes what a file is, unless it could change without anybody noticing.
func (c *cache) put(e *manifest.Entry, v version) {
	c.dirty = true
	if !v.settled(time.Now()) {
		v = version{} // no file's
	}
	c.known[e.Path] = known{v, e.Digest, e.Xattrs}
}

// learn takes over what a walk has found.
func (c *cache) learn(w *walked) {
	for i := range w.list {
		if e := &w.list[i]; e.Kind == manifest.File {
			if k, ok := c.known[e.Path]; !ok || k.version != w.stats[i] {
				c.put(e, w.stats[i])
			}
		}
	}
	c.dirty = c.dirty || !slices.EqualFunc(c.list, w.list, func(a, b manifest.Entry) bool { return a.Equal(&b) })
}

// save keeps what is known. A failure costs time at the next build and nothing
// else.
func (c *cache) save(list []manifest.Entry) {
	dir := home()
	if !c.dirty || dir == "" || os.MkdirAll(dir, 0o700) != nil {
		return
	}
	b := []byte(magic)
	for i := range list {
		b = list[i].Append(b)
		if list[i].Kind == manifest.File {
			b, _ = binary.Append(b, binary.LittleEndian, c.known[list[i].Path].version)
		}
	}
	sum := sha256.Sum256(b)
	f, err := os.CreateTemp(dir, "new-")
	if err != nil {
		return
	}
	_, err = f.Write(append(b, sum[:]...))
	if cerr := f.Close(); err != nil || cerr != nil || os.Rename(f.Name(), c.path()) != nil {
		_ = os.Remove(f.Name())
		return
	}
	c.dirty = false
	tidy(dir)
}

// tidy forgets the directories that were not sent for the longest time.
func tidy(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) <= kept+1 {
		return
	}
	type file struct {
		name string
		at   time.Time
	}
	var files []file
	for _, e := range entries {
		if info, err := e.Info(); err == nil && e.Name() != "secret" {
			files = append(files, file{e.Name(), info.ModTime()})
		}
	}
	slices.SortFunc(files, func(a, b file) int { return b.at.Compare(a.at) })
	for _, f := range files[min(kept, len(files)):] {
		_ = os.Remove(filepath.Join(dir, f.name))
	}
}
