// Package conformance is what every log driver that can be read has to pass. It
// exists so that what users rely on (no line lost, none twice, whatever rotates
// or is compressed meanwhile) is asked of all of them in the same words.
package conformance

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

	"berth/internal/logs"
)

var noon = time.Date(2026, 11, 3, 12, 0, 0, 120_000_000, time.UTC)

// Run runs the suite on a driver's format, with rotated files as they are and
// compressed.
func Run(t *testing.T, format logs.Format) {
	for _, compress := range []bool{false, true} {
		t.Run(fmt.Sprintf("compress=%v", compress), func(t *testing.T) {
			t.Parallel()
			s := suite{format: format, compress: compress}
			for _, c := range []struct {
				name string
				test func(*testing.T)
			}{
				{"entries come back as they were", s.entries},
				{"through rotated files", s.throughFiles},
				{"only the newest files are kept", s.newestFiles},
				{"interrupted rotation", s.interruptedRotation},
				{"damage", s.damage},
				{"nothing, errors and cancellation", s.errors},
				{"begin at a position", s.positions},
				{"follow through rotations", s.followAll},
				{"follow behind deleted files", s.followBehind},
				{"follow delivers each line at once", s.followAtOnce},
				{"readers beside a busy writer", s.readersBeside},
			} {
				t.Run(c.name, func(t *testing.T) { t.Parallel(); c.test(t) })
			}
		})
	}
}

type suite struct {
	format   logs.Format
	compress bool
}

// put appends lines to a log the way the monitor does; each is a second later.
type put struct {
	t *testing.T
	s suite
	w *logs.Writer
	e logs.Encoder
	n int
}

// fileSize is how large files may be so that five of the first lines fit.
func (s suite) fileSize() int64 {
	e := s.format.NewEncoder()
	e.Set("stdout", nil, noon)
	return int64(5*len(e.Append(nil, []byte("1"), false)) - 4)
}

func (s suite) put(t *testing.T, path string, maxSize int64, maxFiles int) *put {
	t.Helper()
	w, err := logs.OpenWriter(path, logs.Limits{MaxSize: maxSize, MaxFiles: maxFiles, Compress: s.compress})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close(); w.Stop() })
	return &put{t: t, s: s, w: w, e: s.format.NewEncoder()}
}

func (p *put) line(text string) {
	if p.w.Room() == 0 {
		if err := p.w.Rotate(p.w.Inode()); err != nil {
			p.t.Error(err)
		}
		p.w.Rotated()
	}
	p.e.Set("stdout", nil, noon.Add(time.Duration(p.n)*time.Second))
	p.n++
	if err := p.w.Append(p.e.Append(nil, []byte(text), false)); err != nil {
		p.t.Error(err)
	}
}

func (p *put) numbers(from, to int) {
	for i := from; i <= to; i++ {
		p.line(fmt.Sprint(i))
	}
}

// settled waits until nothing is left to compress.
func (p *put) settled(path string) {
	p.t.Helper()
	if !p.s.compress {
		return
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		plain := 0
		files, _ := filepath.Glob(path + ".*")
		for _, f := range files {
			if !strings.HasSuffix(f, ".gz") {
				plain++
			}
		}
		if plain == 0 {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("not all compressed: %v", files)
		}
	}
}

func (s suite) read(t *testing.T, path string, opts logs.ReadOptions) []string {
	t.Helper()
	var got []string
	err := logs.Read(t.Context(), s.format, path, opts, func(e logs.Entry) error {
		got = append(got, strings.TrimSuffix(string(e.Line), "\n"))
		return nil
	})
	if err != nil {
		t.Errorf("read: %v", err)
	}
	return got
}

var all = logs.ReadOptions{Tail: -1}

func numbers(from, to int) []string {
	var s []string
	for i := from; i <= to; i++ {
		s = append(s, fmt.Sprint(i))
	}
	return s
}

func (s suite) entries(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	w := s.put(t, path, -1, 1).w
	attrs := map[string]string{"label": "with \"quotes\"\nand newline", "é": ""}
	want := []logs.Entry{
		{Time: noon, Stream: "stdout", Line: []byte("hello\n")},
		{Time: noon.Add(time.Nanosecond), Stream: "stderr", Line: []byte("\n")},
		{Time: noon.Add(time.Nanosecond), Stream: "stderr", Line: []byte("half"), Partial: true},
		{Time: noon.Add(time.Hour), Stream: "stdout", Line: []byte("\x00\x01\t\r\\\"<é😀\x7f\n"), Attrs: attrs},
		{Time: noon.Add(time.Hour), Stream: "stderr", Line: []byte("{\"log\":\"x\\n\"}\n"), Attrs: attrs},
		{Time: noon.Add(time.Hour), Stream: "stdout", Line: []byte(strings.Repeat("x", logs.PartialSize)), Partial: true},
	}
	e := s.format.NewEncoder()
	for _, v := range want {
		e.Set(v.Stream, logs.EncodeAttrs(v.Attrs), v.Time)
		if err := w.Append(e.Append(nil, []byte(strings.TrimSuffix(string(v.Line), "\n")), v.Partial)); err != nil {
			t.Fatal(err)
		}
	}
	i := 0
	err := logs.Read(t.Context(), s.format, path, all, func(e logs.Entry) error {
		e.Next = logs.Position{}
		e.Time = e.Time.UTC()
		if i < len(want) && !reflect.DeepEqual(e, want[i]) {
			t.Errorf("entry %d\n got %+v\nwant %+v", i, e, want[i])
		}
		i++
		return nil
	})
	if err != nil || i != len(want) {
		t.Errorf("%d entries, want %d; %v", i, len(want), err)
	}
}

func (s suite) throughFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	p := s.put(t, path, s.fileSize(), 100)
	p.numbers(1, 50) // five lines a file
	p.settled(path)
	if _, err := os.Stat(path + map[bool]string{false: ".9", true: ".9.gz"}[s.compress]); err != nil {
		t.Fatalf("not rotated as expected: %v", err)
	}
	at := func(i int) time.Time { return noon.Add(time.Duration(i-1) * time.Second) }
	for _, c := range []struct {
		name string
		opts logs.ReadOptions
		want []string
	}{
		{"all", all, numbers(1, 50)},
		{"no lines", logs.ReadOptions{Tail: 0}, nil},
		{"last line", logs.ReadOptions{Tail: 1}, numbers(50, 50)},
		{"tail over files", logs.ReadOptions{Tail: 23}, numbers(28, 50)},
		{"tail of all", logs.ReadOptions{Tail: 50}, numbers(1, 50)},
		{"tail of more than all", logs.ReadOptions{Tail: 1000}, numbers(1, 50)},
		{"since", logs.ReadOptions{Tail: -1, Since: at(40)}, numbers(40, 50)},
		{"until", logs.ReadOptions{Tail: -1, Until: at(7)}, numbers(1, 7)},
		{"since and until", logs.ReadOptions{Tail: -1, Since: at(11), Until: at(12)}, numbers(11, 12)},
		{"tail then until", logs.ReadOptions{Tail: 10, Until: at(42)}, numbers(41, 42)},
		{"since the future", logs.ReadOptions{Tail: -1, Since: at(100)}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := s.read(t, path, c.opts); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func (s suite) newestFiles(t *testing.T) {
	for files, want := range map[int]int{1: 0, 2: 1, 3: 2, 5: 4} {
		path := filepath.Join(t.TempDir(), "x.log")
		p := s.put(t, path, s.fileSize(), files)
		p.numbers(1, 98) // the last file holds three
		p.settled(path)
		rest, _ := filepath.Glob(path + ".*")
		if len(rest) != want {
			t.Errorf("%d files allowed: %v beside the current one", files, rest)
		}
		first := 98 - 3 - 5*want + 1
		if got := s.read(t, path, all); !reflect.DeepEqual(got, numbers(first, 98)) {
			t.Errorf("%d files allowed: got %v, want %d to 98", files, got, first)
		}
	}
}

// A rotation may be killed between any two renames; done again it must lose
// nothing that it should keep.
func (s suite) interruptedRotation(t *testing.T) {
	for stopped := 0; stopped <= 3; stopped++ {
		path := filepath.Join(t.TempDir(), "x.log")
		p := s.put(t, path, s.fileSize(), 4)
		p.numbers(1, 20) // four files of five lines
		inode := p.w.Inode()
		p.settled(path)
		p.w.Stop()
		form := func(i int) string {
			if i == 0 {
				return path
			}
			return fmt.Sprintf("%s.%d%s", path, i, map[bool]string{true: ".gz"}[s.compress])
		}
		for i := 3; i > 3-stopped; i-- {
			to := form(i)
			if i == 1 {
				to = path + ".1" // not compressed yet
			}
			if err := os.Rename(form(i-1), to); err != nil {
				t.Fatal(err)
			}
		}
		again := s.put(t, path, s.fileSize(), 4)
		if stopped == 3 { // the new current file was made just before the kill
			if again.w.Size() != 0 {
				t.Fatal("the current file is not new")
			}
		}
		if err := again.w.Rotate(inode); err != nil {
			t.Fatal(err)
		}
		again.w.Rotated()
		again.numbers(21, 22)
		again.settled(path)
		if got := s.read(t, path, all); !reflect.DeepEqual(got, numbers(6, 22)) {
			t.Errorf("stopped after %d renames: %v", stopped, got)
		}
	}
}

func (s suite) damage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	good := func(text string) string {
		e := s.format.NewEncoder()
		e.Set("stdout", nil, noon)
		return string(e.Append(nil, []byte(text), false))
	}
	text := good("1") + "\x00\x00\x00\n" + `{"log":"torn` + "\n" + good("2") + strings.Repeat("x", 5<<20) + "\n" + "[]\n{}\nnull\n\n@\nG\n" + good("3") + good("4")[:8]
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := s.read(t, path, all); !reflect.DeepEqual(got, numbers(1, 3)) {
		t.Errorf("got %v", got)
	}
	w := s.put(t, path, -1, 1)
	if err := w.w.Mend(); err != nil {
		t.Fatal(err)
	}
	w.line("4")
	if got := s.read(t, path, all); !reflect.DeepEqual(got, numbers(1, 4)) {
		t.Errorf("after mending: got %v", got)
	}
}

// A compressed file that was cut off ends where it does and hides no other.
func (s suite) positions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	p := s.put(t, path, s.fileSize(), 100)
	p.numbers(1, 30)
	var at []logs.Position
	err := logs.Read(t.Context(), s.format, path, all, func(e logs.Entry) error { at = append(at, e.Next); return nil })
	if err != nil || len(at) != 30 {
		t.Fatalf("%d entries, %v", len(at), err)
	}
	p.numbers(31, 40)
	p.settled(path)
	for i := range at {
		missed := false
		got := s.read(t, path, logs.ReadOptions{From: at[i], Missed: func() { missed = true }})
		if !reflect.DeepEqual(got, numbers(i+2, 40)) || missed {
			t.Errorf("from behind line %d: %v, missed %v", i+1, got, missed)
		}
	}
	missed := false
	gone := logs.Position{File: logs.FileID{Inode: 1}, Offset: 7}
	if got := s.read(t, path, logs.ReadOptions{From: gone, Missed: func() { missed = true }}); !missed || len(got) != 40 {
		t.Errorf("a file that is gone: missed %v, %v", missed, got)
	}
	if s.compress {
		if err := os.Truncate(path+".3.gz", 40); err != nil {
			t.Fatal(err)
		}
		if got := s.read(t, path, all); len(got) < 35 || got[0] != "1" || got[len(got)-1] != "40" {
			t.Errorf("with a torn compressed file: %v", got)
		}
	}
}

// Whoever reads while files are rotated and compressed sees lines in order, none
// twice, and all from the first that he sees.
func (s suite) readersBeside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	done := make(chan struct{})
	p := s.put(t, path, 5000, 8)
	go func() {
		defer close(done)
		p.numbers(1, 40000)
	}()
	defer func() { <-done }()
	for reads, over := 0, false; !over; reads++ {
		select {
		case <-done:
			over = true
		default:
		}
		last := 0
		for _, text := range s.read(t, path, all) {
			var n int
			if _, err := fmt.Sscan(text, &n); err != nil || last != 0 && n != last+1 {
				t.Fatalf("read %d: %q after %d", reads, text, last)
			}
			last = n
		}
	}
}

func (s suite) errors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	if got := s.read(t, path, all); got != nil {
		t.Errorf("got %v of a log that does not exist", got)
	}
	s.put(t, path, -1, 1).numbers(1, 3)
	stop := errors.New("enough")
	if err := logs.Read(t.Context(), s.format, path, all, func(logs.Entry) error { return stop }); err != stop {
		t.Errorf("got %v, want the callback's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := logs.Read(ctx, s.format, path, logs.ReadOptions{Tail: -1, Follow: true}, func(e logs.Entry) error {
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
func (s suite) follow(t *testing.T, path string, tail int, each func(string)) (done chan struct{}, result func() []string) {
	done = make(chan struct{})
	var got []string
	var group sync.WaitGroup
	group.Go(func() {
		err := logs.Read(t.Context(), s.format, path, logs.ReadOptions{Tail: tail, Follow: true, Done: done}, func(e logs.Entry) error {
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

func (s suite) followAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	const lines = 8000
	done, result := s.follow(t, path, -1, nil)
	s.put(t, path, 2000, 2000).numbers(1, lines)
	close(done)
	if got := result(); !reflect.DeepEqual(got, numbers(1, lines)) {
		t.Errorf("%d lines, want 1 to %d in order", len(got), lines)
	}
}

// With few files a slow follower may miss what was deleted, but never sees a
// line twice or out of order.
func (s suite) followBehind(t *testing.T) {
	for _, files := range []int{1, 2, 3} {
		path := filepath.Join(t.TempDir(), "x.log")
		done, result := s.follow(t, path, -1, nil)
		s.put(t, path, 1000, files).numbers(1, 20000)
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
func (s suite) followAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	arrived := make(chan string)
	done, result := s.follow(t, path, -1, func(s string) { arrived <- s })
	p := s.put(t, path, 150, 3)
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
