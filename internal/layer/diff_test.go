package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

func diff(t testing.TB, upper string, o DiffOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Diff(context.Background(), upper, &b, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// describe lists everything about a tree that a layer must keep.
func describe(t testing.TB, root string) []string {
	t.Helper()
	var lines []string
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		whiteout := st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
		if whiteout {
			lines = append(lines, fmt.Sprintf("%q whiteout", rel))
			return nil
		}
		line := fmt.Sprintf("%q %o %d:%d %d.%d rdev=%d", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, st.Rdev)
		if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
			if first[st.Ino] == "" {
				first[st.Ino] = rel
			}
			line += " link to " + first[st.Ino]
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += " " + digest.FromBytes(data).Encoded()
		case unix.S_IFLNK:
			target, _ := os.Readlink(p)
			line += " -> " + target
		}
		attrs, err := readXattrs(p)
		if err != nil {
			return err
		}
		var names []string
		for name, value := range attrs {
			names = append(names, fmt.Sprintf("%s=%q", name, value))
		}
		slices.Sort(names)
		lines = append(lines, line+" "+strings.Join(names, " "))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func sameTree(t testing.TB, got, want string) {
	t.Helper()
	a, b := describe(t, got), describe(t, want)
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			t.Fatalf("%s\nis not\n%s", a[i], b[i])
		}
	}
	if len(a) != len(b) {
		t.Fatalf("%d files are not %d: %v", len(a), len(b), append(a[min(len(a), len(b)):], b[min(len(a), len(b)):]...))
	}
}

// TestLayerTreeLayer: the same diff gives the same digest, by all ways that
// lead from a directory to a layer and back, for many random directories.
func TestLayerTreeLayer(t *testing.T) {
	needRoot(t)
	root := diskDir(t)
	s := openStore(t, root)
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			upper := filepath.Join(root, fmt.Sprintf("upper%d", seed))
			os.Mkdir(upper, 0o755)
			rng := rand.New(rand.NewPCG(seed, 1))
			randomTree(t, upper, rng, 10+rng.IntN(80))
			randomMarks(t, upper, rng)
			data := diff(t, upper, DiffOptions{})
			if !bytes.Equal(data, diff(t, upper, DiffOptions{})) {
				t.Fatal("the second time it is another")
			}
			l := checkExact(t, s, data)
			tree, _ := s.Tree(l.DiffID)
			if !bytes.Equal(data, diff(t, tree, DiffOptions{})) {
				t.Fatal("the tree gives another tar")
			}
			other := openStore(t, filepath.Join(root, fmt.Sprintf("other%d", seed)))
			h := other.Hold()
			defer h.Release()
			committed, err := h.Commit(context.Background(), upper, DiffOptions{})
			if err != nil || committed != l {
				t.Fatalf("committed %+v, %v\nunpacked %+v", committed, err, l)
			}
			third := openStore(t, filepath.Join(root, fmt.Sprintf("third%d", seed)))
			h = third.Hold()
			defer h.Release()
			adopted, err := h.Adopt(context.Background(), upper, DiffOptions{})
			if err != nil || adopted != l {
				t.Fatalf("adopted %+v, %v\nunpacked %+v", adopted, err, l)
			}
			if _, err := os.Lstat(upper); !os.IsNotExist(err) {
				t.Errorf("upper is still there: %v", err)
			}
			mine, _ := third.Tree(l.DiffID)
			sameTree(t, mine, tree)
			if got := exported(t, third, l.DiffID); !bytes.Equal(got, data) {
				t.Error("what was adopted is exported differently")
			}
			if err := third.Verify(context.Background(), l.DiffID); err != nil {
				t.Error(err)
			}
		})
	}
}

// randomMarks puts into a directory what overlayfs and running programs leave.
func randomMarks(t testing.TB, root string, rng *rand.Rand) {
	t.Helper()
	var dirs []string
	filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && p != root {
			dirs = append(dirs, p)
		}
		return err
	})
	for _, d := range dirs {
		var err error
		switch rng.IntN(6) {
		case 0:
			err = unix.Lsetxattr(d, "trusted.overlay.opaque", []byte("y"), 0)
		case 1:
			err = unix.Lsetxattr(d, "user.overlay.opaque", []byte("y"), 0)
		case 2:
			err = unix.Mknod(filepath.Join(d, "hidden"), unix.S_IFCHR, 0)
		case 3:
			var l net.Listener
			if l, err = net.Listen("unix", filepath.Join("/proc/self/fd", fmt.Sprint(openDir(t, d)), "socket")); err == nil {
				l.(*net.UnixListener).SetUnlinkOnClose(false)
				l.Close()
			}
		case 4:
			err = unix.Lsetxattr(d, "trusted.overlay.origin", []byte("\x00\xfb"), 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func openDir(t testing.TB, d string) int {
	t.Helper()
	fd, err := unix.Open(d, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// TestDiffWritesDockersForms looks at the entries themselves.
func TestDiffWritesDockersForms(t *testing.T) {
	needRoot(t)
	u := diskDir(t)
	os.Mkdir(u+"/d", 0o750)
	os.WriteFile(u+"/d/f", []byte("abc"), 0o4755)
	os.Chmod(u+"/d/f", 0o755|os.ModeSetuid)
	os.Link(u+"/d/f", u+"/d/g")
	os.Symlink("f", u+"/d/l")
	unix.Mknod(u+"/d/gone", unix.S_IFCHR, 0)
	os.Mkdir(u+"/o", 0o755)
	unix.Lsetxattr(u+"/o", "trusted.overlay.opaque", []byte("y"), 0)
	unix.Mknod(u+"/o/superfluous", unix.S_IFCHR, 0)
	epoch := time.Unix(1000, 0)
	var got []string
	for tr := tar.NewReader(bytes.NewReader(diff(t, u, DiffOptions{Epoch: &epoch}))); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %c %o %d %s", h.Name, h.Typeflag, h.Mode, h.ModTime.Unix(), h.Linkname))
	}
	want := []string{"d/ 5 750 1000 ", "d/f 0 4755 1000 ", "d/g 1 4755 1000 d/f", "d/.wh.gone 0 600 0 ", "d/l 2 777 1000 f",
		"o/ 5 755 1000 ", "o/.wh..wh..opq 0 600 0 "}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDiffRefusesByName(t *testing.T) {
	needRoot(t)
	for name, spoil := range map[string]func(p string) error{
		"d/.wh.x": func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"d/redirected": func(p string) error {
			os.Mkdir(p, 0o755)
			return unix.Lsetxattr(p, "trusted.overlay.redirect", []byte("/x"), 0)
		},
		"d/metacopy": func(p string) error {
			os.WriteFile(p, nil, 0o600)
			return unix.Lsetxattr(p, "trusted.overlay.metacopy", nil, 0)
		},
	} {
		u := diskDir(t)
		os.Mkdir(u+"/d", 0o755)
		if err := spoil(filepath.Join(u, name)); err != nil {
			t.Fatal(err)
		}
		if err := Diff(context.Background(), u, io.Discard, DiffOptions{}); !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDiffOptions(t *testing.T) {
	needRoot(t)
	root := diskDir(t)
	s := openStore(t, root)
	base, err := apply(s, pack(t, dir("./").with(func(h *tar.Header) { h.Mode = 0o711 }), file("f", "x")))
	if err != nil {
		t.Fatal(err)
	}
	upper := func(mode os.FileMode) string {
		u, err := os.MkdirTemp(root, "u")
		if err != nil {
			t.Fatal(err)
		}
		os.Chmod(u, mode)
		os.MkdirAll(u+"/proc/x", 0o755)
		os.WriteFile(u+"/a", []byte("new"), 0o644)
		return u
	}
	var skipped []string
	o := DiffOptions{Parents: []digest.Digest{base.DiffID}, Exclude: func(p string) bool { return p == "proc" },
		Skipped: func(p, why string) { skipped = append(skipped, p) }}
	h := s.Hold()
	defer h.Release()
	for mode, entry := range map[os.FileMode]bool{0o711: false, 0o700: true} {
		u := upper(mode)
		if l, err := net.Listen("unix", u+"/socket"); err == nil {
			defer l.Close()
		}
		l, err := h.Adopt(context.Background(), u, o)
		if err != nil || l.RootEntry != entry {
			t.Errorf("%o: %+v, %v", mode, l, err)
		}
		tree, _ := s.Tree(l.DiffID)
		if got := listing(t, tree); !slices.Equal(got, []string{"a=new"}) || !slices.Equal(skipped, []string{"socket"}) {
			t.Errorf("got %v, skipped %v", got, skipped)
		}
		skipped = nil
	}
}

// TestAdoptOfARealContainersLayer has a shell work in an overlay, makes a layer
// of it and looks whether the stack of layers shows the same files.
func TestAdoptOfARealContainersLayer(t *testing.T) {
	needRoot(t)
	s := openStore(t, diskDir(t))
	base, err := apply(s, pack(t, dir("etc"), file("etc/a", "1"), file("etc/b", "2"), dir("var"), dir("var/lib"), file("var/lib/x", "3"),
		file("var/lib/y", "4"), dir("tmp").with(func(h *tar.Header) { h.Mode = 0o1777 }), file("opt/tool", "5"), hard("opt/link", "opt/tool"), sym("s", "etc/a")))
	if err != nil {
		t.Fatal(err)
	}
	merged := mountOverlay(t, s, "c1", []digest.Digest{base.DiffID})
	script := `set -e; cd "$0"
		rm etc/a; echo new > etc/c; chmod 600 etc/b
		rm -r var/lib; mkdir var/lib; echo again > var/lib/z
		rm s; mkdir s; echo in > s/f
		mkfifo tmp/fifo; ln etc/c tmp/hard; ln -s nowhere tmp/dangling
		chown 12:34 opt/tool; touch -d 1969-05-05T01:02:03.456789 opt/tool
		mv opt opt2 2>/dev/null || { cp -a opt opt2; rm -r opt; }
		truncate -s 5M tmp/sparse; printf end >> tmp/sparse`
	if out, err := exec.Command("sh", "-c", script, merged).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := describe(t, merged)
	changes := changesOf(t, s, "c1", []digest.Digest{base.DiffID})
	if err := unix.Unmount(merged, 0); err != nil {
		t.Fatal(err)
	}
	h := s.Hold()
	defer h.Release()
	l, err := h.Adopt(context.Background(), filepath.Join(s.containers, "c1", "upper"), DiffOptions{Parents: []digest.Digest{base.DiffID}})
	if err != nil {
		t.Fatal(err)
	}
	again := mountOverlay(t, s, "c2", []digest.Digest{base.DiffID, l.DiffID})
	if got := describe(t, again); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err := s.Verify(context.Background(), l.DiffID); err != nil {
		t.Error(err)
	}
	wantChanges := []string{"C /etc", "D /etc/a", "C /etc/b", "A /etc/c", "D /opt", "A /opt2", "A /opt2/link", "A /opt2/tool", "C /s", "A /s/f", "C /tmp", "A /tmp/dangling",
		"A /tmp/fifo", "A /tmp/hard", "A /tmp/sparse", "C /var", "C /var/lib", "D /var/lib/x", "D /var/lib/y", "A /var/lib/z"}
	if !slices.Equal(changes, wantChanges) {
		t.Errorf("changes\n%q, want\n%q", changes, wantChanges)
	}
}

// TestExportTree writes a whole root.
func TestExportTree(t *testing.T) {
	needRoot(t)
	s := openStore(t, diskDir(t))
	base, err := apply(s, pack(t, file("a", "1"), file("b", "2")))
	if err != nil {
		t.Fatal(err)
	}
	merged := mountOverlay(t, s, "c1", []digest.Digest{base.DiffID})
	os.Remove(merged + "/a")
	os.WriteFile(merged+"/.wh.c", []byte("a strange name"), 0o600)
	os.Mkdir(merged+"/mnt", 0o755)
	if err := unix.Mount("inner", merged+"/mnt", "tmpfs", 0, "mode=700"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(merged+"/mnt", unix.MNT_DETACH)
	os.WriteFile(merged+"/mnt/secret", nil, 0o600)
	var b bytes.Buffer
	if err := ExportTree(context.Background(), merged, &b); err != nil {
		t.Fatal(err)
	}
	var names []string
	for tr := tar.NewReader(&b); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if !slices.Equal(names, []string{".wh.c", "b", "mnt/"}) {
		t.Errorf("got %q", names)
	}
}
