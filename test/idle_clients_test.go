package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ask opens connections to the engine, sends requests by hand and reads the
// status lines and the headers; nothing reads on.
func (h *host) ask(requests ...string) {
	h.t.Helper()
	var conns []net.Conn
	for _, request := range requests {
		conns = append(conns, h.send(request))
	}
	for i, conn := range conns {
		_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		for r := bufio.NewReaderSize(conn, 16); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				h.t.Fatalf("%s: %v", requests[i], err)
			}
			if line == "\r\n" {
				break
			}
		}
		_ = conn.SetReadDeadline(time.Time{})
	}
}

func (h *host) send(request string) net.Conn {
	h.t.Helper()
	conn, err := net.Dial("unix", h.path("run", "berth.sock"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, request+" HTTP/1.1\r\nHost: engine\r\n\r\n"); err != nil {
		h.t.Fatal(err)
	}
	return conn
}

// usage returns the engine's resident memory in KiB and its processor time.
func (h *host) usage() (resident int, cpu time.Duration) {
	pid := h.daemon.Process.Pid
	status := h.read(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(status, "VmRSS:")
	resident, _ = strconv.Atoi(strings.Fields(rest)[0])
	stat := h.read(fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return resident, time.Duration(user+system) * 10 * time.Millisecond
}

// A thousand clients that listen cost little memory, no processor time while
// nothing happens, and hold nobody up.
func TestAThousandIdleClients(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.berth("run", "-d", "--name", "quiet", busyboxImage, "sleep", "1000")
	before, _ := h.usage()
	var requests []string
	for range 500 {
		requests = append(requests, "GET /events", "GET /containers/quiet/logs?stdout=1&follow=1")
	}
	h.ask(requests...)
	const idle = 3 * time.Second
	resident, cpu := h.usage()
	time.Sleep(idle) // the time in which nothing happens is what is measured
	after, cpuAfter := h.usage()
	goroutines := descriptorsOf(h.daemon.Process.Pid)
	t.Logf("1000 idle clients: %d KiB more of resident memory (%.1f KiB each), %v of processor time in %v, %d descriptors",
		max(resident, after)-before, float64(max(resident, after)-before)/1000, cpuAfter-cpu, idle, goroutines)
	if more := max(resident, after) - before; more > 150<<10 {
		t.Errorf("%d KiB for 1000 idle clients", more)
	}
	// All of them hear what happens, and nobody waits for them.
	for range 20 {
		h.equal(h.berth("run", "--rm", busyboxImage, "echo", "still"), "still")
	}
	h.berth("kill", "quiet")
	h.berth("rm", "-f", "quiet")
}

// A reader of logs or events that does not read holds up neither the container
// nor the engine. (One that is attached is the container's output: like a pipe
// it may make its own container wait, and nobody else.)
func TestSlowReadersBlockNobody(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.berth("create", "--name", "loud", busyboxImage, "sh", "-c", "yes abcdefghijklmnopqrstuvwxyz | head -c 20000000; echo; echo done")
	h.ask("GET /events")
	h.berth("start", "loud")
	h.ask("GET /containers/loud/logs?stdout=1&follow=1")
	h.eventually("the container is through", func() bool { return h.try("inspect", "--format", "{{.State.Status}}", "loud") == "exited" })
	h.equal(h.berth("logs", "--tail", "1", "loud"), "done")
	// Half-closed and silent connections are only descriptors.
	before := descriptorsOf(h.daemon.Process.Pid)
	for range 50 {
		conn, err := net.Dial("unix", h.path("run", "berth.sock"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "POST /containers/loud/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
		_ = conn.(*net.UnixConn).CloseWrite()
		conn.Close()
	}
	for i := range 1200 { // more events than the bus keeps
		if i%2 == 0 {
			_ = h.get("/containers/loud/json", nil)
		}
		var b strings.Builder
		resp, err := h.client().Post("http://engine/volumes/create", "application/json", strings.NewReader(`{"Name":"v`+strconv.Itoa(i%3)+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(&b, resp.Body)
		resp.Body.Close()
	}
	h.equal(h.berth("run", "--rm", busyboxImage, "echo", "still"), "still")
	h.eventually("the descriptors are closed", func() bool { return descriptorsOf(h.daemon.Process.Pid) <= before+3 })
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", h.daemon.Process.Pid)); err != nil {
		t.Error("the engine died")
	}
}
