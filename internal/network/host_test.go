package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Tests that need a kernel run on a "test host": this binary executed again in
// its own network, mount and process namespaces, so that the machine's links,
// rules and settings are never touched and nothing can be left behind.
const hostEnv = "BERTH_NETWORK_TEST_HOST"

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(crashEnv) != "":
		crashChild()
	case os.Getenv(hostEnv) != "":
		if err := furnishTestHost(); err != nil {
			fmt.Println("cannot furnish the test host:", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func furnishTestHost() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return err
	}
	// The machine's name server must not steer the choice of subnets.
	if path, err := filepath.EvalSymlinks(hostResolvConf); err == nil {
		if err := os.WriteFile("/run/resolv.conf", []byte("nameserver 192.0.2.53\n"), 0o644); err != nil {
			return err
		}
		if err := unix.Mount("/run/resolv.conf", path, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	// A new namespace inherits this from the machine.
	if err := writeSysctl("ipv4/ip_forward", "0"); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// onTestHost returns true on the test host. Elsewhere it runs the test there,
// reports the outcome, and returns false.
func onTestHost(t testing.TB) bool {
	t.Helper()
	if os.Getenv(hostEnv) != "" {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	if t, ok := t.(*testing.T); ok {
		t.Parallel() // every test has a host of its own
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v", "-test.timeout=120s", "-test.bench=^$"}
	if _, ok := t.(*testing.B); ok {
		args = []string{"-test.run=^$", "-test.bench=^" + t.Name() + "$", "-test.benchtime=100x", "-test.timeout=120s"}
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), hostEnv+"=1")
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  unix.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.EPERM) {
		t.Skip("needs the right to make namespaces: ", err)
	}
	if _, ok := t.(*testing.B); ok {
		os.Stdout.Write(out) // a benchmark's log is cut after ten lines
	} else {
		t.Logf("on the test host:\n%s", out)
	}
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(out, []byte("--- SKIP: "+t.Name())) {
		t.Skip("skipped on the test host")
	}
	return false
}

func testConfig(t testing.TB) Config {
	dir, err := os.MkdirTemp("/run", "engine")
	if err != nil {
		t.Fatal(err)
	}
	var logger *slog.Logger
	if testing.Verbose() {
		logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	return Config{RunDir: filepath.Join(dir, "run"), DataRoot: filepath.Join(dir, "data"), PoolSize: 2, Logger: logger}
}

func startManager(t testing.TB, cfg Config, live ...string) *Manager {
	t.Helper()
	m, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	alive := map[string]bool{}
	for _, id := range live {
		alive[id] = true
	}
	if err := m.Adopt(context.Background(), alive); err != nil {
		t.Fatal(err)
	}
	return m
}

// place is a network namespace to act in; a nil place is the test host itself.
type place struct{ ns *os.File }

// do runs f on a thread inside the place.
func (p *place) do(f func() error) error {
	if p == nil {
		return f()
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(p.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}

// box is a container as far as the network is concerned.
type box struct {
	*place
	*Endpoint
}

func attach(t testing.TB, m *Manager, id string, ports ...Port) box {
	t.Helper()
	e, err := m.Attach(context.Background(), id, Request{Ports: ports})
	if err != nil {
		t.Fatalf("attach %s: %v", id, err)
	}
	return enter(t, e)
}

func enter(t testing.TB, e *Endpoint) box {
	t.Helper()
	f, err := os.Open(e.SandboxPath)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return box{&place{f}, e}
}

// inhabit starts a process in the place, as a running container has, and
// returns what ends it.
func inhabit(t testing.TB, p *place) (end func()) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	must(t, p.do(cmd.Start))
	gone := false
	end = func() {
		if !gone {
			gone = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(end)
	return end
}

// leave lets go of the test's own hold on a container's namespace.
func (b box) leave() { b.ns.Close() }

// serve answers TCP and UDP on a port of the place with "NAME PEER-ADDRESS" and
// counts the questions.
func serve(t testing.TB, p *place, name string, addr string) (asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	err := p.do(func() error {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		pc, err := net.ListenPacket("udp", addr)
		if err != nil {
			l.Close()
			return err
		}
		t.Cleanup(func() { l.Close(); pc.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				asked.Add(1)
				fmt.Fprintf(c, "%s %s", name, peerOf(c.RemoteAddr()))
				c.Close()
			}
		}()
		go func() {
			buf := make([]byte, 100)
			for {
				_, from, err := pc.ReadFrom(buf)
				if err != nil {
					return
				}
				asked.Add(1)
				_, _ = pc.WriteTo([]byte(name+" "+peerOf(from)), from)
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatalf("serve %s on %s: %v", name, addr, err)
	}
	return asked
}

func peerOf(a net.Addr) string {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return err.Error()
	}
	return ap.Addr().Unmap().String()
}

const (
	answerWait  = 3 * time.Second
	silenceWait = 300 * time.Millisecond
)

// ask returns what answers at addr, as seen from the place.
func ask(p *place, network, addr string, wait time.Duration) (answer string, err error) {
	err = p.do(func() error {
		c, err := net.DialTimeout(network, addr, wait)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(wait))
		if network == "udp" {
			if _, err := c.Write([]byte("?")); err != nil {
				return err
			}
			buf := make([]byte, 100)
			n, err := c.Read(buf)
			answer = string(buf[:n])
			return err
		}
		b, err := io.ReadAll(c)
		answer = string(b)
		return err
	})
	return answer, err
}

// expect asserts that name answers, and returns the address it saw us from.
func expect(t testing.TB, p *place, network, addr, name string) (seenFrom string) {
	t.Helper()
	got, err := ask(p, network, addr, answerWait)
	who, from, _ := strings.Cut(got, " ")
	if err != nil || who != name {
		t.Errorf("%s %s: got %q, error %v; want an answer of %s", network, addr, got, err, name)
	}
	return from
}

// refuse asserts that nothing answers.
func refuse(t testing.TB, p *place, network, addr string) {
	t.Helper()
	if got, err := ask(p, network, addr, silenceWait); err == nil {
		t.Errorf("%s %s answered %q; want no answer", network, addr, got)
	}
}

// neighbour is another machine on a link to the test host, with routes to
// everything through it.
type neighbour struct {
	*place
	host4, host6 netip.Addr // the test host's addresses on the link
	own4, own6   netip.Addr
}

func newNeighbour(t testing.TB, number byte) neighbour {
	t.Helper()
	ns, inside, err := newNamespace()
	if err != nil {
		t.Fatal(err)
	}
	inside.close()
	t.Cleanup(func() { ns.Close() })
	n := neighbour{place: &place{ns},
		host4: netip.AddrFrom4([4]byte{10, 99, number, 1}), own4: netip.AddrFrom4([4]byte{10, 99, number, 2})}
	six := netip.MustParseAddr("fd99::").As16()
	six[7] = number
	six[15] = 1
	n.host6 = netip.AddrFrom16(six)
	six[15] = 2
	n.own6 = netip.AddrFrom16(six)

	attrs := netlink.NewLinkAttrs()
	attrs.Name = fmt.Sprintf("lan%d", number)
	link := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns.Fd())}
	must(t, netlink.LinkAdd(link))
	address(t, attrs.Name, n.host4, n.host6)
	must(t, n.do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		return addressWith(h, "eth0", n.own4, n.own6, n.host4, n.host6)
	}))
	return n
}

func address(t testing.TB, name string, v4, v6 netip.Addr) {
	t.Helper()
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	must(t, err)
	defer h.Close()
	must(t, addressWith(h, name, v4, v6, netip.Addr{}, netip.Addr{}))
}

func addressWith(h *netlink.Handle, name string, v4, v6, gw4, gw6 netip.Addr) error {
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	if err := errors.Join(h.LinkSetUp(lo), h.LinkSetUp(link)); err != nil {
		return err
	}
	for _, a := range []netip.Prefix{netip.PrefixFrom(v4, 24), netip.PrefixFrom(v6, 64)} {
		err := h.AddrAdd(link, &netlink.Addr{Flags: unix.IFA_F_NODAD,
			IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}})
		if err != nil {
			return err
		}
	}
	for _, gw := range []netip.Addr{gw4, gw6} {
		if !gw.IsValid() {
			continue
		}
		if err := h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gw.AsSlice()}); err != nil {
			return err
		}
	}
	return nil
}

// loopbackThrough makes the namespace send packets for 127.0.0.1 to a gateway.
func loopbackThrough(gw netip.Addr) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	eth, err := h.LinkByName("eth0")
	if err != nil {
		return err
	}
	local := &net.IPNet{IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}
	for _, table := range []struct {
		dst  *net.IPNet
		kind int
	}{{local, unix.RTN_LOCAL}, {&net.IPNet{IP: net.IPv4(127, 0, 0, 1).To4(), Mask: net.CIDRMask(32, 32)}, unix.RTN_LOCAL}} {
		_ = h.RouteDel(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: table.dst, Table: unix.RT_TABLE_LOCAL, Type: table.kind, Scope: unix.RT_SCOPE_HOST})
	}
	return h.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Dst: local, Gw: gw.AsSlice()})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func at(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

// eventually waits for a condition of the kernel that comes true by itself.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("did not come true: %s", what)
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("needs %s", name)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}
