package test

import (
	"regexp"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// What a team does: log in, build, tag, push, push again; somebody else pulls and
// runs it, with an engine of ours and with docker's, which shares something in
// return. The registry is ours, by itself, with TLS and users.
func TestShareThroughOurRegistry(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	cert, key := h.certificate("127.0.0.1")
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	const registry = "127.0.0.1:5443"
	h.write("users", "me:"+string(hash)+"\n", 0o600)
	h.background(binary(t, "berth"), "registry", "serve", "--listen", registry, "--root", h.path("registry"),
		"--tls-cert", cert, "--tls-key", key, "--htpasswd", h.path("users"))
	h.args = []string{"--registries", h.write("registries.toml", "[registry.\""+registry+"\"]\nca = \""+cert+"\"\n", 0o600)}
	h.startEngine()
	h.berth("import", h.busyboxTar(), busyboxImage)
	h.eventually("the registry answers", func() bool { return h.within("curl", "-sk", "https://"+registry+"/v2/").Run() == nil })

	login := func(argv ...string) {
		t.Helper()
		cmd := h.within(append(argv, "login", "-u", "me", "--password-stdin", registry)...)
		cmd.Stdin = strings.NewReader("secret")
		if o := execute(t, cmd); o.code != 0 || !strings.Contains(o.stdout+o.stderr, "Login Succeeded") {
			t.Fatalf("%v login: code %d, %s%s", argv, o.code, o.stdout, o.stderr)
		}
	}
	const name = registry + "/me/myapp"
	dir := h.context("app", map[string]string{"greeting": "shared\n", "Dockerfile": "FROM " + busyboxImage + "\nCOPY greeting /\nCMD [\"cat\", \"/greeting\"]\n"})
	h.build("--tag", "myapp", dir)
	h.berth("tag", "myapp", name)
	if o := h.run("push", name); o.code == 0 {
		t.Error("the registry takes pushes of strangers")
	}
	login(h.berthBin)
	out := h.berth("push", name)
	contains(t, out, "The push refers to repository ["+name+"]", ": Pushed")
	if !regexp.MustCompile(`latest: digest: sha256:[0-9a-f]{64} size: \d+`).MatchString(out) {
		t.Errorf("push ends with\n%s", out)
	}
	out = h.berth("push", name)
	if strings.Count(out, "Layer already exists") != 2 || strings.Contains(out, ": Pushed") {
		t.Errorf("the second push said\n%s", out)
	}
	id := h.berth("inspect", "--type", "image", "--format", "{{.Id}}", name)

	second := "unix://" + h.path("run2", "berth.sock")
	h.background(append([]string{binary(t, "berthd"), "--root", h.path("data2"), "--run", h.path("run2")}, h.args...)...)
	h.eventually("the second engine answers", func() bool { return h.run("--host", second, "--no-start", "version").code == 0 })
	if got := h.berth("--host", second, "run", "--rm", name); got != "shared" {
		t.Errorf("the second engine printed %q", got)
	}
	if got := h.berth("--host", second, "inspect", "--type", "image", "--format", "{{.Id}}", name); got != id {
		t.Errorf("the second engine has image %s, the first %s", got, id)
	}

	docker, err := h.startDocker()
	if err != nil {
		t.Skipf("docker's engine does not start on this machine, what follows was not tried: %v", err)
	}
	login("docker", "-H", docker)
	h.dockerAt(docker, "pull", name)
	if got := h.dockerAt(docker, "inspect", "--type", "image", "--format", "{{.Id}}", name); got != id {
		t.Errorf("docker's engine has image %s, ours %s", got, id)
	}
	if got := h.dockerAt(docker, "run", "--rm", "--network", "none", name); got != "shared" {
		t.Errorf("docker's engine printed %q", got)
	}
	const theirs = registry + "/me/theirs:1"
	h.dockerAt(docker, "build", "-t", theirs, h.context("theirs", map[string]string{"Dockerfile": "FROM " + name + "\nRUN echo from docker > /greeting\n"}))
	h.dockerAt(docker, "push", theirs)
	if got := h.berth("run", "--rm", theirs); got != "from docker" {
		t.Errorf("docker's image printed %q", got)
	}
}
