package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
)

// An index keeps its images together wherever it goes: pulled whole, inspected,
// saved, loaded and pushed again.
func TestImagesOfSeveralPlatforms(t *testing.T) {
	t.Parallel()
	d := newDockerImages(t, "--registry-listen", "127.0.0.1:5000")
	const name = "127.0.0.1:5000/multi"
	archive, err := os.ReadFile(d.busyboxTar())
	if err != nil {
		t.Fatal(err)
	}
	other := archive
	if err := writeTar(d.path("other.tar"), []tarFile{{name: "other", mode: 0o644, body: "machine\n"}}); err != nil {
		t.Fatal(err)
	}
	if other, err = os.ReadFile(d.path("other.tar")); err != nil {
		t.Fatal(err)
	}
	d.piped(archive, "import", "--platform", "linux/amd64", "-", name+":amd64")
	d.piped(other, "import", "--platform", "linux/s390x", "-", name+":s390x")
	host := d.id(name + ":amd64")
	far := d.id(name + ":s390x")
	d.ok("push", "-a", name)
	d.ok("manifest", "create", "--insecure", name+":all", name+":amd64", name+":s390x")
	d.ok("manifest", "push", "--insecure", name+":all")
	d.ok("rmi", "-f", host, far)

	d.ok("pull", name+":all")
	if got := d.id(name + ":all"); got != host {
		t.Errorf("without a platform %s was pulled, want this machine's %s", got, host)
	}
	d.ok("pull", "--platform", "linux/s390x", name+":all")
	var out bytes.Buffer
	if err := d.post("/images/create?fromImage="+name+"&tag=all&allPlatforms=1", &out); err != nil || strings.Contains(out.String(), "errorDetail") {
		t.Fatalf("all platforms: %v %s", err, out.String())
	}
	type manifest struct {
		Available bool
		ImageData struct{ Platform struct{ Architecture string } }
	}
	check := func(when string) {
		t.Helper()
		var inspected struct {
			ID         string `json:"Id"`
			Descriptor struct{ Digest string }
			Manifests  []manifest
		}
		var body strings.Builder
		if err := d.get("/images/"+name+":all/json?manifests=1", &body); err != nil {
			t.Fatal(err, body.String())
		}
		if err := json.Unmarshal([]byte(body.String()), &inspected); err != nil {
			t.Fatal(err)
		}
		if inspected.ID != host || !strings.HasPrefix(inspected.Descriptor.Digest, "sha256:") || len(inspected.Manifests) != 2 ||
			!inspected.Manifests[0].Available || !inspected.Manifests[1].Available {
			t.Errorf("%s: %s", when, body.String())
		}
		body.Reset()
		if err := d.get("/images/"+name+":all/json?platform=linux%2Fs390x", &body); err != nil || !strings.Contains(body.String(), far) {
			t.Errorf("%s: of s390x: %v %s", when, err, body.String())
		}
		if err := d.get("/images/"+name+":all/history?platform=linux%2Farm64", nil); err == nil {
			t.Errorf("%s: there is a history for arm64", when)
		}
	}
	check("pulled")
	if list := d.ok("images", "-q", "--no-trunc", name); list != host {
		t.Errorf("the list shows %q, want one image %s", list, host)
	}
	d.ok("save", "--platform", "linux/s390x", "-o", d.path("one.tar"), name+":all")
	d.ok("save", "-o", d.path("all.tar"), name+":all")
	one, err := os.Stat(d.path("one.tar"))
	if err != nil {
		t.Fatal(err)
	}
	if all, err := os.Stat(d.path("all.tar")); err != nil || one.Size() >= all.Size() {
		t.Errorf("one platform takes %d bytes, all %v, %v", one.Size(), all, err)
	}
	d.ok("rmi", name+":all")
	if left := d.ok("images", "-aq", name); left != "" {
		t.Errorf("after rmi there is %q", left)
	}
	d.ok("load", "-i", d.path("all.tar"))
	check("loaded")
	d.ok("tag", name+":all", name+":again")
	if out := d.ok("push", name+":again"); !strings.Contains(out, "again: digest: sha256:") {
		t.Errorf("push of an index said %q", out)
	}
	var body strings.Builder
	if err := d.get("/distribution/"+name+":again/json", &body); err != nil || strings.Count(body.String(), `"architecture"`) != 2 {
		t.Errorf("at the registry: %v %s", err, body.String())
	}
	// All of it goes, and the plan knew.
	plan := d.pruned("/berth/plan", `{"Prunes":[{"Kind":"image","Filters":{"dangling":{"false":true}}}]}`)
	done := d.pruned(`/images/prune?filters={"dangling":["false"]}`, "")
	if plan != done || plan == 0 {
		t.Errorf("planned to free %d bytes, freed %d", plan, done)
	}
}

// pruned asks for a removal or a plan and returns how many bytes come back.
func (h *host) pruned(path, body string) (freed uint64) {
	h.t.Helper()
	resp, err := h.client().Post("http://engine"+path, "application/json", strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	var report struct{ SpaceReclaimed uint64 }
	if err := json.NewDecoder(resp.Body).Decode(&report); err != nil || resp.StatusCode != 200 {
		h.t.Fatal(resp.Status, err)
	}
	return report.SpaceReclaimed
}

// What a policy wants signed must be, from the moment the engine is told.
func TestPolicyWantsSignatures(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	policy := h.write("policy.toml", "default = \"allow\"\n", 0o600)
	h.args = []string{"--registry-listen", "127.0.0.1:5000", "--policy", policy}
	h.startEngine()
	h.berth("import", h.busyboxTar(), busyboxImage)
	const signed, unsigned = "127.0.0.1:5000/prod/app:1", "127.0.0.1:5000/prod/other:1"
	for _, name := range []string{signed, unsigned} {
		h.berth("tag", busyboxImage, name)
		h.berth("push", "-q", name)
	}
	run := func(argv ...string) outcome {
		cmd := h.within(append([]string{h.berthBin, "--no-start"}, argv...)...)
		cmd.Env = append(cmd.Env, "BERTH_KEY_PASSWORD=secret")
		return execute(t, cmd)
	}
	if o := run("image", "keygen", "-o", h.path("key")); o.code != 0 {
		t.Fatalf("keygen: %s", o.stderr)
	}
	if o := run("image", "sign", "--key", h.path("key.key"), signed); o.code != 0 {
		t.Fatalf("sign: %s", o.stderr)
	}
	if o := run("image", "verify", "--key", h.path("key.pub"), signed); o.code != 0 {
		t.Errorf("verify of what was signed: %s", o.stderr)
	}
	if o := run("image", "verify", "--key", h.path("key.pub"), unsigned); o.code == 0 {
		t.Errorf("verify of what was not signed: %q", o.stdout)
	}
	if o := run("image", "verify", busyboxImage); o.code != 0 {
		t.Errorf("verify of what is here: %s", o.stderr)
	}
	var list strings.Builder
	if err := h.get("/berth/images/"+signed+"/referrers", &list); err != nil || !strings.Contains(list.String(), "cosign") {
		t.Errorf("referrers: %v %s", err, list.String())
	}
	h.berth("pull", "-q", unsigned) // allowed as yet

	h.write("policy.toml", fmt.Sprintf("default = \"allow\"\n[[rule]]\nname = \"production\"\nrepository = \"127.0.0.1:5000/prod/**\"\naction = \"signed\"\nkeys = [%q]\n", h.path("key.pub")), 0o600)
	h.hangUp("read again")
	h.berth("pull", "-q", signed)
	if o := h.run("pull", unsigned); o.code == 0 || !strings.Contains(o.stderr, `"production"`) {
		t.Errorf("pull of an unsigned image: code %d, %q; want the rule's name", o.code, o.stderr)
	}
	// A broken file changes nothing.
	h.write("policy.toml", "default = \"whatever\"\n", 0o600)
	h.hangUp("what was in force stays")
	if o := h.run("pull", unsigned); o.code == 0 {
		t.Error("after a broken policy everything is allowed")
	}
}

// hangUp sends SIGHUP and waits until the engine's log says something new.
func (h *host) hangUp(says string) {
	h.t.Helper()
	before := strings.Count(h.engineLog(), says)
	if err := h.daemon.Process.Signal(syscall.SIGHUP); err != nil {
		h.t.Fatal(err)
	}
	h.eventually("the log says "+says, func() bool { return strings.Count(h.engineLog(), says) > before })
}

// A client that goes away in the middle stops its work, and nothing half-made
// stays.
func TestClientsThatGoAwayLeaveNothing(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	before := h.berth("images", "-aq")
	good, err := os.ReadFile(h.layeredArchive(3))
	if err != nil {
		t.Fatal(err)
	}
	leave := func(path string) {
		t.Helper()
		r, w := io.Pipe()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() {
			_, _ = w.Write(good[:len(good)/2])
			// The engine has taken half and waits for the rest.
			cancel()
			w.CloseWithError(context.Canceled) // the transport may wait for its body's end
		}()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://engine"+path, r)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-tar")
		resp, err := h.client().Do(req)
		if err == nil {
			resp.Body.Close()
			t.Errorf("%s answered %s before it had everything", path, resp.Status)
		}
		r.Close()
	}
	leave("/images/load?quiet=1")
	leave("/images/create?fromSrc=-&repo=half")
	h.eventually("nothing is being unpacked", func() bool {
		left, _ := os.ReadDir(h.path("data", "layers", ".tmp"))
		ingest, _ := os.ReadDir(h.path("data", "content", "ingest"))
		return len(left)+len(ingest) == 0
	})
	if after := h.berth("images", "-aq"); after != before {
		t.Errorf("images are now %q, were %q", after, before)
	}
}

// Every flag about registries does something.
func TestFlagsAboutRegistriesHaveAnEffect(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if out, err := h.within("ip", "addr", "add", "10.9.8.7/32", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h.args = []string{"--registry-mirror", "http://10.9.8.7:5000", "--max-layer-files", "100"}
	h.startEngine()
	h.background(binary(t, "berthd"), "registry", "--root", h.path("registry"), "--listen", "10.9.8.7:5000")
	h.berth("import", h.busyboxTar(), "10.9.8.7:5000/library/mirrored:1")
	if o := h.run("push", "10.9.8.7:5000/library/mirrored:1"); o.code == 0 {
		t.Errorf("a registry without TLS took a push: %q", o.stdout)
	}
	restart := func(args ...string) {
		h.stopEngine()
		h.args = args
		h.startEngine()
	}
	blobs := func() int {
		entries, err := os.ReadDir(h.path("data", "content", "blobs", "sha256"))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	restart("--insecure-registry", "10.9.8.7:5000", "--registry-mirror", "http://10.9.8.7:5000", "--keep-blobs=false")
	h.berth("push", "10.9.8.7:5000/library/mirrored:1")
	h.berth("rmi", "10.9.8.7:5000/library/mirrored:1")
	h.berth("pull", "mirrored:1") // which Docker Hub does not have
	without := blobs()
	h.berth("rmi", "mirrored:1")
	restart("--insecure-registry", "10.9.8.7:5000", "--registry-mirror", "http://10.9.8.7:5000")
	h.berth("pull", "mirrored:1")
	if with := blobs(); with <= without {
		t.Errorf("%d blobs are kept with --keep-blobs, %d without", with, without)
	}
	h.berth("rmi", "mirrored:1")
	restart("--insecure-registry", "10.9.8.7:5000", "--max-layer-files", "3")
	if o := h.run("pull", "10.9.8.7:5000/library/mirrored:1"); o.code == 0 || !strings.Contains(o.stderr, "3") {
		t.Errorf("a layer with more files than allowed: code %d, %q", o.code, o.stderr)
	}
	restart("--insecure-registry", "10.9.8.7:5000", "--max-layer-size", "10k")
	if o := h.run("pull", "10.9.8.7:5000/library/mirrored:1"); o.code == 0 {
		t.Errorf("a layer larger than allowed: %q", o.stdout)
	}
}
