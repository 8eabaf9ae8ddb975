package test

import (
	"strings"
	"testing"
)

func TestUnhealthyContainersAreRestartedOrStopped(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	health := []string{"--health-cmd", "test ! -e /sick", "--health-interval", "200ms", "--health-retries", "2"}
	run := func(name, action string) {
		t.Helper()
		args := append([]string{"run", "-d", "--name", name, "-l", "berth.on-unhealthy=" + action}, health...)
		h.ok(append(args, busyboxImage, "sh", "-c", "trap 'exit 0' TERM; rm -f /sick; while :; do sleep 0.1; done")...)
	}
	run("again", "restart")
	run("ends", "stop")
	run("stays", "none")
	pid := h.ok("inspect", "--format", "{{.State.Pid}}", "again")
	for _, name := range []string{"again", "ends", "stays"} {
		h.ok("exec", name, "touch", "/sick")
	}
	h.eventually("the unhealthy one runs anew and is healthy", func() bool {
		now := h.ok("inspect", "--format", "{{.State.Pid}} {{.State.Health.Status}}", "again")
		return strings.HasSuffix(now, " healthy") && !strings.HasPrefix(now, pid+" ") && !strings.HasPrefix(now, "0 ")
	})
	h.eventually("the other is stopped", func() bool { return h.ok("inspect", "--format", "{{.State.Status}}", "ends") == "exited" })
	h.eventually("the third is shown as unhealthy", func() bool {
		return h.ok("inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", "stays") == "running unhealthy"
	})
	h.refused("needs a health check", "run", "-d", "-l", "berth.on-unhealthy=stop", busyboxImage, "true")
	h.refused("restart, stop or none", "run", "-d", "-l", "berth.on-unhealthy=fly", busyboxImage, "true")
	h.ok("rm", "-f", "again", "ends", "stays")
}
