package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"sync"

	"berth/internal/runtime/smallfile"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read from a file of the kernel.
const maxFile = 16 << 20

// Hierarchy is one mounted cgroup tree.
type Hierarchy struct {
	Name        string   // of its directory below /sys/fs/cgroup, as "cpu,cpuacct"
	Controllers []string // v1 controllers, or "name=systemd"; nil for v2
	Mount       string   // mount point
	own         string   // this process's cgroup in the tree, relative to Mount
}

// V2 reports whether h is the unified hierarchy.
func (h *Hierarchy) V2() bool { return h.Controllers == nil }

func (h *Hierarchy) has(controller string) bool {
	for _, c := range h.Controllers {
		if c == controller {
			return true
		}
	}
	return false
}

// Host is the cgroup layout of this machine.
type Host struct {
	V1      []Hierarchy
	Unified *Hierarchy // nil on pure v1
}

// Pure2 reports whether all controllers are in the unified hierarchy.
func (h *Host) Pure2() bool { return h.Unified != nil && len(h.V1) == 0 }

// Detect reads the machine's layout, once in a process's life.
var Detect = sync.OnceValues(detect)

func detect() (*Host, error) {
	own, err := smallfile.Read("/proc/self/cgroup", maxFile)
	if err != nil {
		return nil, err
	}
	h := &Host{}
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		h.Unified = &Hierarchy{Name: "", Mount: "/sys/fs/cgroup"}
	} else {
		mounts, err := smallfile.Read("/proc/self/mountinfo", maxFile)
		if err != nil {
			return nil, err
		}
		h.fromMounts(mounts)
	}
	h.ownPaths(own)
	if h.Unified == nil && len(h.V1) == 0 {
		return nil, errors.New("no cgroup file system is mounted at /sys/fs/cgroup")
	}
	return h, nil
}

// fromMounts finds hierarchies in the text of /proc/self/mountinfo. Only
// mounts of a whole tree count: a bind of a part of one is something else.
func (h *Host) fromMounts(info []byte) {
	sc := bufio.NewScanner(bytes.NewReader(info))
	for sc.Scan() {
		line := sc.Text()
		if !strings.Contains(line, " - cgroup") {
			continue
		}
		f := strings.Fields(line)
		sep := 0
		for i, w := range f {
			if w == "-" {
				sep = i
				break
			}
		}
		if sep < 6 || len(f) < sep+4 || !strings.HasPrefix(f[4], "/sys/fs/cgroup/") {
			continue
		}
		name := strings.TrimPrefix(f[4], "/sys/fs/cgroup/")
		switch f[sep+1] {
		case "cgroup2":
			h.Unified = &Hierarchy{Name: name, Mount: f[4]}
		case "cgroup":
			h.V1 = append(h.V1, Hierarchy{Name: name, Mount: f[4], Controllers: controllers(f[sep+3])})
		}
	}
}

var known = [...]string{
	"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids",
	"net_cls", "net_prio", "perf_event", "hugetlb", "rdma", "misc",
}

// controllers picks the controllers out of a v1 mount's super block options.
func controllers(options string) []string {
	out := []string{}
	for o := range strings.SplitSeq(options, ",") {
		if strings.HasPrefix(o, "name=") {
			out = append(out, o)
		}
		for _, k := range known {
			if o == k {
				out = append(out, o)
			}
		}
	}
	return out
}

// ownPaths fills in where this process is, from /proc/self/cgroup.
func (h *Host) ownPaths(text []byte) {
	for line := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n") {
		f := strings.SplitN(line, ":", 3)
		if len(f) != 3 {
			continue
		}
		if f[1] == "" {
			if h.Unified != nil {
				h.Unified.own = f[2]
			}
			continue
		}
		first, _, _ := strings.Cut(f[1], ",")
		for i := range h.V1 {
			if h.V1[i].has(first) {
				h.V1[i].own = f[2]
			}
		}
	}
}

// v1 returns the hierarchy of a v1 controller, or nil.
func (h *Host) v1(controller string) *Hierarchy {
	for i := range h.V1 {
		if h.V1[i].has(controller) {
			return &h.V1[i]
		}
	}
	return nil
}

// Own returns the directory of this process's cgroup in the hierarchy.
func (h *Hierarchy) Own() string { return filepath.Join(h.Mount, h.own) }
