package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

func exported(t testing.TB, s *Store, d digest.Digest) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Export(context.Background(), d, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// checkExact unpacks an archive and writes it again.
func checkExact(t *testing.T, s *Store, data []byte) Layer {
	t.Helper()
	l, err := apply(s, data)
	if err != nil {
		t.Fatal(err)
	}
	if !l.Exact {
		t.Fatalf("not exact: %s", l.Inexact)
	}
	if got := exported(t, s, l.DiffID); !bytes.Equal(got, data) {
		t.Fatalf("exported %d bytes, unpacked %d", len(got), len(data))
	}
	if n, err := s.TarSize(l.DiffID); err != nil || n != int64(len(data)) {
		t.Fatalf("the tar is said to have %d bytes, not %d: %v", n, len(data), err)
	}
	if err := s.Verify(context.Background(), l.DiffID); err != nil {
		t.Fatal(err)
	}
	return l
}

// TestExportOfHostileArchives: whatever was accepted can be written again.
func TestExportOfHostileArchives(t *testing.T) {
	needRoot(t)
	s := openStore(t, diskDir(t))
	for _, tc := range hostile(t, t.TempDir()) {
		if tc.err != nil || strings.Contains(tc.name, "gzip") {
			continue
		}
		t.Run(tc.name, func(t *testing.T) { checkExact(t, s, tc.tar) })
	}
}

// TestExportOfReplacedContent: the tar has what the tree has no place for.
func TestExportOfReplacedContent(t *testing.T) {
	needRoot(t)
	s := openStore(t, diskDir(t))
	for name, ents := range map[string][]ent{
		"twice":                   {file("f", "one"), file("f", "two")},
		"the same twice":          {file("f", "one"), file("f", "one")},
		"three times":             {file("f", "1"), file("f", "22"), file("f", "333")},
		"by a symlink":            {file("f", "one"), sym("f", "g")},
		"by a link":               {file("f", "one"), file("g", "two"), hard("f", "g")},
		"with a link left":        {file("f", "one"), hard("g", "f"), file("f", "two"), file("g", "three")},
		"directory by file":       {dir("d"), file("d/a", "1"), file("d/e/b", "2"), file("d", "3"), dir("d"), file("d/a", "4")},
		"in a replaced directory": {file("d/a", "1"), file("d/a", "2"), sym("d", "x"), dir("d"), file("d/a", "3"), file("d/a", "4")},
		"by way of a symlink":     {file("d/a", "1"), sym("l", "d"), file("l/a", "2")},
		"by a whiteout":           {file("a", "1"), file(".wh.a", ""), file("a", "2")},
		"empty":                   {file("a", ""), file("a", "2"), file("a", "")},
		"whiteout with content":   {file(".wh.a", "content"), file("b", "1")},
		"aufs with content":       {file(".wh..wh.aufs", "content"), file("b", "1")},
		"content type":            {file("a", "1").with(func(h *tar.Header) { h.Typeflag = tar.TypeCont })},
		"other compressor":        {file("a", "1").pax("VENDOR.key", "value", "comment", "hello")},
	} {
		t.Run(name, func(t *testing.T) { checkExact(t, s, pack(t, ents...)) })
	}
	var many []ent
	for i := range 1000 {
		many = append(many, file("f", fmt.Sprint(i)))
	}
	checkExact(t, s, pack(t, many...))
	if s.Flush(); len(leftovers(t, s)) > 0 {
		t.Error("something was left")
	}
}

// TestExportOfManyReplacements: what cannot be exported says so, and costs
// nothing beside its tree.
func TestExportOfManyReplacements(t *testing.T) {
	needRoot(t)
	s := openStore(t, diskDir(t))
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for range mostLosses + 2 {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o644, Size: 1})
		w.Write([]byte("x"))
	}
	w.Close()
	l, err := apply(s, b.Bytes())
	if err != nil || l.Exact || !strings.Contains(l.Inexact, "4096") {
		t.Fatalf("%+v, %v", l, err)
	}
	if err := s.Export(context.Background(), l.DiffID, &b); !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "4096") {
		t.Errorf("got %v", err)
	}
	for _, name := range []string{recordName, lostName} {
		if _, err := os.Lstat(filepath.Join(s.dir(l.DiffID), name)); !os.IsNotExist(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestExportOfOtherArchivers reads tars in all the formats that there are.
func TestExportOfOtherArchivers(t *testing.T) {
	needRoot(t)
	src := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	randomTree(t, src, rng, 60)
	hole, err := os.Create(filepath.Join(src, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{1 << 20, 3 << 20, 9<<20 - 7} {
		hole.WriteAt([]byte("island"), at)
	}
	hole.Truncate(16 << 20)
	hole.Close()
	s := openStore(t, diskDir(t))
	for _, command := range []string{
		"tar --format=gnu -cf -", "tar --format=oldgnu -cf -", "tar --format=pax -cf -", "tar --format=posix --xattrs --acls -cf -",
		"tar --format=ustar -cf -", "tar --format=v7 -cf -", "tar --format=gnu --sparse -cf -", "tar --format=pax --sparse -cf -",
		"tar --format=pax --sparse --sparse-version=0.0 -cf -", "tar --format=pax --sparse --sparse-version=0.1 -cf -",
		"tar --format=pax --sparse --sparse-version=1.0 -cf -", "tar -b 1 -cf -", "tar -b 128 -cf -", "tar --sort=name --no-recursion -cf -", "busybox tar -cf -",
	} {
		args := strings.Fields(command)
		t.Run(command, func(t *testing.T) {
			if _, err := exec.LookPath(args[0]); err != nil {
				t.Skip(err)
			}
			cmd := exec.Command(args[0], append(args[1:], ".")...)
			cmd.Dir = src
			data, err := cmd.Output()
			if len(data) < 1024 {
				t.Skipf("it wrote %d bytes: %v", len(data), err)
			}
			l, err := apply(s, data)
			if errors.Is(err, ErrTraversal) || errors.Is(err, ErrLink) {
				t.Fatalf("refused: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := exported(t, s, l.DiffID); !bytes.Equal(got, data) {
				t.Fatalf("exported %d bytes, unpacked %d", len(got), len(data))
			}
			if err := s.Verify(context.Background(), l.DiffID); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestVerifyNamesTheFile changes a layer on disk, a byte or an attribute.
func TestVerifyNamesTheFile(t *testing.T) {
	needRoot(t)
	for name, spoil := range map[string]func(tree string) error{
		"file/content": func(p string) error {
			return changeKeepingTimes(p+"/file/content", func(p string) error { return os.WriteFile(p, []byte("Xbc"), 0) })
		},
		"file/longer": func(p string) error { return os.WriteFile(p+"/file/longer", []byte("abcd"), 0) },
		"file/gone":   func(p string) error { return os.Remove(p + "/file/gone") },
		"file/empty":  func(p string) error { return os.Remove(p + "/file/empty") },
		"file/mode":   func(p string) error { return os.Chmod(p+"/file/mode", 0o600) },
		"file/owner":  func(p string) error { return os.Chown(p+"/file/owner", 1, 2) },
		"file/time":   func(p string) error { return os.Chtimes(p+"/file/time", stamp, stamp.Add(time.Nanosecond)) },
		"file/xattr":  func(p string) error { return unix.Lsetxattr(p+"/file/xattr", "user.a", []byte("c"), 0) },
		"link":        func(p string) error { return errors.Join(os.Remove(p+"/link"), os.Symlink("elsewhere", p+"/link")) },
		"file/is a link": func(p string) error {
			return errors.Join(os.Remove(p+"/file/is a link"), os.Symlink("content", p+"/file/is a link"))
		},
		"hard": func(p string) error {
			return errors.Join(os.Remove(p+"/hard"), os.WriteFile(p+"/hard", []byte("abc"), 0o644))
		},
		"null": func(p string) error {
			return errors.Join(os.Remove(p+"/null"), unix.Mknod(p+"/null", unix.S_IFCHR|0o600, 0x105))
		},
		"file/.wh": func(p string) error { return os.Remove(p + "/file/hidden") },
		"file":     func(p string) error { return os.Chmod(p+"/file", 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, diskDir(t))
			ents := []ent{dir("file"), sym("link", "file"), char("null", 1, 3), file("file/.wh.hidden", "")}
			for _, f := range []string{"content", "longer", "gone", "mode", "owner", "time", "is a link"} {
				ents = append(ents, file("file/"+f, "abc"))
			}
			ents = append(ents, hard("hard", "file/content"), file("file/empty", ""), file("file/xattr", "x").pax(paxXattr+"user.a", "b"))
			l := checkExact(t, s, pack(t, ents...))
			tree, _ := s.Tree(l.DiffID)
			if err := spoil(tree); err != nil {
				t.Fatal(err)
			}
			err := s.Verify(context.Background(), l.DiffID)
			if !errors.Is(err, ErrDigest) && !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), name) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func changeKeepingTimes(p string, change func(string) error) error {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return err
	}
	err := change(p)
	return errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW))
}
