package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/engine/images"
	"berth/internal/monitor"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// TestMain makes the test program the monitor's program, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "monitor" {
		os.Exit(monitor.Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// newReal returns an engine with the real monitor and a busybox image.
func newReal(t testing.TB) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it runs containers")
	}
	busybox := ""
	for _, p := range []string{"/bin/busybox", "/usr/bin/busybox"} {
		if exists(p) {
			busybox = p
		}
	}
	if busybox == "" {
		t.Skip("needs busybox-static: it is the image")
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	b := &bench{t: t, cfg: Config{Root: filepath.Join(dir, "root"), RunDir: filepath.Join(dir, "run"), RuntimeBinary: binary}}
	b.cfg.Network.PoolSize = 2
	b.open()
	t.Cleanup(func() {
		if b.Engine == nil {
			b.open()
		}
		for _, c := range b.containers.All() {
			if err := b.ContainerRemove(context.Background(), c.ID, RemoveOptions{Force: true, Volumes: true}); err != nil {
				t.Error(err)
			}
		}
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	err = b.ImageImport(t.Context(), images.ImportOptions{Ref: "image", Changes: []string{`CMD ["true"]`}}, busyboxTar(t, busybox), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// busyboxTar is the archive of a root file system made of one program.
func busyboxTar(t testing.TB, busybox string) io.Reader {
	t.Helper()
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(h tar.Header, body []byte) {
		h.Size = int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	put(tar.Header{Name: "bin/busybox", Mode: 0o755, Typeflag: tar.TypeReg}, program)
	for _, a := range []string{"sh", "true", "false", "sleep", "cat", "id", "echo", "test", "ls", "httpd", "kill", "hostname"} {
		put(tar.Header{Name: "bin/" + a, Linkname: "busybox", Typeflag: tar.TypeSymlink}, nil)
	}
	put(tar.Header{Name: "etc/passwd", Mode: 0o644, Typeflag: tar.TypeReg}, []byte("root:x:0:0::/root:/bin/sh\nwww:x:33:33::/srv:/bin/sh\n"))
	put(tar.Header{Name: "etc/group", Mode: 0o644, Typeflag: tar.TypeReg}, []byte("root:x:0:\nweb:x:44:www\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// shell makes a container that runs a script.
func shell(script string) func(*container.CreateRequest) {
	return func(r *container.CreateRequest) { r.Config.Cmd = []string{"sh", "-c", script} }
}

// run runs a container to its end and returns its exit code and output.
func (b *bench) run(name string, change func(*container.CreateRequest)) (int64, string) {
	b.t.Helper()
	id := b.create(name, change)
	wait := b.wait(id, "next-exit")
	b.start(id)
	r := wait()
	return r.StatusCode, b.output(id)
}

func (b *bench) output(id string) string {
	b.t.Helper()
	var out bytes.Buffer
	if err := b.ContainerLogs(b.t.Context(), id, LogsOptions{Stdout: true, Stderr: true}, &out, &out); err != nil {
		b.t.Fatal(err)
	}
	return out.String()
}

// dial returns a connected pair of sockets: one for the engine, one for the test.
func dial(t testing.TB) (theirs *os.File, ours net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	near := os.NewFile(uintptr(fds[1]), "near")
	defer near.Close()
	if ours, err = net.FileConn(near); err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fds[0]), "far"), ours
}

// leftovers lists what containers may leave on the host: mounts, cgroups, and
// files of the engine's.
func leftovers(t *testing.T, b *bench) string {
	t.Helper()
	var out []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, b.cfg.RunDir) || strings.Contains(line, b.cfg.Root) {
			out = append(out, "mount "+line)
		}
	}
	for _, dir := range []string{
		filepath.Join(b.cfg.Root, "containers"), filepath.Join(b.cfg.Root, "volumes"), filepath.Join(b.cfg.RunDir, "netns"),
		filepath.Join(b.cfg.RunDir, "network"), filepath.Join(b.cfg.RunDir, "monitor", "containers"), filepath.Join(b.cfg.RunDir, "shm"),
	} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name()[0] != '.' { // what the network keeps ready
				out = append(out, filepath.Join(dir, e.Name()))
			}
		}
	}
	return strings.Join(out, "\n")
}
