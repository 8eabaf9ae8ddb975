package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/internal/api"

	"github.com/spf13/pflag"
)

func parse(args ...string) (*options, error) { return parseOptions(args, io.Discard) }

// shortDir is a directory whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestHelpNamesEveryFlag(t *testing.T) {
	var out bytes.Buffer
	if _, err := parseOptions([]string{"--help"}, &out); !errors.Is(err, pflag.ErrHelp) {
		t.Fatal(err)
	}
	for _, flag := range []string{"--root", "--run", "--host", "--config", "--docker-socket", "--group", "--log-level", "--debug", "--tlsverify", "--tlscacert",
		"--tlscert", "--tlskey", "--runtime-binary", "--add-runtime", "--bridge", "--subnet", "--pool-size", "--pidfile", "--version", "--log-format", "--metrics-address"} {
		if !strings.Contains(out.String(), flag+" ") {
			t.Errorf("help does not name %s", flag)
		}
	}
	for line := range strings.SplitSeq(out.String(), "\n") {
		if len(line) > 130 {
			t.Errorf("too wide for a terminal: %s", line)
		}
	}
}

func TestDefaultsFollowTheRunDirectory(t *testing.T) {
	o, err := parse("--root", "/r", "--run", "/x/y")
	if err != nil {
		t.Fatal(err)
	}
	if o.pidfile != "/x/y/berthd.pid" || !slices.Equal(o.hosts, []string{"unix:///x/y/berth.sock"}) || o.logMaxSize != 10<<20 {
		t.Errorf("%+v", o)
	}
	o, err = parse("--root=r", "--run", "/x", "-H", "tcp://127.0.0.1:1", "-H", "unix:///a", "--docker-socket", "-D")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(o.hosts, []string{"tcp://127.0.0.1:1", "unix:///a", "unix:///var/run/docker.sock"}) || !filepath.IsAbs(o.root) || o.level != slog.LevelDebug {
		t.Errorf("%+v", o)
	}
}

func TestWrongCommandLinesAreRefusedByName(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--sparkle"}, "--sparkle"},
		{[]string{"start"}, `"start"`},
		{[]string{"--log-level", "loud"}, `"loud"`},
		{[]string{"--log-format", "xml"}, `"xml"`},
		{[]string{"--log-max-size", "big"}, `"big"`},
		{[]string{"--build-cache-keep", "much"}, `"much"`},
		{[]string{"--log-max-files", "0"}, "--log-max-files"},
		{[]string{"--add-runtime", "runc"}, "NAME=PATH"},
		{[]string{"--add-runtime", "x=/nonexistent/x"}, "/nonexistent/x"},
		{[]string{"--subnet", "10.0.0.0"}, `"10.0.0.0"`},
		{[]string{"--subnet", "10.0.0.0/8", "--subnet", "10.1.0.0/16"}, "same family"},
		{[]string{"--config", "/nonexistent.json"}, "/nonexistent.json"},
	} {
		_, err := parse(append([]string{"--root", "/r"}, c.args...)...)
		if err == nil || !strings.Contains(err.Error(), c.want) || exitCode(err) != 2 {
			t.Errorf("%q: %v", c.args, err)
		}
	}
}

func TestConfigurationFileHasTheFlagsAsKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.json")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"root":"/data","host":["unix:///a","unix:///b"],"debug":true,"log-max-files":7,"add-runtime":{"true":"/bin/true"},"label":"a=b","group":"root"}`)
	o, err := parse("--config", file, "--run", "/run/x", "--log-max-files", "2")
	if err != nil {
		t.Fatal(err)
	}
	if o.root != "/data" || !slices.Equal(o.hosts, []string{"unix:///a", "unix:///b"}) || o.level != slog.LevelDebug || o.runtimes["true"] == "" || !slices.Equal(o.labels, []string{"a=b"}) || o.group != "root" {
		t.Errorf("%+v", o)
	}
	if o.logMaxFiles != 2 {
		t.Errorf("the command line must win, got %d files", o.logMaxFiles)
	}
	if o, err = parse("--config", file, "-H", "unix:///c"); err != nil || !slices.Equal(o.hosts, []string{"unix:///c"}) {
		t.Errorf("hosts %v, %v", o.hosts, err)
	}
	for text, want := range map[string]string{
		`{"sparkle":1,"hue":2}`: "unknown key hue, sparkle", `{"root":["a","b"]}`: "root: takes a single value", `[]`: "not a JSON object", `{"root":`: "not a JSON object",
		`{"debug":"maybe"}`: "debug", `{"root":{"a":{}}}`: "root: must be", `{"root":null}`: "root: must be", `{"config":"x"}`: "unknown key config",
	} {
		write(text)
		if _, err := parse("--config", file); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestUnixSocketsAppearWithTheirModeInPlaceOfDeadOnes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: sockets are given to a group")
	}
	path := filepath.Join(shortDir(t), "b.sock")
	l, err := listenUnix(path, 1)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Perm() != 0o660 || info.Mode()&os.ModeSocket == 0 {
		t.Fatalf("%v %v", info, err)
	}
	if _, err := listenUnix(path, 0); err == nil || !strings.Contains(err.Error(), "another program serves there") {
		t.Errorf("a live socket was replaced: %v", err)
	}
	l.Listener.Close() // as after kill -9: the file stays
	second, err := listenUnix(path, 0)
	if err != nil {
		t.Fatalf("a dead socket was not replaced: %v", err)
	}
	l.remove()
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first engine removed its successor's socket: %v", err)
	} else {
		c.Close()
	}
	closeAll([]*listener{second})
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAddressesThatCannotBeServedAreRefusedByName(t *testing.T) {
	dir := shortDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{
		"unix://run/x": "absolute", "http://x": "scheme", "/run/x": "scheme", "tcp://127.0.0.1:0/path": "tcp://HOST:PORT",
		"unix://" + file: "something else than a socket", "unix://" + dir + "/nowhere/s": "no such file", "unix:///" + strings.Repeat("a", 120): "socket address holds",
		"tcp://0.0.0.0:0": "--tlsverify", "tcp://:0": "--tlsverify", "tcp://127.0.0.1:99999": "port",
	} {
		o := &options{group: "?nobody-has-this"}
		l, err := o.listenOn(host)
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", host, err, want)
		}
	}
	o := &options{group: "nobody-has-this"}
	if _, err := o.listenOn("unix://" + dir + "/s"); err == nil || !strings.Contains(err.Error(), "nobody-has-this") {
		t.Errorf("a named group must exist: %v", err)
	}
}

// certificate writes a self-signed certificate and its key and returns their
// paths and the pair.
func certificate(t *testing.T, dir string) (certFile, keyFile string, pair tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := errors.Join(os.WriteFile(certFile, certPEM, 0o600), os.WriteFile(keyFile, keyPEM, 0o600)); err != nil {
		t.Fatal(err)
	}
	if pair, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Fatal(err)
	}
	return certFile, keyFile, pair
}

func TestTLSVerifyAdmitsOnlyKnownClients(t *testing.T) {
	cert, key, pair := certificate(t, t.TempDir())
	o := &options{hosts: []string{"tcp://127.0.0.1:0"}, tlsVerify: true, tlsCert: cert, tlsKey: key, tlsCA: cert}
	ls, err := o.listen()
	if err != nil {
		t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- serveUntil(stop, api.New(nil, nil), ls, slog.New(slog.DiscardHandler)) }()
	url := "https://" + strings.TrimPrefix(ls[0].address, "tcp://") + "/_ping"
	pool := x509.NewCertPool()
	pool.AddCert(pair.Leaf)
	for _, known := range []bool{true, false} {
		conf := &tls.Config{RootCAs: pool}
		if known {
			conf.Certificates = []tls.Certificate{pair}
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
		resp, err := client.Get(url)
		if err == nil {
			resp.Body.Close()
		}
		if known != (err == nil) {
			t.Errorf("client with certificate %v: %v", known, err)
		}
	}
	close(stop)
	if err := <-ended; err != nil {
		t.Errorf("serving ended with %v", err)
	}
	for _, bad := range []*options{
		{tls: true}, {tls: true, tlsCert: key, tlsKey: key}, {tlsVerify: true, tlsCert: cert, tlsKey: key}, {tlsVerify: true, tlsCert: cert, tlsKey: key, tlsCA: key},
	} {
		if l, err := bad.listenTCP("127.0.0.1", "0"); err == nil {
			l.Close()
			t.Errorf("%+v was accepted", bad)
		}
	}
}
