package plan

import (
	"encoding/binary"
	"path"
	"strconv"
	"strings"

	"berth/internal/runtime/boot"
	"berth/internal/runtime/config"
	"berth/internal/runtime/seccomp"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// defaultPath is searched when the environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// process emits everything that concerns the process alone, up to execve. The
// order matters: what needs privileges comes before they are given up, and the
// filter comes last, so that it has to allow as little as possible.
func (b *builder) process(p *Process, f *finish) error {
	s := p.Spec
	b.limits(p)
	b.labels(p)
	b.keyring(p)
	if !s.Terminal {
		b.stdio(p)
	}
	entered := b.enterCwd(s.Cwd)
	notify := p.Filter != nil && p.Filter.Notify
	if f.ready != None {
		b.Step("wait for the runtime")
		b.Call(unix.SYS_READ, boot.Int(f.ready), b.reply, boot.Int(1)).Into(b.answer)
		b.Test(b.answer.Addr(), ^uint64(0), 1, unix.ECANCELED)
	}
	if !notify {
		b.fence(p, f)
	}
	b.extraFiles(p)
	b.identity(p)
	b.checkCwd(s.Cwd, entered)
	if err := b.privileges(p); err != nil {
		return err
	}
	if notify {
		b.fence(p, f)
	}
	b.exec(p)
	return nil
}

// Candidates lists the paths at which the user's program is looked for, in
// order.
func Candidates(name string, env []string) []string {
	if strings.Contains(name, "/") {
		return []string{name}
	}
	search := defaultPath
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			search = v
		}
	}
	var out []string
	for dir := range strings.SplitSeq(search, ":") {
		if dir == "" {
			dir = "."
		}
		out = append(out, path.Join(dir, name))
	}
	return out
}

// exec tries the candidates as execvp does: what is missing or may not be
// executed is passed over, any other failure ends the search.
func (b *builder) exec(p *Process) {
	argv, envp := b.Strs(p.Spec.Args), b.Strs(p.Env)
	b.Step(StepExec)
	mask := uint64(0)
	if p.Blocked {
		mask = ^mask
	}
	b.Call(unix.SYS_RT_SIGPROCMASK, boot.Int(2), b.Words(boot.Int(mask)), boot.Int(0), boot.Int(8))
	list := Candidates(p.Spec.Args[0], p.Env)
	for i, c := range list {
		op := b.Call(unix.SYS_EXECVE, b.Str(c), argv, envp)
		if i < len(list)-1 {
			op.Ignore(unix.ENOENT, unix.ENOTDIR, unix.EACCES, unix.ELOOP)
		}
	}
	b.failWith(unix.ENOENT)
}

// StepExec is the step whose failure concerns the user's executable.
const StepExec = "process.args[0]"

// fence lets a created container wait to be started. A program that does not
// exist is reported before, for whoever creates a container wants to know.
func (b *builder) fence(p *Process, f *finish) {
	if f.fence == None {
		if f.hooks {
			b.Step("hooks.startContainer")
			b.ask(ReqStart, 0)
		}
		return
	}
	b.Step(StepExec)
	found := b.Label()
	for _, c := range Candidates(p.Spec.Args[0], p.Env) {
		next := b.Label()
		b.Call(unix.SYS_FACCESSAT, boot.Int(unix.AT_FDCWD), b.Str(c), boot.Int(unix.X_OK)).OnErr(next)
		b.Call(unix.SYS_STATX, boot.Int(unix.AT_FDCWD), b.Str(c), boot.Int(0), boot.Int(unix.STATX_TYPE), b.scratch).OnErr(next)
		b.Test(b.scratch.Plus(24), 0xf000<<32, unix.S_IFREG<<32, 0).Then(found).OnErr(next)
		b.Bind(next)
	}
	b.failWith(unix.ENOENT)
	b.Bind(found)
	b.Step("wait for start")
	b.send(ReqReady, 0)
	f.late, f.lateOp = b.Label(), b.Len()
	b.SetFail(f.late)
	b.Call(unix.SYS_READ, boot.Int(f.fence), b.reply, boot.Int(1)).Into(b.answer)
	b.Test(b.answer.Addr(), ^uint64(0), 1, unix.ECANCELED)
}

// limits sets resource limits, scores, scheduling and personality. In a user
// namespace raising a limit is the parent's privilege.
func (b *builder) limits(p *Process) {
	s := p.Spec
	if !p.UserNS {
		for i, r := range s.Rlimits {
			b.Step("process.rlimits[" + strconv.Itoa(i) + "]")
			nr, _ := config.Rlimit(r.Type)
			b.Call(unix.SYS_PRLIMIT64, boot.Int(0), boot.Int(nr), b.Words(boot.Int(r.Soft), boot.Int(r.Hard)), boot.Int(0))
		}
		if s.OOMScoreAdj != nil {
			b.Step("process.oomScoreAdj")
			b.writeProc("self/oom_score_adj", strconv.Itoa(*s.OOMScoreAdj))
		}
	}
	if sc := s.Scheduler; sc != nil {
		b.Step("process.scheduler")
		policy, _ := config.SchedPolicy(sc.Policy)
		var flags uint64
		for _, f := range sc.Flags {
			bit, _ := config.SchedFlag(f)
			flags |= bit
		}
		var a [56]byte // struct sched_attr
		le := binary.LittleEndian
		le.PutUint32(a[0:], uint32(len(a)))
		le.PutUint32(a[4:], policy)
		le.PutUint64(a[8:], flags)
		le.PutUint32(a[16:], uint32(sc.Nice))
		le.PutUint32(a[20:], uint32(sc.Priority))
		le.PutUint64(a[24:], sc.Runtime)
		le.PutUint64(a[32:], sc.Deadline)
		le.PutUint64(a[40:], sc.Period)
		b.Call(unix.SYS_SCHED_SETATTR, boot.Int(0), b.Bytes(a[:]), boot.Int(0))
	}
	if io := s.IOPriority; io != nil {
		b.Step("process.ioPriority")
		class, _ := config.IOPrioClass(io.Class)
		b.Call(unix.SYS_IOPRIO_SET, boot.Int(1), boot.Int(0), boot.Int(class<<13|io.Priority))
	}
}

// affinity binds the process to processors; list was validated.
func (b *builder) affinity(field, list string) {
	mask, _ := config.Bits(list, 8192)
	if mask == nil {
		return
	}
	b.Step("process.execCPUAffinity." + field)
	words := make([]boot.Arg, len(mask))
	for i, w := range mask {
		words[i] = boot.Int(w)
	}
	b.Call(unix.SYS_SCHED_SETAFFINITY, boot.Int(0), boot.Int(8*len(mask)), b.Words(words...))
}

// memoryPolicy and personality of the container.
func (b *builder) memoryPolicy(s *specs.Spec) error {
	if s.Linux == nil {
		return nil
	}
	if p := s.Linux.Personality; p != nil {
		b.Step("linux.personality")
		persona := 0
		if p.Domain == specs.PerLinux32 {
			persona = 8
		}
		b.Call(unix.SYS_PERSONALITY, boot.Int(persona))
	}
	if p := s.Linux.MemoryPolicy; p != nil {
		b.Step("linux.memoryPolicy")
		mode, _ := config.MemoryMode(p.Mode)
		for _, f := range p.Flags {
			bit, _ := config.MemoryFlag(f)
			mode |= bit
		}
		mask, err := config.Bits(p.Nodes, 1024)
		if err != nil {
			return err
		}
		at, bits := boot.Int(0), 0
		if mask != nil {
			words := make([]boot.Arg, len(mask))
			for i, w := range mask {
				words[i] = boot.Int(w)
			}
			at, bits = b.Words(words...), 64*len(mask)
		}
		b.Call(unix.SYS_SET_MEMPOLICY, boot.Int(mode), at, boot.Int(bits))
	}
	return nil
}

// labels tells security modules what to do at the next execve.
func (b *builder) labels(p *Process) {
	if p.Spec.ApparmorProfile != "" && p.Labels.AppArmor != "" {
		b.Step("process.apparmorProfile")
		b.writeProc("self/"+p.Labels.AppArmor, "exec "+p.Spec.ApparmorProfile)
	}
	if p.Spec.SelinuxLabel != "" && p.Labels.SELinux {
		b.Step("process.selinuxLabel")
		b.writeProc("self/attr/exec", p.Spec.SelinuxLabel)
	}
}

func (b *builder) keyring(p *Process) {
	if p.Keyring == "" {
		return
	}
	b.Step("join session keyring")
	const joinSession = 1
	b.Call(unix.SYS_KEYCTL, boot.Int(joinSession), b.Str(p.Keyring)).Ignore(unix.ENOSYS, unix.EPERM)
}

// stdio puts standard streams in place. Streams that nobody gave are the null
// device of the container if it has a real one, else the host's.
func (b *builder) stdio(p *Process) {
	b.Step("standard streams")
	null := b.Slot()
	if p.Stdio[0] == None || p.Stdio[1] == None || p.Stdio[2] == None {
		host, have := b.Label(), b.Label()
		op, fd := b.openIn(boot.Int(unix.AT_FDCWD), "/dev/null", unix.O_RDWR, unix.RESOLVE_NO_SYMLINKS)
		op.OnErr(host)
		b.statx(fd)
		b.Test(b.scratch.Plus(24), 0xf000<<32, unix.S_IFCHR<<32, 0).OnErr(host)
		b.Test(b.scratch.Plus(128), ^uint64(0), 1|3<<32, 0).OnErr(host)
		b.Store(null.Addr(), fd.Val()).Then(have)
		b.Bind(host)
		b.Store(null.Addr(), boot.Int(p.Null))
		b.Bind(have)
	}
	for i, fd := range p.Stdio {
		from := null.Val()
		if fd != None {
			from = boot.Int(fd)
		}
		if fd != i {
			b.Call(unix.SYS_DUP3, from, boot.Int(i), boot.Int(0))
		}
		if p.Chown[i] {
			b.Call(unix.SYS_FCHOWN, boot.Int(i), boot.Int(p.Spec.User.UID), boot.Int(-1)).Ignore()
		}
	}
}

// enterCwd enters the working directory with the rights of root, and tells
// whether that worked: a directory may be closed to root without capabilities
// and open to the user.
func (b *builder) enterCwd(cwd string) boot.Slot {
	entered := b.Slot()
	if path.Clean(cwd) == "/" {
		return entered
	}
	b.Step("process.cwd (" + cwd + ")")
	later := b.Label()
	op, fd := b.openCwd(cwd)
	op.OnErr(later, unix.EACCES)
	b.Call(unix.SYS_FCHDIR, fd.Val()).OnErr(later, unix.EACCES)
	b.Store(entered.Addr(), boot.Int(1))
	b.Bind(later)
	return entered
}

// openCwd opens the working directory. Magic links lead out of the root, to
// descriptors that the runtime holds.
func (b *builder) openCwd(cwd string) (boot.Op, boot.Slot) {
	return b.openIn(boot.Int(unix.AT_FDCWD), cwd, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_MAGICLINKS)
}

// checkCwd enters the working directory with the user's rights if root could
// not, and makes sure that it lies below the root.
func (b *builder) checkCwd(cwd string, entered boot.Slot) {
	if path.Clean(cwd) == "/" {
		return
	}
	b.Step("process.cwd (" + cwd + ")")
	again, inside := b.Label(), b.Label()
	b.Test(entered.Addr(), ^uint64(0), 1, 0).Then(inside).OnErr(again)
	b.Bind(again)
	_, fd := b.openCwd(cwd)
	b.Call(unix.SYS_FCHDIR, fd.Val())
	b.Bind(inside)
	const buffer, size = 0x700000, 8192
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_FIXED
	b.Call(unix.SYS_MMAP, boot.Int(buffer), boot.Int(size), boot.Int(prot), boot.Int(flags), boot.Int(-1), boot.Int(0))
	b.Call(unix.SYS_GETCWD, boot.Int(buffer), boot.Int(size))
	b.Test(boot.Int(buffer), 0xff, '/', unix.EPERM) // "(unreachable)/..." otherwise
}

// extraFiles puts further descriptors behind the preserved ones and closes all
// others at execve.
func (b *builder) extraFiles(p *Process) {
	b.Step("close descriptors")
	next := 3 + p.Preserve
	for _, fd := range p.Extra {
		if fd != next {
			b.Call(unix.SYS_DUP3, boot.Int(fd), boot.Int(next), boot.Int(0))
		}
		next++
	}
	b.Call(unix.SYS_CLOSE_RANGE, boot.Int(next), boot.Int(^uint32(0)), boot.Int(unix.CLOSE_RANGE_CLOEXEC))
}

// identity becomes the user. Capabilities stay permitted until privileges.
func (b *builder) identity(p *Process) {
	u := p.Spec.User
	bounding := Mask(p.caps().Bounding)
	b.Step("process.capabilities.bounding")
	for c := range 64 {
		if bit := uint64(1) << c; p.Caps&bit != 0 && bounding&bit == 0 {
			b.Call(unix.SYS_PRCTL, boot.Int(unix.PR_CAPBSET_DROP), boot.Int(c)).Ignore(unix.EINVAL)
		}
	}
	b.Step("process.user")
	b.Call(unix.SYS_PRCTL, boot.Int(unix.PR_SET_KEEPCAPS), boot.Int(1))
	groups := boot.Int(0)
	if n := len(u.AdditionalGids); n > 0 {
		raw := make([]byte, 0, 4*n)
		for _, g := range u.AdditionalGids {
			raw = binary.NativeEndian.AppendUint32(raw, g)
		}
		groups = b.Bytes(raw)
	}
	op := b.Call(unix.SYS_SETGROUPS, boot.Int(len(u.AdditionalGids)), groups)
	if len(u.AdditionalGids) == 0 {
		op.Ignore(unix.EPERM) // a user namespace may deny it; there is nothing to drop then
	}
	gid, uid := boot.Int(u.GID), boot.Int(u.UID)
	b.Call(unix.SYS_SETRESGID, gid, gid, gid)
	b.Call(unix.SYS_SETRESUID, uid, uid, uid)
	b.Call(unix.SYS_PRCTL, boot.Int(unix.PR_SET_KEEPCAPS), boot.Int(0))
	umask := uint32(0o022)
	if u.Umask != nil {
		umask = *u.Umask
	}
	b.Call(unix.SYS_UMASK, boot.Int(umask))
}

func (p *Process) caps() *specs.LinuxCapabilities {
	if p.Spec.Capabilities == nil {
		return &specs.LinuxCapabilities{}
	}
	return p.Spec.Capabilities
}

// privileges gives up capabilities and installs the filter. Without
// no_new_privs the filter needs CAP_SYS_ADMIN and goes in before.
func (b *builder) privileges(p *Process) error {
	caps := p.caps()
	if p.Filter != nil && !p.Spec.NoNewPrivileges {
		if p.Spec.User.UID != 0 {
			b.Step("process.capabilities")
			b.capset(p.Caps, p.Caps, 0)
		}
		b.seccomp(p.Filter)
	}
	b.Step("process.capabilities")
	b.capset(Mask(caps.Effective)&p.Caps, Mask(caps.Permitted)&p.Caps, Mask(caps.Inheritable)&p.Caps)
	const ambientRaise, ambientClear = 2, 4
	zero := boot.Int(0)
	b.Call(unix.SYS_PRCTL, boot.Int(unix.PR_CAP_AMBIENT), boot.Int(ambientClear), zero, zero, zero).Ignore(unix.EINVAL)
	ambient := Mask(caps.Ambient) & Mask(caps.Permitted) & Mask(caps.Inheritable) & p.Caps
	for c := range 64 {
		if ambient&(1<<c) != 0 {
			b.Step("process.capabilities.ambient")
			b.Call(unix.SYS_PRCTL, boot.Int(unix.PR_CAP_AMBIENT), boot.Int(ambientRaise), boot.Int(c), zero, zero)
		}
	}
	if p.Spec.NoNewPrivileges {
		b.Step("process.noNewPrivileges")
		b.Call(unix.SYS_PRCTL, boot.Int(unix.PR_SET_NO_NEW_PRIVS), boot.Int(1), zero, zero, zero)
		if p.Filter != nil {
			b.seccomp(p.Filter)
		}
	}
	return nil
}

func (b *builder) capset(effective, permitted, inheritable uint64) {
	const version3 = 0x20080522
	var header [8]byte
	binary.NativeEndian.PutUint32(header[:], version3)
	var data [24]byte
	for half := range 2 {
		shift := 32 * half
		binary.NativeEndian.PutUint32(data[12*half:], uint32(effective>>shift))
		binary.NativeEndian.PutUint32(data[12*half+4:], uint32(permitted>>shift))
		binary.NativeEndian.PutUint32(data[12*half+8:], uint32(inheritable>>shift))
	}
	b.Call(unix.SYS_CAPSET, b.Bytes(header[:]), b.Bytes(data[:]))
}

// seccomp installs the filter and hands its listener, if there is one, to the
// parent, by write and read alone: a filter can't let anything else through for
// certain.
func (b *builder) seccomp(f *seccomp.Filter) {
	b.Step("linux.seccomp")
	prog := b.Words(boot.Int(len(f.Code)/8), b.Bytes(f.Code))
	const setFilter = 1
	op := b.Call(unix.SYS_SECCOMP, boot.Int(setFilter), boot.Int(f.Flags), prog)
	if !f.Notify {
		return
	}
	b.Step("linux.seccomp.listenerPath")
	pkt := b.packet(ReqListener)
	fd := b.Slot()
	op.Into(fd)
	b.Store(pkt.Plus(8), fd.Val())
	b.Call(unix.SYS_WRITE, boot.Int(b.sync), pkt, boot.Int(16))
	b.wait()
}

// Mask turns names of capabilities into a bit set. Names that this kernel does
// not know have no bit.
func Mask(names []string) uint64 {
	var m uint64
	for _, n := range names {
		n = strings.TrimPrefix(n, "CAP_")
		for i := range Capabilities {
			if n == Capabilities[i] {
				m |= 1 << i
				break
			}
		}
	}
	return m
}

// Capabilities names the capabilities without CAP_, in the kernel's order.
var Capabilities = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
}
