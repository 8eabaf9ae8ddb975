package quota

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"berth/internal/fault"

	"golang.org/x/sys/unix"
)

// enforcingDir returns a directory on a file system with project quotas, for one test.
func enforcingDir(t *testing.T) string {
	t.Helper()
	root := os.Getenv("BERTH_QUOTA_DIR")
	if root == "" {
		t.Skip("BERTH_QUOTA_DIR names no file system with project quotas: make test-vm does")
	}
	dir, err := os.MkdirTemp(root, "quota")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func makeDirs(t *testing.T, names ...string) {
	t.Helper()
	for _, n := range names {
		if err := os.MkdirAll(n, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func idOf(t *testing.T, path string) uint32 {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	id, err := projectOf(fd)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// write fills a file as a container's process would.
func write(path string, size int) error { return Obey(func() error { return fill(path, size) }) }

// fill writes in small pieces, so that a limit is reached to the brim.
func fill(path string, size int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for piece := make([]byte, 4096); size > 0 && err == nil; size -= len(piece) {
		_, err = f.Write(piece)
	}
	return err
}

func isFull(err error) bool { return errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.ENOSPC) }

func TestSet(t *testing.T) {
	dir := enforcingDir(t)
	a, b := dir+"/a", dir+"/b"
	// What came with a copy of the directory counts, too.
	makeDirs(t, a, b+"/below")
	if err := write(b+"/below/old", 512<<10); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", b+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := Set(1<<20, 0, a, b); err != nil {
		t.Fatal(err)
	}
	defer Release(a)
	if err := write(a+"/new", 600<<10); !isFull(err) {
		t.Errorf("600 KiB beside 512 KiB below a limit of 1 MiB: %v", err)
	}
	if err := write(dir+"/beside", 2<<20); err != nil {
		t.Errorf("outside of the bounded directories: %v", err)
	}
	if err := Set(1<<20, 512<<10, a, b); err != nil {
		t.Fatal(err)
	}
	if err := write(b+"/room", 256<<10); err != nil {
		t.Errorf("with room beyond the limit: %v", err)
	}
	if err := Set(1<<20, 0, a, b); err != nil {
		t.Fatal(err)
	}
	if err := write(b+"/more", 128<<10); !isFull(err) {
		t.Errorf("when that is over: %v", err)
	}
	if err := Set(4<<20, 0, a, b); err != nil {
		t.Fatal(err)
	}
	if err := write(b+"/below/new", 2<<20); err != nil {
		t.Errorf("2 MiB below a limit of 4 MiB: %v", err)
	}
	if err := Release(a); err != nil {
		t.Fatal(err)
	}
	if err := write(a+"/new", 6<<20); err != nil {
		t.Errorf("6 MiB without a limit: %v", err)
	}
}

func TestClaim(t *testing.T) {
	dir := enforcingDir(t)
	const many = 20
	names := make([]string, many)
	for i := range names {
		names[i] = filepath.Join(dir, fmt.Sprint(i))
	}
	makeDirs(t, names...)
	var wait sync.WaitGroup
	for _, n := range names {
		wait.Go(func() {
			if err := Set(1<<20, 0, n); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	seen := map[uint32]bool{}
	for _, n := range names {
		id := idOf(t, n)
		if !ours(id) || seen[id] {
			t.Errorf("%s has the project %d", n, id)
		}
		seen[id] = true
	}
	// What others have is never taken, be it what was free a moment ago.
	first := idOf(t, names[0])
	for _, n := range names {
		first = min(first, idOf(t, n))
	}
	for _, n := range names {
		if err := errors.Join(Release(n), os.RemoveAll(n)); err != nil {
			t.Fatal(err)
		}
	}
	foreign, again := dir+"/foreign", dir+"/again"
	makeDirs(t, foreign, again)
	fd, err := openDir(foreign)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := setProject(fd, first); err != nil {
		t.Fatal(err)
	}
	if err := Set(1<<20, 0, again); err != nil {
		t.Fatal(err)
	}
	defer Release(again)
	if id := idOf(t, again); !ours(id) || id <= first {
		t.Errorf("%d is taken, and the project is %d", first, id)
	}
	// Nobody's limit but one from here is changed.
	if err := setProject(fd, 1234); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(limit(fd, 1234, 2048), Release(foreign)); err != nil {
		t.Fatal(err)
	}
	if u, err := read(fd, 1234); err != nil || u.hardBlocks != 2048 {
		t.Errorf("a limit of somebody else's: %+v, %v", u, err)
	}
	if err := limit(fd, 1234, 0); err != nil {
		t.Fatal(err)
	}
}

// TestNobodyLeaves runs inside a bounded container: it must not be able to take its
// files out of the project that is counted.
func TestNobodyLeaves(t *testing.T) {
	dir := os.Getenv("BERTH_QUOTA_INSIDE")
	if dir == "" {
		t.Skip("BERTH_QUOTA_INSIDE names no directory of a bounded container: make test-vm does")
	}
	path := dir + "/mine"
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var a attributes
	flags := 0
	for _, upper := range []uintptr{0, 1 << 32} {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), upper|setXattr, uintptr(unsafe.Pointer(&a)))
		if errno != unix.EPERM {
			t.Errorf("another project: %v", errno)
		}
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), upper|unix.FS_IOC_SETFLAGS, uintptr(unsafe.Pointer(&flags)))
		if errno != unix.EPERM {
			t.Errorf("another project for what is made in a directory: %v", errno)
		}
	}
}

// TestNothingIsLeft is for after everything bounded was removed.
func TestNothingIsLeft(t *testing.T) {
	fd, err := openDir(enforcingDir(t))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for id := uint32(firstID); id < firstID+1000; id++ {
		u, err := read(fd, id)
		for range 300 { // XFS frees what was removed by and by
			if err != nil || !u.inUse() {
				break
			}
			time.Sleep(100 * time.Millisecond)
			u, err = read(fd, id)
		}
		if err != nil || u.inUse() {
			t.Fatalf("project %d: %+v, %v", id, u, err)
		}
	}
}

func TestWhyNot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	xfsQuota := "no project quotas in this kernel" // CONFIG_XFS_QUOTA is not set
	if config, err := exec.Command("sh", "-c", "zcat /proc/config.gz || cat /boot/config-$(uname -r)").Output(); err == nil &&
		strings.Contains(string(config), "CONFIG_XFS_QUOTA=y") {
		xfsQuota = "not switched on"
	}
	for _, c := range []struct {
		name, mkfs, say, hint string
	}{
		{"tmpfs", "", "(tmpfs) has no project quotas", "ext4 that is made with -O project,quota"},
		{"ext4", "mkfs.ext4 -q -O ^project,^quota", "cannot give files a project", "tune2fs -O project,quota"},
		{"ext4 with projects", "mkfs.ext4 -q -O project", "not switched on", "prjquota"},
		{"xfs", "mkfs.xfs -q -f", xfsQuota, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := mounted(t, c.mkfs)
			makeDirs(t, dir+"/a")
			for what, err := range map[string]error{"Possible": Possible(dir), "Set": Set(1<<20, 0, dir+"/a")} {
				if !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), c.say) || !strings.Contains(err.Error(), c.hint) {
					t.Errorf("%s: %v; it does not say %q and advise %q", what, err, c.say, c.hint)
				}
			}
			if err := Release(dir + "/a"); err != nil {
				t.Errorf("Release: %v", err)
			}
		})
	}
}

// mounted returns the root of a new file system; without a command it is a tmpfs.
func mounted(t *testing.T, mkfs string) string {
	t.Helper()
	dir := t.TempDir()
	args := []string{"-t", "tmpfs", "tmpfs", dir}
	if mkfs != "" {
		words := strings.Fields(mkfs)
		if _, err := exec.LookPath(words[0]); err != nil {
			t.Skip(err)
		}
		file := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, 512<<20); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(words[0], append(words[1:], file)...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", mkfs, err, out)
		}
		args = []string{"-o", "loop", file, dir}
	}
	if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
		t.Skipf("mount %v: %v\n%s", args, err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}
