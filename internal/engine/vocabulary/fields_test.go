package vocabulary

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"berth/internal/fault"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// types are all request types whose fields must stand in the table.
var types = []any{
	container.Config{}, container.HostConfig{}, container.Resources{},
	network.NetworkingConfig{}, network.EndpointSettings{}, network.EndpointIPAMConfig{},
}

// key brings the table's names and the types' to one form: fields of Resources
// are embedded in HostConfig, so refusals name them as fields of that.
func key(name string) string { return strings.Replace(name, "Resources.", "HostConfig.", 1) }

func TestEveryFieldIsInTheTable(t *testing.T) {
	known := make(map[string]bool)
	for _, f := range fields {
		if known[key(f.name)] {
			t.Errorf("%s is in the table twice", f.name)
		}
		known[key(f.name)] = true
	}
	seen := make(map[string]bool)
	for _, typ := range types {
		rt := reflect.TypeOf(typ)
		for i := range rt.NumField() {
			name := key(rt.Name() + "." + rt.Field(i).Name)
			seen[name] = true
			if !known[name] {
				t.Errorf("%s is not in the table: it would be ignored silently", name)
			}
		}
	}
	for name := range known {
		if !seen[name] {
			t.Errorf("%s is in the table and in no type", name)
		}
	}
}

// set gives a field a value which is not the neutral one.
func set(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint16, reflect.Uint64:
		v.SetUint(1)
	case reflect.String:
		v.SetString("x")
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem())
	default:
		t.Fatalf("no value for a field of type %s", v.Type())
	}
}

// valid returns a request that passes.
func valid() *Request {
	return &Request{
		Config:     &container.Config{Image: "x", Cmd: []string{"true"}},
		HostConfig: &container.HostConfig{},
		Networking: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{"bridge": {IPAMConfig: &network.EndpointIPAMConfig{}}}},
		Host:       Host{CPUs: 4, Memory: 1 << 30, Nodes: 1},
	}
}

func TestRefusedFieldsAreRefusedByName(t *testing.T) {
	for _, f := range fields {
		if f.class != refused {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			r := valid()
			r.Default()
			if _, err := r.Check(); err != nil {
				t.Fatalf("the plain request is refused: %v", err)
			}
			typ, name, _ := strings.Cut(f.name, ".")
			var owner reflect.Value
			switch typ {
			case "HostConfig":
				owner = reflect.ValueOf(r.HostConfig)
			case "EndpointSettings":
				owner = reflect.ValueOf(r.Networking.EndpointsConfig["bridge"])
			case "EndpointIPAMConfig":
				owner = reflect.ValueOf(r.Networking.EndpointsConfig["bridge"].IPAMConfig)
			default:
				t.Fatalf("unknown type %s", typ)
			}
			set(t, owner.Elem().FieldByName(name))
			_, err := r.Check()
			if !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), name) {
				t.Errorf("got %v, want an error of kind unsupported that names %s", err, name)
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

func TestCheck(t *testing.T) {
	port := func(s string) network.Port { return network.MustParsePort(s) }
	tests := []struct {
		name   string
		change func(*Request)
		want   string // part of the error; "" means accepted
	}{
		{"plain", func(r *Request) {}, ""},
		{"no command", func(r *Request) { r.Config.Cmd = nil }, "no command specified"},
		{"relative workdir", func(r *Request) { r.Config.WorkingDir = "a/b" }, "needs to be an absolute path"},
		{"long hostname", func(r *Request) { r.Config.Hostname = strings.Repeat("x", 65) }, "hostname"},
		{"env without name", func(r *Request) { r.Config.Env = []string{"=x"} }, "invalid environment variable"},
		{"stop signal", func(r *Request) { r.Config.StopSignal = "SIGNOPE" }, "invalid signal: SIGNOPE"},
		{"stop signal by number", func(r *Request) { r.Config.StopSignal = "37" }, ""},
		{"health interval", func(r *Request) { r.Config.Healthcheck = &container.HealthConfig{Interval: 3} }, "Interval in Healthcheck"},
		{"health test", func(r *Request) { r.Config.Healthcheck = &container.HealthConfig{Test: []string{"WAT", "x"}} }, "invalid health check"},
		{"log driver", func(r *Request) { r.HostConfig.LogConfig.Type = "fluentd" }, `log driver "fluentd" is not supported`},
		{"log option", func(r *Request) { r.HostConfig.LogConfig.Config = map[string]string{"nope": "1"} }, "nope"},
		{"log sizes", func(r *Request) {
			r.HostConfig.LogConfig.Config = map[string]string{"max-size": "2m", "max-file": "2"}
		}, ""},
		{"hostname in a shared network", func(r *Request) {
			r.Networking.EndpointsConfig = nil
			r.HostConfig.NetworkMode, r.Config.Hostname = "container:x", "h"
		}, "hostname and the network mode"},
		{"ports in a shared network", func(r *Request) {
			r.Networking.EndpointsConfig = nil
			r.HostConfig.NetworkMode, r.HostConfig.PublishAllPorts = "container:x", true
		}, "port publishing"},
		{"hostname in the host's uts", func(r *Request) { r.HostConfig.UTSMode, r.Config.Hostname = "host", "h" }, "hostname and the UTS mode"},
		{"hostname in another's uts", func(r *Request) { r.HostConfig.UTSMode, r.Config.Hostname = "container:x", "h" }, "hostname and the UTS mode"},
		{"another's namespaces", func(r *Request) {
			r.HostConfig.UTSMode, r.HostConfig.UsernsMode, r.HostConfig.CgroupnsMode = "container:x", "container:x", "container:x"
		}, ""},
		{"nobody's uts", func(r *Request) { r.HostConfig.UTSMode = "container:" }, "invalid UTS mode"},
		{"nobody's cgroups", func(r *Request) { r.HostConfig.CgroupnsMode = "container:" }, "invalid cgroup namespace mode"},
		{"nobody's users", func(r *Request) { r.HostConfig.UsernsMode = "container:" }, "UsernsMode"},
		{"sctp", func(r *Request) { r.HostConfig.PortBindings = network.PortMap{port("80/sctp"): {{}}} }, "sctp is not supported"},
		{"host port", func(r *Request) {
			r.HostConfig.PortBindings = network.PortMap{port("80/tcp"): {{HostPort: "x"}}}
		}, "invalid port specification"},
		{"backward port range", func(r *Request) {
			r.HostConfig.PortBindings = network.PortMap{port("80/tcp"): {{HostPort: "90-80"}}}
		}, "invalid port specification"},
		{"restart policy", func(r *Request) { r.HostConfig.RestartPolicy.Name = "sometimes" }, "invalid restart policy"},
		{"restart count", func(r *Request) {
			r.HostConfig.RestartPolicy = container.RestartPolicy{Name: "always", MaximumRetryCount: 3}
		}, "maximum retry count"},
		{"restart and remove", func(r *Request) {
			r.HostConfig.RestartPolicy.Name, r.HostConfig.AutoRemove = "always", true
		}, "can't create 'AutoRemove' container with restart policy"},
		{"capability", func(r *Request) { r.HostConfig.CapAdd = []string{"CAP_NOPE"} }, "unknown capability"},
		{"userns", func(r *Request) { r.HostConfig.UsernsMode = "private" }, "HostConfig.UsernsMode"},
		{"userns host", func(r *Request) { r.HostConfig.UsernsMode = "host" }, ""},
		{"cgroup of another", func(r *Request) { r.HostConfig.Cgroup = "container:x" }, "HostConfig.Cgroup"},
		{"cgroup as inspected", func(r *Request) { r.HostConfig.Cgroup = "/sys/fs/cgroup/cpuset/berth/x" }, ""},
		{"cgroup parent", func(r *Request) { r.HostConfig.CgroupParent = "/a/../../b" }, "'..'"},
		{"slice", func(r *Request) { r.HostConfig.CgroupParent = "x.slice" }, "systemd slice"},
		{"runtime", func(r *Request) { r.HostConfig.Runtime = "nope" }, "unknown or invalid runtime name: nope"},
		{"init", func(r *Request) { r.HostConfig.Init = ptr(true) }, "HostConfig.Init"},
		{"no init", func(r *Request) { r.HostConfig.Init = ptr(false) }, ""},
		{"sysctl", func(r *Request) { r.HostConfig.Sysctls = map[string]string{"vm.swappiness": "1"} }, "sysctl 'vm.swappiness' is not allowed"},
		{"sysctl climbing", func(r *Request) { r.HostConfig.Sysctls = map[string]string{"net.../vm": "1"} }, "invalid sysctl"},
		{"net sysctl", func(r *Request) { r.HostConfig.Sysctls = map[string]string{"net.core.somaxconn": "1"} }, ""},
		{"net sysctl of the host", func(r *Request) {
			r.Networking.EndpointsConfig = nil
			r.HostConfig.NetworkMode, r.HostConfig.Sysctls = "host", map[string]string{"net.core.somaxconn": "1"}
		}, "network namespace of the host"},
		{"little memory", func(r *Request) { r.HostConfig.Memory = 1 << 20 }, "Minimum memory limit allowed is 6MB"},
		{"swap below memory", func(r *Request) { r.HostConfig.Memory, r.HostConfig.MemorySwap = 64<<20, 32<<20 }, "memoryswap"},
		{"too many cpus", func(r *Request) { r.HostConfig.NanoCPUs = 5e9 }, "only 4 CPUs available"},
		{"cpus and quota", func(r *Request) { r.HostConfig.NanoCPUs, r.HostConfig.CPUQuota = 1e9, 5000 }, "Conflicting options"},
		{"cpuset", func(r *Request) { r.HostConfig.CpusetCpus = "0-9" }, "Requested CPUs are not available"},
		{"memory nodes", func(r *Request) { r.HostConfig.CpusetMems = "0,5" }, "Requested memory nodes are not available - requested 0,5, available: 0"},
		{"cpuset text", func(r *Request) { r.HostConfig.CpusetCpus = "a" }, "Invalid value a for cpuset cpus"},
		{"device rule", func(r *Request) { r.HostConfig.DeviceCgroupRules = []string{"x 1:1 r"} }, "invalid device cgroup rule"},
		{"device permissions", func(r *Request) {
			r.HostConfig.Devices = []container.DeviceMapping{{PathOnHost: "/dev/null", CgroupPermissions: "x"}}
		}, "invalid device permissions"},
		{"ulimit", func(r *Request) { r.HostConfig.Ulimits = []*container.Ulimit{{Name: "nope"}} }, "invalid ulimit type: nope"},
		{"ulimit order", func(r *Request) {
			r.HostConfig.Ulimits = []*container.Ulimit{{Name: "nofile", Soft: 2, Hard: 1}}
		}, "soft limit must be less"},
		{"unlimited", func(r *Request) {
			r.HostConfig.Ulimits = []*container.Ulimit{{Name: "core", Soft: -1, Hard: -1}}
		}, ""},
		{"seccomp file", func(r *Request) { r.HostConfig.SecurityOpt = []string{"seccomp=/x.json"} }, "sent as JSON"},
		{"seccomp off", func(r *Request) { r.HostConfig.SecurityOpt = []string{"seccomp=unconfined"} }, ""},
		{"apparmor", func(r *Request) { r.HostConfig.SecurityOpt = []string{"apparmor=mine"} }, "AppArmor"},
		{"selinux", func(r *Request) { r.HostConfig.SecurityOpt = []string{"label=type:x"} }, "SELinux"},
		{"unknown security option", func(r *Request) { r.HostConfig.SecurityOpt = []string{"wat"} }, "invalid --security-opt"},
		{"extra host", func(r *Request) { r.HostConfig.ExtraHosts = []string{"x:999"} }, "invalid IP address in add-host"},
		{"extra host gateway", func(r *Request) { r.HostConfig.ExtraHosts = []string{"x:host-gateway", "y:[::1]"} }, ""},
		{"two networks", func(r *Request) {
			r.Networking.EndpointsConfig["none"] = &network.EndpointSettings{}
		}, "cannot attach both"},
		{"multicast mac", func(r *Request) {
			r.Networking.EndpointsConfig["bridge"].MacAddress = network.HardwareAddr{1, 2, 3, 4, 5, 6}
		}, "invalid MAC address"},
		{"address family", func(r *Request) {
			r.Networking.EndpointsConfig["bridge"].IPAMConfig.IPv4Address = netip.MustParseAddr("::1")
		}, "invalid IPv4 address"},
		{"output fields are ignored", func(r *Request) {
			r.Networking.EndpointsConfig["bridge"].IPAddress = netip.MustParseAddr("10.0.0.1")
			r.Networking.EndpointsConfig["bridge"].NetworkID = "abc"
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := valid()
			tt.change(r)
			r.Default()
			_, err := r.Check()
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want an error with %q", err, tt.want)
			case err != nil && fault.KindOf(err) == fault.Internal:
				t.Errorf("%v is of kind internal", err)
			}
		})
	}
}

func TestMerge(t *testing.T) {
	img := dockerConfig()
	tests := []struct {
		name       string
		user       container.Config
		entry, cmd []string
	}{
		{"nothing given", container.Config{}, []string{"/entry"}, []string{"serve"}},
		{"command given", container.Config{Cmd: []string{"sh"}}, []string{"/entry"}, []string{"sh"}},
		{"entrypoint given", container.Config{Entrypoint: []string{"/mine"}}, []string{"/mine"}, nil},
		{"both given", container.Config{Entrypoint: []string{"/mine"}, Cmd: []string{"a"}}, []string{"/mine"}, []string{"a"}},
		{"entrypoint removed", container.Config{Entrypoint: []string{""}, Cmd: []string{"sh"}}, nil, []string{"sh"}},
		{"entrypoint emptied", container.Config{Entrypoint: []string{}, Cmd: []string{"sh"}}, nil, []string{"sh"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.user
			Merge(&c, img)
			if strings.Join(c.Entrypoint, " ") != strings.Join(tt.entry, " ") || strings.Join(c.Cmd, " ") != strings.Join(tt.cmd, " ") {
				t.Errorf("got %q %q, want %q %q", c.Entrypoint, c.Cmd, tt.entry, tt.cmd)
			}
		})
	}
	c := container.Config{Env: []string{"A=mine", "GONE"}, Labels: map[string]string{"l": "mine"}, User: "u"}
	Merge(&c, img)
	if strings.Join(c.Env, " ") != "A=mine GONE B=image" {
		t.Errorf("env %q", c.Env)
	}
	if c.Labels["l"] != "mine" || c.Labels["m"] != "image" || c.User != "u" || c.WorkingDir != "/w" {
		t.Errorf("%+v", c)
	}
	if _, ok := c.ExposedPorts[network.MustParsePort("81/tcp")]; !ok {
		t.Errorf("the image's port range is missing: %v", c.ExposedPorts)
	}
	img.Labels["m"] = "changed"
	if c.Labels["m"] != "image" {
		t.Error("the config shares the image's labels")
	}
}

func TestCapabilities(t *testing.T) {
	has := func(add, drop []string, privileged bool) map[string]bool {
		list, err := Capabilities(add, drop, privileged, 40)
		if err != nil {
			t.Fatal(err)
		}
		m := make(map[string]bool)
		for _, c := range list {
			m[c] = true
		}
		return m
	}
	if got := has(nil, nil, false); len(got) != 14 || !got["CAP_CHOWN"] || got["CAP_SYS_ADMIN"] {
		t.Errorf("default: %v", got)
	}
	if got := has([]string{"net_admin"}, []string{"ALL"}, false); len(got) != 1 || !got["CAP_NET_ADMIN"] {
		t.Errorf("drop all, add one: %v", got)
	}
	if got := has([]string{"all"}, []string{"CAP_SYS_ADMIN"}, false); len(got) != 40 || got["CAP_SYS_ADMIN"] {
		t.Errorf("add all, drop one: %v", got)
	}
	if got := has(nil, []string{"ALL"}, true); len(got) != 41 {
		t.Errorf("privileged: %v", got)
	}
}
