package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// needRoot skips what needs owners, devices and trusted attributes.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("unpacking layers sets owners, devices and trusted.* attributes, which needs root")
	}
}

// diskDir returns a directory on a file system with trusted.* attributes, which
// a tmpfs on /tmp may lack.
func diskDir(t testing.TB) string {
	t.Helper()
	return t.TempDir()
}

func openStore(t testing.TB, root string) *Store {
	t.Helper()
	s, err := Open(root, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// ent is an entry of a test archive.
type ent struct {
	h    tar.Header
	data string
}

var stamp = time.Unix(1_600_000_000, 0)

func dir(name string) ent {
	return ent{h: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, ModTime: stamp}}
}

func file(name, data string) ent {
	return ent{h: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: stamp}, data: data}
}

func sym(name, target string) ent {
	return ent{h: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777, ModTime: stamp}}
}

func hard(name, target string) ent {
	return ent{h: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644, ModTime: stamp}}
}

func char(name string, major, minor int64) ent {
	return ent{h: tar.Header{Typeflag: tar.TypeChar, Name: name, Mode: 0o600, Devmajor: major, Devminor: minor, ModTime: stamp}}
}

func (e ent) with(f func(*tar.Header)) ent {
	f(&e.h)
	return e
}

func (e ent) pax(kv ...string) ent {
	e.h.PAXRecords = map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		e.h.PAXRecords[kv[i]] = kv[i+1]
	}
	return e
}

// pack writes a tar. Headers that archive/tar would not write are its own
// business: see rawHeader.
func pack(t testing.TB, ents ...ent) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range ents {
		if err := w.WriteHeader(&e.h); err != nil {
			t.Fatalf("entry %q: %v", e.h.Name, err)
		}
		if _, err := w.Write([]byte(e.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// rawHeader builds a header block by hand.
func rawHeader(typeflag byte, name, size, linkname string) []byte {
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], "0000644\x00")
	copy(b[108:], "0000000\x00")
	copy(b[116:], "0000000\x00")
	copy(b[124:136], size)
	copy(b[136:], "00000000000\x00")
	b[156] = typeflag
	copy(b[157:], linkname)
	copy(b[257:], "ustar\x0000")
	return checksum(b)
}

// checksum puts the right checksum into a header block.
func checksum(b []byte) []byte {
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// snapshot describes everything below a directory, so that two of them differ
// when anything at all was touched.
func snapshot(t testing.TB, root string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		line := fmt.Sprintf("%q ino=%d mode=%o uid=%d gid=%d nlink=%d rdev=%d mtime=%d.%d ctime=%d.%d", rel, st.Ino, st.Mode, st.Uid, st.Gid,
			st.Nlink, st.Rdev, st.Mtim.Sec, st.Mtim.Nsec, st.Ctim.Sec, st.Ctim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %x", sha256.Sum256(data))
		case unix.S_IFLNK:
			target, _ := os.Readlink(p)
			line += " -> " + target
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

// listing describes a tree by its paths: type, and what matters of each.
func listing(t testing.TB, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			line := rel + "/"
			if v := xattrOf(p, opaqueXattr); v != "" {
				line += " opaque=" + v
			}
			out = append(out, line)
		case unix.S_IFLNK:
			target, _ := os.Readlink(p)
			out = append(out, rel+" -> "+target)
		case unix.S_IFCHR:
			out = append(out, fmt.Sprintf("%s c%d:%d", rel, unix.Major(st.Rdev), unix.Minor(st.Rdev)))
		case unix.S_IFBLK:
			out = append(out, fmt.Sprintf("%s b%d:%d", rel, unix.Major(st.Rdev), unix.Minor(st.Rdev)))
		case unix.S_IFIFO:
			out = append(out, rel+" fifo")
		default:
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if len(data) > 40 {
				data = []byte(fmt.Sprintf("%d bytes", len(data)))
			}
			out = append(out, rel+"="+string(data))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func xattrOf(p, name string) string {
	buf := make([]byte, 256)
	n, err := unix.Lgetxattr(p, name, buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

func apply(s *Store, data []byte) (Layer, error) {
	return s.Apply(context.Background(), "", bytes.NewReader(data))
}

// leftovers returns what is in the store's directories beside whole layers.
func leftovers(t testing.TB, s *Store) []string {
	t.Helper()
	s.Flush()
	var out []string
	for _, sub := range []string{".tmp", ".trash"} {
		entries, err := os.ReadDir(filepath.Join(s.layers, sub))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			out = append(out, sub+"/"+e.Name())
		}
	}
	return out
}

func stat(t testing.TB, p string) *syscall.Stat_t {
	t.Helper()
	fi, err := os.Lstat(p)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t)
}

// writeMany writes a tar of many small files that differs with the seed.
func writeMany(w io.Writer, seed int) {
	tw := tar.NewWriter(w)
	for i := range manyFiles {
		data := fmt.Sprintf("%d/%d", seed, i)
		tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("f%d", i), Mode: 0o644, Size: int64(len(data))})
		tw.Write([]byte(data))
	}
	tw.Close()
}

// deleted collects a layer and reports whether it was there and is gone.
func deleted(s *Store, d digest.Digest) (bool, error) {
	had := s.Has(d)
	_, err := s.Collect(d)
	return had && !s.Has(d), err
}
