package layer

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
	"berth/internal/quota"
)

// MaxLower is how many directories the kernel stacks in one overlay.
const MaxLower = 500

// Lower returns the directories of an image's layers for overlayfs, top first.
// diffIDs are base first, as in config.rootfs. A layer that occurs twice is
// listed only where it is topmost, which gives the same files and is the only
// form the kernel accepts. An image without layers gets one empty directory.
func (s *Store) Lower(diffIDs []digest.Digest) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dirs := make([]string, 0, max(len(diffIDs), 1))
	seen := make(map[digest.Digest]bool, len(diffIDs))
	for i := len(diffIDs) - 1; i >= 0; i-- {
		d := diffIDs[i]
		if seen[d] {
			continue
		}
		seen[d] = true
		r, err := s.record(d)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, s.layers+"/"+d.Encoded()+"/tree")
		if r.RootOpaque {
			break
		}
	}
	if len(dirs) > MaxLower {
		return nil, fault.New(fault.Unsupported, "stack layers", "", "the image has %d layers and the kernel stacks at most %d", len(dirs), MaxLower).
			WithHint("flatten the image: berth import of its exported file system")
	}
	if len(dirs) == 0 {
		dirs = append(dirs, filepath.Join(s.layers, ".empty"))
	}
	return dirs, nil
}

// checkID reports whether a container id can be a file name.
func checkID(id string) error {
	ok := id != "" && len(id) <= 128 && id[0] != '.'
	for i := 0; ok && i < len(id); i++ {
		c := id[i]
		ok = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
	}
	if !ok {
		return fault.New(fault.Invalid, "check container id", quote(id), "not a container id")
	}
	return nil
}

// Writable makes containers/<id>/{upper,work} for a container over the given
// layers (base first) and returns the two paths. As long as it exists the
// layers stay, even when their image is removed, and so do those in also, which
// the container uses elsewhere; a layer that is gone already is fault.NotFound.
// Calling it again returns the same directories.
func (s *Store) Writable(containerID string, diffIDs []digest.Digest, also ...digest.Digest) (upper, work string, err error) {
	const op = "make writable layer"
	if err := checkID(containerID); err != nil {
		return "", "", err
	}
	dir := s.containers + "/" + containerID
	upper, work = dir+"/upper", dir+"/work"

	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.inUseBy[containerID]; ok {
		if fi, err := os.Lstat(work); err == nil && fi.IsDir() {
			return upper, work, nil
		}
	}
	attrs, err := s.rootOf(diffIDs)
	if err != nil {
		return "", "", err
	}
	for _, d := range also {
		if s.known[d] == nil {
			return "", "", missing(d)
		}
	}
	used := slices.Concat(diffIDs, also)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", "", fault.Wrap(op, containerID, err)
	}
	if err := s.writeUsed(containerID, used); err != nil {
		return "", "", fault.Wrap(op, containerID, err)
	}
	if err := makeDir(upper, attrs); err != nil {
		return "", "", fault.Wrap(op, containerID, err)
	}
	if err := makeDir(work, &rootAttrs{mode: 0o700}); err != nil {
		return "", "", fault.Wrap(op, containerID, err)
	}
	if _, ok := s.inUseBy[containerID]; !ok {
		s.inUseBy[containerID] = used
		for _, d := range used {
			s.ref(d)
		}
	}
	return upper, work, nil
}

// Bound keeps what is in a container's writable layer below size bytes; 0 leaves it
// as it is. The first time, the container does not run; again, it costs little.
func (s *Store) Bound(containerID string, size int64) error {
	return s.bound(containerID, size, 0)
}

// mountRoom is what a writable layer may take beyond its limit while it is being
// mounted, in bytes: overlayfs makes directories of its own, and one that finds no
// room for them mounts read-only; the container's mount points are made, too.
const mountRoom = 256 << 10

// BoundForMount is Bound for a layer that is about to be mounted, which takes some
// room even where none is left. Bound must follow when it is.
func (s *Store) BoundForMount(containerID string, size int64) error {
	return s.bound(containerID, size, mountRoom)
}

func (s *Store) bound(containerID string, size, room int64) error {
	if size == 0 {
		return nil
	}
	if err := checkID(containerID); err != nil {
		return err
	}
	dir := s.containers + "/" + containerID
	return quota.Set(size, room, dir+"/work", dir+"/upper")
}

// CanBound returns why writable layers can have no limits, or nil.
func (s *Store) CanBound() error { return quota.Possible(s.containers) }

// rootAttrs is what a writable layer's root takes over: in an overlay the root
// directory's owner, mode and attributes are those of the upper layer.
type rootAttrs struct {
	mode     uint32 // permission bits
	uid, gid int
	xattrs   map[string][]byte
}

// rootOf returns the attributes for the root above the given layers: those of
// the topmost layer whose archive had an entry for its root. The caller holds
// mu. Each layer must be there.
func (s *Store) rootOf(diffIDs []digest.Digest) (*rootAttrs, error) {
	for _, d := range diffIDs {
		if s.known[d] == nil {
			return nil, missing(d)
		}
	}
	for i := len(diffIDs) - 1; i >= 0; i-- {
		r, err := s.record(diffIDs[i])
		if err != nil {
			return nil, err
		}
		if !r.RootEntry {
			continue
		}
		e := s.known[diffIDs[i]]
		if e.root == nil {
			if e.root, err = readRoot(filepath.Join(s.dir(diffIDs[i]), "tree")); err != nil {
				return nil, fault.Wrap("read layer", diffIDs[i].String(), err)
			}
		}
		return e.root, nil
	}
	return &rootAttrs{mode: 0o755}, nil
}

func readRoot(tree string) (*rootAttrs, error) {
	var st unix.Stat_t
	if err := unix.Lstat(tree, &st); err != nil {
		return nil, err
	}
	xattrs, err := readXattrs(tree)
	if err != nil {
		return nil, err
	}
	for name := range xattrs {
		if strings.HasPrefix(name, overlayXattr) {
			delete(xattrs, name)
		}
	}
	return &rootAttrs{mode: st.Mode & 0o7777, uid: int(st.Uid), gid: int(st.Gid), xattrs: xattrs}, nil
}

// makeDir makes a directory with exactly the given attributes, whatever the
// process's umask is.
func makeDir(path string, a *rootAttrs) error {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if a.uid != 0 || a.gid != 0 {
		if err := os.Lchown(path, a.uid, a.gid); err != nil {
			return err
		}
	}
	if a.mode != 0o700 {
		if err := syscall.Chmod(path, a.mode); err != nil {
			return err
		}
	}
	for name, value := range a.xattrs {
		if err := unix.Lsetxattr(path, name, value, 0); err != nil && !xattrRefused(name, err) {
			return err
		}
	}
	return nil
}

// The file lower holds the hex digits of all layers that a container uses, one a
// line.
func (s *Store) writeUsed(containerID string, diffIDs []digest.Digest) error {
	var b strings.Builder
	for _, d := range diffIDs {
		b.WriteString(d.Encoded())
		b.WriteByte('\n')
	}
	return os.WriteFile(s.containers+"/"+containerID+"/lower", []byte(b.String()), 0o600)
}

func (s *Store) readUsed(containerID string) ([]digest.Digest, error) {
	data, err := os.ReadFile(s.containers + "/" + containerID + "/lower")
	if err != nil {
		return nil, err
	}
	var lower []digest.Digest
	for line := range strings.Lines(string(data)) {
		d := digest.NewDigestFromEncoded(digest.SHA256, strings.TrimSuffix(line, "\n"))
		if err := checkDigest(d); err != nil {
			return nil, err
		}
		lower = append(lower, d)
	}
	return lower, nil
}

// RemoveWritable removes containers/<id> with everything in it, whoever put it
// there; a missing one is no error. It is out of sight when RemoveWritable
// returns; the files go in the background.
func (s *Store) RemoveWritable(containerID string) error {
	if err := checkID(containerID); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.discard(s.containers + "/" + containerID); err != nil {
		return fault.Wrap("remove writable layer", containerID, err)
	}
	for _, d := range s.inUseBy[containerID] {
		s.unref(d)
	}
	delete(s.inUseBy, containerID)
	return nil
}

// Writables lists the ids that have a directory under containers/, whole or
// not: what of them is no container's can be given to RemoveWritable.
func (s *Store) Writables() ([]string, error) {
	entries, err := os.ReadDir(s.containers)
	if err != nil {
		return nil, fault.Wrap("list writable layers", s.containers, err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && checkID(e.Name()) == nil {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// WritableSize returns the sizes of the files in the container's writable
// layer, summed, in bytes; hard links count once.
func (s *Store) WritableSize(containerID string) (int64, error) {
	if err := checkID(containerID); err != nil {
		return 0, err
	}
	size, err := treeSize(s.containers + "/" + containerID + "/upper")
	return size, fault.Wrap("measure writable layer", containerID, err)
}

// treeSize sums the regular files below dir. Files that vanish while it looks
// count as nothing: a running container may be writing there.
func treeSize(dir string) (int64, error) {
	type inode struct{ dev, ino uint64 }
	linked := map[inode]bool{}
	var total int64
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && path != dir {
				return nil
			}
			return err
		}
		if !e.Type().IsRegular() {
			return nil
		}
		fi, err := e.Info()
		if err != nil {
			return nil
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			i := inode{uint64(st.Dev), st.Ino}
			if linked[i] {
				return nil
			}
			linked[i] = true
		}
		total += fi.Size()
		return nil
	})
	return total, err
}
