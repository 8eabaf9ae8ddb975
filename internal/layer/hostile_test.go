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

// hostile is the corpus of archives that try to do harm. Those without an
// expected error are harmless once unpacked by the rules, and say what must be
// there.
func hostile(t *testing.T, canary string) []struct {
	name string
	tar  []byte
	err  error
	want []string
} {
	deep := strings.Repeat("d/", 2100)
	type c = struct {
		name string
		tar  []byte
		err  error
		want []string
	}
	rel := "../../../../../../../../../.." + canary
	p := func(ents ...ent) []byte { return pack(t, ents...) }
	return []c{
		{"parent name", p(file("../evil", "x")), ErrTraversal, nil},
		{"parent name inside", p(file("a/../../evil", "x")), ErrTraversal, nil},
		{"absolute parent name", p(file("/../evil", "x")), ErrTraversal, nil},
		{"parent directory", p(dir("../evil")), ErrTraversal, nil},
		{"long way up", p(file(rel+"/evil", "x")), ErrTraversal, nil},
		{"absolute name is taken as relative", p(file(canary+"/evil", "x")), nil, nil},
		{"dots that stay inside", p(file("a/./b/../c", "x")), nil, []string{"a/", "a/c=x"}},

		{"symlink up", p(sym("l", "../../x")), ErrTraversal, nil},
		{"symlink up from below", p(sym("a/b/l", "../../../x")), ErrTraversal, nil},
		{"symlink up to the root is fine", p(sym("a/b/l", "../../x")), nil, []string{"a/", "a/b/", "a/b/l -> ../../x"}},
		{"absolute symlink is data", p(sym("l", canary)), nil, []string{"l -> " + canary}},
		{"file through absolute symlink", p(sym("l", canary), file("l/evil", "x")), nil, nil},
		{"directory through absolute symlink", p(sym("l", canary), dir("l/d")), nil, nil},
		{"file through symlink to /", p(sym("l", "/"), file("l/evil", "x")), nil, []string{"evil=x", "l -> /"}},
		{"file through symlink climbing by another", p(dir("a"), dir("a/b"), sym("a/b/up", "../.."), sym("x", "a/b/up/.."), file("x/evil", "y")), ErrTraversal, nil},
		{"symlink loop", p(sym("a", "b"), sym("b", "a"), file("a/x", "x")), ErrField, nil},
		{"symlink to itself", p(sym("a", "a"), file("a/x", "x")), ErrField, nil},
		{"file over symlink replaces it", p(sym("l", canary+"/file"), file("l", "new")), nil, []string{"l=new"}},
		{"directory over symlink replaces it", p(sym("l", canary), dir("l"), file("l/f", "x")), nil, []string{"l/", "l/f=x"}},
		{"symlink over directory, then through it", p(dir("d"), file("d/f", "1"), sym("d", canary), file("d/g", "2")), nil, nil},
		{"empty symlink", p(file("a", "")), nil, []string{"a="}},
		{"device through symlink", p(sym("l", canary), char("l/dev", 1, 3)), nil, nil},
		{"whiteout through symlink", p(sym("l", canary), file("l/.wh.file", "")), nil, nil},
		{"opaque through symlink", p(sym("l", canary), file("l/.wh..wh..opq", "")), nil, nil},
		{"attributes through symlink", p(sym("l", canary), dir("l/.").with(func(h *tar.Header) { h.Mode = 0o777 })), nil, []string{"l/"}},
		{"symlink then symlink's own mode", p(sym("l", canary+"/file").with(func(h *tar.Header) { h.Mode = 0o4777; h.Uid = 1234 })), nil, []string{"l -> " + canary + "/file"}},

		{"hard link up", p(hard("l", "../../etc/passwd")), ErrTraversal, nil},
		{"hard link to absolute name stays inside", p(hard("l", canary+"/file")), ErrLink, nil},
		{"hard link to nothing", p(hard("l", "nothing")), ErrLink, nil},
		{"hard link through symlink out", p(sym("d", canary), hard("l", "d/file")), ErrLink, nil},
		{"hard link to symlink out, then write", p(sym("s", canary+"/file"), hard("l", "s"), file("l", "evil")), nil, []string{"l=evil", "s -> " + canary + "/file"}},
		{"hard link to directory", p(dir("d"), hard("l", "d")), ErrLink, nil},
		{"hard link to whiteout", p(file(".wh.x", ""), hard("l", "x")), ErrLink, nil},
		{"hard link to whiteout's name", p(file(".wh.x", ""), hard("l", ".wh.x")), ErrLink, nil},
		{"hard link to itself", p(file("f", "x"), hard("f", "f")), nil, []string{"f=x"}},
		{"hard link over what holds its target", p(dir("d"), file("d/f", "x"), hard("d", "d/f")), ErrLink, nil},
		{"hard link to the root", p(hard("l", ".")), ErrLink, nil},
		{"hard link then overwrite keeps the first", p(file("a", "1"), hard("b", "a"), file("b", "2")), nil, []string{"a=1", "b=2"}},

		{"whiteout of dot dot", p(file(".wh...", "")), ErrWhiteout, nil},
		{"whiteout of dot", p(file(".wh..", "")), ErrWhiteout, nil},
		{"whiteout of nothing", p(file(".wh.", "")), ErrWhiteout, nil},
		{"whiteout below", p(file("d/.wh...", "")), ErrWhiteout, nil},
		{"reserved whiteout", p(file(".wh..wh.evil", "")), ErrWhiteout, nil},
		{"whiteout of a whiteout", p(file(".wh..wh..opq.x", "")), ErrWhiteout, nil},
		{"whiteout as directory", p(dir(".wh.d")), ErrWhiteout, nil},
		{"file inside whiteout", p(file(".wh.d/f", "x")), ErrWhiteout, nil},
		{"file inside made whiteout", p(file(".wh.d", ""), file("d/f", "x")), ErrField, nil},
		{"aufs' own files", p(dir(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", "x"), file(".wh..wh.aufs", "")), nil, []string{}},

		{"device that is a whiteout", p(char("d", 0, 0)), ErrReserved, nil},
		{"device with impossible number", p(char("d", 1<<12, 0)), ErrDevice, nil},
		{"device with impossible minor", p(char("d", 1, 1<<20)), ErrDevice, nil},
		{"overlay attribute", p(dir("d").pax(paxXattr+"trusted.overlay.redirect", "/etc")), ErrReserved, nil},
		{"overlay attribute on a file", p(file("d", "").pax(paxXattr+"trusted.overlay.metacopy", "")), ErrReserved, nil},
		{"overlay attribute on the root", p(dir("./").pax(paxXattr+"trusted.overlay.opaque", "y")), ErrReserved, nil},

		{"root as a file", p(file(".", "x")), ErrEntryType, nil},
		{"root as a symlink", p(sym("./", canary)), ErrEntryType, nil},
		{"owner that means keep", p(file("f", "").with(func(h *tar.Header) { h.Uid = 1<<32 - 1 })), ErrField, nil},
		{"owner beyond", p(file("f", "").with(func(h *tar.Header) { h.Gid = 1 << 40 })), ErrField, nil},
		{"negative size", append(rawHeader('0', "f", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00", ""), make([]byte, 1024)...), ErrCorrupt, nil},
		{"size that is no number", append(rawHeader('0', "f", "zzzzzzzzzzz\x00", ""), make([]byte, 1024)...), ErrCorrupt, nil},
		{"huge size", append(rawHeader('0', "f", "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff", ""), make([]byte, 1024)...), ErrTooLarge, nil},
		{"unknown type", append(rawHeader('Z', "f", "00000000000\x00", ""), make([]byte, 1024)...), ErrEntryType, nil},
		{"name of more than a name's length", p(file(strings.Repeat("n", 300), "x")), ErrField, nil},
		{"path of more than a path's length", p(file(deep+"f", "x")), ErrField, nil},
		{"deep by way of a symlink", p(dir(strings.Repeat("d/", 1900)), sym("l", strings.Repeat("d/", 1900)), file("l/"+strings.Repeat("e/", 300)+"f", "x")), ErrField, nil},
		{"newline in the name", p(file("a\nb", "x")), nil, []string{"a\nb=x"}},
		{"not UTF-8", p(file("a\xff\xfeb", "x")), nil, []string{"a\xff\xfeb=x"}},
		{"file where a directory is needed", p(file("a", "x"), file("a/b", "y")), ErrField, nil},
		{"file replaces directory", p(dir("a"), file("a/b", "1"), file("a", "x")), nil, []string{"a=x"}},
		{"directory replaces file", p(file("a", "x"), dir("a"), file("a/b", "1")), nil, []string{"a/", "a/b=1"}},
		{"duplicate file: the last wins", p(file("a", "1"), file("a", "2")), nil, []string{"a=2"}},
		{"no tar at all", []byte(strings.Repeat("this is no archive. ", 100)), ErrCorrupt, nil},
		{"header cut", p(file("a", "x"))[:300], ErrCorrupt, nil},
		{"data cut", p(file("a", strings.Repeat("x", 5000)))[:1024], ErrCorrupt, nil},
		{"xz", append([]byte{0xfd, '7', 'z', 'X', 'Z', 0}, make([]byte, 100)...), ErrCompressor, nil},
		{"gzip of nothing readable", []byte{0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0, 0, 0xff, 1, 2, 3}, ErrCorrupt, nil},
		{"garbage after gzip", append(gz(p(file("a", "x"))), "garbage"...), ErrCorrupt, nil},
	}
}

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

// sparseTar is an archive with one file in the old GNU sparse format: a block
// of data at its beginning and the rest a hole.
func sparseTar(name string, size int64) []byte {
	h := rawHeader('S', name, "00000001000\x00", "")
	copy(h[257:], "ustar  \x00")
	copy(h[386:], fmt.Sprintf("%011o\x00%011o\x00", 0, 512)) // first fragment
	if size < 1<<33 {
		copy(h[386+24:], fmt.Sprintf("%011o\x00%011o\x00", size, 0)) // end
		copy(h[483:], fmt.Sprintf("%011o\x00", size))
	} else { // base 256
		big := make([]byte, 12)
		big[0] = 0x80
		for i, v := 11, size; v > 0; i, v = i-1, v>>8 {
			big[i] = byte(v)
		}
		copy(h[386+24:], append(big, []byte("00000000000\x00")...))
		copy(h[483:], big)
	}
	copy(h[148:], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	out := append(h, bytes.Repeat([]byte("D"), 512)...)
	return append(out, make([]byte, 1024)...)
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

func FuzzApply(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("needs root")
	}
	f.Add(pack(f, dir("a"), file("a/b", "x"), sym("l", "a"), hard("h", "a/b"), file("a/.wh.c", ""), file("a/.wh..wh..opq", ""), char("c", 1, 3)))
	f.Add(gz(pack(f, file("x", "y").pax(paxXattr+"user.a", "b"))))
	f.Add(sparseTar("s", 1<<20))
	f.Add(rawHeader('0', "f", "\xff\xff", ""))
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
		} else if k := fault.KindOf(err); k == fault.Internal && !errors.Is(err, os.ErrPermission) {
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
