package content

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/internal/fault"
)

func resume(t *testing.T, s *Store, key string) *Partial {
	t.Helper()
	p, err := s.Resume(key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestPartialOverSeveralLives(t *testing.T) {
	s := open(t)
	want := digest.FromString("one, two, three")
	p := resume(t, s, want.Encoded())
	fmt.Fprint(p, "one, ")
	if _, err := s.Resume(want.Encoded()); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second writer: %v", err)
	}
	p.Close()

	s, err := Open(s.dir) // the next life
	if err != nil {
		t.Fatal(err)
	}
	p = resume(t, s, want.Encoded())
	if p.Size() != 5 {
		t.Fatalf("%d bytes are left", p.Size())
	}
	fmt.Fprint(p, "two, ")
	if got, _ := io.ReadAll(p.Reader()); string(got) != "one, two, " {
		t.Errorf("holds %q", got)
	}
	fmt.Fprint(p, "twee")
	if err := p.Truncate(10); err != nil {
		t.Fatal(err)
	}
	if got, err := p.Digest(); err != nil || got != digest.FromString("one, two, ") {
		t.Errorf("digest %s, %v", got, err)
	}
	fmt.Fprint(p, "three")
	if _, err := p.Commit(want, 7); !errors.Is(err, ErrSize) {
		t.Errorf("wrong size: %v", err)
	}
	if _, err := p.Commit(digest.FromString("x"), -1); !errors.Is(err, ErrDigest) {
		t.Errorf("wrong digest: %v", err)
	}
	if s.Has(want) {
		t.Fatal("visible before its commit")
	}
	i, err := p.Commit(want, 15)
	if err != nil || i != (Info{want, 15}) {
		t.Fatalf("%v, %v", i, err)
	}
	if got, err := s.Read(want, 100); err != nil || string(got) != "one, two, three" {
		t.Errorf("%q, %v", got, err)
	}
	if err := p.Discard(); err != nil {
		t.Error(err)
	}
	if _, err := p.Commit(want, 15); err == nil {
		t.Error("committed twice")
	}
	if n := files(t, s, "ingest"); len(n) != 0 {
		t.Errorf("left %v", n)
	}
}

func TestDiscardedPartial(t *testing.T) {
	s := open(t)
	p := resume(t, s, "upload_1-A")
	fmt.Fprint(p, "x")
	if err := p.Discard(); err != nil {
		t.Fatal(err)
	}
	if p := resume(t, s, "upload_1-A"); p.Size() != 0 {
		t.Errorf("%d bytes are left", p.Size())
	}
}

func TestPartialKeysAreNoPaths(t *testing.T) {
	s := open(t)
	for _, key := range []string{"", "../x", "a/b", "a.b", "a\x00", "ä", strings.Repeat("a", 81)} {
		if _, err := s.Resume(key); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", key, err)
		}
	}
}

func TestOldPartialsGo(t *testing.T) {
	s := open(t)
	for _, key := range []string{"old", "new", "busy"} {
		p := resume(t, s, key)
		fmt.Fprint(p, key)
		if key != "busy" {
			p.Close()
		}
	}
	past := time.Now().Add(-2 * partialLife)
	for _, key := range []string{"old", "busy"} {
		if err := os.Chtimes(s.part(key), past, past); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.DropPartials(time.Hour); err != nil || n != 3 {
		t.Errorf("freed %d, %v", n, err)
	}
	if n := files(t, s, "ingest"); len(n) != 2 {
		t.Errorf("left %v", n)
	}
	s, err := Open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if n := files(t, s, "ingest"); len(n) != 1 || n[0] != "new.part" {
		t.Errorf("left %v", n)
	}
}
