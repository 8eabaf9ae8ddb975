package config

import (
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The methods below read one type of the specification each.

func (d *decoder) spec(s *specs.Spec) {
	d.object(func(key string) bool {
		switch key {
		case "ociVersion":
			d.str(&s.Version)
		case "process":
			pointer(d, &s.Process, d.process)
		case "root":
			pointer(d, &s.Root, d.root)
		case "hostname":
			d.str(&s.Hostname)
		case "domainname":
			d.str(&s.Domainname)
		case "mounts":
			listOf(d, &s.Mounts, d.mount)
		case "hooks":
			pointer(d, &s.Hooks, d.hooks)
		case "annotations":
			mapOf(d, &s.Annotations, d.str)
		case "linux":
			pointer(d, &s.Linux, d.linux)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) process(p *specs.Process) {
	d.object(func(key string) bool {
		switch key {
		case "terminal":
			d.boolean(&p.Terminal)
		case "consoleSize":
			pointer(d, &p.ConsoleSize, d.box)
		case "user":
			d.user(&p.User)
		case "args":
			words(d, &p.Args)
		case "commandLine":
			d.str(&p.CommandLine)
		case "env":
			words(d, &p.Env)
		case "cwd":
			d.str(&p.Cwd)
		case "capabilities":
			pointer(d, &p.Capabilities, d.capabilities)
		case "rlimits":
			listOf(d, &p.Rlimits, d.rlimit)
		case "noNewPrivileges":
			d.boolean(&p.NoNewPrivileges)
		case "apparmorProfile":
			d.str(&p.ApparmorProfile)
		case "oomScoreAdj":
			optional(d, &p.OOMScoreAdj)
		case "scheduler":
			pointer(d, &p.Scheduler, d.scheduler)
		case "selinuxLabel":
			d.str(&p.SelinuxLabel)
		case "ioPriority":
			pointer(d, &p.IOPriority, d.ioPriority)
		case "execCPUAffinity":
			pointer(d, &p.ExecCPUAffinity, d.affinity)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) box(b *specs.Box) {
	d.object(func(key string) bool {
		switch key {
		case "height":
			whole(d, &b.Height)
		case "width":
			whole(d, &b.Width)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) user(u *specs.User) {
	d.object(func(key string) bool {
		switch key {
		case "uid":
			whole(d, &u.UID)
		case "gid":
			whole(d, &u.GID)
		case "umask":
			optional(d, &u.Umask)
		case "additionalGids":
			listOf(d, &u.AdditionalGids, func(n *uint32) { whole(d, n) })
		case "username":
			d.str(&u.Username)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) capabilities(c *specs.LinuxCapabilities) {
	d.object(func(key string) bool {
		switch key {
		case "bounding":
			words(d, &c.Bounding)
		case "effective":
			words(d, &c.Effective)
		case "inheritable":
			words(d, &c.Inheritable)
		case "permitted":
			words(d, &c.Permitted)
		case "ambient":
			words(d, &c.Ambient)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) rlimit(r *specs.POSIXRlimit) {
	d.object(func(key string) bool {
		switch key {
		case "type":
			d.str(&r.Type)
		case "hard":
			whole(d, &r.Hard)
		case "soft":
			whole(d, &r.Soft)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) scheduler(s *specs.Scheduler) {
	d.object(func(key string) bool {
		switch key {
		case "policy":
			word(d, &s.Policy)
		case "nice":
			whole(d, &s.Nice)
		case "priority":
			whole(d, &s.Priority)
		case "flags":
			words(d, &s.Flags)
		case "runtime":
			whole(d, &s.Runtime)
		case "deadline":
			whole(d, &s.Deadline)
		case "period":
			whole(d, &s.Period)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) ioPriority(p *specs.LinuxIOPriority) {
	d.object(func(key string) bool {
		switch key {
		case "class":
			word(d, &p.Class)
		case "priority":
			whole(d, &p.Priority)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) affinity(a *specs.CPUAffinity) {
	d.object(func(key string) bool {
		switch key {
		case "initial":
			d.str(&a.Initial)
		case "final":
			d.str(&a.Final)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) root(r *specs.Root) {
	d.object(func(key string) bool {
		switch key {
		case "path":
			d.str(&r.Path)
		case "readonly":
			d.boolean(&r.Readonly)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) mount(m *specs.Mount) {
	d.object(func(key string) bool {
		switch key {
		case "destination":
			d.str(&m.Destination)
		case "type":
			d.str(&m.Type)
		case "source":
			d.str(&m.Source)
		case "options":
			words(d, &m.Options)
		case "uidMappings":
			listOf(d, &m.UIDMappings, d.mapping)
		case "gidMappings":
			listOf(d, &m.GIDMappings, d.mapping)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) mapping(m *specs.LinuxIDMapping) {
	d.object(func(key string) bool {
		switch key {
		case "containerID":
			whole(d, &m.ContainerID)
		case "hostID":
			whole(d, &m.HostID)
		case "size":
			whole(d, &m.Size)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) hooks(h *specs.Hooks) {
	d.object(func(key string) bool {
		switch key {
		case "prestart":
			listOf(d, &h.Prestart, d.hook)
		case "createRuntime":
			listOf(d, &h.CreateRuntime, d.hook)
		case "createContainer":
			listOf(d, &h.CreateContainer, d.hook)
		case "startContainer":
			listOf(d, &h.StartContainer, d.hook)
		case "poststart":
			listOf(d, &h.Poststart, d.hook)
		case "poststop":
			listOf(d, &h.Poststop, d.hook)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) hook(h *specs.Hook) {
	d.object(func(key string) bool {
		switch key {
		case "path":
			d.str(&h.Path)
		case "args":
			words(d, &h.Args)
		case "env":
			words(d, &h.Env)
		case "timeout":
			optional(d, &h.Timeout)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) linux(l *specs.Linux) {
	d.object(func(key string) bool {
		switch key {
		case "uidMappings":
			listOf(d, &l.UIDMappings, d.mapping)
		case "gidMappings":
			listOf(d, &l.GIDMappings, d.mapping)
		case "sysctl":
			mapOf(d, &l.Sysctl, d.str)
		case "resources":
			pointer(d, &l.Resources, d.resources)
		case "cgroupsPath":
			d.str(&l.CgroupsPath)
		case "namespaces":
			listOf(d, &l.Namespaces, d.namespace)
		case "devices":
			listOf(d, &l.Devices, d.device)
		case "netDevices":
			mapOf(d, &l.NetDevices, d.netDevice)
		case "seccomp":
			pointer(d, &l.Seccomp, d.seccomp)
		case "rootfsPropagation":
			d.str(&l.RootfsPropagation)
		case "maskedPaths":
			words(d, &l.MaskedPaths)
		case "readonlyPaths":
			words(d, &l.ReadonlyPaths)
		case "mountLabel":
			d.str(&l.MountLabel)
		case "intelRdt":
			pointer(d, &l.IntelRdt, d.intelRdt)
		case "memoryPolicy":
			pointer(d, &l.MemoryPolicy, d.memoryPolicy)
		case "personality":
			pointer(d, &l.Personality, d.personality)
		case "timeOffsets":
			mapOf(d, &l.TimeOffsets, d.timeOffset)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) namespace(n *specs.LinuxNamespace) {
	d.object(func(key string) bool {
		switch key {
		case "type":
			word(d, &n.Type)
		case "path":
			d.str(&n.Path)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) device(v *specs.LinuxDevice) {
	d.object(func(key string) bool {
		switch key {
		case "path":
			d.str(&v.Path)
		case "type":
			d.str(&v.Type)
		case "major":
			whole(d, &v.Major)
		case "minor":
			whole(d, &v.Minor)
		case "fileMode":
			optional[os.FileMode](d, &v.FileMode)
		case "uid":
			optional(d, &v.UID)
		case "gid":
			optional(d, &v.GID)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) netDevice(n *specs.LinuxNetDevice) {
	d.object(func(key string) bool {
		if key != "name" {
			return false
		}
		d.str(&n.Name)
		return true
	})
}

func (d *decoder) intelRdt(r *specs.LinuxIntelRdt) {
	d.object(func(key string) bool {
		switch key {
		case "closID":
			d.str(&r.ClosID)
		case "schemata":
			words(d, &r.Schemata)
		case "l3CacheSchema":
			d.str(&r.L3CacheSchema)
		case "memBwSchema":
			d.str(&r.MemBwSchema)
		case "enableMonitoring":
			d.boolean(&r.EnableMonitoring)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) memoryPolicy(p *specs.LinuxMemoryPolicy) {
	d.object(func(key string) bool {
		switch key {
		case "mode":
			word(d, &p.Mode)
		case "nodes":
			d.str(&p.Nodes)
		case "flags":
			words(d, &p.Flags)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) personality(p *specs.LinuxPersonality) {
	d.object(func(key string) bool {
		switch key {
		case "domain":
			word(d, &p.Domain)
		case "flags":
			words(d, &p.Flags)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) timeOffset(o *specs.LinuxTimeOffset) {
	d.object(func(key string) bool {
		switch key {
		case "secs":
			whole(d, &o.Secs)
		case "nanosecs":
			whole(d, &o.Nanosecs)
		default:
			return false
		}
		return true
	})
}
