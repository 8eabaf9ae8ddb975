package test

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStatsTopAndUpdate(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	id := h.ok("run", "-d", "--name", "busy", "-m", "64m", "--pids-limit", "50", busyboxImage, "sh", "-c", "while :; do :; done")
	fields := strings.Split(h.ok("stats", "--no-stream", "--format", "{{.Name}}|{{.CPUPerc}}|{{.MemUsage}}|{{.PIDs}}|{{.NetIO}}", "busy"), "|")
	if len(fields) != 5 || fields[0] != "busy" || fields[1] == "0.00%" || !strings.HasSuffix(fields[2], "/ 64MiB") || fields[3] != "1" || strings.HasPrefix(fields[4], "0B / 0B / ") {
		t.Errorf("docker stats shows %q", fields)
	}
	var sample struct {
		CPUStats    struct{ OnlineCPUs int } `json:"cpu_stats"`
		PreCPUStats struct {
			SystemUsage uint64 `json:"system_cpu_usage"`
		} `json:"precpu_stats"`
		Networks map[string]any
		PidsS    struct{ Limit uint64 } `json:"pids_stats"`
	}
	var body strings.Builder
	if err := h.get("/containers/busy/stats?stream=0&one-shot=1", &body); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(body.String()), &sample); err != nil || sample.PreCPUStats.SystemUsage != 0 || sample.PidsS.Limit != 50 || sample.Networks["eth0"] == nil {
		t.Errorf("one shot: %v %s", err, body.String())
	}
	if top := h.ok("top", "busy"); !strings.Contains(top, "while :; do :; done") || !strings.HasPrefix(top, "UID") {
		t.Errorf("docker top shows %q", top)
	}
	if top := h.ok("top", "busy", "-o", "pid,comm"); !strings.HasPrefix(top, "PID") || strings.Count(top, "\n") != 1 {
		t.Errorf("docker top -o shows %q", top)
	}
	h.refused("Couldn't find PID field", "top", "busy", "-o", "comm")

	h.ok("update", "-m", "96m", "--memory-swap", "192m", "--cpus", "0.5", "--pids-limit", "70", "--restart", "on-failure:3", "busy")
	h.equal(h.ok("inspect", "--format", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} {{.HostConfig.RestartPolicy.Name}}", "busy"), "100663296 500000000 70 on-failure")
	h.equal(strings.TrimSpace(cgroupFile(t, id, "memory.limit_in_bytes", "memory.max")), "100663296")
	h.equal(strings.TrimSpace(cgroupFile(t, id, "pids.max", "pids.max")), "70")
	h.refused("6MB", "update", "-m", "1m", "busy")
	h.refused("CPU Period", "update", "--cpu-period", "10000", "busy")
	h.killEngine()
	h.startEngine()
	h.equal(h.ok("inspect", "--format", "{{.HostConfig.Memory}} {{.State.Status}}", "busy"), "100663296 running")
	h.ok("kill", "busy")
	h.refused("is not running", "top", "busy")
	h.ok("stats", "--no-stream", "busy")
	h.ok("rm", "-f", "busy")
}

// cgroupFile reads a file of a container's cgroup on hosts of either kind.
func cgroupFile(t *testing.T, id, v1, v2 string) string {
	t.Helper()
	controller, _, _ := strings.Cut(v1, ".")
	for _, pattern := range []string{"/sys/fs/cgroup/" + controller + "/*/" + id + "/" + v1, "/sys/fs/cgroup/*/" + id + "/" + v2} {
		if found, _ := filepath.Glob(pattern); len(found) == 1 {
			text, err := os.ReadFile(found[0])
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
	}
	t.Fatalf("no cgroup of %s has %s", id, v1)
	return ""
}

func TestExportIsTheRootWithoutVolumes(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	for _, running := range []bool{true, false} {
		h.ok("run", "-d", "--name", "box", "-v", "/data", busyboxImage, "sh", "-c", "echo new >/made; echo x >/data/inside; rm /www/index.html; exec sleep 1000")
		h.eventually("the files are there", func() bool { return h.docker("exec", "box", "test", "!", "-e", "/www/index.html").code == 0 })
		if !running {
			h.ok("kill", "box")
		}
		out := h.path("export.tar")
		h.ok("export", "-o", out, "box")
		names := map[string]bool{}
		f, err := os.Open(out)
		if err != nil {
			t.Fatal(err)
		}
		for r := tar.NewReader(f); ; {
			entry, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			names[entry.Name] = true
		}
		f.Close()
		if !names["made"] || !names["bin/busybox"] || !names["data/"] || names["data/inside"] || names["www/index.html"] || names["proc/version"] {
			t.Errorf("running %v: the export holds %v", running, names)
		}
		h.ok("import", out, "again:1")
		h.equal(h.ok("run", "--rm", "again:1", "cat", "/made"), "new")
		h.ok("rm", "-fv", "box")
	}
}
