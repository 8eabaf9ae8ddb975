package runtime

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/fault"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func with(mounts ...specs.Mount) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Mounts = append(s.Mounts, mounts...) }
}

func TestBindMounts(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "file"), []byte("content\n"), 0o644)
	code, out := m.sh(root, `cat /data/deep/file /etc/one; echo x > /data/deep/new; echo x > /ro/new 2>/dev/null || echo ro
		mount | grep -E ' (/data/deep|/ro|/etc/one) '`, with(
		specs.Mount{Destination: "/data/deep", Type: "bind", Source: dir, Options: []string{"rbind", "rprivate", "nosuid"}},
		specs.Mount{Destination: "/ro", Source: dir, Options: []string{"bind", "ro"}},
		specs.Mount{Destination: "/etc/one", Type: "bind", Source: filepath.Join(dir, "file"), Options: []string{"bind"}},
	))
	want(t, code, out, "content\ncontent\n", "ro\n", "/data/deep", "nosuid")
	if b, _ := os.ReadFile(filepath.Join(dir, "new")); string(b) != "x\n" {
		t.Errorf("the host sees %q", b)
	}
}

func TestRecursiveReadOnlyBind(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	dir := t.TempDir()
	sub := filepath.Join(dir, "sub")
	os.Mkdir(sub, 0o755)
	if err := unix.Mount("tmpfs", sub, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(sub, unix.MNT_DETACH) })
	script := "touch /v/x 2>/dev/null || echo top; touch /v/sub/x 2>/dev/null || echo below"
	code, out := m.sh(root, script, with(specs.Mount{Destination: "/v", Source: dir, Options: []string{"rbind", "ro"}}))
	want(t, code, out, "top\n")
	if strings.Contains(out, "below") {
		t.Error("ro reaches mounts below")
	}
	code, out = m.sh(root, script, with(specs.Mount{Destination: "/v", Source: dir, Options: []string{"rbind", "rro"}}))
	want(t, code, out, "top\nbelow\n")
}

func TestIDMappedBind(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "f"), nil, 0o644)
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 5000, Size: 1000}}
	code, out := m.sh(root, "stat -c %u:%g /v/f", with(specs.Mount{
		Destination: "/v", Source: dir, Options: []string{"bind", "idmap"}, UIDMappings: ids, GIDMappings: ids,
	}))
	want(t, code, out, "5000:5000\n")
}

func TestTmpfsWithCopyUp(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	os.MkdirAll(filepath.Join(root, "var/lib/x"), 0o750)
	os.WriteFile(filepath.Join(root, "var/lib/x/f"), []byte("copied\n"), 0o640)
	os.Chown(filepath.Join(root, "var/lib/x/f"), 7, 8)
	os.Symlink("x/f", filepath.Join(root, "var/lib/link"))
	code, out := m.sh(root, "cat /var/lib/link; stat -c '%a %u:%g' /var/lib/x/f /var/lib/x; echo y > /var/lib/x/g", with(
		specs.Mount{Destination: "/var/lib", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "size=1m"}}))
	want(t, code, out, "copied\n", "640 7:8\n", "750 0:0\n")
	if _, err := os.Stat(filepath.Join(root, "var/lib/x/g")); err == nil {
		t.Error("the write reached the image")
	}
}

// Layers whose paths are longer than the kernel takes for a value, and have
// everything in them that options are separated and escaped with.
func TestOverlayOfLayersOneByOne(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	dir := t.TempDir()
	layer := func(name, file string) string {
		p := filepath.Join(dir, strings.Repeat("d", 200), `a,b:c\d=e`+name, strings.Repeat("e", 100))
		if err := os.MkdirAll(p, 0o755); err != nil {
			t.Fatal(err)
		}
		if file != "" {
			os.WriteFile(filepath.Join(p, file), []byte(name+"\n"), 0o644)
		}
		return p
	}
	lower := []string{"lowerdir+=" + layer("top", "f"), "lowerdir+=" + layer("below", "g")}
	upper := layer("upper", "")
	code, out := m.sh(root, "cat /v/f /v/g; touch /v/x || echo fixed; echo y > /w/new; cat /w/f; touch /w/n/x 2>/dev/null; cat /one/f", with(
		specs.Mount{Destination: "/v", Type: "overlay", Source: "overlay", Options: append([]string{"ro"}, lower...)},
		specs.Mount{Destination: "/w", Type: "overlay", Source: "overlay", Options: append([]string{"rw", "upperdir=" + upper, "workdir=" + layer("work", "")}, lower...)},
		specs.Mount{Destination: "/one", Type: "overlay", Options: lower[:1]}))
	want(t, code, out, "top\nbelow\n", "fixed\n", "top\n")
	if data, err := os.ReadFile(filepath.Join(upper, "new")); err != nil || string(data) != "y\n" {
		t.Errorf("what was written: %q, %v", data, err)
	}
}

// A mount point below an absolute link, existing or dangling, is made where
// the link leads inside of the root.
func TestMountPointBelowLinks(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	os.MkdirAll(filepath.Join(root, "var"), 0o755)
	os.Symlink("/run", filepath.Join(root, "var/run"))
	os.Symlink("/../../../../escape", filepath.Join(root, "up"))
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "f"), []byte("here\n"), 0o644)
	code, out := m.sh(root, "cat /run/app/f /escape/sub/f", with(
		specs.Mount{Destination: "/var/run/app", Source: dir, Options: []string{"bind"}},
		specs.Mount{Destination: "/up/sub", Source: dir, Options: []string{"bind"}},
	))
	want(t, code, out, "here\nhere\n")
	if _, err := os.Stat("/escape"); err == nil {
		t.Error("a directory was made on the host")
	}
}

func TestReadOnlyRootAndPropagation(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	for _, p := range []string{"", "private", "rslave", "rshared", "unbindable"} {
		code, out := m.sh(root, "touch /x 2>/dev/null || echo ro; grep ' / / ' /proc/self/mountinfo || head -1 /proc/self/mountinfo", func(s *specs.Spec) {
			s.Root.Readonly = true
			s.Linux.RootfsPropagation = p
		})
		want(t, code, out, "ro\n")
		if p == "rshared" && !strings.Contains(out, "shared:") {
			t.Errorf("rshared: %s", out)
		}
	}
}

func TestNoPivot(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	opts := m.options(spec(root, "ls", "/"))
	opts.NoPivot = true
	code, out := m.runWith(opts)
	want(t, code, out, "bin\n")
	if strings.Contains(out, "boot") {
		t.Error("the host's root is visible")
	}
}

func TestWorkingDirectory(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	// It is made if it is missing, and may be closed to all but the user.
	code, out := m.sh(root, "pwd", func(s *specs.Spec) { s.Process.Cwd = "/made/on/demand" })
	want(t, code, out, "/made/on/demand\n")
	closed := filepath.Join(root, "closed")
	os.Mkdir(closed, 0o700)
	os.Chown(closed, 1000, 1000)
	code, out = m.sh(root, "pwd", func(s *specs.Spec) { s.Process.Cwd, s.Process.User.UID = "/closed", 1000 })
	want(t, code, out, "/closed\n")
}

func TestMountErrorsNameTheField(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	os.WriteFile(filepath.Join(root, "file"), nil, 0o644)
	for name, c := range map[string]struct {
		mount specs.Mount
		want  string
	}{
		"missing source": {specs.Mount{Destination: "/x", Source: "/does/not/exist", Options: []string{"bind"}}, "mounts[7].source"},
		"no file system": {specs.Mount{Destination: "/x", Type: "nofs"}, "mounts[7] (/x)"},
		"bad option":     {specs.Mount{Destination: "/x", Type: "tmpfs", Options: []string{"size=banana"}}, "mounts[7] (/x)"},
		"dir on file":    {specs.Mount{Destination: "/file", Source: "/tmp", Options: []string{"bind"}}, "mounts[7] (/file)"},
		"bind option":    {specs.Mount{Destination: "/x", Source: "/tmp", Options: []string{"bind", "what=ever"}}, "mounts[7].options"},
	} {
		s := spec(root, "true")
		s.Mounts = append(s.Mounts, c.mount)
		_, err := m.start(m.options(s))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		var f *fault.Error
		if !errors.As(err, &f) {
			t.Errorf("%s: no fault: %v", name, err)
		}
	}
	if l, _ := os.ReadDir(m.root); len(l) != 0 {
		t.Errorf("failed creations left %v", l)
	}
}

func TestFailedCreationLeavesNoCgroup(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	s := spec(root, "/no/such/program")
	opts := m.options(s)
	if _, err := Run(context.Background(), opts); err == nil {
		t.Fatal("it ran")
	}
	for _, dir := range []string{"memory", "pids", "devices", "unified"} {
		if _, err := os.Stat("/sys/fs/cgroup/" + dir + s.Linux.CgroupsPath); err == nil {
			t.Errorf("%s%s is left", dir, s.Linux.CgroupsPath)
		}
	}
}
