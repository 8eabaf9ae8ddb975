package archive

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// entry is one entry of a handmade archive.
type entry struct {
	name string
	kind byte
	text string // content, or where a link leads
	mode int64
}

func tarOf(t testing.TB, entries ...entry) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: e.mode, Uid: os.Getuid(), Gid: os.Getgid(), ModTime: time.Unix(1000, 0)}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if e.kind == tar.TypeReg {
			h.Size = int64(len(e.text))
		} else {
			h.Linkname = e.text
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if e.kind == tar.TypeReg {
			if _, err := w.Write([]byte(e.text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// snapshot describes a tree, one line a file.
func snapshot(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		line := rel + " " + info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += " " + string(text)
		case info.Mode()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(path)
			line += " " + target
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTreesSurviveTheTrip(t *testing.T) {
	t.Parallel()
	src := filepath.Join(t.TempDir(), "src")
	for _, dir := range []string{"", "locked", "empty"} {
		if err := os.MkdirAll(filepath.Join(src, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	long := strings.Repeat("n", 200) + "\xff\n"
	for name, text := range map[string]string{"a": "one", "locked/b": "two", long: "three", "big": strings.Repeat("x", 1<<20)} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{os.Symlink("/outside", filepath.Join(src, "link")), os.Link(filepath.Join(src, "a"), filepath.Join(src, "second")),
		unix.Mkfifo(filepath.Join(src, "pipe"), 0o600), os.Chmod(filepath.Join(src, "locked"), 0o500),
		os.Chtimes(filepath.Join(src, "empty"), time.Unix(5, 7), time.Unix(5, 7))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(src, "locked"), 0o700) })
	for _, name := range []string{"src", "other", "."} {
		var b bytes.Buffer
		n, err := Pack(&b, src, name)
		if err != nil || n != 1<<20+11 {
			t.Fatalf("%d bytes, %v", n, err)
		}
		target := filepath.Join(t.TempDir(), "target")
		n, err = Extract(&b, target, Options{})
		if err != nil || n != 1<<20+11 {
			t.Fatalf("%d bytes, %v", n, err)
		}
		t.Cleanup(func() { _ = os.Chmod(filepath.Join(target, "locked"), 0o700) })
		if got, want := snapshot(t, target), snapshot(t, src); !slices.Equal(got, want) {
			t.Errorf("as %q: got\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		first, _ := os.Stat(filepath.Join(target, "a"))
		second, _ := os.Stat(filepath.Join(target, "second"))
		if !os.SameFile(first, second) {
			t.Error("a hard link became a copy")
		}
		if info, _ := os.Stat(filepath.Join(target, "empty")); !info.ModTime().Equal(time.Unix(5, 7)) {
			t.Errorf("time %v", info.ModTime())
		}
	}
}

func TestSingleFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target := filepath.Join(dir, "renamed")
	for _, text := range []string{"first", "second"} { // the second time it is there
		if n, err := Extract(tarOf(t, entry{"name", tar.TypeReg, text, 0o644}), target, Options{}); err != nil || n != int64(len(text)) {
			t.Fatal(n, err)
		}
		if got, _ := os.ReadFile(target); string(got) != text {
			t.Errorf("got %q", got)
		}
	}
	if _, err := Extract(tarOf(t, entry{"name", tar.TypeReg, "x", 0}, entry{"name/inner", tar.TypeReg, "x", 0}), target, Options{}); err == nil {
		t.Error("a file with something below it was accepted")
	}
	if _, err := Extract(&bytes.Buffer{}, target, Options{}); err == nil {
		t.Error("an empty archive was accepted")
	}
}

// TestHostileArchivesStayBelowTheTarget extracts what a malicious container may
// send, beside a canary that must not change.
func TestHostileArchivesStayBelowTheTarget(t *testing.T) {
	t.Parallel()
	dir, link, file, hard := byte(tar.TypeDir), byte(tar.TypeSymlink), byte(tar.TypeReg), byte(tar.TypeLink)
	for name, entries := range map[string][]entry{
		"dots":                      {{"d/", dir, "", 0}, {"d/../../canary", file, "evil", 0}},
		"absolute":                  {{"d/", dir, "", 0}, {"/canary", file, "evil", 0}},
		"another top":               {{"d/", dir, "", 0}, {"canary", file, "evil", 0}},
		"through a link":            {{"d/", dir, "", 0}, {"d/l", link, "..", 0}, {"d/l/canary", file, "evil", 0}},
		"through an absolute link":  {{"d/", dir, "", 0}, {"d/l", link, "CANARY", 0}, {"d/l", file, "evil", 0}},
		"into a link to a file":     {{"d/", dir, "", 0}, {"d/l", link, "../canary", 0}, {"d/l", file, "evil", 0}},
		"hard link out":             {{"d/", dir, "", 0}, {"d/h", hard, "../canary", 0}, {"d/h", file, "evil", 0}},
		"hard link by another name": {{"d/", dir, "", 0}, {"d/l", link, "..", 0}, {"d/h", hard, "d/l/canary", 0}},
		"mode through a link":       {{"d/", dir, "", 0}, {"d/l", link, "..", 0}, {"d/l/", dir, "", 0o777}},
		"top is a link":             {{"d", link, "..", 0}, {"d/canary", file, "evil", 0}},
		"device":                    {{"d/", dir, "", 0}, {"d/null", tar.TypeChar, "", 0o666}},
		"dot top":                   {{"./", dir, "", 0}, {"./../canary", file, "evil", 0}},
		"directory becomes a link":  {{"d/", dir, "", 0}, {"d/x/", dir, "", 0o700}, {"d/x", link, "..", 0}, {"d/x/canary", file, "evil", 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			canary := filepath.Join(home, "canary")
			if err := os.WriteFile(canary, []byte("good"), 0o600); err != nil {
				t.Fatal(err)
			}
			for i := range entries {
				entries[i].text = strings.ReplaceAll(entries[i].text, "CANARY", canary)
			}
			before := snapshot(t, home)[0]
			_, err := Extract(tarOf(t, entries...), filepath.Join(home, "target"), Options{Owners: true})
			t.Log(err)
			info, statErr := os.Lstat(canary)
			text, _ := os.ReadFile(canary)
			if statErr != nil || string(text) != "good" || info.Mode() != 0o600 || snapshot(t, home)[0] != before {
				t.Errorf("the canary is %q, %v, %v", text, info, statErr)
			}
			if stat, ok := info.Sys().(interface{ Nlink() uint64 }); ok && stat.Nlink() > 1 {
				t.Error("the canary has another name now")
			}
			if entries[len(entries)-1].kind == tar.TypeChar {
				if _, err := os.Lstat(filepath.Join(home, "target", "null")); err == nil {
					t.Error("a device was made")
				}
			}
		})
	}
}

func TestRightsComeWithTheOwnerOnly(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	setuid := func() *bytes.Buffer {
		return tarOf(t, entry{"d/", tar.TypeDir, "", 0o755}, entry{"d/su", tar.TypeReg, "x", 0o4755})
	}
	for _, c := range []struct {
		target string
		owners bool
		want   fs.FileMode
	}{{"plain", false, 0o755}, {"archive", true, 0o755 | fs.ModeSetuid}} {
		if _, err := Extract(setuid(), filepath.Join(home, c.target), Options{Owners: c.owners}); err != nil {
			t.Fatal(err)
		}
		if info, _ := os.Stat(filepath.Join(home, c.target, "su")); info.Mode() != c.want {
			t.Errorf("%s: mode %v", c.target, info.Mode())
		}
	}
	mine := filepath.Join(home, "mine")
	if err := os.Mkdir(mine, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Extract(tarOf(t, entry{"d/", tar.TypeDir, "", 0o777}, entry{"d/a", tar.TypeReg, "x", 0}), mine, Options{}); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(mine); info.Mode().Perm() != 0o700 {
		t.Errorf("the mode of a directory that was there became %v", info.Mode())
	}
	if _, err := Extract(tarOf(t, entry{"d/", tar.TypeDir, "", 0}, entry{"d/a/", tar.TypeDir, "", 0}), mine, Options{}); err == nil {
		t.Error("a file was replaced by a directory")
	}
}

func TestPackTellsWhatItCannotRead(t *testing.T) {
	t.Parallel()
	if _, err := Pack(&bytes.Buffer{}, filepath.Join(t.TempDir(), "none"), "x"); !os.IsNotExist(err) {
		t.Errorf("got %v", err)
	}
}

func FuzzExtract(f *testing.F) {
	f.Add(tarOf(f, entry{"d/", tar.TypeDir, "", 0}, entry{"d/a", tar.TypeReg, "x", 0}, entry{"d/l", tar.TypeSymlink, "../x", 0}).Bytes())
	f.Add(tarOf(f, entry{"./", tar.TypeDir, "", 0}, entry{"./h", tar.TypeLink, "./a", 0}).Bytes())
	f.Fuzz(func(t *testing.T, text []byte) {
		home := t.TempDir()
		_, _ = Extract(bytes.NewReader(text), filepath.Join(home, "target"), Options{})
		entries, err := os.ReadDir(home)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != "target" {
				t.Errorf("made %s", e.Name())
			}
		}
	})
}
