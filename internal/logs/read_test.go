package logs

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// plain is a format for tests: the text alone.
type plain struct{ entry Entry }

func (p *plain) NewEncoder() Encoder           { return p }
func (p *plain) NewDecoder() Decoder           { return new(plain) }
func (p *plain) Set(string, []byte, time.Time) {}
func (p *plain) Append(dst, line []byte, _ bool) []byte {
	return append(append(dst, line...), '\n')
}
func (p *plain) Decode(line []byte) *Entry {
	p.entry.Line = line
	return &p.entry
}

func newWriter(t *testing.T, path string, l Limits) *Writer {
	t.Helper()
	w, err := OpenWriter(path, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close(); w.Stop() })
	return w
}

// follow reads in the background and returns what was read once done is closed.
func follow(t *testing.T, path string) (done chan struct{}, result func() []string) {
	done = make(chan struct{})
	var got []string
	var group sync.WaitGroup
	group.Go(func() {
		err := Read(t.Context(), new(plain), path, ReadOptions{Tail: -1, Follow: true, Done: done}, func(e Entry) error {
			got = append(got, strings.TrimSuffix(string(e.Line), "\n"))
			return nil
		})
		if err != nil {
			t.Errorf("follow: %v", err)
		}
	})
	return done, func() []string { group.Wait(); return got }
}

func TestManyFollowersShareOneInstance(t *testing.T) {
	dir := t.TempDir()
	var numbers []string
	for i := range 30 {
		numbers = append(numbers, fmt.Sprint(i))
	}
	var dones []chan struct{}
	var results []func() []string
	for i := range 300 { // more than the 128 instances a user may have
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprint(i%3)), 0o700); err != nil {
			t.Fatal(err)
		}
		done, result := follow(t, filepath.Join(dir, fmt.Sprint(i%3), "x.log"))
		dones, results = append(dones, done), append(results, result)
	}
	for i := range 3 {
		w := newWriter(t, filepath.Join(dir, fmt.Sprint(i), "x.log"), Limits{MaxSize: 10, MaxFiles: 50})
		for _, text := range numbers {
			if w.Room() == 0 {
				if err := w.Rotate(w.Inode()); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Append([]byte(text + "\n")); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range dones {
		close(dones[i])
		if got := results[i](); !reflect.DeepEqual(got, numbers) {
			t.Fatalf("follower %d: %v", i, got)
		}
	}
	watchers.mu.Lock()
	defer watchers.mu.Unlock()
	if watchers.file != nil || len(watchers.dirs) != 0 {
		t.Error("the inotify instance stays open with nobody following")
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("a\nb"), []byte("x"), []byte{0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0, 20, 0, 'B', 'L', 16}, 1)
	f.Add([]byte("\n\n\n"), []byte{}, []byte{}, 0)
	f.Fuzz(func(t *testing.T, current, older, zipped []byte, tail int) {
		path := filepath.Join(t.TempDir(), "l")
		if os.WriteFile(path, current, 0o600) != nil || os.WriteFile(path+".1", older, 0o600) != nil || os.WriteFile(path+".2.gz", zipped, 0o600) != nil {
			t.Skip("no space")
		}
		n := 0
		if err := Read(t.Context(), new(plain), path, ReadOptions{Tail: tail}, func(Entry) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		if tail >= 0 && n > tail {
			t.Fatalf("%d entries, at most %d were wanted", n, tail)
		}
	})
}
