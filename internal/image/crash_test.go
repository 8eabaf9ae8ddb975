package image

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/internal/fault"
)

// crashDir makes the test binary a process that works in that directory until
// it is killed.
const crashDir = "BERTH_TEST_IMAGE_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		workUntilKilled(dir)
		return
	}
	os.Exit(m.Run())
}

// workUntilKilled has three workers, each with a tag of its own, that say what
// they begin and what they were told is done, and one who collects.
func workUntilKilled(dir string) {
	h, err := tryBuild(dir)
	if err != nil {
		fmt.Println("fatal", err)
		os.Exit(1)
	}
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf(format+"\n", args...)
	}
	for w := range 3 {
		go func() {
			for {
				tag := fmt.Sprintf("app:%d", w)
				op, fn := h.crashStep(tag)
				say("begin %d %s", w, op)
				id, err := fn()
				if err != nil {
					say("fatal %s: %v", op, err)
					os.Exit(1)
				}
				say("done %d %s", w, id)
			}
		}()
	}
	go func() {
		for {
			if err := h.sweep(); err != nil {
				say("fatal sweep: %v", err)
				os.Exit(1)
			}
		}
	}()
	say("ready")
	select {}
}

// crashStep chooses what to do with a tag. What it does returns the image that
// has the tag then, "" for none, "same" for the one that had it.
func (h *house) crashStep(tag string) (op string, fn func() (digest.Digest, error)) {
	ctx := context.Background()
	n := rand.IntN(3)
	switch rand.IntN(7) {
	case 0, 1:
		return "load", func() (digest.Digest, error) {
			l, err := h.load(dockerArchive([]string{tag}, oneFile("base", "shared"), oneFile("n", strings.Repeat(tag, 1000*n))).bytes())
			if err != nil {
				return "", err
			}
			return l[0].ID, nil
		}
	case 2:
		return "load", func() (digest.Digest, error) {
			data, ids := several(tag)
			_, err := h.load(data)
			return ids[1], err
		}
	case 6:
		return "pull", func() (digest.Digest, error) {
			layers := [][]byte{oneFile("base", "shared"), oneFile("p", strings.Repeat(tag, 500*n))}
			return digest.FromBytes(mustJSON(config(layers...))), h.pull(tag, layers...)
		}
	case 3:
		return "commit", func() (digest.Digest, error) {
			hold := h.lay.Hold()
			defer h.Release(hold)
			l, err := hold.Apply(ctx, "", bytes.NewReader(oneFile("c", fmt.Sprint(n))))
			if err != nil {
				return "", err
			}
			o := CommitOptions{Hold: hold, Layer: l, Ref: tag}
			if img, err := h.Get(ctx, tag); err == nil && len(img.DiffIDs) < 6 {
				o.Parent = img.ID
			}
			img, err := h.Commit(ctx, o)
			if err != nil {
				return "", err
			}
			return img.ID, nil
		}
	case 4:
		return "save", func() (digest.Digest, error) {
			if err := h.Save(ctx, []string{tag}, io.Discard, SaveOptions{}); err != nil && !fault.Is(err, fault.NotFound) {
				return "", err
			}
			return "same", nil
		}
	default:
		return "remove", func() (digest.Digest, error) {
			if _, err := h.Remove(ctx, tag, RemoveOptions{Prune: true}); err != nil && !fault.Is(err, fault.NotFound) {
				return "", err
			}
			return "", nil
		}
	}
}

// TestKilledAtAnyInstant kills such a process again and again: what it was told
// is done is done, what it had begun is done or not, every image is whole, and
// nothing is left over after a sweep.
func TestKilledAtAnyInstant(t *testing.T) {
	needRoot(t)
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	dir := t.TempDir()
	state := map[string]digest.Digest{}
	for round := range rounds {
		busy := runAndKill(t, dir, state, time.Duration(rand.IntN(400))*time.Millisecond)
		h, err := tryBuild(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Verify(context.Background(), "", nil); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		for w := range 3 {
			tag := fmt.Sprintf("app:%d", w)
			var got digest.Digest
			if img, err := h.Get(context.Background(), tag); err == nil {
				got = img.ID
			}
			if want := state[tag]; got != want && !busy[tag] {
				t.Errorf("round %d: %s is %q, acknowledged was %q", round, tag, got, want)
			}
			state[tag] = got
		}
		h.noWaste(t)
		h.close()
		if t.Failed() {
			return
		}
	}
}

// runAndKill runs the worker for a time after it is ready. It brings state up
// to date and returns the tags with which it was about something.
func runAndKill(t *testing.T, dir string, state map[string]digest.Digest, after time.Duration) map[string]bool {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	busy := map[string]bool{}
	done := 0
	defer func() { t.Log(done, "steps") }()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		word := strings.Split(lines.Text(), " ")
		switch word[0] {
		case "ready":
			time.AfterFunc(after, func() { cmd.Process.Kill() })
		case "begin":
			busy["app:"+word[1]] = true
		case "done":
			tag := "app:" + word[1]
			busy[tag] = false
			done++
			if word[2] != "same" {
				state[tag] = digest.Digest(word[2])
			}
		default:
			t.Fatal(lines.Text())
		}
	}
	return busy
}
