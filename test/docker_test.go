package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The real docker command line against our engine: what people have in their
// fingers must work unchanged.
func TestDockerCommandLine(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("needs the docker command line")
	}
	h := newEngine(t)
	ok := func(args ...string) string {
		t.Helper()
		o := h.docker(args...)
		if o.code != 0 {
			t.Fatalf("docker %s: code %d: %s", strings.Join(args, " "), o.code, o.stderr)
		}
		return strings.TrimSpace(o.stdout)
	}
	want := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if !strings.Contains(ok("version"), "Server") {
		t.Error("docker version shows no server")
	}
	if !strings.Contains(ok("info"), "Storage Driver") {
		t.Error("docker info shows no storage driver")
	}
	want(ok("run", "--rm", busyboxImage, "echo", "hi"), "hi")
	if o := h.docker("run", "--rm", busyboxImage, "sh", "-c", "echo err >&2; exit 7"); o.code != 7 || o.stderr != "err\n" {
		t.Errorf("exit 7: code %d, stderr %q", o.code, o.stderr)
	}
	if o := h.docker("run", "--rm", busyboxImage, "nosuch"); o.code != 127 {
		t.Errorf("missing command: code %d, want 127 (%s)", o.code, o.stderr)
	}
	id := ok("run", "-d", "--name", "web", "-p", "127.0.0.1:18080:80", "-l", "tier=front", busyboxImage, "httpd", "-f", "-p", "80", "-h", "/www")
	want(ok("ps", "-q", "--no-trunc"), id)
	want(ok("ps", "--filter", "label=tier=front", "--format", "{{.Names}}"), "web")
	if ports := ok("ps", "--format", "{{.Ports}}"); !strings.Contains(ports, "127.0.0.1:18080->80/tcp") {
		t.Errorf("ps shows ports %q", ports)
	}
	want(ok("exec", "web", "cat", "/www/index.html"), "hello from a container")
	h.eventually("the published port answers", func() bool {
		out, _ := h.within("busybox", "wget", "-qO-", "http://127.0.0.1:18080/").Output()
		return string(out) == "hello from a container\n"
	})
	want(ok("inspect", "--format", "{{.State.Status}} {{.Config.Labels.tier}}", "web"), "running front")
	ok("run", "--name", "talker", busyboxImage, "sh", "-c", "echo one; echo two")
	want(ok("logs", "talker"), "one\ntwo")
	want(ok("logs", "--tail", "1", "talker"), "two")
	ok("restart", "-t", "0", "web")
	want(ok("inspect", "--format", "{{.State.Running}}", "web"), "true")
	ok("stop", "-t", "1", "web")
	want(ok("wait", "web"), "137")
	ok("start", "web")
	ok("kill", "web")
	ok("rm", "web", "talker")
	want(ok("ps", "-aq"), "")
	want(ok("create", "--name", "made", busyboxImage, "cat"), ok("inspect", "--format", "{{.Id}}", "made"))
	ok("rm", "made")

	cmd := h.within("docker", "run", "-i", "--rm", busyboxImage, "wc", "-c")
	cmd.Stdin = strings.NewReader("12345")
	want(strings.TrimSpace(execute(t, cmd).stdout), "5")

	ok("tag", busyboxImage, "other/name:2")
	want(ok("images", "-q", "other/name:2"), ok("images", "-q", busyboxImage))
	ok("rmi", "other/name:2")
	if out := ok("load", "-i", h.layeredArchive(3)); !strings.Contains(out, "many/layers:1") {
		t.Errorf("docker load said %q", out)
	}
	want(ok("run", "--rm", "many/layers:1", "cat", "/top"), "layer 2")
	ok("rmi", "many/layers:1")
	archive, err := os.Open(h.busyboxTar())
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	imported := h.within("docker", "import", "-", "piped:1")
	imported.Stdin = archive
	if o := execute(t, imported); o.code != 0 {
		t.Errorf("docker import: %s", o.stderr)
	}
	want(ok("run", "--rm", "piped:1", "echo", "again"), "again")
}

// A peer that drives our runtime as its own.
func TestPodmanRunsOnOurRuntime(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("needs podman")
	}
	h := newHost(t)
	// Podman wants more open files than a container in a container may have.
	limits := []string{"--ulimit", "nofile=1024:2048", "--ulimit", "nproc=1000:2000"}
	podman := func(args ...string) outcome {
		if args[0] == "run" {
			args = append([]string{"run"}, append(limits, args[1:]...)...)
		}
		global := []string{"podman", "--root", h.path("root"), "--runroot", h.path("run"), "--tmpdir", h.path("tmp"), "--cgroup-manager", "cgroupfs",
			"--events-backend", "file", "--storage-driver", "vfs", "--runtime", binary(t, "berth-runtime")}
		return execute(t, h.within(append(global, args...)...))
	}
	if o := podman("import", h.busyboxTar(), busyboxImage); o.code != 0 {
		t.Fatalf("podman import: %s", o.stderr)
	}
	if o := podman("run", "--rm", "--network", "none", busyboxImage, "sh", "-c", "echo hi; exit 5"); o.stdout != "hi\n" || o.code != 5 {
		t.Errorf("podman run: %q, code %d, %s", o.stdout, o.code, o.stderr)
	}
	if o := podman("run", "-d", "--network", "none", "--name", "long", "--memory", "64m", "--pids-limit", "50", busyboxImage, "sleep", "1000"); o.code != 0 {
		t.Fatalf("podman run -d: %s", o.stderr)
	}
	defer podman("rm", "-f", "-t", "0", "long")
	if o := podman("exec", "long", "echo", "inside"); o.stdout != "inside\n" {
		t.Errorf("podman exec: %q, code %d, %s", o.stdout, o.code, o.stderr)
	}
	if o := podman("inspect", "--format", "{{.OCIRuntime}} {{.State.Status}}", "long"); !strings.Contains(o.stdout, "berth-runtime running") {
		t.Errorf("podman inspect: %q", o.stdout)
	}
	if o := podman("stop", "-t", "1", "long"); o.code != 0 {
		t.Errorf("podman stop: %s", o.stderr)
	}
}

func TestOldClientsAreServed(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	for _, version := range []string{"1.24", "1.30", "1.41", "1.44"} {
		var body strings.Builder
		if err := h.get("/v"+version+"/containers/json?all=1", &body); err != nil {
			t.Errorf("API %s: %v", version, err)
			continue
		}
		var list []any
		if err := json.Unmarshal([]byte(body.String()), &list); err != nil {
			t.Errorf("API %s: %v in %q", version, err, body.String())
		}
	}
	for _, version := range []string{"1.23", "9.99"} {
		if err := h.get("/v"+version+"/containers/json", nil); err == nil {
			t.Errorf("API %s was served", version)
		}
	}
}
