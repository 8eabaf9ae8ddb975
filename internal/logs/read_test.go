package logs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/internal/fault"
)

// put appends lines to a log the way the monitor does; each is a second later.
type put struct {
	t *testing.T
	w *Writer
	n int
}

func newPut(t *testing.T, path string, maxSize int64, maxFiles int) *put {
	t.Helper()
	w, err := OpenWriter(path, maxSize, maxFiles)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return &put{t: t, w: w}
}

func (p *put) line(text string) {
	if p.w.Room() == 0 {
		if err := p.w.Rotate(p.w.Inode()); err != nil {
			p.t.Error(err)
		}
	}
	var e Encoder
	e.Set("stdout", nil, noon.Add(time.Duration(p.n)*time.Second))
	p.n++
	if err := p.w.Append(e.Append(nil, []byte(text), false)); err != nil {
		p.t.Error(err)
	}
}

func (p *put) numbers(from, to int) {
	for i := from; i <= to; i++ {
		p.line(fmt.Sprint(i))
	}
}

func readAll(t *testing.T, path string, opts ReadOptions) []string {
	t.Helper()
	var got []string
	err := Read(t.Context(), path, opts, func(e Entry) error {
		got = append(got, strings.TrimSuffix(string(e.Line), "\n"))
		return nil
	})
	if err != nil {
		t.Errorf("read: %v", err)
	}
	return got
}

func numbers(from, to int) []string {
	var s []string
	for i := from; i <= to; i++ {
		s = append(s, fmt.Sprint(i))
	}
	return s
}

func TestReadThroughRotatedFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x-json.log")
	newPut(t, path, 300, 100).numbers(1, 50) // five lines a file
	if _, err := os.Stat(path + ".9"); err != nil {
		t.Fatalf("not rotated as expected: %v", err)
	}
	at := func(i int) time.Time { return noon.Add(time.Duration(i-1) * time.Second) }
	for _, c := range []struct {
		name string
		opts ReadOptions
		want []string
	}{
		{"all", ReadOptions{Tail: -1}, numbers(1, 50)},
		{"no lines", ReadOptions{Tail: 0}, nil},
		{"last line", ReadOptions{Tail: 1}, numbers(50, 50)},
		{"tail over files", ReadOptions{Tail: 23}, numbers(28, 50)},
		{"tail of all", ReadOptions{Tail: 50}, numbers(1, 50)},
		{"tail of more than all", ReadOptions{Tail: 1000}, numbers(1, 50)},
		{"since", ReadOptions{Tail: -1, Since: at(40)}, numbers(40, 50)},
		{"until", ReadOptions{Tail: -1, Until: at(7)}, numbers(1, 7)},
		{"since and until", ReadOptions{Tail: -1, Since: at(11), Until: at(12)}, numbers(11, 12)},
		{"tail then until", ReadOptions{Tail: 10, Until: at(42)}, numbers(41, 42)},
		{"since the future", ReadOptions{Tail: -1, Since: at(100)}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := readAll(t, path, c.opts); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestRotationKeepsOnlyTheNewestFiles(t *testing.T) {
	for files, want := range map[int]int{1: 0, 2: 1, 3: 2, 5: 4} {
		path := filepath.Join(t.TempDir(), "x-json.log")
		newPut(t, path, 300, files).numbers(1, 98) // the last file holds three
		rest, _ := filepath.Glob(path + ".*")
		if len(rest) != want {
			t.Errorf("%d files allowed: %v beside the current one", files, rest)
		}
		first := 98 - 3 - 5*want + 1
		if got := readAll(t, path, ReadOptions{Tail: -1}); !reflect.DeepEqual(got, numbers(first, 98)) {
			t.Errorf("%d files allowed: got %v, want %d to 98", files, got, first)
		}
		if err := Remove(path); err != nil {
			t.Error(err)
		}
		if rest, _ := filepath.Glob(path + "*"); len(rest) > 0 {
			t.Errorf("left after removal: %v", rest)
		}
	}
}

// A rotation may be killed between any two renames; done again it must lose
// nothing that it should keep.
func TestInterruptedRotationIsCompleted(t *testing.T) {
	for stopped := 0; stopped <= 3; stopped++ {
		path := filepath.Join(t.TempDir(), "x-json.log")
		p := newPut(t, path, 300, 4)
		p.numbers(1, 20) // four files of five lines
		inode := p.w.Inode()
		for i := 3; i > 3-stopped; i-- {
			if err := os.Rename(rotated(path, i-1), rotated(path, i)); err != nil {
				t.Fatal(err)
			}
		}
		again := newPut(t, path, 300, 4)
		if stopped == 3 { // the new current file was made just before the kill
			if again.w.Size() != 0 {
				t.Fatal("the current file is not new")
			}
		}
		if err := again.w.Rotate(inode); err != nil {
			t.Fatal(err)
		}
		again.numbers(21, 22)
		if got := readAll(t, path, ReadOptions{Tail: -1}); !reflect.DeepEqual(got, numbers(6, 22)) {
			t.Errorf("stopped after %d renames: %v", stopped, got)
		}
	}
}

func TestReadSkipsWhatIsDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x-json.log")
	good := func(s string) string { return encodeOne(s, false, "stdout", nil, noon) }
	text := good("1") + "\x00\x00\x00\n" + `{"log":"torn` + "\n" + good("2") + strings.Repeat("x", 5<<20) + "\n" + "[]\n{}\nnull\n\n" + good("3") + `{"log":"unfinished\n","str`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, path, ReadOptions{Tail: -1}); !reflect.DeepEqual(got, numbers(1, 3)) {
		t.Errorf("got %v", got)
	}
	w := newPut(t, path, -1, 1)
	if err := w.w.Mend(); err != nil {
		t.Fatal(err)
	}
	w.line("4")
	if got := readAll(t, path, ReadOptions{Tail: -1}); !reflect.DeepEqual(got, numbers(1, 4)) {
		t.Errorf("after mending: got %v", got)
	}
}

func TestReadOfForeignAndPartialEntries(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x-json.log")
	text := `{"time":"2026-11-03T12:00:00.12Z","log":"\ud83d\ude00\n","attrs":{"a":"b"},"stream":"stderr"}` + "\n" +
		`{"log":"part","stream":"stdout","time":"2026-11-03T13:00:00.12+01:00"}` + "\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var got []Entry
	err := Read(t.Context(), path, ReadOptions{Tail: -1}, func(e Entry) error {
		e.Line = []byte(string(e.Line))
		e.Time = e.Time.UTC()
		got = append(got, e)
		return nil
	})
	want := []Entry{
		{noon, "stderr", []byte("😀\n"), false, map[string]string{"a": "b"}},
		{noon, "stdout", []byte("part"), true, nil},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n got %v\nwant %v", err, got, want)
	}
}

func TestReadOfNoLogIsEmptyAndErrorsEndIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x-json.log")
	if got := readAll(t, path, ReadOptions{Tail: -1}); got != nil {
		t.Errorf("got %v of a log that does not exist", got)
	}
	newPut(t, path, -1, 1).numbers(1, 3)
	stop := errors.New("enough")
	if err := Read(t.Context(), path, ReadOptions{Tail: -1}, func(Entry) error { return stop }); err != stop {
		t.Errorf("got %v, want the callback's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := Read(ctx, path, ReadOptions{Tail: -1, Follow: true}, func(e Entry) error {
		if string(e.Line) == "3\n" {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
}

// follow reads in the background and returns what was read once done is closed.
func follow(t *testing.T, path string, tail int, each func(string)) (done chan struct{}, result func() []string) {
	done = make(chan struct{})
	var got []string
	var group sync.WaitGroup
	group.Go(func() {
		err := Read(t.Context(), path, ReadOptions{Tail: tail, Follow: true, Done: done}, func(e Entry) error {
			got = append(got, strings.TrimSuffix(string(e.Line), "\n"))
			if each != nil {
				each(got[len(got)-1])
			}
			return nil
		})
		if err != nil {
			t.Errorf("follow: %v", err)
		}
	})
	return done, func() []string { group.Wait(); return got }
}

func TestFollowThroughRotationsLosesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x-json.log")
	const lines = 8000
	done, result := follow(t, path, -1, nil)
	newPut(t, path, 2000, 2000).numbers(1, lines)
	close(done)
	if got := result(); !reflect.DeepEqual(got, numbers(1, lines)) {
		t.Errorf("%d lines, want 1 to %d in order", len(got), lines)
	}
}

// With few files a slow follower may miss what was deleted, but never sees a
// line twice or out of order.
func TestFollowBehindDeletedFilesKeepsOrder(t *testing.T) {
	t.Parallel()
	for _, files := range []int{1, 2, 3} {
		path := filepath.Join(t.TempDir(), "x-json.log")
		done, result := follow(t, path, -1, nil)
		newPut(t, path, 1000, files).numbers(1, 20000)
		close(done)
		last := 0
		for _, text := range result() {
			var n int
			if _, err := fmt.Sscan(text, &n); err != nil || n <= last {
				t.Fatalf("%d files: %q after %d", files, text, last)
			}
			last = n
		}
		if last != 20000 {
			t.Errorf("%d files: ended with line %d", files, last)
		}
	}
}

// Each line has to arrive by itself, without a later one pushing it.
func TestFollowDeliversEachLineAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x-json.log")
	arrived := make(chan string)
	done, result := follow(t, path, -1, func(s string) { arrived <- s })
	p := newPut(t, path, 150, 3)
	for i := 1; i <= 20; i++ {
		p.line(fmt.Sprint(i))
		select {
		case got := <-arrived:
			if got != fmt.Sprint(i) {
				t.Fatalf("got %s, want %d", got, i)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("line %d did not arrive", i)
		}
	}
	close(done)
	result()
}

func TestManyFollowersShareOneInstance(t *testing.T) {
	dir := t.TempDir()
	var dones []chan struct{}
	var results []func() []string
	for i := range 300 { // more than the 128 instances a user may have
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprint(i%3)), 0o700); err != nil {
			t.Fatal(err)
		}
		done, result := follow(t, filepath.Join(dir, fmt.Sprint(i%3), "x.log"), -1, nil)
		dones, results = append(dones, done), append(results, result)
	}
	for i := range 3 {
		newPut(t, filepath.Join(dir, fmt.Sprint(i), "x.log"), 100, 50).numbers(1, 30)
	}
	for i := range dones {
		close(dones[i])
		if got := results[i](); !reflect.DeepEqual(got, numbers(1, 30)) {
			t.Fatalf("follower %d: %v", i, got)
		}
	}
	watchers.mu.Lock()
	defer watchers.mu.Unlock()
	if watchers.file != nil || len(watchers.dirs) != 0 {
		t.Error("the inotify instance stays open with nobody following")
	}
}

func TestParseOptions(t *testing.T) {
	o, err := ParseOptions(map[string]string{"max-size": "10m", "max-file": "5", "tag": "x", "compress": "false", "mode": "blocking"})
	if err != nil || o.MaxSize != 10_000_000 || o.MaxFiles != 5 || o.Tag != "x" {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err = ParseOptions(nil); err != nil || o.MaxSize != DefaultMaxSize || o.MaxFiles != DefaultMaxFiles {
		t.Errorf("defaults: %+v, %v", o, err)
	}
	if o, err = ParseOptions(map[string]string{"max-size": "-1"}); err != nil || o.MaxSize != -1 {
		t.Errorf("unlimited: %+v, %v", o, err)
	}
	for name, value := range map[string]string{"max-size": "ten", "max-file": "0", "compress": "true", "mode": "non-blocking", "colour": "red"} {
		_, err := ParseOptions(map[string]string{name: value})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s: %v, want an error that names it", name, value, err)
		}
		if kind := fault.KindOf(err); kind != fault.Invalid && kind != fault.Unsupported {
			t.Errorf("%s=%s: kind %v", name, value, kind)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(encodeOne("a", false, "stdout", nil, noon)), []byte("x"), 1)
	f.Add([]byte("\n\n\n"), []byte{}, 0)
	f.Fuzz(func(t *testing.T, current, older []byte, tail int) {
		path := filepath.Join(t.TempDir(), "l")
		if os.WriteFile(path, current, 0o600) != nil || os.WriteFile(path+".1", older, 0o600) != nil {
			t.Skip("no space")
		}
		n := 0
		if err := Read(t.Context(), path, ReadOptions{Tail: tail}, func(Entry) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		if tail >= 0 && n > tail {
			t.Fatalf("%d entries, at most %d were wanted", n, tail)
		}
	})
}
