package solve

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"berth/internal/metadata"
)

// Record is what is known about a step that was run.
type Record struct {
	Key    string
	Kind   string          // "exec", "file", "git", "http"
	Layers []digest.Digest // the whole stack, base first
	Made   digest.Digest   `json:",omitempty"` // the layer that the step added; "" when it changed nothing
	Size   int64           // bytes on disk of Made
	Name   string
	Text   string
	Slot   string // project, stage and place of the step
	Parts  []Part // what Key is made of
	// Base is name and id of the base image that the step stands on, "" if there is
	// another step below it. It is no part of Key: the image's files are.
	Base string `json:",omitempty"`
	// ETag and the like, of what was fetched.
	Note string `json:",omitempty"`

	Created  time.Time
	LastUsed time.Time
	Took     time.Duration
	Uses     int
	// From is the cache elsewhere that the record is from, "" for what was run
	// here. Only builds that name that cache believe it.
	From string `json:",omitempty"`
	// Packed is the blob that Made was last sent or fetched as, if it was, and
	// PackedAt the repository that has it.
	Packed   *ocispec.Descriptor `json:",omitempty"`
	PackedAt string              `json:",omitempty"`
	// Boot is set until everything is known to be on disk: after a power cut
	// a record of another boot may name files that never got there.
	Boot string `json:",omitempty"`
}

// id names a record among all: the same step may be known from here and from
// other places.
func (r *Record) id() string { return recordID(r.Key, r.From) }

func recordID(key, from string) string {
	if from == "" {
		return key
	}
	return key + "." + digest.FromString(from).Encoded()[:16]
}

// Part is one of the things that make a step what it is.
type Part struct {
	Name  string
	Value string
}

var (
	records = metadata.NewBucket[Record]("build-steps")
	digests = metadata.NewBucket[digest.Digest]("build-digests")
)

// maxDigests bounds how many digests of selections are kept.
const maxDigests = 20000

// load reads the records of the database and those that were finished since.
func (s *Solver) load() error {
	err := s.o.DB.View(func(tx *metadata.Tx) error {
		bad, err := records.ForEach(tx, func(_ string, r Record) error {
			s.add(&r)
			return nil
		})
		for _, b := range bad {
			s.log.Warn("build cache record cannot be read", "key", b.Key, "error", b.Err)
		}
		if err != nil {
			return err
		}
		_, err = digests.ForEach(tx, func(key string, d digest.Digest) error {
			s.digests[key] = d
			return nil
		})
		return err
	})
	if err != nil {
		return err
	}
	dir := filepath.Join(s.o.Dir, "fresh")
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		p := filepath.Join(dir, f.Name())
		var r Record
		data, err := os.ReadFile(p)
		if err != nil || json.Unmarshal(data, &r) != nil || r.id()+".json" != f.Name() || r.Boot != s.boot {
			_ = os.Remove(p) // half written, or of before a power cut
			continue
		}
		s.add(&r)
		s.newer[r.id()] = true
	}
	return nil
}

// add takes a record into memory. The caller holds mu or is alone.
func (s *Solver) add(r *Record) {
	s.drop(r.id())
	s.records[r.id()] = r
	s.bySlot[r.Slot] = append(s.bySlot[r.Slot], r)
	if r.Made != "" {
		s.uses[r.Made]++
	}
}

// drop removes a record from memory. The caller holds mu.
func (s *Solver) drop(id string) {
	r := s.records[id]
	if r == nil {
		return
	}
	delete(s.records, id)
	s.bySlot[r.Slot] = slices.DeleteFunc(s.bySlot[r.Slot], func(x *Record) bool { return x == r })
	if len(s.bySlot[r.Slot]) == 0 {
		delete(s.bySlot, r.Slot)
	}
	if r.Made != "" {
		if s.uses[r.Made]--; s.uses[r.Made] <= 0 {
			delete(s.uses, r.Made)
		}
	}
}

// find returns a record and notes that it is used.
func (s *Solver) find(id string) *Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.records[id]
	if r == nil {
		return nil
	}
	r.LastUsed = time.Now()
	r.Uses++
	s.newer[id] = true
	c := *r
	return &c
}

// finish records a step. Its layer must be held. The record survives the end of
// this process at once, and a power cut after the next commit.
func (s *Solver) finish(r *Record) error {
	r.Created, r.LastUsed, r.Boot = time.Now(), time.Now(), s.boot
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := s.keepFresh(r.Key+".json", data); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(r)
	s.newer[r.Key] = true
	return nil
}

// keepFresh writes a record's file. Builds that must not use the cache may record
// the same step at the same time, so each writes to a file of its own first.
func (s *Solver) keepFresh(name string, data []byte) error {
	dir := filepath.Join(s.o.Dir, "fresh")
	f, err := os.CreateTemp(dir, name+".new-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// usesLate is for how long only memory may know that records were used: a commit
// waits for the disk, and a build that is cached throughout need not.
const usesLate = 10 * time.Minute

// settle commits what was made, and now and then what was only used.
func (s *Solver) settle() error {
	s.mu.Lock()
	made := len(s.fresh) > 0 || time.Since(s.committed) > usesLate
	for key := range s.newer {
		if made {
			break
		}
		r := s.records[key]
		made = r != nil && r.Boot != ""
	}
	s.mu.Unlock()
	if !made {
		return nil
	}
	return s.commit()
}

// commit brings to the database what is newer in memory: files first, then the
// records that name them.
func (s *Solver) commit() error {
	s.mu.Lock()
	s.committed = time.Now()
	var batch []Record
	unsynced := false
	for key := range s.newer {
		if r := s.records[key]; r != nil {
			c := *r
			unsynced = unsynced || c.Boot != ""
			batch = append(batch, c)
		}
	}
	memo := s.digests
	if len(memo) > maxDigests {
		clear(memo)
	}
	clear(s.newer)
	dirty := s.takeDigests()
	s.mu.Unlock()
	if len(batch) == 0 && len(dirty) == 0 {
		return nil
	}
	if unsynced {
		if err := syncDir(s.o.Dir); err != nil {
			return err
		}
	}
	err := s.o.DB.Update(func(tx *metadata.Tx) error {
		for i := range batch {
			r := batch[i]
			r.Boot = ""
			if err := records.Put(tx, r.id(), r); err != nil {
				return err
			}
		}
		for k, d := range dirty {
			if err := digests.Put(tx, k, d); err != nil {
				return err
			}
		}
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range batch {
		key := batch[i].id()
		if err != nil {
			s.newer[key] = true
			continue
		}
		if r := s.records[key]; r != nil {
			r.Boot = ""
		}
		if batch[i].Boot != "" {
			_ = os.Remove(filepath.Join(s.o.Dir, "fresh", key+".json"))
		}
	}
	return err
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// forget removes records for good and returns the layers that they made.
func (s *Solver) forget(keys []string) ([]digest.Digest, error) {
	var layers []digest.Digest
	s.mu.Lock()
	for _, key := range keys {
		if r := s.records[key]; r != nil && r.Made != "" {
			layers = append(layers, r.Made)
		}
		s.drop(key)
		delete(s.newer, key)
	}
	s.mu.Unlock()
	for _, key := range keys {
		if err := os.Remove(filepath.Join(s.o.Dir, "fresh", key+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return layers, err
		}
	}
	return layers, s.o.DB.Update(func(tx *metadata.Tx) error {
		for _, key := range keys {
			if err := records.Delete(tx, key); err != nil {
				return err
			}
		}
		return nil
	})
}

// sequence makes names that no earlier process used either.
type sequence struct{ n atomic.Int64 }

func (q *sequence) next() string {
	return strings.ToLower(strconv.FormatInt(time.Now().UnixNano(), 36)) + strconv.FormatInt(q.n.Add(1), 36)
}

// remember keeps the digest of a selection from a stack.
func (s *Solver) remember(key string, d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.digests[key] = d
	s.fresh = append(s.fresh, key)
}

func (s *Solver) remembered(key string) (digest.Digest, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.digests[key]
	return d, ok
}

// takeDigests returns what was remembered since the last time. The caller holds
// mu.
func (s *Solver) takeDigests() map[string]digest.Digest {
	out := map[string]digest.Digest{}
	for _, k := range s.fresh {
		if d, ok := s.digests[k]; ok {
			out[k] = d
		}
	}
	s.fresh = nil
	return out
}
