package test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestRunGivesOutputAndExitCode(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	cases := []struct {
		name   string
		args   []string
		stdout string
		stderr string // a part of it
		code   int
	}{
		{"output", []string{"run", "--rm", busyboxImage, "echo", "hi"}, "hi\n", "", 0},
		{"both streams", []string{"run", "--rm", busyboxImage, "sh", "-c", "echo out; echo err >&2"}, "out\n", "err\n", 0},
		{"own exit code", []string{"run", "--rm", busyboxImage, "sh", "-c", "exit 7"}, "", "", 7},
		{"killed by a signal", []string{"run", "--rm", "--init", busyboxImage, "sh", "-c", "kill -9 $$"}, "", "", 137},
		{"no such command", []string{"run", "--rm", busyboxImage, "nosuch"}, "", "nosuch", 127},
		{"a directory", []string{"run", "--rm", busyboxImage, "/etc"}, "", "/etc", 126},
		{"not executable", []string{"run", "--rm", busyboxImage, "/etc/passwd"}, "", "permission denied", 126},
		{"unknown flag", []string{"run", "--nosuch", busyboxImage, "true"}, "", "--nosuch", 125},
		{"environment", []string{"run", "--rm", "-e", "A=b c", busyboxImage, "sh", "-c", "echo $A"}, "b c\n", "", 0},
		{"working directory is made", []string{"run", "--rm", "-w", "/a/b", busyboxImage, "pwd"}, "/a/b\n", "", 0},
		{"user by name", []string{"run", "--rm", "-u", "user", busyboxImage, "id", "-u"}, "1000\n", "", 0},
		{"user by number", []string{"run", "--rm", "-u", "4321:1234", busyboxImage, "sh", "-c", "id -u; id -g"}, "4321\n1234\n", "", 0},
		{"host name", []string{"run", "--rm", "-h", "pier", busyboxImage, "hostname"}, "pier\n", "", 0},
		{"read-only root", []string{"run", "--rm", "--read-only", busyboxImage, "touch", "/x"}, "", "Read-only", 1},
		{"entrypoint", []string{"run", "--rm", "--entrypoint", "echo", busyboxImage, "a", "b"}, "a b\n", "", 0},
		{"no network but loopback", []string{"run", "--rm", "--network", "none", busyboxImage, "ls", "/sys/class/net"}, "lo\n", "", 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			o := h.run(c.args...)
			if o.code != c.code || o.stdout != c.stdout || !strings.Contains(o.stderr, c.stderr) {
				t.Errorf("berth %s\n got code %d, stdout %q, stderr %q\nwant code %d, stdout %q, stderr with %q",
					strings.Join(c.args, " "), o.code, o.stdout, o.stderr, c.code, c.stdout, c.stderr)
			}
		})
	}
	if left := h.berth("ps", "-aq"); left != "" && len(strings.Fields(left)) > 0 {
		t.Errorf("containers left after run --rm: %s", left)
	}
}

func TestRunPassesStandardInput(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	cmd := h.within(binary(t, "berth"), "run", "-i", "--rm", busyboxImage, "wc", "-c")
	cmd.Stdin = strings.NewReader(strings.Repeat("x", 3_000_000))
	if o := execute(t, cmd); strings.TrimSpace(o.stdout) != "3000000" || o.code != 0 {
		t.Errorf("wc -c said %q (code %d, %s), want 3000000", o.stdout, o.code, o.stderr)
	}
}

func TestRunDeliversAllOutputToASlowReader(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	cmd := h.within("sh", "-c", fmt.Sprintf("%s run --rm %s seq 300000 | (sleep 1; tail -n 1)", binary(t, "berth"), busyboxImage))
	if o := execute(t, cmd); strings.TrimSpace(o.stdout) != "300000" {
		t.Errorf("the last line is %q, want 300000 (%s)", o.stdout, o.stderr)
	}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.berth("run", "-d", "--name", "talker", busyboxImage, "sh", "-c", "for i in 1 2 3; do echo line $i; done; echo oops >&2; sleep 1000")
	h.eventually("four lines are logged", func() bool {
		o := h.run("logs", "talker")
		return o.stdout == "line 1\nline 2\nline 3\n" && o.stderr == "oops\n"
	})
	if o := h.run("logs", "--tail", "2", "talker"); o.stdout+o.stderr != "line 3\noops\n" {
		t.Errorf("--tail 2 gave %q", o.stdout+o.stderr)
	}
	o := h.run("logs", "-t", "--tail", "1", "talker")
	if stamp, text, ok := strings.Cut(o.stderr, " "); !ok || text != "oops\n" || len(stamp) < len("2006-01-02T15:04:05Z") {
		t.Errorf("-t gave %q, want a time stamp before the line", o.stderr)
	}
	if o := h.run("logs", "--since", "2999-01-01T00:00:00Z", "talker"); o.stdout != "" {
		t.Errorf("--since the far future gave %q", o.stdout)
	}
	if o := h.run("logs", "--until", "2001-01-01T00:00:00Z", "talker"); o.stdout != "" {
		t.Errorf("--until the past gave %q", o.stdout)
	}
	follow := h.within(binary(t, "berth"), "logs", "-f", "talker")
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	h.berth("kill", "talker")
	all, err := io.ReadAll(out)
	if err != nil || string(all) != "line 1\nline 2\nline 3\n" {
		t.Errorf("follow gave %q, %v", all, err)
	}
	if err := follow.Wait(); err != nil {
		t.Errorf("logs -f ended with %v when the container did", err)
	}
}

func TestStopExplainsWhyItHadToKill(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.berth("run", "-d", "--name", "deaf", busyboxImage, "sleep", "100000")
	h.berth("run", "-d", "--name", "polite", busyboxImage, "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done")
	h.eventually("the trap is set", func() bool {
		return h.run("exec", "polite", "grep", "-q", "SigCgt:.*[4-7c-f]...$", "/proc/1/status").code == 0
	})
	if o := h.run("stop", "deaf"); o.code != 0 || !strings.Contains(o.stderr, "--init") {
		t.Errorf("stop of a process without a handler: code %d, %q; want the hint --init", o.code, o.stderr)
	}
	if code := h.berth("inspect", "--format", "{{.State.ExitCode}}", "deaf"); code != "137" {
		t.Errorf("exit code of the killed container is %s, want 137", code)
	}
	if o := h.run("stop", "polite"); o.code != 0 || strings.Contains(o.stderr, "--init") {
		t.Errorf("stop of a process with a handler: code %d, %q", o.code, o.stderr)
	}
	if code := h.berth("inspect", "--format", "{{.State.ExitCode}}", "polite"); code != "3" {
		t.Errorf("exit code of the stopped container is %s, want its own 3", code)
	}
}

func TestExec(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.berth("run", "-d", "--name", "host", "-e", "A=1", busyboxImage, "sleep", "100000")
	cases := []struct {
		name   string
		args   []string
		stdout string
		code   int
	}{
		{"output", []string{"echo", "hi"}, "hi\n", 0},
		{"exit code", []string{"sh", "-c", "exit 9"}, "", 9},
		{"missing", []string{"nosuch"}, "", 127},
		{"container's environment", []string{"sh", "-c", "echo $A"}, "1\n", 0},
		{"sees the container's processes", []string{"sh", "-c", "tr '\\0' ' ' </proc/1/cmdline"}, "sleep 100000 ", 0},
	}
	for _, c := range cases {
		if o := h.run(append([]string{"exec", "host"}, c.args...)...); o.stdout != c.stdout || o.code != c.code {
			t.Errorf("%s: %q, code %d (%s); want %q, code %d", c.name, o.stdout, o.code, o.stderr, c.stdout, c.code)
		}
	}
	if o := h.run("exec", "-u", "1000", "-w", "/www", "-e", "B=2", "host", "sh", "-c", "id -u; pwd; echo $B"); o.stdout != "1000\n/www\n2\n" {
		t.Errorf("exec -u -w -e: %q %s", o.stdout, o.stderr)
	}
	cmd := h.within(binary(t, "berth"), "exec", "-i", "host", "cat")
	cmd.Stdin = strings.NewReader("through")
	if o := execute(t, cmd); o.stdout != "through" {
		t.Errorf("exec -i cat gave %q", o.stdout)
	}
}

func TestPublishedPortServesThePage(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.berth("run", "-d", "--name", "web", "-p", "127.0.0.1:18080:80", "-p", "18100-18101:80-81", busyboxImage, "httpd", "-f", "-p", "80", "-h", "/www")
	for _, url := range []string{"http://127.0.0.1:18080/", "http://127.0.0.1:18100/"} {
		h.eventually(url+" answers", func() bool {
			out, _ := h.within("busybox", "wget", "-qO-", url).Output()
			return string(out) == "hello from a container\n"
		})
	}
	if o := h.run("run", "-d", "-p", "127.0.0.1:18080:80", busyboxImage, "true"); o.code != 125 || !strings.Contains(o.stderr, "18080") {
		t.Errorf("a port in use: code %d, %q", o.code, o.stderr)
	}
	h.berth("rm", "-f", "web")
	if err := h.within("busybox", "wget", "-qO-", "-T", "1", "http://127.0.0.1:18080/").Run(); err == nil {
		t.Error("the port still answers after rm")
	}
}

func TestImageOfTwoHundredLayersRuns(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	path := h.layeredArchive(200)
	h.berth("load", "-i", path)
	o := h.run("run", "--rm", "many/layers:1", "sh", "-c", "cat /layer/* | wc -l; cat /top")
	if o.stdout != "199\nlayer 199\n" {
		t.Errorf("got %q, %s; want all 199 files and the topmost version", o.stdout, o.stderr)
	}
	h.berth("rmi", "many/layers:1")
}

// layeredArchive writes a docker archive whose first layer is busybox and whose
// others add a file each and overwrite one.
func (h *host) layeredArchive(layers int) string {
	h.t.Helper()
	base, err := os.ReadFile(h.busyboxTar())
	if err != nil {
		h.t.Fatal(err)
	}
	files := []tarFile{{name: "layer0.tar", mode: 0o644, body: string(base)}}
	names, diffIDs := []string{"layer0.tar"}, []string{digestOf(base)}
	for i := 1; i < layers; i++ {
		text := fmt.Sprintf("layer %d\n", i)
		tarball := h.path("layer.tar")
		if err := writeTar(tarball, []tarFile{{name: fmt.Sprintf("layer/%d", i), mode: 0o644, body: text}, {name: "top", mode: 0o644, body: text}}); err != nil {
			h.t.Fatal(err)
		}
		body, err := os.ReadFile(tarball)
		if err != nil {
			h.t.Fatal(err)
		}
		name := fmt.Sprintf("layer%d.tar", i)
		files = append(files, tarFile{name: name, mode: 0o644, body: string(body)})
		names, diffIDs = append(names, name), append(diffIDs, digestOf(body))
	}
	config, err := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{"Env": []string{"PATH=/bin"}, "Cmd": []string{"sh"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}})
	if err != nil {
		h.t.Fatal(err)
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{"many/layers:1"}, "Layers": names}})
	if err != nil {
		h.t.Fatal(err)
	}
	files = append(files, tarFile{name: "config.json", mode: 0o644, body: string(config)}, tarFile{name: "manifest.json", mode: 0o644, body: string(manifest)})
	path := h.path("many.tar")
	if err := writeTar(path, files); err != nil {
		h.t.Fatal(err)
	}
	return path
}

func TestEngineStartsByItselfAndNoStartRefuses(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	refused := execute(t, h.within(binary(t, "berth"), "--no-start", "ps"))
	if refused.code == 0 || !strings.Contains(refused.stderr, "berth.sock") {
		t.Errorf("--no-start without an engine: code %d, %q; want an error that names the socket", refused.code, refused.stderr)
	}
}

func TestSecondEngineOnTheSameDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	second := h.within(binary(t, "berthd"), "--root", h.path("data"), "--run", h.path("run2"))
	o := execute(t, second)
	if o.code == 0 || !strings.Contains(o.stderr, h.path("data")) {
		t.Errorf("the second engine: code %d, %q; want a refusal that names the directory", o.code, o.stderr)
	}
	h.berth("ps")
}

func TestNothingIsLeftAfterTheLastContainer(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	for range 3 {
		h.berth("run", "-d", "-p", "80", busyboxImage, "sleep", "100000")
	}
	h.berth("run", "-d", "--network", "none", busyboxImage, "true")
	id := strings.Fields(h.berth("ps", "-aq", "--no-trunc"))
	h.berth(append([]string{"rm", "-f"}, id...)...)
	h.stopEngine()
	h.eventually("the monitor ends when nothing runs and no engine is there", func() bool { return len(h.processes()) == 0 })
	h.expectNothingLeft(id)
}

// expectNothingLeft checks that no trace of the containers remains: mounts,
// links, packet filter tables, network namespaces, cgroups and files.
func (h *host) expectNothingLeft(ids []string) {
	h.t.Helper()
	show := func(argv ...string) string {
		out, err := h.within(argv...).CombinedOutput()
		if err != nil {
			h.t.Errorf("%v: %v: %s", argv, err, out)
		}
		return string(out)
	}
	if links := show("ip", "-o", "link"); strings.Count(links, "\n") != 1 {
		h.t.Errorf("links left:\n%s", links)
	}
	if tables := show("nft", "list", "tables"); tables != "" {
		h.t.Errorf("packet filter tables left:\n%s", tables)
	}
	if mounts := show("cat", "/proc/self/mountinfo"); strings.Contains(mounts, h.dir) {
		h.t.Errorf("mounts left:\n%s", mounts)
	}
	for _, id := range ids {
		if out, _ := exec.Command("find", "/sys/fs/cgroup", h.path("data"), h.path("run"), "-name", "*"+id+"*").Output(); len(out) > 0 {
			h.t.Errorf("left of %s:\n%s", id, out)
		}
	}
}
