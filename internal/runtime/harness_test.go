package runtime

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// needRoot skips a test that makes containers where that is impossible.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes namespaces, mounts and cgroups")
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("needs /bin/busybox of the package busybox-static")
	}
}

// busybox copies the program once, before any container runs: a file that is
// open for writing in a process that is just being forked can't be executed.
var busybox = sync.OnceValues(func() (string, error) {
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return "", err
	}
	name := filepath.Join(testDir, "busybox")
	return name, os.WriteFile(name, program, 0o755)
})

// testDir lives as long as the tests; TestMain makes and removes it.
var testDir string

// busyboxRoot makes a root file system with busybox in it.
func busyboxRoot(t testing.TB) string {
	t.Helper()
	needRoot(t)
	root := filepath.Join(t.TempDir(), "rootfs")
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "tmp", "root"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	os.Chmod(filepath.Join(root, "tmp"), 0o1777)
	program, err := busybox()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Link(program, filepath.Join(root, "bin/busybox")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "true", "false", "cat", "ls", "id", "mount", "sleep", "grep", "stat", "hostname", "readlink", "touch", "mkdir", "ln", "kill", "test", "echo", "env", "pwd", "dd", "stty", "tty", "umount", "mknod", "head", "cut", "seq", "sort", "wc", "sync", "rm", "ps", "chmod"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"), 0o644)
	return root
}

// standardMounts are those of every ordinary container.
func standardMounts() []specs.Mount {
	strict := []string{"nosuid", "noexec", "nodev"}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: strict},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: append(slices.Clone(strict), "mode=1777", "size=65536k")},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: strict},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: append(slices.Clone(strict), "ro")},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: append(slices.Clone(strict), "ro", "relatime")},
	}
}

// spec returns a configuration that runs args in root.
func spec(root string, args ...string) *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"}
	return &specs.Spec{
		Version:  specs.Version,
		Root:     &specs.Root{Path: root},
		Hostname: "test",
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/bin:/usr/bin"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps},
		},
		Mounts: standardMounts(),
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.MountNamespace}, {Type: specs.CgroupNamespace},
			},
			MaskedPaths: []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
				"/proc/sched_debug", "/sys/firmware", "/proc/scsi"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			CgroupsPath:   "/berth-test-" + filepath.Base(filepath.Dir(filepath.Dir(root))) + "-" + filepath.Base(filepath.Dir(root)),
		},
	}
}

// machine makes containers for one test and removes them after it.
type machine struct {
	t    testing.TB
	root string
	next int
}

func newMachine(t testing.TB) *machine {
	needRoot(t)
	return &machine{t: t, root: filepath.Join(t.TempDir(), "state")}
}

func (m *machine) options(s *specs.Spec) CreateOptions {
	m.next++
	if s.Linux != nil && s.Linux.CgroupsPath != "" {
		s.Linux.CgroupsPath += "-" + itoa(os.Getpid()) + "-" + itoa(m.next)
	}
	return CreateOptions{ID: "c" + itoa(m.next), Root: m.root, Spec: s}
}

// started is a container that runs, with what it writes.
type started struct {
	*Container
	out  *output
	done chan struct{}
}

// output collects what a container writes and can be read meanwhile.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// start runs a container whose output is collected.
func (m *machine) start(opts CreateOptions) (*started, error) {
	m.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		m.t.Fatal(err)
	}
	opts.Stdio[1], opts.Stdio[2] = w, w
	s := &started{out: &output{}, done: make(chan struct{})}
	s.Container, err = Run(context.Background(), opts)
	w.Close()
	if err != nil {
		r.Close()
		return nil, err
	}
	go func() {
		io.Copy(s.out, r)
		r.Close()
		close(s.done)
	}()
	m.t.Cleanup(func() {
		s.KillAll()
		unix.Wait4(s.Init.PID, nil, 0, nil)
		if err := s.Delete(context.Background(), true); err != nil {
			m.t.Errorf("delete: %v", err)
		}
		s.Init.PidFD.Close()
	})
	return s, nil
}

// wait returns exit code and output.
func (s *started) wait(t testing.TB) (int, string) {
	t.Helper()
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(s.Init.PID, &ws, 0, nil); err == nil {
			break
		} else if err != unix.EINTR {
			t.Fatal(err)
		}
	}
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		t.Fatal("the output did not end")
	}
	if ws.Signaled() {
		return 128 + int(ws.Signal()), s.out.String()
	}
	return ws.ExitStatus(), s.out.String()
}

// run runs a container to its end.
func (m *machine) run(s *specs.Spec) (int, string) {
	m.t.Helper()
	return m.runWith(m.options(s))
}

func (m *machine) runWith(opts CreateOptions) (int, string) {
	m.t.Helper()
	c, err := m.start(opts)
	if err != nil {
		m.t.Fatal(err)
	}
	return c.wait(m.t)
}

// sh runs a shell script in a container made from an adjusted configuration.
func (m *machine) sh(root, script string, adjust ...func(*specs.Spec)) (int, string) {
	m.t.Helper()
	s := spec(root, "sh", "-c", script)
	for _, a := range adjust {
		a(s)
	}
	return m.run(s)
}

func BenchmarkRun(b *testing.B) {
	root := busyboxRoot(b)
	m := newMachine(b)
	for b.Loop() {
		c, err := Run(context.Background(), m.options(spec(root, "true")))
		if err != nil {
			b.Fatal(err)
		}
		unix.Wait4(c.Init.PID, nil, 0, nil)
		c.Init.PidFD.Close()
		if err := c.Delete(context.Background(), true); err != nil {
			b.Fatal(err)
		}
	}
}
