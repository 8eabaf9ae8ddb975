package build

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"berth/internal/build/solve"
	"berth/internal/fault"
	"berth/internal/runtime"
)

// victimDir names the directory of a house in which this process builds until it
// is killed.
const victimDir = "BERTH_TEST_VICTIM"

const victimText = "FROM busybox\nRUN echo 1 > /1\nRUN --mount=type=cache,target=/k echo 2 > /k/2\nRUN echo 3 > /3\nRUN echo running; test -e /k || sleep 1000\nRUN echo 5 > /5\n"

func TestVictim(t *testing.T) {
	dir := os.Getenv(victimDir)
	if dir == "" {
		t.Skip("only for TestKilledInTheMiddleOfAStep")
	}
	h := houseAt(t, dir)
	h.try(Request{Text: []byte(victimText), Progress: func(e Event) {
		if e.Kind == solve.Output {
			fmt.Printf("OUTPUT %s", e.Data)
		}
	}})
}

func TestKilledInTheMiddleOfAStep(t *testing.T) {
	h := newHouse(t)
	h.shut()
	cmd := exec.Command(os.Args[0], "-test.run=^TestVictim$", "-test.v")
	cmd.Env = append(os.Environ(), victimDir+"="+h.dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	running := false
	for lines := bufio.NewScanner(out); !running && lines.Scan(); {
		running = strings.HasPrefix(lines.Text(), "OUTPUT running")
	}
	if !running {
		t.Fatal("the step did not begin")
	}
	cmd.Process.Kill()
	cmd.Wait()
	// An engine has its monitor, which knows what runs; here that is the runtime.
	left, err := runtime.List(h.exec.state)
	if err != nil || len(left) != 1 {
		t.Fatalf("%v %v", left, err)
	}
	c, err := runtime.Load(h.exec.state, left[0].ID)
	if err == nil {
		err = c.Delete(context.Background(), true)
	}
	if err != nil {
		t.Fatal(err)
	}
	h.open()
	h.clean()
	o := h.build(strings.Replace(victimText, "sleep 1000", "true", 1), nil)
	if n := h.exec.runs.Load(); n != 2 {
		t.Errorf("%d steps ran, want the two that were not finished: %s", n, o.ran())
	}
	h.clean()
	list, err := h.b.History().List()
	if err != nil || len(list) != 2 || list[1].Status != "interrupted" {
		t.Errorf("history %+v %v", list, err)
	}
}

func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skip("cannot mount: ", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	h := houseAt(t, dir)
	h.busybox()
	big := h.context(nil)
	if err := os.WriteFile(filepath.Join(big, "big"), make([]byte, 40<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	o := h.try(Request{Text: []byte("FROM busybox\nCOPY big /\n"), ContextDir: big})
	if !fault.Is(o.err, fault.Exhausted) {
		t.Errorf("a copy that does not fit: %v", o.err)
	}
	o = h.try(Request{Text: []byte("FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=40\n")})
	var f *Failure
	if !errors.As(o.err, &f) || !strings.Contains(f.Tail, "No space left") {
		t.Errorf("a step that fills the disk: %v", o.err)
	}
	h.layers.Flush()
	h.clean()
	if o = h.try(Request{Text: []byte("FROM busybox\nRUN echo small > /f\n")}); o.err != nil {
		t.Errorf("afterwards: %v", o.err)
	}
}

func TestAddRepository(t *testing.T) {
	core, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Skip("needs git")
	}
	h := newHouse(t)
	root := t.TempDir()
	work := h.context(map[string]string{"f": "1", "sub/g": "2"})
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir = work
		cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b", "GIT_CONFIG_GLOBAL=/dev/null")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	bare := filepath.Join(root, "r.git")
	git("init", "-q", "-b", "main", ".")
	git("add", ".")
	git("commit", "-qm", "one")
	git("clone", "-q", "--bare", ".", bare)
	srv := httptest.NewServer(&cgi.Handler{
		Path: strings.TrimSpace(string(core)) + "/git-http-backend",
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	})
	defer srv.Close()
	text := "FROM busybox\nADD " + srv.URL + "/r.git#main /all/\nADD --keep-git-dir " + srv.URL + "/r.git#main:sub /sub/\n"
	o := h.build(text, nil)
	h.want(o, map[string]string{"all/f": "644 0:0 1", "all/sub/g": "644 0:0 2", "all/.git": "", "sub/g": "644 0:0 2"})
	if again := h.build(text, nil); again.ran() != "" {
		t.Errorf("built again: %s", again.ran())
	}
	writeFile(t, filepath.Join(work, "f"), "changed")
	git("commit", "-qam", "two")
	git("push", "-q", bare, "main")
	o = h.build(text, nil)
	h.want(o, map[string]string{"all/f": "644 0:0 changed"})
	if !strings.HasPrefix(o.why(), "commit was") {
		t.Errorf("why: %s", o.why())
	}
	bad := h.try(Request{Text: []byte("FROM busybox\nADD --checksum=0123456 " + srv.URL + "/r.git#main /all/\n")})
	if bad.err == nil || !strings.Contains(bad.err.Error(), "wanted is 0123456") {
		t.Errorf("a wrong commit: %v", bad.err)
	}
	h.clean()
}

// TestPruningBesideBuilds prunes all the time while builds run.
func TestPruningBesideBuilds(t *testing.T) {
	h := newHouse(t)
	ctx, cancel := context.WithCancel(context.Background())
	var prune, builds sync.WaitGroup
	prune.Go(func() {
		for ctx.Err() == nil {
			if _, err := h.b.Prune(context.Background(), solve.PruneOptions{}); err != nil {
				t.Error(err)
			}
			if _, err := h.layers.CollectAll(); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range 4 {
		builds.Go(func() {
			for j := range 4 {
				o := h.try(Request{Text: fmt.Appendf(nil, "FROM busybox AS a\nRUN echo %d > /f\nFROM busybox\nCOPY --from=a /f /g\nRUN --mount=type=cache,target=/k cat /g > /h\n", (i+j)%3)})
				if o.err != nil {
					t.Error(o.err)
					return
				}
				for _, d := range o.Image.DiffIDs {
					if !h.layers.Has(d) {
						t.Errorf("layer %s of the image is gone", d)
					}
				}
			}
		})
	}
	builds.Wait()
	cancel()
	prune.Wait()
	h.clean()
}
