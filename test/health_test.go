package test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// create makes a container from a request as it is, and returns its id.
func (h *host) create(request string) string {
	h.t.Helper()
	resp, err := h.client().Post("http://engine/containers/create", "application/json", strings.NewReader(request))
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	var made struct{ ID, Message string }
	if err := json.NewDecoder(resp.Body).Decode(&made); err != nil || made.ID == "" {
		h.t.Fatalf("create: %s: %s %v", resp.Status, made.Message, err)
	}
	return made.ID
}

// health is what inspect says of a container's checks.
type health struct {
	Status        string
	FailingStreak int
	Log           []struct {
		Start, End string
		ExitCode   int
		Output     string
	}
}

func (h *host) health(name string) (s health) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(h.ok("inspect", "-f", "{{json .State.Health}}", name)), &s); err != nil {
		h.t.Fatal(err)
	}
	return s
}

// lastProbe waits for a number of checks of a container and returns the last.
func (h *host) lastProbe(name string, n int) (code int, output string) {
	h.t.Helper()
	h.eventually(name+" was checked", func() bool { return len(h.health(name).Log) >= n })
	log := h.health(name).Log
	return log[len(log)-1].ExitCode, log[len(log)-1].Output
}

func TestHealthChecksOfAllForms(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.startEngine()
	h.berth("import", "-c", `HEALTHCHECK --interval=200ms --retries=1 CMD ["echo", "from the image"]`, h.busyboxTar(), busyboxImage)
	often := []string{"--health-interval", "200ms", "--health-retries", "2"}
	run := func(name string, args ...string) {
		t.Helper()
		h.ok(append(append([]string{"run", "-d", "--network", "none", "--name", name}, args...), busyboxImage, "sleep", "1000")...)
	}
	cmd := func(name, test string) {
		t.Helper()
		id := h.create(`{"Image":"` + busyboxImage + `","Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"none"},"Healthcheck":{"Interval":200000000,"Retries":2,"Test":` + test + `}}`)
		h.ok("rename", id, name)
		h.ok("start", name)
	}
	run("image")
	run("none", "--no-healthcheck")
	run("shell", append(often, "--health-cmd", `echo out; echo err >&2; printf 'a\377b'; exit 1`)...)
	cmd("command", `["CMD","sh","-c","exit 3"]`)
	cmd("disabled", `["NONE"]`)
	cmd("missing", `["CMD","/no/such/check"]`)
	run("long", append(often, "--health-cmd", "yes 0123456 | head -n 2000")...)
	run("signal", append(often, "--health-cmd", "kill -9 $$")...)

	for _, c := range []struct {
		name   string
		code   int
		output string
	}{
		{"image", 0, "from the image\n"}, {"shell", 1, "out\nerr\na\ufffdb"}, {"command", 3, ""}, {"signal", 137, ""},
		{"long", 0, strings.Repeat("0123456\n", 512) + "..."},
	} {
		code, output := h.lastProbe(c.name, 1)
		if c.name == "shell" && !strings.HasPrefix(output, "out") { // two pipes have no order
			output = "out\n" + strings.Replace(output, "out\n", "", 1)
		}
		if code != c.code || len(output) != len(c.output) {
			t.Errorf("%s: code %d, %q", c.name, code, output)
		}
	}
	if code, output := h.lastProbe("missing", 1); code != -1 || !strings.Contains(output, "/no/such/check") || strings.HasSuffix(output, "\n") {
		t.Errorf("missing: code %d, %q", code, output)
	}
	for name, want := range map[string]string{"image": "healthy", "long": "healthy", "shell": "unhealthy", "command": "unhealthy", "missing": "unhealthy", "signal": "unhealthy"} {
		h.eventually(name+" is "+want, func() bool { return h.health(name).Status == want })
	}
	h.eventually("five results are kept", func() bool { s := h.health("shell"); return s.FailingStreak > 6 && len(s.Log) == 5 })
	for _, name := range []string{"none", "disabled"} {
		h.equal(h.ok("inspect", "-f", "{{json .State.Health}}", name), "null")
	}
	h.equal(h.ok("ps", "--filter", "health=healthy", "--filter", "name=long", "--format", "{{.Names}}"), "long")
}

// TestHealthChecksHaveTheirTime looks at timeouts, which must leave no process
// behind, at the start period and at a container that is paused.
func TestHealthChecksHaveTheirTime(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	run := func(name string, args ...string) {
		t.Helper()
		h.ok(append(append([]string{"run", "-d", "--network", "none", "--name", name}, args...), busyboxImage, "sleep", "1000")...)
	}
	run("hangs", "--health-cmd", "echo begun; sleep 777; true", "--health-interval", "100ms", "--health-timeout", "300ms", "--health-retries", "2")
	run("starts", "--health-cmd", "test -e /ready", "--health-interval", "1h", "--health-start-period", "1h", "--health-start-interval", "100ms", "--health-retries", "1")
	run("frozen", "--health-cmd", "true", "--health-interval", "100ms")
	if code, output := h.lastProbe("hangs", 4); code != -1 || output != "Health check exceeded timeout (300ms): begun\n" {
		t.Errorf("code %d, %q", code, output)
	}
	h.eventually("no check that timed out runs on", func() bool {
		return strings.Count(h.ok("exec", "hangs", "ps", "-o", "args"), "\nsleep 777") <= 1 // that of now
	})
	if s := h.health("hangs"); s.Status != "unhealthy" {
		t.Errorf("%+v", s)
	}
	h.lastProbe("starts", 5)
	if s := h.health("starts"); s.Status != "starting" || s.FailingStreak != 0 {
		t.Errorf("failures in the start period: %+v", s)
	}
	h.ok("exec", "starts", "touch", "/ready")
	h.eventually("it has started", func() bool { return h.health("starts").Status == "healthy" })

	h.lastProbe("frozen", 1)
	h.ok("pause", "frozen")
	h.lastProbe("hangs", 1)
	before := fmt.Sprint(h.health("frozen"))
	streak := h.health("hangs").FailingStreak
	h.eventually("others are checked meanwhile", func() bool { return h.health("hangs").FailingStreak > streak+2 })
	h.equal(fmt.Sprint(h.health("frozen")), before)
	h.ok("unpause", "frozen")
	h.eventually("checks go on", func() bool { return fmt.Sprint(h.health("frozen")) != before })
}

// TestHealthOutlivesTheEngine: what is known goes on to the next engine, and so do the
// checks.
func TestHealthOutlivesTheEngine(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.ok("run", "-d", "--network", "none", "--name", "rare", "--health-cmd", "echo fine", "--health-interval", "1h", "--health-start-period", "1h",
		"--health-start-interval", "100ms", busyboxImage, "sleep", "1000")
	h.ok("run", "-d", "--network", "none", "--name", "often", "--health-cmd", "test ! -e /sick", "--health-interval", "200ms", "--health-retries", "1", busyboxImage, "sleep", "1000")
	for _, name := range []string{"rare", "often"} {
		h.eventually(name+" is healthy", func() bool { return h.health(name).Status == "healthy" })
	}
	h.onDisk(`"fine\n"`)
	h.killEngine()
	h.startEngine()
	if s := h.health("rare"); s.Status != "healthy" || len(s.Log) == 0 {
		t.Errorf("after the engine was killed: %+v", s)
	}
	h.ok("exec", "often", "touch", "/sick")
	h.eventually("the new engine checks", func() bool { return h.health("often").Status == "unhealthy" })
}
