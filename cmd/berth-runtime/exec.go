package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	"berth/internal/runtime"
	"berth/internal/runtime/config"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// execFlags are the flags of exec; those that describe the process override the
// container's own, or are refused beside --process.
type execFlags struct {
	process, cwd, user, label, apparmor    string
	consoleSocket, pidFile, cgroup, pidfds string
	env, caps, groups                      list
	tty, detach, noNewPrivs, ignorePaused  bool
	preserveFDs                            int
}

func (e *execFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&e.process, "process", "", "file with the process as JSON")
	fs.StringVar(&e.process, "p", "", "same as --process")
	fs.StringVar(&e.cwd, "cwd", "", "working directory")
	fs.StringVar(&e.user, "user", "", "UID[:GID]")
	fs.StringVar(&e.user, "u", "", "same as --user")
	fs.Var(&e.env, "env", "KEY=VALUE, may be repeated")
	fs.Var(&e.env, "e", "same as --env")
	fs.Var(&e.groups, "additional-gids", "supplementary group id, may be repeated")
	fs.Var(&e.groups, "g", "same as --additional-gids")
	fs.Var(&e.caps, "cap", "capability to add, may be repeated")
	fs.Var(&e.caps, "c", "same as --cap")
	fs.BoolVar(&e.tty, "tty", false, "give the process a terminal")
	fs.BoolVar(&e.tty, "t", false, "same as --tty")
	fs.BoolVar(&e.detach, "detach", false, "return when the program runs")
	fs.BoolVar(&e.detach, "d", false, "same as --detach")
	fs.BoolVar(&e.noNewPrivs, "no-new-privs", false, "set no_new_privs")
	fs.BoolVar(&e.ignorePaused, "ignore-paused", false, "start although the container is paused")
	fs.StringVar(&e.consoleSocket, "console-socket", "", "unix socket that receives the terminal's master")
	fs.StringVar(&e.pidfds, "pidfd-socket", "", "unix socket that receives a pidfd of the process")
	fs.StringVar(&e.pidFile, "pid-file", "", "file to write the process id to")
	fs.StringVar(&e.label, "process-label", "", "SELinux label")
	fs.StringVar(&e.apparmor, "apparmor", "", "AppArmor profile")
	fs.StringVar(&e.cgroup, "cgroup", "", "sub-cgroup to run in")
	fs.IntVar(&e.preserveFDs, "preserve-fds", 0, "pass this many descriptors from 3 on")
}

func setupExec(g *global, fs *flag.FlagSet) func([]string) (int, error) {
	var e execFlags
	e.register(fs)
	return func(args []string) (int, error) {
		container, err := runtime.Load(g.root, args[0])
		if err != nil {
			return 1, err
		}
		process, err := e.build(container, args[1:])
		if err != nil {
			return 1, err
		}
		if err := checkTerminal(process, e.consoleSocket, e.detach); err != nil {
			return 1, err
		}
		started, err := container.Exec(context.Background(), runtime.ExecOptions{
			Process: process, Stdio: runtime.Stdio{os.Stdin, os.Stdout, os.Stderr},
			ConsoleSocket: e.consoleSocket, PidFile: e.pidFile, PreserveFDs: e.preserveFDs,
			Cgroup: e.cgroup, IgnorePaused: e.ignorePaused,
		})
		if err != nil {
			return executableCode(err), err
		}
		if err := sendPidFD(e.pidfds, started); err != nil {
			return 1, err
		}
		if e.detach {
			return 0, nil
		}
		return foreground(started)
	}
}

// build makes the process from --process, or from the container's own and the
// flags.
func (e *execFlags) build(container *runtime.Container, argv []string) (*specs.Process, error) {
	if e.process != "" {
		text, err := os.ReadFile(e.process)
		if err != nil {
			return nil, fmt.Errorf("--process: %w", err)
		}
		return config.ParseProcess(text)
	}
	if len(argv) == 0 {
		return nil, errors.New("exec: the command is missing; give one, or --process")
	}
	spec := container.Spec()
	if spec == nil || spec.Process == nil {
		return nil, errors.New("exec: the container's configuration has no process to start from; give --process")
	}
	p := *spec.Process
	p.Args, p.CommandLine = argv, ""
	p.Terminal = e.tty
	p.Env = append(append([]string(nil), p.Env...), e.env...)
	p.NoNewPrivileges = p.NoNewPrivileges || e.noNewPrivs
	if e.cwd != "" {
		p.Cwd = e.cwd
	}
	if e.label != "" {
		p.SelinuxLabel = e.label
	}
	if e.apparmor != "" {
		p.ApparmorProfile = e.apparmor
	}
	if err := e.applyUser(&p); err != nil {
		return nil, err
	}
	e.addCapabilities(&p)
	return &p, nil
}

func (e *execFlags) applyUser(p *specs.Process) error {
	if e.user != "" {
		uid, gid, both := strings.Cut(e.user, ":")
		n, err := strconv.ParseUint(uid, 10, 32)
		if err != nil {
			return fmt.Errorf("--user %q: want UID[:GID] in numbers", e.user)
		}
		p.User.UID = uint32(n)
		if both {
			if n, err = strconv.ParseUint(gid, 10, 32); err != nil {
				return fmt.Errorf("--user %q: want UID[:GID] in numbers", e.user)
			}
			p.User.GID = uint32(n)
		}
	}
	for _, group := range e.groups {
		n, err := strconv.ParseUint(group, 10, 32)
		if err != nil {
			return fmt.Errorf("--additional-gids %q: want a number", group)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(n))
	}
	return nil
}

// addCapabilities adds to the sets a process may use, never to the inheritable
// one (CVE-2022-29162).
func (e *execFlags) addCapabilities(p *specs.Process) {
	if len(e.caps) == 0 {
		return
	}
	caps := specs.LinuxCapabilities{}
	if p.Capabilities != nil {
		caps = *p.Capabilities
	}
	add := func(set []string) []string { return append(append([]string(nil), set...), e.caps...) }
	caps.Bounding, caps.Effective, caps.Permitted = add(caps.Bounding), add(caps.Effective), add(caps.Permitted)
	p.Capabilities = &caps
}
