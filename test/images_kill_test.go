package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

// Killed at any instant of a pull, a push, a load, a save or a prune, the engine
// has all of an image or nothing, and the next try goes on.
func TestEngineIsKilledAtWorkOnImages(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.background(binary(t, "berthd"), "registry", "--root", h.path("registry"), "--listen", "127.0.0.1:5000")
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(uint64(seed), 1))
	var files []tarFile
	for i := range 40 {
		body := make([]byte, 200<<10)
		for j := range body {
			body[j] = byte(random.Uint32())
		}
		files = append(files, tarFile{name: fmt.Sprintf("data/%d", i), mode: 0o644, body: string(body)})
	}
	const name = "127.0.0.1:5000/killed/often:1"
	h.berth("import", h.busyboxTar(files...), name)
	h.eventually("the registry takes the image", func() bool { return h.run("push", "-q", name).code == 0 })
	h.berth("save", "-o", h.path("saved.tar"), name)
	id := h.berth("images", "-q", "--no-trunc", name)

	works := map[string][]string{
		"pull": {"pull", "-q", name}, "push": {"push", "-q", name}, "load": {"load", "-q", "-i", h.path("saved.tar")},
		"rmi": {"rmi", "-f", name}, "prune": {"image", "prune", "-af"}, "save": {"save", "-o", h.path("again.tar"), name},
	}
	rounds := 12
	if testing.Short() {
		rounds = 6
	}
	for round := range rounds {
		kinds := []string{"pull", "push", "load", "rmi", "prune", "save"}
		kind := kinds[round%len(kinds)]
		if kind == "pull" || kind == "load" {
			h.run("rmi", "-f", name)
		}
		work := h.within(append([]string{h.berthBin, "--no-start"}, works[kind]...)...)
		if err := work.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(random.IntN(120)) * time.Millisecond)
		h.killEngine()
		_ = work.Wait()
		h.startEngine()
		// Whatever is there is whole.
		for _, found := range strings.Fields(h.berth("images", "-aq", "--no-trunc")) {
			if o := h.run("image", "verify", found); o.code != 0 {
				t.Errorf("killed in a %s: %s is damaged: %s", kind, found, o.stderr)
			}
		}
		if o := h.run("run", "--rm", "--network", "none", "--pull", "always", name, "echo", "whole"); o.code != 0 || !strings.Contains(o.stdout, "whole") {
			t.Errorf("killed in a %s: the image does not run afterwards: %s", kind, o.stderr)
		}
		if got := h.berth("images", "-q", "--no-trunc", name); got != id {
			t.Errorf("killed in a %s: the image is %q, want %s", kind, got, id)
		}
		if t.Failed() {
			return
		}
	}
	h.run("rmi", "-f", name, busyboxImage)
	h.berth("image", "prune", "-af")
	for _, dir := range []string{"layers", "content/blobs/sha256"} {
		h.eventually("nothing is left in "+dir, func() bool {
			entries, err := os.ReadDir(h.path("data", dir))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if !strings.HasPrefix(e.Name(), ".") {
					return false
				}
			}
			return true
		})
	}
}
