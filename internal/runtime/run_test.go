package runtime

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/fault"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// want fails unless the output holds every part.
func want(t *testing.T, code int, out string, parts ...string) {
	t.Helper()
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, p := range parts {
		if !strings.Contains(out, p) {
			t.Errorf("output lacks %q:\n%s", p, out)
		}
	}
	if t.Failed() {
		t.Logf("output:\n%s", out)
	}
}

func TestOrdinaryContainer(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	code, out := m.sh(root, `
		echo pid $$; hostname; pwd; id -u; echo home $HOME
		grep -E '^(CapInh|CapEff|NoNewPrivs|Seccomp):' /proc/self/status
		ls /proc/self/fd | wc -l
		stat -c '%t:%T' /dev/null /dev/tty; readlink /dev/ptmx; readlink /dev/fd
		mount | grep ' /sys '
		echo x > /sys/kernel/x 2>/dev/null || echo sys is read-only
		cat /proc/keys | wc -c`)
	want(t, code, out, "pid 1\n", "test\n", "/\n", "home /root", "CapInh:\t0000000000000000", "CapEff:\t00000000a80425fb",
		"1:3\n", "5:0\n", "pts/ptmx\n", "/proc/self/fd\n", "sys is read-only")
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	code, out := m.sh(root, "env", func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "A=1", "B=2", "A=3", "HOME=/h", "odd") })
	want(t, code, out, "A=3\n", "B=2\n", "HOME=/h\n")
	if strings.Contains(out, "A=1") {
		t.Error("an overridden value is passed")
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	for script, code := range map[string]int{"exit 7": 7, "true": 0, "kill -9 $$; sleep 1": 0} {
		if got, _ := m.sh(root, script); got != code {
			t.Errorf("%q ended with %d, want %d", script, got, code)
		}
	}
}

func TestOverlayOfManyLayers(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	dir := t.TempDir()
	o := &Overlay{Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work")}
	for i := range 200 {
		layer := filepath.Join(dir, "a-directory-with-a-name-that-makes-the-option-string-of-an-overlay-far-too-long", itoa(i))
		if err := os.MkdirAll(layer, 0o755); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(layer, "layer"+itoa(i)), nil, 0o644)
		os.WriteFile(filepath.Join(layer, "top"), []byte(itoa(i)), 0o644)
		o.Lower = append(o.Lower, layer)
	}
	o.Lower = append(o.Lower, root)
	os.Mkdir(o.Upper, 0o755)
	os.Mkdir(o.Work, 0o755)
	s := spec("", "sh", "-c", "ls / | grep -c layer; cat /top; echo new > /new")
	s.Root = nil
	s.Linux.CgroupsPath = "/berth-test-overlay"
	opts := m.options(s)
	opts.Overlay = o
	code, out := m.runWith(opts)
	want(t, code, out, "200\n", "0")
	if b, err := os.ReadFile(filepath.Join(o.Upper, "new")); err != nil || string(b) != "new\n" {
		t.Errorf("the upper layer has %q, %v", b, err)
	}
	if mounts, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(mounts), dir) {
		t.Error("the overlay is mounted on the host")
	}
}

func TestReadOnlyOverlayOfOneLayer(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	s := spec(root, "sh", "-c", "touch /x 2>&1; echo done")
	opts := m.options(s)
	opts.Overlay = &Overlay{Lower: []string{root}}
	code, out := m.runWith(opts)
	want(t, code, out, "Read-only file system", "done")
}

func TestCreateStartDelete(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	ctx := context.Background()
	opts := m.options(spec(root, "sleep", "100"))
	opts.PidFile = filepath.Join(t.TempDir(), "pid")
	c, err := Create(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { unix.Wait4(c.Init.PID, nil, 0, nil) }()
	if s := c.State(); s.Status != specs.StateCreated || s.Pid != c.Init.PID {
		t.Fatalf("state after create: %+v", s)
	}
	if b, _ := os.ReadFile(opts.PidFile); string(b) != itoa(c.Init.PID) {
		t.Errorf("pid file holds %q", b)
	}
	if _, err := Create(ctx, opts); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second container of the same id: %v", err)
	}
	other, err := Load(m.root, c.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if s := other.State(); s.Status != specs.StateRunning {
		t.Fatalf("state after start: %v", s.Status)
	}
	if err := c.Start(ctx); !fault.Is(err, fault.Conflict) {
		t.Errorf("second start: %v", err)
	}
	if err := other.Delete(ctx, false); !fault.Is(err, fault.Conflict) {
		t.Errorf("delete of a running container: %v", err)
	}
	if l, err := List(m.root); err != nil || len(l) != 1 || l[0].ID != c.ID() || l[0].Owner != "root" {
		t.Errorf("list: %+v, %v", l, err)
	}
	if err := other.Delete(ctx, true); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(m.root, c.ID()); !fault.Is(err, fault.NotFound) {
		t.Errorf("load after delete: %v", err)
	}
	if c.cg.Exists() {
		t.Error("the cgroup is left")
	}
}

func TestPauseResumeSignalPids(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	c, err := m.start(m.options(spec(root, "sh", "-c", "trap 'echo got; exit 3' TERM; sleep 1000 & wait")))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Pause(); err != nil {
		t.Fatal(err)
	}
	if s := c.State().Status; s != statusPaused {
		t.Errorf("status %v after pause", s)
	}
	if err := c.Pause(); !fault.Is(err, fault.Conflict) {
		t.Errorf("second pause: %v", err)
	}
	if err := c.Resume(); err != nil {
		t.Fatal(err)
	}
	for pids := 0; pids < 2; {
		l, err := c.Pids()
		if err != nil {
			t.Fatal(err)
		}
		pids = len(l)
	}
	if err := c.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, out := c.wait(t); code != 3 || out != "got\n" {
		t.Errorf("exit %d, output %q", code, out)
	}
	if err := c.Signal(unix.SIGTERM); !fault.Is(err, fault.Conflict) {
		t.Errorf("signal to a stopped container: %v", err)
	}
}

func TestKillAllLeavesNothing(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	// Without a pid namespace the death of the init ends nobody else.
	c, err := m.start(m.options(func() *specs.Spec {
		s := spec(root, "sh", "-c", "for i in $(seq 20); do sh -c 'while true; do sleep 0.01; done' & done; wait")
		s.Linux.Namespaces = s.Linux.Namespaces[1:]
		return s
	}()))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.KillAll(); err != nil {
		t.Fatal(err)
	}
	if l, err := c.Pids(); err != nil || len(l) != 0 {
		t.Errorf("left over: %v, %v", l, err)
	}
}

func TestLimitsAndStats(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	limit, pids := int64(64<<20), int64(20)
	s := spec(root, "sleep", "1000")
	s.Linux.Resources = &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &limit},
		Pids:   &specs.LinuxPids{Limit: &pids},
	}
	c, err := m.start(m.options(s))
	if err != nil {
		t.Fatal(err)
	}
	stats, err := c.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if stats.Memory.Limit != uint64(limit) || stats.Pids.Limit != 20 || stats.Pids.Current != 1 || stats.Memory.Usage == 0 {
		t.Errorf("stats: %+v %+v", stats.Memory, stats.Pids)
	}
	shares, more, cpus := uint64(512), int64(96<<20), "0"
	swap := int64(128 << 20)
	err = c.Update(&specs.LinuxResources{
		CPU:    &specs.LinuxCPU{Shares: &shares, Cpus: cpus},
		Memory: &specs.LinuxMemory{Limit: &more, Swap: &swap},
	})
	if err != nil {
		t.Fatal(err)
	}
	stats, _ = c.Stats()
	if stats.Memory.Limit != uint64(more) {
		t.Errorf("limit after update: %d", stats.Memory.Limit)
	}
	status, _ := os.ReadFile("/proc/" + itoa(c.Init.PID) + "/status")
	if !strings.Contains(string(status), "Cpus_allowed_list:\t0\n") {
		t.Error("the process was not moved to the cpuset made by update")
	}
	bad := int64(-5)
	if err := c.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &bad}}); err == nil {
		t.Error("a negative limit was accepted")
	}
}

func TestOutOfMemoryIsCounted(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	limit := int64(16 << 20)
	s := spec(root, "sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M count=1; echo $?; sleep 1000")
	s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
	c, err := m.start(m.options(s))
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		if n, err := c.OOMCount(); err != nil || n > 0 {
			if err != nil {
				t.Fatal(err)
			}
			return
		}
		unix.Nanosleep(&unix.Timespec{Nsec: 5e6}, nil)
	}
	t.Error("no kill for lack of memory was counted")
}

func TestRlimitsScoresAndScheduling(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	score := 500
	umask := uint32(0o077)
	code, out := m.sh(root, "ulimit -n; cat /proc/self/oom_score_adj; cut -d' ' -f19 /proc/self/stat; umask; cat /proc/self/personality", func(s *specs.Spec) {
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 123, Hard: 456}}
		s.Process.OOMScoreAdj = &score
		s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 5}
		s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE}
		s.Process.User.Umask = &umask
		s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
		s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0"}
	})
	want(t, code, out, "123\n", "500\n", "5\n", "0077\n", "00000008\n")
}

func TestUserAndGroups(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	code, out := m.sh(root, "id -u; id -g; id -G; echo $HOME; grep Cap /proc/self/status; echo hi > /dev/stdout", func(s *specs.Spec) {
		s.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{10, 20}}
	})
	want(t, code, out, "1000\n1000\n", "1000 10 20", "/home/user\n", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "hi\n")
}

func TestAmbientCapabilities(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	code, out := m.sh(root, "grep Cap /proc/self/status", func(s *specs.Spec) {
		s.Process.User.UID = 1000
		c := []string{"CAP_NET_BIND_SERVICE"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: c, Permitted: c, Effective: c, Inheritable: c, Ambient: c}
	})
	want(t, code, out, "CapEff:\t0000000000000400", "CapAmb:\t0000000000000400", "CapBnd:\t0000000000000400")
}

func TestSysctl(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	code, out := m.sh(root, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced", func(s *specs.Spec) {
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "77", "kernel.shm_rmid_forced": "1"}
	})
	want(t, code, out, "77\n1\n")
	host, _ := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if string(host) == "77\n" {
		t.Error("the host's parameter was changed")
	}
}

func TestDevices(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	mode, uid := os.FileMode(0o640), uint32(5)
	major, minor := int64(10), int64(229)
	code, out := m.sh(root, `stat -c '%n %t:%T %a %u' /dev/fuse /dev/net/tun /dev/fifo
		mknod /tmp/sda b 8 0 && (cat /tmp/sda 2>&1 || echo no disk)
		head -c 1 /dev/zero | wc -c`, func(s *specs.Spec) {
		s.Linux.Devices = []specs.LinuxDevice{
			{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, FileMode: &mode, UID: &uid},
			{Path: "/dev/net/tun", Type: "c", Major: 10, Minor: 200},
			{Path: "/dev/fifo", Type: "p"},
		}
		s.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{
			{Allow: false, Access: "rwm"}, {Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rwm"},
		}}
	})
	want(t, code, out, "/dev/fuse a:e5 640 5", "/dev/net/tun a:c8 666 0", "/dev/fifo 0:0 666", "no disk", "1\n")
}
