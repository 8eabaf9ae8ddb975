package test

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// What RUN --security and --network ask for is what a step gets, when the caller
// allows it: as BuildKit's tests have it.
func TestBuildModesOfSteps(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	const eff = "grep ^CapEff /proc/self/status"
	dir := h.context("modes", map[string]string{"Dockerfile": "FROM " + busyboxImage + "\n" +
		"RUN " + eff + "; mount -t tmpfs x /www 2>/dev/null || echo sandbox cannot mount\n" +
		"RUN --security=sandbox " + eff + "\n" +
		"RUN --security=insecure echo insecure $(" + eff + "); mount -t tmpfs x /www && echo insecure can mount; ls -d /dev/kmsg\n" +
		"RUN --network=none ip -o link | grep -c .\n" +
		"RUN --network=host echo net $(readlink /proc/self/ns/net)\n"})
	o := h.run("build", "--progress", "plain", dir)
	if o.code == 0 {
		t.Fatal("a step gets more than the caller allowed")
	}
	contains(t, o.stderr, "--allow security.insecure")
	o = h.run("build", "--progress", "plain", "--allow", "security.insecure", dir)
	contains(t, o.stderr, "--allow network.host")

	full := ""
	for line := range strings.Lines(readFile(t, "/proc/self/status")) {
		if rest, ok := strings.CutPrefix(line, "CapEff:"); ok {
			full = strings.TrimSpace(rest)
		}
	}
	net, err := os.Readlink("/proc/" + strconv.Itoa(h.holder.Process.Pid) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	out := h.build("--progress", "plain", "--allow", "security.insecure", "--allow", "network.host", dir)
	contains(t, out, "sandbox cannot mount", "insecure CapEff: "+full, "insecure can mount", "net "+net)
	if got := strings.Count(out, "CapEff:\t00000000a80425fb"); got != 2 {
		t.Errorf("%d steps have docker's capabilities, want 2:\n%s", got, out)
	}
}
