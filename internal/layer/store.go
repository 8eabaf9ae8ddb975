// Package layer turns hostile tar streams into file trees that overlayfs can
// stack, and gives each container its writable layer. It exists so that the
// rules about what an archive may do to a host are in one place.
//
// On disk, below the engine's data root:
//
//	layers/<hex of diffID>/tree         the files, whiteouts in overlayfs' form
//	layers/<hex of diffID>/layer.json   sizes, for accounting
//	layers/<hex of diffID>/tar.rec      what of the tar is not in the tree
//	layers/<hex of diffID>/lost         what the tar itself replaced; rare
//	layers/.empty                       what an image without layers is made of
//	layers/.tmp, layers/.trash          being made, being removed; swept at Open
//	containers/<id>/{upper,work,lower}  writable layers; lower lists the diffIDs
//
// A layer is unpacked alone, without the ones below it, so layers unpack in
// parallel and one tree serves every image that has it.
package layer

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/internal/fault"
)

// Layer describes one unpacked layer.
type Layer struct {
	DiffID  digest.Digest `json:"diffID"`  // digest of the uncompressed tar
	Size    int64         `json:"size"`    // sum of the files' sizes, bytes; hard links count once
	Disk    int64         `json:"disk"`    // space taken in blocks of 4 KiB, bytes; an estimate
	Entries int64         `json:"entries"` // entries of the tar
	// RootEntry tells that the tar said what the root directory's owner and
	// mode are; the topmost layer that does decides.
	RootEntry bool `json:"rootEntry,omitempty"`
	// RootOpaque tells that the layer hides everything below it. The kernel
	// does not look for that at the root, so Lower ends with such a layer.
	RootOpaque bool `json:"rootOpaque,omitempty"`
	// SkippedXattrs counts attributes that the file system does not take.
	SkippedXattrs int `json:"skippedXattrs,omitempty"`
	// Exact tells that Export can write the tar again, byte for byte. Where it
	// cannot, and says why in Inexact, whoever wants to send the layer must
	// keep it as it came. A layer unpacked before there were records is neither.
	Exact   bool   `json:"exact,omitempty"`
	Inexact string `json:"inexact,omitempty"`
	// Replaced tells what of its own entries the tar replaced by others, which
	// is what Verify cannot compare.
	Replaced Replaced `json:"replaced,omitempty"`
}

// Replaced tells what a tar replaced of its own.
type Replaced int

// In the order of how much they spoil.
const (
	ReplacedNothing Replaced = iota
	ReplacedFiles            // files and devices, also by each other
	ReplacedPaths            // directories or symlinks, so that paths changed their meaning
)

// Store holds unpacked layers and the containers' writable layers. It is safe
// for concurrent use.
type Store struct {
	layers     string // directory
	containers string // directory
	limits     Limits
	trash      *trash
	seq        atomic.Int64

	mu      sync.Mutex // guards the maps and what their values point to
	known   map[digest.Digest]*entry
	refs    map[digest.Digest]int      // holds and containers, also of layers that are not there yet
	inUseBy map[string][]digest.Digest // container id -> its layers
	owners  []func(digest.Digest) bool // see AddOwner; only ever appended to
}

// entry is what is in memory about a layer. Fields are filled on demand.
type entry struct {
	record *Layer
	root   *rootAttrs
	taken  uint64 // counts the references ever made
}

// Open opens the store below root, the engine's data root. What an interrupted
// unpacking or removal left is removed in the background.
func Open(root string, limits Limits) (*Store, error) {
	s := &Store{
		layers:     filepath.Join(root, "layers"),
		containers: filepath.Join(root, "containers"),
		limits:     limits.withDefaults(),
		known:      map[digest.Digest]*entry{},
		refs:       map[digest.Digest]int{},
		inUseBy:    map[string][]digest.Digest{},
	}
	for _, d := range []string{s.layers, s.containers, filepath.Join(s.layers, ".trash")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fault.Wrap("open layer store", root, err)
		}
	}
	s.trash = newTrash(filepath.Join(s.layers, ".trash"))
	err := s.discard(filepath.Join(s.layers, ".tmp"))
	if err == nil {
		err = os.Mkdir(filepath.Join(s.layers, ".tmp"), 0o700)
	}
	// A store on a read-only file system can be read.
	if err != nil && !errors.Is(err, syscall.EROFS) {
		return nil, fault.Wrap("open layer store", root, err)
	}
	if err := os.Mkdir(filepath.Join(s.layers, ".empty"), 0o755); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.EROFS) {
		return nil, fault.Wrap("open layer store", root, err)
	}
	spread(filepath.Join(s.layers, ".tmp"))
	spread(s.containers)
	if err := s.scan(); err != nil {
		return nil, fault.Wrap("open layer store", root, err)
	}
	s.trash.sweep()
	return s, nil
}

// scan learns which layers and which containers' references are there.
func (s *Store) scan() error {
	entries, err := os.ReadDir(s.layers)
	if err != nil {
		return err
	}
	for _, e := range entries {
		d := digest.NewDigestFromEncoded(digest.SHA256, e.Name())
		if e.IsDir() && checkDigest(d) == nil {
			s.known[d] = &entry{}
		}
	}
	if entries, err = os.ReadDir(s.containers); err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || checkID(e.Name()) != nil {
			continue
		}
		lower, err := s.readUsed(e.Name())
		if err != nil {
			continue // made by halves: its container was never acknowledged
		}
		s.inUseBy[e.Name()] = lower
		for _, d := range lower {
			s.ref(d)
		}
	}
	return nil
}

// Close stops removals in the background at once; the next Open goes on with them.
func (s *Store) Close() error {
	s.trash.stop()
	return nil
}

// Flush waits until everything removed so far has left the disk.
func (s *Store) Flush() { s.trash.flush() }

// discard takes a directory out of sight with one rename and removes it in the
// background. A missing one is no error.
func (s *Store) discard(dir string) error {
	to := filepath.Join(s.layers, ".trash", s.unique())
	err := os.Rename(dir, to)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return new(remover).layer(dir) // another file system
	}
	s.trash.add(to)
	return nil
}

// unique returns a name that no earlier process used in the same directory.
func (s *Store) unique() string {
	return strconv.FormatInt(time.Now().UnixNano(), 36) + "-" + strconv.FormatInt(int64(os.Getpid()), 36) + "-" +
		strconv.FormatInt(s.seq.Add(1), 36)
}

// checkDigest reports whether a layer's id, which comes from a hostile
// document, is a sha256 digest and can be a file name.
func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
		return fault.New(fault.Invalid, "check layer id", quote(string(d)), "not a sha256 digest")
	}
	return nil
}

func (s *Store) dir(d digest.Digest) string { return filepath.Join(s.layers, d.Encoded()) }

// Limits returns the limits that the store was opened with.
func (s *Store) Limits() Limits { return s.limits }

// Has reports whether the layer is there, whole.
func (s *Store) Has(diffID digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[diffID] != nil
}

// List returns the diffIDs of all layers, in no order.
func (s *Store) List() []digest.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]digest.Digest, 0, len(s.known))
	for d := range s.known {
		all = append(all, d)
	}
	return all
}

// Stat returns what is recorded about a layer, or fault.NotFound.
func (s *Store) Stat(diffID digest.Digest) (Layer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.record(diffID)
	if err != nil {
		return Layer{}, err
	}
	return *r, nil
}

// record returns a layer's record. The caller holds mu.
func (s *Store) record(diffID digest.Digest) (*Layer, error) {
	e := s.known[diffID]
	if e == nil {
		return nil, missing(diffID)
	}
	if e.record == nil {
		data, err := os.ReadFile(filepath.Join(s.dir(diffID), "layer.json"))
		if err != nil {
			return nil, fault.Wrap("read layer", diffID.String(), err)
		}
		r := &Layer{}
		if err := json.Unmarshal(data, r); err != nil {
			return nil, fault.Wrap("read layer", diffID.String(), err)
		}
		e.record = r
	}
	return e.record, nil
}

func missing(diffID digest.Digest) error {
	return fault.New(fault.NotFound, "find layer", diffID.String(), "no such layer").
		WithHint("pull or load the image again")
}

// Tree returns the directory with the layer's files, or fault.NotFound.
func (s *Store) Tree(diffID digest.Digest) (string, error) {
	if !s.Has(diffID) {
		return "", missing(diffID)
	}
	return filepath.Join(s.dir(diffID), "tree"), nil
}
