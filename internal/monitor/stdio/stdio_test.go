package stdio

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/internal/logs"
	"berth/internal/logs/jsonfile"
	"berth/internal/logs/local"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("STDIO_TEST_PUMP"); dir != "" {
		pumpUntilKilled(dir)
	}
	os.Exit(m.Run())
}

var sharedPump = sync.OnceValue(func() *Pump {
	p, err := NewPump()
	if err != nil {
		panic(err)
	}
	go func() { panic(p.Run()) }()
	return p
})

// fake stands for a process: its ends of the pipes are written and read by the
// test.
type fake struct {
	t       *testing.T
	dir     string
	proc    *Proc
	out     [2]*os.File
	stdin   *os.File
	drained chan struct{}
	closed  chan struct{} // input was ended
	state   *State
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newState(path string) *State {
	fd := must(unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600))
	must(unix.Pwrite(fd, Header(), 0))
	return NewState(fd)
}

func pipe() (r int, w *os.File) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		panic(err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		panic(err)
	}
	return fds[0], os.NewFile(uintptr(fds[1]), "pipe")
}

// newFake makes a process that is not started; log is nil for none.
func newFake(t *testing.T, withLog bool, maxSize int64, maxFiles int) *fake {
	t.Helper()
	f := &fake{t: t, dir: t.TempDir(), drained: make(chan struct{}), closed: make(chan struct{})}
	cfg := Config{
		Name:       t.Name(),
		Spools:     [2]string{f.dir + "/spool1", f.dir + "/spool2"},
		CloseStdin: true, OnDrained: func() { close(f.drained) }, OnStdinClosed: func() { close(f.closed) },
	}
	if withLog {
		f.state = newState(f.dir + "/state")
		cfg.Log = NewLog(LogConfig{Path: f.logPath(), Format: jsonfile.Format{}, Limits: logs.Limits{MaxSize: maxSize, MaxFiles: maxFiles}}, f.state)
	}
	f.proc = sharedPump().NewProc(cfg)
	t.Cleanup(func() { f.proc.Close() })
	return f
}

func (f *fake) logPath() string { return filepath.Join(f.dir, "x-json.log") }

func (f *fake) start() *fake {
	f.t.Helper()
	files := NoFiles
	files.Out[0], f.out[0] = pipe()
	files.Out[1], f.out[1] = pipe()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		f.t.Fatal(err)
	}
	_ = unix.SetNonblock(fds[1], true)
	files.Stdin, f.stdin = fds[1], os.NewFile(uintptr(fds[0]), "stdin")
	f.t.Cleanup(func() { _ = f.stdin.Close(); _ = f.out[0].Close(); _ = f.out[1].Close() })
	if err := f.proc.Open(files, false); err != nil {
		f.t.Fatal(err)
	}
	return f
}

func (f *fake) say(stream int, text string) {
	f.t.Helper()
	if _, err := io.WriteString(f.out[stream], text); err != nil {
		f.t.Fatal(err)
	}
}

// exit ends the process and waits until its output is logged.
func (f *fake) exit() {
	f.t.Helper()
	f.proc.Exit()
	within(f.t, "output is drained", f.drained)
}

func within(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("not within 20 seconds: %s", what)
	}
}

// attach connects a client.
func (f *fake) attach(o AttachOptions) *net.UnixConn {
	f.t.Helper()
	client, fd := socketPair(f.t)
	if err := f.proc.Attach(fd, o); err != nil {
		f.t.Fatal(err)
	}
	return client
}

func socketPair(t *testing.T) (*net.UnixConn, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fds[0]), "client")
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.UnixConn), fds[1]
}

// frames reads a framed connection to its end.
func frames(t *testing.T, r io.Reader) (streams [3]string) {
	t.Helper()
	var header [8]byte
	var out [3]strings.Builder
	for {
		if _, err := io.ReadFull(r, header[:]); err == io.EOF {
			break
		} else if err != nil {
			t.Errorf("frame header: %v", err)
			break
		}
		if header[0] != 1 && header[0] != 2 || header[1]|header[2]|header[3] != 0 {
			t.Errorf("frame header % x", header)
			break
		}
		if _, err := io.CopyN(&out[header[0]], r, int64(binary.BigEndian.Uint32(header[4:]))); err != nil {
			t.Errorf("frame: %v", err)
			break
		}
	}
	for i := range out {
		streams[i] = out[i].String()
	}
	return streams
}

// readLog returns the text of each stream, partial entries marked with a '|'.
func readLog(t testing.TB, path string) (text [2]string) {
	t.Helper()
	var all [2]strings.Builder
	err := logs.Read(t.Context(), jsonfile.Format{}, path, logs.ReadOptions{Tail: -1}, func(e logs.Entry) error {
		i := 0
		if e.Stream == "stderr" {
			i = 1
		}
		all[i].Write(e.Line)
		if e.Partial {
			all[i].WriteByte('|')
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return [2]string{all[0].String(), all[1].String()}
}

func TestOutputIsLogged(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", logs.PartialSize)
	for _, c := range []struct{ name, said, want string }{
		{"nothing", "", ""},
		{"a line", "hello\n", "hello\n"},
		{"empty lines", "\n\n\n", "\n\n\n"},
		{"an unfinished line", "a\nno end", "a\nno end|"},
		{"a line of just one entry", long[1:] + "\n", long[1:] + "\n"},
		{"a line of one byte more", long + "\n", long + "|\n"},
		{"a long line", long + long + "end\nnext\n", long + "|" + long + "|end\nnext\n"},
		{"a long unfinished line", long + "end", long + "|end|"},
		{"many lines", strings.Repeat("line\n", 100_000), strings.Repeat("line\n", 100_000)},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t, true, -1, 1).start()
			f.say(0, c.said)
			f.say(1, "error\n")
			f.exit()
			if got := readLog(t, f.logPath()); got[0] != c.want || got[1] != "error\n" {
				t.Errorf("logged %.200q (%d bytes) and %q, want %.200q (%d bytes)", got[0], len(got[0]), got[1], c.want, len(c.want))
			}
			if left, _ := filepath.Glob(f.dir + "/spool*"); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestLinesInPiecesAreLoggedOnce(t *testing.T) {
	t.Parallel()
	f := newFake(t, true, 2000, 1000).start()
	random := rand.New(rand.NewPCG(7, 7))
	var want strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&want, "line %d %s\n", i, strings.Repeat("é", random.IntN(40)))
	}
	for text := want.String(); len(text) > 0; {
		n := min(1+random.IntN(50), len(text))
		f.say(0, text[:n])
		text = text[n:]
	}
	f.exit()
	if got := readLog(t, f.logPath()); got[0] != want.String() {
		t.Errorf("the log differs: %d bytes, want %d", len(got[0]), want.Len())
	}
}

func TestAttachedClientGetsFrames(t *testing.T) {
	t.Parallel()
	f := newFake(t, true, 0, 0)
	early := f.attach(AttachOptions{Stdout: true, Stderr: true, Prefix: []byte("HTTP/1.1 101\r\n\r\n")})
	onlyErr := f.attach(AttachOptions{Stderr: true})
	f.start()
	big := strings.Repeat("0123456789abcde\n", 20000)
	var group sync.WaitGroup
	group.Go(func() {
		prefix := make([]byte, 16)
		if _, err := io.ReadFull(early, prefix); err != nil || string(prefix) != "HTTP/1.1 101\r\n\r\n" {
			t.Errorf("prefix %q, %v", prefix, err)
		}
		if got := frames(t, early); got[1] != big || got[2] != "oops" {
			t.Errorf("got %d and %q", len(got[1]), got[2])
		}
		_ = early.Close()
	})
	group.Go(func() {
		if got := frames(t, onlyErr); got[1] != "" || got[2] != "oops" {
			t.Errorf("stderr only: got %q and %q", got[1], got[2])
		}
		_ = onlyErr.Close()
	})
	f.say(0, big)
	f.say(1, "oops")
	f.exit()
	group.Wait()
	if err := f.proc.Attach(must(unix.Dup(0)), AttachOptions{}); err != ErrClosed {
		t.Errorf("attach after the end: %v, want %v", err, ErrClosed)
	}
}

func TestSlowClientHoldsUpItsProcessAlone(t *testing.T) {
	t.Parallel()
	slow, other := newFake(t, false, 0, 0), newFake(t, true, 0, 0).start()
	client := slow.attach(AttachOptions{Stdout: true})
	slow.start()
	const total = 16 << 20
	wrote := make(chan struct{})
	var written int
	go func() {
		defer close(wrote)
		piece := bytes.Repeat([]byte("x"), 64<<10)
		for written < total {
			n, err := slow.out[0].Write(piece)
			if written += n; err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for i := range 100 { // the other one goes on meanwhile
		other.say(0, fmt.Sprintln(i))
	}
	other.exit()
	select {
	case <-wrote:
		t.Fatal("a client that reads nothing did not hold up its process")
	default:
	}
	got := make(chan int)
	go func() { got <- len(frames(t, client)[1]); _ = client.Close() }()
	within(t, "everything is written once the client reads", wrote)
	slow.exit()
	if n := <-got; n != total {
		t.Errorf("the client got %d bytes, want %d", n, total)
	}
}

// What a client did not read yet when the process ends is still its own, and
// nobody waits for it.
func TestExitDoesNotWaitForASlowClient(t *testing.T) {
	t.Parallel()
	f := newFake(t, true, -1, 1)
	client := f.attach(AttachOptions{Stdout: true})
	f.start()
	text := strings.Repeat("0123456789abcde\n", 40000) // more than the socket and less than the lag allowed
	f.say(0, text)
	f.exit()
	if got := readLog(t, f.logPath()); got[0] != text {
		t.Errorf("the log has %d bytes, want %d", len(got[0]), len(text))
	}
	if got := frames(t, client); got[1] != text {
		t.Errorf("the client got %d bytes, want %d", len(got[1]), len(text))
	}
}

func TestInputReachesTheProcess(t *testing.T) {
	t.Parallel()
	f := newFake(t, false, 0, 0)
	client := f.attach(AttachOptions{Stdin: true, Stdout: true, DetachKeys: []byte{16, 17}})
	text := strings.Repeat("some input\n", 50000)
	go func() {
		_, _ = io.WriteString(client, "before it runs\n"+text)
		_ = client.CloseWrite()
	}()
	f.start()
	got, err := io.ReadAll(f.stdin)
	if err != nil || string(got) != "before it runs\n"+text {
		t.Errorf("the process read %d bytes, %v; want %d", len(got), err, len(text)+15)
	}
	within(t, "the keeper is told that input ended", f.closed)
	f.say(0, "and answers")
	f.exit()
	if got := frames(t, client); got[1] != "and answers" {
		t.Errorf("the client got %q", got[1])
	}
}

func TestDetachKeysEndTheConnectionAlone(t *testing.T) {
	t.Parallel()
	f := newFake(t, false, 0, 0)
	client := f.attach(AttachOptions{Stdin: true, Stdout: true, DetachKeys: []byte{16, 17}})
	f.start()
	_, _ = client.Write([]byte("a\x10b\x10\x10"))
	_, _ = client.Write([]byte("\x11after"))
	if got := frames(t, client); got[1] != "" {
		t.Errorf("the client got %q", got[1])
	}
	_ = client.Close()
	second := f.attach(AttachOptions{Stdin: true, Stdout: true})
	_, _ = second.Write([]byte("again"))
	_ = second.CloseWrite()
	got, _ := io.ReadAll(f.stdin)
	if string(got) != "a\x10b\x10again" {
		t.Errorf("the process read %q", got)
	}
}

func TestDetachKeysFilter(t *testing.T) {
	for _, c := range []struct {
		keys, in, passed, rest string
		detach                 bool
	}{
		{"", "anything\x10\x11", "anything\x10\x11", "", false},
		{"\x10\x11", "plain", "plain", "", false},
		{"\x10\x11", "x\x10\x11y", "x", "", true},
		{"\x10\x11", "x\x10", "x", "\x10", false},
		{"\x10\x11", "\x10\x10\x11", "\x10", "", true},
		{"aab", "aaab", "aaa", "", false}, // as docker: the search starts over
		{"q", "q", "", "", true},
	} {
		var got []byte
		d, detached := detachKeys{keys: []byte(c.keys)}, false
		for _, b := range []byte(c.in) { // byte by byte has to be the same as at once
			passed, detach := d.filter([]byte{b})
			got = append(got, passed...)
			if detach {
				detached = true
				break
			}
		}
		whole := detachKeys{keys: []byte(c.keys)}
		at, atOnce := whole.filter([]byte(c.in))
		if string(at) != string(got) || atOnce != detached {
			t.Errorf("%q in %q: at once %q %v, by bytes %q %v", c.keys, c.in, at, atOnce, got, detached)
		}
		if c.keys != "aab" && (string(got) != c.passed || detached != c.detach || string(d.rest()) != c.rest) {
			t.Errorf("%q in %q: passed %q, detach %v", c.keys, c.in, got, detached)
		}
	}
}

func TestClientsThatVanishLeaveNothing(t *testing.T) {
	t.Parallel()
	f := newFake(t, false, 0, 0)
	for i := range 50 {
		client := f.attach(AttachOptions{Stdin: i%2 == 0, Stdout: true})
		if i == 10 {
			f.start()
		}
		_ = client.Close()
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		f.proc.mu.Lock()
		n := len(f.proc.conns)
		f.proc.mu.Unlock()
		if n == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections left", n)
		}
		f.say(0, "tick\n")
		time.Sleep(time.Millisecond)
	}
	f.exit()
}

// BenchmarkLog measures the way from the pipe to the rotated log files.
func BenchmarkLog(b *testing.B) {
	b.Run("json-file", func(b *testing.B) { benchmarkLog(b, jsonfile.Format{}) })
	b.Run("local", func(b *testing.B) { benchmarkLog(b, local.Format{}) })
}

func benchmarkLog(b *testing.B, format logs.Format) {
	dir := b.TempDir()
	pump := sharedPump()
	drained := make(chan struct{})
	proc := pump.NewProc(Config{
		Name: "bench", Spools: [2]string{dir + "/spool1", dir + "/spool2"},
		Log:       NewLog(LogConfig{Path: dir + "/x-json.log", Format: format}, newState(dir+"/state")),
		OnDrained: func() { close(drained) },
	})
	files := NoFiles
	var w *os.File
	files.Out[0], w = pipe()
	if err := proc.Open(files, false); err != nil {
		b.Fatal(err)
	}
	line := strings.Repeat("The quick brown fox jumps over the lazy dog. ", 3)[:99] + "\n"
	load := []byte(strings.Repeat(line, 640))
	b.SetBytes(int64(len(load)))
	for b.Loop() {
		if _, err := w.Write(load); err != nil {
			b.Fatal(err)
		}
	}
	proc.Exit()
	<-drained
	_ = w.Close()
	proc.Close()
}
