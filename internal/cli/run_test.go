package cli

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// outcome is what one invocation printed and returned.
type outcome struct {
	code           int
	stdout, stderr string
}

// safeBuffer is a buffer that may be read while it is written.
type safeBuffer struct {
	mu  sync.Mutex // guards b and wake
	b   bytes.Buffer
	got chan struct{}
}

func newSafeBuffer() *safeBuffer { return &safeBuffer{got: make(chan struct{}, 1)} }

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.got <- struct{}{}:
	default:
	}
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// await returns when text has been written.
func (s *safeBuffer) await(t *testing.T, text string) {
	t.Helper()
	for !strings.Contains(s.String(), text) {
		<-s.got
	}
}

// berth runs the command line against the fake engine with standard input.
func (e *fakeEngine) berth(stdin string, args ...string) outcome {
	e.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		e.t.Fatal(err)
	}
	go func() {
		_, _ = io.WriteString(w, stdin)
		_ = w.Close()
	}()
	defer r.Close()
	return e.invoke(r, args...)
}

func (e *fakeEngine) invoke(in *os.File, args ...string) outcome {
	out, errs := newSafeBuffer(), newSafeBuffer()
	a := &app{in: in, out: out, err: errs}
	code := a.main(append([]string{"-H", "unix://" + e.socket, "--no-start"}, args...))
	return outcome{code: code, stdout: out.String(), stderr: errs.String()}
}

// TestOnUnhealthyIsForEnginesThatKnowIt: others take it for an annotation that means
// nothing to them.
func TestOnUnhealthyIsForEnginesThatKnowIt(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	o := e.berth("", "run", "--on-unhealthy", "restart", "image", "true")
	if o.code != 125 || !strings.Contains(o.stderr, "no --on-unhealthy") || len(e.recorded("POST", "/containers/create")) != 0 {
		t.Errorf("code %d, %s", o.code, o.stderr)
	}
}

func TestRunOutputAndExitCodes(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	for _, c := range []struct {
		name           string
		stdin          string
		args           []string
		code           int
		stdout, stderr string // stderr: a part
	}{
		{"output", "", []string{"run", "img", "echo", "hi"}, 0, "hi\n", ""},
		{"both streams", "", []string{"run", "--rm", "img", "both"}, 0, "out\n", "err\n"},
		{"only stdout attached", "", []string{"run", "-a", "stdout", "img", "both"}, 0, "out\n", ""},
		{"exit code", "", []string{"run", "--rm", "img", "exit", "42"}, 42, "", ""},
		{"stdin", "some input", []string{"run", "-i", "--rm", "img", "cat"}, 0, "some input", ""},
		{"not attached stdin is left alone", "x", []string{"run", "--rm", "img", "echo", "a"}, 0, "a\n", ""},
		{"program missing", "", []string{"run", "--rm", "img", "nosuch"}, 127, "", "executable file not found"},
		{"no image given", "", []string{"run", "--rm"}, 125, "", "needs an image"},
		{"unknown flag", "", []string{"run", "--detatch", "img"}, 125, "", "did you mean --detach?"},
		{"contradiction", "", []string{"run", "-d", "-a", "stdin", "img"}, 125, "", "contradict"},
		{"a terminal is needed", "", []string{"run", "-it", "img"}, 1, "", "not a terminal"},
		{"pull never", "", []string{"run", "--pull", "never", "other"}, 125, "", "No such image: other"},
		{"flags after the image are the command's", "", []string{"run", "img", "echo", "--rm", "-it"}, 0, "--rm -it\n", ""},
		{"two words", "", []string{"container", "run", "--rm", "img", "echo", "x"}, 0, "x\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := e.berth(c.stdin, c.args...)
			if o.code != c.code || o.stdout != c.stdout || !strings.Contains(o.stderr, c.stderr) {
				t.Errorf("berth %q:\ngot code %d, stdout %q, stderr %q\nwant code %d, stdout %q, stderr with %q",
					c.args, o.code, o.stdout, o.stderr, c.code, c.stdout, c.stderr)
			}
		})
	}
}

func TestRunPullsAMissingImage(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	o := e.berth("", "run", "--rm", "--platform", "linux/arm64", "repo/other:2", "echo", "pulled")
	if o.code != 0 || o.stdout != "pulled\n" {
		t.Fatalf("code %d, stdout %q, stderr %q", o.code, o.stdout, o.stderr)
	}
	want := "Unable to find image 'repo/other:2' locally\nlatest: Pulling from x\n0123456789ab: Pulling fs layer\n" +
		"0123456789ab: Download complete\n0123456789ab: Pull complete\nStatus: Downloaded newer image\n"
	if !strings.HasPrefix(o.stderr, want[:43]) || strings.Contains(o.stderr, "Downloading") {
		t.Errorf("stderr:\n%s\nwant:\n%s", o.stderr, want)
	}
	pulls := e.recorded("POST", "/images/create")
	if len(pulls) != 1 || pulls[0].query.Get("fromImage") != "repo/other" || pulls[0].query.Get("tag") != "2" ||
		pulls[0].query.Get("platform") != "linux/arm64" {
		t.Errorf("pulls: %v", pulls)
	}
}

func TestRunSaysWhyAPullFailed(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	if o := e.berth("", "run", "broken"); o.code != 125 || !strings.Contains(o.stderr, "berth: manifest unknown") {
		t.Errorf("code %d, stderr %q", o.code, o.stderr)
	}
}

func TestRunAsksForStreamsAndExitBeforeTheStart(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.berth("", "run", "--rm", "img")
	e.mu.Lock()
	defer e.mu.Unlock()
	var order []string
	for _, r := range e.requests {
		order = append(order, r.path[strings.LastIndexByte(r.path, '/')+1:])
	}
	if len(order) != 4 || order[0] != "create" || order[3] != "start" {
		t.Errorf("requests: %v", order)
	}
}

func TestRunDetached(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	cid := filepath.Join(t.TempDir(), "cid")
	o := e.berth("", "run", "-d", "-i", "--name", "web", "--cidfile", cid, "img")
	id, _ := os.ReadFile(cid)
	c := e.container("web")
	if o.code != 0 || c == nil || o.stdout != c.id+"\n" || string(id) != c.id {
		t.Fatalf("code %d, stdout %q, stderr %q, cidfile %q", o.code, o.stdout, o.stderr, id)
	}
	if c.request.AttachStdin || c.request.AttachStdout || c.request.StdinOnce || !c.request.OpenStdin {
		t.Errorf("a detached container must attach nothing: %+v", c.request.Config)
	}
	if o := e.berth("", "run", "-d", "--cidfile", cid, "img"); o.code != 125 || !strings.Contains(o.stderr, "exists already") {
		t.Errorf("a second run with the same --cidfile: code %d, stderr %q", o.code, o.stderr)
	}
}

func TestRunThatCannotStartIsRemoved(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.berth("", "run", "--rm", "--name", "gone", "img", "nosuch")
	if e.container("gone") != nil {
		t.Error("the container is still there")
	}
	e.berth("", "run", "--name", "kept", "img", "nosuch")
	if e.container("kept") == nil {
		t.Error("without --rm the container must stay")
	}
}

// TestRunSurvivesItsEngine kills the engine while a container runs: the exit
// code and the output must come through all the same.
func TestRunSurvivesItsEngine(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	r, w, _ := os.Pipe()
	defer w.Close()
	out, errs := newSafeBuffer(), newSafeBuffer()
	a := &app{in: r, out: out, err: errs}
	ended := make(chan int)
	go func() {
		ended <- a.main([]string{"-H", "unix://" + e.socket, "--no-start", "run", "--name", "x", "img", "wait"})
	}()
	out.await(t, "ready\n")
	e.kill()
	e.listen()
	e.container("x").signals <- "TERM"
	if code := <-ended; code != 7 || out.String() != "ready\nbye\n" {
		t.Errorf("code %d, stdout %q, stderr %q", code, out.String(), errs.String())
	}
}

// TestRunShowsTheRestFromTheLog breaks the stream to a container that goes on.
func TestRunShowsTheRestFromTheLog(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	r, w, _ := os.Pipe()
	defer w.Close()
	out, errs := newSafeBuffer(), newSafeBuffer()
	a := &app{in: r, out: out, err: errs}
	ended := make(chan int)
	go func() {
		ended <- a.main([]string{"-H", "unix://" + e.socket, "--no-start", "run", "--name", "x", "img", "wait"})
	}()
	errs.await(t, "err\n")
	e.container("x").cut()
	e.awaitRequest("GET", "/logs")
	e.container("x").signals <- "TERM"
	if code := <-ended; code != 7 || out.String() != "ready\nbye\n" || errs.String() != "err\n" {
		t.Errorf("code %d, stdout %q, stderr %q", code, out.String(), errs.String())
	}
}

// TestRunSurvivesAnEngineThatDiesWhileStarting loses the answer to the start.
func TestRunSurvivesAnEngineThatDiesWhileStarting(t *testing.T) {
	t.Parallel()
	for _, started := range []bool{false, true} {
		e := newFakeEngine(t)
		var once sync.Once
		e.beforeStart = func(c *fakeContainer) (dead bool) {
			once.Do(func() {
				dead = true
				if started {
					e.launch(c)
				}
				e.kill()
				e.listen()
			})
			return dead
		}
		o := e.berth("", "run", "img", "exit", "9")
		if o.code != 9 {
			t.Errorf("started %v: code %d, stderr %q", started, o.code, o.stderr)
		}
	}
}

// TestRequestsSurviveAnEngineThatDies loses the answers to requests that can be
// repeated: each must end as if nothing had happened.
func TestRequestsSurviveAnEngineThatDies(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"create", "--name", "new", "img"}, {"create", "img"}, {"stop", "old"}, {"start", "old"},
		{"rm", "old"}, {"ps"}, {"inspect", "old"}, {"kill", "old"}} {
		for _, done := range []bool{false, true} { // before the engine died
			e := newFakeEngine(t)
			e.berth("", "create", "--name", "old", "img")
			e.dieOver(done)
			if o := e.berth("", args...); o.code != 0 || strings.Contains(o.stderr, "berth:") && args[0] != "stop" {
				t.Errorf("berth %q, done %v: code %d, stdout %q, stderr %q", args, done, o.code, o.stdout, o.stderr)
			}
		}
	}
}

func TestSignalsArePassedOn(t *testing.T) { // not parallel: it signals this process
	e := newFakeEngine(t)
	r, w, _ := os.Pipe()
	defer w.Close()
	out, errs := newSafeBuffer(), newSafeBuffer()
	a := &app{in: r, out: out, err: errs}
	ended := make(chan int)
	go func() { ended <- a.main([]string{"-H", "unix://" + e.socket, "--no-start", "run", "img", "signal"}) }()
	out.await(t, "ready\n")
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if code := <-ended; code != 0 || out.String() != "ready\nSIGUSR1\n" {
		t.Errorf("code %d, stdout %q", code, out.String())
	}
}
