package runtime

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"berth/internal/fault"
	"berth/internal/runtime/boot"
	"berth/internal/runtime/config"
	"berth/internal/runtime/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hostID translates an id of a user namespace.
func hostID(m []specs.LinuxIDMapping, id uint32) (int, bool) {
	for _, e := range m {
		if id >= e.ContainerID && id-e.ContainerID < e.Size {
			return int(e.HostID + (id - e.ContainerID)), true
		}
	}
	return 0, false
}

func mapText(m []specs.LinuxIDMapping) string {
	var b strings.Builder
	for _, e := range m {
		fmt.Fprintf(&b, "%d %d %d\n", e.ContainerID, e.HostID, e.Size)
	}
	return b.String()
}

// writeProcFile writes to a file of a process, which is certain to be on the
// procfs that was checked before.
func writeProcFile(proc, pid int, name, value string) error {
	path := strconv.Itoa(pid) + "/" + name
	how := unix.OpenHow{
		Flags:   unix.O_WRONLY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS,
	}
	fd, err := unix.Openat2(proc, path, &how)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// mapIDs gives a new user namespace its ids.
func mapIDs(proc, pid int, uids, gids []specs.LinuxIDMapping) error {
	if os.Geteuid() != 0 {
		// Without privileges the kernel wants this before a group is mapped.
		if err := writeProcFile(proc, pid, "setgroups", "deny"); err != nil {
			return err
		}
	}
	if err := writeProcFile(proc, pid, "gid_map", mapText(gids)); err != nil {
		return fault.New(fault.Invalid, "set", "linux.gidMappings", "%w", err)
	}
	if err := writeProcFile(proc, pid, "uid_map", mapText(uids)); err != nil {
		return fault.New(fault.Invalid, "set", "linux.uidMappings", "%w", err)
	}
	return nil
}

// adjust does to a process in a user namespace what takes the host's
// privileges.
func (k *creation) adjust(pid int) error {
	proc, err := k.openProc()
	if err != nil {
		return err
	}
	spec := k.opts.Spec
	if k.ns.New(specs.UserNamespace) {
		if err := mapIDs(proc, pid, spec.Linux.UIDMappings, spec.Linux.GIDMappings); err != nil {
			return err
		}
	}
	return setLimits(proc, pid, spec.Process)
}

// setLimits sets limits and score of another process.
func setLimits(proc, pid int, p *specs.Process) error {
	if p.OOMScoreAdj != nil {
		if err := writeProcFile(proc, pid, "oom_score_adj", strconv.Itoa(*p.OOMScoreAdj)); err != nil {
			return fault.New(fault.Forbidden, "set", "process.oomScoreAdj", "%w", err)
		}
	}
	for i, r := range p.Rlimits {
		nr, _ := config.Rlimit(r.Type)
		if err := unix.Prlimit(pid, nr, &unix.Rlimit{Cur: r.Soft, Max: r.Hard}, nil); err != nil {
			return fault.New(fault.Forbidden, "set", fmt.Sprintf("process.rlimits[%d]", i), "%w", err)
		}
	}
	return nil
}

// idMapper makes user namespaces that only serve to map the ids of mounts. One
// is kept for each mapping.
type idMapper struct{ made map[string]int }

func (m *idMapper) close() {
	for _, fd := range m.made {
		unix.Close(fd)
	}
	m.made = nil
}

// apply maps the ids of a detached tree.
func (m *idMapper) apply(tree int, mount *specs.Mount, o *plan.MountOptions, i int) error {
	field := fmt.Sprintf("mounts[%d].uidMappings", i)
	if len(mount.UIDMappings) == 0 {
		return fault.New(fault.Invalid, "check", field, "is empty; the option idmap needs it")
	}
	fd, err := m.namespace(mount.UIDMappings, mount.GIDMappings)
	if err != nil {
		return fault.Wrap("map", field, err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(fd)}
	if err := setAttr(tree, o.IDMapRecursive, attr); err != nil {
		e := fault.New(fault.Internal, "map", field, "%w", err)
		if err == unix.EINVAL {
			return e.WithHint("the file system of the source can't map ids")
		}
		return e
	}
	return nil
}

// namespace returns a user namespace with the given mappings. The process that
// it is made for ends before this returns; the descriptor holds it.
func (m *idMapper) namespace(uids, gids []specs.LinuxIDMapping) (int, error) {
	key := mapText(uids) + "/" + mapText(gids)
	if fd, ok := m.made[key]; ok {
		return fd, nil
	}
	var r resources
	defer r.close()
	proc, err := r.openProc()
	if err != nil {
		return -1, err
	}
	image, err := plan.Sleeper()
	if err != nil {
		return -1, err
	}
	l := boot.Launch{Flags: unix.CLONE_NEWUSER, CgroupFD: -1, Name: "berth-idmap"}
	pid, pidfd, err := l.Start(image)
	if err != nil {
		return -1, err
	}
	defer func() {
		_ = unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0)
		waitPid(pid)
		pidfd.Close()
	}()
	if err := mapIDs(proc, pid, uids, gids); err != nil {
		return -1, err
	}
	fd, err := unix.Openat(proc, strconv.Itoa(pid)+"/ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("open user namespace", err)
	}
	if m.made == nil {
		m.made = map[string]int{}
	}
	m.made[key] = fd
	return fd, nil
}
