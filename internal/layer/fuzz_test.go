package layer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// seeds are a little of everything.
func seeds(f *testing.F) {
	f.Add(pack(f, dir("a"), file("a/b", "x"), sym("l", "a"), hard("h", "a/b"), file("a/.wh.c", ""), file("a/.wh..wh..opq", ""), char("c", 1, 3)))
	f.Add(pack(f, file("d/a", "1"), sym("l", "d"), file("l/a", "2"), dir("d"), file("d", "3"), dir("d").pax(paxXattr+"user.a", "b")))
	f.Add(pack(f, file("x", "y").pax(paxXattr+"user.a", "b")))
	f.Add(sparseTar("s", 1<<20))
	f.Add(paxFile("size", "3"))
	f.Add(rawHeader('0', "f", "\xff\xff", ""))
	files, _ := filepath.Glob(corpusDir + "/*.tar.gz")
	for _, name := range files {
		packed, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		r, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			f.Fatal(err)
		}
		if data, err := io.ReadAll(r); err == nil && len(data) < 64<<10 {
			f.Add(data)
		}
	}
}

// FuzzExport: what Apply takes is exported as it came and verified, and the tar
// that Diff makes of its tree gives the same tree.
func FuzzExport(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("needs root")
	}
	seeds(f)
	s, err := Open(f.TempDir(), Limits{MaxBytes: 1 << 22, MaxEntries: 1000})
	if err != nil {
		f.Fatal(err)
	}
	ctx := context.Background()
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := Detect(data[:min(len(data), 512)]); err != nil || c != Plain {
			return // FuzzApply's business
		}
		l, err := apply(s, data)
		if err != nil {
			return
		}
		defer s.Flush()
		defer s.Collect(l.DiffID)
		if got := exported(t, s, l.DiffID); !bytes.Equal(got, data) {
			t.Fatalf("exported %d bytes, unpacked %d", len(got), len(data))
		}
		if err := s.Verify(ctx, l.DiffID); err != nil {
			t.Fatal(err)
		}
		tree, _ := s.Tree(l.DiffID)
		var canonical bytes.Buffer
		if err := Diff(ctx, tree, &canonical, DiffOptions{}); err != nil {
			t.Fatal(err)
		}
		again, err := apply(s, canonical.Bytes())
		if errors.Is(err, ErrTooLarge) {
			return // it has entries for directories that the first only implied
		}
		if err != nil {
			t.Fatal(err)
		}
		defer s.Collect(again.DiffID)
		second, _ := s.Tree(again.DiffID)
		if !bytes.Equal(diff(t, second, DiffOptions{}), canonical.Bytes()) {
			t.Fatal("layer, tree, layer: another tar")
		}
	})
}

// FuzzRecord reads damaged records: an error, never more.
func FuzzRecord(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("needs root")
	}
	s, err := Open(f.TempDir(), Limits{})
	if err != nil {
		f.Fatal(err)
	}
	l, err := apply(s, pack(f, file("a", "1"), file("b", "2"), file("a", "3")))
	if err != nil {
		f.Fatal(err)
	}
	z, err := zstd.NewReader(nil)
	if err != nil {
		f.Fatal(err)
	}
	name := filepath.Join(s.dir(l.DiffID), recordName)
	packed, err := os.ReadFile(name)
	if err != nil {
		f.Fatal(err)
	}
	plain, err := z.DecodeAll(packed, nil)
	if err != nil {
		f.Fatal(err)
	}
	index, err := os.ReadFile(filepath.Join(s.dir(l.DiffID), lostName, lostIndex))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain, index)
	f.Add([]byte(recordMagic+"\x05\x01a"), index)
	f.Add([]byte(recordMagic+"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), []byte("\x00\x0a../../../x"))
	f.Fuzz(func(t *testing.T, record, index []byte) {
		err := errors.Join(os.WriteFile(name, zst(record), 0o600),
			os.WriteFile(filepath.Join(s.dir(l.DiffID), lostName, lostIndex), index, 0o600))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := s.Export(context.Background(), l.DiffID, &out); err == nil && !bytes.Equal(record, plain) && out.Len() == 0 {
			t.Fatal("an empty tar passed")
		}
	})
}

func FuzzApply(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("needs root")
	}
	seeds(f)
	f.Add(gz(pack(f, file("x", "y").pax(paxXattr+"user.a", "b"))))
	f.Add(zst(pack(f, file("x", "y"))))
	base := f.TempDir()
	canary := filepath.Join(base, "canary")
	os.WriteFile(canary, []byte("x"), 0o600)
	s, err := Open(filepath.Join(base, "root"), Limits{MaxBytes: 1 << 24, MaxEntries: 1000})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := apply(s, data)
		if err == nil {
			if ok, err := deleted(s, l.DiffID); !ok || err != nil {
				t.Fatal(ok, err)
			}
		} else if k := fault.KindOf(err); k == fault.Internal && !errors.Is(err, unix.EPERM) {
			t.Fatalf("unclassified: %v", err)
		}
		s.Flush()
		if entries, _ := os.ReadDir(filepath.Join(s.layers, ".tmp")); len(entries) != 0 {
			t.Fatal("left something behind")
		}
		if entries, _ := os.ReadDir(base); len(entries) != 2 {
			t.Fatal("escaped")
		}
	})
}
