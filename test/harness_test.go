package test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// busyboxImage is the image that every scenario's engine has.
const busyboxImage = "test/busybox:1"

// host is a machine of its own as far as an engine can tell: fresh network and
// mount namespaces, held by a sleeping process, and scratch directories.
type host struct {
	t        *testing.T
	dir      string // short, because socket paths must stay under 108 bytes
	berthBin string
	holder   *exec.Cmd
	daemon   *exec.Cmd
	args     []string
}

func binary(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make build first", err)
	}
	return path
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes namespaces, mounts and cgroups")
	}
}

// newHost makes a host without an engine.
func newHost(t *testing.T) *host {
	t.Helper()
	needRoot(t)
	dir, err := os.MkdirTemp("", "bt-")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, dir: dir, berthBin: binary(t, "berth")}
	h.holder = exec.Command("sleep", "3600")
	h.holder.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := h.holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.destroy)
	if out, err := h.within("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("lo: %v: %s", err, out)
	}
	return h
}

// newEngine makes a host with a running engine and the busybox image.
func newEngine(t *testing.T, args ...string) *host {
	t.Helper()
	h := newHost(t)
	h.args = args
	h.startEngine()
	h.berth("import", h.busyboxTar(), busyboxImage)
	return h
}

// within returns a command that runs in the host's namespaces.
func (h *host) within(argv ...string) *exec.Cmd {
	enter := []string{"-t", strconv.Itoa(h.holder.Process.Pid), "-n", "-m", "--"}
	cmd := exec.Command("nsenter", append(enter, argv...)...)
	cmd.Env = append(os.Environ(), "BERTH_HOST="+h.socket(), "DOCKER_HOST="+h.socket(), "HOME="+h.dir, "NO_COLOR=1")
	return cmd
}

func (h *host) socket() string { return "unix://" + h.path("run", "berth.sock") }

func (h *host) path(elem ...string) string {
	return filepath.Join(append([]string{h.dir}, elem...)...)
}

// startEngine starts berthd and returns when it answers.
func (h *host) startEngine() {
	h.t.Helper()
	argv := append([]string{binary(h.t, "berthd"), "--root", h.path("data"), "--run", h.path("run")}, h.args...)
	h.startDaemon(argv)
}

// startDaemon starts an engine by any name and returns when it answers.
func (h *host) startDaemon(argv []string) {
	h.t.Helper()
	h.daemon = h.within(argv...)
	log, err := os.OpenFile(h.path("engine.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close()
	h.daemon.Stdout, h.daemon.Stderr = log, log
	if err := h.daemon.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.eventually("the engine answers", func() bool { return h.get("/_ping", nil) == nil })
}

// killEngine ends berthd as a power failure of its process would.
func (h *host) killEngine() {
	h.t.Helper()
	_ = h.daemon.Process.Kill()
	_ = h.daemon.Wait()
}

// stopEngine asks berthd to end and waits until it has.
func (h *host) stopEngine() {
	h.t.Helper()
	_ = h.daemon.Process.Signal(syscall.SIGTERM)
	if err := h.daemon.Wait(); err != nil {
		h.t.Errorf("berthd ended with %v after SIGTERM\n%s", err, h.engineLog())
	}
	h.daemon = nil
}

func (h *host) engineLog() string {
	text, _ := os.ReadFile(h.path("engine.log"))
	if len(text) > 4000 {
		text = text[len(text)-4000:]
	}
	return string(text)
}

// destroy removes whatever the scenario left; a failed scenario shows the
// engine's log first.
func (h *host) destroy() {
	if h.t.Failed() {
		h.t.Logf("engine log:\n%s", h.engineLog())
	}
	if h.daemon != nil {
		if ids := strings.Fields(h.try("ps", "-aq")); len(ids) > 0 {
			h.try(append([]string{"rm", "-f"}, ids...)...)
		}
		_ = h.daemon.Process.Signal(syscall.SIGTERM)
		_ = h.daemon.Wait()
	}
	// The two processes of the monitor start one another again.
	for left := h.processes(); len(left) > 0; left = h.processes() {
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(10 * time.Millisecond)
	}
	_ = h.holder.Process.Kill()
	_ = h.holder.Wait()
	if err := os.RemoveAll(h.dir); err != nil {
		h.t.Errorf("clean up: %v", err)
	}
}

// processes lists the processes whose command line names this host's directory.
func (h *host) processes() []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		line, err := os.ReadFile("/proc/" + entry.Name() + "/cmdline")
		if err == nil && strings.Contains(string(line), h.dir+"/") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// outcome is what a command printed and how it ended.
type outcome struct {
	stdout, stderr string
	code           int
}

func execute(t *testing.T, cmd *exec.Cmd) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// run runs berth and returns its outcome, whatever it is.
func (h *host) run(args ...string) outcome {
	h.t.Helper()
	return execute(h.t, h.within(append([]string{h.berthBin, "--no-start"}, args...)...))
}

// berth runs berth, which must succeed, and returns its trimmed output.
func (h *host) berth(args ...string) string {
	h.t.Helper()
	o := h.run(args...)
	if o.code != 0 {
		h.t.Fatalf("berth %s: exit code %d: %s", strings.Join(args, " "), o.code, o.stderr)
	}
	return strings.TrimSpace(o.stdout)
}

// try runs berth and returns its output; failure is fine.
func (h *host) try(args ...string) string {
	out, _ := h.within(append([]string{h.berthBin, "--no-start"}, args...)...).Output()
	return strings.TrimSpace(string(out))
}

// docker runs the real docker command line against the engine.
func (h *host) docker(args ...string) outcome {
	h.t.Helper()
	return execute(h.t, h.within(append([]string{"docker"}, args...)...))
}

// client speaks HTTP to the engine's socket.
func (h *host) client() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", h.path("run", "berth.sock"))
		}}}
}

// get fetches a path of the API and copies the body to w, which may be nil.
func (h *host) get(path string, w io.Writer) error {
	resp, err := h.client().Get("http://engine" + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if w == nil {
		w = io.Discard
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return nil
}

// eventually waits until check holds, at most half a minute.
func (h *host) eventually(what string, check func() bool) {
	h.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !check() {
		if time.Now().After(deadline) {
			h.t.Fatalf("not within 30 s: %s\n%s", what, h.engineLog())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// busyboxTar writes a root file system with busybox and its common names and
// returns the archive's path.
func (h *host) busyboxTar(extra ...tarFile) string {
	h.t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		h.t.Fatalf("%v: install busybox-static", err)
	}
	content, err := os.ReadFile(busybox)
	if err != nil {
		h.t.Fatal(err)
	}
	files := []tarFile{{name: "bin/busybox", mode: 0o755, body: string(content)},
		{name: "etc/passwd", mode: 0o644, body: "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n"},
		{name: "etc/group", mode: 0o644, body: "root:x:0:\nuser:x:1000:\n"},
		{name: "www/index.html", mode: 0o644, body: "hello from a container\n"}}
	for _, applet := range strings.Fields("sh true false sleep cat echo ls id ps seq head tail yes httpd nc wget hostname env kill " +
		"mount umount mkdir touch rm stty tty tr wc grep stat test pwd nproc ip ping dd sync trap printf readlink") {
		files = append(files, tarFile{name: "bin/" + applet, link: "busybox"})
	}
	path := h.path("busybox.tar")
	if err := writeTar(path, append(files, extra...)); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// tarFile is one entry of an archive: a directory when the name ends in a
// slash, a symbolic link when link is set, else a regular file.
type tarFile struct {
	name, link, body string
	mode             int64
}

func writeTar(path string, files []tarFile) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	for _, file := range files {
		header := &tar.Header{Name: file.name, Mode: file.mode, Size: int64(len(file.body)), Typeflag: tar.TypeReg, ModTime: time.Unix(1, 0)}
		switch {
		case file.link != "":
			header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, file.link, 0o777
		case strings.HasSuffix(file.name, "/"):
			header.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		if _, err := io.WriteString(w, file.body); err != nil {
			return err
		}
	}
	return w.Close()
}
