package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// TestWhiteouts checks the forms that overlayfs understands, in every order.
func TestWhiteouts(t *testing.T) {
	needRoot(t)
	for _, tc := range []struct {
		name string
		ents []ent
		want []string
	}{
		{"a file", []ent{file("d/.wh.f", "")}, []string{"d/", "d/f c0:0"}},
		{"opaque", []ent{dir("d"), file("d/.wh..wh..opq", ""), file("d/f", "x")}, []string{"d/ opaque=y", "d/f=x"}},
		{"opaque after", []ent{file("d/f", "x"), file("d/.wh..wh..opq", ""), dir("d")}, []string{"d/ opaque=y", "d/f=x"}},
		{"opaque makes whiteouts superfluous", []ent{file("d/.wh.f", ""), file("d/.wh..wh..opq", "")}, []string{"d/ opaque=y"}},
		{"hidden and made anew", []ent{file(".wh.f", ""), file("f", "new")}, []string{"f=new"}},
		{"made anew and hidden", []ent{file("f", "new"), file(".wh.f", "")}, []string{"f=new"}},
		{"directory hidden and made anew", []ent{file(".wh.d", ""), dir("d"), file("d/f", "x")}, []string{"d/ opaque=y", "d/f=x"}},
		{"directory made anew and hidden", []ent{dir("d"), file("d/f", "x"), file(".wh.d", "")}, []string{"d/ opaque=y", "d/f=x"}},
		{"twice", []ent{file(".wh.f", ""), file(".wh.f", "")}, []string{"f c0:0"}},
		{"as a symlink", []ent{sym(".wh.f", "x")}, []string{"f c0:0"}},
		{"names that only look so", []ent{file("a.wh.b", "x"), file(".whx", "y")}, []string{".whx=y", "a.wh.b=x"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := openStore(t, diskDir(t))
			l, err := apply(s, pack(t, tc.ents...))
			if err != nil {
				t.Fatal(err)
			}
			tree, _ := s.Tree(l.DiffID)
			if got := listing(t, tree); !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// TestEverythingSurvives unpacks one of each and looks at all of it.
func TestEverythingSurvives(t *testing.T) {
	needRoot(t)
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	caps := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	long := strings.Repeat("long/", 60) + "name"
	mtime := time.Unix(1_234_567_890, 123_456_789)
	past := time.Unix(-1_000_000, 0)
	ents := []ent{
		dir("./").with(func(h *tar.Header) { h.Mode = 0o751; h.Uid = 5; h.Gid = 6; h.ModTime = mtime; h.Format = tar.FormatPAX }),
		dir("setgid").with(func(h *tar.Header) { h.Mode = 0o2775; h.Gid = 777; h.ModTime = mtime; h.Format = tar.FormatPAX }),
		file("setgid/f", "x"),
		dir("sticky").with(func(h *tar.Header) { h.Mode = 0o1777 }),
		file("suid", "#!").with(func(h *tar.Header) { h.Mode = 0o4755; h.Uid = 100; h.Gid = 200 }),
		file("caps", "elf").pax(paxXattr+capability, caps).with(func(h *tar.Header) { h.Uid = 7 }),
		file("xattr", "x").pax(paxXattr+"user.colour", "blue"),
		dir("xattrdir").pax(paxXattr+"user.colour", "red"),
		sym("link", "suid").with(func(h *tar.Header) { h.Uid = 9; h.ModTime = mtime; h.Format = tar.FormatPAX }),
		hard("hard", "suid"),
		char("null", 1, 3).with(func(h *tar.Header) { h.Mode = 0o666 }),
		{h: tar.Header{Typeflag: tar.TypeBlock, Name: "block", Mode: 0o660, Devmajor: 8, Devminor: 300, Gid: 6, ModTime: stamp}},
		{h: tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o620, ModTime: stamp}},
		file(long, "deep"),
		file("past", "").with(func(h *tar.Header) { h.ModTime = past; h.Format = tar.FormatPAX }),
		file("bytes\xff", "y"),
		file("unreadable", "z").with(func(h *tar.Header) { h.Mode = 0 }),
		{h: tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "x"}}},
	}
	s := openStore(t, diskDir(t))
	data := pack(t, ents...)
	l, err := apply(s, data)
	if err != nil {
		t.Fatal(err)
	}
	if l.DiffID != digest.FromBytes(data) || !l.RootEntry || l.SkippedXattrs != 0 || l.Entries != int64(len(ents)) {
		t.Errorf("recorded %+v", l)
	}
	tree, _ := s.Tree(l.DiffID)
	for p, want := range map[string]string{
		".":          "40751 5:6",
		"setgid":     "42775 0:777",
		"setgid/f":   "100644 0:0",
		"sticky":     "41777 0:0",
		"suid":       "104755 100:200",
		"caps":       "100644 7:0",
		"link":       "120777 9:0",
		"null":       "20666 0:0",
		"block":      "60660 0:6",
		"fifo":       "10620 0:0",
		"long":       "40755 0:0",
		"unreadable": "100000 0:0",
		"bytes\xff":  "100644 0:0",
		long:         "100644 0:0",
	} {
		st := stat(t, filepath.Join(tree, p))
		if got := fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid); got != want {
			t.Errorf("%q is %s, want %s", p, got, want)
		}
	}
	for p, want := range map[string]time.Time{".": mtime, "setgid": mtime, "link": mtime, "past": past, "suid": stamp, "xattrdir": stamp, "null": stamp} {
		st := stat(t, filepath.Join(tree, p))
		if got := time.Unix(st.Mtim.Unix()); !got.Equal(want) {
			t.Errorf("%q is of %v, want %v", p, got, want)
		}
	}
	for p, want := range map[string][2]string{"caps": {capability, caps}, "xattr": {"user.colour", "blue"}, "xattrdir": {"user.colour", "red"}} {
		if got := xattrOf(filepath.Join(tree, p), want[0]); got != want[1] {
			t.Errorf("%s of %q is %q, want %q", want[0], p, got, want[1])
		}
	}
	if a, b := stat(t, filepath.Join(tree, "suid")), stat(t, filepath.Join(tree, "hard")); a.Ino != b.Ino || a.Nlink != 2 {
		t.Error("the hard link is a copy")
	}
	if st := stat(t, filepath.Join(tree, "block")); unix.Major(st.Rdev) != 8 || unix.Minor(st.Rdev) != 300 {
		t.Errorf("block device is %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
}

func TestSparseFilesStaySparse(t *testing.T) {
	needRoot(t)
	s := openStore(t, diskDir(t))
	l, err := apply(s, sparseTar("s", 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	tree, _ := s.Tree(l.DiffID)
	st := stat(t, filepath.Join(tree, "s"))
	if st.Size != 1<<30 || st.Blocks*512 > 1<<20 {
		t.Errorf("size %d in %d bytes of disk", st.Size, st.Blocks*512)
	}
	f, err := os.Open(filepath.Join(tree, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head := make([]byte, 520)
	if _, err := f.ReadAt(head, 0); err != nil || head[511] != 'D' || head[512] != 0 {
		t.Errorf("data %q, %v", head[508:516], err)
	}
}

// TestOverlayOfLayers mounts what Lower and Writable return and looks at it
// through the kernel's eyes.
func TestOverlayOfLayers(t *testing.T) {
	needRoot(t)
	s := openStore(t, diskDir(t))
	var ids []digest.Digest
	for _, ents := range [][]ent{
		{dir("./").with(func(h *tar.Header) { h.Mode = 0o711; h.Gid = 50 }), file("keep", "1"), file("gone", "1"), file("d/old", "1"), file("sub/old", "1"), file("changed", "1")},
		{file(".wh.gone", ""), dir("d"), file("d/.wh..wh..opq", ""), file("d/new", "2"), file("sub/.wh.old", ""), file("changed", "2")},
		{file("top", "3")},
	} {
		l, err := apply(s, pack(t, ents...))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, l.DiffID)
	}
	merged := mountOverlay(t, s, "c1", append(ids, ids[2])) // the top layer twice, as empty ones often are
	want := []string{"changed=2", "d/", "d/new=2", "keep=1", "sub/", "top=3"}
	if got := listing(t, merged); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if st := stat(t, merged); st.Mode&0o7777 != 0o711 || st.Gid != 50 {
		t.Errorf("the root is %o of group %d", st.Mode, st.Gid)
	}
	if err := os.WriteFile(filepath.Join(merged, "written"), make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := s.WritableSize("c1"); err != nil || n != 1000 {
		t.Errorf("size %d, %v", n, err)
	}
}

// TestOpaqueRootHidesAllBelow: the kernel itself does not look at a root's
// opaque attribute.
func TestOpaqueRootHidesAllBelow(t *testing.T) {
	needRoot(t)
	s := openStore(t, diskDir(t))
	a, _ := apply(s, pack(t, file("below", "1")))
	b, err := apply(s, pack(t, file(".wh..wh..opq", ""), file("f", "2")))
	if err != nil {
		t.Fatal(err)
	}
	merged := mountOverlay(t, s, "c1", []digest.Digest{a.DiffID, b.DiffID})
	if got := listing(t, merged); !slices.Equal(got, []string{"f=2"}) {
		t.Errorf("got %q", got)
	}
}

func TestFiveHundredLayers(t *testing.T) {
	needRoot(t)
	s := openStore(t, diskDir(t))
	var ids []digest.Digest
	for i := range MaxLower + 1 {
		l, err := apply(s, pack(t, file(fmt.Sprintf("f%03d", i), "x"), file("last", fmt.Sprint(i))))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, l.DiffID)
	}
	merged := mountOverlay(t, s, "c1", ids[:MaxLower])
	if got := listing(t, merged); len(got) != MaxLower+1 || got[len(got)-1] != "last=499" {
		t.Errorf("%d files, %v", len(got), got[len(got)-1])
	}
	if _, err := s.Lower(ids); err == nil || !strings.Contains(err.Error(), "501") {
		t.Errorf("501 layers: %v", err)
	}
}

// mountOverlay mounts a container's root the way the runtime does.
func mountOverlay(t *testing.T, s *Store, id string, ids []digest.Digest) string {
	t.Helper()
	lower, err := s.Lower(ids)
	if err != nil {
		t.Fatal(err)
	}
	upper, work, err := s.Writable(id, ids)
	if err != nil {
		t.Fatal(err)
	}
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Skipf("no overlay here: %v", err)
	}
	defer unix.Close(fs)
	set := func(key, value string) {
		t.Helper()
		if err := unix.FsconfigSetString(fs, key, value); err != nil {
			t.Fatalf("%s=%s: %v", key, value, err)
		}
	}
	for _, d := range lower {
		set("lowerdir+", d)
	}
	set("upperdir", upper)
	set("workdir", work)
	if err := unix.FsconfigCreate(fs); err != nil {
		t.Fatal(err)
	}
	m, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(m)
	at := t.TempDir()
	if err := unix.MoveMount(m, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

// TestCacheOfDirectories goes through more directories than the cache holds,
// back and forth, with links between them.
func TestCacheOfDirectories(t *testing.T) {
	needRoot(t)
	var ents []ent
	const n = 3 * dirCacheSize
	for i := range n {
		ents = append(ents, file(fmt.Sprintf("d%d/x/y/f", i), fmt.Sprint(i)))
	}
	for i := range n {
		ents = append(ents, hard(fmt.Sprintf("d%d/x/h", i), fmt.Sprintf("d%d/x/y/f", (i*7)%n)))
		ents = append(ents, sym(fmt.Sprintf("s%d", i), fmt.Sprintf("d%d/x", i)), file(fmt.Sprintf("s%d/y/g", i), fmt.Sprint(i)))
	}
	s := openStore(t, diskDir(t))
	l, err := apply(s, pack(t, ents...))
	if err != nil {
		t.Fatal(err)
	}
	tree, _ := s.Tree(l.DiffID)
	for i := range n {
		for p, want := range map[string]int{"d%d/x/y/f": i, "d%d/x/h": (i * 7) % n, "d%d/x/y/g": i} {
			data, err := os.ReadFile(filepath.Join(tree, fmt.Sprintf(p, i)))
			if err != nil || string(data) != fmt.Sprint(want) {
				t.Fatalf("%s: %q, %v", fmt.Sprintf(p, i), data, err)
			}
		}
	}
}

// TestPackings reads what the distribution's compressors write, several members
// included.
func TestPackings(t *testing.T) {
	needRoot(t)
	plain := pack(t, file("a", strings.Repeat("abc", 100_000)), file("b", "x"))
	half := len(plain) / 2
	want := digest.FromBytes(plain)
	for name, data := range map[string][]byte{
		"plain": plain, "gzip": gz(plain), "zstd": zst(plain),
		"two gzip members": append(gz(plain[:half]), gz(plain[half:])...),
		"two zstd frames":  append(zst(plain[:half]), zst(plain[half:])...),
		"zeros at the end": append(slices.Clone(plain), make([]byte, 10240)...),
	} {
		s := openStore(t, diskDir(t))
		l, err := s.Apply(context.Background(), "", bytes.NewReader(data))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if l.DiffID != want && name != "zeros at the end" {
			t.Errorf("%s: diffID %s", name, l.DiffID)
		}
		if l.Size != 300_001 {
			t.Errorf("%s: size %d", name, l.Size)
		}
	}
}
