package vocabulary

import (
	"slices"
	"strconv"
	"strings"

	"berth/internal/fault"
)

// Security is what HostConfig.SecurityOpt asks for.
type Security struct {
	NoNewPrivileges bool
	SeccompOff      bool
	SeccompProfile  string // JSON; "" means the default profile
	PathsUnconfined bool   // neither masked nor read-only paths
	WritableCgroups bool
}

func checkSecurity(r *Request) error {
	_, err := ParseSecurity(r.HostConfig.SecurityOpt, r.Host)
	return err
}

// ParseSecurity reads security options, "key=value" or, as old clients write
// them, "key:value".
func ParseSecurity(opts []string, h Host) (Security, error) {
	var s Security
	for _, o := range opts {
		key, value, ok := strings.Cut(o, "=")
		if !ok {
			key, value, ok = strings.Cut(o, ":")
		}
		if err := s.set(o, key, value, ok, h); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s *Security) set(opt, key, value string, hasValue bool, h Host) error {
	switch key {
	case "no-new-privileges":
		s.NoNewPrivileges = true
		if !hasValue {
			return nil
		}
		on, err := strconv.ParseBool(value)
		if err != nil {
			return invalid("invalid --security-opt 2: %q", opt)
		}
		s.NoNewPrivileges = on
	case "seccomp":
		switch value {
		case "unconfined":
			s.SeccompOff = true
		case "builtin", "default":
		default:
			if !strings.HasPrefix(strings.TrimSpace(value), "{") {
				return fault.New(fault.Invalid, "", "", "invalid --security-opt %q: a seccomp profile is sent as JSON", opt).
					WithHint("the client reads the file; use seccomp=unconfined for none")
			}
			s.SeccompProfile = value
		}
	case "systempaths":
		if value != "unconfined" {
			return invalid("invalid --security-opt 2: %q", opt)
		}
		s.PathsUnconfined = true
	case "writable-cgroups":
		on, err := strconv.ParseBool(value)
		if err != nil {
			return invalid("invalid --security-opt 2: %q", opt)
		}
		s.WritableCgroups = on
	case "apparmor":
		if value != "unconfined" || h.AppArmor {
			return unsupported("security option "+strconv.Quote(opt), "this engine loads no AppArmor profiles")
		}
	case "label":
		if value != "disable" || h.SELinux {
			return unsupported("security option "+strconv.Quote(opt), "this engine sets no SELinux labels")
		}
	default:
		if !hasValue {
			return invalid("invalid --security-opt 1: %q", opt)
		}
		return invalid("invalid --security-opt 2: %q", opt)
	}
	return nil
}

// capabilities are those of Linux up to 5.9, in the order of their numbers.
var capabilities = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
	"CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
	"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// defaultCaps are what docker leaves to a container.
var defaultCaps = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
	"CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

func checkCaps(r *Request) error {
	_, err := Capabilities(r.HostConfig.CapAdd, r.HostConfig.CapDrop, r.HostConfig.Privileged, len(capabilities)-1)
	return err
}

// Capabilities returns the capabilities of a container, by docker's rules: ALL
// may be added or dropped, and what is named otherwise then counts. last is the
// number of the last capability which the running kernel has.
func Capabilities(add, drop []string, privileged bool, last int) ([]string, error) {
	all := capabilities[:min(last+1, len(capabilities))]
	added, addAll, err := normalize("CapAdd", add)
	if err != nil {
		return nil, err
	}
	dropped, dropAll, err := normalize("CapDrop", drop)
	if err != nil {
		return nil, err
	}
	if privileged {
		return slices.Clone(all), nil
	}
	var base []string
	switch {
	case addAll:
		base = all
	case dropAll:
	default:
		base = defaultCaps[:]
	}
	out := make([]string, 0, len(base)+len(added))
	for _, c := range base {
		if !slices.Contains(dropped, c) {
			out = append(out, c)
		}
	}
	for _, c := range added {
		if !slices.Contains(out, c) && (!slices.Contains(dropped, c) || dropAll) {
			out = append(out, c)
		}
	}
	return out, nil
}

func normalize(field string, caps []string) (list []string, all bool, err error) {
	for _, c := range caps {
		c = strings.ToUpper(c)
		if c == "ALL" || c == "CAP_ALL" {
			all = true
			continue
		}
		if !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		if !slices.Contains(capabilities[:], c) {
			return nil, false, invalid("invalid %s: unknown capability: %q", field, c)
		}
		list = append(list, c)
	}
	return list, all, nil
}
