package test

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func itoa(n int) string { return strconv.Itoa(n) }

func signalNumber(s syscall.Signal) string { return strconv.Itoa(int(s)) }

// docker's command line with its first builder, and docker-compose, which have
// nothing of ours.
func TestBuildByDockersClients(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"docker", "docker-compose"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("needs " + name)
		}
	}
	h := newEngine(t)
	docker := func(args ...string) outcome {
		t.Helper()
		cmd := h.within(append([]string{"docker"}, args...)...)
		cmd.Env = append(cmd.Env, "DOCKER_BUILDKIT=0")
		return execute(t, cmd)
	}
	dir := h.context("d", map[string]string{"a.txt": "a", ".dockerignore": "*.log", "x.log": "x",
		"Dockerfile": "FROM " + busyboxImage + " AS one\nRUN sleep 0.3; echo built by one > /one\nFROM " + busyboxImage +
			"\nARG WHO=nobody\nCOPY . /got/\nRUN echo for $WHO; ls /got\nCOPY --from=one /one /\nCMD [\"cat\", \"/one\"]\n"})
	o := docker("build", "-t", "d:1", "--build-arg", "WHO=me", "--label", "a=b", dir)
	if o.code != 0 {
		t.Fatalf("docker build: %s%s", o.stdout, o.stderr)
	}
	at := -1
	for _, want := range []string{"Step 1/", "Step 2/", "Step 3/", "Step 4/", "Step 5/", "for me\n", "a.txt\n", "Step 6/", "Successfully built ", "Successfully tagged d:1\n"} {
		i := strings.Index(o.stdout, want)
		if i <= at {
			t.Errorf("%q is missing or out of order:\n%s", want, o.stdout)
		}
		at = i
	}
	if strings.Contains(o.stdout, "x.log") {
		t.Error("what .dockerignore leaves out is there")
	}
	if out := docker("run", "--rm", "d:1"); out.stdout != "built by one\n" {
		t.Errorf("the image says %q", out.stdout)
	}
	if out := docker("build", "-q", dir); !strings.HasPrefix(out.stdout, "sha256:") || strings.Count(out.stdout, "\n") != 1 {
		t.Errorf("-q: %q", out.stdout)
	}
	bad := h.context("bad", map[string]string{"Dockerfile": "FROM " + busyboxImage + "\nRUN echo before; exit 42\n"})
	if out := docker("build", bad); out.code != 42 || !strings.Contains(out.stderr, "The command '/bin/sh -c echo before; exit 42' returned a non-zero code: 42") {
		t.Errorf("a step that fails: code %d, %s", out.code, out.stderr)
	}
	h.write("bad/Dockerfile", "FROM "+busyboxImage+"\nRNU x\n", 0o644)
	if out := docker("build", bad); out.code != 1 || !strings.Contains(out.stderr, "Dockerfile:2:1") {
		t.Errorf("a mistake: code %d, %s", out.code, out.stderr)
	}
	if out := docker("build", "--squash", dir); out.code == 0 {
		t.Error("--squash was taken")
	}
	if out := docker("system", "df", "--format", "{{.Type}} {{.TotalCount}}"); !strings.Contains(out.stdout, "Build Cache ") || strings.Contains(out.stdout, "Build Cache 0") {
		t.Errorf("system df: %s", out.stdout)
	}
	if out := docker("builder", "prune", "-af"); out.code != 0 || !strings.Contains(out.stdout, "Total reclaimed space") {
		t.Errorf("builder prune: %s%s", out.stdout, out.stderr)
	}

	h.context("compose/search", map[string]string{"Dockerfile": "FROM " + busyboxImage + "\nARG ELK_VERSION\nRUN echo $ELK_VERSION > /version\nCMD cat /version; sleep 1000\n"})
	file := h.write("compose/docker-compose.yml", "version: '2'\nservices:\n  search:\n    build:\n      context: search/\n      args:\n        ELK_VERSION: $ELK_VERSION\n    networks: [elk]\nnetworks:\n  elk:\n    driver: bridge\n", 0o644)
	for _, args := range [][]string{{"build"}, {"up", "-d", "--build"}, {"down", "-t", "0"}} {
		cmd := h.within(append([]string{"docker-compose", "-f", file}, args...)...)
		cmd.Env = append(cmd.Env, "ELK_VERSION=5.6.1", "COMPOSE_DOCKER_CLI_BUILD=0", "DOCKER_BUILDKIT=0")
		if o := execute(t, cmd); o.code != 0 {
			t.Fatalf("docker-compose %v: %s%s", args, o.stdout, o.stderr)
		}
	}
	if out := h.berth("run", "--rm", "compose_search", "cat", "/version"); out != "5.6.1" {
		t.Errorf("compose built version %q", out)
	}
}
