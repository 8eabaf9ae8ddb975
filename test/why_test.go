package test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// brokenFiles are programs that do not start, each for a reason of its own.
var brokenFiles = []tarFile{
	{name: "crlf.sh", mode: 0o755, body: "#!/bin/sh\r\necho hi\r\n"},
	{name: "script.py", mode: 0o755, body: "#!/usr/bin/python3\nprint(1)\n"},
	{name: "plain", mode: 0o644, body: "text"},
	{name: "arm", mode: 0o755, body: "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9) + "\x02\x00\xb7\x00" + strings.Repeat("\x00", 44)},
	{name: "entrypoint.sh", mode: 0o755, body: "#!/bin/sh\necho ok\n"},
}

// why is what a machine reads of berth why.
type why struct {
	Status string
	Causes []struct {
		Kind, Sure, Subject, Other string
		Candidates                 []string
	}
	End *struct {
		Code                         int
		Signal, AskedBy, AskedSignal string
		Forced                       bool
	}
	Ends   []struct{ Code int }
	Memory struct {
		Limit, Peak int64
		Victim      *struct{ Name string }
	}
	Pressure struct {
		Missing     string
		CPU, Memory *struct{ Some10 float64 }
	}
	Restarts struct {
		Count  int
		GaveUp bool
	}
	Log struct{ Lines []string }
}

func (h *host) why(name string) (w why) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(h.berth("why", "--json", name)), &w); err != nil {
		h.t.Fatal(err)
	}
	if len(w.Causes) == 0 {
		h.t.Fatalf("%s: no cause", name)
	}
	return w
}

func TestWhyContainersDoNotStart(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.startEngine()
	h.berth("import", h.busyboxTar(brokenFiles...), busyboxImage)
	h.berth("run", "-d", "--name", "holder", "-p", "127.0.0.1:18080:80", busyboxImage, "sleep", "1000")
	h.berth("run", "-d", "--name", "idle", "--network", "none", busyboxImage, "sleep", "1000")
	h.berth("stop", "-t", "0", "idle")
	h.berth("network", "create", "gone")
	h.berth("create", "--network", "gone", "--name", "alone", busyboxImage, "true")
	h.berth("network", "rm", "gone")
	other := h.within("busybox", "httpd", "-f", "-p", "127.0.0.1:18081")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Process.Kill(); _ = other.Wait() })
	h.eventually("the port is taken", func() bool {
		out, _ := h.within("grep", "-c", ":46A1 ", "/proc/net/tcp").Output()
		return strings.TrimSpace(string(out)) != "0"
	})
	for _, c := range []struct {
		name, kind, subject, says string
		args                      []string
	}{
		{"crlf", "crlf", "/crlf.sh", "Windows line ends", []string{busyboxImage, "/crlf.sh"}},
		{"script", "interpreter", "/usr/bin/python3", "/script.py needs", []string{busyboxImage, "/script.py"}},
		{"plain", "executable", "/plain", "chmod +x /plain", []string{busyboxImage, "/plain"}},
		{"arm", "platform", "/arm", "arm64", []string{busyboxImage, "/arm"}},
		{"typo", "not-found", "slep", "did you mean /bin/sleep?", []string{busyboxImage, "slep", "10"}},
		{"elsewhere", "not-found", "entrypoint", "did you mean /entrypoint.sh?", []string{busyboxImage, "entrypoint"}},
		{"nothing", "not-found", "/no/such/thing", "does not exist", []string{busyboxImage, "/no/such/thing"}},
		{"dir", "executable", "/etc", "is a directory", []string{busyboxImage, "/etc"}},
		{"port", "port", "127.0.0.1:18080/tcp", "container holder has it", []string{"-p", "127.0.0.1:18080:80", busyboxImage, "true"}},
		{"program", "port", "127.0.0.1:18081/tcp", "(pid ", []string{"-p", "127.0.0.1:18081:80", busyboxImage, "true"}},
		{"user", "config", "ghost", "Its user ghost is not there", []string{"--user", "ghost", busyboxImage, "true"}},
		{"group", "config", "ghosts", "Its group ghosts is not there", []string{"--user", "0:ghosts", busyboxImage, "true"}},
		{"cwd", "config", "/etc/passwd", "working directory", []string{"-w", "/etc/passwd", busyboxImage, "true"}},
		{"device", "config", "/dev/no-such", "Its device", []string{"--device", "/dev/no-such", busyboxImage, "true"}},
		{"sysctl", "config", "net.no.such", "Its sysctl", []string{"--sysctl", "net.no.such=1", busyboxImage, "true"}},
		{"part", "mount", "data", "cannot access path none", []string{"--mount", "type=volume,src=data,dst=/d,volume-subpath=none", busyboxImage, "true"}},
		{"strange", "mount", "strange", "berth volume inspect strange", []string{"--mount", "type=volume,src=strange,dst=/d,volume-nocopy,volume-opt=type=nosuchfs,volume-opt=device=x", busyboxImage, "true"}},
		{"partner", "partner", "idle", "berth start idle", []string{"--network", "container:idle", busyboxImage, "true"}},
		{"alone", "config", "gone", "Its network gone is not there", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.args == nil { // it was created before
				h.try("start", c.name)
			} else {
				h.try(append([]string{"run", "-d", "--name", c.name}, c.args...)...)
			}
			w := h.why(c.name)
			if got := w.Causes[0]; got.Kind != c.kind || got.Subject != c.subject || got.Sure != "certain" {
				t.Errorf("cause %+v, want %s of %s", got, c.kind, c.subject)
			}
			screen := h.berth("why", c.name)
			if flat := strings.Join(strings.Fields(screen), " "); !strings.Contains(flat, c.says) || !strings.HasPrefix(flat, c.name+" did not start") {
				t.Errorf("the screen does not say %q:\n%s", c.says, screen)
			}
		})
	}
}

func TestWhyContainersEnd(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	run := func(name string, args ...string) { h.try(append([]string{"run", "--name", name}, args...)...) }
	run("oom", "-m", "16m", busyboxImage, "tail", "/dev/zero")
	run("survivor", "-m", "16m", busyboxImage, "sh", "-c", "tail /dev/zero; exit 3")
	run("typo", busyboxImage, "sh", "-c", "slep 3")
	run("denied", busyboxImage, "sh", "-c", "echo 'bind: Operation not permitted'; exit 3")
	run("fine", busyboxImage, "true")
	run("owner", "--cap-drop", "ALL", busyboxImage, "sh", "-c", "echo 'chown: /x: Operation not permitted'; exit 1")
	run("mounter", busyboxImage, "sh", "-c", "mount -t tmpfs x /www || exit 32")
	run("code", busyboxImage, "sh", "-c", "exit 42")
	run("shell", busyboxImage, "sh")
	h.berth("run", "-d", "--name", "deaf", busyboxImage, "sleep", "1000")
	h.berth("stop", "-t", "20", "deaf")
	h.berth("run", "-d", "--name", "killed", busyboxImage, "sleep", "1000")
	h.berth("kill", "killed")
	h.berth("run", "-d", "--name", "polite", busyboxImage, "sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done")
	h.eventually("polite listens", func() bool { return h.try("logs", "polite") == "ready" })
	h.berth("stop", "polite")
	h.berth("run", "-d", "--name", "outside", busyboxImage, "sleep", "1000")
	h.within("kill", "-9", h.berth("inspect", "-f", "{{.State.Pid}}", "outside")).Run()
	h.berth("wait", "outside")
	for _, c := range []struct{ name, kind, sure, says string }{
		{"oom", "oom", "certain", "limit of 16MiB"},
		{"survivor", "oom", "likely", "process tail"},
		{"typo", "not-found", "likely", "/bin/sleep"},
		{"denied", "denied", "guess", "A guess: the kernel refused something"},
		{"fine", "finished", "certain", "with success"},
		{"owner", "denied", "guess", "--cap-add CHOWN"},
		{"mounter", "denied", "guess", "--cap-add SYS_ADMIN"},
		{"code", "exit", "certain", "code 42"},
		{"shell", "no-input", "likely", "-it"},
		{"deaf", "asked", "certain", "stopped by hand. At"},
		{"killed", "asked", "certain", "killed at once"},
		{"polite", "asked", "certain", "was sent SIGTERM, and ended within"},
		{"outside", "killed", "certain", "not by this engine"},
	} {
		w := h.why(c.name)
		if got := w.Causes[0]; got.Kind != c.kind || got.Sure != c.sure {
			t.Errorf("%s: cause %+v, want %s (%s)", c.name, got, c.kind, c.sure)
		}
		screen := h.berth("why", c.name)
		if !strings.Contains(strings.Join(strings.Fields(screen), " "), c.says) {
			t.Errorf("%s: the screen does not say %q:\n%s", c.name, c.says, screen)
		}
		if n := strings.Count(screen, "\n"); n > 40 {
			t.Errorf("%s: %d lines are more than a screen", c.name, n)
		}
	}
	if w := h.why("oom"); w.Memory.Limit != 16<<20 || w.Memory.Peak < 8<<20 || w.Memory.Peak > 17<<20 {
		t.Errorf("memory of the end: %+v", w.Memory)
	} else if w.Memory.Victim != nil && w.Memory.Victim.Name != "tail" {
		t.Errorf("victim %+v", w.Memory.Victim)
	}
	if w := h.why("deaf"); !w.End.Forced || w.End.AskedBy != "hand" || w.End.AskedSignal != "SIGTERM" || w.End.Signal != "SIGKILL" {
		t.Errorf("end %+v", w.End)
	} else if !strings.Contains(h.berth("why", "deaf"), "--init") {
		t.Error("nothing is said of the init that would help")
	}
	// What was remembered outlives the engine.
	h.killEngine()
	h.startEngine()
	if w := h.why("deaf"); w.Causes[0].Kind != "asked" || w.Memory.Peak == 0 {
		t.Errorf("after the engine was killed: %+v", w)
	}
}

func TestWhyOfRunningContainers(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.berth("run", "-d", "--name", "good", busyboxImage, "sleep", "1000")
	h.berth("run", "-d", "--name", "ill", "--health-cmd", "echo broken; exit 1", "--health-interval", "100ms", "--health-retries", "2", busyboxImage, "sleep", "1000")
	h.berth("run", "-d", "--name", "loop", "--restart", "on-failure:2", busyboxImage, "sh", "-c", "echo no; exit 4")
	h.berth("create", "--name", "made", busyboxImage, "true")
	h.berth("run", "-d", "--name", "frozen", busyboxImage, "sleep", "1000")
	h.berth("pause", "frozen")
	h.berth("run", "-d", "--name", "policy", "--label", "berth.on-unhealthy=stop", "--health-cmd", "exit 1", "--health-interval", "100ms", "--health-retries", "1",
		busyboxImage, "sleep", "1000")
	h.eventually("ill is unhealthy", func() bool { return h.why("ill").Causes[0].Subject == "unhealthy" })
	h.eventually("the policy has given up", func() bool { return h.why("loop").Restarts.GaveUp })
	h.eventually("the policy has stopped one", func() bool { return h.why("policy").Status == "exited" })
	for name, kind := range map[string]string{"good": "fine", "ill": "unhealthy", "loop": "exit", "made": "never", "frozen": "paused", "policy": "asked"} {
		if w := h.why(name); w.Causes[0].Kind != kind {
			t.Errorf("%s: %+v, want %s", name, w.Causes, kind)
		}
	}
	if w := h.why("policy"); w.Causes[0].Subject != "policy" {
		t.Errorf("policy: %+v", w.Causes)
	}
	if w := h.why("loop"); len(w.Ends) != 2 || w.Restarts.Count != 2 || len(w.Log.Lines) != 3 {
		t.Errorf("history of the loop: %+v", w)
	}
	h.berth("run", "-d", "--name", "mute", "--log-driver", "none", busyboxImage, "sleep", "1000")
	if text := h.berth("why", "mute"); !strings.Contains(text, "not readable") {
		t.Errorf("of a container without a log:\n%s", text)
	}
	if w := h.why("good"); w.Pressure.CPU == nil && w.Pressure.Missing == "" {
		t.Errorf("pressure is neither told nor said to be missing: %+v", w.Pressure)
	}
	if text := h.berth("why", "ill"); !strings.Contains(text, "broken") || !strings.Contains(text, "--on-unhealthy restart") {
		t.Errorf("of an unhealthy container:\n%s", text)
	}
	if o := h.run("why", "goood"); o.code != 1 || !strings.Contains(o.stderr, "did you mean good?") {
		t.Errorf("of nothing: %+v", o)
	}
	began := time.Now()
	h.berth("why", "good")
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("an answer took %v", took)
	}
}
