package runtime

import (
	"fmt"
	"os"
	"strings"

	"berth/internal/fault"
	"berth/internal/runtime/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// process prepares a process: its descriptors and what it may have.
func (r *resources) process(spec *specs.Process, stdio Stdio, preserve int, extra []*os.File, userNS bool) (*plan.Process, error) {
	p := &plan.Process{Spec: spec, Preserve: preserve, UserNS: userNS}
	var err error
	if p.Null, err = r.openNull(); err != nil {
		return nil, err
	}
	for i, f := range stdio {
		if p.Stdio[i], p.Chown[i], err = r.stream(f, i, spec.User.UID); err != nil {
			return nil, err
		}
	}
	for i := range preserve {
		if _, err := unix.FcntlInt(uintptr(3+i), unix.F_GETFD, 0); err != nil {
			return nil, fault.New(fault.Invalid, "preserve descriptor", fmt.Sprint(3+i), "it is not open")
		}
	}
	for _, f := range extra {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, r.base)
		if err != nil {
			return nil, fault.New(fault.Exhausted, "pass descriptor", f.Name(), "%w", err)
		}
		p.Extra = append(p.Extra, r.keep(fd))
	}
	if p.Caps, err = possibleCaps(userNS); err != nil {
		return nil, err
	}
	p.Labels = labels(spec)
	return p, nil
}

// stream returns the descriptor for one standard stream, and whether the
// process's user should own it: a program that opens /dev/stdout anew needs
// that of a pipe or terminal.
func (r *resources) stream(f *os.File, i int, uid uint32) (fd int, chown bool, err error) {
	if f == nil {
		return plan.None, false, nil
	}
	fd = int(f.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, false, fault.New(fault.Invalid, "pass standard stream", fmt.Sprint(i), "%w", err)
	}
	const pts = 136 // first major number of terminals below /dev/pts, of eight
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO, unix.S_IFSOCK:
		chown = true
	case unix.S_IFCHR:
		major := unix.Major(st.Rdev)
		chown = major >= pts && major < pts+8
	}
	if fd != i && fd < max(3, r.base) {
		if fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, max(3, r.base)); err != nil {
			return 0, false, fault.New(fault.Exhausted, "pass standard stream", fmt.Sprint(i), "%w", err)
		}
		r.keep(fd)
	}
	return fd, chown && uid != 0, nil
}

// possibleCaps is the most that a process can have: what this one may use, or
// everything in a user namespace of its own.
func possibleCaps(userNS bool) (uint64, error) {
	if userNS {
		return 1<<len(plan.Capabilities) - 1, nil
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fault.New(fault.Internal, "read capabilities", "", "%w", err)
	}
	return uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32, nil
}

func hasAppArmor() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(b), "Y")
}

func hasSELinux() bool { return unix.Access("/sys/fs/selinux/enforce", unix.F_OK) == nil }

// labels finds how to tell the host's security modules.
func labels(p *specs.Process) (l plan.Labels) {
	if p.ApparmorProfile != "" && hasAppArmor() {
		l.AppArmor = "attr/exec"
		if unix.Access("/proc/self/attr/apparmor/exec", unix.F_OK) == nil {
			l.AppArmor = "attr/apparmor/exec"
		}
	}
	l.SELinux = p.SelinuxLabel != "" && hasSELinux()
	return l
}

// checkModules refuses labels that nobody would enforce.
func checkModules(s *specs.Spec) error {
	p := s.Process
	if p.ApparmorProfile != "" && !hasAppArmor() {
		return fault.New(fault.Unsupported, "check", "process.apparmorProfile", "AppArmor is not enabled on this host")
	}
	if p.SelinuxLabel != "" && !hasSELinux() {
		return fault.New(fault.Unsupported, "check", "process.selinuxLabel", "SELinux is not enabled on this host")
	}
	if s.Linux != nil && s.Linux.MountLabel != "" && !hasSELinux() {
		return fault.New(fault.Unsupported, "check", "linux.mountLabel", "SELinux is not enabled on this host")
	}
	return nil
}

// withHome returns the environment with every name once, the last value given
// for it, and with HOME, which is looked up in the root's user database if it
// is not set.
func withHome(p *specs.Process, root int) []string {
	out := make([]string, 0, len(p.Env)+1)
	at := make(map[string]int, len(p.Env))
	for _, e := range p.Env {
		name, _, _ := strings.Cut(e, "=")
		if i, ok := at[name]; ok {
			out[i] = e
			continue
		}
		at[name] = len(out)
		out = append(out, e)
	}
	if _, ok := at["HOME"]; ok {
		return out
	}
	home := ""
	if root >= 0 {
		home = homeOf(root, p.User.UID)
	}
	if home == "" {
		home = "/"
	}
	return append(out, "HOME="+home)
}
