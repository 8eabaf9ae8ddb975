package worker

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sweepCgroup removes the cgroups of a container of whose start nothing else is
// left: they are made before any runtime records that there is a container. What
// runs in them never ran the user's program.
func sweepCgroup(path string) {
	if !strings.HasPrefix(path, "/") || filepath.Clean(path) == "/" {
		return // none was asked for, or it is systemd's to name
	}
	path = filepath.Clean(path)
	for range 100 {
		left := 0
		tops, _ := filepath.Glob("/sys/fs/cgroup/*")
		for _, top := range append(tops, "/sys/fs/cgroup") {
			if !removeCgroup(top + path) {
				left++
			}
		}
		if left == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond) // what was killed has to go first
	}
	warn("cgroup %s can't be removed", path)
}

// removeCgroup reports whether a cgroup is gone.
func removeCgroup(dir string) bool {
	err := unix.Rmdir(dir)
	if err != unix.EBUSY {
		return err == nil || err == unix.ENOENT || err == unix.ENOTDIR
	}
	children, _ := filepath.Glob(dir + "/*/cgroup.procs")
	for _, child := range children {
		removeCgroup(filepath.Dir(child))
	}
	text, _ := os.ReadFile(dir + "/cgroup.procs")
	for line := range strings.Lines(string(text)) {
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 0 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	return false
}
