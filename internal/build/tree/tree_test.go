package tree

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

func TestModes(t *testing.T) {
	for _, tt := range []struct {
		spec string
		dir  bool
		in   uint32
		out  uint32
	}{
		{"755", false, 0o600, 0o755}, {"0", false, 0o777, 0}, {"7777", true, 0, 0o7777},
		{"u+x", false, 0o644, 0o744}, {"+x", false, 0o644, 0o755}, {"a-w", false, 0o666, 0o444}, {"go=", false, 0o777, 0o700},
		{"u=rwx,go=rX", false, 0o644, 0o755}, {"a=rX", true, 0o700, 0o555}, {"a+X", false, 0o611, 0o711}, {"g=u", false, 0o750, 0o770},
		{"u+s,g+s,+t", false, 0o755, 0o7755}, {"u+s", true, 0o755, 0o4755}, {"u=r", false, 0o4755, 0o455}, {"u+w-x", false, 0o555, 0o655},
	} {
		m, err := ParseMode(tt.spec)
		if err != nil {
			t.Errorf("%s: %v", tt.spec, err)
			continue
		}
		if got := m.Apply(tt.in, tt.dir); got != tt.out {
			t.Errorf("%s of %o is %o, want %o", tt.spec, tt.in, got, tt.out)
		}
	}
	for _, bad := range []string{"", "8", "10000", "u", "x+r", "u+q", "u+r,", "-1", "=q"} {
		if _, err := ParseMode(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func FuzzMode(f *testing.F) {
	f.Add("u+x,go=rX", uint32(0o644))
	f.Fuzz(func(t *testing.T, s string, mode uint32) {
		m, err := ParseMode(s)
		if err == nil && m.Apply(mode, false)&^0o7777 != 0 {
			t.Errorf("%q gives bits that are no permissions", s)
		}
	})
}

func FuzzIgnore(f *testing.F) {
	f.Add("*\n!a/b\n**/c", "a/b/c")
	f.Fuzz(func(t *testing.T, text, p string) {
		ignore, err := NewIgnorer(strings.Split(text, "\n"))
		if err != nil || ignore == nil {
			return
		}
		_, _, _ = ignore.Ignored(rel(p), nil)
		ignore.Below(rel(p))
	})
}

func open(t testing.TB, dir string, o Options) *Dir {
	t.Helper()
	d, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func rootAt(t testing.TB, dir string) *Root {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := NewRoot(fd, nil)
	t.Cleanup(r.Close)
	return r
}

// copyAll copies the content of a directory.
func copyAll(t testing.TB, from, to string) error {
	t.Helper()
	d := open(t, from, Options{})
	m, err := d.Select(context.Background(), Selection{Src: "/"})
	if err != nil {
		return err
	}
	return rootAt(t, to).Copy(context.Background(), d, m, "/", CopyOptions{})
}

func TestCopiesKeepWhatFilesAre(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: owners and devices")
	}
	from, to := t.TempDir(), t.TempDir()
	at := time.Unix(1234567890, 987654321)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	p := func(name string) string { return filepath.Join(from, name) }
	must(os.Mkdir(p("d"), 0o755))
	must(os.WriteFile(p("d/f"), []byte("x"), 0o644))
	must(os.Link(p("d/f"), p("hard")))
	must(os.Chown(p("d/f"), 12, 34))
	must(os.Chmod(p("d/f"), 0o755|os.ModeSetuid))
	must(unix.Setxattr(p("d/f"), "user.k", []byte("v"), 0))
	must(unix.Setxattr(p("d/f"), "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	must(os.Symlink("../nowhere", p("sym")))
	must(unix.Mkfifo(p("fifo"), 0o640))
	must(unix.Mknod(p("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(os.Chtimes(p("d/f"), at, at))
	must(os.Chmod(p("d"), 0o2711))
	must(os.Chmod(p("d"), 0o711|os.ModeSetgid))
	must(os.Chtimes(p("d"), at, at))
	must(copyAll(t, from, to))
	for _, name := range []string{"d", "d/f", "hard", "sym", "fifo", "null"} {
		var a, b unix.Stat_t
		must(unix.Lstat(p(name), &a))
		must(unix.Lstat(filepath.Join(to, name), &b))
		if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Mtim != b.Mtim || a.Rdev != b.Rdev || a.Nlink != b.Nlink {
			t.Errorf("%s is\n%+v, was\n%+v", name, b, a)
		}
	}
	for _, key := range []string{"user.k", "security.capability"} {
		var b [64]byte
		if n, err := unix.Getxattr(filepath.Join(to, "d/f"), key, b[:]); err != nil || n == 0 {
			t.Errorf("attribute %s: %v", key, err)
		}
	}
}

// TestCopiesWhileLinksAreSwapped copies into and out of a tree while a directory
// in it is exchanged for a link to the host (CVE-2018-15664 and its kind).
func TestCopiesWhileLinksAreSwapped(t *testing.T) {
	host := t.TempDir()
	os.WriteFile(filepath.Join(host, "f"), []byte("host"), 0o644)
	from, to := t.TempDir(), t.TempDir()
	os.MkdirAll(filepath.Join(from, "d"), 0o755)
	os.WriteFile(filepath.Join(from, "d/f"), []byte("mine"), 0o644)
	for _, dir := range []string{from, to} {
		os.MkdirAll(filepath.Join(dir, "d"), 0o755)
		os.Symlink(host, filepath.Join(dir, "link"))
	}
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			for _, dir := range []string{from, to} {
				unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, "d"), unix.AT_FDCWD, filepath.Join(dir, "link"), unix.RENAME_EXCHANGE)
			}
		}
	}()
	for range 1000 {
		_ = copyAll(t, from, to) // may fail, must not stray
		for _, name := range []string{"d/f", "link/f"} {
			data, err := open(t, to, Options{}).ReadFile(name, 100)
			if err == nil && string(data) == "host" {
				t.Fatal("a file of the host was read")
			}
		}
	}
	stop.Store(true)
	<-done
	if data, _ := os.ReadFile(filepath.Join(host, "f")); string(data) != "host" {
		t.Error("a file of the host was written")
	}
	if left, _ := os.ReadDir(host); len(left) != 1 {
		t.Error("files were made on the host")
	}
}

// sums remembers nothing and calls back when it is told something.
type sums func()

func (s sums) Get(string, *unix.Stat_t) (Sum, bool) { return Sum{}, false }
func (s sums) Put(string, *unix.Stat_t, Sum)        { s() }

func TestFilesThatChangeWhileTheyAreRead(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "f")
	os.WriteFile(p, make([]byte, 1<<20), 0o644)
	d := open(t, dir, Options{Flat: true})
	ctx := context.Background()
	m, err := d.Select(ctx, Selection{Src: "f"})
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(p, make([]byte, 1<<19), 0o644)
	if _, _, err := d.Digest(ctx, m); err != nil {
		t.Errorf("a file that changed once is read again: %v", err)
	}
	before := d.o.Sums
	d.o.Sums = sums(func() {})
	os.WriteFile(p, []byte("other"), 0o644)
	err = rootAt(t, t.TempDir()).Copy(ctx, d, m, "/", CopyOptions{})
	if !errors.Is(err, ErrChanged) || !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "f") {
		t.Errorf("a file that is another when it is copied: %v", err)
	}
	if _, _, err := d.Digest(ctx, m); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(p+".new", []byte("OTHER"), 0o644)
	os.Rename(p+".new", p)
	if err = rootAt(t, t.TempDir()).Copy(ctx, d, m, "/", CopyOptions{}); !errors.Is(err, ErrChanged) {
		t.Errorf("a file that another one replaced before it is copied: %v", err)
	}
	d.o.Sums = before
	os.Remove(p)
	os.Symlink("/etc/passwd", p)
	if _, _, err := d.Digest(ctx, m); !errors.Is(err, ErrChanged) {
		t.Errorf("a file that became a link: %v", err)
	}
}

func TestContributing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: trusted attributes")
	}
	base := t.TempDir()
	mk := func(parts ...string) string {
		p := filepath.Join(append([]string{base}, parts...)...)
		os.MkdirAll(p, 0o755)
		return p
	}
	top, mid, low := mk("top"), mk("mid"), mk("low")
	mk("low", "a", "b")
	mk("mid", "a", "b")
	mk("top", "a")
	os.WriteFile(filepath.Join(low, "a/f"), nil, 0o644)
	unix.Mknod(filepath.Join(top, "gone"), unix.S_IFCHR, 0)
	mk("low", "gone", "x")
	unix.Setxattr(mk("mid", "o"), opaque, []byte("y"), 0)
	mk("low", "o", "hidden")
	trees := []string{top, mid, low}
	for p, want := range map[string]string{
		"/": "top mid low", "a": "top/a mid/a low/a", "a/b": "mid/a/b low/a/b", "a/f": "low/a/f", "o": "mid/o",
		"gone": "", "gone/x": "", "o/hidden": "", "nosuch": "",
	} {
		dirs, file, err := Contributing(trees, p)
		if file != "" {
			dirs = []string{file}
		}
		var got []string
		for _, d := range dirs {
			r, _ := filepath.Rel(base, d)
			got = append(got, r)
		}
		if strings.Join(got, " ") != want || (err != nil) != (want == "") {
			t.Errorf("%s: %v %v, want %s", p, got, err, want)
		}
	}
}

func TestHolesInArchives(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int64{"small": 1 << 30, "bomb": 1 << 42} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Skip("the file system has no such large files: ", err)
		}
		f.Close()
		archive, err := exec.Command("tar", "-C", dir, "-S", "-c", name).Output()
		if err != nil {
			t.Skip("needs tar: ", err)
		}
		to := t.TempDir()
		err = rootAt(t, to).Untar(context.Background(), bytes.NewReader(archive), "/", CopyOptions{})
		if name == "bomb" {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("an archive of %d bytes that claims %d: %v", len(archive), size, err)
			}
			continue
		}
		var st unix.Stat_t
		if err != nil || unix.Stat(filepath.Join(to, name), &st) != nil || st.Size != size || st.Blocks > 100 {
			t.Errorf("%v %+v", err, st)
		}
	}
}
