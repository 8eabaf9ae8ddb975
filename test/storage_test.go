package test

import (
	"os"
	"strings"
	"testing"
)

// TestSizesThatCannotBeKept: what a size does where the file system keeps it is
// looked at in a virtual machine (make test-vm).
func TestSizesThatCannotBeKept(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if err := os.Mkdir(h.path("data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := h.within("mount", "-t", "tmpfs", "tmpfs", h.path("data")).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	h.startEngine()
	h.berth("import", h.busyboxTar(), busyboxImage)
	why := "limit sizes: the file system at " + h.path("data") + " (tmpfs) has no project quotas in this kernel"
	h.refused(why, "run", "--storage-opt", "size=1g", busyboxImage, "true")
	h.refused(why, "volume", "create", "-o", "size=1g", "bounded")
	h.refused(why, "run", "--mount", "type=volume,src=bounded,dst=/v,volume-opt=size=1g", busyboxImage, "true")
	h.refused(`unknown option "sise" in --storage-opt`, "create", "--storage-opt", "sise=1g", busyboxImage, "true")
	h.refused("--storage-opt size=1q: invalid size", "create", "--storage-opt", "size=1q", busyboxImage, "true")
	h.refused(`"1k" is less than 1m`, "volume", "create", "-o", "size=1k", "bounded")
	h.equal(h.ok("ps", "-aq")+h.ok("volume", "ls", "-q"), "")
	// No limit can be kept anywhere.
	id := strings.TrimSpace(h.ok("create", "--storage-opt", "size=0", busyboxImage, "true"))
	h.equal(strings.TrimSpace(h.ok("inspect", "--format", "{{.HostConfig.StorageOpt}}", id)), "map[size:0]")
}

func TestDockerdRefusesASizeThatCannotBeKept(t *testing.T) {
	t.Parallel()
	h := newDockerd(t)
	if err := os.Mkdir(h.path("data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := h.within("mount", "-t", "tmpfs", "tmpfs", h.path("data")).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	for opts, want := range map[string]string{
		"overlay2.size=10G": "(tmpfs) has no project quotas",
		"overlay2.size=10K": "less than 1m",
		"overlay2.size":     "KEY=VALUE",
	} {
		file := h.writeFile("daemon.json", `{"storage-opts": ["`+opts+`"]}`)
		o := execute(t, h.within(h.dockerdArgs("--config-file", file)...))
		if o.code == 0 || !strings.Contains(o.stderr, want) {
			t.Errorf("%s: code %d, %q; want %q", opts, o.code, o.stderr, want)
		}
	}
	h.startDockerd("--storage-opt", "overlay2.size=0", "--storage-opt", "dm.basesize=10G")
	if log := h.engineLog(); !strings.Contains(log, "ignored --storage-opt dm.basesize=10G") {
		t.Errorf("the log does not say what is ignored: %s", log)
	}
}
