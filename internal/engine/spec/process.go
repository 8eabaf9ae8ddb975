package spec

import (
	"slices"
	"strings"

	"berth/internal/container/identity"
	"berth/internal/container/reaper"
	"berth/internal/engine/vocabulary"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func buildProcess(in *Input, caps []string, security vocabulary.Security) *specs.Process {
	rec := in.Record
	c, hc := rec.Config, rec.HostConfig
	oom := hc.OomScoreAdj
	p := &specs.Process{
		Terminal:        c.Tty,
		Args:            append([]string{rec.Path}, rec.Args...),
		Env:             environment(c, in),
		Cwd:             workingDir(c.WorkingDir),
		User:            processUser(in.Identity, hc.Umask),
		Capabilities:    capabilities(caps, in.Identity.UID),
		Rlimits:         rlimits(hc),
		NoNewPrivileges: security.NoNewPrivileges,
		OOMScoreAdj:     &oom,
	}
	if wantsInit(in) {
		p.Args = reaper.Args(p.Args, p.Env)
	}
	if c.Tty && hc.ConsoleSize[0] > 0 && hc.ConsoleSize[1] > 0 {
		p.ConsoleSize = &specs.Box{Height: hc.ConsoleSize[0], Width: hc.ConsoleSize[1]}
	}
	return p
}

func workingDir(dir string) string {
	if dir == "" {
		return "/"
	}
	return dir
}

func processUser(id identity.Identity, umask *uint32) specs.User {
	return specs.User{UID: id.UID, GID: id.GID, AdditionalGids: id.Groups, Umask: umask}
}

// capabilities gives the set to root. Another user has it as the bound of what
// set-id programs may gain, as after any execve, and inherits nothing.
func capabilities(caps []string, uid uint32) *specs.LinuxCapabilities {
	if uid != 0 {
		return &specs.LinuxCapabilities{Bounding: caps}
	}
	return &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps}
}

// environment returns the variables of the container's process: docker's own
// first, then the configured ones, which replace them. "NAME" without "=" takes
// a variable away.
func environment(c *container.Config, in *Input) []string {
	env := make([]string, 0, len(c.Env)+len(in.Links)+4)
	env = append(env, defaultPath, "HOSTNAME="+in.Hostname)
	if c.Tty {
		env = append(env, "TERM=xterm")
	}
	env = Override(append(env, in.Links...), c.Env)
	if !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "HOME=") && e != "HOME=" }) {
		env = Override(env, []string{"HOME=" + in.Identity.Home})
	}
	return env
}

// Override applies variables to an environment: each replaces the one of its
// name in place or is appended, and one without "=" removes it.
func Override(env, with []string) []string {
	for _, e := range with {
		name, _, hasValue := strings.Cut(e, "=")
		at := slices.IndexFunc(env, func(have string) bool {
			return len(have) > len(name) && have[len(name)] == '=' && have[:len(name)] == name
		})
		switch {
		case !hasValue && at >= 0:
			env = slices.Delete(env, at, at+1)
		case !hasValue:
		case at >= 0:
			env[at] = e
		default:
			env = append(env, e)
		}
	}
	return env
}

func rlimits(hc *container.HostConfig) []specs.POSIXRlimit {
	out := make([]specs.POSIXRlimit, 0, len(hc.Ulimits))
	for _, u := range hc.Ulimits {
		// -1 means unlimited, which is the largest number here.
		out = append(out, specs.POSIXRlimit{
			Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard),
		})
	}
	return out
}

// ExecInput is what a process inside a running container is made from.
type ExecInput struct {
	Input
	Request container.ExecCreateRequest
	Tty     bool
	Console *[2]uint // height, width
}

// Exec returns the process of an exec: the container's settings with what the
// request changes.
func Exec(in ExecInput) (*specs.Process, error) {
	hc := in.Record.HostConfig
	req := in.Request
	caps, err := vocabulary.Capabilities(hc.CapAdd, hc.CapDrop, hc.Privileged || req.Privileged, in.LastCap)
	if err != nil {
		return nil, err
	}
	security, err := vocabulary.ParseSecurity(hc.SecurityOpt, in.Host)
	if err != nil {
		return nil, err
	}
	c := *in.Record.Config
	c.Tty = in.Tty
	env := environment(&c, &in.Input)
	dir := req.WorkingDir
	if dir == "" {
		dir = workingDir(c.WorkingDir)
	}
	oom := hc.OomScoreAdj
	p := &specs.Process{
		Terminal:        in.Tty,
		Args:            req.Cmd,
		Env:             Override(env, req.Env),
		Cwd:             dir,
		User:            processUser(in.Identity, hc.Umask),
		Capabilities:    capabilities(caps, in.Identity.UID),
		Rlimits:         rlimits(hc),
		NoNewPrivileges: security.NoNewPrivileges,
		OOMScoreAdj:     &oom,
	}
	if in.Tty && in.Console != nil && in.Console[0] > 0 && in.Console[1] > 0 {
		p.ConsoleSize = &specs.Box{Height: in.Console[0], Width: in.Console[1]}
	}
	return p, nil
}
