package source

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"berth/internal/build/tree"
	"berth/internal/fault"
	"berth/internal/wire/manifest"
)

// received are the directories that clients elsewhere have sent. Each stays, so
// that the next time only what changed has to come:
//
//	received/<owner>-<slot>-<n>/tree/      the files
//	received/<owner>-<slot>-<n>/list       what the last complete sync made of it
//	received/<owner>-<slot>-<n>/info.json  for the accounts
//
// owner is the digest of a secret that the client keeps, slot that of what it
// calls its directory. Contents are looked for among one owner's directories only:
// who knows the digest of somebody else's file gets nothing for it, and does not
// learn whether it is here. Builds of one directory at the same time have a copy
// each. What is in a tree is believed only as far as the digests of its files
// say, so it does not matter when a sync ends in the middle.
type received struct {
	store *Store
	dir   string
	boot  string

	mu      sync.Mutex // guards what follows
	mirrors map[string]*mirror
	waiting map[string]*Incoming
}

// mirror is one of them.
type mirror struct {
	name string
	busy bool // guarded by received.mu
	info mirrorInfo
}

// mirrorInfo is what is kept about it.
type mirrorInfo struct {
	Name     string // as people call the directory
	Size     int64  // bytes
	Created  time.Time
	LastUsed time.Time
	Uses     int
	Boot     string // times of files tell nothing about contents that an earlier boot may have lost
}

func openReceived(s *Store) (*received, error) {
	r := &received{store: s, dir: filepath.Join(s.dir, "received"), mirrors: map[string]*mirror{}, waiting: map[string]*Incoming{}}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err == nil {
		r.boot = strings.TrimSpace(string(boot))
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return nil, err
	}
	list, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		m := &mirror{name: e.Name()}
		data, err := os.ReadFile(filepath.Join(r.dir, m.name, "info.json"))
		if err != nil || json.Unmarshal(data, &m.info) != nil {
			_ = os.RemoveAll(filepath.Join(r.dir, m.name)) // made by half
			continue
		}
		r.mirrors[m.name] = m
	}
	return r, nil
}

// Sent is what a client says that it has.
type Sent struct {
	Key  string // secret of the client
	Slot string // what it calls the directory to itself
	Name string // what people call it
	Once bool   // the secret is not used again: nothing is kept after the build
	// Entries are all that is there, or with Base the changes since the list of
	// that sum. Sum is that of the whole list.
	Base    *[32]byte
	Sum     [32]byte
	Entries []manifest.Entry
}

// ErrUnknownBase says that changes are of no use: the whole list is needed.
var ErrUnknownBase = errors.New("the list that changed is not here")

// minKey is how long a secret must be.
const minKey = 32

// maxWaiting bounds how many contexts wait for their builds, of all clients.
const maxWaiting = 256

// patience is how long a context waits for its build.
const patience = 5 * time.Minute

// Incoming is a context that is on its way. Who gets it must Release it.
type Incoming struct {
	ID string // names it, for whoever began it
	// Missing are the positions in the list of the files that must come.
	Missing []int

	r       *received
	m       *mirror
	list    []manifest.Entry
	sums    *Sums
	tree    *tree.Mirror
	timer   *time.Timer
	changed bool
	once    bool // it goes with the build
	release sync.Once
}

// Receive begins to take over a directory of a client. What it lacks is to be
// given to Fill; until that begins the context is known by its ID.
func (s *Store) Receive(ctx context.Context, sent Sent) (*Incoming, error) {
	const op = "receive build context"
	if len(sent.Key) < minKey {
		return nil, fault.New(fault.Invalid, op, sent.Name, "the client's key is too short")
	}
	r := s.received
	owner, slot := part("owner", sent.Key), part("slot", sent.Slot)
	list := sent.Entries
	var base []byte
	if sent.Base != nil {
		var err error
		if base, err = r.base(owner+"-"+slot, *sent.Base); err != nil {
			return nil, err
		}
		before, err := manifest.ReadAll(bufio.NewReader(bytes.NewReader(base)))
		if err != nil {
			return nil, ErrUnknownBase
		}
		list = manifest.Apply(before, sent.Entries)
	}
	if manifest.Sum(list) != sent.Sum {
		if base != nil {
			return nil, ErrUnknownBase
		}
		return nil, fault.New(fault.Invalid, op, sent.Name, "the list of files was damaged on its way")
	}
	if err := manifest.Check(list); err != nil {
		return nil, err
	}
	in := &Incoming{r: r, list: list, once: sent.Once}
	if err := in.begin(ctx, owner, slot, sent.Name); err != nil {
		in.Release()
		return nil, fault.Wrap(op, sent.Name, err)
	}
	return in, r.wait(in)
}

func part(kind, text string) string {
	sum := sha256.Sum256([]byte(kind + "\x00" + text))
	return hex.EncodeToString(sum[:16])
}

// base returns the list of that sum, as a sync of one of the slot's directories
// left it.
func (r *received) base(prefix string, sum [32]byte) ([]byte, error) {
	for n := range r.named(prefix) {
		data, err := os.ReadFile(filepath.Join(r.dir, prefix+"-"+strconv.Itoa(n), "list"))
		if err == nil && sha256.Sum256(data) == sum {
			return data, nil
		}
	}
	return nil, ErrUnknownBase
}

// named returns how many directories a slot has at most.
func (r *received) named(prefix string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for name := range r.mirrors {
		if rest, ok := strings.CutPrefix(name, prefix+"-"); ok {
			i, _ := strconv.Atoi(rest)
			n = max(n, i+1)
		}
	}
	return n
}

// How long a directory is kept that no build asks for, and how many are: a client
// that is new each time, as on build machines, never asks for any.
const (
	keptFor  = 14 * 24 * time.Hour
	keptMost = 64
)

// Tidy removes what was not asked for in a long time, or is too much.
func (s *Store) Tidy() error {
	list := s.Kept()
	slices.SortFunc(list, func(a, b Kept) int { return b.LastUsed.Compare(a.LastUsed) })
	var err error
	for i, k := range list {
		if i >= keptMost || time.Since(k.LastUsed) > keptFor {
			_, gone := s.Remove(k.ID)
			err = errors.Join(err, gone)
		}
	}
	return err
}

// take returns the slot's first directory that is free, or a new one.
func (r *received) take(prefix string) *mirror {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := 0; ; n++ {
		name := prefix + "-" + strconv.Itoa(n)
		m := r.mirrors[name]
		if m == nil {
			m = &mirror{name: name}
			r.mirrors[name] = m
		}
		if !m.busy {
			m.busy = true
			return m
		}
	}
}

// begin takes a directory and has it follow the list as far as contents are here.
func (in *Incoming) begin(ctx context.Context, owner, slot, name string) error {
	r := in.r
	in.m = r.take(owner + "-" + slot)
	at := filepath.Join(r.dir, in.m.name)
	if err := os.MkdirAll(filepath.Join(at, "tree"), 0o700); err != nil {
		return err
	}
	trusted := in.m.info.Boot == r.boot && r.boot != ""
	info := in.m.info
	info.Name, info.Boot, info.Size, info.LastUsed = name, r.boot, sizeOf(in.list), time.Now()
	if info.Created.IsZero() {
		info.Created = info.LastUsed
	}
	in.sums = r.store.sums.openOurs(filepath.Join(at, "tree"), trusted)
	// After what was known is forgotten: now it can be trusted.
	if err := r.save(in.m, info); err != nil {
		return err
	}
	var err error
	if in.tree, err = tree.OpenMirror(filepath.Join(at, "tree"), in.sums); err != nil {
		return err
	}
	others := &others{r: r, owner: owner, self: in.m}
	in.Missing, err = in.tree.Follow(ctx, in.list, others.find)
	return err
}

// sizeOf is what a list takes on disk, about.
func sizeOf(list []manifest.Entry) int64 {
	var n int64
	for i := range list {
		switch e := &list[i]; e.Kind {
		case manifest.File:
			n += (e.Size + 4095) &^ 4095
		case manifest.Dir:
			n += 4096
		}
	}
	return n
}

func (r *received) save(m *mirror, info mirrorInfo) error {
	data, err := json.Marshal(info)
	if err == nil {
		err = replace(filepath.Join(r.dir, m.name, "info.json"), data)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	m.info = info
	return err
}

// replace writes a file anew.
func replace(path string, data []byte) error {
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// others looks for contents among an owner's other directories. It reads their
// lists when it is asked for the first time.
type others struct {
	r     *received
	owner string
	self  *mirror
	files map[[32]byte]string
}

func (o *others) find(sum [32]byte) (*os.File, error) {
	if o.files == nil {
		o.files = map[[32]byte]string{}
		o.r.mu.Lock()
		var names []string
		for name, m := range o.r.mirrors {
			if m != o.self && strings.HasPrefix(name, o.owner+"-") {
				names = append(names, name)
			}
		}
		o.r.mu.Unlock()
		for _, name := range names {
			data, err := os.ReadFile(filepath.Join(o.r.dir, name, "list"))
			if err != nil {
				continue
			}
			list, _ := manifest.ReadAll(bufio.NewReader(bytes.NewReader(data)))
			for i := range list {
				if list[i].Kind == manifest.File {
					o.files[list[i].Digest] = filepath.Join(name, "tree", list[i].Path)
				}
			}
		}
	}
	path, ok := o.files[sum]
	if !ok {
		return nil, os.ErrNotExist
	}
	// A link that a sync has put there meanwhile does not lead out of the root.
	root, err := os.OpenRoot(o.r.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(path, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, fmt.Errorf("%s is no file any more", path))
	}
	return f, nil
}
