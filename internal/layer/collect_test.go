package layer

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

// records is an owner: a set of layers under its own lock.
type records struct {
	mu  sync.Mutex
	set map[digest.Digest]bool
}

func (r *records) uses(d digest.Digest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.set[d]
}

func (r *records) put(d digest.Digest, on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set[d] = on
}

func TestCollectKeepsWhatIsUsed(t *testing.T) {
	needRoot(t)
	s := openStore(t, diskDir(t))
	var ids []digest.Digest
	var disk int64
	for i := range 4 {
		l, err := apply(s, pack(t, file(fmt.Sprint(i), "x")))
		if err != nil {
			t.Fatal(err)
		}
		ids, disk = append(ids, l.DiffID), l.Disk
	}
	images, builds := &records{set: map[digest.Digest]bool{}}, &records{set: map[digest.Digest]bool{}}
	s.AddOwner(images.uses)
	s.AddOwner(builds.uses)
	images.put(ids[0], true)
	builds.put(ids[1], true)
	if _, _, err := s.Writable("c1", ids[2:3]); err != nil {
		t.Fatal(err)
	}
	freed, err := s.CollectAll()
	if err != nil || freed != disk || s.Has(ids[3]) {
		t.Errorf("freed %d of %d, %v", freed, disk, err)
	}
	for _, d := range ids[:3] {
		if !s.Has(d) {
			t.Error("a layer in use was deleted")
		}
	}
	builds.put(ids[1], false)
	if freed, err := s.Collect(ids...); err != nil || freed != disk || s.Has(ids[1]) {
		t.Errorf("freed %d of %d, %v", freed, disk, err)
	}
}

// TestCollectBesideReferrers has everybody who may refer to a layer do so while
// others collect: what somebody has found under a hold is there until it lets go.
func TestCollectBesideReferrers(t *testing.T) {
	needRoot(t)
	s := openStore(t, diskDir(t))
	owner := &records{set: map[digest.Digest]bool{}}
	s.AddOwner(owner.uses)
	data := pack(t, file("f", "x"))
	l, err := apply(s, data)
	if err != nil {
		t.Fatal(err)
	}
	d := l.DiffID
	var workers, collectors sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		collectors.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := s.CollectAll(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	workers.Go(func() {
		for range 300 {
			h := s.Hold()
			h.Add(d)
			if !s.Has(d) {
				if _, err := apply(s, data); err != nil {
					t.Error(err)
				}
			}
			owner.put(d, true)
			h.Release()
			if !s.Has(d) {
				t.Error("a layer with a record vanished")
			}
			owner.put(d, false)
		}
	})
	workers.Wait()
	close(stop)
	collectors.Wait()
}

// TestCloseDoesNotWaitForRemovals: an engine that stops in the middle of a large
// removal stops, and the next goes on with it.
func TestCloseDoesNotWaitForRemovals(t *testing.T) {
	root := diskDir(t)
	s := openStore(t, root)
	s.trash.remover.stop.Store(true) // as Close does, before anything is removed
	var archive bytes.Buffer
	writeMany(&archive, 1)
	l, err := apply(s, archive.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Collect(l.DiffID); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, s); len(left) != 1 || s.Has(l.DiffID) {
		t.Fatalf("in the trash: %v", left)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, openStore(t, root)); len(left) != 0 {
		t.Errorf("after the next start: %v", left)
	}
}
