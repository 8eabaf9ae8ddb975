package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"berth/internal/fault"
)

func gz(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	w.Close()
	return b.Bytes()
}

func zst(data []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll(data, nil)
}

func TestHostileArchives(t *testing.T) {
	needRoot(t)
	base := diskDir(t)
	canary := filepath.Join(base, "canary")
	os.MkdirAll(filepath.Join(canary, "dir"), 0o755)
	os.WriteFile(filepath.Join(canary, "file"), []byte("do not touch"), 0o600)
	os.Symlink("file", filepath.Join(canary, "link"))
	before := snapshot(t, canary)
	for _, tc := range hostile(t, canary) {
		for _, packed := range []struct {
			how string
			tar []byte
		}{{"plain", tc.tar}, {"gzip", gz(tc.tar)}, {"zstd", zst(tc.tar)}} {
			t.Run(tc.name+"/"+packed.how, func(t *testing.T) {
				if packed.how != "plain" && (errors.Is(tc.err, ErrCompressor) || strings.Contains(tc.name, "gzip")) {
					t.Skip("it is about the packing itself")
				}
				s := openStore(t, filepath.Join(base, strings.Map(func(r rune) rune {
					if r == '/' {
						return '_'
					}
					return r
				}, t.Name())))
				l, err := apply(s, packed.tar)
				if !errors.Is(err, tc.err) {
					t.Fatalf("got %v, want %v", err, tc.err)
				}
				if err != nil {
					if k := fault.KindOf(err); k != fault.Invalid && k != fault.Unsupported {
						t.Errorf("kind %v of %v", k, err)
					}
					if n := s.List(); len(n) != 0 {
						t.Errorf("a refused archive left layers %v", n)
					}
				} else if tree, _ := s.Tree(l.DiffID); tc.want != nil {
					if got := listing(t, tree); !slices.Equal(got, tc.want) {
						t.Errorf("got %q\nwant %q", got, tc.want)
					}
				}
				if n := leftovers(t, s); len(n) != 0 {
					t.Errorf("left %v", n)
				}
				if after := snapshot(t, canary); after != before {
					t.Fatalf("the host was touched:\n%s\nbefore:\n%s", after, before)
				}
			})
		}
	}
}

// TestErrorsNameTheEntry checks that a user can tell which file it was.
func TestErrorsNameTheEntry(t *testing.T) {
	needRoot(t)
	s := openStore(t, diskDir(t))
	for name, data := range map[string][]byte{
		"some/file": pack(t, file("ok", ""), file("some/file", "").with(func(h *tar.Header) { h.Uid = 1 << 40 })),
		"../climb":  pack(t, file("../climb", "")),
		"the/link":  pack(t, hard("the/link", "gone")),
		"before":    pack(t, file("before", "x"), file("cut", strings.Repeat("x", 4096)))[:2000],
	} {
		if _, err := apply(s, data); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("the error does not name %q: %v", name, err)
		}
	}
}

func TestBombs(t *testing.T) {
	needRoot(t)
	zeros := pack(t, file("zeros", strings.Repeat("\x00", 8<<20)))
	for _, tc := range []struct {
		name   string
		data   []byte
		limits Limits
		err    error
	}{
		{"gzip ratio", gz(zeros), Limits{RatioFloor: 1 << 20, MaxRatio: 100}, ErrBomb},
		{"zstd ratio", zst(zeros), Limits{RatioFloor: 1 << 20, MaxRatio: 100}, ErrBomb},
		{"below the floor", gz(zeros), Limits{RatioFloor: 16 << 20, MaxRatio: 100}, nil},
		{"plain has no ratio", zeros, Limits{RatioFloor: 1, MaxRatio: 1}, nil},
		{"size", zeros, Limits{MaxBytes: 1 << 20}, ErrTooLarge},
		{"size packed", gz(zeros), Limits{MaxBytes: 1 << 20}, ErrTooLarge},
		{"entries", pack(t, file("a", ""), file("b", ""), file("c", "")), Limits{MaxEntries: 2}, ErrTooLarge},
		{"sparse size", sparseTar("s", 1<<40), Limits{MaxBytes: 1 << 30}, ErrTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := Open(diskDir(t), tc.limits)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if _, err := apply(s, tc.data); !errors.Is(err, tc.err) {
				t.Errorf("got %v, want %v", err, tc.err)
			}
			if n := leftovers(t, s); len(n) != 0 {
				t.Errorf("left %v", n)
			}
		})
	}
}

// TestTruncation cuts an archive at each sixteenth and expects an error and
// nothing kept, whatever the packing.
func TestTruncation(t *testing.T) {
	needRoot(t)
	var ents []ent
	for i := range 40 {
		ents = append(ents, file(fmt.Sprintf("d%d/file", i), strings.Repeat(fmt.Sprint(i), 3000)))
	}
	plain := pack(t, ents...)
	s := openStore(t, diskDir(t))
	whole, err := apply(s, plain)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := deleted(s, whole.DiffID); !ok || err != nil {
		t.Fatal(ok, err)
	}
	for how, data := range map[string][]byte{"plain": plain, "gzip": gz(plain), "zstd": zst(plain)} {
		for i := range 16 {
			cut := data[:len(data)*i/16]
			_, err := s.Apply(context.Background(), whole.DiffID, bytes.NewReader(cut))
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrDigest) {
				t.Errorf("%s cut at %d/16: %v", how, i, err)
			}
			if s.Has(whole.DiffID) || len(leftovers(t, s)) != 0 {
				t.Fatalf("%s cut at %d/16 left something", how, i)
			}
		}
		if _, err := s.Apply(context.Background(), whole.DiffID, bytes.NewReader(data)); err != nil {
			t.Errorf("%s whole: %v", how, err)
		}
		deleted(s, whole.DiffID)
	}
}

func TestWrongDiffID(t *testing.T) {
	needRoot(t)
	s := openStore(t, diskDir(t))
	_, err := s.Apply(context.Background(), "sha256:"+"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", bytes.NewReader(pack(t, file("a", "x"))))
	if !errors.Is(err, ErrDigest) || !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
	_, err = s.Apply(context.Background(), "sha256:../../x", bytes.NewReader(nil))
	if !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
}
