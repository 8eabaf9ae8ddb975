package transfer

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
)

const childVar = "BERTH_TRANSFER_TEST_CHILD"

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if args := strings.Fields(os.Getenv(childVar)); len(args) == 4 {
		if err := child(args[0], args[1], args[2], args[3] == "keep"); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child pulls or pushes and says what happens, a line each.
func child(what, root, ref string, keep bool) error {
	h, err := openHouse(root, func(c *Config) { c.KeepBlobs = keep })
	if err != nil {
		return err
	}
	h.leaseEvery = time.Millisecond
	h.onLease = func() { fmt.Println("leased") }
	say := func(m jsonstream.Message) {
		at := int64(0)
		if m.Progress != nil {
			at = m.Progress.Current
		}
		fmt.Println(m.ID, m.Status, at)
	}
	if what == "push" {
		_, err = h.Push(context.Background(), ref, PushOptions{Progress: say})
	} else {
		_, _, err = h.Pull(context.Background(), ref, Options{Progress: say})
	}
	return err
}

// killedAt runs a child and kills it when it says a line that at accepts.
func killedAt(t *testing.T, what, root, ref string, keep bool, at func(line string) bool) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVar+"="+strings.Join([]string{what, root, ref, map[bool]string{true: "keep", false: "drop"}[keep]}, " "))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said []string
	killed := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said = append(said, lines.Text())
		if !killed && at(lines.Text()) {
			killed = true
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
	if !killed {
		t.Fatalf("the child ended before it could be killed: %q", said)
	}
}

// hold serves the first n bytes of one blob and then nothing until done closes.
func (g *registry) hold(d digest.Digest, n int, done <-chan struct{}) {
	g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, string(d)) {
			return false
		}
		g.mu.Lock()
		data := g.blobs[d]
		g.mu.Unlock()
		w.Header().Set("Content-Length", itoa(len(data)))
		for i := 0; i < n; i += 256 << 10 { // slowly, so that progress is reported
			w.Write(data[i:min(n, i+256<<10)])
			http.NewResponseController(w).Flush()
			time.Sleep(30 * time.Millisecond)
		}
		select {
		case <-r.Context().Done():
		case <-done:
		}
		return true
	})
}

// TestKilledPullGoesOn: the process dies while one layer is whole and another
// half; the next fetches the other half of that and nothing else.
func TestKilledPullGoesOn(t *testing.T) {
	for _, keep := range []bool{true, false} {
		t.Run(map[bool]string{true: "kept", false: "dropped"}[keep], func(t *testing.T) {
			g := newRegistry(t)
			small, large := noise(100_000, 1), noise(4<<20, 2)
			m, _ := g.push("v1", arch, ociGzip, oneFile("a", small), oneFile("b", large))
			done := make(chan struct{})
			t.Cleanup(func() { close(done) })
			g.hold(m.Layers[1].Digest, 3<<20, done)
			root := t.TempDir()
			ref := g.host + "/app:v1"
			leased, half := false, false
			killedAt(t, "pull", root, ref, keep, func(line string) bool {
				leased = leased || line == "leased"
				var id, status string
				var n int
				if c, _ := fmt.Sscan(line, &id, &status, &n); c == 3 && id == shortID(m.Layers[1]) && status == "Downloading" && n > 1<<20 {
					half = true
				}
				return leased && half
			})
			g.setFault(nil)
			before := len(g.log)
			h := buildAt(t, root, func(c *Config) { c.KeepBlobs = keep })
			if images, err := h.images.List(context.Background()); err != nil || len(images) != 0 {
				t.Errorf("images after the kill: %v, %v", images, err)
			}
			img := h.pull(t, ref)
			if h.read(t, img, "a") != small || h.read(t, img, "b") != large {
				t.Error("the files differ")
			}
			g.mu.Lock()
			asked := strings.Join(g.log[before:], "\n")
			g.mu.Unlock()
			if strings.Contains(asked, m.Layers[0].Digest.String()) {
				t.Error("the layer that was whole was fetched again")
			}
			if !strings.Contains(asked, m.Layers[1].Digest.String()+" bytes=") {
				t.Errorf("the other was fetched from the start: %s", asked)
			}
			for i, l := range m.Layers {
				if i == 1 && h.content.Has(l.Digest) != keep {
					t.Errorf("the packed layer is kept: %v", !keep)
				}
			}
		})
	}
}

// TestSpoiltPartialIsFetchedAnew: what an earlier life left is not trusted.
func TestSpoiltPartialIsFetchedAnew(t *testing.T) {
	g := newRegistry(t)
	data := noise(2<<20, 2)
	m, _ := g.push("v1", arch, ociGzip, oneFile("b", data))
	h := build(t, func(c *Config) { c.KeepBlobs = true })
	part, err := h.content.Resume(m.Layers[0].Digest.Encoded())
	if err != nil {
		t.Fatal(err)
	}
	spoilt := slices.Clone(g.blobs[m.Layers[0].Digest][:1<<20])
	spoilt[700_000] ^= 1
	part.Write(spoilt)
	part.Close()
	img := h.pull(t, g.host+"/app:v1")
	if h.read(t, img, "b") != data {
		t.Error("the file differs")
	}
}

// TestKilledPushGoesOn: nothing is visible at the registry, and what has come
// there is not sent again.
func TestKilledPushGoesOn(t *testing.T) {
	for _, keep := range []bool{true, false} {
		t.Run(map[bool]string{true: "kept", false: "dropped"}[keep], func(t *testing.T) {
			src, g := newRegistry(t), newPushRegistry(t)
			src.push("v1", arch, ociGzip, oneFile("a", "small"), oneFile("b", noise(4<<20, 2)))
			root := t.TempDir()
			ref := g.host + "/app:v1"
			h := buildAt(t, root, func(c *Config) { c.KeepBlobs = keep })
			img := h.pull(t, src.host+"/app:v1")
			h.tag(t, src.host+"/app:v1", ref)
			h.close()
			stop := make(chan struct{})
			t.Cleanup(func() { close(stop) })
			g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
				if (r.Method == http.MethodPatch || r.Method == http.MethodPut) && (r.ContentLength > 1<<20 || r.ContentLength < 0 && firstIsLarge(r)) {
					select {
					case <-r.Context().Done():
					case <-stop:
					}
					return true
				}
				return false
			})
			first := shortDigest(img.DiffIDs[0])
			killedAt(t, "push", root, ref, keep, func(line string) bool { return strings.HasPrefix(line, first+" Pushed") })
			if len(g.manifests) != 0 {
				t.Error("a manifest is visible")
			}
			g.setFault(nil)
			h = buildAt(t, root, func(c *Config) { c.KeepBlobs = keep })
			_, said := h.push(t, ref, PushOptions{})
			if keep {
				said.has(t, first+" Layer already exists")
			}
			said.has(t, shortDigest(img.DiffIDs[1])+" Pushed")
			build(t, nil).pull(t, ref)
		})
	}
}

// firstIsLarge reads a stream until it is clear which layer it is.
func firstIsLarge(r *http.Request) bool {
	n, buf := 0, make([]byte, 64<<10)
	for n < 1<<20 {
		k, err := r.Body.Read(buf)
		n += k
		if err != nil {
			return false
		}
	}
	return true
}
