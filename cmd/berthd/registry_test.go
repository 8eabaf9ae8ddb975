package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/internal/registry/store/local"

	"github.com/spf13/pflag"
	"golang.org/x/crypto/bcrypt"
)

func TestRegistryHelpNamesEveryFlag(t *testing.T) {
	var out bytes.Buffer
	if _, err := parseRegistry([]string{"--help"}, &out); !errors.Is(err, pflag.ErrHelp) {
		t.Fatal(err)
	}
	for _, flag := range []string{"--listen", "--root", "--config", "--tls-cert", "--tls-key", "--htpasswd", "--token", "--read-only", "--cache", "--cache-budget", "--gc-interval", "--gc-grace", "--gc-untagged", "--metrics", "--access-log"} {
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

func TestWrongRegistryCommandLinesAreRefusedByName(t *testing.T) {
	file := filepath.Join(t.TempDir(), "r.toml")
	for _, c := range []struct {
		text string
		args []string
		want string
	}{
		{"", []string{"--sparkle"}, "--sparkle"}, {"", []string{"start"}, `"start"`}, {"", []string{"--access-log", "xml"}, `"xml"`}, {"", []string{"--log-level", "loud"}, `"loud"`},
		{"", []string{"--tls-cert", "x"}, "needs a key"}, {"", []string{"--cache-budget", "10g"}, "upstream is missing"}, {"", []string{"--dry-run"}, "gc"}, {"", []string{"--cache", "u", "--cache-budget", "lots"}, "lots"},
		{"lisen = \":1\"", nil, "lisen"}, {"[auth]\nrules = []", nil, "auth.rules"}, {"listen = 5", nil, "listen"}, {"[gc]\ngrace = \"soon\"", nil, "soon"},
		{"[[auth.rule]]\nwho=[\"users\"]\nrepositories=[\"**\"]\nallow=[\"fly\"]", nil, `"fly"`}, {"[cache]\nupstream = \"u\"\npassword-file = \"nowhere\"", nil, "nowhere"},
	} {
		args := c.args
		if c.text != "" {
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			args = append([]string{"--config", file}, args...)
		}
		_, err := parseRegistry(args, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) || exitCode(err) != 2 {
			t.Errorf("%s %q: %v", c.text, args, err)
		}
	}
}

func TestRegistryFlagsWinOverTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "r.toml")
	text := "listen = \":1\"\nroot = \"data\"\nread-only = true\naccess-log = \"json\"\n[gc]\ninterval = \"2h\"\n[auth]\nhtpasswd = \"users\"\n[cache]\nupstream = \"https://r.example\"\nbudget = \"1g\"\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := parseRegistry([]string{"--config", file, "--listen", ":2", "--read-only=false"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := o.file.Config()
	if err != nil {
		t.Fatal(err)
	}
	if o.file.Listen != ":2" || cfg.ReadOnly || o.file.Root != filepath.Join(filepath.Dir(file), "data") || o.file.AccessLog != "json" || cfg.GC.Interval != 2*time.Hour ||
		cfg.Auth.Htpasswd != filepath.Join(filepath.Dir(file), "users") || cfg.Cache.Budget != 1<<30 {
		t.Errorf("%+v %+v", o.file, cfg)
	}
}

// runningRegistry is `berthd registry` with TLS and users, in this process.
type runningRegistry struct {
	address, cert, root string
}

func startTestRegistry(t *testing.T, args ...string) *runningRegistry {
	t.Helper()
	dir := t.TempDir()
	cert, key, _ := certificate(t, dir)
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(dir, "htpasswd")
	if err := os.WriteFile(users, []byte("ann:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &runningRegistry{address: l.Addr().String(), cert: cert, root: filepath.Join(dir, "data")}
	l.Close()
	o, err := parseRegistry(append([]string{"--listen", r.address, "--root", r.root, "--tls-cert", cert, "--tls-key", key, "--htpasswd", users, "--access-log", "off"}, args...), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	s, err := local.OpenDir(o.file.Root, log)
	if err != nil {
		t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- o.serveRegistry(s, stop, log) }()
	t.Cleanup(func() {
		close(stop)
		if err := errors.Join(<-ended, s.Close()); err != nil {
			t.Errorf("the registry ended with %v", err)
		}
	})
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		resp, err := client.Get("https://" + r.address + "/v2/")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized {
				t.Fatalf("without a password: %d", resp.StatusCode)
			}
			return r
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestRegistryCollectsWhenAskedFromOutside(t *testing.T) {
	r := startTestRegistry(t)
	gc := func(args ...string) string {
		t.Helper()
		var out bytes.Buffer
		if err := runRegistry(append([]string{"gc", "--root", r.root}, args...), &out); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if got := gc("--dry-run"); !strings.HasPrefix(got, "would delete 0 manifests and 0 blobs") {
		t.Error(got)
	}
	if got := gc(); !strings.HasPrefix(got, "deleted 0 manifests and 0 blobs") {
		t.Error(got)
	}
	r.root = t.TempDir() // where no server runs
	if got := gc(); !strings.HasPrefix(got, "deleted 0 manifests and 0 blobs") {
		t.Error(got)
	}
}

func tool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
}

func command(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
