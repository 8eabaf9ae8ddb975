package network

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// crashEnv makes this binary an engine that attaches and detaches until it is
// killed. Its value is "RUNDIR DATAROOT".
const crashEnv = "BERTH_NETWORK_TEST_CRASH"

// crashChild acknowledges each container that it started with a line "+ID PID",
// and each that it ended with "-ID". The containers outlive it.
func crashChild() {
	run, data, _ := strings.Cut(os.Getenv(crashEnv), " ")
	fail := func(err error) {
		fmt.Println("! ", err)
		os.Exit(1)
	}
	m, err := Open(context.Background(), Config{RunDir: run, DataRoot: data, PoolSize: 3})
	if err != nil {
		fail(err)
	}
	live := map[string]bool{}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		live[in.Text()] = true
	}
	if err := m.Adopt(context.Background(), live); err != nil {
		fail(err)
	}
	procs := map[string]*exec.Cmd{}
	for i := 0; ; i++ {
		id := fmt.Sprintf("c%d-%d", os.Getpid(), i)
		ports := []Port{{ContainerPort: 80}, {ContainerPort: 53, Proto: "udp"}}[:rand.IntN(3)]
		e, err := m.Attach(context.Background(), id, Request{Ports: ports})
		if i%4 == 3 {
			if err == nil {
				err = m.Detach(context.Background(), id)
			}
			if err == nil {
				e, err = m.NewSandbox(context.Background(), id)
			}
		}
		if err != nil {
			fail(err)
		}
		ns, err := os.Open(e.SandboxPath)
		if err != nil {
			fail(err)
		}
		cmd := exec.Command("sleep", "1000")
		if err := (&place{ns}).do(cmd.Start); err != nil {
			fail(err)
		}
		ns.Close()
		procs[id] = cmd
		fmt.Printf("+%s %d\n", id, cmd.Process.Pid)
		for old, p := range procs { // end one of them, at random
			if len(procs) < 4 {
				break
			}
			fmt.Printf("-%s\n", old)
			_ = p.Process.Kill()
			_ = p.Wait()
			if err := m.Detach(context.Background(), old); err != nil {
				fail(err)
			}
			delete(procs, old)
			break
		}
	}
}

// crashOnce runs an engine for a while and kills it; live is updated by what it
// acknowledged.
func crashOnce(t *testing.T, cfg Config, live map[string]int, lifetime time.Duration) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), crashEnv+"="+cfg.RunDir+" "+cfg.DataRoot)
	var ids []string
	for id := range live {
		ids = append(ids, id)
	}
	cmd.Stdin = strings.NewReader(strings.Join(ids, "\n"))
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	kill := time.AfterFunc(lifetime, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	for sc := bufio.NewScanner(out); sc.Scan(); {
		line := sc.Text()
		switch line[0] {
		case '+':
			var id string
			var pid int
			_, err := fmt.Sscanf(line[1:], "%s %d", &id, &pid)
			must(t, err)
			live[id] = pid
		case '-':
			_ = unix.Kill(live[line[1:]], unix.SIGKILL)
			delete(live, line[1:])
		default:
			t.Errorf("the engine failed: %s", line)
		}
	}
	_ = cmd.Wait()
}

func TestKilledEngineLeavesNothingBehind(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	cfg := testConfig(t)
	cfg.Logger = nil
	live := map[string]int{} // container to process
	rounds := 12
	if n, err := strconv.Atoi(os.Getenv("BERTH_TEST_KILLS")); err == nil {
		rounds = n // for a long run by hand
	}
	for round := range rounds {
		crashOnce(t, cfg, live, time.Duration(5+rand.IntN(120))*time.Millisecond)
		if round%3 != 2 {
			continue // the next engine adopts what this one left
		}
		var ids []string
		for id := range live {
			ids = append(ids, id)
		}
		m := startManager(t, cfg, ids...)
		checkKernel(t, m, live)
		m.Close()
	}
	for _, pid := range live {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	m := startManager(t, cfg)
	m.Close()
	checkNothingLeft(t, cfg)
}

// checkKernel asserts that the engine knows exactly the living containers and
// that the kernel holds what they need and no more.
func checkKernel(t *testing.T, m *Manager, live map[string]int) {
	t.Helper()
	bridged, elements := 0, 0
	for id, pid := range live {
		e, ok := m.Endpoint(id)
		if !ok {
			t.Errorf("container %s lost its endpoint", id)
			continue
		}
		inside, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
		must(t, err)
		named, err := os.Stat(e.SandboxPath)
		if err != nil || !os.SameFile(inside, named) {
			t.Errorf("container %s: its sandbox path does not lead to its namespace: %v", id, err)
		}
		if e.Name == "bridge" {
			bridged++
		}
		elements += len(m.Ports(id))
	}
	if n, err := m.firewall.elementCount(); err != nil || n != elements {
		t.Errorf("the maps hold %d ports, error %v; want %d", n, err, elements)
	}
	m.mu.Lock()
	known := len(m.endpoints)
	m.mu.Unlock()
	if known != len(live) {
		t.Errorf("the engine knows %d containers, %d live", known, len(live))
	}
	m.bridged.close()
	m.bare.close()
	for _, dir := range []string{m.netnsDir(), m.recordDir()} {
		if entries, _ := os.ReadDir(dir); len(entries) != len(live) {
			t.Errorf("%d files in %s for %d containers", len(entries), dir, len(live))
			for _, e := range entries {
				if id, _ := strings.CutSuffix(e.Name(), ".json"); live[id] == 0 {
					t.Errorf("%s belongs to nobody", e.Name())
				}
			}
		}
	}
	eventually(t, "interfaces of nobody are gone", func() bool { return len(vethsOf(t, m.names.tag)) == bridged })
}

func vethsOf(t testing.TB, tag string) (found []string) {
	t.Helper()
	links, err := wholeList(netlink.LinkList)
	must(t, err)
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, "veth"+tag) {
			found = append(found, l.Attrs().Name)
		}
	}
	return found
}

// checkNothingLeft asserts that an engine without containers left the kernel
// and the run directory as they were.
func checkNothingLeft(t testing.TB, cfg Config) {
	t.Helper()
	links, err := wholeList(netlink.LinkList)
	must(t, err)
	for _, l := range links {
		if name := l.Attrs().Name; strings.HasPrefix(name, "berth") || strings.HasPrefix(name, "veth") {
			t.Errorf("interface %s is left", name)
		}
	}
	if out := run(t, "nft", "list", "ruleset"); strings.Contains(out, "berth") {
		t.Errorf("rules are left:\n%s", out)
	}
	if entries, _ := os.ReadDir(cfg.RunDir); len(entries) != 0 {
		t.Errorf("files are left in the run directory: %v", entries)
	}
	if data, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(data), "nsfs") {
		t.Errorf("namespace mounts are left:\n%s", data)
	}
}
