package test

import (
	"strings"
	"testing"
)

func TestUnhealthyContainersAreRestartedOrStopped(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	health := []string{"--health-cmd", "test ! -e /sick", "--health-interval", "200ms", "--health-retries", "2"}
	run := func(with func(...string) string, name string, action ...string) {
		t.Helper()
		args := append(append([]string{"run", "-d", "--name", name}, action...), health...)
		with(append(args, busyboxImage, "sh", "-c", "trap 'exit 0' TERM; rm -f /sick; touch /ready; while :; do sleep 0.1; done")...)
	}
	run(h.berth, "again", "--on-unhealthy", "restart")
	run(h.ok, "ends", "--label", "berth.on-unhealthy=stop") // as a Compose file says it
	run(h.berth, "stays", "--on-unhealthy", "none")
	for _, name := range []string{"again", "ends", "stays"} {
		h.eventually(name+" has come past its rm", func() bool { return h.docker("exec", name, "test", "-e", "/ready").code == 0 })
	}
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
