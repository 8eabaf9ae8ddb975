package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/internal/build/dockerfile"
	"berth/internal/build/graph"
	"berth/internal/build/solve"
	"berth/internal/fault"
)

func TestFailureShowsWhatHappened(t *testing.T) {
	h := newHouse(t)
	o := h.try(Request{Text: []byte("FROM busybox\nARG A=1\nWORKDIR /w\nRUN echo before; echo broken >&2; \\\n  exit 7\nRUN echo never\n")})
	var f *Failure
	if !errors.As(o.err, &f) {
		t.Fatalf("error %v", o.err)
	}
	if f.Exit.Code != 7 || !strings.Contains(f.Tail, "before\n") || !strings.Contains(f.Tail, "broken\n") || f.Dir != "/w" || !strings.Contains(strings.Join(f.Env, " "), "A=1") {
		t.Errorf("failure %+v", f.StepError)
	}
	if !strings.Contains(f.Excerpt, "4 | >>> RUN echo before") || !strings.Contains(f.Excerpt, "5 | >>>   exit 7") {
		t.Errorf("excerpt\n%s", f.Excerpt)
	}
	if !strings.Contains(o.err.Error(), "exit code: 7") {
		t.Errorf("error %v", o.err)
	}
	h.clean()
	o = h.try(Request{Text: []byte("FROM busybox\nRUN [\"/no/such/program\"]\n")})
	if o.err == nil {
		t.Error("a program that is not there succeeds")
	}
	h.clean()
}

func TestShellInAFailedStep(t *testing.T) {
	h := newHouse(t)
	o := h.try(Request{Text: []byte("FROM busybox\nRUN --mount=type=cache,target=/k echo x > /made; touch /k/c; false\n"), KeepFailed: true})
	var f *Failure
	if !errors.As(o.err, &f) || f.Failed == nil {
		t.Fatalf("error %v", o.err)
	}
	step := f.Failed.Step
	var out strings.Builder
	step.Args, step.Stdout, step.Stderr = []string{"sh", "-c", "cat /made; ls /k"}, &out, &out
	if exit, err := h.exec.Run(context.Background(), step); err != nil || exit.Code != 0 || out.String() != "x\nc\n" {
		t.Errorf("%+v %v %q", exit, err, out.String())
	}
	f.Failed.Release()
	h.clean()
}

func TestBuildsShareStepsThatRun(t *testing.T) {
	h := newHouse(t)
	gate := make(chan struct{})
	var once sync.Once
	h.exec.before = func(solve.Step) { <-gate }
	const text = "FROM busybox\nRUN echo shared > /f\nRUN date > /d\n"
	var all sync.WaitGroup
	ids := make([]string, 4)
	outputs := make([]int, 4)
	for i := range ids {
		all.Go(func() {
			o := h.try(Request{Text: []byte(text), Progress: func(e Event) {
				if e.Kind == solve.Started && strings.Contains(e.Name, "shared") {
					outputs[i]++
				}
				// The step begins when the last build waits for it, too.
				if i == 3 && e.Kind == solve.Started && strings.Contains(e.Name, "RUN") {
					once.Do(func() { close(gate) })
				}
			}})
			if o.err != nil {
				t.Error(o.err)
				return
			}
			ids[i] = o.Image.ID.String()
		})
	}
	all.Wait()
	if n := h.exec.runs.Load(); n != 2 {
		t.Errorf("%d steps ran, want 2", n)
	}
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("images %v", ids)
		}
	}
	h.clean()
}

func TestCancelEndsStepsAndLeavesNothing(t *testing.T) {
	h := newHouse(t)
	ctx, cancel := context.WithCancel(context.Background())
	started := make(chan struct{}, 8)
	done := make(chan error, 1)
	go func() {
		_, err := h.b.Build(ctx, Request{Text: []byte("FROM busybox AS a\nRUN echo up; sleep 1000\nFROM busybox AS b\nRUN echo up; sleep 999\nFROM a\nCOPY --from=b / /b\n"), Progress: func(e Event) {
			if e.Kind == solve.Output {
				started <- struct{}{}
			}
		}})
		done <- err
	}()
	<-started
	<-started
	at := time.Now()
	cancel()
	select {
	case err := <-done:
		if !fault.Is(err, fault.Canceled) {
			t.Errorf("error %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the build goes on")
	}
	if took := time.Since(at); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	h.clean()
}

func TestOneOfTwoCancelsAndTheOtherGoesOn(t *testing.T) {
	h := newHouse(t)
	gate := make(chan struct{})
	h.exec.before = func(solve.Step) { <-gate }
	ctx, cancel := context.WithCancel(context.Background())
	text := []byte("FROM busybox\nRUN echo x > /f\n")
	waits := func(ch chan struct{}) func(Event) {
		return func(e Event) {
			if e.Kind == solve.Started && strings.Contains(e.Name, "RUN") {
				close(ch)
			}
		}
	}
	first, second := make(chan struct{}), make(chan struct{})
	a, b := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := h.b.Build(ctx, Request{Text: text, Progress: waits(first)})
		a <- err
	}()
	<-first
	go func() {
		_, err := h.b.Build(context.Background(), Request{Text: text, Progress: waits(second)})
		b <- err
	}()
	<-second
	cancel()
	if err := <-a; err == nil {
		t.Error("the cancelled build succeeds")
	}
	close(gate)
	if err := <-b; err != nil {
		t.Errorf("the other fails: %v", err)
	}
	h.clean()
}

func TestIndependentStagesRunAtTheSameTime(t *testing.T) {
	h := newHouse(t)
	var meet sync.WaitGroup
	meet.Add(4)
	h.exec.before = func(s solve.Step) {
		if strings.Contains(strings.Join(s.Args, " "), "part") {
			meet.Done()
			meet.Wait() // for ever, if they ran one after the other
		}
	}
	var text strings.Builder
	for i := range 4 {
		fmt.Fprintf(&text, "FROM busybox AS s%d\nRUN echo part %d > /f%d\n", i, i, i)
	}
	text.WriteString("FROM scratch\n")
	for i := range 4 {
		fmt.Fprintf(&text, "COPY --from=s%d /f%d /\n", i, i)
	}
	o := h.build(text.String(), nil)
	h.want(o, map[string]string{"f0": "644 0:0 part 0\n", "f3": "644 0:0 part 3\n"})
}

func TestGoesOnAfterAKill(t *testing.T) {
	h := newHouse(t)
	dir := h.context(map[string]string{"a": "1"})
	text := "FROM busybox\nCOPY a /\nRUN echo one > /1\nRUN echo two > /2; FAIL\n"
	o := h.try(Request{Text: []byte(strings.Replace(text, "FAIL", "false", 1)), ContextDir: dir})
	if o.err == nil {
		t.Fatal("it should fail")
	}
	// What a killed step leaves: its root, its temporary files, half a record.
	lower := o.Steps[0]
	_ = lower
	if _, _, err := h.layers.Writable(solve.UpperPrefix+"dead", nil); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(h.dir, "build/tmp/x"), "x")
	writeFile(t, filepath.Join(h.dir, "build/fresh/0123.json"), `{"Key":`)
	h.reopen()
	h.exec.runs.Store(0)
	o = h.build(strings.Replace(text, "FAIL", "true", 1), nil, func(r *Request) { r.ContextDir = dir })
	if n := h.exec.runs.Load(); n != 1 {
		t.Errorf("%d steps ran again, want only the one that failed: %s", n, o.ran())
	}
	h.clean()
	list, err := h.b.History().List()
	if err != nil || len(list) != 2 || list[0].Status != "done" || list[1].Status != "failed" {
		t.Errorf("history %v %v", list, err)
	}
}

func TestRecordsNeverCommittedAreFound(t *testing.T) {
	h := newHouse(t)
	h.build("FROM busybox\nRUN echo x > /f\n", nil)
	// As if the engine had been killed before the commit: the record is a file.
	gate := make(chan struct{})
	h.exec.before = func(s solve.Step) {
		if strings.Contains(strings.Join(s.Args, " "), "last") {
			close(gate)
			select {} // the process that it would belong to is dead
		}
	}
	go h.b.Build(context.Background(), Request{Text: []byte("FROM busybox\nRUN echo y > /g\nRUN last\n")})
	<-gate
	fresh, _ := os.ReadDir(filepath.Join(h.dir, "build/fresh"))
	if len(fresh) != 1 {
		t.Fatalf("%d fresh records", len(fresh))
	}
	h.exec = &runner{state: filepath.Join(h.dir, "state2")}
	h.reopen()
	if h.build("FROM busybox\nRUN echo y > /g\n", nil); h.exec.runs.Load() != 0 {
		t.Error("a finished step ran again")
	}
}

func TestRemovedLayersAreMadeAgain(t *testing.T) {
	h := newHouse(t)
	const text = "FROM busybox AS a\nRUN date > /d; echo fixed > /f\nFROM scratch\nCOPY --from=a /f /\n"
	first := h.build(text, nil)
	items, err := h.b.Usage(context.Background())
	if err != nil || len(items) != 2 {
		t.Fatalf("%v %v", items, err)
	}
	p, err := h.b.Prune(context.Background(), solve.PruneOptions{Filter: func(i solve.Item) bool { return i.Kind == "exec" }})
	if err != nil || len(p.Items) != 1 || p.Freed == 0 {
		t.Fatalf("%+v %v", p, err)
	}
	again := h.build(text, nil)
	if !strings.Contains(again.ran(), "RUN date") || again.Image.ID != first.Image.ID {
		t.Errorf("ran %s; the copied file is the same, so should be the image", again.ran())
	}
	if _, err := h.images.Remove(context.Background(), first.Image.ID.String(), removeForce); err != nil {
		t.Fatal(err)
	}
	if p, err = h.b.Prune(context.Background(), solve.PruneOptions{}); err != nil || len(p.Items) != 2 {
		t.Fatalf("%+v %v", p, err)
	}
	if left := h.layers.List(); len(left) != 1 {
		t.Errorf("%d layers are left, want the base image's", len(left))
	}
}

func TestBudgetKeepsWhatWasUsedLast(t *testing.T) {
	h := newHouse(t)
	for i := range 4 {
		h.build(fmt.Sprintf("FROM busybox\nRUN dd if=/dev/urandom of=/f bs=1k count=100; echo %d\n", i), nil, func(r *Request) { r.FilesOnly = true }).Release()
	}
	if _, err := h.b.Prune(context.Background(), solve.PruneOptions{MaxUsed: 250 << 10}); err != nil {
		t.Fatal(err)
	}
	items, err := h.b.Usage(context.Background())
	if err != nil || len(items) != 2 || !strings.Contains(items[1].Description, "echo 3") {
		t.Errorf("%+v %v", items, err)
	}
}

func TestReproducible(t *testing.T) {
	files := map[string]string{"f": "x", "d/g": "y"}
	const text = "FROM busybox\nCOPY --link . /c/\nWORKDIR /w\nRUN --mount=type=tmpfs,target=/new/t date > /dev/null; mkdir -p a/b; echo 1 > a/b/c; ln -s c a/b/l\nCMD [\"x\"]\n"
	var ids []string
	for range 2 {
		h := newHouse(t)
		base, _ := h.images.Get(context.Background(), "busybox")
		_ = base
		o := h.build(text, files, func(r *Request) { r.Reproducible = true })
		ids = append(ids, strings.Join(func() (out []string) {
			for _, d := range o.Layers[1:] {
				out = append(out, d.String())
			}
			return
		}(), " "))
		c := o.config()
		if !c.Created.Equal(time.Unix(0, 0)) || !c.History[len(c.History)-1].Created.Equal(time.Unix(0, 0)) {
			t.Errorf("created %v", c.Created)
		}
	}
	if ids[0] != ids[1] {
		t.Errorf("layers differ:\n%s\n%s", ids[0], ids[1])
	}
}

func TestForeignPlatformsSayWhatIsMissing(t *testing.T) {
	h := newHouse(t)
	n := &graph.Node{Op: &graph.Exec{Args: []string{"x"}}, Inputs: []*graph.Node{nil}, Name: "RUN x"}
	n.Platform.OS, n.Platform.Architecture = "linux", "riscv64"
	_, err := h.b.Cache().Solve(context.Background(), solve.Job{ID: "x", Graphs: []*graph.Graph{{Nodes: []*graph.Node{n}, Target: n}}})
	if !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "binfmt") {
		t.Errorf("error %v", err)
	}
}

func TestChecksOnly(t *testing.T) {
	h := newHouse(t)
	o := h.try(Request{Text: []byte("FROM busybox\nMAINTAINER x\nRUN false\n"), Check: true})
	if o.err != nil || len(o.Warnings) != 1 || o.Warnings[0].Rule != "MaintainerDeprecated" || h.exec.runs.Load() != 0 {
		t.Errorf("%v %+v", o.err, o.Warnings)
	}
	var e *dockerfile.Error
	if o = h.try(Request{Text: []byte("FROM busybox\nRUNN x\n"), Check: true}); !errors.As(o.err, &e) || e.Line != 2 {
		t.Errorf("%v", o.err)
	}
}

func TestHistoryShowsWhatWasBuilt(t *testing.T) {
	h := newHouse(t)
	o := h.build("FROM busybox\nRUN echo output line\n", nil, func(r *Request) { r.Tags = []string{"name"}; r.Args = map[string]string{"SECRET": "value"} })
	b, err := h.b.History().Get(o.Result.ID[:6])
	if err != nil || b.Name != "name" || b.Status != "done" || len(b.Steps) != 2 || fmt.Sprint(b.Args) != "[SECRET]" {
		t.Fatalf("%+v %v", b, err)
	}
	var logs, trace strings.Builder
	if err := h.b.History().Logs("", &logs); err != nil || !strings.Contains(logs.String(), "output line\n") {
		t.Errorf("logs %q %v", logs.String(), err)
	}
	if err := h.b.History().Trace(b.ID, &trace); err != nil || !strings.Contains(trace.String(), `"traceEvents"`) || !strings.Contains(trace.String(), "RUN echo output") {
		t.Errorf("trace %q %v", trace.String(), err)
	}
	if err := h.b.History().Remove(b.ID); err != nil {
		t.Error(err)
	}
	if _, err := h.b.History().Get(b.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("a removed build: %v", err)
	}
}

func TestBuildsOfOneContextShareItsCopy(t *testing.T) {
	h := newHouse(t)
	files := map[string]string{}
	for i := range 500 {
		files[fmt.Sprintf("d%d/f%d", i%7, i)] = fmt.Sprint(i)
	}
	dir := h.context(files)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if o := h.try(Request{Text: []byte("FROM busybox\nCOPY . /c\nRUN date > /d\n"), ContextDir: dir}); o.err != nil {
				t.Error(o.err)
			}
		})
	}
	all.Wait()
	if n := h.exec.runs.Load(); n != 1 {
		t.Errorf("the step after the copy ran %d times", n)
	}
	h.clean()
}
