package config

import "github.com/opencontainers/runtime-spec/specs-go"

func (d *decoder) seccomp(s *specs.LinuxSeccomp) {
	d.object(func(key string) bool {
		switch key {
		case "defaultAction":
			word(d, &s.DefaultAction)
		case "defaultErrnoRet":
			optional(d, &s.DefaultErrnoRet)
		case "architectures":
			words(d, &s.Architectures)
		case "flags":
			words(d, &s.Flags)
		case "listenerPath":
			d.str(&s.ListenerPath)
		case "listenerMetadata":
			d.str(&s.ListenerMetadata)
		case "syscalls":
			listOf(d, &s.Syscalls, d.syscall)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) syscall(s *specs.LinuxSyscall) {
	d.object(func(key string) bool {
		switch key {
		case "names":
			words(d, &s.Names)
		case "action":
			word(d, &s.Action)
		case "errnoRet":
			optional(d, &s.ErrnoRet)
		case "args":
			listOf(d, &s.Args, d.syscallArg)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) syscallArg(a *specs.LinuxSeccompArg) {
	d.object(func(key string) bool {
		switch key {
		case "index":
			whole(d, &a.Index)
		case "value":
			whole(d, &a.Value)
		case "valueTwo":
			whole(d, &a.ValueTwo)
		case "op":
			word(d, &a.Op)
		default:
			return false
		}
		return true
	})
}
