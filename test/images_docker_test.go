package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// dockerImages is a host whose images the real docker command line works with.
type dockerImages struct{ *host }

func newDockerImages(t *testing.T, args ...string) dockerImages {
	t.Helper()
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("needs the docker command line")
	}
	return dockerImages{newEngine(t, args...)}
}

// ok runs docker, which must succeed, and returns its trimmed output.
func (d dockerImages) ok(args ...string) string {
	d.t.Helper()
	o := d.docker(args...)
	if o.code != 0 {
		d.t.Fatalf("docker %s: code %d: %s", strings.Join(args, " "), o.code, o.stderr)
	}
	return strings.TrimSpace(o.stdout)
}

// fails runs docker, which must fail and say something.
func (d dockerImages) fails(says string, args ...string) {
	d.t.Helper()
	o := d.docker(args...)
	if o.code == 0 || !strings.Contains(o.stdout+o.stderr, says) {
		d.t.Errorf("docker %s: code %d, %q; want a failure with %q", strings.Join(args, " "), o.code, o.stdout+o.stderr, says)
	}
}

// piped runs docker with something to read and returns what it printed.
func (d dockerImages) piped(in []byte, args ...string) string {
	d.t.Helper()
	cmd := d.within(append([]string{"docker"}, args...)...)
	cmd.Stdin = bytes.NewReader(in)
	o := execute(d.t, cmd)
	if o.code != 0 {
		d.t.Fatalf("docker %s: code %d: %s", strings.Join(args, " "), o.code, o.stderr)
	}
	return strings.TrimSpace(o.stdout)
}

func (d dockerImages) id(ref string) string {
	d.t.Helper()
	return d.ok("image", "inspect", "--format", "{{.Id}}", ref)
}

// background starts a program in the host and ends it with the test.
func (h *host) background(argv ...string) {
	h.t.Helper()
	cmd := h.within(argv...)
	log, err := os.OpenFile(h.path("engine.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// What was built here goes through a registry that is not ours and comes back
// as the same image.
func TestDockerPushesToDebiansRegistry(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("docker-registry"); err != nil {
		t.Skip("needs docker-registry")
	}
	d := newDockerImages(t)
	config := d.write("registry.yml", fmt.Sprintf("version: 0.1\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: 127.0.0.1:5000}\n", d.path("registry")), 0o600)
	d.background("docker-registry", "serve", config)
	const name = "127.0.0.1:5000/team/layers"
	d.ok("load", "-i", d.layeredArchive(4))
	d.ok("tag", "many/layers:1", name+":1")
	id := d.id(name + ":1")
	d.eventually("the push succeeds", func() bool { return d.docker("push", name+":1").code == 0 })
	if again := d.ok("push", name+":1"); strings.Count(again, "Layer already exists") != 4 || !strings.Contains(again, "digest: sha256:") {
		t.Errorf("a second push said %q", again)
	}
	d.ok("tag", busyboxImage, name+":2")
	if all := d.ok("push", "--all-tags", name); !strings.Contains(all, "1: digest: sha256:") || !strings.Contains(all, "2: digest: sha256:") {
		t.Errorf("push of all tags said %q", all)
	}
	if digests := d.ok("images", "--digests", "--format", "{{.Digest}}", name+":1"); !strings.HasPrefix(digests, "sha256:") {
		t.Errorf("after the push the image has the digest %q", digests)
	}
	pinned := d.ok("inspect", "--format", "{{index .RepoDigests 0}}", name+":1")
	d.ok("rmi", "many/layers:1", name+":1", name+":2")
	d.ok("pull", pinned)
	if got := d.id(pinned); got != id {
		t.Errorf("%s is %s, want %s", pinned, got, id)
	}
	d.ok("rmi", pinned)
	d.fails("No such image", "image", "inspect", id)
	if out := d.ok("pull", name+":1"); !strings.Contains(out, "Status: Downloaded newer image for "+name+":1") {
		t.Errorf("pull said %q", out)
	}
	if got := d.id(name + ":1"); got != id {
		t.Errorf("the image came back as %s, was %s", got, id)
	}
	if got := d.ok("run", "--rm", name+":1", "cat", "/top"); got != "layer 3" {
		t.Errorf("it printed %q", got)
	}
	if out := d.ok("pull", "-a", name); !strings.Contains(out, "2: Pulling from team/layers") {
		t.Errorf("pull of all tags said %q", out)
	}
	d.fails("does not exist", "push", name+":nosuch")
	d.fails("not found", "pull", name+":nosuch")
	var inspected struct{ Manifests []any }
	if err := json.Unmarshal([]byte(d.ok("manifest", "inspect", "--insecure", name+":1")), &inspected); err != nil {
		t.Error(err)
	}
}

// Our own registry, over TLS, with users: what docker's people do every day.
func TestDockerLogsInToOurRegistry(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	cert, key := h.certificate("127.0.0.1")
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	h.write("users", "me:"+string(hash)+"\n", 0o600)
	h.write("registry.toml", "listen = \"127.0.0.1:5443\"\n[tls]\ncert = \""+cert+"\"\nkey = \""+key+"\"\n[auth]\nhtpasswd = \"users\"\n"+
		"[[auth.rule]]\nwho = [\"user:me\"]\nrepositories = [\"**\"]\nallow = [\"pull\", \"push\"]\n", 0o600)
	registries := h.write("registries.toml", "[registry.\"127.0.0.1:5443\"]\nca = \""+cert+"\"\n", 0o600)
	h.args = []string{"--registries", registries, "--registry-config", h.path("registry.toml"), "--keep-blobs=false"}
	h.startEngine()
	h.berth("import", h.busyboxTar(), busyboxImage)
	d := dockerImages{h}

	const name = "127.0.0.1:5443/team/busybox:1"
	d.ok("tag", busyboxImage, name)
	id := d.id(name)
	d.fails("", "push", name)
	login := d.within("docker", "login", "-u", "me", "--password-stdin", "127.0.0.1:5443")
	login.Stdin = strings.NewReader("wrong")
	if o := execute(t, login); o.code == 0 || !strings.Contains(o.stderr, "unauthorized") {
		t.Errorf("a wrong password: code %d, %q", o.code, o.stderr)
	}
	if out := d.piped([]byte("secret"), "login", "-u", "me", "--password-stdin", "127.0.0.1:5443"); !strings.Contains(out, "Login Succeeded") {
		t.Errorf("login said %q", out)
	}
	if out := d.ok("push", name); !strings.Contains(out, "digest: sha256:") {
		t.Errorf("push said %q", out)
	}
	d.ok("rmi", name, busyboxImage)
	d.ok("pull", name)
	if got := d.id(name); got != id {
		t.Errorf("the image came back as %s, was %s", got, id)
	}
	if got := d.ok("run", "--rm", name, "echo", "from our registry"); got != "from our registry" {
		t.Errorf("it printed %q", got)
	}
	// A second engine, which has nothing, runs it in exactly the same state.
	second := "unix://" + h.path("run2", "berth.sock")
	h.background(binary(t, "berthd"), "--root", h.path("data2"), "--run", h.path("run2"), "--registries", registries, "--policy", h.write("policy.toml", "default = \"allow\"\n", 0o600))
	h.eventually("the second engine answers", func() bool { return d.docker("-H", second, "version").code == 0 })
	if out := d.ok("-H", second, "pull", name); !strings.Contains(out, "Downloaded newer image") {
		t.Errorf("the second engine's pull said %q", out)
	}
	if got := d.ok("-H", second, "image", "inspect", "--format", "{{.Id}}", name); got != id {
		t.Errorf("the second engine has %s, want %s", got, id)
	}
	if got := d.ok("-H", second, "run", "--rm", name, "cat", "/www/index.html"); got != "hello from a container" {
		t.Errorf("in the second engine it printed %q", got)
	}
	// The engine's sweep at its start knows what the registry has.
	d.ok("rmi", name)
	h.stopEngine()
	h.startEngine()
	d.ok("pull", name)
	d.ok("logout", "127.0.0.1:5443")
	d.ok("rmi", name)
	d.fails("", "pull", name)
}

// certificate makes a self-signed certificate for an address.
func (h *host) certificate(address string) (cert, key string) {
	h.t.Helper()
	cert, key = h.path("cert.pem"), h.path("key.pem")
	o := execute(h.t, exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
		"-subj", "/CN=test", "-addext", "subjectAltName=IP:"+address, "-keyout", key, "-out", cert))
	if o.code != 0 {
		h.t.Skipf("needs openssl: %s", o.stderr)
	}
	return cert, key
}

// Save and load are each other's inverse, to the byte.
func TestDockerSavesAndLoadsTheSame(t *testing.T) {
	t.Parallel()
	d := newDockerImages(t)
	d.ok("load", "-i", d.layeredArchive(3))
	id := d.id("many/layers:1")
	save := func(refs ...string) []byte {
		t.Helper()
		path := d.path("saved.tar")
		d.ok(append([]string{"save", "-o", path}, refs...)...)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	refs := []string{"many/layers:1", busyboxImage}
	first := save(refs...)
	d.ok(append([]string{"rmi"}, refs...)...)
	said := d.piped(first, "load")
	for _, ref := range refs {
		if !strings.Contains(said, "Loaded image: "+ref) {
			t.Errorf("load said %q, want %s in it", said, ref)
		}
	}
	if got := d.id("many/layers:1"); got != id {
		t.Errorf("the image came back as %s, was %s", got, id)
	}
	if second := save(refs...); !bytes.Equal(first, second) {
		t.Errorf("saved again the archive has other bytes: %d and %d", len(first), len(second))
	}
	save(id)
	d.fails("No such image", "save", "-o", d.path("x.tar"), "nosuch:1")
	if d.docker("pull", "nosuch.invalid/x:1").code == 0 {
		t.Error("a registry that does not exist was pulled from")
	}
}

func TestDockerCommitsContainers(t *testing.T) {
	t.Parallel()
	d := newDockerImages(t)
	d.ok("run", "-d", "--name", "work", "-e", "KEPT=1", "-l", "tier=made", busyboxImage, "sleep", "1000")
	if changed := d.ok("diff", "work"); changed != "" {
		t.Errorf("a fresh container differs: %q", changed)
	}
	d.ok("exec", "work", "sh", "-c", "echo new > /data; rm /www/index.html; mkdir -p /deep/er")
	id := d.ok("commit", "-m", "what changed", "-a", "A. Uthor", "--change", `CMD ["cat","/data"]`, "--change", "ENV ADDED=2", "work", "made:1")
	if got := d.id("made:1"); got != id {
		t.Errorf("commit said %s, the image is %s", id, got)
	}
	if got := d.ok("run", "--rm", "made:1"); got != "new" {
		t.Errorf("the image printed %q", got)
	}
	if got := d.ok("run", "--rm", "made:1", "sh", "-c", `echo $KEPT$ADDED; test -e /www/index.html || echo gone; ls -d /deep/er`); got != "12\ngone\n/deep/er" {
		t.Errorf("the image has %q", got)
	}
	if got := d.ok("inspect", "--format", "{{.Author}}|{{.Comment}}|{{index .Config.Labels \"tier\"}}", "made:1"); got != "A. Uthor|what changed|made" {
		t.Errorf("inspect says %q", got)
	}
	if got := d.ok("inspect", "--format", "{{.State.Status}}", "work"); got != "running" {
		t.Errorf("after the commit the container is %s", got)
	}
	history := strings.Split(d.ok("history", "--no-trunc", "--format", "{{.ID}}|{{.CreatedBy}}|{{.Comment}}", "made:1"), "\n")
	if len(history) != 2 || history[0] != id+"|sleep 1000|what changed" || !strings.HasSuffix(history[1], "|Imported from -") {
		t.Errorf("history %q", history)
	}
	d.ok("pause", "work")
	d.ok("commit", "work", "made:2")
	if got := d.ok("inspect", "--format", "{{.State.Status}}", "work"); got != "paused" {
		t.Errorf("a container that was paused is %s after a commit", got)
	}
	d.ok("rm", "-f", "work")
	d.fails("No such container", "commit", "work")
	d.fails("has dependent child images", "rmi", "-f", d.id(busyboxImage))
}

func TestDockerListsAndPrunesImages(t *testing.T) {
	t.Parallel()
	d := newDockerImages(t)
	archive, err := os.ReadFile(d.busyboxTar())
	if err != nil {
		t.Fatal(err)
	}
	d.piped(archive, "import", "--message", "by hand", "--change", "LABEL tier=front", "--change", `CMD ["echo","imported"]`, "-", "site/front:1")
	d.piped(archive, "import", "--change", "LABEL tier=back", "-", "site/back:1")
	d.piped(archive, "import", "--change", "ENV x=1", "-", "moved:1")
	d.piped(archive, "import", "--change", "ENV x=2", "-", "moved:1")
	names := func(args ...string) []string {
		t.Helper()
		lines := strings.Fields(d.ok(append([]string{"images", "--format", "{{.Repository}}:{{.Tag}}"}, args...)...))
		slices.Sort(lines)
		return lines
	}
	want := func(got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	want(names(), "<none>:<none>", "moved:1", "site/back:1", "site/front:1", busyboxImage)
	want(names("--filter", "label=tier"), "site/back:1", "site/front:1")
	want(names("--filter", "label=tier=back"), "site/back:1")
	want(names("--filter", "dangling=true"), "<none>:<none>")
	want(names("--filter", "reference=site/*"), "site/back:1", "site/front:1")
	want(names("--filter", "before=site/front:1"), busyboxImage)
	want(names("--filter", "since=site/front:1", "--filter", "dangling=false"), "moved:1", "site/back:1")
	want(names("site/front"), "site/front:1")
	d.fails("invalid filter", "images", "--filter", "colour=red")
	if got := d.ok("run", "--rm", "site/front:1"); got != "imported" {
		t.Errorf("the imported image printed %q", got)
	}
	if got := d.ok("history", "--format", "{{.Comment}}", "site/front:1"); got != "by hand" {
		t.Errorf("history says %q", got)
	}

	d.ok("create", "--name", "keeper", "site/back:1", "true")
	plan := struct {
		SpaceReclaimed uint64
		Remove, Keep   []struct{ Reason string }
	}{}
	text := d.berth("image", "prune", "-a", "--filter", "label!=tier=front", "--explain", "--format", "json")
	if err := json.Unmarshal([]byte(text), &plan); err != nil || len(plan.Remove) != 3 || len(plan.Keep) != 2 {
		t.Errorf("plan %s, %v", text, err)
	}
	want(names(), "<none>:<none>", "moved:1", "site/back:1", "site/front:1", busyboxImage)
	if out := d.ok("image", "prune", "-f"); !strings.Contains(out, "deleted: sha256:") || !strings.Contains(out, "Total reclaimed space:") {
		t.Errorf("prune said %q", out)
	}
	d.ok("image", "prune", "-af", "--filter", "label!=tier=front")
	want(names(), "site/back:1", "site/front:1")
}

// post asks the engine to do something.
func (h *host) post(path string, w *bytes.Buffer) error {
	resp, err := h.client().Post("http://engine"+path, "application/json", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = w.ReadFrom(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("POST %s: %s: %s", path, resp.Status, w)
	}
	return err
}
