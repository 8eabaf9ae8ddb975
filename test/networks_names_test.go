package test

import (
	"errors"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// answerNames is a name server on the host's loopback that knows every name: it has
// the address 127.0.0.1. The result tells for what it was asked.
func (h *host) answerNames() func() string {
	h.t.Helper()
	c := h.listenUDP("127.0.0.1:53")
	var mu sync.Mutex
	var seen []string
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			mu.Lock()
			seen = append(seen, q.Name.String())
			mu.Unlock()
			m.Response, m.Additionals = true, nil
			if q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}}}
			}
			if reply, err := m.Pack(); err == nil {
				_, _ = c.WriteTo(reply, from)
			}
		}
	}()
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(seen, " ")
	}
}

// listenUDP opens a socket in the host's network.
func (h *host) listenUDP(addr string) (c net.PacketConn) {
	h.t.Helper()
	h.inNetwork(func() (err error) { c, err = net.ListenPacket("udp", addr); return err })
	h.t.Cleanup(func() { _ = c.Close() })
	return c
}

// inNetwork does something in the host's network, which must succeed.
func (h *host) inNetwork(do func() error) {
	h.t.Helper()
	// The thread must come back: the host's processes die with the one that made them.
	runtime.LockOSThread()
	home, err1 := os.Open("/proc/thread-self/ns/net")
	there, err2 := os.Open("/proc/" + strconv.Itoa(h.holder.Process.Pid) + "/ns/net")
	if err := errors.Join(err1, err2); err != nil {
		h.t.Fatal(err)
	}
	defer home.Close()
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		h.t.Fatal(err)
	}
	err := do()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		h.t.Fatal(back)
	}
	runtime.UnlockOSThread()
	if err != nil {
		h.t.Fatal(err)
	}
}

// nameServers lists the processes of the name service.
func (h *host) nameServers() []int {
	var out []int
	for _, pid := range h.processes() {
		line, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if strings.Contains(string(line), "name-server") {
			out = append(out, pid)
		}
	}
	return out
}

// An engine that is killed takes no name away from containers that run, and
// neither does the end of the name service itself.
func TestNamesOutliveTheEngine(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.ok("network", "create", "zone")
	for _, name := range []string{"asker", "peer", "other"} {
		h.ok("run", "-d", "--name", name, "--network", "zone", "--dns", "127.0.0.1", busyboxImage, "sleep", "1000")
	}
	pid := h.ok("inspect", "--format", "{{.State.Pid}}", "asker")
	other, err := strconv.Atoi(h.ok("inspect", "--format", "{{.State.Pid}}", "other"))
	if err != nil {
		t.Fatal(err)
	}
	resolves := func(when, name string) {
		t.Helper()
		o := execute(t, h.within("nsenter", "-t", pid, "-n", "-m", "--", "/bin/ping", "-c", "1", "-W", "5", name))
		if o.code != 0 {
			t.Errorf("%s: %s is not found: %s%s", when, name, o.stdout, o.stderr)
		}
	}
	one := func(when string) int {
		t.Helper()
		var list []int
		h.eventually("one name server "+when, func() bool { list = h.nameServers(); return len(list) == 1 })
		return list[0]
	}
	first := one("at work")
	resolves("with the engine", "peer")
	asked := h.answerNames()
	h.killEngine()
	resolves("without an engine", "peer")
	resolves("outside, without an engine", "somewhere.example.com") // answered with the loopback
	if !strings.Contains(asked(), "somewhere.example.com.") {
		t.Errorf("the server outside was asked for %q", asked())
	}

	// A container that ends now must not be kept by its sockets.
	_ = syscall.Kill(other, syscall.SIGKILL)
	h.startEngine()
	if second := one("after the next start"); second == first {
		t.Error("the next engine left the old server at work")
	}
	resolves("with the next engine", "peer")
	h.equal(h.ok("inspect", "--format", "{{.State.Running}}", "other"), "false")
	h.ok("run", "-d", "--name", "late", "--network", "zone", busyboxImage, "sleep", "1000")
	resolves("with the next engine", "late")
	h.eventually("interfaces of the dead are gone", func() bool {
		out, err := h.within("ip", "-o", "link", "show", "type", "veth").Output()
		zone := "br-" + h.ok("network", "inspect", "--format", "{{.Id}}", "zone")[:12]
		return err == nil && strings.Count(string(out), "master "+zone) == 3
	})

	// The server itself may be killed, too.
	if err := syscall.Kill(one("before the kill"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.eventually("names are found again", func() bool {
		return execute(t, h.within("nsenter", "-t", pid, "-n", "-m", "--", "/bin/ping", "-c", "1", "-W", "2", "peer")).code == 0
	})
	// Both at once.
	h.killEngine()
	_ = syscall.Kill(one("before both are killed"), syscall.SIGKILL)
	h.startEngine()
	resolves("after both were killed", "late")
	h.ok("rm", "-f", "asker", "peer", "other", "late")
	h.stopEngine()
	h.eventually("no name server is left", func() bool { return len(h.nameServers()) == 0 })
	if left, _ := os.ReadDir(h.path("run", "names")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
