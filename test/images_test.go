package test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// An image goes through a registry that is not ours and comes back to run.
func TestPullFromARealRegistry(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"docker-registry", "skopeo"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s", program)
		}
	}
	h := newEngine(t)
	config := fmt.Sprintf("version: 0.1\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: 127.0.0.1:5000}\n", h.path("registry"))
	if err := os.WriteFile(h.path("registry.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	registry := h.within("docker-registry", "serve", h.path("registry.yml"))
	if err := registry.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = registry.Process.Kill()
		_ = registry.Wait()
	})
	h.eventually("the registry takes the image", func() bool {
		return execute(t, h.within("skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false",
			"docker-archive:"+h.layeredArchive(5), "docker://127.0.0.1:5000/many/layers:1")).code == 0
	})
	o := h.run("pull", "127.0.0.1:5000/many/layers:1")
	if o.code != 0 || !strings.Contains(o.stdout+o.stderr, "sha256:") {
		t.Fatalf("pull: code %d, %q, %q; want the digest", o.code, o.stdout, o.stderr)
	}
	if got := h.berth("run", "--rm", "127.0.0.1:5000/many/layers:1", "cat", "/top"); got != "layer 4" {
		t.Errorf("the pulled image printed %q", got)
	}
	if again := h.berth("pull", "127.0.0.1:5000/many/layers:1"); !strings.Contains(again, "up to date") {
		t.Errorf("a second pull said %q", again)
	}
	h.berth("rmi", "127.0.0.1:5000/many/layers:1")
	if got := h.berth("run", "--rm", "--quiet", "127.0.0.1:5000/many/layers:1", "echo", "pulled by run"); got != "pulled by run" {
		t.Errorf("run of a missing image printed %q", got)
	}
	if o := h.run("pull", "127.0.0.1:5000/no/such:1"); o.code == 0 || !strings.Contains(o.stderr, "no/such") {
		t.Errorf("pull of what is not there: code %d, %q", o.code, o.stderr)
	}
}

// What is broken is refused with its name, and nothing half-made stays.
func TestBrokenArchivesAreRefusedByName(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	good, err := os.ReadFile(h.layeredArchive(3))
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	if _, err := zip.Write(good); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Replace(good, []byte("layer 2\n"), []byte("layer X\n"), 1)
	outside := h.path("outside.tar")
	if err := writeTar(outside, []tarFile{{name: "../../escape", mode: 0o644, body: "x"}}); err != nil {
		t.Fatal(err)
	}
	climbing, err := os.ReadFile(outside)
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name, verb string
		body       []byte
		says       string
	}{
		{"empty", "load", nil, ""},
		{"not an archive", "load", []byte(strings.Repeat("x", 5000)), ""},
		{"truncated", "load", good[:len(good)/2], ""},
		{"truncated gzip", "load", packed.Bytes()[:packed.Len()/2], ""},
		{"changed layer", "load", flipped, "layer2.tar"},
		{"climbing entry", "import", climbing, "../../escape"},
	}
	before := h.berth("images", "-aq")
	for _, c := range cases {
		path := h.path("broken.tar")
		if err := os.WriteFile(path, c.body, 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"load", "-i", path}
		if c.verb == "import" {
			args = []string{"import", path, "broken:1"}
		}
		if o := h.run(args...); o.code == 0 || o.stderr == "" || !strings.Contains(o.stderr, c.says) {
			t.Errorf("%s: code %d, %q; want a refusal with %q", c.name, o.code, o.stderr, c.says)
		}
		if after := h.berth("images", "-aq"); after != before {
			t.Errorf("%s: images are now %q, were %q", c.name, after, before)
		}
	}
	path := h.path("good.tar.gz")
	if err := os.WriteFile(path, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if said := h.berth("load", "-i", path); !strings.Contains(said, "many/layers:1") {
		t.Errorf("the whole archive, compressed: %q", said)
	}
}

// Programs that cannot start say why and what to do.
func TestUnstartableProgramsSayWhy(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	elf := []byte("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00\x01\x00\x00\x00" + strings.Repeat("\x00", 200))
	path := h.busyboxTar(
		tarFile{name: "bin/crlf", mode: 0o755, body: "#!/bin/sh\r\necho hi\r\n"},
		tarFile{name: "bin/nointerp", mode: 0o755, body: "#!/no/such/shell\n"},
		tarFile{name: "bin/arm", mode: 0o755, body: string(elf)},
	)
	h.berth("import", path, "odd:1")
	cases := []struct{ program, says string }{
		{"crlf", "CR"}, {"nointerp", "/no/such/shell"}, {"arm", "arm64"}, {"absent", "PATH"},
	}
	for _, c := range cases {
		o := h.run("run", "--rm", "odd:1", c.program)
		if o.code != 126 && o.code != 127 || !strings.Contains(o.stderr, c.says) {
			t.Errorf("%s: code %d, %q; want 126 or 127 and %q", c.program, o.code, o.stderr, c.says)
		}
	}
}
