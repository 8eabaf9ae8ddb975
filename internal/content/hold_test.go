package content

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
)

func put(t *testing.T, s *Store, text string) digest.Digest {
	t.Helper()
	i, err := s.Ingest(context.Background(), strings.NewReader(text), "", -1)
	if err != nil {
		t.Fatal(err)
	}
	return i.Digest
}

func TestHeldAndUsedBlobsStay(t *testing.T) {
	s := open(t)
	held, used, free := put(t, s, "held"), put(t, s, "used"), put(t, s, "free!")
	s.AddOwner(func(d digest.Digest) bool { return false })
	s.AddOwner(func(d digest.Digest) bool { return d == used })
	h := s.Hold()
	h.Add(held, held)
	if n, err := s.CollectAll(); err != nil || n != 5 {
		t.Fatalf("freed %d, %v", n, err)
	}
	if !s.Has(held) || !s.Has(used) || s.Has(free) {
		t.Error("the wrong ones went")
	}
	if ids := h.Release(); len(ids) != 2 {
		t.Errorf("released %v", ids)
	}
	h.Release()
	if n, err := s.Collect(held, used, free); err != nil || n != 4 {
		t.Errorf("freed %d, %v", n, err)
	}
	if s.Has(held) {
		t.Error("still there after its release")
	}
	if n := files(t, s, "ingest"); len(n) != 0 {
		t.Errorf("left %v", n)
	}
	if _, err := s.Collect("sha256:../../x"); err == nil {
		t.Error("a path is no digest")
	}
	if len(s.held)+len(s.asked) != 0 {
		t.Errorf("remembers %v %v", s.held, s.asked)
	}
}

// TestHoldDuringTheQuestion: whoever held a blob while owners were being asked,
// and recorded it, keeps it though the owner had answered already.
func TestHoldDuringTheQuestion(t *testing.T) {
	s := open(t)
	d := put(t, s, "blob")
	var recorded atomic.Bool
	s.AddOwner(func(digest.Digest) bool { return recorded.Load() })
	first := true
	s.AddOwner(func(digest.Digest) bool { // asked after the first has said no
		if first {
			first = false
			h := s.Hold()
			h.Add(d)
			recorded.Store(true)
			h.Release()
		}
		return false
	})
	if n, err := s.Collect(d); n != 0 || err != nil || !s.Has(d) {
		t.Fatalf("a recorded blob went: %d, %v", n, err)
	}
	recorded.Store(false)
	if n, _ := s.Collect(d); n != 4 {
		t.Error("it never goes")
	}
}

// TestCollectBesideWriters: writers keep what they recorded, whatever the
// collectors do.
func TestCollectBesideWriters(t *testing.T) {
	s := open(t)
	var mu sync.Mutex
	records := map[digest.Digest]int{}
	s.AddOwner(func(d digest.Digest) bool {
		mu.Lock()
		defer mu.Unlock()
		return records[d] > 0
	})
	var writers, collectors sync.WaitGroup
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
	for range 4 {
		writers.Go(func() {
			for i := range 150 {
				text := fmt.Sprint("blob ", i%7)
				d := digest.FromString(text)
				h := s.Hold()
				h.Add(d)
				if !s.Has(d) {
					if _, err := s.Ingest(context.Background(), strings.NewReader(text), d, -1); err != nil {
						t.Error(err)
					}
				}
				mu.Lock()
				records[d]++
				mu.Unlock()
				h.Release()
				if _, err := s.Read(d, 100); err != nil {
					t.Errorf("a recorded blob is gone: %v", err)
				}
				mu.Lock()
				records[d]--
				mu.Unlock()
				if _, err := s.Collect(d); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	collectors.Wait()
	if _, err := s.CollectAll(); err != nil {
		t.Fatal(err)
	}
	if n := files(t, s, "blobs/sha256"); len(n) != 0 {
		t.Errorf("left %v", n)
	}
}

func TestCommitToHoldsBeforeTheNameIsThere(t *testing.T) {
	s := open(t)
	h := s.Hold()
	w, err := s.Writer("", -1)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	fmt.Fprint(w, "unknown")
	i, err := w.CommitTo(h)
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := s.CollectAll(); n != 0 || !s.Has(i.Digest) {
		t.Error("it is not held")
	}
	h.Release()
	if n, _ := s.CollectAll(); n != 7 {
		t.Error("it stays for ever")
	}
}
