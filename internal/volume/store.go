package volume

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"berth/internal/fault"
	"berth/internal/metadata"

	"golang.org/x/sys/unix"
)

// DriverLocal is the only volume driver: a directory below the data root.
const DriverLocal = "local"

// Volume is one named or anonymous volume.
type Volume struct {
	Name      string
	Created   time.Time
	Labels    map[string]string `json:",omitempty"`
	Anonymous bool              `json:",omitempty"`
	Options   map[string]string `json:",omitempty"` // type, device and o: what is mounted in its place; or size
}

// Elsewhere reports whether the volume's files are not in the data directory.
func (v Volume) Elsewhere() bool { return v.Options["type"] != "" }

// Store keeps the volumes of one engine. A volume exists when its record does;
// directories without a record are what a crash left behind.
type Store struct {
	dir     string
	records metadata.Bucket[Volume]

	mu      sync.Mutex // guards the rest and the making of directories
	byName  map[string]Volume
	pending map[string]int  // creates under way that will use a volume
	doomed  map[string]bool // removals under way
	mounts  map[string]*mounted
}

// Open reads the volumes and sweeps directories which belong to none.
func Open(db *metadata.DB, dir string) (*Store, error) {
	s := &Store{dir: dir, records: metadata.NewBucket[Volume]("volumes"), byName: make(map[string]Volume),
		pending: make(map[string]int), doomed: make(map[string]bool),
		mounts: make(map[string]*mounted)}
	if err := os.MkdirAll(dir, 0o701); err != nil {
		return nil, fault.Wrap("open volume store", dir, err)
	}
	err := db.View(func(tx *metadata.Tx) error {
		bad, err := s.records.ForEach(tx, func(key string, v Volume) error {
			s.byName[key] = v
			return nil
		})
		for _, b := range bad {
			// Unreadable, but its data must not be swept.
			s.byName[b.Key] = Volume{Name: b.Key}
		}
		return err
	})
	if err != nil {
		return nil, fault.Wrap("open volume store", dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fault.Wrap("open volume store", dir, err)
	}
	for _, e := range entries {
		if _, known := s.byName[e.Name()]; !known {
			left := filepath.Join(dir, e.Name())
			err := clearPlace(left)
			if err == nil {
				err = os.RemoveAll(left)
			}
			if err != nil && !errors.Is(err, syscall.EROFS) {
				return nil, fault.Wrap("sweep volume", e.Name(), err)
			}
		}
	}
	return s, nil
}

// Path returns where the volume's files are.
func (s *Store) Path(name string) string { return filepath.Join(s.dir, name, "_data") }

// Get returns a volume by name.
func (s *Store) Get(name string) (Volume, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.byName[name]
	return v, ok
}

// List returns all volumes by name.
func (s *Store) List() []Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.byName), func(a, b Volume) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
}

// Make makes the directory of a volume. It reports whether the volume is new:
// then its record must be saved with Put in the transaction that saves whoever
// uses it, or Drop called. Until Settle is called for it, the volume can't be
// removed.
func (s *Store) Make(v Volume) (fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doomed[v.Name] {
		return false, fault.New(fault.Conflict, "", "", "volume %s is being removed", v.Name)
	}
	_, known := s.byName[v.Name]
	if err := os.Mkdir(filepath.Join(s.dir, v.Name), 0o701); err != nil && !errors.Is(err, fs.ErrExist) {
		return false, fault.Wrap("create volume", v.Name, classify(err))
	}
	// The default of umask must not decide who may use a volume.
	err = os.Mkdir(s.Path(v.Name), 0o755)
	if err == nil {
		err = os.Chmod(s.Path(v.Name), 0o755)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return false, fault.Wrap("create volume", v.Name, classify(err))
	}
	if !known {
		if err := s.bound(v); err != nil {
			dir := filepath.Join(s.dir, v.Name)
			return false, errors.Join(err, clearPlace(dir), os.RemoveAll(dir))
		}
		s.byName[v.Name] = v
	}
	s.pending[v.Name]++
	return !known, nil
}

// Settle takes back the claims that one Make each has left: who uses the volumes
// is known by now, or nobody does.
func (s *Store) Settle(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range names {
		if s.pending[n]--; s.pending[n] <= 0 {
			delete(s.pending, n)
		}
	}
}

// Doom begins the removal of a volume: until Drop or Spare, nobody can start to
// use it. It reports false when somebody is about to.
func (s *Store) Doom(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending[name] > 0 || s.doomed[name] {
		return false
	}
	s.doomed[name] = true
	return true
}

// Spare ends a removal that does not take place.
func (s *Store) Spare(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.doomed, name)
}

// Put saves the records of new volumes.
func (s *Store) Put(tx *metadata.Tx, volumes []Volume) error {
	for _, v := range volumes {
		if err := s.records.Put(tx, v.Name, v); err != nil {
			return err
		}
	}
	return nil
}

// Delete removes the records of volumes; Drop then removes their data.
func (s *Store) Delete(tx *metadata.Tx, names []string) error {
	for _, n := range names {
		if err := s.records.Delete(tx, n); err != nil {
			return err
		}
	}
	return nil
}

// Drop forgets volumes and removes their data, which is out of sight at once.
func (s *Store) Drop(names ...string) error {
	var errs []error
	for _, n := range names {
		gone, err := s.takeAway(n)
		if err == nil {
			err = os.RemoveAll(gone)
		}
		if err != nil {
			errs = append(errs, fault.Wrap("remove volume", n, err))
		}
	}
	return errors.Join(errs...)
}

// takeAway forgets a volume and moves its directory to a name that no volume can
// have, where the next Open finds what is left of it.
func (s *Store) takeAway(name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byName, name)
	delete(s.doomed, name)
	delete(s.mounts, name)
	dir := filepath.Join(s.dir, name)
	if err := clearPlace(dir); err != nil {
		return "", err
	}
	gone, err := os.MkdirTemp(s.dir, ".gone-")
	if err != nil {
		return "", err
	}
	if err := os.Rename(dir, filepath.Join(gone, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return gone, nil
}

// OpenDir opens the directory of a volume, or one at a path in it, which the kernel
// resolves with the volume as its root.
func (s *Store) OpenDir(name, subpath string) (*os.File, error) {
	base, err := os.Open(s.Path(name))
	if err != nil || subpath == "" {
		return base, fault.Wrap("open volume", name, err)
	}
	defer base.Close()
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(int(base.Fd()), subpath, &how)
	for try := 0; (err == unix.EAGAIN || err == unix.EINTR) && try < 128; try++ {
		fd, err = unix.Openat2(int(base.Fd()), subpath, &how)
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, fault.New(fault.NotFound, "open volume", name, "cannot access path %s: %w", subpath, err)
	}
	if err != nil {
		return nil, fault.New(fault.Internal, "open volume", name, "%s: %w", subpath, err)
	}
	return os.NewFile(uintptr(fd), subpath), nil
}

// empty reports whether a directory holds nothing.
func empty(d *os.File) (bool, error) {
	names, err := d.Readdirnames(1)
	if len(names) == 0 && errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// PrepareSource makes sure that the source of a bind exists.
func PrepareSource(m Mount) error {
	_, err := os.Stat(m.Source)
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.Invalid, "", "", "bind source path %s: %v", m.Source, err)
	case !m.CreateSource:
		return fault.New(fault.Invalid, "", "", `invalid mount config for type "bind": bind source path does not exist: %s`, m.Source)
	}
	if err := os.MkdirAll(m.Source, 0o755); err != nil {
		return fault.New(fault.Invalid, "", "", "error while creating mount source path '%s': %v", m.Source, err)
	}
	return nil
}

// classify names the kind of a file system error.
func classify(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fault.New(fault.Exhausted, "", "", "%w", err)
	}
	return fmt.Errorf("%w", err)
}

// hasSELinux reports whether the kernel enforces or could enforce SELinux labels.
func hasSELinux() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}
