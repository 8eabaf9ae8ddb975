package runtime

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// execIn runs a process in a container to its end.
func execIn(t *testing.T, c *Container, p *specs.Process) (int, string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	proc, err := c.Exec(context.Background(), ExecOptions{Process: p, Stdio: Stdio{nil, w, w}})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer proc.PidFD.Close()
	out, _ := io.ReadAll(r)
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(proc.PID, &ws, 0, nil); err != unix.EINTR {
			break
		}
	}
	return ws.ExitStatus(), string(out)
}

func TestExecJoinsEverything(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	s := spec(root, "sleep", "1000")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	c, err := m.start(m.options(s))
	if err != nil {
		t.Fatal(err)
	}
	code, out := execIn(t, c.Container, &specs.Process{
		Args: []string{"sh", "-c", "for n in mnt net pid ipc uts cgroup time user; do [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] || echo differs $n; done; cat /proc/1/cgroup > /tmp/a; cat /proc/self/cgroup > /tmp/b; cat /tmp/a; cat /tmp/b; hostname; exit 4"},
		Cwd:  "/", Env: []string{"PATH=/bin"},
		Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_SYS_PTRACE"}, Permitted: []string{"CAP_SYS_PTRACE"}, Effective: []string{"CAP_SYS_PTRACE"}},
	})
	if code != 4 || strings.Contains(out, "differs") || !strings.HasSuffix(out, "test\n") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	if n := strings.Count(out, "pids:/\n"); n != 2 {
		t.Errorf("cgroups differ:\n%s", out)
	}
}

func TestUserNamespace(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "f"), []byte("bound\n"), 0o644)
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	filepath.Walk(root, func(p string, _ os.FileInfo, _ error) error { return os.Lchown(p, 100000, 100000) })
	score := 100
	s := spec(root, "sh", "-c", `id -u; cat /proc/self/uid_map; stat -c '%u %t:%T' /dev/null; echo x > /dev/null; cat /v/sub/f; touch /made; ulimit -n
		cat /proc/self/oom_score_adj; sleep 1000`)
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 777, Hard: 888}}
	s.Process.OOMScoreAdj = &score
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/v/sub", Source: dir, Options: []string{"bind", "ro"}})
	c, err := m.start(m.options(s))
	if err != nil {
		t.Fatal(err)
	}
	code, out := execIn(t, c.Container, &specs.Process{
		Args: []string{"sh", "-c", "id -u; readlink /proc/self/ns/user; grep CapEff /proc/self/status"}, Cwd: "/", Env: []string{"PATH=/bin"},
		Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 5000, Hard: 5000}},
		Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"}, Effective: []string{"CAP_KILL"}},
	})
	link, _ := os.Readlink("/proc/" + itoa(c.Init.PID) + "/ns/user")
	want(t, code, out, "0\n", link, "CapEff:\t0000000000000020")
	for !strings.Contains(c.out.String(), "100\n") && c.Init.alive() {
		time.Sleep(time.Millisecond)
	}
	c.KillAll()
	_, out = c.wait(t)
	want(t, 0, out, "0\n", "100000      65536", "1:3\n", "bound\n", "777\n", "100\n")
	var st unix.Stat_t
	for _, name := range []string{"made", "v"} {
		if err := unix.Stat(filepath.Join(root, name), &st); err != nil || st.Uid != 100000 {
			t.Errorf("/%s belongs to %d, %v", name, st.Uid, err)
		}
	}
}

func TestTimeNamespace(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	code, out := m.sh(root, "cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets", func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1_000_000}, "monotonic": {Secs: 500, Nanosecs: 5}}
	})
	want(t, code, out, "boottime", "1000000", "500")
	if len(strings.SplitN(out, "\n", 2)[0]) < 7 {
		t.Errorf("uptime is not shifted: %s", out)
	}
}

func TestJoinNamespacesByPath(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	c, err := m.start(m.options(spec(root, "sleep", "1000")))
	if err != nil {
		t.Fatal(err)
	}
	ns := "/proc/" + itoa(c.Init.PID) + "/ns/"
	s := spec(root, "sh", "-c", "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; hostname; ps | grep -c 'slee[p]'")
	s.Hostname = ""
	s.Linux.Namespaces = []specs.LinuxNamespace{
		{Type: specs.PIDNamespace, Path: ns + "pid"}, {Type: specs.NetworkNamespace, Path: ns + "net"},
		{Type: specs.IPCNamespace, Path: ns + "ipc"}, {Type: specs.UTSNamespace, Path: ns + "uts"}, {Type: specs.MountNamespace},
	}
	code, out := m.run(s)
	var wanted []string
	for _, n := range []string{"net", "ipc", "uts", "pid"} {
		link, _ := os.Readlink(ns + n)
		wanted = append(wanted, link)
	}
	want(t, code, out, append(wanted, "test\n", "1\n")...)

	s = spec(root, "true")
	s.Linux.Namespaces[1].Path = ns + "uts"
	if _, err := m.start(m.options(s)); err == nil || !strings.Contains(err.Error(), "linux.namespaces[1].path") {
		t.Errorf("a uts namespace as network: %v", err)
	}
	s.Linux.Namespaces[1].Path = "/no/such/ns"
	if _, err := m.start(m.options(s)); err == nil || !strings.Contains(err.Error(), "linux.namespaces[1].path") {
		t.Errorf("a missing namespace: %v", err)
	}
}

// A user namespace together with a network namespace that was made outside.
func TestUserNamespaceWithJoinedNetwork(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	c, err := m.start(m.options(spec(root, "sleep", "1000")))
	if err != nil {
		t.Fatal(err)
	}
	net := "/proc/" + itoa(c.Init.PID) + "/ns/net"
	link, _ := os.Readlink(net)
	s := spec(root, "sh", "-c", "readlink /proc/self/ns/net; id -u")
	s.Linux.Namespaces[1].Path = net
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 0, Size: 1000}}
	s.Linux.GIDMappings = s.Linux.UIDMappings
	s.Mounts = append(s.Mounts[:5:5], s.Mounts[6]) // sysfs belongs to the network namespace's owner
	code, out := m.run(s)
	want(t, code, out, link, "0\n")
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	s := spec(root, "sh", "-c", "tty; stty size; stat -c %t /dev/console; [ -t 0 ] && [ -t 2 ] && echo terminal")
	s.Process.Terminal = true
	s.Process.ConsoleSize = &specs.Box{Height: 33, Width: 77}
	c, err := Run(context.Background(), m.options(s))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete(context.Background(), true)
	out := readTerminal(c.Init.Console)
	unix.Wait4(c.Init.PID, nil, 0, nil)
	want(t, 0, out, "/dev/pts/0", "33 77", "88", "terminal")

	bg, err := m.start(m.options(spec(root, "sleep", "1000")))
	if err != nil {
		t.Fatal(err)
	}
	p, err := bg.Exec(context.Background(), ExecOptions{Process: &specs.Process{
		Terminal: true, Args: []string{"sh", "-c", "tty; ps -o tty,comm | grep -c sh"}, Cwd: "/", Env: []string{"PATH=/bin"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	out = readTerminal(p.Console)
	unix.Wait4(p.PID, nil, 0, nil)
	want(t, 0, out, "/dev/pts/0")
}

// readTerminal reads until the other side is closed.
func readTerminal(f *os.File) string {
	defer f.Close()
	var b bytes.Buffer
	io.Copy(&b, f)
	return b.String()
}

func TestPreservedAndExtraDescriptors(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	opts := m.options(spec(root, "sh", "-c", "echo one >&3; echo two >&4; ls /proc/self/fd | wc -l"))
	opts.ExtraFiles = []*os.File{w, w}
	code, out := m.runWith(opts)
	w.Close()
	want(t, code, out, "6\n") // 0-4 and that of ls
	b, _ := io.ReadAll(r)
	if string(b) != "one\ntwo\n" {
		t.Errorf("got %q", b)
	}
}

func TestExecutableErrors(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	file := func(name, content string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	file("bin/plain", "hello", 0o644)
	file("bin/crlf", "#!/bin/sh\r\necho\r\n", 0o755)
	file("bin/nointerp", "#!/usr/bin/python9\n", 0o755)
	file("bin/empty", "", 0o755)
	file("bin/text", "echo hi\n", 0o755)
	os.Mkdir(filepath.Join(root, "bin/dir"), 0o755)
	elf := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 57)...)
	elf[16], elf[18], elf[20], elf[52], elf[54] = 2, 183, 1, 64, 56
	file("bin/arm", string(elf), 0o755)
	loader := append([]byte(nil), elf...)
	loader[18], loader[32], loader[56] = 62, 64, 1
	ph := make([]byte, 56+16)
	ph[0], ph[8], ph[32] = 3, 120, 16
	copy(ph[56:], "/lib/ld-none.so\x00")
	file("bin/noloader", string(append(loader, ph...)), 0o755)
	bg, err := m.start(m.options(spec(root, "sleep", "1000")))
	if err != nil {
		t.Fatal(err)
	}
	for program, c := range map[string]struct {
		code int
		want string
	}{
		"nothere":       {127, "executable file not found in $PATH"},
		"/bin/nothere":  {127, "no such file or directory"},
		"plain":         {126, "permission denied"},
		"/bin/dir":      {126, "is a directory"},
		"/bin/crlf":     {127, "CRLF"},
		"nointerp":      {127, "/usr/bin/python9"},
		"/bin/empty":    {126, "empty"},
		"/bin/text":     {126, "exec format error"},
		"/bin/arm":      {126, "built for arm64"},
		"/bin/noloader": {127, "/lib/ld-none.so"},
	} {
		check := func(how string, err error) {
			t.Helper()
			var x *ExecError
			if !errors.As(err, &x) {
				t.Errorf("%s %s: %v", how, program, err)
				return
			}
			if x.Code != c.code || !strings.Contains(x.Error(), c.want) {
				t.Errorf("%s %s: code %d, %v", how, program, x.Code, x)
			}
		}
		_, err := m.start(m.options(spec(root, program)))
		check("run", err)
		_, err = bg.Exec(context.Background(), ExecOptions{Process: spec(root, program).Process})
		check("exec", err)
		created, err := Create(context.Background(), m.options(spec(root, program)))
		if err == nil {
			err = created.Start(context.Background())
			unix.Wait4(created.Init.PID, nil, 0, nil)
			created.Delete(context.Background(), true)
		}
		check("start", err)
	}
}

func TestExecInPausedAndStopped(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	c, err := m.start(m.options(spec(root, "sleep", "1000")))
	if err != nil {
		t.Fatal(err)
	}
	c.Pause()
	p := spec(root, "true").Process
	if _, err := c.Exec(context.Background(), ExecOptions{Process: p}); err == nil || !strings.Contains(err.Error(), "paused") {
		t.Errorf("exec in a paused container: %v", err)
	}
	c.Resume()
	c.KillAll()
	c.wait(t)
	if _, err := c.Exec(context.Background(), ExecOptions{Process: p}); err == nil || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("exec in a stopped container: %v", err)
	}
}
