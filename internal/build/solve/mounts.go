package solve

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"berth/internal/build/graph"
	"berth/internal/fault"
)

// mounts are the directories of cache mounts. What a step calls one is part of no
// path: a directory's name is a digest.
type mounts struct {
	dir string

	mu   sync.Mutex // guards what follows
	dirs map[string]*cacheDir
	wake chan struct{} // closed and made anew whenever one is let go
}

// cacheDir is one directory.
type cacheDir struct {
	name  string
	owner *mounts
	info  mountInfo
	users int
	alone bool // its user shares it with nobody
	ready chan struct{}
	err   error
}

// mountInfo is what is kept about a cache mount.
type mountInfo struct {
	ID       string
	Created  time.Time
	LastUsed time.Time
	Uses     int
}

func openMounts(dir string) (*mounts, error) {
	m := &mounts{dir: dir, dirs: map[string]*cacheDir{}, wake: make(chan struct{})}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		c := &cacheDir{name: e.Name(), owner: m, ready: make(chan struct{})}
		close(c.ready)
		data, err := os.ReadFile(filepath.Join(dir, c.name, "info.json"))
		if err != nil || json.Unmarshal(data, &c.info) != nil || !c.is(c.info.ID) {
			if err := removeAll(filepath.Join(dir, c.name)); err != nil && !errors.Is(err, unix.EROFS) { // made by half
				return nil, err
			}
			continue
		}
		m.dirs[c.name] = c
	}
	return m, nil
}

// nameOf returns the name of a mount's n-th directory.
func nameOf(id string, n int) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:16]) + "-" + strconv.Itoa(n)
}

func (c *cacheDir) is(id string) bool { return len(c.name) > 33 && c.name[:33] == nameOf(id, 0)[:33] }

func (c *cacheDir) path() string { return filepath.Join(c.owner.dir, c.name, "data") }

// acquire returns a directory for a mount, new or as the last step left it. Of
// locked ones it waits for its turn.
func (m *mounts) acquire(ctx context.Context, want *graph.Mount, seed func(dir string) error) (*cacheDir, error) {
	for {
		c, fresh, wait := m.take(want)
		if c == nil {
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		if fresh {
			c.err = c.make(want, seed)
			close(c.ready)
		}
		<-c.ready
		if c.err != nil {
			m.forget(c)
			return nil, c.err
		}
		return c, nil
	}
}

// take finds a directory that may be used now. fresh tells that the caller must
// make it. Without one, wait is closed when it is worth trying again.
func (m *mounts) take(want *graph.Mount) (c *cacheDir, fresh bool, wait chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for n := 0; ; n++ {
		name := nameOf(want.ID, n)
		c := m.dirs[name]
		if c == nil {
			c = &cacheDir{name: name, owner: m, ready: make(chan struct{})}
			m.dirs[name] = c
			fresh = true
		}
		alone := want.Sharing != graph.Shared
		if c.users > 0 && (alone || c.alone) {
			if want.Sharing == graph.Private {
				continue // the next one is free, or new
			}
			return nil, false, m.wake
		}
		c.users++
		c.alone = alone
		return c, fresh, nil
	}
}

// make makes a directory. It gets its name when it is complete.
func (c *cacheDir) make(want *graph.Mount, seed func(string) error) error {
	const op = "make cache mount"
	tmp := filepath.Join(c.owner.dir, "..", "tmp", c.name)
	_ = removeAll(tmp)
	data := filepath.Join(tmp, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return fault.Wrap(op, want.ID, err)
	}
	err := seed(data)
	if err == nil {
		err = os.Lchown(data, int(want.UID), int(want.GID))
	}
	if err == nil {
		mode := want.Mode
		if mode == 0 {
			mode = 0o755
		}
		err = unix.Chmod(data, mode&0o7777)
	}
	c.info = mountInfo{ID: want.ID, Created: time.Now(), LastUsed: time.Now()}
	if err == nil {
		err = c.save(tmp)
	}
	if err == nil {
		err = os.Rename(tmp, filepath.Join(c.owner.dir, c.name))
	}
	if err != nil {
		_ = removeAll(tmp)
	}
	return fault.Wrap(op, want.ID, err)
}

func (c *cacheDir) save(dir string) error {
	data, err := json.Marshal(c.info)
	if err != nil {
		return err
	}
	p := filepath.Join(dir, "info.json")
	if err := os.WriteFile(p+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(p+".new", p)
}

// release lets the next one have the directory.
func (c *cacheDir) release() {
	m := c.owner
	m.mu.Lock()
	defer m.mu.Unlock()
	c.info.LastUsed = time.Now()
	c.info.Uses++
	_ = c.save(filepath.Join(m.dir, c.name)) // only for accounting
	c.users--
	m.notify()
}

// notify wakes those who wait. The caller holds mu.
func (m *mounts) notify() {
	close(m.wake)
	m.wake = make(chan struct{})
}

// forget drops a directory that could not be made.
func (m *mounts) forget(c *cacheDir) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dirs[c.name] == c {
		delete(m.dirs, c.name)
	}
	m.notify()
}

// list returns what is known about all directories, and whether they are in use.
func (m *mounts) list() map[string]mountUse {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]mountUse{}
	for name, c := range m.dirs {
		select {
		case <-c.ready:
			out[name] = mountUse{c.info, c.users > 0}
		default:
		}
	}
	return out
}

type mountUse struct {
	mountInfo
	inUse bool
}

// remove deletes a directory that nobody uses and reports whether it did.
func (m *mounts) remove(name string) (bool, error) {
	m.mu.Lock()
	c := m.dirs[name]
	if c == nil || c.users > 0 {
		m.mu.Unlock()
		return false, nil
	}
	gone := filepath.Join(m.dir, "..", "tmp", "gone-"+name+"-"+strconv.FormatInt(time.Now().UnixNano(), 36))
	err := os.Rename(filepath.Join(m.dir, name), gone)
	if err == nil {
		delete(m.dirs, name)
	}
	m.mu.Unlock()
	if err != nil {
		return false, fault.Wrap("remove cache mount", c.info.ID, err)
	}
	return true, fault.Wrap("remove cache mount", c.info.ID, removeAll(gone))
}
