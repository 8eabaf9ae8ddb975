package runtime

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// CVE-2019-5736: a container whose program is /proc/self/exe, directly or as an
// interpreter, gets at the sealed image of the init and at nothing of the host.
func TestCVE20195736RuntimeBinary(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	os.Symlink("/proc/self/exe", filepath.Join(root, "bin/self"))
	os.WriteFile(filepath.Join(root, "bin/script"), []byte("#!/proc/self/exe\n"), 0o755)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"/proc/self/exe", "/bin/self", "/bin/script"} {
		c, err := m.start(m.options(spec(root, program)))
		if err == nil {
			// The image runs once more, without its descriptors, and ends.
			c.KillAll()
		}
	}
	// The init that waits at the fence can be looked at from outside.
	s := spec(root, "sleep", "100")
	c, err := Create(context.Background(), m.options(s))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { c.Delete(context.Background(), true); unix.Wait4(c.Init.PID, nil, 0, nil) }()
	exe := "/proc/" + itoa(c.Init.PID) + "/exe"
	if link, _ := os.Readlink(exe); !strings.HasPrefix(link, "/memfd:") {
		t.Errorf("the init runs %s", link)
	}
	if f, err := os.OpenFile(exe, os.O_RDWR, 0); err == nil {
		if _, err := f.Write([]byte("x")); err == nil {
			t.Error("the image of the init can be written to")
		}
		f.Close()
	}
	image, err := os.ReadFile(exe)
	if err != nil || len(image) > 1<<18 {
		t.Errorf("the image has %d bytes, %v", len(image), err)
	}
	after, _ := os.ReadFile("/proc/self/exe")
	if string(self) != string(after) {
		t.Error("this program was changed")
	}
}

// CVE-2024-21626: no working directory leads through a descriptor.
func TestCVE202421626WorkingDirectoryThroughDescriptor(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	os.Symlink("/proc/self/fd/7", filepath.Join(root, "link"))
	running, err := m.start(m.options(spec(root, "sleep", "1000")))
	if err != nil {
		t.Fatal(err)
	}
	for n := 3; n <= 30; n++ {
		for _, cwd := range []string{"/proc/self/fd/" + itoa(n), "/proc/thread-self/fd/" + itoa(n), "/proc/1/fd/" + itoa(n)} {
			s := spec(root, "ls")
			s.Process.Cwd = cwd
			if _, err := m.start(m.options(s)); err == nil {
				t.Errorf("run: %s was accepted", cwd)
			}
			p := *s.Process
			if _, err := running.Exec(context.Background(), ExecOptions{Process: &p}); err == nil {
				t.Errorf("exec: %s was accepted", cwd)
			}
		}
	}
	s := spec(root, "ls")
	s.Process.Cwd = "/link"
	if _, err := m.start(m.options(s)); err == nil {
		t.Error("a link to a descriptor was accepted")
	}
}

// CVE-2024-21626, CVE-2016-9962: nothing of the host is among the descriptors
// of the user's process, nor of one that enters.
func TestCVE20169962NoDescriptorsOfTheHost(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	const script = "ls /proc/self/fd | sort -n | head -c 100"
	code, out := m.sh(root, script)
	want(t, code, out)
	if strings.Contains(out, "4\n") {
		t.Errorf("descriptors of run: %q", out)
	}
	c, err := m.start(m.options(spec(root, "sleep", "1000")))
	if err != nil {
		t.Fatal(err)
	}
	code, out = execIn(t, c.Container, &specs.Process{Args: []string{"sh", "-c", script}, Cwd: "/", Env: []string{"PATH=/bin"}})
	want(t, code, out)
	if strings.Contains(out, "4\n") {
		t.Errorf("descriptors of exec: %q", out)
	}
}

// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: /proc or /sys as a link in
// the image does not lead the mounts or masks astray.
func TestCVE201919921ProcIsALink(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, name := range []string{"proc", "sys"} {
		root := busyboxRoot(t)
		os.Remove(filepath.Join(root, name))
		os.Mkdir(filepath.Join(root, "elsewhere"), 0o755)
		os.Symlink("/elsewhere", filepath.Join(root, name))
		if _, err := m.start(m.options(spec(root, "true"))); err == nil {
			t.Errorf("/%s as a link was accepted", name)
		} else if !strings.Contains(err.Error(), "/"+name) {
			t.Errorf("/%s: %v", name, err)
		}
	}
}

// CVE-2019-16884, CVE-2019-19921: a volume on /proc does not disable the masks:
// only a procfs can be mounted there.
func TestCVE201916884VolumeOnProc(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	dir := t.TempDir()
	for _, dest := range []string{"/proc", "/proc/self", "/proc/sys/kernel", "/proc/self/attr", "/elsewhere/../proc/self"} {
		s := spec(root, "true")
		s.Mounts = append(s.Mounts, specs.Mount{Destination: dest, Source: dir, Options: []string{"bind"}})
		if _, err := m.start(m.options(s)); err == nil {
			t.Errorf("a volume on %s was accepted", dest)
		}
	}
	// Through a link in the image as well.
	os.Symlink("/proc/self", filepath.Join(root, "sneaky"))
	s := spec(root, "true")
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sneaky/attr", Source: dir, Options: []string{"bind"}})
	if _, err := m.start(m.options(s)); err == nil {
		t.Error("a volume on a link into /proc was accepted")
	}
}

// CVE-2025-31133: a /dev/null that is not the null device hides nothing.
func TestCVE202531133FalseNullDevice(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	os.Remove(filepath.Join(root, "dev/null"))
	os.Symlink("/proc/sysrq-trigger", filepath.Join(root, "dev/null"))
	// A /dev that somebody else filled.
	s := spec(root, "sh", "-c", "stat -c %t:%T /proc/keys; cat /proc/keys")
	s.Mounts = append(s.Mounts[:1:1], s.Mounts[5], s.Mounts[6])
	code, out := m.run(s)
	want(t, code, out, "1:3\n")
	s = spec(root, "true")
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/dev/null", Source: "/etc/hostname", Options: []string{"bind"}})
	if _, err := m.start(m.options(s)); err == nil {
		t.Error("a file in place of /dev/null was used as a mask")
	}
}

// CVE-2025-31133: masked paths hide their content, and stay read-only.
func TestCVE202531133MaskedPaths(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	os.MkdirAll(filepath.Join(root, "secret/dir"), 0o755)
	os.WriteFile(filepath.Join(root, "secret/dir/f"), []byte("secret"), 0o644)
	os.WriteFile(filepath.Join(root, "secret/f"), []byte("secret"), 0o644)
	os.Symlink("secret/f", filepath.Join(root, "link"))
	code, out := m.sh(root, "ls /secret/dir | wc -l; cat /secret/f /link; touch /secret/dir/x 2>/dev/null || echo ro; echo x > /proc/sys/kernel/domainname 2>/dev/null || echo ro2", func(s *specs.Spec) {
		s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/secret/dir", "/link", "/not/there")
	})
	want(t, code, out, "0\n", "ro\n", "ro2\n")
	if strings.Contains(out, "secret") {
		t.Error("the content is visible")
	}
}

// CVE-2025-52565: a terminal is made without opening any path but the
// multiplexer's, and /dev/console is never followed.
func TestCVE202552565Console(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	canary := filepath.Join(t.TempDir(), "canary")
	os.WriteFile(canary, []byte("untouched"), 0o644)
	// Without a file system of its own at /dev, what the image has counts.
	os.Symlink("/proc/sysrq-trigger", filepath.Join(root, "dev/console"))
	s := spec(root, "true")
	s.Mounts = append(s.Mounts[:1:1], s.Mounts[2], s.Mounts[5])
	s.Process.Terminal = true
	if _, err := m.start(m.options(s)); err == nil {
		t.Error("a console that links into /proc was accepted")
	}
	// A multiplexer that is none.
	root = busyboxRoot(t)
	os.MkdirAll(filepath.Join(root, "dev/pts"), 0o755)
	os.WriteFile(filepath.Join(root, "dev/pts/ptmx"), nil, 0o644)
	s = spec(root, "true")
	s.Mounts = append(s.Mounts[:1:1], s.Mounts[5])
	s.Process.Terminal = true
	if _, err := m.start(m.options(s)); err == nil {
		t.Error("a file was taken for a terminal")
	}
}

// CVE-2026-41579, CVE-2026-47766: /dev as a link out of the root.
func TestCVE202641579DevIsALink(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	host := t.TempDir()
	os.Remove(filepath.Join(root, "dev"))
	os.Symlink(strings.Repeat("../", 20)+strings.TrimPrefix(host, "/"), filepath.Join(root, "dev"))
	s := spec(root, "true")
	for _, mounts := range [][]specs.Mount{s.Mounts, append(s.Mounts[:1:1], s.Mounts[5])} {
		s := spec(root, "true")
		s.Mounts = mounts
		if c, err := m.start(m.options(s)); err == nil {
			c.wait(t)
		}
		if l, _ := os.ReadDir(host); len(l) != 0 {
			t.Fatalf("the host's directory got %v", l)
		}
	}
}

// CVE-2022-24769, CVE-2022-29162: nothing is inheritable, neither in run nor in
// exec with further capabilities.
func TestCVE202229162InheritableIsEmpty(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	c, err := m.start(m.options(spec(root, "sh", "-c", "grep CapInh /proc/self/status; sleep 1000")))
	if err != nil {
		t.Fatal(err)
	}
	caps := []string{"CAP_SYS_PTRACE", "CAP_NET_ADMIN"}
	_, out := execIn(t, c.Container, &specs.Process{
		Args: []string{"grep", "Cap", "/proc/self/status"}, Cwd: "/", Env: []string{"PATH=/bin"},
		Capabilities: &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps},
	})
	if !strings.Contains(out, "CapInh:\t0000000000000000") || !strings.Contains(out, "CapEff:\t0000000000081000") {
		t.Errorf("exec: %s", out)
	}
	for c.out.String() == "" && c.Init.alive() {
		time.Sleep(time.Millisecond)
	}
	c.KillAll()
	if _, out := c.wait(t); !strings.Contains(out, "CapInh:\t0000000000000000") {
		t.Errorf("run: %s", out)
	}
}

// CVE-2026-30892, CVE-2022-36109: exec runs as the user that was asked for, with
// the supplementary groups that were given and no others.
func TestCVE202630892ExecAsUser(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	c, err := m.start(m.options(spec(root, "sleep", "1000")))
	if err != nil {
		t.Fatal(err)
	}
	p := &specs.Process{Args: []string{"sh", "-c", "id -u; id -g; id -G"}, Cwd: "/", Env: []string{"PATH=/bin"}, User: specs.User{UID: 1}}
	if _, out := execIn(t, c.Container, p); out != "1\n0\n0\n" {
		t.Errorf("exec as 1: %q", out)
	}
	p.User = specs.User{UID: 1, GID: 2, AdditionalGids: []uint32{3}}
	if _, out := execIn(t, c.Container, p); out != "1\n2\n2 3\n" {
		t.Errorf("exec as 1:2+3: %q", out)
	}
}

// CVE-2023-25809: the cgroup file system is read-only.
func TestCVE202325809CgroupReadOnly(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	code, out := m.sh(root, `for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/x 2>/dev/null && echo made $d; done
		cat /proc/self/cgroup | grep memory; ls /sys/fs/cgroup/memory/release_agent 2>/dev/null; echo end`)
	want(t, code, out, "memory:/\n", "end\n")
	if strings.Contains(out, "made") {
		t.Error("a cgroup could be made")
	}
}

// CVE-2024-45310: making a mount point never creates anything on the host, even
// while somebody exchanges a component of its path for a link.
func TestCVE202445310RacedMountPoint(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	host, shared := t.TempDir(), t.TempDir()
	os.MkdirAll(filepath.Join(shared, "a"), 0o755)
	up := strings.Repeat("../", 20) + strings.TrimPrefix(host, "/")
	os.Symlink(up, filepath.Join(shared, "b"))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, shared+"/a", unix.AT_FDCWD, shared+"/b", unix.RENAME_EXCHANGE)
			}
		}
	}()
	// A bounded slice of the 500 tries that the advisory's exploit wants; the
	// resolution is atomic, so more tries only take longer.
	for end, i := time.Now().Add(2*time.Second), 0; i < 150 && time.Now().Before(end); i++ {
		s := spec(root, "true")
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/shared", Source: shared, Options: []string{"bind"}},
			specs.Mount{Destination: "/shared/a/new" + itoa(i) + "/deep", Type: "tmpfs", Source: "tmpfs"},
		)
		if c, err := m.start(m.options(s)); err == nil {
			c.wait(t)
		}
	}
	close(stop)
	<-stopped
	if l, _ := os.ReadDir(host); len(l) != 0 {
		t.Errorf("the host's directory got %v", l)
	}
}

// CVE-2021-30465: while a volume's mount target is exchanged for a link to /,
// nothing is ever mounted over the host or over the wrong place.
func TestCVE202130465RacedMountTarget(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	shared := t.TempDir()
	os.MkdirAll(filepath.Join(shared, "a"), 0o755)
	os.Symlink("/", filepath.Join(shared, "b"))
	before, _ := os.ReadFile("/proc/self/mountinfo")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, shared+"/a", unix.AT_FDCWD, shared+"/b", unix.RENAME_EXCHANGE)
			}
		}
	}()
	for end, i := time.Now().Add(2*time.Second), 0; i < 150 && time.Now().Before(end); i++ {
		s := spec(root, "sh", "-c", "ls /boot /home 2>/dev/null; ls -d /usr/share 2>/dev/null; echo ok")
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/shared", Source: shared, Options: []string{"bind"}},
			specs.Mount{Destination: "/shared/a", Source: t.TempDir(), Options: []string{"bind"}},
		)
		c, err := m.start(m.options(s))
		if err != nil {
			continue
		}
		if _, out := c.wait(t); out != "ok\n" && out != "" {
			t.Fatalf("the container sees the host: %q", out)
		}
	}
	close(stop)
	<-stopped
	after, _ := os.ReadFile("/proc/self/mountinfo")
	if n, m := strings.Count(string(before), shared), strings.Count(string(after), shared); n != m {
		t.Errorf("%d mounts of the volume on the host became %d", n, m)
	}
}

// CVE-2025-52881: what is written below /proc reaches procfs and the file that
// was meant, whatever is mounted there.
func TestCVE202552881WritesHitProcfs(t *testing.T) {
	t.Parallel()
	var r resources
	defer r.close()
	proc, err := r.openProc()
	if err != nil {
		t.Fatal(err)
	}
	if err := writeProcFile(proc, os.Getpid(), "../../etc/hostname", "x"); err == nil {
		t.Error("a path out of procfs was written to")
	}
	if err := writeProcFile(proc, os.Getpid(), "cwd/x", "x"); err == nil || errors.Is(err, unix.ENOENT) {
		t.Errorf("a magic link was followed: %v", err)
	}
	root := busyboxRoot(t)
	m := newMachine(t)
	// The image brings its own idea of a sysctl directory: the init does not
	// look there.
	os.MkdirAll(filepath.Join(root, "proc/sys/net/ipv4"), 0o755)
	decoy := filepath.Join(root, "proc/sys/net/ipv4/ip_unprivileged_port_start")
	os.WriteFile(decoy, nil, 0o666)
	code, out := m.sh(root, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", func(s *specs.Spec) {
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "99"}
	})
	want(t, code, out, "99\n")
	if b, _ := os.ReadFile(decoy); len(b) != 0 {
		t.Error("the decoy was written to")
	}
}

// CVE-2024-40635: ids beyond what the kernel has are refused.
func TestCVE202440635IDsDoNotWrap(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	s := spec(root, "id", "-u")
	s.Process.User.UID = 1<<32 - 1
	if _, err := m.start(m.options(s)); err == nil || !strings.Contains(err.Error(), "process.user.uid") {
		t.Errorf("uid -1: %v", err)
	}
	s = spec(root, "id", "-u")
	s.Process.User.UID = 1<<31 + 5
	code, out := m.run(s)
	want(t, code, out, "2147483653\n")
}

// CVE-2026-47262: a giant user database costs bounded time and memory.
func TestCVE202647262GiantPasswd(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	f, err := os.Create(filepath.Join(root, "etc/passwd"))
	if err != nil {
		t.Fatal(err)
	}
	f.Truncate(1 << 40)
	f.Close()
	code, out := m.sh(root, "echo $HOME")
	want(t, code, out, "/\n")
	os.Remove(filepath.Join(root, "etc/passwd"))
	unix.Mkfifo(filepath.Join(root, "etc/passwd"), 0o644)
	code, out = m.sh(root, "echo $HOME")
	want(t, code, out, "/\n")
}

// CVE-2022-0492: release_agent can't be reached, also not from new namespaces.
func TestCVE20220492ReleaseAgent(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	os.Symlink("busybox", filepath.Join(root, "bin/unshare"))
	m := newMachine(t)
	code, out := m.sh(root, `find=$(ls -d /sys/fs/cgroup/*/release_agent 2>/dev/null); for f in $find; do echo x > $f && echo WROTE; done
		unshare -U -r -m sh -c 'mkdir /tmp/c; mount -t cgroup -o memory c /tmp/c && echo x > /tmp/c/release_agent && echo WROTE' 2>/dev/null
		echo end`)
	want(t, code, out, "end\n")
	if strings.Contains(out, "WROTE") {
		t.Error("release_agent was written to")
	}
}
