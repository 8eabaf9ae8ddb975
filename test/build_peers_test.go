package test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// peer is a builder that ours is compared with.
type peer interface {
	name() string
	base() // makes the base image
	build(tag, dir string)
	files(tag string) map[string]string // all there is in an image, by path
	settings(tag string) map[string]any
}

// peers starts the other builders: docker's first one, and with all buildah.
func (h *host) peers(all bool) (list []peer) {
	h.t.Helper()
	missing := func(programs ...string) string {
		for _, p := range programs {
			if _, err := exec.LookPath(p); err != nil {
				return p
			}
		}
		return ""
	}
	if p := missing("docker", "dockerd"); p != "" {
		h.t.Logf("not compared with docker: %s is missing", p)
	} else if socket, err := h.startDocker(); err != nil {
		h.t.Logf("not compared with docker, whose engine does not start here: %v", err)
	} else {
		list = append(list, &dockerPeer{h: h, client: "docker", socket: socket})
	}
	if p := missing("buildah"); all && p == "" {
		list = append(list, &buildahPeer{h: h})
	} else if all {
		h.t.Logf("not compared with buildah: %s is missing", p)
	}
	if len(list) == 0 {
		h.t.Skip("no other builder is here")
	}
	return list
}

// baseChange is PATH: builders give one to an image without, at different times.
const baseChange = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// dockerPeer is a builder with docker's command line: ours, or docker's first one.
type dockerPeer struct {
	h              *host
	client, socket string
}

func (d *dockerPeer) name() string { return filepath.Base(d.client) }

func (d *dockerPeer) run(args ...string) string {
	d.h.t.Helper()
	cmd := d.h.within(append([]string{d.client, "-H", d.socket}, args...)...)
	cmd.Env = append(cmd.Env, "DOCKER_BUILDKIT=0")
	return d.h.succeed(cmd)
}

// succeed runs a program, which must not fail, and returns what it printed.
func (h *host) succeed(cmd *exec.Cmd) string {
	h.t.Helper()
	o := execute(h.t, cmd)
	if o.code != 0 {
		h.t.Fatalf("%s: %s%s", strings.Join(cmd.Args, " "), o.stdout, o.stderr)
	}
	return strings.TrimSpace(o.stdout)
}

func (d *dockerPeer) base() {
	d.run("import", "-c", baseChange, d.h.path("busybox.tar"), busyboxImage)
}

func (d *dockerPeer) build(tag, dir string) { d.run("build", "-q", "-t", tag, dir) }

// files lists a container that never ran.
func (d *dockerPeer) files(tag string) map[string]string {
	d.h.t.Helper()
	id := d.run("create", tag, "x")
	defer d.run("rm", id)
	return d.h.archived(d.h.within(d.client, "-H", d.socket, "export", id))
}

// archived describes the files of the archive that a program prints.
func (h *host) archived(cmd *exec.Cmd) map[string]string {
	h.t.Helper()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	files := h.describe(stdout)
	_, _ = io.Copy(io.Discard, stdout) // what pads an archive
	if err := cmd.Wait(); err != nil {
		h.t.Fatalf("%s: %v", strings.Join(cmd.Args, " "), err)
	}
	return files
}

func (d *dockerPeer) settings(tag string) map[string]any {
	d.h.t.Helper()
	var all []inspected
	if err := json.Unmarshal([]byte(d.run("image", "inspect", tag)), &all); err != nil || len(all) != 1 {
		d.h.t.Fatalf("inspect %s: %v", tag, err)
	}
	return all[0].settings()
}

// inspected is what every builder tells about an image.
type inspected struct {
	Architecture, Os, Author string
	Config                   map[string]any
}

// settings leaves out what is not set, however that is written.
func (i *inspected) settings() map[string]any {
	out := map[string]any{"Architecture": i.Architecture, "Os": i.Os, "Author": i.Author}
	for _, key := range []string{"User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal", "Healthcheck", "Shell", "OnBuild"} {
		set := false
		switch v := i.Config[key].(type) {
		case string:
			set = v != ""
		case []any:
			set = len(v) > 0
		case map[string]any:
			set = len(v) > 0
		}
		if set {
			out[key] = i.Config[key]
		}
	}
	return out
}

// buildahPeer is buildah, with a store of its own.
type buildahPeer struct{ h *host }

func (b *buildahPeer) name() string { return "buildah" }

func (b *buildahPeer) command(args ...string) *exec.Cmd {
	at := []string{"buildah", "--root", b.h.path("buildah"), "--runroot", b.h.path("buildah-run"), "--storage-driver", "vfs"}
	return b.h.within(append(at, args...)...)
}

func (b *buildahPeer) base() {
	dir := b.h.context("buildah-base", map[string]string{"Dockerfile": "FROM scratch\nADD busybox.tar /\n" + baseChange + "\n"})
	if err := os.Link(b.h.path("busybox.tar"), filepath.Join(dir, "busybox.tar")); err != nil {
		b.h.t.Fatal(err)
	}
	b.build(busyboxImage, dir)
}

// build runs steps without a container of their own: there are fewer things that a
// machine must have for that. The limits are said because it would else ask for
// more than a machine may give.
func (b *buildahPeer) build(tag, dir string) {
	b.h.t.Helper()
	b.h.succeed(b.command("build", "-q", "--format", "docker", "--isolation", "chroot", "--network", "host", "--pull=false",
		"--cap-add", "CAP_MKNOD", "--ulimit", "nofile=1024:2048", "--ulimit", "nproc=1000:2000", "-t", tag, dir))
}

// files reads the image's last layer, which is a whole tree with this storage: a
// container would run the triggers of the image first.
func (b *buildahPeer) files(tag string) map[string]string {
	b.h.t.Helper()
	var images []struct {
		Names []string
		Layer string
	}
	if err := json.Unmarshal([]byte(readFile(b.h.t, b.h.path("buildah", "vfs-images", "images.json"))), &images); err != nil {
		b.h.t.Fatal(err)
	}
	for _, image := range images {
		if slices.Contains(image.Names, "localhost/"+tag) {
			root := b.h.path("buildah", "vfs", "dir", image.Layer)
			return b.h.archived(b.h.within("tar", "--xattrs", "--xattrs-include=*", "--format=posix", "-C", root, "-cf", "-", "."))
		}
	}
	b.h.t.Fatalf("buildah has no image %s", tag)
	return nil
}

func (b *buildahPeer) settings(tag string) map[string]any {
	b.h.t.Helper()
	var image struct{ Docker inspected }
	if err := json.Unmarshal([]byte(b.h.succeed(b.command("inspect", "--type", "image", tag))), &image); err != nil {
		b.h.t.Fatal(err)
	}
	if labels, ok := image.Docker.Config["Labels"].(map[string]any); ok {
		delete(labels, "io.buildah.version") // its signature
	}
	return image.Docker.settings()
}

// startDocker starts docker's engine in the host's namespaces.
func (h *host) startDocker() (socket string, err error) {
	dir := h.path("docker")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	socket = "unix://" + filepath.Join(dir, "s.sock")
	cmd := h.within("dockerd", "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "-H", socket)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return "", err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return "", err
	}
	over := make(chan error, 1)
	go func() { over <- cmd.Wait() }()
	h.t.Cleanup(func() {
		_ = h.within("sh", "-c", "kill $(cat "+filepath.Join(dir, "pid")+")").Run()
		<-over
	})
	up := false
	h.eventually("docker's engine answers, or ends", func() bool {
		select {
		case err = <-over:
			over <- err
			return true
		default:
			up = h.within("docker", "-H", socket, "version").Run() == nil
			return up
		}
	})
	if !up {
		text, _ := os.ReadFile(filepath.Join(dir, "log"))
		return "", errors.New(string(text))
	}
	return socket, nil
}

func (h *host) dockerAt(socket string, args ...string) string {
	h.t.Helper()
	return (&dockerPeer{h: h, client: "docker", socket: socket}).run(args...)
}
