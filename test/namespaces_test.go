package test

import (
	"strings"
	"testing"
)

// TestNamespacesOfAnotherContainerAreJoined looks at the namespaces themselves: all
// kinds but the mounts' can be another container's.
func TestNamespacesOfAnotherContainerAreJoined(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.berth("run", "-d", "--name", "first", "--hostname", "common", "--ipc", "shareable", busyboxImage, "sleep", "1000")
	of := func(container, kind string) string {
		return h.berth("exec", container, "readlink", "/proc/self/ns/"+kind)
	}
	for _, c := range []struct{ flag, kind string }{
		{"--pid", "pid"}, {"--ipc", "ipc"}, {"--uts", "uts"}, {"--userns", "user"}, {"--cgroupns", "cgroup"}, {"--network", "net"},
	} {
		name := "joins-" + c.kind
		h.berth("run", "-d", "--name", name, c.flag, "container:first", busyboxImage, "sleep", "1000")
		h.equal(of(name, c.kind), of("first", c.kind))
		if own := "pid"; c.kind != own {
			if of(name, own) == of("first", own) {
				t.Errorf("%s container:first joins the process namespace, too", c.flag)
			}
		}
	}
	h.equal(h.berth("exec", "joins-uts", "cat", "/etc/hostname", "/proc/sys/kernel/hostname"), "common\ncommon")
	// A name is what it was when the container was made.
	h.berth("rename", "first", "other")
	h.berth("restart", "-t", "0", "joins-uts")
	h.equal(h.berth("exec", "joins-uts", "hostname"), "common")
	h.berth("stop", "-t", "0", "other")
	h.berth("stop", "-t", "0", "joins-uts", "joins-cgroup", "joins-user")
	for _, kind := range []string{"uts", "cgroup", "user"} {
		if o := h.run("start", "joins-"+kind); o.code == 0 || !strings.Contains(o.stderr, "cannot join "+kind+" namespace of a non running container") {
			t.Errorf("started in the %s namespace of a container that does not run: %d %s", kind, o.code, o.stderr)
		}
	}
	h.berth("start", "other")
	h.berth("start", "joins-uts")
	if o := h.run("create", "--uts", "container:nosuch", busyboxImage, "true"); o.code == 0 || !strings.Contains(o.stderr, "nosuch") {
		t.Errorf("joins nobody: %d %s", o.code, o.stderr)
	}
}
