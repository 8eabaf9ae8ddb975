package volume

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"berth/internal/metadata"

	"golang.org/x/sys/unix"
)

func openStore(t *testing.T, root string) (*Store, *metadata.DB) {
	t.Helper()
	db, err := metadata.Open(filepath.Join(root, "db"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(db, filepath.Join(root, "volumes"))
	if err != nil {
		t.Fatal(err)
	}
	return s, db
}

func TestVolumesWithoutARecordAreSwept(t *testing.T) {
	root := t.TempDir()
	s, db := openStore(t, root)
	for _, name := range []string{"saved", "lost"} {
		fresh, err := s.Make(Volume{Name: name})
		if err != nil || !fresh {
			t.Fatalf("%s: %v %v", name, fresh, err)
		}
		if err := os.WriteFile(filepath.Join(s.Path(name), "f"), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Update(func(tx *metadata.Tx) error { return s.Put(tx, []Volume{{Name: "saved"}}) }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s, db = openStore(t, root)
	defer db.Close()
	if list := s.List(); len(list) != 1 || list[0].Name != "saved" {
		t.Errorf("volumes after a restart: %v", list)
	}
	if _, err := os.Stat(filepath.Join(root, "volumes", "lost")); !os.IsNotExist(err) {
		t.Errorf("the directory without a record is still there: %v", err)
	}
	if fresh, err := s.Make(Volume{Name: "saved"}); err != nil || fresh {
		t.Errorf("a known volume is new: %v %v", fresh, err)
	}
	if text, err := os.ReadFile(filepath.Join(s.Path("saved"), "f")); err != nil || string(text) != "x" {
		t.Errorf("the saved volume's file: %q %v", text, err)
	}
	if err := s.Drop("saved"); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Get("saved"); ok {
		t.Error("still there after Drop")
	}
}

func TestPopulateKeepsWhatFilesAre(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes files of other users and devices")
	}
	root := t.TempDir()
	src := filepath.Join(root, "image")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(src, "sub"), 0o755))
	must(os.Chown(src, 33, 44))
	must(os.Chmod(src, 0o770|os.ModeSticky))
	must(os.WriteFile(filepath.Join(src, "f"), []byte("hello"), 0o600))
	must(os.Chown(filepath.Join(src, "f"), 5, 6))
	must(os.Chmod(filepath.Join(src, "f"), 0o755|os.ModeSetuid))
	must(os.Link(filepath.Join(src, "f"), filepath.Join(src, "sub", "again")))
	must(os.Symlink("/etc/passwd", filepath.Join(src, "link")))
	must(unix.Mknod(filepath.Join(src, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(unix.Mkfifo(filepath.Join(src, "fifo"), 0o644))
	must(unix.Setxattr(filepath.Join(src, "f"), "user.berth", []byte("kept"), 0))

	s, db := openStore(t, root)
	defer db.Close()
	_, err := s.Make(Volume{Name: "v1"})
	must(err)
	d, err := os.Open(src)
	must(err)
	defer d.Close()
	to, err := s.OpenDir("v1", "")
	must(err)
	defer to.Close()
	must(Populate(context.Background(), to, d))

	dst := s.Path("v1")
	stat := func(name string) syscall.Stat_t {
		t.Helper()
		var st syscall.Stat_t
		must(syscall.Lstat(filepath.Join(dst, name), &st))
		return st
	}
	if st := stat("."); st.Uid != 33 || st.Gid != 44 || st.Mode&0o7777 != 0o1770 {
		t.Errorf("root: %+v", st)
	}
	f := stat("f")
	if f.Uid != 5 || f.Gid != 6 || f.Mode&0o7777 != 0o4755 || f.Nlink != 2 || stat("sub/again").Ino != f.Ino {
		t.Errorf("file: %+v", f)
	}
	if text, err := os.ReadFile(filepath.Join(dst, "f")); err != nil || string(text) != "hello" {
		t.Errorf("content: %q %v", text, err)
	}
	if to, err := os.Readlink(filepath.Join(dst, "link")); err != nil || to != "/etc/passwd" {
		t.Errorf("link: %q %v", to, err)
	}
	if st := stat("null"); st.Mode&syscall.S_IFMT != syscall.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("device: %+v", st)
	}
	buf := make([]byte, 16)
	if n, err := unix.Getxattr(filepath.Join(dst, "f"), "user.berth", buf); err != nil || string(buf[:n]) != "kept" {
		t.Errorf("attribute: %q %v", buf[:max(n, 0)], err)
	}
}
