package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// registryFor starts a registry on the host and returns its address.
func (h *host) registryFor() string {
	h.t.Helper()
	const address = "127.0.0.1:5988"
	h.background(binary(h.t, "berthd"), "registry", "--root", h.path("registry"), "--listen", address)
	h.eventually("the registry answers", func() bool {
		return h.within("busybox", "wget", "-qO", "/dev/null", "http://"+address+"/v2/").Run() == nil
	})
	return address
}

// docker-py, as many tools and test suites use it.
func TestDockerPy(t *testing.T) {
	t.Parallel()
	const python = "/usr/bin/python3" // the distribution's, which has the distribution's packages
	if exec.Command(python, "-c", "import docker").Run() != nil {
		t.Skip("needs python3-docker")
	}
	h := newEngine(t)
	script, err := filepath.Abs("testdata/docker_py.py") // the host's processes begin in /
	if err != nil {
		t.Fatal(err)
	}
	o := execute(t, h.within(python, script, busyboxImage, h.registryFor()))
	if o.code != 0 || !strings.Contains(o.stdout, "docker-py is content") {
		t.Errorf("code %d:\n%s%s", o.code, o.stdout, o.stderr)
	}
}

// moby's own client for Go, a module of its own in test/mobyclient: it weighs
// more than the engine's dependencies together.
func TestMobyGoClient(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	program := h.path("mobyclient")
	cmd := exec.Command("go", "build", "-C", "mobyclient", "-mod=readonly", "-o", program, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if err != nil && regexp.MustCompile(`dial tcp|no such host|module lookup disabled|i/o timeout`).Match(out) {
		t.Skipf("the client is not in the module cache and cannot be fetched: %s", out)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	o := execute(t, h.within(program, busyboxImage, h.registryFor()))
	if o.code != 0 || !strings.Contains(o.stdout, "moby's client is content") {
		t.Errorf("code %d:\n%s%s", o.code, o.stdout, o.stderr)
	}
}
