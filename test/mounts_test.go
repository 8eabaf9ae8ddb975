package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// dockerHost is a host with an engine that is talked to by the real docker command
// line.
type dockerHost struct{ *host }

func newDockerHost(t *testing.T) dockerHost {
	t.Helper()
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("needs the docker command line")
	}
	return dockerHost{newEngine(t)}
}

// does runs docker, which must succeed, and returns its trimmed output.
func (d dockerHost) does(args ...string) string {
	d.t.Helper()
	o := d.docker(args...)
	if o.code != 0 {
		d.t.Fatalf("docker %s: code %d: %s", strings.Join(args, " "), o.code, o.stderr)
	}
	return strings.TrimSpace(o.stdout)
}

// fails runs docker, which must fail and say why.
func (d dockerHost) fails(why string, args ...string) {
	d.t.Helper()
	o := d.docker(args...)
	if o.code == 0 || !strings.Contains(o.stderr, why) {
		d.t.Errorf("docker %s: code %d, %q; want %q", strings.Join(args, " "), o.code, o.stderr, why)
	}
}

func TestPartsOfVolumes(t *testing.T) {
	t.Parallel()
	d := newDockerHost(t)
	d.does("run", "--rm", "-v", "data:/v", busyboxImage, "sh", "-c", "mkdir -p /v/a/b /v/empty; echo deep >/v/a/b/file; ln -s /a/b /v/link; ln -s /etc /v/out")
	part := func(sub string, more ...string) string {
		return "type=volume,src=data,dst=/p,volume-subpath=" + sub + strings.Join(more, "")
	}
	d.equal(d.does("run", "--rm", "--mount", part("a/b"), busyboxImage, "cat", "/p/file"), "deep")
	d.equal(d.does("run", "--rm", "--mount", part("a/b/file"), busyboxImage, "cat", "/p"), "deep")
	d.equal(d.does("run", "--rm", "--mount", part("link"), busyboxImage, "sh", "-c", "echo new >/p/new; cat /p/file"), "deep")
	d.equal(d.does("run", "--rm", "-v", "data:/v", busyboxImage, "cat", "/v/a/b/new"), "new")
	d.fails("Read-only file system", "run", "--rm", "--mount", part("a", ",ro"), busyboxImage, "touch", "/p/x")
	// An empty part is filled from the image like an empty volume, unless nocopy is said.
	fill := "type=volume,src=data,dst=/www,volume-subpath=empty"
	d.equal(d.does("run", "--rm", "--mount", fill+",volume-nocopy", busyboxImage, "ls", "/www"), "")
	d.equal(d.does("run", "--rm", "--mount", fill, busyboxImage, "cat", "/www/index.html"), "hello from a container")
	d.fails("cannot access path", "run", "--rm", "--mount", part("nothing"), busyboxImage, "true")
	d.fails("cannot access path", "run", "--rm", "--mount", part("out/passwd"), busyboxImage, "true")
	d.fails("subpath must be a relative path", "run", "--rm", "--mount", part("../data"), busyboxImage, "true")
	d.fails("anonymous volumes", "run", "--rm", "--mount", "type=volume,dst=/p,volume-subpath=a", busyboxImage, "true")
	// Copying looks at the same part, whether the container runs or not, and so
	// does whoever takes the mounts over.
	d.does("create", "--name", "box", "--mount", part("a/b"), busyboxImage, "sleep", "1000")
	d.does("cp", "box:/p/file", d.path("out"))
	d.equal(d.read(d.path("out")), "deep\n")
	d.does("cp", d.path("out"), "box:/p/copied")
	d.does("start", "box")
	d.equal(d.does("exec", "box", "cat", "/p/copied"), "deep")
	d.equal(d.does("run", "--rm", "--volumes-from", "box:ro", busyboxImage, "cat", "/p/file"), "deep")
	d.fails("Read-only file system", "run", "--rm", "--volumes-from", "box:ro", busyboxImage, "touch", "/p/x")
	d.fails("No such container: nobody", "run", "--rm", "--volumes-from", "nobody", busyboxImage, "true")
	d.fails("invalid mode: rslave", "run", "--rm", "--volumes-from", "box:rslave", busyboxImage, "true")
	d.killEngine()
	d.startEngine()
	d.does("restart", "-t", "0", "box")
	d.equal(d.does("exec", "box", "cat", "/p/file"), "deep")
}

func TestImagesAsMounts(t *testing.T) {
	t.Parallel()
	d := newDockerHost(t)
	d.does("load", "-i", d.layeredArchive(3))
	const image = "many/layers:1"
	whole := "type=image,src=" + image + ",dst=/i"
	list := d.does("run", "--rm", image, "ls", "-R", "/layer")
	if list == "" {
		t.Fatal("the image has no files")
	}
	d.equal(d.does("run", "--rm", "--mount", "type=image,src="+image+",dst=/layer,image-subpath=layer", busyboxImage, "ls", "-R", "/layer"), list)
	d.fails("Read-only file system", "run", "--rm", "--mount", whole, busyboxImage, "touch", "/i/x")
	d.equal(d.does("run", "--rm", "--mount", "type=image,src="+busyboxImage+",dst=/page,image-subpath=www/index.html", busyboxImage, "cat", "/page"), "hello from a container")
	d.fails("cannot access path", "run", "--rm", "--mount", whole+",image-subpath=none", busyboxImage, "true")
	d.fails("No such image", "run", "--rm", "--mount", "type=image,src=none:1,dst=/i", busyboxImage, "true")
	// An image stays as long as a container mounts it; forced, its name goes and
	// its files stay.
	d.does("run", "-d", "--name", "box", "--mount", whole, busyboxImage, "sleep", "1000")
	d.equal(d.does("inspect", "-f", "{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end}}", "box"), "image "+image+" /i false")
	d.fails("is using", "rmi", image)
	d.does("stop", "-t", "0", "box")
	d.fails("is using", "rmi", image)
	d.does("image", "prune", "-af")
	d.does("cp", "box:/i/layer", d.path("out"))
	d.does("rmi", "-f", image)
	d.killEngine()
	d.startEngine()
	d.does("start", "box")
	if got := d.does("exec", "box", "ls", "/i/layer"); got == "" {
		t.Error("the image's files are gone")
	}
	// A volume of the same name as a mounted image is another thing.
	d.does("volume", "create", "twin")
	d.does("tag", busyboxImage, "twin")
	d.does("create", "--name", "other", "--mount", "type=image,src=twin,dst=/i", busyboxImage, "true")
	d.does("volume", "rm", "twin")
	// What nobody mounts any more goes.
	d.does("rm", "-f", "box", "other")
	d.does("image", "prune", "-af")
	d.killEngine()
	d.startEngine()
	d.eventually("the layers are gone", func() bool {
		left, _ := filepath.Glob(d.path("data", "layers", "[0-9a-f]*"))
		return len(left) == 0
	})
}

// A container that has a volume swaps what another one mounts of it for a link to
// the host's files (CVE-2021-25741), or makes the name of a bind's source something
// else: what is mounted is what was found inside, or nothing.
func TestSwappedSourcesStayInside(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	canary := h.write("host/canary", "host", 0o600)
	shared := h.path("shared")
	if err := os.MkdirAll(shared, 0o755); err != nil {
		t.Fatal(err)
	}
	swap := `mkdir -p /v/sub /v/dir; touch /v/sub/inside /v/dir/inside; ln -s ` + filepath.Dir(canary) + ` /v/evil; ln -s /proc/1/root` + filepath.Dir(canary) + ` /v/magic
while :; do mv /v/sub /v/dir2; ln -s ` + filepath.Dir(canary) + ` /v/sub; rm /v/sub; ln -s /v/magic /v/sub; rm /v/sub; mv /v/dir2 /v/sub; done`
	h.ok("run", "-d", "--name", "evil", "-v", "data:/v", busyboxImage, "sh", "-c", swap)
	mounted := 0
	for range 30 {
		o := h.run("run", "--rm", "--mount", "type=volume,src=data,dst=/p,volume-subpath=sub", busyboxImage, "sh", "-c", "ls /p; cat /p/canary; rm -f /p/canary")
		switch {
		case strings.Contains(o.stdout, "host") || strings.Contains(o.stdout, "canary"):
			t.Fatalf("a container saw the host: %q", o.stdout)
		case strings.Contains(o.stdout, "inside"):
			mounted++
		case !strings.Contains(o.stderr, "cannot access path"):
			t.Fatalf("code %d: %s", o.code, o.stderr)
		}
	}
	h.equal(h.read(canary), "host")
	t.Logf("%d of 30 were mounted", mounted)
}
