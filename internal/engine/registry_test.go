package engine

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/engine/filter"
	"berth/internal/fault"

	"github.com/moby/moby/api/types/registry"
)

func TestSearchAsksTheRegistryOfTheTerm(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	status, asked := http.StatusOK, ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/search" {
			http.NotFound(w, r) // what a look for TLS or version 2 finds
			return
		}
		user, _, _ := r.BasicAuth()
		asked = r.URL.RawQuery + " " + user
		w.WriteHeader(status)
		fmt.Fprint(w, `{"results":[{"name":"a","star_count":9,"is_official":true,"is_automated":true},{"name":"b","star_count":3},{"name":"c","star_count":1}]}`)
	}))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	search := func(limit int, f filter.Set, auth registry.AuthConfig) string {
		t.Helper()
		list, err := b.RegistrySearch(t.Context(), SearchOptions{Term: host + "/team/app", Limit: limit, Filters: f, Auth: auth})
		if err != nil {
			return fault.KindOf(err).String()
		}
		names := ""
		for _, r := range list {
			names += r.Name
		}
		return names
	}
	for _, c := range []struct {
		limit int
		f     filter.Set
		want  string
	}{
		{0, nil, "abc"}, {2, nil, "ab"}, {0, filters("stars", "3"), "ab"}, {0, filters("is-official", "true"), "a"}, {0, filters("is-official", "false"), "bc"},
		{0, filters("is-automated", "true"), ""}, {0, filters("is-automated", "false"), "abc"}, {0, filters("colour", "red"), "invalid"}, {0, filters("stars", "many"), "invalid"},
	} {
		if got := search(c.limit, c.f, registry.AuthConfig{}); got != c.want {
			t.Errorf("limit %d, %v: %q, want %q", c.limit, c.f, got, c.want)
		}
	}
	if search(7, nil, registry.AuthConfig{Username: "me", Password: "pw"}); asked != "n=7&q=team%2Fapp me" {
		t.Errorf("the registry was asked %q", asked)
	}
	for code, want := range map[int]string{404: "unsupported", 401: "unauthorized", 500: "unavailable"} {
		status = code
		if got := search(0, nil, registry.AuthConfig{}); got != want {
			t.Errorf("answer %d: %q, want %q", code, got, want)
		}
	}
}

func TestFilesOfRegistriesAndPolicyAreReadAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c := &b.Engine.cfg.Registry
	c.Registries = write("registries.toml", "")
	c.Policy = write("policy.toml", "default = \"deny\"\n")
	c.HubMirrors = []string{"http://mirror.invalid:5000"}
	if err := b.ReloadRegistries(); err != nil {
		t.Fatal(err)
	}
	before, rules := b.client.Load(), b.policy.now.Load()
	for file, text := range map[string]string{"registries.toml": "sparkle = 1\n", "policy.toml": "default = \"maybe\"\n"} {
		good, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		write(file, text)
		if err := b.ReloadRegistries(); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", text, err)
		}
		if b.client.Load() != before || b.policy.now.Load() != rules {
			t.Errorf("%s: what was in force is not any more", text)
		}
		write(file, string(good))
	}
	if err := b.ReloadRegistries(); err != nil || b.client.Load() == before {
		t.Errorf("good files again: %v", err)
	}
	info, err := b.Info(t.Context())
	if err != nil || len(info.RegistryConfig.Mirrors) != 1 {
		t.Errorf("%+v, %v", info.RegistryConfig, err)
	}
}

func TestOwnRegistryIsServedAndKnown(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.crash()
	b.cfg.Registry.Serve = "127.0.0.1:0"
	b.open()
	address := b.own.address.String()
	resp, err := http.Get("http://" + address + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the registry answers %s", resp.Status)
	}
	_, port, _ := strings.Cut(address, ":")
	for host, own := range map[string]bool{
		address: true, "localhost:" + port: true, "[::1]:" + port: false, "127.0.0.1:1": false, "127.0.0.1": false, "registry.example:" + port: false, "10.0.0.1:" + port: false,
	} {
		if got := b.localRegistry(host) != nil; got != own {
			t.Errorf("%s: own %v, want %v", host, got, own)
		}
	}
	b.crash()
	for name, text := range map[string]string{"nothing": "", "root": "listen = \"127.0.0.1:0\"\nroot = \"/srv\"\n", "unknown": "sparkle = 1\n", "log": "listen = \"127.0.0.1:0\"\naccess-log = \"loud\"\n"} {
		b.cfg.Registry.Serve, b.cfg.Registry.ServeFile = "", filepath.Join(t.TempDir(), name+".toml")
		if err := os.WriteFile(b.cfg.Registry.ServeFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if e, err := Open(t.Context(), b.cfg); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				_ = e.Close(t.Context())
			}
		}
	}
	b.cfg.Registry = RegistryConfig{}
	b.open()
}
