package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// documentOf writes the table of docs/dockerd.md.
func documentOf() string {
	var b strings.Builder
	b.WriteString("| option | key in daemon.json | here |\n| --- | --- | --- |\n")
	for i := range dockerdFlags {
		f := &dockerdFlags[i]
		name := "`--" + f.name + "`"
		if f.short != "" {
			name += " `-" + f.short + "`"
		}
		key := "`" + f.fileKey() + "`"
		if f.key == "-" {
			key = ""
		}
		what := f.usage
		for _, v := range []string{"some-value", "1", "true", "false"} {
			if what != "" {
				break
			}
			switch {
			case f.refused != nil && f.refused(v) != "":
				what = "**refused**: " + f.refused(v)
			case f.ignored != nil && f.ignored(v) != "":
				what = "without effect: " + f.ignored(v)
			}
		}
		if what == "" {
			what = "so anyway"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", name, key, what)
	}
	return b.String()
}

func TestTheDocumentListsEveryOption(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/dockerd.md")
	if err != nil {
		t.Fatal(err)
	}
	if table := documentOf(); !strings.Contains(string(text), table) {
		t.Errorf("docs/dockerd.md has another table than this one:\n%s", table)
	}
}

func dockerdOptions(t *testing.T, file string, args ...string) (*options, settings, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	set := dockerdFlagSet()
	if err := set.Parse(append([]string{"--config-file", path, "--data-root", t.TempDir()}, args...)); err != nil {
		t.Fatal(err)
	}
	s, err := readDaemonJSON(valuesOf(set))
	if err != nil {
		return nil, nil, err
	}
	o, err := (&dockerd{}).options(s)
	return o, s, err
}

func TestDockerdsOptionsBecomeOurs(t *testing.T) {
	t.Parallel()
	o, s, err := dockerdOptions(t, `{"hosts": ["unix:///tmp/x.sock", "tcp://:2375"], "exec-root": "/tmp/run", "labels": ["a=b"],
		"insecure-registries": ["reg:5000", "10.0.0.0/8"], "registry-mirrors": ["https://mirror.example/"], "max-concurrent-uploads": 7,
		"default-ulimits": {"nofile": {"Name": "nofile", "Hard": 2, "Soft": 1}}, "log-driver": "local", "log-opts": {"max-file": "2"},
		"bip": "10.9.0.1/24", "ipv6": true, "fixed-cidr-v6": "fd00:9::/64", "mtu": 1400, "live-restore": true, "shutdown-timeout": 3,
		"builder": {"gc": {"enabled": true, "defaultKeepStorage": "1GB"}}, "dns": ["192.0.2.1"], "group": "0", "debug": true,
		"berth": {"disk-budget": "20GB", "disk-budget-fresh": "1h", "keep-blobs": false, "max-layer-files": 7}}`)
	if err != nil {
		t.Fatal(err)
	}
	d := o.defaults
	for name, ok := range map[string]bool{
		"hosts":     slices.Equal(o.hosts, []string{"unix:///tmp/x.sock", "tcp://localhost:2375"}),
		"run":       o.run == "/tmp/run",
		"labels":    slices.Equal(o.labels, []string{"a=b"}),
		"insecure":  slices.Equal(o.images.insecure, []string{"reg:5000"}),
		"mirrors":   slices.Equal(o.images.mirrors, []string{"https://mirror.example"}),
		"transfers": o.images.downloads == 3 && o.images.uploads == 7,
		"ulimits":   len(d.Ulimits) == 1 && d.Ulimits[0].Name == "nofile" && d.Ulimits[0].Soft == 1 && d.Ulimits[0].Hard == 2,
		"logs":      d.LogDriver == "local" && d.LogOpts["max-file"] == "2",
		"network":   o.subnet4.String() == "10.9.0.0/24" && o.subnet6.String() == "fd00:9::/64" && o.bridged.MTU == 1400,
		"cache":     o.buildKeep == 1<<30,
		"dns":       len(d.DNS) == 1,
		"berth's":   o.diskBudget == 20e9 && o.diskBudgetFresh == time.Hour && !o.images.keepBlobs && o.images.maxFiles == 7,
		"debug":     o.level < 0,
		"pidfile":   o.pidfile == "/var/run/docker.pid",
		"grace":     shutdownGrace(s) == 3*time.Second,
	} {
		if !ok {
			t.Errorf("%s: %+v %+v", name, o, d)
		}
	}
	lines := strings.Join(notices(s), "\n")
	if !strings.Contains(lines, "--insecure-registry 10.0.0.0/8") || !strings.Contains(lines, "tcp://localhost:2375 is not protected") || strings.Contains(lines, "ipv6") {
		t.Errorf("notices:\n%s", lines)
	}
}

func TestTheDefaultBridgeAsDockerdsOptionsSay(t *testing.T) {
	t.Parallel()
	o, _, err := dockerdOptions(t, `{"bip": "10.9.0.66/24", "fixed-cidr": "10.9.0.128/25", "default-gateway": "10.9.0.9", "icc": false, "ip-masq": false,
		"ipv6": false, "fixed-cidr-v6": "fd00:9::/64", "default-address-pools": [{"base": "10.10.0.0/16", "size": 24}, {"base": "fd10::/48", "size": 64}]}`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprintf("%+v", o.networkConfig()), "Subnet4:10.9.0.0/24 Subnet6:invalid Prefix NoIPv6:true Gateway4:10.9.0.66 Range4:10.9.0.128/25 "+
		"Router4:10.9.0.9 Router6:invalid IP Isolated:true NoMasq:true Pools:[{Base:10.10.0.0/16 Bits:24} {Base:fd10::/48 Bits:64}]"; !strings.Contains(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
	o, _, err = dockerdOptions(t, `{}`, "--fixed-cidr", "10.9.1.0/24", "--default-address-pool", "base=10.1.0.0/16,size=20", "--default-address-pool", "size=26,base=10.2.0.0/16")
	if c := o.networkConfig(); err != nil || c.Subnet4.String() != "10.9.1.0/24" || c.Range4.IsValid() || len(c.Pools) != 2 || c.Pools[1].Bits != 26 || c.Isolated || c.NoMasq || c.NoIPv6 {
		t.Errorf("%+v %v", c, err)
	}
	for _, file := range []string{`{"default-address-pools": [{"base": "10.1.0.0/16", "size": 8}]}`, `{"default-address-pools": [{"base": "ten", "size": 24}]}`,
		`{"default-address-pools": {}}`, `{"default-gateway": "fd00::1"}`, `{"default-gateway-v6": "10.0.0.1"}`, `{"fixed-cidr": "10.0.0.1"}`, `{"bip": "x"}`} {
		if _, _, err := dockerdOptions(t, file); err == nil {
			t.Errorf("%s is accepted", file)
		}
	}
}

func TestAddressesAsDockerdWritesThem(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"unix://": "unix:///var/run/docker.sock", "unix:///a/b": "unix:///a/b", "tcp://": "tcp://localhost:2375", ":2375": "tcp://localhost:2375",
		"tcp://0.0.0.0": "tcp://0.0.0.0:2375", "tcp://[::1]:9": "tcp://[::1]:9", "fd://": "fd://", "/run/x.sock": "unix:///run/x.sock",
	} {
		if got := dockerdHost(in, false); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func FuzzDaemonJSON(f *testing.F) {
	f.Add([]byte(`{"default-ulimits": {"nofile": {"Name": "nofile"}}, "runtimes": {"x": {"path": "/x"}}, "builder": {"gc": {}}, "proxies": {}, "berth": {"disk-budget": "1GB"}}`))
	f.Add([]byte(`{"hosts": null, "labels": [1], "debug": 1, "mtu": "x", "log-opts": []}`))
	f.Fuzz(func(_ *testing.T, text []byte) {
		s, err := parseDaemonJSON(text)
		if err == nil {
			_ = notices(s)
			_ = checkSettings(s)
			_ = berthArgs(s)
			_, _ = containerDefaults(s)
		}
	})
}
