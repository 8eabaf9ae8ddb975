package local

import (
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
	"berth/internal/metadata"
)

// restAfter is how long the store rests between a link and the background sync
// that ends its probation; more links in that time share it.
const restAfter = 500 * time.Millisecond

// syncer brings stored bytes to the disk, once for all who ask meanwhile.
type syncer struct {
	store *Store
	kick  chan struct{}

	mu      sync.Mutex // guards the fields below
	cond    *sync.Cond
	pending map[digest.Digest]bool // linked, and not in a sync that has begun
	done    map[digest.Digest]bool // on disk, and still in the database's list
	ended   uint64                 // syncs so far; a caller waits for one that began after it asked
	running bool
	err     error // of the last one
}

func (y *syncer) init(s *Store) {
	y.store = s
	y.cond = sync.NewCond(&y.mu)
	y.kick = make(chan struct{}, 1)
	y.pending, y.done = map[digest.Digest]bool{}, map[digest.Digest]bool{}
	s.wg.Go(y.background)
}

// add says that a blob was linked.
func (y *syncer) add(d digest.Digest) {
	y.mu.Lock()
	y.pending[d] = true
	delete(y.done, d)
	y.mu.Unlock()
	select {
	case y.kick <- struct{}{}:
	default:
	}
}

// busy reports whether anything is not known to be on disk.
func (y *syncer) busy() bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.running || len(y.pending) > 0
}

// wait returns when everything written before the call is on disk.
func (y *syncer) wait() error {
	y.mu.Lock()
	defer y.mu.Unlock()
	// One that runs may have begun before our bytes were written.
	target := y.ended + 1
	if y.running {
		target++
	}
	for y.ended < target {
		if !y.running {
			y.run()
			continue
		}
		y.cond.Wait()
	}
	return y.err
}

// run syncs once. The caller holds mu.
func (y *syncer) run() {
	y.running = true
	batch := y.pending
	y.pending = map[digest.Digest]bool{}
	y.mu.Unlock()
	err := y.store.syncBlobs(batch)
	y.mu.Lock()
	y.running, y.err = false, err
	y.ended++
	for d := range batch {
		if err != nil {
			y.pending[d] = true
		} else if !y.pending[d] {
			y.done[d] = true
		}
	}
	y.cond.Broadcast()
}

// fewBlobs is up to how many blobs are synced one by one. That waits for their
// bytes alone, and not for everything else that is being written on the file
// system; for many one call for all is cheaper.
const fewBlobs = 64

// syncBlobs brings blobs and their names to the disk.
func (s *Store) syncBlobs(batch map[digest.Digest]bool) error {
	if len(batch) == 0 {
		return nil
	}
	if len(batch) > fewBlobs {
		return s.content.Sync()
	}
	var group errgroup.Group
	group.SetLimit(8)
	var dir atomic.Value
	for d := range batch {
		group.Go(func() error {
			f, err := s.content.Open(d)
			if fault.Is(err, fault.NotFound) {
				return nil // deleted since
			}
			if err != nil {
				return err
			}
			defer f.Close()
			dir.Store(filepath.Dir(f.Name()))
			return fault.Wrap("sync blob", d.String(), unix.Fdatasync(int(f.Fd())))
		})
	}
	if err := group.Wait(); err != nil || dir.Load() == nil {
		return err
	}
	f, err := os.Open(dir.Load().(string))
	if err != nil {
		return fault.Wrap("sync blobs", "", err)
	}
	defer f.Close()
	return fault.Wrap("sync blobs", f.Name(), f.Sync())
}

// clean takes what is on disk off the database's list, inside the transaction
// of another change.
func (y *syncer) clean(tx *metadata.Tx) ([]digest.Digest, error) {
	y.mu.Lock()
	cleaned := make([]digest.Digest, 0, len(y.done))
	for d := range y.done {
		cleaned = append(cleaned, d)
	}
	y.mu.Unlock()
	for _, d := range cleaned {
		if err := probation.Delete(tx, d.String()); err != nil {
			return nil, err
		}
	}
	return cleaned, nil
}

// cleaned says that the transaction of a clean was committed.
func (y *syncer) cleaned(ds []digest.Digest) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, d := range ds {
		delete(y.done, d)
	}
}

func (y *syncer) background() {
	timer := time.NewTimer(0)
	<-timer.C
	defer timer.Stop()
	for {
		select {
		case <-y.store.closed:
			return
		case <-y.kick:
		}
		timer.Reset(restAfter)
		select {
		case <-y.store.closed:
			return
		case <-timer.C:
		}
		if err := y.flush(); err != nil {
			y.store.log.Error("registry: what was pushed cannot be brought to disk", "error", err)
		}
	}
}

// flush ends the probation of everything linked so far.
func (y *syncer) flush() error {
	y.mu.Lock()
	idle := len(y.pending) == 0 && len(y.done) == 0
	some := len(y.pending) > 0
	y.mu.Unlock()
	if idle {
		return nil
	}
	if some {
		if err := y.wait(); err != nil {
			return err
		}
	}
	var gone []digest.Digest
	err := y.store.db.Update(func(tx *metadata.Tx) (err error) {
		gone, err = y.clean(tx)
		return err
	})
	if err == nil {
		y.cleaned(gone)
	}
	return err
}
