package runtime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/runtime/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// partOf is a bind mount of what is at a path below a directory.
func partOf(source, subdir string, options ...string) func(*specs.Spec) {
	return with(specs.Mount{Destination: "/v", Type: "bind", Source: source, Options: append([]string{"rbind", plan.SubdirOption + subdir}, options...)})
}

func TestPartsOfABind(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	dir := t.TempDir()
	os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755)
	os.WriteFile(filepath.Join(dir, "a", "b", "file"), []byte("deep\n"), 0o644)
	os.WriteFile(filepath.Join(dir, "top"), []byte("top\n"), 0o644)
	os.Symlink("/a", filepath.Join(dir, "link"))
	code, out := m.sh(root, "cat /v/file; echo x >/v/new; ls /v", partOf(dir, "a/b"))
	want(t, code, out, "deep\n", "new\n")
	code, out = m.sh(root, "cat /v/b/file; touch /v/no 2>/dev/null || echo ro", partOf(dir, "link", "rro"))
	want(t, code, out, "deep\n", "ro\n")
	code, out = m.sh(root, "cat /f", with(specs.Mount{Destination: "/f", Source: dir, Options: []string{"bind", plan.SubdirOption + "a/b/file"}}))
	want(t, code, out, "deep\n")
	lower := []string{"lowerdir+=" + dir, "lowerdir+=" + t.TempDir()}
	for n := range lower {
		code, out = m.sh(root, "cat /v/file; touch /v/no 2>/dev/null || echo ro", with(specs.Mount{
			Destination: "/v", Type: "overlay", Source: "overlay", Options: append([]string{"ro", plan.SubdirOption + "link/b"}, lower[:n+1]...),
		}))
		want(t, code, out, "deep\n", "ro\n")
	}
	for name, mount := range map[string]specs.Mount{
		"cannot access path no":                    {Destination: "/v", Source: dir, Options: []string{"bind", plan.SubdirOption + "no"}},
		"cannot access path top/x":                 {Destination: "/v", Source: dir, Options: []string{"bind", plan.SubdirOption + "top/x"}},
		"only bind mounts and overlays can be":     {Destination: "/v", Type: "tmpfs", Options: []string{plan.SubdirOption + "x"}},
		filepath.Join(dir, "top") + ": not a dire": {Destination: "/v", Source: filepath.Join(dir, "top"), Options: []string{"bind", plan.SubdirOption + "x"}},
	} {
		s := spec(root, "true")
		s.Mounts = append(s.Mounts, mount)
		if _, err := m.start(m.options(s)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
}

// CVE-2017-1002101: a link in a volume leads a subpath out of it.
func TestCVE20171002101SubpathIsALink(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	outside, dir := t.TempDir(), t.TempDir()
	os.WriteFile(filepath.Join(outside, "canary"), []byte("host\n"), 0o644)
	os.Symlink(outside, filepath.Join(dir, "absolute"))
	os.Symlink("../../../../../../../../"+outside, filepath.Join(dir, "relative"))
	os.Symlink("/proc/self/root"+outside, filepath.Join(dir, "magic"))
	for _, sub := range []string{"absolute", "relative", "magic", "../" + filepath.Base(outside), "absolute/../canary"} {
		s := spec(root, "ls", "/v")
		partOf(dir, sub)(s)
		if _, err := m.start(m.options(s)); err == nil || !strings.Contains(err.Error(), "cannot access path") {
			t.Errorf("%s: %v", sub, err)
		}
	}
}

// CVE-2021-25741: what a subpath names is swapped for a link while it is mounted.
func TestCVE202125741SubpathIsSwapped(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	outside, dir := t.TempDir(), t.TempDir()
	canary := filepath.Join(outside, "canary")
	os.WriteFile(canary, []byte("host\n"), 0o644)
	sub, other := filepath.Join(dir, "sub"), filepath.Join(dir, "other")
	os.Mkdir(sub, 0o755)
	os.WriteFile(filepath.Join(sub, "inside"), nil, 0o644)
	os.Symlink(outside, other)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, sub, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	inside := 0
	for range 60 {
		s := spec(root, "sh", "-c", "ls /v; rm -f /v/canary")
		partOf(dir, "sub")(s)
		got, err := m.start(m.options(s))
		if err != nil {
			if !strings.Contains(err.Error(), "cannot access path") {
				t.Fatal(err)
			}
			continue
		}
		code, out := got.wait(t)
		if code != 0 || out != "inside\n" {
			t.Fatalf("the container saw %q (%d)", out, code)
		}
		inside++
	}
	if b, err := os.ReadFile(canary); err != nil || string(b) != "host\n" {
		t.Fatalf("the host's file: %q, %v", b, err)
	}
	t.Logf("%d of 60 were mounted", inside)
}
