package runtime

import (
	"encoding/binary"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"berth/internal/runtime/boot"

	mobyseccomp "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// dockerProfile is what containers get by default.
func dockerProfile(t *testing.T, s *specs.Spec) *specs.LinuxSeccomp {
	t.Helper()
	p, err := mobyseccomp.GetDefaultProfile(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// probe makes a static executable that tries system calls and prints the eight
// bytes of each result.
func probe(t *testing.T, name string, calls [][]uintptr) {
	t.Helper()
	p := boot.New()
	fail := p.Label()
	p.OnFail(fail)
	for _, c := range calls {
		result := p.Slot()
		args := make([]boot.Arg, len(c)-1)
		for i, a := range c[1:] {
			args[i] = boot.Int(a)
		}
		p.Call(c[0], args...).Into(result).Ignore()
		p.Call(unix.SYS_WRITE, boot.Int(1), result.Addr(), boot.Int(8))
	}
	p.Bind(fail)
	p.Call(unix.SYS_EXIT_GROUP, boot.Int(0))
	image, err := p.Image()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, image.Bytes(), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestDefaultSeccompProfile(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	const perm, nosys = -int64(unix.EPERM), -int64(unix.ENOSYS)
	calls := []struct {
		name string
		want int64
		call []uintptr
	}{
		{"keyctl", perm, []uintptr{unix.SYS_KEYCTL, 0, 0}},
		{"add_key", perm, []uintptr{unix.SYS_ADD_KEY}},
		{"bpf", perm, []uintptr{unix.SYS_BPF}},
		{"userfaultfd", perm, []uintptr{unix.SYS_USERFAULTFD}},
		{"io_uring_setup", perm, []uintptr{unix.SYS_IO_URING_SETUP}},
		{"io_uring_enter", perm, []uintptr{unix.SYS_IO_URING_ENTER}},
		{"io_uring_register", perm, []uintptr{unix.SYS_IO_URING_REGISTER}},
		{"AF_ALG", perm, []uintptr{unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET, 0}},
		{"AF_VSOCK", perm, []uintptr{unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM, 0}},
		{"clone3", nosys, []uintptr{unix.SYS_CLONE3}},
		{"mount", perm, []uintptr{unix.SYS_MOUNT}},
		{"unshare", perm, []uintptr{unix.SYS_UNSHARE, unix.CLONE_NEWUSER}},
		{"a call of the future", nosys, []uintptr{4000}},
		{"personality PER_LINUX", 0, []uintptr{unix.SYS_PERSONALITY, 0}},
		{"another personality", perm, []uintptr{unix.SYS_PERSONALITY, 0x1234}},
		{"getpid", 1, []uintptr{unix.SYS_GETPID}},
	}
	var list [][]uintptr
	for _, c := range calls {
		list = append(list, c.call)
	}
	probe(t, filepath.Join(root, "bin/probe"), list)
	for _, noNewPrivs := range []bool{false, true} {
		for _, uid := range []uint32{0, 1000} {
			s := spec(root, "probe")
			s.Process.NoNewPrivileges, s.Process.User.UID = noNewPrivs, uid
			s.Linux.Seccomp = dockerProfile(t, s)
			code, out := m.run(s)
			if code != 0 || len(out) != 8*len(calls) {
				t.Fatalf("exit %d, %d bytes", code, len(out))
			}
			for i, c := range calls {
				if got := int64(binary.NativeEndian.Uint64([]byte(out)[8*i:])); got != c.want {
					t.Errorf("%s returned %d, want %d (no_new_privs %v, uid %d)", c.name, got, c.want, noNewPrivs, uid)
				}
			}
		}
	}
}

func TestSeccompSetsStatus(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	code, out := m.sh(root, "grep -E '^(Seccomp|NoNewPrivs|CapEff)' /proc/self/status; mkdir /tmp/x", func(s *specs.Spec) {
		s.Process.User.UID = 1000
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog},
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: func() *uint { n := uint(unix.EXDEV); return &n }()}},
		}
	})
	if code == 0 {
		t.Error("mkdir worked")
	}
	want(t, 0, out, "Seccomp:\t2\n", "NoNewPrivs:\t0\n", "CapEff:\t0000000000000000\n", "Invalid cross-device link")
}

func TestSeccompListener(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type result struct {
		state specs.ContainerProcessState
		err   error
	}
	results := make(chan result, 1)
	go func() {
		var r result
		defer func() { results <- r }()
		conn, err := l.AcceptUnix()
		if err != nil {
			r.err = err
			return
		}
		defer conn.Close()
		buf, oob := make([]byte, 8192), make([]byte, 64)
		n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
		if err != nil {
			r.err = err
			return
		}
		if r.err = json.Unmarshal(buf[:n], &r.state); r.err != nil {
			return
		}
		msgs, _ := unix.ParseSocketControlMessage(oob[:oobn])
		fds, _ := unix.ParseUnixRights(&msgs[0])
		r.err = answerNotification(fds[0])
	}()
	s := spec(root, "sh", "-c", "mkdir /tmp/x 2>&1; echo end")
	s.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, ListenerPath: socket, ListenerMetadata: "meta",
		Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}},
	}
	opts := m.options(s)
	code, out := m.runWith(opts)
	want(t, code, out, "File too large", "end\n")
	r := <-results
	if r.err != nil || r.state.Metadata != "meta" || r.state.State.ID != opts.ID || r.state.Pid == 0 || len(r.state.Fds) != 1 {
		t.Errorf("the agent got %+v, %v", r.state, r.err)
	}
}

// answerNotification lets one system call fail with EFBIG.
func answerNotification(fd int) error {
	defer unix.Close(fd)
	var req [80]byte
	const recv, send = 0xc0502100, 0xc0182101
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), recv, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return errno
	}
	var resp struct {
		id    uint64
		val   int64
		errno int32
		flags uint32
	}
	resp.id, resp.errno = *(*uint64)(unsafe.Pointer(&req)), -int32(unix.EFBIG)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), send, uintptr(unsafe.Pointer(&resp))); errno != 0 {
		return errno
	}
	return nil
}
