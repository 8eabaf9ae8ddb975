package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// machines are two engines that share nothing but a registry of ours.
type machines struct {
	*host
	second   string // of the second engine
	registry string
}

const cacheText = "FROM " + busyboxImage + ` AS made
RUN head -c 3000000 /dev/urandom > /large; date +%N > /stamp
FROM ` + busyboxImage + `
COPY --from=made /stamp /stamp
RUN date +%N > /mine
COPY source /source
RUN cat /source > /copied; date +%N >> /copied
`

func newMachines(t *testing.T) *machines {
	t.Helper()
	h := newEngine(t)
	m := &machines{host: h, second: "unix://" + h.path("run2", "berth.sock"), registry: "127.0.0.1:5001"}
	h.background(binary(t, "berthd"), "registry", "--root", h.path("registry"), "--listen", m.registry)
	m.startSecond()
	h.eventually("the registry answers", func() bool { return h.within("curl", "-s", "http://"+m.registry+"/v2/").Run() == nil })
	h.berth("--host", m.second, "import", h.busyboxTar(), busyboxImage)
	return m
}

func (m *machines) startSecond() {
	m.t.Helper()
	m.background(binary(m.t, "berthd"), "--root", m.path("data2"), "--run", m.path("run2"))
	m.eventually("the second engine answers", func() bool { return m.run("--host", m.second, "--no-start", "version").code == 0 })
}

// there builds on the second engine.
func (m *machines) there(args ...string) string {
	m.t.Helper()
	return m.build(append([]string{"--host", m.second, "--progress", "plain", "--why"}, args...)...)
}

// found counts the steps that were found in a cache.
func found(out, ref string) int { return strings.Count(out, "WHY found in "+ref) }

// layersThere counts the layers that the second engine has.
func (m *machines) layersThere() int {
	m.t.Helper()
	entries, err := os.ReadDir(m.path("data2", "layers"))
	if err != nil {
		m.t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			n++
		}
	}
	return n
}

func TestBuildCacheAtARegistry(t *testing.T) {
	t.Parallel()
	m := newMachines(t)
	dir := m.context("app", map[string]string{"Dockerfile": cacheText, "source": "one\n"})
	ref := m.registry + "/team/app:cache"
	out := m.build("--progress", "plain", "-t", "app", "--cache-to", "type=registry,ref="+ref+",mode=max", dir)
	contains(t, out, "pushed build cache to "+ref)
	id := m.berth("inspect", "--type", "image", "--format", "{{.RootFS.Layers}}", "app")
	before := m.layersThere()

	// Everything is found, and only what the image has is fetched.
	out = m.there("-t", "app", "--cache-from", "type=registry,ref="+ref, dir)
	if found(out, ref) != 5 || strings.Count(out, "CACHED") != 7 {
		t.Errorf("the second machine says\n%s", out)
	}
	if got := m.berth("--host", m.second, "inspect", "--type", "image", "--format", "{{.RootFS.Layers}}", "app"); got != id {
		t.Errorf("the second machine has layers %s, the first %s", got, id)
	}
	if n := m.layersThere() - before; n != 4 {
		t.Errorf("%d layers came, the image has 4 of its own", n)
	}
	contains(t, m.berth("--host", m.second, "build", "history", "inspect"), "found in "+ref)

	// Another source: what comes before it is found, and what came stays.
	m.write(filepath.Join("app", "source"), "two\n", 0o644)
	out = m.there("-t", "app", "--cache-from", ref, dir)
	if found(out, ref) != 3 {
		t.Errorf("with another source the second machine says\n%s", out)
	}
	// Who names no cache believes none.
	if out = m.there("-t", "app", dir); strings.Count(out, "found in") != 0 || !strings.Contains(out, "[made 2/2] RUN") {
		t.Errorf("without --cache-from:\n%s", out)
	}
	// A step that needs a stage's own layer has it fetched, or is run.
	text := cacheText + "COPY --from=made /large /large\n"
	m.write(filepath.Join("app", "Dockerfile"), text, 0o644)
	m.write(filepath.Join("app", "source"), "one\n", 0o644)
	m.berth("--host", m.second, "build", "cache", "prune", "-af")
	out = m.there("-t", "more", "--cache-from", ref, dir)
	if found(out, ref) != 5 || !strings.Contains(out, "pulled layers of "+ref) {
		t.Errorf("a step more:\n%s", out)
	}
	// It goes on from machine to machine, and what nobody has changed is not sent again.
	m.there("-t", "more", "--cache-from", ref, "--cache-to", ref, dir)
	out = m.build("--progress", "plain", "--why", "-t", "more", "--cache-from", ref, dir)
	if found(out, ref) != 1 || strings.Count(out, "CACHED") != 8 {
		t.Errorf("back on the first machine:\n%s", out)
	}
}

func TestBuildCacheInADirectory(t *testing.T) {
	t.Parallel()
	m := newMachines(t)
	dir := m.context("app", map[string]string{"Dockerfile": cacheText, "source": "one\n"})
	kept := m.path("kept")
	m.build("--cache-to", "type=local,mode=max,dest="+kept, dir)
	out := m.there("-t", "app", "--cache-from", "type=local,src="+kept, dir)
	if found(out, kept) != 5 {
		t.Errorf("the second machine says\n%s", out)
	}
	blobs := func() int {
		entries, err := os.ReadDir(filepath.Join(kept, "blobs", "sha256"))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	if n := blobs(); n != 7 { // five layers, the records, the manifest
		t.Errorf("%d blobs", n)
	}
	// A second export replaces the first, but not what has another tag.
	m.build("--cache-to", "type=local,dest="+kept+",tag=other", dir)
	m.write(filepath.Join("app", "source"), "two\n", 0o644)
	m.build("--cache-to", "type=local,mode=max,dest="+kept, dir)
	if n := blobs(); n != 2*2+5+2 {
		t.Errorf("%d blobs for two caches", n)
	}
	if out = m.there("--cache-from", "type=local,src="+kept+",tag=other", dir); found(out, kept) != 3 {
		t.Errorf("the other tag:\n%s", out)
	}
	if left, _ := filepath.Glob(filepath.Join(kept, ".berth-*")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	// What is damaged or away is a warning, and the steps are run.
	m.berth("--host", m.second, "build", "cache", "prune", "-af")
	layers, _ := filepath.Glob(filepath.Join(kept, "blobs", "sha256", "*"))
	for _, blob := range layers {
		if info, err := os.Stat(blob); err == nil && info.Size() > 1<<20 {
			if err := os.WriteFile(blob, make([]byte, info.Size()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.write(filepath.Join("app", "Dockerfile"), cacheText+"COPY --from=made /large /large\n", 0o644)
	out = m.there("-t", "app", "--cache-from", "type=local,src="+kept, "--cache-from", "type=local,src="+m.path("nowhere"), dir)
	contains(t, out, "nowhere", "steps are run again, because their layers cannot be had")
	m.write(filepath.Join("kept", "index.json"), `{"manifests":[{"digest":"../../x"}]}`, 0o644)
	contains(t, m.there("--cache-from", "type=local,src="+kept, dir), "no sha256 digest")
	// A directory of somebody's is not written to.
	if o := m.run("build", "--cache-to", "type=local,dest="+dir, dir); o.code == 0 || !strings.Contains(o.stderr, "neither empty") {
		t.Errorf("code %d, %s", o.code, o.stderr)
	}
}

func TestBuildCacheIsPruned(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	dir := h.context("app", map[string]string{"Dockerfile": "FROM " + busyboxImage + "\nRUN --mount=type=cache,id=tools,target=/k head -c 400000 /dev/urandom > /k/f\nRUN head -c 500000 /dev/urandom > /f\n"})
	h.build("-t", "app", dir)
	h.berth("rmi", "app")
	items := func(args ...string) int {
		t.Helper()
		return len(strings.Fields(h.berth(append([]string{"build", "cache", "du", "--format", "{{.ID}}"}, args...)...)))
	}
	if all, mounts := items(), items("--mounts"); all != 3 || mounts != 1 {
		t.Errorf("%d things, %d cache mounts", all, mounts)
	}
	contains(t, h.berth("system", "prune", "--dry-run"), "RUN head -c 500000", "cache mount tools")
	contains(t, h.berth("system", "prune", "--explain"), "no build uses it")
	h.berth("build", "cache", "prune", "-f", "--min-free-space", "1k")
	if items() != 3 {
		t.Error("there is room, and something went")
	}
	h.berth("build", "cache", "prune", "-f", "--min-free-space", "100000t", "--reserved-space", "1g")
	if items() != 3 {
		t.Error("something that is reserved went")
	}
	h.berth("build", "cache", "prune", "-f", "--mounts")
	if items() != 2 || items("--mounts") != 0 {
		t.Error("--mounts is for cache mounts alone")
	}
	h.berth("build", "cache", "prune", "-f", "--min-free-space", "100000t")
	if items() != 0 {
		t.Error("the disk is never as free as that, and something stays")
	}
}
