package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"berth/internal/fault"
)

func TestCloseLeavesNothingWithoutContainers(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	cfg := testConfig(t)
	m := startManager(t, cfg)
	m.bridged.waitFull()
	m.bare.waitFull()
	a := attach(t, m, "a", Port{HostPort: 8080, ContainerPort: 80})
	e, err := m.NewSandbox(context.Background(), "n")
	must(t, err)
	n := enter(t, e)
	a.leave()
	n.leave()
	for _, id := range []string{"a", "n", "a", "never-seen"} {
		must(t, m.Detach(context.Background(), id))
	}
	m.Close()
	checkNothingLeft(t, cfg)
}

func TestLiveContainersSurviveTheEngine(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	cfg := testConfig(t)
	m := startManager(t, cfg)
	a := attach(t, m, "a", Port{HostPort: 8080, ContainerPort: 80})
	e, err := m.NewSandbox(context.Background(), "n")
	must(t, err)
	n := enter(t, e)
	serve(t, a.place, "a", ":80")
	inhabit(t, a.place)
	inhabit(t, n.place)
	before := m.Bridge()
	m.Close()
	expect(t, nil, "tcp", "127.0.0.1:8080", "a") // while no engine runs
	run(t, "nft", "flush", "ruleset")            // and nobody is there to put it back

	m = startManager(t, cfg, "a", "n", "without-network")
	if m.Bridge() != before {
		t.Errorf("the network changed from %+v to %+v", before, m.Bridge())
	}
	for _, old := range []box{a, n} {
		now, ok := m.Endpoint(old.ContainerID)
		if !ok {
			t.Fatalf("endpoint of %s is lost", old.ContainerID)
		}
		if fmt.Sprint(*now) != fmt.Sprint(*old.Endpoint) {
			t.Errorf("endpoint changed:\n%+v\n%+v", *old.Endpoint, *now)
		}
		inside, err1 := old.ns.Stat()
		named, err2 := os.Stat(now.SandboxPath)
		if err1 != nil || err2 != nil || !os.SameFile(inside, named) {
			t.Errorf("%s does not lead to the namespace: %v, %v", now.SandboxPath, err1, err2)
		}
	}
	expect(t, nil, "tcp", "127.0.0.1:8080", "a")
	// The port is still held, and free once the container is gone.
	_, err = m.Attach(context.Background(), "b", Request{Ports: []Port{{HostPort: 8080, ContainerPort: 80}}})
	if !fault.Is(err, fault.Conflict) {
		t.Errorf("publishing a taken port: %v", err)
	}
	must(t, m.Detach(context.Background(), "a"))
	b := attach(t, m, "b", Port{HostPort: 8080, ContainerPort: 80})
	serve(t, b.place, "b", ":80")
	expect(t, nil, "tcp", "127.0.0.1:8080", "b")
}

func TestFlushedRulesComeBack(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	m := startManager(t, testConfig(t))
	lan := newNeighbour(t, 1)
	a := attach(t, m, "a", Port{HostPort: 8080, ContainerPort: 80}, Port{HostPort: 8080, ContainerPort: 80, Proto: "udp"})
	serve(t, a.place, "a", ":80")
	serve(t, a.place, "a", ":81")
	table := m.names.table
	for _, harm := range [][]string{
		{"flush", "ruleset"},
		{"delete", "table", "inet", table},
		{"flush", "chain", "inet", table, "publish"},
		{"flush", "map", "inet", table, "ports4"},
		{"flush", "table", "inet", table},
	} {
		before := run(t, "nft", "list", "ruleset")
		run(t, "nft", harm...)
		begin := time.Now()
		eventually(t, fmt.Sprint("the rules are back after ", harm), func() bool {
			return run(t, "nft", "list", "ruleset") == before
		})
		t.Logf("back %v after %v", time.Since(begin), harm)
		expect(t, lan.place, "tcp", at(lan.host4, 8080), "a")
		expect(t, lan.place, "udp", at(lan.host4, 8080), "a")
		refuse(t, lan.place, "tcp", at(a.IPv4.Addr(), 81))
	}
}

func TestRulesComeBackUnderAttachAndDetach(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	m := startManager(t, testConfig(t))
	ctx := context.Background()
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := range 20 {
				id := fmt.Sprintf("c%d-%d", w, i)
				if _, err := m.Attach(ctx, id, Request{Ports: []Port{{ContainerPort: 80}}}); err != nil {
					t.Error(err)
				}
				if err := m.Detach(ctx, id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		run(t, "nft", "flush", "ruleset")
	}
	wg.Wait()
	if _, err := m.Attach(ctx, "last", Request{Ports: []Port{{ContainerPort: 80}}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "exactly the published ports are in the maps", func() bool {
		n, err := m.firewall.elementCount()
		return err == nil && n == 2
	})
}

func TestEnginesSideBySide(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	var all []*Manager
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 4 {
		cfg := testConfig(t)
		wg.Go(func() {
			m, err := Open(context.Background(), cfg)
			if err == nil {
				err = m.Adopt(context.Background(), nil)
			}
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, m)
		})
	}
	wg.Wait()
	lan := newNeighbour(t, 1)
	for i, m := range all {
		defer m.Close()
		for _, o := range all[:i] {
			if m.subnet4.Overlaps(o.subnet4) || m.subnet6.Overlaps(o.subnet6) || m.names.bridge == o.names.bridge || m.names.table == o.names.table {
				t.Errorf("two engines share something: %+v and %+v", m.Bridge(), o.Bridge())
			}
		}
		port := uint16(8000 + i)
		a := attach(t, m, "same-id", Port{HostPort: port, ContainerPort: 80})
		name := fmt.Sprint("engine", i)
		serve(t, a.place, name, ":80")
		expect(t, lan.place, "tcp", at(lan.host4, port), name)
	}
	// A port of one is taken for the other.
	_, err := all[0].Attach(context.Background(), "x", Request{Ports: []Port{{HostPort: 8001, ContainerPort: 80}}})
	if !fault.Is(err, fault.Conflict) {
		t.Errorf("publishing another engine's port: %v", err)
	}
	// One engine's end does not touch the others.
	must(t, all[0].Detach(context.Background(), "same-id"))
	all[0].Close()
	expect(t, lan.place, "tcp", at(lan.host4, 8001), "engine1")
}

func TestExhaustedSubnet(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	cfg := testConfig(t)
	cfg.Subnet4 = netip.MustParsePrefix("172.22.1.0/29") // five containers
	m := startManager(t, cfg)
	ctx := context.Background()
	for i := range 5 {
		attach(t, m, fmt.Sprint("c", i)).leave()
	}
	_, err := m.Attach(ctx, "one-too-many", Request{})
	if !fault.Is(err, fault.Exhausted) {
		t.Fatalf("attaching beyond the subnet: %v", err)
	}
	must(t, m.Detach(ctx, "c0"))
	eventually(t, "the address is free again", func() bool {
		_, err := m.Attach(ctx, "one-too-many", Request{})
		return err == nil
	})
}

func TestWantedAddresses(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	cfg := testConfig(t)
	cfg.Subnet4 = netip.MustParsePrefix("172.22.1.0/24")
	m := startManager(t, cfg)
	m.bridged.waitFull()
	ctx := context.Background()
	six := m.subnet6.Addr().Next().Next().Next().Next().Next().Next()
	mac := net.HardwareAddr{2, 1, 2, 3, 4, 5}
	for i, r := range []Request{
		{IPv4: netip.MustParseAddr("172.22.1.2")},           // in the pool
		{IPv4: netip.MustParseAddr("172.22.1.3"), MAC: mac}, // its address is in the pool
		{IPv4: netip.MustParseAddr("172.22.1.200")},
		{IPv6: six},
		{MAC: mac},
	} {
		id := fmt.Sprint("c", i)
		e, err := m.Attach(ctx, id, r)
		if err != nil {
			t.Errorf("%+v: %v", r, err)
			continue
		}
		if r.IPv4.IsValid() && e.IPv4.Addr() != r.IPv4 || r.IPv6.IsValid() && e.IPv6.Addr() != r.IPv6 || r.MAC != nil && e.MAC.String() != r.MAC.String() {
			t.Errorf("asked for %+v, got %+v", r, e)
		}
		b := enter(t, e)
		must(t, b.do(func() error {
			have, err := net.InterfaceByName(insideName)
			if err == nil && have.HardwareAddr.String() != e.MAC.String() {
				return fmt.Errorf("the interface has address %s, not %s", have.HardwareAddr, e.MAC)
			}
			return err
		}))
		serve(t, b.place, id, ":80")
		expect(t, nil, "tcp", at(e.IPv4.Addr(), 80), id)
		expect(t, nil, "tcp", at(e.IPv6.Addr(), 80), id)
	}
	for _, c := range []struct {
		r    Request
		kind fault.Kind
	}{
		{Request{IPv4: netip.MustParseAddr("172.22.1.200")}, fault.Conflict},
		{Request{IPv6: six}, fault.Conflict},
		{Request{IPv4: netip.MustParseAddr("172.22.1.1")}, fault.Invalid},
		{Request{IPv4: netip.MustParseAddr("172.22.1.255")}, fault.Invalid},
		{Request{IPv4: netip.MustParseAddr("10.0.0.1")}, fault.Invalid},
		{Request{IPv6: netip.MustParseAddr("2001:db8::1")}, fault.Invalid},
		{Request{MAC: net.HardwareAddr{1, 2, 3, 4, 5, 6}}, fault.Invalid},
	} {
		if _, err := m.Attach(ctx, "refused", c.r); fault.KindOf(err) != c.kind || err == nil {
			t.Errorf("%+v: %v; want a %s error", c.r, err, c.kind)
		}
	}
}

func TestSandboxSettings(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	m := startManager(t, testConfig(t))
	a := attach(t, m, "a")
	e, err := m.NewSandbox(context.Background(), "n")
	must(t, err)
	n := enter(t, e)
	for _, c := range []struct {
		p          *place
		name, want string
	}{
		{a.place, "ipv6/conf/eth0/accept_ra", "0"},
		{a.place, "ipv4/ip_unprivileged_port_start", "0"},
		{a.place, "ipv4/ping_group_range", "0\t2147483647"},
		{n.place, "ipv4/ip_unprivileged_port_start", "0"},
	} {
		var got string
		must(t, c.p.do(func() (err error) { got, err = readSysctl(c.name); return err }))
		if got != c.want {
			t.Errorf("%s is %q, want %q", c.name, got, c.want)
		}
	}
	must(t, n.do(func() error {
		all, err := net.Interfaces()
		if err == nil && (len(all) != 1 || all[0].Flags&net.FlagUp == 0) {
			return fmt.Errorf("the bare namespace has interfaces %v", all)
		}
		return err
	}))
	// The loopback answers in both.
	for _, b := range []box{a, n} {
		serve(t, b.place, b.ContainerID, "127.0.0.1:80")
		expect(t, b.place, "tcp", "127.0.0.1:80", b.ContainerID)
	}
	// The host's own namespace was not touched by preparing others.
	if v, err := readSysctl("ipv4/ip_unprivileged_port_start"); err != nil || v != "1024" {
		t.Errorf("the host's ip_unprivileged_port_start is %q, error %v", v, err)
	}
}

func TestAttachRefusals(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	m := startManager(t, testConfig(t))
	ctx, cancel := context.WithCancel(context.Background())
	attach(t, m, "a")
	for id, kind := range map[string]fault.Kind{"a": fault.Conflict, "": fault.Invalid, "../x": fault.Invalid, ".": fault.Invalid, "x/y": fault.Invalid} {
		if _, err := m.Attach(ctx, id, Request{}); err == nil || fault.KindOf(err) != kind {
			t.Errorf("attaching %q: %v, want a %s error", id, err, kind)
		}
	}
	cancel()
	if _, err := m.Attach(ctx, "b", Request{}); !errors.Is(err, context.Canceled) {
		t.Errorf("attaching with a cancelled context: %v", err)
	}
	m.Close()
	if _, err := m.Attach(context.Background(), "b", Request{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("attaching after Close: %v", err)
	}
}

func TestBurst(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	cfg := testConfig(t)
	m := startManager(t, cfg)
	ctx := context.Background()
	const total, parallel = 100, 8
	seen := map[netip.Addr]string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := make(chan int)
	for range parallel {
		wg.Go(func() {
			for i := range next {
				id := fmt.Sprint("c", i)
				e, err := m.Attach(ctx, id, Request{Ports: []Port{{ContainerPort: 80}}})
				if err != nil {
					t.Error(err)
					continue
				}
				mu.Lock()
				if other, twice := seen[e.IPv4.Addr()]; twice {
					t.Errorf("%s and %s have the same address", id, other)
				}
				seen[e.IPv4.Addr()] = id
				mu.Unlock()
			}
		})
	}
	for i := range total {
		next <- i
	}
	close(next)
	wg.Wait()
	if n, err := m.firewall.elementCount(); err != nil || n != 2*total {
		t.Errorf("the maps hold %d ports, error %v; want %d", n, err, 2*total)
	}
	for i := range total {
		must(t, m.Detach(ctx, fmt.Sprint("c", i)))
	}
	m.Close()
	checkNothingLeft(t, cfg)
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil && len(fds) > 20 {
		t.Errorf("%d descriptors are open after Close", len(fds))
	}
}
