package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestVolumes(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.equal(h.ok("volume", "create", "--label", "tier=db", "store"), "store")
	h.equal(h.ok("volume", "create", "store"), "store")
	h.refused("includes invalid characters", "volume", "create", "../up")
	h.refused("not offered", "volume", "create", "-d", "rexray", "other")
	h.equal(h.ok("volume", "inspect", "--format", "{{.Driver}} {{.Labels.tier}} {{.Scope}}", "store"), "local db local")
	h.refused("no such volume", "volume", "inspect", "none")
	// The image's files come along into a volume that is empty.
	h.ok("run", "--rm", "-v", "store:/www", busyboxImage, "sh", "-c", "cat /www/index.html && echo more >/www/more")
	h.equal(h.ok("run", "--rm", "-v", "store:/data:ro", busyboxImage, "cat", "/data/more"), "more")
	h.ok("run", "-d", "--name", "user", "-v", "store:/data", "-v", "/anonymous", busyboxImage, "sleep", "1000")
	anonymous := h.ok("volume", "ls", "-q", "--filter", "label=com.docker.volume.anonymous")
	if len(anonymous) != 64 {
		t.Errorf("the anonymous volume is called %q", anonymous)
	}
	h.refused("volume is in use", "volume", "rm", "store")
	h.equal(h.ok("volume", "ls", "-q", "--filter", "dangling=true"), "")
	h.equal(h.ok("volume", "ls", "-q", "--filter", "name=sto"), "store")
	h.equal(h.ok("ps", "--filter", "volume=store", "--format", "{{.Names}}"), "user")
	h.killEngine()
	h.startEngine()
	h.equal(h.ok("volume", "ls", "-q", "--filter", "label=tier=db"), "store")
	h.ok("volume", "create")
	if out := h.ok("volume", "prune", "-f"); !strings.Contains(out, "Deleted Volumes:") || strings.Contains(out, "store") || strings.Contains(out, anonymous) {
		t.Errorf("prune said %q", out)
	}
	h.ok("rm", "-fv", "user")
	h.equal(h.ok("volume", "ls", "-q"), "store")
	h.ok("volume", "prune", "-f")
	h.equal(h.ok("volume", "ls", "-q"), "store")
	h.ok("volume", "prune", "-af")
	h.equal(h.ok("volume", "ls", "-q"), "")
	if left, _ := os.ReadDir(h.path("data", "volumes")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestVolumesWithOptions(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	precious := h.write("host/precious", "keep me", 0o644)
	h.ok("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device="+filepath.Dir(precious), "bound")
	h.ok("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,mode=1777", "memory")
	h.refused("invalid option", "volume", "create", "-o", "colour=red", "x")
	h.refused("missing required option", "volume", "create", "-o", "type=tmpfs", "x")
	h.ok("run", "-d", "--name", "one", "-v", "memory:/m", "-v", "bound:/b:ro", busyboxImage, "sleep", "1000")
	h.ok("run", "-d", "--name", "two", "-v", "memory:/m", busyboxImage, "sleep", "1000")
	h.equal(h.ok("exec", "one", "cat", "/b/precious"), "keep me")
	h.ok("exec", "one", "sh", "-c", "echo shared >/m/file")
	h.equal(h.ok("exec", "two", "cat", "/m/file"), "shared")
	h.ok("rm", "-f", "one")
	h.equal(h.ok("exec", "two", "cat", "/m/file"), "shared")
	// An engine that comes back knows what is mounted for whom.
	h.killEngine()
	h.startEngine()
	h.equal(h.ok("exec", "two", "cat", "/m/file"), "shared")
	h.ok("cp", "two:/m/file", h.path("out"))
	h.ok("rm", "-f", "two")
	h.equal(h.ok("run", "--rm", "-v", "memory:/m", busyboxImage, "ls", "/m"), "")
	mounts, err := h.within("cat", "/proc/self/mounts").Output()
	if err != nil || strings.Contains(string(mounts), h.path("data", "volumes")) {
		t.Errorf("still mounted: %v %s", err, mounts)
	}
	h.ok("volume", "create", "-o", "type=nosuchfs", "-o", "device=nowhere", "strange")
	h.refused("failed to mount local volume", "run", "--rm", "-v", "strange:/s", busyboxImage, "true")
	// What is mounted in a volume's place is never removed with it, whenever the
	// engine dies.
	h.ok("run", "-d", "--name", "one", "-v", "bound:/b", busyboxImage, "sleep", "1000")
	h.killEngine()
	h.startEngine()
	h.ok("rm", "-f", "one")
	h.ok("volume", "rm", "bound", "memory", "strange")
	h.equal(h.read(precious), "keep me")
}

func TestDiff(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.ok("run", "--name", "box", busyboxImage, "sh", "-c", "mkdir /new; echo x >/new/file; rm /www/index.html; echo y >>/etc/passwd")
	got := h.ok("diff", "box")
	for _, line := range []string{"A /new", "A /new/file", "C /www", "D /www/index.html", "C /etc", "C /etc/passwd"} {
		if !strings.Contains("\n"+got+"\n", "\n"+line+"\n") {
			t.Errorf("%s is missing in %q", line, got)
		}
	}
	h.ok("create", "--name", "fresh", busyboxImage, "true")
	h.equal(h.ok("diff", "fresh"), "")
	// What the engine mounts files over is nobody's change, in a bare image either.
	h.ok("start", "fresh")
	h.ok("wait", "fresh")
	h.equal(h.ok("diff", "fresh"), "")
}
