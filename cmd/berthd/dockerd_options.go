package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"berth/internal/engine"
	"berth/internal/engine/vocabulary"
	"berth/internal/fault"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// options turns dockerd's settings into this program's own.
func (d *dockerd) options(s settings) (*options, error) {
	if err := checkSettings(s); err != nil {
		return nil, err
	}
	o := &options{}
	all := pflag.NewFlagSet("berthd", pflag.ContinueOnError)
	for _, section := range o.sections() {
		all.AddFlagSet(section.flags)
	}
	if err := all.Parse(berthArgs(s)); err != nil {
		return nil, fault.New(fault.Invalid, "", "", "%w", err)
	}
	if err := o.complete(all); err != nil {
		return nil, err
	}
	o.tlsGiven = true // a tcp address without TLS is the user's choice, and is named in the log
	if err := notDockers(o.root); err != nil {
		return nil, err
	}
	var err error
	if o.bridged, err = bridgeOptions(s); err != nil {
		return nil, err
	}
	if v := s.text("builder"); v != "" {
		o.buildKeep, _ = units.RAMInBytes(v)
	}
	if o.defaults, err = containerDefaults(s); err != nil {
		return nil, err
	}
	if err := knownRuntime(o); err != nil {
		return nil, err
	}
	d.level.Set(o.level)
	d.live, d.grace = s.on("live-restore"), shutdownGrace(s)
	o.hooks = d.hooksOf()
	return o, nil
}

// berthArgs are the flags of berthd that mean the same.
func berthArgs(s settings) []string {
	args := []string{"--root", orDefaultText(s.text("data-root"), defaultRoot), "--run", orDefaultText(s.text("exec-root"), defaultRun),
		"--pidfile", orDefaultText(s.text("pidfile"), "/var/run/docker.pid")}
	copied := map[string]string{"registry-mirror": "", "label": "", "add-runtime": "", "tlscacert": "", "tlscert": "", "tlskey": "",
		"max-concurrent-downloads": "", "max-concurrent-uploads": "", "tls": "", "tlsverify": "", "bridge": ""}
	for i := range dockerdFlags {
		name := dockerdFlags[i].name
		if _, ok := copied[name]; !ok || name == "bridge" && s.text(name) == "none" {
			continue
		}
		for _, v := range s[name] {
			args = append(args, "--"+name+"="+v)
		}
	}
	for _, v := range s["insecure-registry"] {
		if _, _, err := net.ParseCIDR(v); err != nil {
			args = append(args, "--insecure-registry="+v)
		}
	}
	if v := s.text("metrics-addr"); v != "" {
		args = append(args, "--metrics-address="+v)
	}
	if !s.has("max-concurrent-downloads") {
		args = append(args, "--max-concurrent-downloads=3")
	}
	if !s.has("max-concurrent-uploads") {
		args = append(args, "--max-concurrent-uploads=5")
	}
	for _, v := range s["berth"] {
		args = append(args, "--"+v)
	}
	secure := s.on("tls") || s.on("tlsverify")
	for name, file := range map[string]string{"tlscacert": "ca.pem", "tlscert": "cert.pem", "tlskey": "key.pem"} {
		if secure && !s.has(name) && (name != "tlscacert" || s.on("tlsverify")) {
			home, _ := os.UserHomeDir()
			args = append(args, "--"+name+"="+filepath.Join(orDefaultText(os.Getenv("DOCKER_CERT_PATH"), filepath.Join(home, ".docker")), file))
		}
	}
	for _, h := range s["host"] {
		args = append(args, "--host="+dockerdHost(h, secure))
	}
	if !s.has("host") {
		args = append(args, "--host=unix://"+dockerSocket)
	}
	if s.has("group") {
		args = append(args, "--group="+s.text("group"))
	}
	if v := orDefaultText(s.text("bip"), s.text("fixed-cidr")); v != "" {
		args = append(args, "--subnet="+v)
	}
	if s.has("fixed-cidr-v6") && s.text("ipv6") != "false" {
		args = append(args, "--subnet="+s.text("fixed-cidr-v6"))
	}
	level := orDefaultText(s.text("log-level"), "info")
	switch {
	case s.on("debug"):
		level = "debug"
	case level == "fatal" || level == "panic":
		level = "error"
	case level == "trace":
		level = "debug"
	}
	return append(args, "--log-level="+level)
}

// dockerdHost completes an address as dockerd does.
func dockerdHost(h string, secure bool) string {
	scheme, rest, ok := strings.Cut(strings.TrimSpace(h), "://")
	if !ok {
		if strings.HasPrefix(h, "/") {
			return "unix://" + h
		}
		scheme, rest = "tcp", h
	}
	switch {
	case scheme == "unix" && rest == "":
		return "unix://" + dockerSocket
	case scheme == "tcp":
		host, port, err := net.SplitHostPort(rest)
		if err != nil {
			host, port = rest, ""
		}
		if host == "" {
			host = "localhost"
		}
		if port == "" {
			if port = "2375"; secure {
				port = "2376"
			}
		}
		return "tcp://" + net.JoinHostPort(strings.Trim(host, "[]"), port)
	}
	return scheme + "://" + rest
}

// checkSettings refuses what contradicts itself or what must not be ignored.
func checkSettings(s settings) error {
	bad := func(format string, args ...any) error { return fault.New(fault.Invalid, "", "", format, args...) }
	for i := range dockerdFlags {
		f := &dockerdFlags[i]
		for _, v := range s[f.name] {
			if f.refused == nil {
				break
			}
			if why := f.refused(v); why != "" {
				return fault.New(fault.Unsupported, "", "", "--%s is not supported: %s", f.name, why)
			}
		}
	}
	if s.has("bridge") && s.has("bip") {
		return bad("You specified -b & --bip, mutually exclusive options. Please specify only one")
	}
	if level := s.text("log-level"); level != "" {
		switch level {
		case "trace", "debug", "info", "warn", "error", "fatal", "panic":
		default:
			return bad("invalid logging level: %s", level)
		}
	}
	if f := s.text("log-format"); f != "" && f != "text" && f != "json" {
		return bad("invalid log format: %s", f)
	}
	for _, name := range []string{"mtu", "max-concurrent-downloads", "max-concurrent-uploads"} {
		if n, err := strconv.Atoi(orDefaultText(s.text(name), "0")); err != nil || n < 0 {
			return bad("invalid %s: %s", name, s.text(name))
		}
	}
	for _, l := range s["label"] {
		if k, v, ok := strings.Cut(l, "="); !ok || k == "" || v == "" {
			return bad("bad attribute format: %s", l)
		}
	}
	for _, name := range []string{"bip", "fixed-cidr", "fixed-cidr-v6"} {
		if v := s.text(name); v != "" {
			if _, err := netip.ParsePrefix(v); err != nil {
				return bad("invalid CIDR address: %s", v)
			}
		}
	}
	return nil
}

// notDockers refuses a directory in which docker keeps data of its own.
func notDockers(root string) error {
	if _, err := os.Stat(filepath.Join(root, "metadata.db")); err == nil {
		return nil
	}
	for _, sign := range []string{"overlay2", "image", "containerd", "swarm"} {
		if _, err := os.Stat(filepath.Join(root, sign)); err == nil {
			return fault.New(fault.Conflict, "", "", "%s holds data of docker's own engine (%s)", root, sign).
				WithHint("Berth keeps data in another form; name another directory with --data-root")
		}
	}
	return nil
}

// containerDefaults reads the options about what containers get.
func containerDefaults(s settings) (*engine.ContainerDefaults, error) {
	d := &engine.ContainerDefaults{LogDriver: s.text("log-driver"), Runtime: s.text("default-runtime"), CgroupParent: s.text("cgroup-parent"),
		CgroupNS: s.text("default-cgroupns-mode"), IPC: s.text("default-ipc-mode"), Init: s.on("init"), NoNewPrivileges: s.on("no-new-privileges"),
		DNSSearch: s["dns-search"], DNSOptions: s["dns-opt"]}
	bad := func(format string, args ...any) (*engine.ContainerDefaults, error) {
		return nil, fault.New(fault.Invalid, "", "", format, args...)
	}
	var err error
	if v := s.text("default-shm-size"); v != "" {
		if d.ShmSize, err = units.RAMInBytes(v); err != nil || d.ShmSize <= 0 {
			return bad("invalid default-shm-size: %s", v)
		}
	}
	if d.StorageSize, err = storageSize(s["storage-opt"]); err != nil {
		return nil, err
	}
	for _, v := range s["default-ulimit"] {
		u, err := units.ParseUlimit(v)
		if err != nil {
			return bad("default-ulimit: %w", err)
		}
		d.Ulimits = append(d.Ulimits, (*container.Ulimit)(u))
	}
	for _, v := range s["log-opt"] {
		k, value, ok := strings.Cut(v, "=")
		if !ok {
			return bad("invalid log-opt: %s", v)
		}
		if d.LogOpts == nil {
			d.LogOpts = map[string]string{}
		}
		d.LogOpts[k] = value
	}
	if d.LogOpts != nil && d.LogDriver == "" {
		d.LogDriver = "json-file"
	}
	if err := known("default-cgroupns-mode", d.CgroupNS, "host", "private"); err != nil {
		return nil, err
	}
	if err := known("default-ipc-mode", d.IPC, "private", "shareable"); err != nil {
		return nil, err
	}
	for _, v := range s["dns"] {
		a, err := netip.ParseAddr(v)
		if err != nil {
			return bad("%s is not an ip address", v)
		}
		d.DNS = append(d.DNS, a)
	}
	if v := s.text("ip"); v != "" {
		if d.HostIP, err = netip.ParseAddr(v); err != nil {
			return bad("%s is not an ip address", v)
		}
	}
	switch v := s.text("seccomp-profile"); v {
	case "", "builtin":
	case "unconfined":
		d.Seccomp = v
	default:
		profile, err := os.ReadFile(v)
		if err != nil {
			return bad("opening seccomp profile (%s) failed: %w", v, err)
		}
		d.Seccomp = string(profile)
	}
	return d, nil
}

// storageSize reads the limit of writable layers, in bytes; 0 is none.
func storageSize(opts []string) (size int64, err error) {
	for _, o := range opts {
		key, value, ok := strings.Cut(o, "=")
		if !ok {
			return 0, fault.New(fault.Invalid, "", "", "unable to parse storage-opt %q: it is KEY=VALUE", o)
		}
		if strings.EqualFold(key, storageSizeKey) {
			if size, err = vocabulary.StorageSize(map[string]string{"size": value}); err != nil {
				return 0, fault.Wrap("read storage-opt", o, err)
			}
		}
	}
	return size, nil
}

func known(name, value string, allowed ...string) error {
	for _, a := range allowed {
		if value == a || value == "" {
			return nil
		}
	}
	return fault.New(fault.Invalid, "", "", "invalid %s %q: it is %s", name, value, strings.Join(allowed, " or "))
}

// knownRuntime refuses a default runtime that nobody registered.
func knownRuntime(o *options) error {
	name := o.defaults.Runtime
	switch name {
	case "", "runc", "berth", "io.containerd.runc.v2":
		return nil
	}
	if o.runtimes[name] == "" {
		return fault.New(fault.Invalid, "", "", "specified default runtime '%s' does not exist", name)
	}
	return nil
}

// notices say of each option without effect why it has none.
func notices(s settings) (lines []string) {
	for i := range dockerdFlags {
		f := &dockerdFlags[i]
		if f.ignored == nil {
			continue
		}
		for _, v := range s[f.name] {
			if why := f.ignored(v); why != "" {
				lines = append(lines, fmt.Sprintf("ignored --%s %s: %s", f.name, v, why))
			}
		}
	}
	for key, why := range fileOnly {
		if s.has(key) && why != "" {
			lines = append(lines, fmt.Sprintf("ignored %s: %s", key, why))
		}
	}
	for _, v := range s["insecure-registry"] {
		if _, _, err := net.ParseCIDR(v); err == nil {
			lines = append(lines, fmt.Sprintf("ignored --insecure-registry %s: networks are not taken; name each registry", v))
		}
	}
	if !s.on("tls") && !s.on("tlsverify") {
		for _, h := range s["host"] {
			if full := dockerdHost(h, false); strings.HasPrefix(full, "tcp://") {
				lines = append(lines, fmt.Sprintf("the API on %s is not protected: whoever reaches it is root on this machine; use --tlsverify", full))
			}
		}
	}
	return lines
}
