package spec

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/internal/container"
	"berth/internal/container/identity"
	"berth/internal/engine/vocabulary"
	"berth/internal/volume"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// input returns what a plain `run image true` is made from, changed by change.
func input(change func(*api.Config, *api.HostConfig, *Input)) Input {
	r := &vocabulary.Request{
		Config:     &api.Config{Cmd: []string{"true"}},
		HostConfig: &api.HostConfig{},
		Networking: &network.NetworkingConfig{},
	}
	in := Input{
		Record:   &container.Record{ID: "0123456789abcdef", Path: "true", Config: r.Config, HostConfig: r.HostConfig},
		Identity: identity.Identity{Groups: []uint32{0}, Home: "/root"}, Hostname: "0123456789ab",
		Resolv: "/d/resolv.conf", Hosts: "/d/hosts", HostnameFile: "/d/hostname", LastCap: 40,
	}
	if change != nil {
		change(r.Config, r.HostConfig, &in)
	}
	r.Default()
	return in
}

func build(t *testing.T, in Input) *specs.Spec {
	t.Helper()
	var b Builder
	s, err := b.Build(in)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func find(s *specs.Spec, dst string) *specs.Mount {
	for i := range s.Mounts {
		if s.Mounts[i].Destination == dst {
			return &s.Mounts[i]
		}
	}
	return nil
}

func namespace(s *specs.Spec, kind specs.LinuxNamespaceType) (path string, ok bool) {
	for _, n := range s.Linux.Namespaces {
		if n.Type == kind {
			return n.Path, true
		}
	}
	return "", false
}

func TestDefaults(t *testing.T) {
	s := build(t, input(nil))
	p := s.Process
	if len(p.Capabilities.Bounding) != 14 || len(p.Capabilities.Effective) != 14 || len(p.Capabilities.Inheritable) != 0 || len(p.Capabilities.Ambient) != 0 {
		t.Errorf("capabilities: %+v", p.Capabilities)
	}
	want := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=0123456789ab", "HOME=/root"}
	if !slices.Equal(p.Env, want) {
		t.Errorf("env: %q", p.Env)
	}
	if p.Cwd != "/" || p.Terminal || p.NoNewPrivileges || s.Hostname != "0123456789ab" || s.Linux.CgroupsPath != "/berth/0123456789abcdef" {
		t.Errorf("%+v %s %s", p, s.Hostname, s.Linux.CgroupsPath)
	}
	for dst, opt := range map[string]string{"/sys": "ro", "/sys/fs/cgroup": "ro", "/dev/shm": "size=67108864", "/proc": "noexec", "/dev/pts": "newinstance"} {
		if m := find(s, dst); m == nil || !slices.Contains(m.Options, opt) {
			t.Errorf("%s: %+v, want option %s", dst, m, opt)
		}
	}
	if len(s.Linux.MaskedPaths) == 0 || len(s.Linux.ReadonlyPaths) == 0 {
		t.Error("nothing is masked or read-only")
	}
	if d := s.Linux.Resources.Devices; len(d) != 1 || d[0].Allow {
		t.Errorf("devices are not denied first: %+v", d)
	}
	for _, kind := range []specs.LinuxNamespaceType{specs.MountNamespace, specs.NetworkNamespace, specs.UTSNamespace, specs.PIDNamespace, specs.IPCNamespace} {
		if path, ok := namespace(s, kind); !ok || path != "" {
			t.Errorf("namespace %s: %q %v", kind, path, ok)
		}
	}
	if _, ok := namespace(s, specs.CgroupNamespace); ok {
		t.Error("a cgroup namespace on cgroup v1, where docker gives none")
	}
}

func TestOptions(t *testing.T) {
	null := api.DeviceMapping{PathOnHost: "/dev/null", PathInContainer: "/dev/nothing", CgroupPermissions: "r"}
	tests := []struct {
		name   string
		change func(*api.Config, *api.HostConfig, *Input)
		check  func(*specs.Spec) bool
	}{
		{"env replaces in place", func(c *api.Config, _ *api.HostConfig, _ *Input) { c.Env = []string{"PATH=/bin", "A=1", "HOSTNAME"} },
			func(s *specs.Spec) bool {
				return slices.Equal(s.Process.Env, []string{"PATH=/bin", "A=1", "HOME=/root"})
			}},
		{"home of the user's wins", func(c *api.Config, _ *api.HostConfig, _ *Input) { c.Env = []string{"HOME=/h"} },
			func(s *specs.Spec) bool {
				return slices.Contains(s.Process.Env, "HOME=/h") && !slices.Contains(s.Process.Env, "HOME=/root")
			}},
		{"terminal", func(c *api.Config, h *api.HostConfig, _ *Input) { c.Tty, h.ConsoleSize = true, [2]uint{24, 80} },
			func(s *specs.Spec) bool {
				return s.Process.Terminal && slices.Contains(s.Process.Env, "TERM=xterm") && s.Process.ConsoleSize.Width == 80
			}},
		{"other users get no effective capabilities", func(_ *api.Config, _ *api.HostConfig, in *Input) { in.Identity.UID = 5 },
			func(s *specs.Spec) bool {
				return len(s.Process.Capabilities.Bounding) == 14 && len(s.Process.Capabilities.Effective)+len(s.Process.Capabilities.Permitted) == 0
			}},
		{"privileged", func(_ *api.Config, h *api.HostConfig, _ *Input) { h.Privileged = true },
			func(s *specs.Spec) bool {
				return len(s.Process.Capabilities.Bounding) == 41 && len(s.Linux.MaskedPaths) == 0 && len(s.Linux.Devices) > 3 &&
					s.Linux.Resources.Devices[0].Allow && slices.Contains(find(s, "/sys").Options, "rw") && slices.Contains(find(s, "/sys/fs/cgroup").Options, "rw")
			}},
		{"device", func(_ *api.Config, h *api.HostConfig, _ *Input) { h.Devices = []api.DeviceMapping{null} },
			func(s *specs.Spec) bool {
				rule := s.Linux.Resources.Devices[1]
				return len(s.Linux.Devices) == 1 && s.Linux.Devices[0].Path == "/dev/nothing" && s.Linux.Devices[0].Major == 1 &&
					rule.Allow && rule.Access == "r" && *rule.Minor == 3
			}},
		{"device rule", func(_ *api.Config, h *api.HostConfig, _ *Input) { h.DeviceCgroupRules = []string{"c 13:* rw"} },
			func(s *specs.Spec) bool {
				rule := s.Linux.Resources.Devices[1]
				return rule.Allow && *rule.Major == 13 && rule.Minor == nil && rule.Access == "rw"
			}},
		{"host network", func(_ *api.Config, h *api.HostConfig, in *Input) { h.NetworkMode, in.Net.Host = "host", true },
			func(s *specs.Spec) bool { _, ok := namespace(s, specs.NetworkNamespace); return !ok }},
		{"joined network", func(_ *api.Config, _ *api.HostConfig, in *Input) { in.Net.Path = "/run/netns/x" },
			func(s *specs.Spec) bool {
				p, ok := namespace(s, specs.NetworkNamespace)
				return ok && p == "/run/netns/x"
			}},
		{"host pid", func(_ *api.Config, _ *api.HostConfig, in *Input) { in.PID.Host = true },
			func(s *specs.Spec) bool { _, ok := namespace(s, specs.PIDNamespace); return !ok }},
		{"host uts", func(_ *api.Config, _ *api.HostConfig, in *Input) { in.UTS.Host = true },
			func(s *specs.Spec) bool { _, ok := namespace(s, specs.UTSNamespace); return !ok && s.Hostname == "" }},
		{"private cgroup", func(_ *api.Config, h *api.HostConfig, _ *Input) { h.CgroupnsMode = "private" },
			func(s *specs.Spec) bool { _, ok := namespace(s, specs.CgroupNamespace); return ok }},
		{"cgroup parent", func(_ *api.Config, h *api.HostConfig, _ *Input) { h.CgroupParent = "jobs" },
			func(s *specs.Spec) bool { return s.Linux.CgroupsPath == "/jobs/0123456789abcdef" }},
		{"no ipc", func(_ *api.Config, _ *api.HostConfig, in *Input) { in.NoIPC = true },
			func(s *specs.Spec) bool { return find(s, "/dev/shm") == nil }},
		{"shared ipc", func(_ *api.Config, _ *api.HostConfig, in *Input) { in.ShmSource = "/run/shm/x" },
			func(s *specs.Spec) bool {
				m := find(s, "/dev/shm")
				return m.Type == "bind" && m.Source == "/run/shm/x"
			}},
		{"limits", func(_ *api.Config, h *api.HostConfig, _ *Input) {
			h.Memory, h.NanoCPUs, h.CpusetCpus = 64<<20, 15e8, "0"
			n := int64(7)
			h.PidsLimit = &n
		}, func(s *specs.Spec) bool {
			r := s.Linux.Resources
			return *r.Memory.Limit == 64<<20 && *r.Memory.Swap == 128<<20 && *r.CPU.Quota == 150000 && *r.CPU.Period == 100000 &&
				r.CPU.Cpus == "0" && *r.Pids.Limit == 7
		}},
		{"no pids limit", func(_ *api.Config, h *api.HostConfig, _ *Input) { n := int64(-1); h.PidsLimit = &n },
			func(s *specs.Spec) bool { return s.Linux.Resources.Pids == nil }},
		{"ulimits", func(_ *api.Config, h *api.HostConfig, _ *Input) {
			h.Ulimits = []*api.Ulimit{{Name: "nofile", Soft: 10, Hard: 20}, {Name: "core", Soft: -1, Hard: -1}}
		}, func(s *specs.Spec) bool {
			r := s.Process.Rlimits
			return r[0].Type == "RLIMIT_NOFILE" && r[0].Soft == 10 && r[0].Hard == 20 && r[1].Soft == ^uint64(0)
		}},
		{"read-only root", func(_ *api.Config, h *api.HostConfig, _ *Input) { h.ReadonlyRootfs = true },
			func(s *specs.Spec) bool {
				return s.Root.Readonly && slices.Contains(find(s, "/etc/hosts").Options, "rro")
			}},
		{"no new privileges", func(_ *api.Config, h *api.HostConfig, _ *Input) { h.SecurityOpt = []string{"no-new-privileges"} },
			func(s *specs.Spec) bool { return s.Process.NoNewPrivileges }},
		{"unmasked", func(_ *api.Config, h *api.HostConfig, _ *Input) { h.SecurityOpt = []string{"systempaths=unconfined"} },
			func(s *specs.Spec) bool { return len(s.Linux.MaskedPaths)+len(s.Linux.ReadonlyPaths) == 0 }},
		{"masked by hand", func(_ *api.Config, h *api.HostConfig, _ *Input) { h.MaskedPaths = []string{"/proc/x"} },
			func(s *specs.Spec) bool {
				return slices.Equal(s.Linux.MaskedPaths, []string{"/proc/x"}) && len(s.Linux.ReadonlyPaths) > 0
			}},
		{"umask and groups", func(_ *api.Config, h *api.HostConfig, in *Input) {
			u := uint32(0o27)
			h.Umask, in.Identity.Groups = &u, []uint32{0, 10}
		}, func(s *specs.Spec) bool {
			return *s.Process.User.Umask == 0o27 && slices.Equal(s.Process.User.AdditionalGids, []uint32{0, 10})
		}},
		{"init", func(c *api.Config, h *api.HostConfig, in *Input) {
			on := true
			h.Init, in.InitFile, c.Env = &on, "/d/init", []string{"PATH=/a:/b"}
		}, func(s *specs.Spec) bool {
			m := find(s, "/sbin/docker-init")
			return m.Source == "/d/init" && slices.Contains(m.Options, "rro") &&
				slices.Equal(s.Process.Args, []string{"/sbin/docker-init", "/a/true", "/b/true", "", "true"})
		}},
		{"no init beside another process 1", func(_ *api.Config, h *api.HostConfig, in *Input) {
			on := true
			h.Init, in.InitFile, h.PidMode, in.PID.Host = &on, "/d/init", "host", true
		}, func(s *specs.Spec) bool {
			return find(s, "/sbin/docker-init") == nil && slices.Equal(s.Process.Args, []string{"true"})
		}},
		{"oom score", func(_ *api.Config, h *api.HostConfig, _ *Input) { h.OomScoreAdj = -5 },
			func(s *specs.Spec) bool { return *s.Process.OOMScoreAdj == -5 }},
		{"sysctl and annotation", func(_ *api.Config, h *api.HostConfig, _ *Input) {
			h.Sysctls, h.Annotations = map[string]string{"net.x": "1"}, map[string]string{"a": "b"}
		}, func(s *specs.Spec) bool { return s.Linux.Sysctl["net.x"] == "1" && s.Annotations["a"] == "b" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := build(t, input(tt.change))
			if !tt.check(s) {
				text, _ := json.MarshalIndent(s, "", " ")
				t.Errorf("not as wanted:\n%s", text)
			}
		})
	}
}

func TestMountsAreInOrderAndTakeTheDefaultsPlace(t *testing.T) {
	in := input(nil)
	in.Record.Mounts = []volume.Mount{
		{Type: "bind", Source: "/h/deep", Destination: "/a/b/c"},
		{Type: "bind", Source: "/h", Destination: "/a", ReadOnly: true},
		{Type: "bind", Source: "/h/flat", Destination: "/a/b", NonRecursive: true, ReadOnly: true},
		{Type: "tmpfs", Destination: "/dev/shm", Options: []string{"size=1m"}},
		{Type: "bind", Source: "/mine", Destination: "/etc/hosts"},
	}
	s := build(t, in)
	var order []string
	shm, hosts := 0, ""
	for _, m := range s.Mounts {
		order = append(order, m.Destination)
		if m.Destination == "/dev/shm" {
			shm++
		}
		if m.Destination == "/etc/hosts" {
			hosts += m.Source
		}
	}
	at := func(dst string) int { return slices.Index(order, dst) }
	if !(at("/a") < at("/a/b") && at("/a/b") < at("/a/b/c")) {
		t.Errorf("order: %v", order)
	}
	if shm != 1 || find(s, "/dev/shm").Options[0] != "size=1m" || hosts != "/mine" {
		t.Errorf("the user's mounts did not take the default's place: %v %q", order, hosts)
	}
	if o := find(s, "/a").Options; !slices.Equal(o, []string{"rbind", "rprivate", "rro"}) {
		t.Errorf("/a: %v", o)
	}
	if o := find(s, "/a/b").Options; !slices.Equal(o, []string{"bind", "rprivate", "ro"}) {
		t.Errorf("/a/b: %v", o)
	}
}

func TestPropagationNeedsAHostMountThatPropagates(t *testing.T) {
	in := input(nil)
	in.Record.Mounts = []volume.Mount{{Type: "bind", Source: "/proc", Destination: "/a", Propagation: "rshared"}}
	var b Builder
	s, err := b.Build(in)
	if err == nil && s.Linux.RootfsPropagation != "rshared" {
		t.Errorf("propagation of the root: %q", s.Linux.RootfsPropagation)
	}
	if err != nil && !strings.Contains(err.Error(), "does not propagate") {
		t.Error(err)
	}
}

func TestMissingDevice(t *testing.T) {
	for _, path := range []string{"/dev/berth-has-no-such-device", "/etc/passwd"} {
		in := input(func(_ *api.Config, h *api.HostConfig, _ *Input) { h.Devices = []api.DeviceMapping{{PathOnHost: path}} })
		var b Builder
		if _, err := b.Build(in); err == nil || !strings.Contains(err.Error(), `error gathering device information while adding custom device "`+path+`"`) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestEncodeBringsTheFilter(t *testing.T) {
	var b Builder
	encode := func(change func(*api.Config, *api.HostConfig, *Input)) *specs.Spec {
		t.Helper()
		in := input(change)
		s, err := b.Build(in)
		if err != nil {
			t.Fatal(err)
		}
		text, err := b.Encode(s, in)
		if err != nil {
			t.Fatal(err)
		}
		var back specs.Spec
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		if s.Linux.Seccomp != nil {
			t.Error("the specification was changed")
		}
		return &back
	}
	allows := func(s *specs.Spec, call string) bool {
		for _, c := range s.Linux.Seccomp.Syscalls {
			if c.Action == specs.ActAllow && slices.Contains(c.Names, call) && len(c.Args) == 0 {
				return true
			}
		}
		return false
	}
	plain := encode(func(c *api.Config, _ *api.HostConfig, _ *Input) { c.Env = []string{`X={"defaultAction":"@"}`} })
	if plain.Linux.Seccomp == nil || !allows(plain, "read") || allows(plain, "bpf") || !slices.Contains(plain.Process.Env, `X={"defaultAction":"@"}`) {
		t.Error("the default filter is not docker's")
	}
	if admin := encode(func(_ *api.Config, h *api.HostConfig, _ *Input) { h.CapAdd = []string{"SYS_ADMIN"} }); !allows(admin, "bpf") {
		t.Error("the filter does not follow the capabilities")
	}
	for name, change := range map[string]func(*api.Config, *api.HostConfig, *Input){
		"privileged": func(_ *api.Config, h *api.HostConfig, _ *Input) { h.Privileged = true },
		"unconfined": func(_ *api.Config, h *api.HostConfig, _ *Input) { h.SecurityOpt = []string{"seccomp=unconfined"} },
	} {
		if s := encode(change); s.Linux.Seccomp != nil {
			t.Errorf("%s has a filter", name)
		}
	}
	guarded := func(s *specs.Spec) (numbers []uint64) {
		for _, c := range s.Linux.Seccomp.Syscalls {
			if c.Action == specs.ActErrno && slices.Contains(c.Names, "ioctl") && c.Args[0].Op == specs.OpMaskedEqual {
				numbers = append(numbers, c.Args[0].ValueTwo)
			}
		}
		return numbers
	}
	bounded := encode(func(_ *api.Config, _ *api.HostConfig, in *Input) { in.Bounded = true })
	if len(guarded(bounded)) != 3 || !allows(bounded, "ioctl") || len(guarded(encode(func(*api.Config, *api.HostConfig, *Input) {}))) != 0 {
		t.Errorf("a bounded container is kept from %x, another from what it need not be", guarded(bounded))
	}
	custom := encode(func(_ *api.Config, h *api.HostConfig, _ *Input) {
		h.SecurityOpt = []string{`seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}`}
	})
	if custom.Linux.Seccomp.DefaultAction != specs.ActAllow || len(custom.Linux.Seccomp.Syscalls) != 1 {
		t.Errorf("custom: %+v", custom.Linux.Seccomp)
	}
}

func TestExecTakesTheContainersSettings(t *testing.T) {
	in := input(func(c *api.Config, h *api.HostConfig, _ *Input) {
		c.Env, c.WorkingDir = []string{"A=1"}, "/w"
		h.CapDrop = []string{"ALL"}
	})
	p, err := Exec(ExecInput{Input: in, Request: api.ExecCreateRequest{Cmd: []string{"sh"}, Env: []string{"A=2", "B=3"}}, Tty: true, Console: &[2]uint{10, 20}})
	if err != nil {
		t.Fatal(err)
	}
	if p.Cwd != "/w" || len(p.Capabilities.Bounding) != 0 || p.ConsoleSize.Height != 10 || !p.Terminal {
		t.Errorf("%+v", p)
	}
	for _, e := range []string{"A=2", "B=3", "TERM=xterm", "HOSTNAME=0123456789ab"} {
		if !slices.Contains(p.Env, e) {
			t.Errorf("%s is missing in %q", e, p.Env)
		}
	}
	p, err = Exec(ExecInput{Input: in, Request: api.ExecCreateRequest{Cmd: []string{"sh"}, Privileged: true, WorkingDir: "/x"}})
	if err != nil || len(p.Capabilities.Bounding) != 41 || p.Cwd != "/x" || p.Terminal {
		t.Errorf("%+v %v", p, err)
	}
}

func TestDevicesBelowADirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it looks at all devices")
	}
	dir := t.TempDir()
	if err := os.Symlink("/dev/null", filepath.Join(dir, "not-a-device-node")); err != nil {
		t.Fatal(err)
	}
	if list, err := devicesBelow(dir, "/x"); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
	list, err := hostDevices()
	if err != nil || !slices.ContainsFunc(list, func(d specs.LinuxDevice) bool { return d.Path == "/dev/null" && d.Minor == 3 }) {
		t.Errorf("no /dev/null among %d devices: %v", len(list), err)
	}
	if slices.ContainsFunc(list, func(d specs.LinuxDevice) bool { return strings.HasPrefix(d.Path, "/dev/pts/") }) {
		t.Error("terminals of the host are among the devices")
	}
}
