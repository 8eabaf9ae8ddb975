package source

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/internal/build/tree"
	"berth/internal/fault"
	"berth/internal/wire/manifest"
)

const (
	keyOne   = "11111111111111111111111111111111"
	keyOther = "22222222222222222222222222222222"
)

func sentFile(path, text string) manifest.Entry {
	return manifest.Entry{Path: path, Kind: manifest.File, Mode: 0o644, Mtime: 1e18, Size: int64(len(text)), Digest: sha256.Sum256([]byte(text))}
}

// begin sends a list and returns what is missing of it.
func begin(t *testing.T, s *Store, key, slot string, list ...manifest.Entry) *Incoming {
	t.Helper()
	in, err := s.Receive(context.Background(), Sent{Key: key, Slot: slot, Name: slot, Sum: manifest.Sum(list), Entries: list})
	if err != nil {
		t.Fatal(err)
	}
	claimed, err := s.Claim(in.ID)
	if err != nil || claimed != in {
		t.Fatal(err)
	}
	t.Cleanup(in.Release)
	return in
}

// give sends contents and returns what is wrong with them.
func give(in *Incoming, contents ...string) error {
	var b []byte
	for i, text := range contents {
		e := &in.list[in.Missing[i]]
		if text != "" {
			b = manifest.AppendPiece(b, []byte(text))
		}
		b = manifest.AppendEnd(b, e, e)
	}
	return in.Fill(context.Background(), bufio.NewReader(bytes.NewReader(b)))
}

func ready(t *testing.T, in *Incoming) *Context {
	t.Helper()
	c, err := in.Context("")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDigestsAloneGiveNothing(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	secret := sentFile("secret", "of somebody")
	in := begin(t, s, keyOne, "dir", secret)
	if len(in.Missing) != 1 || give(in, "of somebody") != nil {
		t.Fatal("the file was not taken")
	}
	ready(t, in).Close()
	if in := begin(t, s, keyOne, "another", secret); len(in.Missing) != 0 {
		t.Error("its owner has to send the file again")
	}

	in = begin(t, s, keyOther, "dir", secret)
	if len(in.Missing) != 1 {
		t.Fatal("who knows a digest has the file")
	}
	for _, text := range []string{"", "of somebody else", "of somebodx"} {
		if err := give(in, text); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q is taken for the file: %v", text, err)
		}
	}
	if err := in.Fill(context.Background(), bufio.NewReader(strings.NewReader(""))); !fault.Is(err, fault.Invalid) {
		t.Errorf("nothing is taken for the file: %v", err)
	}
	in.Release()
	if in := begin(t, s, keyOther, "dir", secret); len(in.Missing) != 1 {
		t.Error("a wrong content is taken for the file the next time")
	}
	base := manifest.Sum([]manifest.Entry{secret})
	if _, err := s.Receive(context.Background(), Sent{Key: keyOther, Slot: "dir", Base: &base, Sum: base}); !errors.Is(err, ErrUnknownBase) {
		t.Errorf("who knows the sum of a list has the list: %v", err)
	}
	if _, err := s.Receive(context.Background(), Sent{Key: "short", Slot: "dir", Sum: sha256.Sum256(nil)}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a key that can be guessed: %v", err)
	}
}

func TestReceivedFollowsItsClient(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	dir := func(p string) manifest.Entry {
		return manifest.Entry{Path: p, Kind: manifest.Dir, Mode: 0o750, Mtime: 1e18}
	}
	link := func(p, target string) manifest.Entry {
		return manifest.Entry{Path: p, Kind: manifest.Symlink, Mode: 0o777, Target: target, Mtime: 1e18}
	}
	name := func(p, target string) manifest.Entry {
		return manifest.Entry{Path: p, Kind: manifest.Link, Target: target}
	}
	mode := func(e manifest.Entry, mode uint32) manifest.Entry { e.Mode = mode; return e }
	fifo := manifest.Entry{Path: "a", Kind: manifest.Fifo, Mode: 0o600, Mtime: 1e18}
	for step, list := range [][]manifest.Entry{
		{dir("a"), sentFile("a/x", "1"), sentFile("a/y", "2"), sentFile("b", "")},
		{dir("a"), sentFile("a/x", "2"), sentFile("a/y", "1"), sentFile("b", "")}, // swapped
		{sentFile("a", "1"), dir("b"), sentFile("b/x", "2")},                      // kinds changed
		{fifo, link("b", "a")},
		{dir("a"), sentFile("a/x", "1"), name("a/y", "a/x"), mode(sentFile("b", "2"), 0o4711)},
		{dir("a"), sentFile("a/x", "1"), mode(sentFile("a/y", "1"), 0o600), name("b", "a/x")},
		{dir("a"), sentFile("a/x", "3"), name("a/y", "a/x"), name("b", "a/x")},
		{mode(dir("a"), 0), dir("a/b"), dir("a/b/c"), mode(sentFile("a/b/c/d", "1"), 0)},
		{},
	} {
		in := begin(t, s, keyOne, "dir", list...)
		var contents []string
		for _, i := range in.Missing {
			for _, text := range []string{"1", "2", "3"} {
				if sha256.Sum256([]byte(text)) == list[i].Digest {
					contents = append(contents, text)
				}
			}
		}
		if err := give(in, contents...); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		c := ready(t, in)
		m, err := c.Select(context.Background(), tree.Selection{Src: "."})
		if err != nil {
			t.Fatal(err)
		}
		got := m[0].Entries[1:]
		if len(got) != len(list) {
			t.Errorf("step %d: %d entries instead of %d", step, len(got), len(list))
			continue
		}
		for i := range got {
			g, want := &got[i], &list[i]
			same := ""
			if g.Same >= 0 {
				same = m[0].Entries[g.Same].Path
			} else if want.Kind != manifest.Link && (g.Stat.Mode&0o7777 != want.Mode || g.Stat.Mtim.Nano() != want.Mtime) {
				t.Errorf("step %d: %s has mode %o and time %d", step, g.Path, g.Stat.Mode, g.Stat.Mtim.Nano())
			}
			if g.Path != want.Path || g.Link+same != want.Target {
				t.Errorf("step %d: %s leads to %s%s, want %s to %s", step, g.Path, g.Link, same, want.Path, want.Target)
			}
			if want.Kind == manifest.File && want.Mode != 0 {
				if data, _ := c.ReadFile(g.Path, 10); sha256.Sum256(data) != want.Digest {
					t.Errorf("step %d: %s has %q", step, g.Path, data)
				}
			}
		}
		c.Close()
		in = begin(t, s, keyOne, "dir", list...)
		if n := len(in.Missing); n > 0 {
			t.Errorf("step %d: %d files are missing the second time", step, n)
		}
		in.Release()
	}
	if list := s.Kept(); len(list) != 1 || list[0].Name != "dir" || list[0].InUse {
		t.Errorf("%+v", list)
	}
}

// A file that is changed behind the store's back, and one that was made by half,
// are not what they should be.
func TestReceivedBelievesContentsOnly(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	list := []manifest.Entry{sentFile("a", "one"), sentFile("b", "two")}
	in := begin(t, s, keyOne, "dir", list...)
	if err := give(in, "one", "two"); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(s.received.dir, in.m.name, "tree")
	ready(t, in).Close()
	if err := os.WriteFile(filepath.Join(at, "a"), []byte("on"), 0o644); err != nil {
		t.Fatal(err)
	}
	again, err := Open(s.dir) // as after a kill
	if err != nil {
		t.Fatal(err)
	}
	if in = begin(t, again, keyOne, "dir", list...); len(in.Missing) != 1 || in.Missing[0] != 0 {
		t.Errorf("missing are %v", in.Missing)
	}
	second := begin(t, again, keyOne, "dir", list...)
	if second.m == in.m || len(second.Missing) != 1 {
		t.Errorf("a second build at the same time has to send %v", second.Missing)
	}
	if done, err := again.Remove(in.m.name); done || err != nil {
		t.Errorf("a directory that is in use can be removed: %v", err)
	}
	in.Release()
	if done, err := again.Remove(in.m.name); !done || err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(at); err == nil {
		t.Error("what was removed is there")
	}
	if _, err := again.Claim(second.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("a context can be had twice: %v", err)
	}
}

func TestReceivedTellsWhatChangedMeanwhile(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	listed, is := sentFile("a", "before"), sentFile("a", "after that")
	in := begin(t, s, keyOne, "dir", listed, sentFile("b", "b"))
	b := manifest.AppendEnd(manifest.AppendPiece(nil, []byte("bef")), &listed, nil)
	b = manifest.AppendEnd(manifest.AppendPiece(b, []byte("after that")), &listed, &is)
	b = manifest.AppendEnd(manifest.AppendPiece(b, []byte("b")), &in.list[1], &in.list[1])
	if err := in.Fill(context.Background(), bufio.NewReader(bytes.NewReader(b))); err != nil {
		t.Fatal(err)
	}
	c := ready(t, in)
	if data, err := c.ReadFile("a", 100); string(data) != "after that" {
		t.Errorf("%q, %v", data, err)
	}
	c.Close()
	base := manifest.Sum([]manifest.Entry{is, sentFile("b", "b")})
	next, err := s.Receive(context.Background(), Sent{Key: keyOne, Slot: "dir", Base: &base, Sum: base})
	if err != nil || len(next.Missing) > 0 {
		t.Errorf("the changed list is no base: %v", err)
	} else {
		next.Release()
	}
}

func TestReceivedGoesAgain(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	file := sentFile("a", "one")
	for _, c := range []struct {
		slot string
		once bool
		age  time.Duration
	}{{"once", true, 0}, {"old", false, keptFor + time.Hour}, {"new", false, 0}} {
		in, err := s.Receive(context.Background(), Sent{Key: keyOne, Slot: c.slot, Name: c.slot, Once: c.once, Sum: manifest.Sum([]manifest.Entry{file}), Entries: []manifest.Entry{file}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Claim(in.ID); err != nil {
			t.Fatal(err)
		}
		if len(in.Missing) > 0 {
			if err := give(in, "one"); err != nil {
				t.Fatal(err)
			}
		}
		ready(t, in).Close()
		in.m.info.LastUsed = in.m.info.LastUsed.Add(-c.age)
	}
	if err := s.Tidy(); err != nil {
		t.Error(err)
	}
	if list := s.Kept(); len(list) != 1 || list[0].Name != "new" {
		t.Errorf("kept is %+v", list)
	}
	if left, err := os.ReadDir(s.received.dir); err != nil || len(left) != 1 {
		t.Errorf("%v is left: %v", left, err)
	}
}
