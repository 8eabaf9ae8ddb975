package rootview

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/fault"

	"golang.org/x/sys/unix"
)

// tree writes files (path to content; "-> target" makes a link, "dir" a
// directory) below a new directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, path)
		} else if content == "dir" {
			err = os.MkdirAll(path, 0o755)
		} else if content == "whiteout" {
			err = unix.Mknod(path, unix.S_IFCHR, 0)
		} else {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func read(v *View, path string) (string, error) {
	f, err := v.OpenFile(path, 1<<20)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	return string(text), err
}

func TestView(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts an overlay")
	}
	base := tree(t, map[string]string{
		"etc/passwd": "base", "etc/group": "base", "etc/shadow": "base",
		"out": "-> /etc/passwd", "climb": "-> ../../../../../../etc/passwd", "host": "-> /host-only",
		"loop": "-> loop", "d": "dir",
	})
	top := tree(t, map[string]string{"etc/group": "top", "etc/shadow": "whiteout"})
	for _, layers := range [][]string{{top, base}, {base}} {
		v, err := Open(layers)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		group := "top"
		if len(layers) == 1 {
			group = "base"
		}
		for path, want := range map[string]string{
			"/etc/passwd": "base", "/etc/group": group, "/out": "base",
			// ".." at the root stays at the root, as in a chroot.
			"/climb": "base", "/../../etc/passwd": "base",
		} {
			if got, err := read(v, path); err != nil || got != want {
				t.Errorf("%d layers: %s is %q, %v", len(layers), path, got, err)
			}
		}
		for _, path := range []string{"/missing", "/host", "/loop", "/d", "/d/x"} {
			if got, err := read(v, path); err == nil {
				t.Errorf("%d layers: %s is %q", len(layers), path, got)
			}
		}
		if _, err := v.OpenDir("/missing"); !fault.Is(err, fault.NotFound) {
			t.Errorf("a missing directory: %v", err)
		}
		d, err := v.OpenDir("/etc")
		if err != nil {
			t.Fatal(err)
		}
		names, err := d.Readdirnames(-1)
		d.Close()
		want := 2 // the whiteout hides shadow
		if len(layers) == 1 {
			want = 3
		}
		if err != nil || len(names) != want {
			t.Errorf("%d layers: /etc has %v, %v", len(layers), names, err)
		}
	}
}

func TestOnlyRegularFilesAreOpened(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes a device")
	}
	dir := tree(t, map[string]string{"big": strings.Repeat("x", 100)})
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(filepath.Join(dir, "zero"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); err != nil {
		t.Fatal(err)
	}
	v, err := Open([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, name := range []string{"/fifo", "/zero", "/"} {
		if _, err := v.OpenFile(name, 1<<20); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := v.OpenFile("/big", 99); !fault.Is(err, fault.Invalid) {
		t.Errorf("a file above the limit: %v", err)
	}
}
