package vocabulary

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"berth/internal/fault"

	api "github.com/moby/moby/api/types/container"
)

func checkRestart(r *Request) error {
	p := r.HostConfig.RestartPolicy
	if err := api.ValidateRestartPolicy(p); err != nil {
		return invalid("%v", err)
	}
	if r.HostConfig.AutoRemove && !p.IsNone() {
		return invalid("can't create 'AutoRemove' container with restart policy")
	}
	return nil
}

func checkVolumeDriver(r *Request) error {
	if d := r.HostConfig.VolumeDriver; d != "" && d != "local" {
		return fault.New(fault.Unsupported, "", "", "volume driver %q is not supported", d).WithHint("this engine has the driver local")
	}
	return nil
}

func checkAnnotations(r *Request) error {
	for k := range r.HostConfig.Annotations {
		if k == "" {
			return invalid("invalid Annotations: the empty string is not permitted as a key")
		}
	}
	return nil
}

// Joined returns whose namespace a mode joins, "" for a mode that joins nobody's. That
// every kind of namespace can be joined is Berth's: docker knows it of three.
func Joined[M ~string](mode M) (ref string) {
	ref, _ = strings.CutPrefix(string(mode), "container:")
	if ref == string(mode) {
		return ""
	}
	return ref
}

func checkCgroupns(r *Request) error {
	if m := r.HostConfig.CgroupnsMode; !m.Valid() && Joined(m) == "" {
		return invalid("invalid cgroup namespace mode: %v", m)
	}
	return nil
}

func checkIpc(r *Request) error {
	m := r.HostConfig.IpcMode
	if !m.Valid() || (m.IsContainer() && m.Container() == "") {
		return invalid("invalid IPC mode: %v", m)
	}
	return nil
}

// checkCgroup lets pass what inspect shows there: clients create containers from
// what they inspected.
func checkCgroup(r *Request) error {
	c := r.HostConfig.Cgroup
	if c == "" || strings.HasPrefix(string(c), "/sys/fs/cgroup/") {
		return nil
	}
	if c.IsContainer() {
		return unsupported("HostConfig.Cgroup (the cgroup of another container)", "use HostConfig.CgroupParent")
	}
	return invalid("invalid cgroup mode: %v", c)
}

func checkOOMScore(r *Request) error {
	if n := r.HostConfig.OomScoreAdj; n < -1000 || n > 1000 {
		return invalid("invalid value %d, range for oom score adj is [-1000, 1000]", n)
	}
	return nil
}

func checkPid(r *Request) error {
	if m := r.HostConfig.PidMode; !m.Valid() {
		return invalid("invalid PID mode: %v", m)
	}
	return nil
}

func checkUTS(r *Request) error {
	m := r.HostConfig.UTSMode
	if !m.Valid() && Joined(m) == "" {
		return invalid("invalid UTS mode: %v", m)
	}
	if m != "" && r.Config.Hostname != "" {
		return invalid("conflicting options: hostname and the UTS mode")
	}
	return nil
}

func checkUserns(r *Request) error {
	m := r.HostConfig.UsernsMode
	if m == "" || m.IsHost() || Joined(m) != "" {
		return nil
	}
	return unsupported("HostConfig.UsernsMode "+strconv.Quote(string(m)), "containers run in the host's user namespace")
}

func checkShm(r *Request) error {
	if r.HostConfig.ShmSize < 0 {
		return invalid("SHM size can not be less than 0")
	}
	return nil
}

// ipcSysctls belong to the ipc namespace; net.* to the network namespace.
var ipcSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
	"kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
}

// checkSysctls lets pass those which a namespace of the container owns: the rest
// would change the host.
func checkSysctls(r *Request) error {
	hc := r.HostConfig
	for key, value := range hc.Sysctls {
		name := strings.ReplaceAll(key, "/", ".")
		if strings.Contains(name, "..") || strings.ContainsRune(value, 0) {
			return invalid("invalid sysctl %q", key)
		}
		ipc := slices.Contains(ipcSysctls, name) || strings.HasPrefix(name, "fs.mqueue.")
		switch {
		case ipc && (hc.IpcMode.IsHost() || hc.IpcMode.IsContainer()):
			return invalid("sysctl '%s' is not allowed in the IPC namespace of the host or of another container", key)
		case ipc:
		case strings.HasPrefix(name, "net.") && (hc.NetworkMode.IsContainer() || hc.NetworkMode == "host"):
			return invalid("sysctl '%s' is not allowed in the network namespace of the host or of another container", key)
		case strings.HasPrefix(name, "net."):
		default:
			return fault.New(fault.Invalid, "", "", "sysctl '%s' is not allowed", key).
				WithHint("no namespace of the container owns it, so it would change the host")
		}
	}
	return nil
}

// BuiltinRuntimes are the names under which clients ask for the built-in one.
var BuiltinRuntimes = []string{"", "berth", "runc", "io.containerd.runc.v2"}

func checkRuntime(r *Request) error {
	name := r.HostConfig.Runtime
	if slices.Contains(r.Host.Runtimes, name) || slices.Contains(BuiltinRuntimes, name) {
		return nil
	}
	return fault.New(fault.Invalid, "", "", "unknown or invalid runtime name: %s", name).
		WithHint("known: %s", strings.Join(append([]string{"berth"}, r.Host.Runtimes...), ", "))
}

func checkUmask(r *Request) error {
	if u := r.HostConfig.Umask; u != nil && *u > 0o777 {
		return invalid("invalid umask %#o: must be from 0 to 0777", *u)
	}
	return nil
}

func checkIsolation(r *Request) error {
	if !r.HostConfig.Isolation.IsDefault() {
		return unsupported("HostConfig.Isolation "+strconv.Quote(string(r.HostConfig.Isolation)), windowsOnly)
	}
	return nil
}

func checkPaths(r *Request) error {
	for _, list := range []struct {
		name  string
		paths []string
	}{{"MaskedPaths", r.HostConfig.MaskedPaths}, {"ReadonlyPaths", r.HostConfig.ReadonlyPaths}} {
		for _, p := range list.paths {
			if !path.IsAbs(p) {
				return invalid("invalid HostConfig.%s: %q is not an absolute path", list.name, p)
			}
		}
	}
	return nil
}

func checkInit(r *Request) error {
	if in := r.HostConfig.Init; in != nil && *in && !r.Host.Init {
		return unsupported("HostConfig.Init (--init)", "this build has no init for this processor")
	}
	return nil
}
