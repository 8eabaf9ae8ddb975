package main

import (
	"strings"

	"github.com/spf13/pflag"
)

// flagKind is the form of a value of dockerd's.
type flagKind byte

const (
	boolean flagKind = 'b'
	text    flagKind = 's'
	number  flagKind = 'n'
	list    flagKind = 'l' // repeated on the command line, an array in the file
	pairs   flagKind = 'p' // KEY=VALUE repeated on the command line, an object in the file
)

// dockerdFlag is one option of dockerd.
type dockerdFlag struct {
	name, short string
	kind        flagKind
	key         string // in daemon.json; "" is the name, "-" means not there
	usage       string
	// ignored says why a value has no effect here; "" means that it has, or that
	// what it asks for is so anyway. nil means that it always has.
	ignored func(value string) string
	// refused is set where going on without what is asked for would not be safe.
	refused func(value string) string
}

func (f *dockerdFlag) fileKey() string {
	if f.key == "" {
		return f.name
	}
	return f.key
}

// always ignores an option whatever its value.
func always(why string) func(string) string { return func(string) string { return why } }

// unless ignores an option but for one value, which is what happens anyway.
func unless(value, why string) func(string) string {
	return func(v string) string {
		if v == value || v == "" {
			return ""
		}
		return why
	}
}

// Reasons that several options share.
const (
	ownTable     = "Berth keeps its rules in an nftables table of its own, which other rules and tools need not know"
	needsTable   = "published ports and ways out are nftables rules, in a table of Berth's own that leaves all others alone"
	noContainerd = "Berth needs no containerd"
	noProxy      = "published ports are entries of the packet filter; there is no proxy"
	noSwarm      = "Berth has no swarm"
	noRealtime   = "limits of the real-time scheduler are set for each container"
)

// storageSizeKey is the storage-opt that has an effect.
const storageSizeKey = "overlay2.size"

// dockerdFlags are dockerd's options, in its order.
var dockerdFlags = []dockerdFlag{
	{name: "add-runtime", kind: pairs, key: "runtimes", usage: "offer a further OCI runtime, NAME=PATH"},
	{name: "allow-direct-routing", kind: boolean, ignored: unless("false", ownTable)},
	{name: "allow-nondistributable-artifacts", kind: list, ignored: always("layers that may not be distributed are not kept apart")},
	{name: "api-cors-header", kind: text, ignored: always("browsers are not served across origins")},
	{name: "authorization-plugin", kind: list, key: "authorization-plugins", refused: always("there are no plugins, and requests would go unauthorized")},
	{name: "bip", kind: text, usage: "give the default bridge this address and subnet, CIDR"},
	{name: "bridge", short: "b", kind: text, usage: "call the default bridge so", ignored: func(v string) string {
		if v == "none" {
			return "the default network is always there; use --network none"
		}
		return ""
	}},
	{name: "bridge-accept-fwmark", kind: text, ignored: always(ownTable)},
	{name: "cdi-spec-dir", kind: list, key: "cdi-spec-dirs", ignored: always("specifications of devices are read from /etc/cdi and /var/run/cdi")},
	{name: "cgroup-parent", kind: text, usage: "make the cgroups of containers below this one"},
	{name: "config-file", kind: text, key: "-", usage: "read options from this file (default \"/etc/docker/daemon.json\")"},
	{name: "containerd", kind: text, ignored: always(noContainerd)},
	{name: "containerd-namespace", kind: text, ignored: always(noContainerd)},
	{name: "containerd-plugins-namespace", kind: text, key: "containerd-plugin-namespace", ignored: always(noContainerd)},
	{name: "cpu-rt-period", kind: number, ignored: unless("0", noRealtime)},
	{name: "cpu-rt-runtime", kind: number, ignored: unless("0", noRealtime)},
	{name: "cri-containerd", kind: boolean, ignored: unless("false", noContainerd)},
	{name: "data-root", kind: text, usage: "keep images, containers and volumes below this directory (default \"" + defaultRoot + "\")"},
	{name: "debug", short: "D", kind: boolean, usage: "log more"},
	{name: "default-address-pool", kind: list, key: "default-address-pools", usage: "cut this range into the subnets of networks that name none, base=CIDR,size=BITS"},
	{name: "default-cgroupns-mode", kind: text, usage: "host or private"},
	{name: "default-gateway", kind: text, usage: "let default routes on the default bridge lead to this address"},
	{name: "default-gateway-v6", kind: text, usage: "let default routes on the default bridge lead to this IPv6 address"},
	{name: "default-ipc-mode", kind: text, usage: "private or shareable"},
	{name: "default-network-opt", kind: pairs, key: "default-network-opts", ignored: always("options are given to each network")},
	{name: "default-runtime", kind: text, usage: "the OCI runtime of containers that name none"},
	{name: "default-shm-size", kind: text, usage: "size of /dev/shm"},
	{name: "default-ulimit", kind: pairs, key: "default-ulimits", usage: "NAME=SOFT[:HARD]"},
	{name: "dns", kind: list, usage: "name server of containers"},
	{name: "dns-opt", kind: list, key: "dns-opts", usage: "option of the resolver of containers"},
	{name: "dns-search", kind: list, usage: "search domain of containers"},
	{name: "exec-opt", kind: list, key: "exec-opts", ignored: func(v string) string {
		if v == "native.cgroupdriver=cgroupfs" {
			return ""
		}
		return "Berth manages cgroups by itself (cgroupfs)"
	}},
	{name: "exec-root", kind: text, usage: "keep the run state below this directory (default \"" + defaultRun + "\")"},
	{name: "experimental", kind: boolean, ignored: unless("false", "nothing is hidden behind it")},
	{name: "feature", kind: pairs, key: "features", ignored: always("features of docker's engine are not switched here")},
	{name: "firewall-backend", kind: text, ignored: unless("nftables", ownTable)},
	{name: "fixed-cidr", kind: text, usage: "take the addresses of containers on the default bridge from this part of its subnet"},
	{name: "fixed-cidr-v6", kind: text, usage: "give the default bridge this IPv6 subnet"},
	{name: "group", short: "G", kind: text, usage: "let this group use the unix sockets (default \"docker\")"},
	{name: "host", short: "H", kind: list, key: "hosts", usage: "serve on this address (default \"unix://" + dockerSocket + "\")"},
	{name: "host-gateway-ip", kind: list, key: "host-gateway-ips", ignored: always("host-gateway is the gateway of the container's network")},
	{name: "http-proxy", kind: text, usage: "reach registries through this proxy"},
	{name: "https-proxy", kind: text, usage: "reach registries through this proxy"},
	{name: "icc", kind: boolean, usage: "let containers on the default bridge reach each other (default true)"},
	{name: "init", kind: boolean, usage: "run an init in each container"},
	{name: "init-path", kind: text, ignored: always("the init is built in")},
	{name: "insecure-registry", kind: list, key: "insecure-registries", usage: "speak to HOST[:PORT] also without verified TLS"},
	{name: "ip", kind: text, usage: "publish ports on this address"},
	{name: "ip-forward", kind: boolean, ignored: unless("true", "containers on bridges need it")},
	{name: "ip-forward-no-drop", kind: boolean, ignored: always(ownTable)},
	{name: "ip-masq", kind: boolean, usage: "let containers on the default bridge go out under the host's address (default true)"},
	{name: "ip6tables", kind: boolean, ignored: unless("true", needsTable)},
	{name: "iptables", kind: boolean, ignored: unless("true", needsTable)},
	{name: "ipv6", kind: boolean, usage: "give the default bridge IPv6 addresses (default: where the host has any)"},
	{name: "label", kind: list, key: "labels", usage: "show KEY=VALUE in info"},
	{name: "live-restore", kind: boolean, usage: "let containers go on when this program ends"},
	{name: "log-driver", kind: text, usage: "driver of the logs of containers that name none"},
	{name: "log-format", kind: text, usage: "text or json"},
	{name: "log-level", short: "l", kind: text, usage: "debug, info, warn, error or fatal (default \"info\")"},
	{name: "log-opt", kind: pairs, key: "log-opts", usage: "option of that driver, KEY=VALUE"},
	{name: "max-concurrent-downloads", kind: number, usage: "layers fetched at once (default 3)"},
	{name: "max-concurrent-uploads", kind: number, usage: "layers sent at once (default 5)"},
	{name: "max-download-attempts", kind: number, ignored: always("a download is tried for as long as it gets on")},
	{name: "metrics-addr", kind: text, usage: "serve /metrics on this tcp address"},
	{name: "min-api-version", kind: text, ignored: always("all versions from 1.24 on are served")},
	{name: "mtu", kind: number, usage: "of the default bridge"},
	{name: "network-control-plane-mtu", kind: number, ignored: always(noSwarm)},
	{name: "no-new-privileges", kind: boolean, usage: "let no container's process gain privileges"},
	{name: "no-proxy", kind: text, usage: "hosts that are reached without the proxy"},
	{name: "node-generic-resource", kind: list, key: "node-generic-resources", ignored: always(noSwarm)},
	{name: "oom-score-adjust", kind: number, ignored: unless("0", "containers do not depend on this program, so it need not be spared")},
	{name: "pidfile", short: "p", kind: text, usage: "write the process id here (default \"/var/run/docker.pid\")"},
	{name: "raw-logs", kind: boolean, ignored: unless("true", "")},
	{name: "registry-mirror", kind: list, key: "registry-mirrors", usage: "ask this URL first for images of Docker Hub"},
	{name: "rootless", kind: boolean, refused: unless("false", "this program needs root")},
	{name: "seccomp-profile", kind: text, usage: "file of the profile of containers that name none, or unconfined"},
	{name: "selinux-enabled", kind: boolean, ignored: unless("false", "containers get no labels of SELinux")},
	{name: "shutdown-timeout", kind: number, usage: "seconds that all containers have to stop (default 15)"},
	{name: "storage-driver", short: "s", kind: text, ignored: func(v string) string {
		if v == "" || v == "overlay2" || v == "overlayfs" || v == "overlay" {
			return ""
		}
		return "Berth stores layers as directories under overlay mounts, and in no other way"
	}},
	{name: "storage-opt", kind: list, key: "storage-opts", usage: "overlay2.size=SIZE bounds what each container writes into its root", ignored: func(v string) string {
		if key, _, _ := strings.Cut(v, "="); strings.EqualFold(key, storageSizeKey) {
			return ""
		}
		return "Berth stores layers as directories under overlay mounts, whose one option is overlay2.size"
	}},
	{name: "swarm-default-advertise-addr", kind: text, ignored: always(noSwarm)},
	{name: "tls", kind: boolean, usage: "use TLS on tcp addresses"},
	{name: "tlscacert", kind: text, usage: "trust clients with certificates of this authority"},
	{name: "tlscert", kind: text, usage: "file of the certificate"},
	{name: "tlskey", kind: text, usage: "file of its key"},
	{name: "tlsverify", kind: boolean, usage: "demand a certificate of clients"},
	{name: "userland-proxy", kind: boolean, ignored: unless("false", noProxy)},
	{name: "userland-proxy-path", kind: text, ignored: always(noProxy)},
	{name: "userns-remap", kind: text, refused: unless("", "root in a container would be root of the host; use --userns for each container")},
	{name: "validate", kind: boolean, key: "-", usage: "check the options and exit"},
	{name: "version", short: "v", kind: boolean, key: "-", usage: "print the version and exit"},
}

// fileOnly are the keys of daemon.json without a flag: why they have no effect, ""
// for those that have.
var fileOnly = map[string]string{
	"berth":               "", // options of berthd that dockerd has none for
	"builder":             "", // its limit is taken
	"proxies":             "",
	"deprecated-key-path": "there is no such key",
	"host-gateway-ip":     "host-gateway is the gateway of the container's network",
}

// dockerdFlagSet declares dockerd's options. Their texts are read with valuesOf.
func dockerdFlagSet() *pflag.FlagSet {
	set := pflag.NewFlagSet(dockerdName, pflag.ContinueOnError)
	set.Usage = func() {}
	for i := range dockerdFlags {
		f := &dockerdFlags[i]
		usage := f.usage
		if usage == "" {
			usage = "accepted, without effect"
		}
		switch f.kind {
		case boolean:
			set.BoolP(f.name, f.short, false, usage)
		case list, pairs:
			set.StringArrayP(f.name, f.short, nil, usage)
		case number:
			set.IntP(f.name, f.short, 0, usage)
		case text:
			set.StringP(f.name, f.short, "", usage)
		}
	}
	set.BoolP("help", "h", false, "print this help and exit")
	return set
}

// settings are dockerd's options by name, from the command line and the file.
type settings map[string][]string

func (s settings) has(name string) bool { return len(s[name]) > 0 }

// text returns the value of an option, "" when it was not given.
func (s settings) text(name string) string {
	if v := s[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

func (s settings) on(name string) bool { return s.text(name) == "true" }

// valuesOf returns what the command line gives.
func valuesOf(set *pflag.FlagSet) settings {
	out := settings{}
	for i := range dockerdFlags {
		f := &dockerdFlags[i]
		flag := set.Lookup(f.name)
		if !flag.Changed {
			continue
		}
		if slice, ok := flag.Value.(pflag.SliceValue); ok {
			for _, v := range slice.GetSlice() {
				out[f.name] = append(out[f.name], strings.TrimSpace(v))
			}
			continue
		}
		out[f.name] = []string{flag.Value.String()}
	}
	return out
}
