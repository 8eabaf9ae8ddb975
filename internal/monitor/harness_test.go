package monitor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/internal/logs"
	"berth/internal/logs/jsonfile"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The test program is the monitor's program, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "monitor" {
		os.Exit(Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// host is a run directory with a monitor, and a root file system.
type host struct {
	t       *testing.T
	dir     string
	runDir  string
	rootfs  string
	client  *Client
	events  <-chan Event
	runtime string // "" is the built-in one
	seen    []Event
}

func newHost(t *testing.T) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox (static) is not installed")
	}
	dir, err := os.MkdirTemp("", "monitor-test-")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, dir: dir, runDir: dir + "/run", rootfs: dir + "/rootfs"}
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(h.rootfs, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.rootfs+"/bin/busybox", text, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "cat", "echo", "sleep", "true", "seq", "kill", "stty", "dd", "yes", "head", "id", "usleep", "nc"} {
		if err := os.Symlink("busybox", filepath.Join(h.rootfs, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(h.clean)
	h.connect()
	return h
}

// connect makes a client, as a new engine does.
func (h *host) connect() {
	h.t.Helper()
	self, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	if h.client, err = Dial(h.t.Context(), h.runDir, self); err != nil {
		h.t.Fatalf("dial: %v", err)
	}
	h.events = h.client.Events(h.t.Context())
}

// clean ends everything and says what the monitor wrote if the test failed.
func (h *host) clean() {
	text, _ := os.ReadFile(h.runDir + "/monitor/monitor.log")
	for _, bad := range []string{"DATA RACE", "panic: ", "fatal error: "} {
		if bytes.Contains(text, []byte(bad)) {
			h.t.Errorf("the monitor wrote of a %s", bad)
		}
	}
	if h.t.Failed() && len(text) > 0 {
		h.t.Logf("monitor.log:\n%.20000s", text)
	}
	_ = h.client.Close()
	for quiet := 0; quiet < 5; quiet++ { // each may have started the other one
		commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, path := range commands {
			text, _ := os.ReadFile(path)
			if bytes.Contains(text, []byte("monitor\x00--run\x00"+h.runDir+"\x00")) {
				pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
				_ = unix.Kill(pid, unix.SIGKILL)
				quiet = 0
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
	ids, _ := os.ReadDir(h.runDir + "/monitor/containers")
	for _, id := range ids {
		h.killLeft(id.Name())
	}
	parents, _ := filepath.Glob("/sys/fs/cgroup/*" + h.cgroups())
	for _, dir := range parents {
		_ = os.Remove(dir)
	}
	for range 100 {
		if os.RemoveAll(h.dir) == nil {
			return
		}
		_ = unix.Unmount(h.dir, unix.MNT_DETACH)
		time.Sleep(10 * time.Millisecond)
	}
}

// killLeft ends what a failed test left of a container, by its cgroups.
func (h *host) killLeft(id string) {
	for range 50 {
		found, _ := filepath.Glob("/sys/fs/cgroup/*" + h.cgroups() + "/" + id)
		for _, dir := range found {
			text, _ := os.ReadFile(dir + "/cgroup.procs")
			for _, line := range strings.Fields(string(text)) {
				pid, _ := strconv.Atoi(line)
				_ = unix.Kill(pid, unix.SIGKILL)
			}
			_ = os.Remove(dir)
		}
		if len(found) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	_ = unix.Unmount(h.runDir+"/monitor/containers/"+id+"/rootfs", unix.MNT_DETACH)
}

// pid returns the pid in a file of the monitor, 0 if there is none.
func (h *host) pid(name string) int {
	text, err := os.ReadFile(filepath.Join(h.runDir, "monitor", name))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

// cgroups returns the cgroup above those of the host's containers.
func (h *host) cgroups() string { return "/" + filepath.Base(h.dir) }

// spec is the specification of a shell script in a container.
func (h *host) spec(id, script string) *specs.Spec {
	mount := func(at, kind string, options ...string) specs.Mount {
		return specs.Mount{Destination: at, Type: kind, Source: kind, Options: options}
	}
	return &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{
			Args: []string{"/bin/sh", "-c", script}, Cwd: "/", Env: []string{"PATH=/bin"},
		},
		Root:     &specs.Root{Path: h.rootfs},
		Hostname: "test",
		Mounts:   []specs.Mount{mount("/proc", "proc"), mount("/dev", "tmpfs", "mode=755"), mount("/dev/pts", "devpts", "newinstance", "ptmxmode=0666", "mode=0620")},
		Linux: &specs.Linux{
			CgroupsPath: h.cgroups() + "/" + id,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace},
			},
		},
	}
}

func (h *host) id(name string) string {
	return name + "-" + filepath.Base(h.dir)[len("monitor-test-"):]
}

func (h *host) logPath(id string) string { return filepath.Join(h.dir, id+"-json.log") }

func (h *host) request(id, script string) StartRequest {
	return StartRequest{
		ID: id, Spec: h.spec(id, script), Runtime: h.runtime,
		Log: LogConfig{Path: h.logPath(id), MaxSize: -1},
	}
}

func (h *host) start(req StartRequest) Started {
	h.t.Helper()
	started, err := h.client.Start(h.t.Context(), req)
	if err != nil {
		h.t.Fatalf("start %s: %v", req.ID, err)
	}
	return started
}

// await waits for an event, which may have come before.
func (h *host) await(kind, id, execID string) Event {
	h.t.Helper()
	for i, e := range h.seen {
		if e.Type == kind && e.ID == id && e.ExecID == execID {
			h.seen = append(h.seen[:i:i], h.seen[i+1:]...)
			return e
		}
	}
	late := time.After(30 * time.Second)
	for {
		select {
		case e := <-h.events:
			if e.Type == kind && e.ID == id && e.ExecID == execID {
				return e
			}
			h.seen = append(h.seen, e)
		case <-late:
			h.t.Fatalf("no event %s of %s %s; seen: %v", kind, id, execID, h.seen)
		}
	}
}

// exit waits for a container's end, also one that happened while the
// connection was lost.
func (h *host) exit(id string) Exit {
	h.t.Helper()
	exit := h.exitOrState(id)
	if exit == nil {
		h.t.Fatalf("container %s does not end", id)
	}
	return *exit
}

func (h *host) exitOrState(id string) *Exit {
	for i, e := range h.seen {
		if e.Type == EventExit && e.ID == id {
			h.seen = append(h.seen[:i:i], h.seen[i+1:]...)
			return e.Exit
		}
	}
	late := time.After(30 * time.Second)
	for {
		select {
		case e := <-h.events:
			switch {
			case e.Type == EventExit && e.ID == id:
				return e.Exit
			case e.Type == EventLost:
				if s := h.state(id); s != nil && s.Exited {
					return s.Exit
				}
			default:
				h.seen = append(h.seen, e)
			}
		case <-late:
			return nil
		}
	}
}

func (h *host) state(id string) *ContainerState {
	h.t.Helper()
	all, err := h.client.List(h.t.Context())
	if err != nil {
		h.t.Fatalf("list: %v", err)
	}
	for i := range all {
		if all[i].ID == id {
			return &all[i]
		}
	}
	return nil
}

func (h *host) forget(id string) {
	h.t.Helper()
	if err := h.client.Forget(h.t.Context(), id); err != nil {
		h.t.Errorf("forget %s: %v", id, err)
	}
}

// run runs a script to its end and returns how it ended and what it logged.
func (h *host) run(id, script string, change ...func(*StartRequest)) (Exit, [2]string) {
	h.t.Helper()
	req := h.request(id, script)
	for _, f := range change {
		f(&req)
	}
	h.start(req)
	exit := h.exit(id)
	h.forget(id)
	return exit, h.logged(id)
}

func (h *host) logged(id string) (text [2]string) {
	h.t.Helper()
	var out [2]strings.Builder
	err := logs.Read(h.t.Context(), jsonfile.Format{}, h.logPath(id), logs.ReadOptions{Tail: -1}, func(e logs.Entry) error {
		i := 0
		if e.Stream == "stderr" {
			i = 1
		}
		out[i].Write(e.Line)
		return nil
	})
	if err != nil {
		h.t.Errorf("read log of %s: %v", id, err)
	}
	return [2]string{out[0].String(), out[1].String()}
}

// attach connects a client to a container or exec.
func (h *host) attach(req AttachRequest) *net.UnixConn {
	h.t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	far := os.NewFile(uintptr(fds[1]), "far")
	defer far.Close()
	near := os.NewFile(uintptr(fds[0]), "near")
	defer near.Close()
	if err := h.client.Attach(h.t.Context(), req, far); err != nil {
		h.t.Fatalf("attach: %v", err)
	}
	conn, err := net.FileConn(near)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.UnixConn)
}

// readFrames returns the streams of a framed connection.
func readFrames(r io.Reader) (out [3]string, err error) {
	var all [3]bytes.Buffer
	var head [8]byte
	for {
		if _, err = io.ReadFull(r, head[:]); err != nil {
			break
		}
		n := int64(head[4])<<24 | int64(head[5])<<16 | int64(head[6])<<8 | int64(head[7])
		if head[0] > 2 {
			err = fmt.Errorf("frame of stream %d", head[0])
			break
		}
		if _, err = io.CopyN(&all[head[0]], r, n); err != nil {
			break
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	for i := range all {
		out[i] = all[i].String()
	}
	return out, err
}

// eventually waits until a condition holds that no event tells of.
func (h *host) eventually(what string, holds func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("not within 20 seconds: %s", what)
		}
	}
}

func toJSON(v any) string {
	text, _ := json.Marshal(v)
	return string(text)
}
