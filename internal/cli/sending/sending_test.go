package sending

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/internal/wire/manifest"
)

// inHome gives the test a cache directory of its own.
func inHome(t *testing.T) string {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	return t.TempDir()
}

func write(t *testing.T, path, text string, age time.Duration) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-age)
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o644), os.Chtimes(path, at, at)); err != nil {
		t.Fatal(err)
	}
}

func scan(t *testing.T, name, dir string) ([]manifest.Entry, *cache) {
	t.Helper()
	c := openCache(name)
	list, err := c.scan(context.Background(), dir, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := manifest.Check(list); err != nil {
		t.Fatal(err)
	}
	return list, c
}

func TestListsAreThoseOfTheDirectory(t *testing.T) {
	dir := inHome(t)
	write(t, filepath.Join(dir, "a-b"), "x", 0)
	write(t, filepath.Join(dir, "a/b"), "y", 0)
	write(t, filepath.Join(dir, "skip/keep/c"), "z", 0)
	write(t, filepath.Join(dir, "skip/d"), "z", 0)
	write(t, filepath.Join(dir, ".dockerignore"), "skip\n!skip/keep\n", 0)
	if err := errors.Join(os.Link(filepath.Join(dir, "a/b"), filepath.Join(dir, "second")), os.Symlink("/etc", filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	list, _ := scan(t, "slot", dir)
	var got []string
	for _, e := range list {
		got = append(got, fmt.Sprint(e.Path, " ", e.Kind, e.Target))
	}
	want := []string{".dockerignore 2", "a 1", "a/b 2", "a-b 2", "link 3/etc", "second 4a/b", "skip 1", "skip/keep 1", "skip/keep/c 2"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

// Files that look as they did are not read: only then is one whose content was
// changed without a trace listed as it was.
func TestFilesThatLookTheSameAreNotRead(t *testing.T) {
	dir := inHome(t)
	path := filepath.Join(dir, "a")
	write(t, path, "one", time.Hour)
	first, c := scan(t, "slot", dir)
	k := c.known["a"]
	k.version = versionAt(t, path)
	c.known["a"] = k
	first[0].Digest = [32]byte{1}
	c.dirty = true
	c.save(first)
	second, c := scan(t, "slot", dir)
	if second[0].Digest != [32]byte{1} {
		t.Error("the file was read again")
	}
	write(t, path, "two", time.Hour) // as large, and of the same time
	if third, _ := scan(t, "slot", dir); third[0].Digest == second[0].Digest {
		t.Error("the change was not noticed")
	}
	damaged := c.path()
	data, err := os.ReadFile(damaged)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(data)
	flipped[len(magic)+5] ^= 1
	for _, text := range [][]byte{nil, data[:len(data)/2], flipped} {
		if err := os.WriteFile(damaged, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if c := openCache("slot"); c.list != nil || len(c.known) > 0 {
			t.Errorf("%d damaged bytes are believed", len(text))
		}
	}
}

func versionAt(t *testing.T, path string) version {
	t.Helper()
	c, err := openContent(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.f.Close()
	return c.before
}

func TestSettled(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		changed time.Time
		want    bool
	}{
		{now.Add(-time.Millisecond), false}, {now.Add(-100*time.Millisecond - 1), true}, {now.Add(-time.Second), false}, {now.Add(-3 * time.Second), true}, {now.Add(time.Hour), false},
	} {
		v := version{Mtime: 5, Ctime: c.changed.UnixNano()}
		if v.settled(now) != c.want {
			t.Errorf("%v before: %v", now.Sub(c.changed), !c.want)
		}
	}
}

// received reads what a sender sends.
func received(t *testing.T, d *Directory) (string, manifest.Entry, error) {
	t.Helper()
	e := d.list[0]
	var got bytes.Buffer
	err := manifest.ReadContent(bufio.NewReader(d.Reader()), &got, &e)
	return got.String(), e, err
}

func TestFilesThatChangeAreSentAsTheyAre(t *testing.T) {
	dir := inHome(t)
	path := filepath.Join(dir, "a")
	write(t, path, "one", time.Hour)
	list, c := scan(t, "slot", dir)
	d := &Directory{dir: dir, cache: c, list: list, missing: [][2]int{{0, 1}}}
	if text, e, err := received(t, d); text != "one" || !e.Equal(&list[0]) || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	write(t, path, "another", time.Minute)
	text, e, err := received(t, d)
	if text != "another" || e.Size != 7 || err != nil || !d.list[0].Equal(&e) {
		t.Errorf("%q, %+v, %v", text, e, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(d.Reader()); err == nil || !strings.Contains(err.Error(), "changes while it is being read") {
		t.Errorf("a file that is gone: %v", err)
	}
}

func TestChangesWhileReadingAreNoticed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a")
	for _, change := range []string{"longer than before", "x", "two"} {
		write(t, path, "one", time.Hour)
		c, err := openContent(path)
		if err != nil {
			t.Fatal(err)
		}
		var p [1]byte
		if _, err := c.Read(p[:]); err != nil {
			t.Fatal(err)
		}
		write(t, path, change, time.Hour)
		_, _ = io.ReadAll(c)
		if _, _, same, err := c.end("a"); same || err != nil {
			t.Errorf("%q was not noticed: %v", change, err)
		}
	}
}

func TestSecretsAreKeptAndDiffer(t *testing.T) {
	inHome(t)
	one, kept, err := keyFor("tcp://one")
	again, _, _ := keyFor("tcp://one")
	other, _, _ := keyFor("tcp://other")
	if err != nil || !kept || one != again || one == other || len(one) != 64 {
		t.Errorf("%q, %q, %q, %v", one, again, other, err)
	}
	if err := os.WriteFile(filepath.Join(home(), "secret"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := keyFor("tcp://one"); err == nil || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("a damaged secret: %v", err)
	}
	t.Setenv("XDG_CACHE_HOME", "/proc/nowhere")
	one, kept, err = keyFor("tcp://one")
	if again, _, _ = keyFor("tcp://one"); err != nil || kept || one == again {
		t.Errorf("nowhere to keep it: %q, %q, %v, %v", one, again, kept, err)
	}
}
