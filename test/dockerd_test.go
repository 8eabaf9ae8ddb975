package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// newDockerd makes a host whose engine was started as dockerd.
func newDockerd(t *testing.T) *host {
	t.Helper()
	h := newHost(t)
	if err := os.Symlink(binary(t, "berthd"), h.path("dockerd")); err != nil {
		t.Fatal(err)
	}
	return h
}

// dockerd is dockerd's command line on a host.
func (h *host) dockerdArgs(more ...string) []string {
	return append([]string{h.path("dockerd"), "--data-root", h.path("data"), "--exec-root", h.path("run"), "--pidfile", h.path("docker.pid"),
		"-H", h.socket()}, more...)
}

func (h *host) startDockerd(more ...string) {
	h.t.Helper()
	h.startDaemon(append(h.dockerdArgs("--containerd", "/run/containerd.sock"), more...))
}

func (h *host) writeFile(name, text string) string {
	h.t.Helper()
	if err := os.WriteFile(h.path(name), []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return h.path(name)
}

func TestToolsStartTheirOwnDockerd(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("needs the docker command line")
	}
	h := newDockerd(t)
	config := h.writeFile("daemon.json", `{"labels": ["tier=one"], "default-shm-size": "8m", "icc": false,
		"default-ulimits": {"nofile": {"Name": "nofile", "Soft": 1024, "Hard": 2048}}, "log-opts": {"max-size": "1m"}, "dns": ["192.0.2.53"]}`)
	h.startDockerd("--config-file", config, "--storage-driver", "overlay2", "--iptables=false", "--bip", "10.77.0.1/24", "-D")
	h.eventually("the log says that the API is there", func() bool { return strings.Contains(h.engineLog(), "API listen on ") })
	for _, want := range []string{"ignored --iptables false: ", "ignored --containerd "} {
		if !strings.Contains(h.engineLog(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
	h.berth("import", h.busyboxTar(), busyboxImage)
	docker := func(args ...string) string {
		t.Helper()
		o := h.docker(args...)
		if o.code != 0 {
			t.Fatalf("docker %v: %s", args, o.stderr)
		}
		return strings.TrimSpace(o.stdout)
	}
	if got := docker("info", "-f", "{{.Labels}} {{.LiveRestoreEnabled}} {{.Debug}}"); got != "[tier=one] false true" {
		t.Errorf("info: %s", got)
	}
	out := docker("run", "--rm", busyboxImage, "sh", "-c", "ulimit -n; grep /dev/shm /proc/mounts; cat /etc/resolv.conf; ip -4 addr show eth0")
	for _, want := range []string{"1024\n", "size=8192k", "nameserver 192.0.2.53", "inet 10.77.0."} {
		if !strings.Contains(out, want) {
			t.Errorf("a container does not show %q:\n%s", want, out)
		}
	}
	if out := docker("run", "--rm", "--shm-size", "4m", "--ulimit", "nofile=99:99", busyboxImage, "sh", "-c", "ulimit -n; grep /dev/shm /proc/mounts"); !strings.HasPrefix(out, "99\n") || !strings.Contains(out, "size=4096k") {
		t.Errorf("what a container says itself is overruled:\n%s", out)
	}
	docker("run", "-d", "--name", "always", "--restart", "always", busyboxImage, "sleep", "1000")
	docker("run", "-d", "--name", "once", "--init", busyboxImage, "sleep", "1000")

	h.writeFile("daemon.json", `{"labels": ["tier=two"], "registry-mirrors": ["http://127.0.0.1:5999"], "mtu": 1400}`)
	_ = h.daemon.Process.Signal(syscall.SIGHUP)
	h.eventually("the labels change", func() bool { return docker("info", "-f", "{{.Labels}}") == "[tier=two]" })
	if got := docker("info", "-f", "{{.RegistryConfig.Mirrors}}"); !strings.Contains(got, "127.0.0.1:5999") {
		t.Errorf("mirrors: %s", got)
	}
	if !strings.Contains(h.engineLog(), "option=mtu") {
		t.Error("it does not say that the MTU needs a new start")
	}
	h.writeFile("daemon.json", `{"labels": ["tier=three"], "bogus": 1}`)
	_ = h.daemon.Process.Signal(syscall.SIGHUP)
	h.eventually("the log names the unknown key", func() bool { return strings.Contains(h.engineLog(), "bogus") })
	if got := docker("info", "-f", "{{.Labels}}"); got != "[tier=two]" {
		t.Errorf("a file that cannot be read changed the labels to %s", got)
	}

	// Without --live-restore the containers end with dockerd, and those that want
	// to come back do.
	h.writeFile("daemon.json", `{}`)
	h.stopEngine()
	h.startDockerd("--config-file", config)
	h.eventually("always is back", func() bool { return docker("inspect", "-f", "{{.State.Running}}", "always") == "true" })
	if got := docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "once"); got != "exited 143" {
		t.Errorf("once is %s", got)
	}
	if w := h.why("once"); w.Causes[0].Kind != "asked" || w.Causes[0].Subject != "shutdown" {
		t.Errorf("why: %+v", w.Causes)
	}
	if _, err := os.Stat(h.path("docker.pid")); err != nil {
		t.Error(err)
	}
	o := execute(t, h.within(h.dockerdArgs()...))
	if o.code == 0 || !strings.Contains(o.stderr, "is still running") {
		t.Errorf("a second dockerd: %+v", o)
	}
}

func TestLiveRestore(t *testing.T) {
	t.Parallel()
	h := newDockerd(t)
	h.startDockerd("--live-restore")
	h.berth("import", h.busyboxTar(), busyboxImage)
	h.berth("run", "-d", "--name", "web", busyboxImage, "sleep", "1000")
	before := h.berth("inspect", "-f", "{{.State.Pid}}", "web")
	h.stopEngine()
	h.startDockerd("--live-restore")
	if after := h.berth("inspect", "-f", "{{.State.Pid}}", "web"); after != before {
		t.Errorf("the process was %s and is %s", before, after)
	}
}

func TestDockerPyOnADockerdOfItsOwn(t *testing.T) {
	t.Parallel()
	if exec.Command("python3", "-c", "import docker").Run() != nil {
		t.Skip("needs docker-py")
	}
	h := newDockerd(t)
	h.startDockerd("--log-level", "warn", "--group", "0")
	h.berth("import", h.busyboxTar(), busyboxImage)
	o := execute(t, h.within("python3", "-c", fmt.Sprintf(`
import docker
c = docker.DockerClient(base_url=%q)
assert c.ping()
print(c.containers.run(%q, ["echo", "from python"], remove=True).decode().strip())
x = c.containers.run(%q, ["sleep", "1000"], detach=True, name="py", init=True)
x.reload(); print(x.status)
print(x.exec_run("echo inside").output.decode().strip())
x.stop(timeout=5); print(x.wait()["StatusCode"]); x.remove()
`, h.socket(), busyboxImage, busyboxImage)))
	if want := "from python\nrunning\ninside\n143\n"; o.stdout != want {
		t.Errorf("got %q, want %q\n%s", o.stdout, want, o.stderr)
	}
}

func TestDockerdRefusesByName(t *testing.T) {
	t.Parallel()
	h := newDockerd(t)
	foreign := h.path("foreign")
	if err := os.MkdirAll(filepath.Join(foreign, "overlay2"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		file string
		args []string
		want string // "" means that it is accepted
	}{
		{`{"bogus": true, "debug": true}`, nil, "the following directives don't match any configuration option: bogus"},
		{`{"debug": true}`, []string{"-D"}, "the following directives are specified both as a flag and in the configuration file: debug: (from flag: true, from file: true)"},
		{`{"labels": "a"}`, nil, "labels"},
		{`{"debug": "yes"}`, nil, "debug: must be true or false"},
		{`{`, nil, "daemon.json"},
		{`{"bip": "10.0.0.1/24"}`, []string{"--bridge", "br9"}, "mutually exclusive"},
		{`{"default-runtime": "nosuch"}`, nil, "specified default runtime 'nosuch' does not exist"},
		{`{"userns-remap": "default"}`, nil, "--userns-remap"},
		{`{"authorization-plugins": ["x"]}`, nil, "--authorization-plugin"},
		{`{"default-ulimits": {"bogus": {"Name": "bogus", "Soft": 1, "Hard": 1}}}`, nil, "bogus"},
		{`{"berth": {"disk-budget": "20GB", "root": "/x"}}`, nil, "berth: the following directives don't match any configuration option: root"},
		{`{"berth": {"disk-budget": "much"}}`, nil, "not a size"},
		{`{"dns": ["nowhere"]}`, nil, "nowhere is not an ip address"},
		{`{}`, []string{"--frobnicate"}, "--frobnicate"},
		{`{}`, []string{"extra"}, "accepts no arguments"},
		{`{}`, []string{"--data-root", foreign}, "docker's own engine"},
		{`{"features": {"buildkit": true}, "builder": {"gc": {"enabled": true, "defaultKeepStorage": "20GB"}}, "default-address-pools": [{"base": "10.1.0.0/16", "size": 24}],
			"runtimes": {"crun": {"path": "/bin/true"}}, "exec-opts": ["native.cgroupdriver=systemd"], "proxies": {"http-proxy": "http://proxy:3128"},
			"max-concurrent-downloads": 2, "shutdown-timeout": 5, "hosts-x": 1}`, nil, "hosts-x"},
		{`{"features": {"buildkit": true}, "builder": {"gc": {"enabled": true, "defaultKeepStorage": "20GB"}}, "default-address-pools": [{"base": "10.1.0.0/16", "size": 24}],
			"runtimes": {"crun": {"path": "/bin/true"}}, "exec-opts": ["native.cgroupdriver=systemd"], "proxies": {"http-proxy": "http://proxy:3128"},
			"max-concurrent-downloads": 2, "shutdown-timeout": 5, "experimental": true, "log-driver": "json-file"}`, []string{"--mtu", "1400", "--raw-logs", "--default-gateway", "10.0.0.9"}, ""},
	} {
		argv := []string{h.path("dockerd"), "--validate", "--config-file", h.writeFile("daemon.json", c.file)}
		o := execute(t, h.within(append(argv, c.args...)...))
		if c.want == "" && (o.code != 0 || !strings.Contains(o.stderr, "configuration OK")) || c.want != "" && (o.code == 0 || !strings.Contains(o.stderr, c.want)) {
			t.Errorf("%s %v: code %d, %q; want %q", c.file, c.args, o.code, o.stderr, c.want)
		}
	}
}
