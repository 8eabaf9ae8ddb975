package network

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/fault"
)

func TestResolvConf(t *testing.T) {
	cases := []struct {
		name string
		host string
		opts ResolvOptions
		want string
	}{
		{"as the host", "# x\nnameserver 10.0.0.1\nsearch a.example b.example\noptions ndots:2 edns0\nsortlist 1.2.3.4\n", ResolvOptions{},
			"nameserver 10.0.0.1\nsearch a.example b.example\noptions ndots:2 edns0\nsortlist 1.2.3.4\n"},
		{"loopback servers are left out", "nameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver ::1\n", ResolvOptions{}, "nameserver 10.0.0.1\n"},
		{"only loopback servers", "nameserver 127.0.0.1\n", ResolvOptions{}, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"},
		{"no servers, IPv6", "", ResolvOptions{IPv6: true},
			"nameserver 8.8.8.8\nnameserver 8.8.4.4\nnameserver 2001:4860:4860::8888\nnameserver 2001:4860:4860::8844\n"},
		{"IPv6 servers only with IPv6", "nameserver 2001:db8::1\nnameserver 10.0.0.1\n", ResolvOptions{}, "nameserver 10.0.0.1\n"},
		{"IPv6 servers", "nameserver 2001:db8::1\nnameserver fe80::1%eth0\n", ResolvOptions{IPv6: true}, "nameserver 2001:db8::1\n"},
		{"the host's network keeps them all", "nameserver 127.0.0.53\noptions trust-ad\n", ResolvOptions{HostNet: true}, "nameserver 127.0.0.53\noptions trust-ad\n"},
		{"options of the container", "nameserver 10.0.0.1\nsearch a.example\noptions ndots:2\n",
			ResolvOptions{Servers: []string{"1.1.1.1", "127.0.0.1"}, Search: []string{"c.example"}, Options: []string{"ndots:5"}},
			"nameserver 1.1.1.1\nnameserver 127.0.0.1\nsearch c.example\noptions ndots:5\n"},
		{"no search at all", "nameserver 10.0.0.1\nsearch a.example\n", ResolvOptions{Search: []string{"."}}, "nameserver 10.0.0.1\n"},
		{"the last search counts", "nameserver 10.0.0.1\nsearch a\ndomain b\n", ResolvOptions{}, "nameserver 10.0.0.1\nsearch b\n"},
		{"broken lines", "nameserver\nnameserver rubbish\n;x\nnameserver 10.0.0.1", ResolvOptions{}, "nameserver 10.0.0.1\n"},
	}
	for _, c := range cases {
		c.opts.HostPath = filepath.Join(t.TempDir(), "resolv.conf")
		must(t, os.WriteFile(c.opts.HostPath, []byte(c.host), 0o600))
		got, err := ResolvConf(c.opts)
		_, body, _ := strings.Cut(string(got), "\n") // the comment
		if err != nil || body != c.want {
			t.Errorf("%s: error %v, got\n%swant\n%s", c.name, err, body, c.want)
		}
	}
	for _, o := range []ResolvOptions{{Servers: []string{"dns.example"}}, {Search: []string{"a\nnameserver 6.6.6.6"}}, {Options: []string{""}}} {
		if got, err := ResolvConf(o); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %q, %v", o, got, err)
		}
	}
	missing, err := ResolvConf(ResolvOptions{HostPath: filepath.Join(t.TempDir(), "none")})
	if err != nil || !strings.Contains(string(missing), "8.8.8.8") {
		t.Errorf("without a host file: %q, %v", missing, err)
	}
}

func TestHosts(t *testing.T) {
	loopback := "127.0.0.1\tlocalhost\n" + hostsLoopback6
	own := []netip.Addr{netip.MustParseAddr("172.30.0.2"), netip.MustParseAddr("fd00::2")}
	gateways := []netip.Addr{netip.MustParseAddr("172.30.0.1"), {}}
	path := filepath.Join(t.TempDir(), "hosts")
	must(t, os.WriteFile(path, []byte("127.0.0.1 localhost myhost"), 0o600))
	cases := []struct {
		name string
		opts HostsOptions
		want string
	}{
		{"on the bridge", HostsOptions{Hostname: "abc", Addrs: own}, loopback + "172.30.0.2\tabc\nfd00::2\tabc\n"},
		{"without a network", HostsOptions{Hostname: "abc"}, loopback},
		{"without IPv6", HostsOptions{Hostname: "abc", Addrs: own[:1], NoIPv6: true}, "127.0.0.1\tlocalhost\n172.30.0.2\tabc\n"},
		{"domain", HostsOptions{Hostname: "abc", Domainname: "example.org", Addrs: own[:1]}, loopback + "172.30.0.2\tabc.example.org abc\n"},
		{"dotted name", HostsOptions{Hostname: "abc.example.org", Addrs: own[:1]}, loopback + "172.30.0.2\tabc.example.org abc\n"},
		{"extra", HostsOptions{Extra: []string{"db:10.0.0.5", "six:2001:db8::1", "six2=[2001:db8::2]", "host.docker.internal:host-gateway"}, Gateways: gateways},
			loopback + "10.0.0.5\tdb\n2001:db8::1\tsix\n2001:db8::2\tsix2\n172.30.0.1\thost.docker.internal\n"},
		{"the host's", HostsOptions{Hostname: "h", HostPath: path, Extra: []string{"db:10.0.0.5"}}, "127.0.0.1 localhost myhost\n10.0.0.5\tdb\n"},
	}
	for _, c := range cases {
		if got, err := Hosts(c.opts); err != nil || string(got) != c.want {
			t.Errorf("%s: error %v, got\n%swant\n%s", c.name, err, got, c.want)
		}
	}
	for _, extra := range []string{"db", ":1.2.3.4", "db:", "db:somewhere", "a b:1.2.3.4", "a\n6.6.6.6 bank.example:1.2.3.4", "gw:host-gateway"} {
		if got, err := Hosts(HostsOptions{Extra: []string{extra}}); !fault.Is(err, fault.Invalid) {
			t.Errorf("--add-host %q: %q, %v", extra, got, err)
		}
	}
	if _, err := Hosts(HostsOptions{Hostname: "a\n6.6.6.6 bank.example", Addrs: own}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a host name with a line break: %v", err)
	}
}

func FuzzResolvConf(f *testing.F) {
	f.Add([]byte("nameserver 1.2.3.4\nsearch a b\noptions x\n"))
	f.Add([]byte("nameserver fe80::1%\nsearch\noptions\ndomain"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(dir, "resolv.conf")
		must(t, os.WriteFile(path, data, 0o600))
		got, err := ResolvConf(ResolvOptions{HostPath: path, IPv6: true})
		if err == nil && !strings.Contains(string(got), "nameserver ") {
			t.Errorf("no name server in %q", got)
		}
	})
}

func FuzzTableOf(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 10, 0, 1, 0, 'b', 'e', 'r', 't', 'h', 0})
	f.Add([]byte{1, 0, 0, 0, 255, 255, 1, 0})
	f.Fuzz(func(_ *testing.T, data []byte) { tableOf(data) })
}

func FuzzScanReplies(f *testing.F) {
	f.Add([]byte{20, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = scanReplies(data, 1, 3) })
}
