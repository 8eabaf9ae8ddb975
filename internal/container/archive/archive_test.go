package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/internal/fault"
	"berth/internal/volume"

	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"
)

// plainRoot is a Root of a directory, without mounts.
func plainRoot(t testing.TB, dir string) *Root {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := &Root{dir: fd, space: -1, pid: -1}
	t.Cleanup(r.Close)
	return r
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func link(t testing.TB, to, path string) {
	t.Helper()
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"": "/", "/": "/", "a": "/a", "a/": "/a/", "/a/.": "/a/.", "../../x": "/x", "/a/../b": "/b", "a//b/": "/a/b/", "/.": "/", "..": "/",
	} {
		if got := Clean(in); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestLinksAreResolvedBelowTheRoot(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "real/file"), "x")
	link(t, "/real", filepath.Join(dir, "abs"))
	link(t, "../../../../real/file", filepath.Join(dir, "real/up"))
	link(t, "loop2", filepath.Join(dir, "loop1"))
	link(t, "loop1", filepath.Join(dir, "loop2"))
	link(t, "/gone/further", filepath.Join(dir, "dangling"))
	r := plainRoot(t, dir)
	for name, want := range map[string]string{
		"/abs/up": "/real/file", "/abs": "/real", "/dangling": "/gone/further", "/abs/../abs/new": "/real/new", "/none/x": "/none/x",
	} {
		got, err := r.resolve(name)
		if err != nil || got != want {
			t.Errorf("%s leads to %q, %v; want %q", name, got, err, want)
		}
	}
	if _, err := r.resolve("/loop1"); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a circle of links: %v", err)
	}
	st, err := r.Stat("/abs")
	if err != nil || st.LinkTarget != "/real" || st.Name != "abs" || st.Mode&os.ModeSymlink == 0 {
		t.Errorf("stat of a link: %+v %v", st, err)
	}
	if st, err = r.Stat("/abs/"); err != nil || !st.Mode.IsDir() || st.LinkTarget != "" {
		t.Errorf("stat behind a link: %+v %v", st, err)
	}
	if _, err := r.Stat("/nothing"); !fault.Is(err, fault.NotFound) {
		t.Errorf("stat of nothing: %v", err)
	}
}

// packed returns the names in an archive and the content of its files.
func packed(t testing.TB, r *Root, name string) map[string]string {
	t.Helper()
	var b bytes.Buffer
	if err := r.Pack(context.Background(), name, &b); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for tr := tar.NewReader(&b); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if h.Linkname != "" {
			text = []byte(string(h.Typeflag) + h.Linkname)
		}
		out[h.Name] = string(text)
	}
}

func TestPackedNamesAreDockers(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "d/sub/file"), "text")
	link(t, "sub/file", filepath.Join(dir, "d/link"))
	if err := os.Link(filepath.Join(dir, "d/sub/file"), filepath.Join(dir, "d/sub/hard")); err != nil {
		t.Fatal(err)
	}
	r := plainRoot(t, dir)
	for name, want := range map[string]string{
		"/d":          "d/ d/link d/sub/ d/sub/file d/sub/hard",
		"/d/.":        "./ ./link ./sub/ ./sub/file ./sub/hard",
		"/d/link":     "link",
		"/d/sub/file": "file",
		"/":           "/ /d/ /d/link /d/sub/ /d/sub/file /d/sub/hard",
	} {
		got := packed(t, r, name)
		for _, n := range strings.Fields(want) {
			if _, ok := got[n]; !ok {
				t.Errorf("%s: %q is missing in %v", name, n, got)
			}
		}
		if len(got) != len(strings.Fields(want)) {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := packed(t, r, "/d"); got["d/sub/file"] != "text" || got["d/sub/hard"] != "1d/sub/file" || got["d/link"] != "2sub/file" {
		t.Errorf("content: %v", got)
	}
}

func TestStoppedRootsHaveTheirMountsAndLeaveNone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts")
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "lower/etc/conf"), "image")
	write(t, filepath.Join(dir, "volume/inside"), "volume")
	write(t, filepath.Join(dir, "host/file"), "host")
	link(t, "/run", filepath.Join(dir, "lower/var-run"))
	for _, d := range []string{"upper", "work", "lower/run"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	lower, upper, work := filepath.Join(dir, "lower"), filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	mounts := []volume.Mount{
		{Type: mount.TypeVolume, Source: filepath.Join(dir, "volume"), Destination: "/data"},
		// A mount point below an absolute link still works.
		{Type: mount.TypeBind, Source: filepath.Join(dir, "host"), Destination: "/var-run/host", ReadOnly: true},
	}
	reading := Layers{Lower: []string{upper, lower}, Mounts: mounts}
	if _, err := Stopped(reading); !errors.Is(err, ErrNoMountPoint) {
		t.Fatalf("a read-only view without mount points: %v", err)
	}
	r, err := Stopped(Layers{Lower: []string{lower}, Upper: upper, Work: work, Mounts: mounts})
	if err != nil {
		t.Fatal(err)
	}
	archive := tarOf(t, &tar.Header{Name: "new", Typeflag: tar.TypeReg, Mode: 0o600, Size: 0})
	if err := r.Unpack(t.Context(), "/data", bytes.NewReader(archive), UnpackOptions{}); err != nil {
		t.Error(err)
	}
	if err := r.Unpack(t.Context(), "/run/host", bytes.NewReader(archive), UnpackOptions{}); !fault.Is(err, fault.Forbidden) {
		t.Errorf("into a read-only bind: %v", err)
	}
	r.Close()
	if _, err := os.Stat(filepath.Join(dir, "volume/new")); err != nil {
		t.Error(err)
	}
	if r, err = Stopped(reading); err != nil {
		t.Fatal(err)
	}
	if got := packed(t, r, "/"); got["/data/inside"] != "volume" || got["/run/host/file"] != "host" || got["/etc/conf"] != "image" {
		t.Errorf("the root shows %v", got)
	}
	bare, err := r.Bare()
	if err != nil {
		t.Fatal(err)
	}
	if got := packed(t, bare, "/"); got["/data/inside"] != "" || got["/etc/conf"] != "image" {
		t.Errorf("without mounts the root shows %v", got)
	}
	bare.Close()
	r.Close()
	if infos, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(infos), dir) {
		t.Errorf("mounts are left: %s", infos)
	}
	readOnly := Layers{Lower: []string{lower}, Upper: upper, Work: work, Mounts: mounts, ReadOnly: true}
	if r, err = Stopped(readOnly); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Unpack(t.Context(), "/etc", bytes.NewReader(archive), UnpackOptions{}); !fault.Is(err, fault.Forbidden) {
		t.Errorf("into a read-only root: %v", err)
	}
	if err := r.Unpack(t.Context(), "/data", bytes.NewReader(archive), UnpackOptions{}); err != nil {
		t.Errorf("into a volume of a read-only root: %v", err)
	}
}

func tarOf(t testing.TB, headers ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, h.Size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestUnpackKeepsAttributes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it gives files away")
	}
	dir := t.TempDir()
	r := plainRoot(t, dir)
	at := time.Unix(1_000_000, 0)
	in := tarOf(t,
		&tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o2750, Uid: 3, Gid: 4, ModTime: at},
		&tar.Header{Name: "d/f", Typeflag: tar.TypeReg, Mode: 0o4711, Uid: 5, Gid: 6, ModTime: at, Size: 10,
			PAXRecords: map[string]string{"SCHILY.xattr.user.note": "kept", "SCHILY.xattr.trusted.overlay.opaque": "y"}},
		&tar.Header{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "f", Uid: 7, Gid: 8, ModTime: at},
		&tar.Header{Name: "d/p", Typeflag: tar.TypeFifo, Mode: 0o640, ModTime: at})
	if err := r.Unpack(t.Context(), "/", bytes.NewReader(in), UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct{ mode, uid, gid uint32 }{
		"d": {unix.S_IFDIR | 0o2750, 3, 4}, "d/f": {unix.S_IFREG | 0o4711, 5, 6}, "d/l": {unix.S_IFLNK | 0o777, 7, 8}, "d/p": {unix.S_IFIFO | 0o640, 0, 0},
	} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil || st.Mode != want.mode || st.Uid != want.uid || st.Gid != want.gid || st.Mtim.Sec != at.Unix() {
			t.Errorf("%s: %v mode %o owner %d:%d time %d", name, err, st.Mode, st.Uid, st.Gid, st.Mtim.Sec)
		}
	}
	var value [16]byte
	if n, err := unix.Getxattr(filepath.Join(dir, "d/f"), "trusted.overlay.opaque", value[:]); err == nil {
		t.Errorf("an attribute of overlayfs came through: %q", value[:n])
	}
	// A file takes a directory's place unless that is refused.
	over := tarOf(t, &tar.Header{Name: "d", Typeflag: tar.TypeReg, Mode: 0o644})
	if err := r.Unpack(t.Context(), "/", bytes.NewReader(over), UnpackOptions{KeepKind: true}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a file over a directory: %v", err)
	}
	if err := r.Unpack(t.Context(), "/", bytes.NewReader(over), UnpackOptions{Owner: &Owner{9, 9}}); err != nil {
		t.Error(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(dir, "d"), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Uid != 9 {
		t.Errorf("%v %o %d", err, st.Mode, st.Uid)
	}
}

// Whatever an archive holds, nothing outside of the root changes.
func FuzzUnpackStaysBelowTheRoot(f *testing.F) {
	f.Add(tarOf(f, &tar.Header{Name: "../x", Typeflag: tar.TypeReg, Mode: 0o644, Size: 3}))
	f.Add(tarOf(f, &tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: ".."}, &tar.Header{Name: "l/canary", Typeflag: tar.TypeReg, Mode: 0o644}))
	f.Add(tarOf(f, &tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "/../canary"}))
	f.Add(tarOf(f, &tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, &tar.Header{Name: "d", Typeflag: tar.TypeSymlink, Linkname: "/.."},
		&tar.Header{Name: "d/canary", Typeflag: tar.TypeFifo, Mode: 0o777}))
	f.Fuzz(func(t *testing.T, in []byte) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "canary"), "unharmed")
		root := filepath.Join(dir, "root")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		_ = plainRoot(t, root).Unpack(t.Context(), "/", bytes.NewReader(in), UnpackOptions{})
		text, err := os.ReadFile(filepath.Join(dir, "canary"))
		entries, lerr := os.ReadDir(dir)
		if err != nil || lerr != nil || string(text) != "unharmed" || len(entries) != 2 {
			t.Fatalf("outside: %q %v %v", text, entries, err)
		}
	})
}
