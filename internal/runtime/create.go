package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"berth/internal/fault"
	"berth/internal/runtime/boot"
	"berth/internal/runtime/cgroup"
	"berth/internal/runtime/config"
	"berth/internal/runtime/plan"
	"berth/internal/runtime/seccomp"
	"berth/internal/runtime/smallfile"
	"berth/internal/runtime/systemd"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// creation is one container on its way into being.
type creation struct {
	resources
	c      *Container
	opts   *CreateOptions
	ns     config.Namespaces
	wait   bool // at the fence
	userNS bool
	made   uint64 // namespaces that clone makes
	rootFD int
	input  plan.Container
	entry  *cgroup.Entry
	idmaps idMapper
	lock   int
	// placeholder ends the process that keeps a scope alive; nil without one.
	placeholder func()
}

func create(ctx context.Context, opts CreateOptions, wait bool) (*Container, error) {
	k, err := newCreation(&opts, wait)
	if err != nil {
		return nil, err
	}
	err = k.run(ctx)
	k.close()
	if k.placeholder != nil {
		k.placeholder()
	}
	k.idmaps.close()
	if k.entry != nil {
		k.entry.Close()
	}
	if err != nil {
		for i := len(k.undo) - 1; i >= 0; i-- {
			k.undo[i]()
		}
	}
	unix.Close(k.lock)
	if err != nil {
		return nil, err
	}
	return k.c, nil
}

func newCreation(opts *CreateOptions, wait bool) (*creation, error) {
	if opts.Spec == nil {
		return nil, fault.New(fault.Invalid, "create container", opts.ID, "no specification is given")
	}
	if err := checkID(opts.ID); err != nil {
		return nil, err
	}
	if err := config.Validate(opts.Spec, opts.Overlay == nil); err != nil {
		return nil, err
	}
	if err := checkModules(opts.Spec); err != nil {
		return nil, err
	}
	root, err := filepath.Abs(opts.Root)
	if err != nil || opts.Root == "" {
		return nil, fault.New(fault.Invalid, "create container", opts.ID, "no directory for its state is given")
	}
	k := &creation{
		c:    &Container{id: opts.ID, root: root, spec: opts.Spec},
		opts: opts, wait: wait, ns: config.NamespacesOf(opts.Spec), lock: -1, rootFD: -1,
	}
	k.userNS = k.ns.Separate(specs.UserNamespace)
	if n := opts.PreserveFDs + len(opts.ExtraFiles); n > 0 {
		k.base = 3 + n
	}
	return k, nil
}

// run does the work in the order in which things depend on each other; what it
// leaves behind on an error is in k.undo.
func (k *creation) run(ctx context.Context) error {
	if err := k.claim(); err != nil {
		return err
	}
	if err := k.makeCgroup(); err != nil {
		return err
	}
	if err := k.openHost(); err != nil {
		return err
	}
	if err := k.openProcess(); err != nil {
		return err
	}
	s, err := k.launch()
	if err != nil {
		return err
	}
	defer s.close()
	stop := context.AfterFunc(ctx, s.kill)
	defer stop()
	if err := k.settle(ctx, s); err != nil {
		s.kill()
		s.reap()
		if ctx.Err() != nil {
			err = fault.New(fault.Canceled, "create container", k.c.id, "%w", context.Cause(ctx))
		}
		return err
	}
	k.c.Init.PidFD = s.take(nil)
	k.c.Init.Console, s.console = s.console, nil
	return nil
}

// claim makes the state directory. What a creation that was killed left behind
// is taken over; it can be told by its lock, which nobody holds.
func (k *creation) claim() error {
	dir := k.c.dir()
	conflict := fault.New(fault.Conflict, "create container", k.c.id, "container with given ID already exists")
	err := os.Mkdir(dir, 0o711)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(k.c.root, 0o711); err == nil {
			err = os.Mkdir(dir, 0o711)
		}
	}
	fresh := err == nil
	if err != nil && !errors.Is(err, os.ErrExist) {
		return fault.New(fault.Internal, "create container", k.c.id, "%w", err)
	}
	if k.lock, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return conflict
	}
	if unix.Flock(k.lock, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return conflict
	}
	if !fresh {
		if _, err := os.Stat(filepath.Join(dir, stateName)); err == nil {
			return conflict
		}
		for _, name := range [...]string{fenceName, reportName} {
			_ = os.Remove(filepath.Join(dir, name))
		}
	}
	k.undo = append(k.undo, func() { _ = os.RemoveAll(dir) })
	return k.saveSpec()
}

func (k *creation) saveSpec() error {
	text := k.opts.SpecJSON
	if text == nil {
		var err error
		if text, err = json.Marshal(k.opts.Spec); err != nil {
			return fault.New(fault.Internal, "encode", configName, "%w", err)
		}
	}
	if err := smallfile.Write(filepath.Join(k.c.dir(), configName), text, 0o600); err != nil {
		return fault.New(fault.Internal, "create container", k.c.id, "%w", err)
	}
	return nil
}

// makeCgroup makes the cgroup, unless the host gives us none to make.
func (k *creation) makeCgroup() error {
	var res *specs.LinuxResources
	if k.opts.Spec.Linux != nil {
		res = k.opts.Spec.Linux.Resources
	}
	var err error
	if k.opts.SystemdCgroup {
		err = k.makeScope(res)
	} else {
		k.c.cg, err = cgroup.New(cgroupPath(k.opts))
	}
	if err != nil {
		return err
	}
	cg := k.c.cg
	k.undo = append(k.undo, func() {
		if !cg.Foreign() {
			_ = cg.Delete()
		}
	})
	if err := cg.Create(res); err != nil {
		return err
	}
	if k.entry, err = cg.Enter(k.base); err != nil {
		return err
	}
	return nil
}

// cgroupPath returns where the container's cgroup goes.
func cgroupPath(opts *CreateOptions) string {
	if l := opts.Spec.Linux; l != nil && l.CgroupsPath != "" {
		return l.CgroupsPath
	}
	return opts.ID
}

// makeScope lets the service manager make the cgroup. It wants a process to put
// there; one that does nothing keeps the place until the init is in.
func (k *creation) makeScope(res *specs.LinuxResources) error {
	if !systemd.Running() {
		return fault.New(fault.Unsupported, "make cgroup of", k.c.id, "systemd does not run on this host").WithHint("leave out --systemd-cgroup")
	}
	path := ""
	if k.opts.Spec.Linux != nil {
		path = k.opts.Spec.Linux.CgroupsPath
	}
	unit, err := systemd.ParseUnit(path, k.c.id)
	if err != nil {
		return err
	}
	image, err := plan.Sleeper()
	if err != nil {
		return err
	}
	l := boot.Launch{CgroupFD: -1, Name: "berth-scope"}
	pid, pidfd, err := l.Start(image)
	if err != nil {
		return fault.New(fault.Internal, "make cgroup of", k.c.id, "%w", err)
	}
	k.placeholder = func() {
		_ = unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0)
		waitPid(pid)
		pidfd.Close()
	}
	if err := unit.Start(pid, systemd.Properties(res, cgroup.Weight)); err != nil {
		return err
	}
	k.c.st.Unit, k.c.st.Slice = unit.Name, unit.Slice
	if k.c.cg, err = cgroup.New(unit.Path()); err != nil {
		return err
	}
	k.c.cg.Share()
	return nil
}

// openHost opens everything of the host that the init needs.
func (k *creation) openHost() error {
	spec, in := k.opts.Spec, &k.input
	var err error
	if in.Proc, err = k.openProc(); err != nil {
		return err
	}
	in.Spec, in.Root = spec, plan.None
	path := k.rootPath()
	in.AttachAt = "/"
	if k.ns.New(specs.MountNamespace) {
		if in.Root, err = k.openRoot(k.opts, path); err != nil {
			return err
		}
		if spec.Hooks != nil && len(spec.Hooks.CreateContainer) > 0 {
			// The hooks see the host's tree, so the root must not cover it.
			if in.AttachAt = path; k.opts.Overlay != nil {
				in.AttachAt = k.c.dir()
			}
		}
	} else {
		if k.opts.Overlay != nil {
			return fault.New(fault.Invalid, "check", "linux.namespaces", "an overlay root needs a mount namespace")
		}
		in.AttachAt = path
	}
	k.rootFD = in.Root
	if in.Joins, k.made, k.c.st.Namespaces, err = k.namespaces(spec); err != nil {
		return err
	}
	if in.Binds, err = k.binds(spec, k.opts.Bundle, &k.idmaps); err != nil {
		return err
	}
	if k.userNS {
		if err := k.deviceBinds(); err != nil {
			return err
		}
	}
	return k.hierarchies()
}

func (k *creation) rootPath() string {
	if k.opts.Overlay != nil || k.opts.Spec.Root == nil {
		return ""
	}
	path := k.opts.Spec.Root.Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(k.opts.Bundle, path)
	}
	return path
}

// deviceBinds opens device nodes of the host: in a user namespace nobody can
// make any.
func (k *creation) deviceBinds() error {
	k.input.DevBinds = map[string]int{}
	for _, path := range plan.DevicePaths(k.opts.Spec) {
		fd, err := k.openTree(unix.AT_FDCWD, path, false)
		if err != nil {
			return fault.New(fault.Internal, "open device", path, "%w", err)
		}
		k.input.DevBinds[path] = fd
	}
	return nil
}

// hierarchies prepares what a mount of type cgroup shows.
func (k *creation) hierarchies() error {
	wanted := false
	for i := range k.opts.Spec.Mounts {
		t := k.opts.Spec.Mounts[i].Type
		wanted = wanted || t == "cgroup" || t == "cgroup2"
	}
	if !wanted {
		return nil
	}
	for _, v := range k.c.cg.Views() {
		h := plan.Hierarchy{Name: v.Name, V2: v.Controllers == nil, Tree: plan.None}
		for _, c := range v.Controllers {
			if strings.HasPrefix(c, "name=") {
				h.Options = append(h.Options, "none")
			}
			h.Options = append(h.Options, c)
		}
		if !k.ns.Separate(specs.CgroupNamespace) {
			fd, err := k.openTree(unix.AT_FDCWD, v.Dir, false)
			if err == nil {
				err = setAttr(fd, false, unix.MountAttr{Propagation: unix.MS_PRIVATE})
			}
			if err != nil {
				return fault.New(fault.Internal, "open cgroup", v.Dir, "%w", err)
			}
			h.Tree = fd
		}
		k.input.Hierarchy = append(k.input.Hierarchy, h)
	}
	return nil
}

// openProcess prepares what concerns the process itself.
func (k *creation) openProcess() error {
	in, opts := &k.input, k.opts
	p, err := k.process(opts.Spec.Process, opts.Stdio, opts.PreserveFDs, opts.ExtraFiles, k.userNS)
	if err != nil {
		return err
	}
	p.Env = withHome(opts.Spec.Process, k.rootFD)
	if !opts.NoNewKeyring {
		p.Keyring = "_ses." + opts.ID
	}
	if l := opts.Spec.Linux; l != nil && l.Seccomp != nil {
		if p.Filter, err = seccomp.Cached(l.Seccomp); err != nil {
			return err
		}
	}
	if l := opts.Spec.Linux; l != nil && p.Labels.SELinux {
		in.Label = l.MountLabel
	}
	p.Blocked = opts.Spec.Annotations[config.BlockSignals] != ""
	in.Process = *p
	in.NoPivot = opts.NoPivot
	in.Tasks, in.Cgroup = k.entry.Tasks, plan.None
	in.Fence, in.Report = plan.None, plan.None
	in.Started = k.userNS
	if h := opts.Spec.Hooks; h != nil {
		in.Hooks = len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer) > 0
		in.StartHooks = len(h.StartContainer) > 0
	}
	if !k.wait {
		return nil
	}
	fence := filepath.Join(k.c.dir(), fenceName)
	if err := unix.Mkfifo(fence, 0o600); err != nil {
		return fault.New(fault.Internal, "create", fence, "%w", err)
	}
	if in.Fence, err = k.open(fence, unix.O_RDWR); err != nil {
		return fault.New(fault.Internal, "create", fence, "%w", err)
	}
	report := filepath.Join(k.c.dir(), reportName)
	fd, err := unix.Open(report, unix.O_CREAT|unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0o600)
	if err == nil {
		fd, err = k.high(fd)
	}
	if err != nil {
		return fault.New(fault.Internal, "create", report, "%w", err)
	}
	in.Report = k.keep(fd)
	return nil
}
