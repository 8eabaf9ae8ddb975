package test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSocketActivation starts dockerd as systemd does: with a socket on which
// clients wait already, and a place to say that it is ready.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	h := newDockerd(t)
	at := func(network, name string) *net.UnixAddr { return &net.UnixAddr{Name: h.path(name), Net: network} }
	passed, err := net.ListenUnix("unix", at("unix", "passed.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer passed.Close()
	passed.SetUnlinkOnClose(false)
	manager, err := net.ListenUnixgram("unixgram", at("unixgram", "notify.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	client, err := net.Dial("unix", h.path("passed.sock")) // before there is a daemon
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := io.WriteString(client, "GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	file, err := passed.File()
	if err != nil {
		t.Fatal(err)
	}
	h.daemon = h.within(append([]string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=api exec "$@"`, "sh"}, h.dockerdArgs("-H", "fd://")...)...)
	h.daemon.Env = append(h.daemon.Env, "NOTIFY_SOCKET="+h.path("notify.sock"))
	h.daemon.ExtraFiles = []*os.File{file}
	log, err := os.Create(h.path("engine.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	h.daemon.Stderr = log
	if err := h.daemon.Start(); err != nil {
		t.Fatal(err)
	}
	file.Close()
	told := func(want string) {
		t.Helper()
		_ = manager.SetReadDeadline(time.Now().Add(time.Minute))
		said := make([]byte, 64)
		if n, err := manager.Read(said); err != nil || string(said[:n]) != want {
			t.Fatalf("the manager was told %q, %v; not %s\n%s", said[:n], err, want, h.engineLog())
		}
	}
	told("READY=1")
	answer, err := http.ReadResponse(bufio.NewReader(client), nil)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("who waited got %v, %v", answer, err)
	}
	answer.Body.Close()
	h.berth("import", h.busyboxTar(), busyboxImage)
	h.berth("-H", "unix://"+h.path("passed.sock"), "run", "-d", "--name", "web", busyboxImage, "sleep", "1000")
	if out := h.berth("exec", "web", "env"); strings.Contains(out, "LISTEN") {
		t.Errorf("a container hears of the sockets:\n%s", out)
	}
	h.killEngine()
	passed.Close()
	if c, err := net.Dial("unix", h.path("passed.sock")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("somebody else holds the socket: %v %v", c, err)
	}
	h.startDockerd() // as from a unit without a socket
	h.berth("rm", "-f", "web")
}

// TestSocketsThatNobodyPassedAreRefused by name.
func TestSocketsThatNobodyPassedAreRefused(t *testing.T) {
	t.Parallel()
	h := newDockerd(t)
	for _, where := range []string{"fd://", "fd://7", "fd://api"} {
		o := execute(t, h.within(h.dockerdArgs("-H", where)...))
		if o.code == 0 || !strings.Contains(o.stderr, where+": no such socket was passed") {
			t.Errorf("%s: %d %s", where, o.code, o.stderr)
		}
	}
}

// TestBerthdReadsItsConfigurationAgain on SIGHUP, and keeps what it has when that
// fails.
func TestBerthdReadsItsConfigurationAgain(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	config := h.writeFile("berthd.json", `{"label": ["tier=one"], "log-max-files": 2}`)
	h.args = []string{"--config", config}
	h.startEngine()
	labels := func() string { return h.berth("info", "--format", "{{.Labels}} {{.Debug}}") }
	if got := labels(); got != "[tier=one] false" {
		t.Errorf("at first: %s", got)
	}
	again := func(text, log string) {
		t.Helper()
		h.writeFile("berthd.json", text)
		_ = h.daemon.Process.Signal(syscall.SIGHUP)
		h.eventually("the log says "+log, func() bool { return strings.Contains(h.engineLog(), log) })
	}
	again(`{"label": ["tier=two"], "debug": true, "log-max-files": 3}`, `labels="[tier=two]"`)
	if got := labels(); got != "[tier=two] true" {
		t.Errorf("then: %s", got)
	}
	if !strings.Contains(h.engineLog(), "option=log-max-files") {
		t.Error("it does not say that the number of log files needs a new start")
	}
	again(`{"label": ["tier=three"], "bogus": 1}`, "unknown key bogus")
	again(`{"label": ["tier=three"], "insecure-registry": ["http://x"]}`, "is not HOST[:PORT]")
	if got := labels(); got != "[tier=two] true" {
		t.Errorf("a file with a mistake changed it to %s", got)
	}
}
