package transfer

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"

	"berth/internal/fault"
	"berth/internal/image"
)

// mirrored builds a house that asks mirrors of g first.
func mirrored(t *testing.T, g *registry, mirrors ...Mirror) *house {
	return build(t, func(c *Config) {
		r := Registries{Hosts: map[string]*Registry{g.host: {Mirrors: mirrors}}}
		if err := r.Hosts[g.host].check(); err != nil {
			t.Fatal(err)
		}
		c.Registries = r
	})
}

// copyTo gives a mirror what a registry has.
func (g *registry) copyTo(m *registry) {
	m.blobs, m.manifests = g.blobs, g.manifests
}

// TestMirrors: a mirror is asked first, whatever it does; where it fails, the
// registry is asked, and the image is right.
func TestMirrors(t *testing.T) {
	layerData := noise(200_000, 6)
	for _, tc := range []struct {
		name  string
		fault func(m *registry, d digest.Digest) func(w http.ResponseWriter, r *http.Request) bool
		whole bool // everything comes from the mirror
	}{
		{"has it", nil, true},
		{"has nothing", func(*registry, digest.Digest) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(404); return true }
		}, false},
		{"is broken", func(*registry, digest.Digest) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(500); return true }
		}, false},
		{"wants a password", func(*registry, digest.Digest) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("WWW-Authenticate", "Basic realm=x")
				w.WriteHeader(401)
				return true
			}
		}, false},
		{"lacks the layer", func(_ *registry, d digest.Digest) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, string(d)) {
					w.WriteHeader(404)
					return true
				}
				return false
			}
		}, false},
		{"has another layer", func(_ *registry, d digest.Digest) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, string(d)) {
					w.Write(gz(oneFile("evil", layerData)))
					return true
				}
				return false
			}
		}, false},
		{"breaks in the middle", func(m *registry, d digest.Digest) func(http.ResponseWriter, *http.Request) bool {
			n := 0
			return func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, string(d)) {
					return false
				}
				if n++; n == 1 {
					m.cutAfter(w, r, 70_000)
				} else {
					w.WriteHeader(503)
				}
				return true
			}
		}, false},
		{"serves HTML", func(*registry, digest.Digest) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool { w.Write([]byte("<html>")); return true }
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g, m := newRegistry(t), newRegistry(t)
			manifest, d := g.push("v1", arch, ociGzip, oneFile("a", layerData))
			g.copyTo(m)
			if tc.fault != nil {
				m.setFault(tc.fault(m, manifest.Layers[0].Digest))
			}
			h := mirrored(t, g, Mirror{URL: m.URL})
			// By digest, so that a mirror that lies about tags is found out, too.
			img, _, err := h.Pull(context.Background(), g.host+"/app@"+d.Digest.String(), Options{Auth: Auth{Username: theUser, Password: thePassword}})
			if err != nil || h.read(t, img, "a") != layerData {
				t.Fatal(err)
			}
			if n := g.requests("/v2/app"); (n == 0) != tc.whole {
				t.Errorf("the registry was asked %d times", n)
			}
			if m.requests("/v2/app/") == 0 {
				t.Error("the mirror was not asked")
			}
			for path, auth := range m.auth {
				if auth != "" {
					t.Errorf("the registry's credentials went to the mirror: %s %s", path, auth)
				}
			}
			if img.RepoDigests[0] != g.host+"/app@"+d.Digest.String() {
				t.Errorf("it is called %v", img.RepoDigests)
			}
		})
	}
}

// TestMirrorOfAnyRegistry: the default entry serves all registries, each below
// a prefix of its own, with the mirror's own password.
func TestMirrorOfAnyRegistry(t *testing.T) {
	g, m := newRegistry(t), newRegistry(t)
	g.push("v1", arch, ociGzip, oneFile("a", "b"))
	g.copyTo(m)
	m.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, _ := r.BasicAuth(); user != "cache" || password != "pw" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(401)
			return true
		}
		if r.URL.Query().Get("ns") != g.host {
			w.WriteHeader(400)
			return true
		}
		return false
	})
	h := build(t, func(c *Config) {
		r, err := parseRegistries(`[[default.mirror]]
url = "` + m.URL + `"
prefix = "proxy/{registry}"
username = "cache"
password = "pw"`)
		if err != nil {
			t.Fatal(err)
		}
		c.Registries = r
	})
	h.pull(t, g.host+"/team/app:v1")
	if prefix := "/v2/proxy/" + strings.ReplaceAll(g.host, ":", "-") + "/team/app/"; m.requests(prefix) == 0 {
		t.Errorf("requests: %v", m.log)
	}
	if len(g.log) != 0 {
		t.Errorf("the registry was asked: %v", g.log)
	}
}

// TestDigestsOnlyMirror: a mirror that may be behind does not say what a tag
// means.
func TestDigestsOnlyMirror(t *testing.T) {
	g, m := newRegistry(t), newRegistry(t)
	manifest, _ := g.push("v1", arch, ociGzip, oneFile("a", "new"))
	g.copyTo(m)
	h := mirrored(t, g, Mirror{URL: m.URL, DigestsOnly: true})
	h.pull(t, g.host+"/app:v1")
	if m.requests("/manifests/v1") != 0 || g.requests("/manifests/v1") == 0 || m.requests(manifest.Layers[0].Digest.String()) == 0 {
		t.Errorf("mirror: %v, registry: %v", m.log, g.log)
	}
}

// TestMirrorsFail says so when nobody has it, in the registry's own words.
func TestMirrorsFail(t *testing.T) {
	g, m := newRegistry(t), newRegistry(t)
	m.setFault(func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(503); return true })
	h := mirrored(t, g, Mirror{URL: m.URL})
	var said []string
	_, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{Progress: func(m jsonstream.Message) { said = append(said, m.Status) }})
	if !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "manifest for "+g.host+"/app:v1 not found") {
		t.Errorf("got %v", err)
	}
	if all := strings.Join(said, "\n"); !strings.Contains(all, "Mirror "+m.host+" is passed over") {
		t.Errorf("said %q", all)
	}
}

func TestQuota(t *testing.T) {
	g := newRegistry(t)
	g.push("v1", arch, ociGzip, oneFile("a", "b"))
	g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("RateLimit-Limit", "100;w=21600")
			w.Header().Set("RateLimit-Remaining", "76;w=21600")
			w.Header().Set("Docker-RateLimit-Source", "192.0.2.7")
		}
		return false
	})
	h := build(t, nil)
	var said []string
	if _, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{Progress: func(m jsonstream.Message) { said = append(said, m.Status) }}); err != nil {
		t.Fatal(err)
	}
	if want := g.host + ": 76 pulls left of 100 in 6h for 192.0.2.7"; !strings.Contains(strings.Join(said, "\n"), want) {
		t.Errorf("%q is missing from %q", want, said)
	}
	for _, v := range []string{"", "x", "-1", "1;w=x"} {
		q, ok := quotaOf(http.Header{"Ratelimit-Limit": {v}, "Ratelimit-Remaining": {"1"}})
		if ok && (v != "1;w=x" || q.window != 0) {
			t.Errorf("%q: %v", v, q)
		}
	}
}

// TestUpToDateCostsNoPull: what is here and unchanged is asked for with HEAD,
// which registries do not count.
func TestUpToDateCostsNoPull(t *testing.T) {
	g := newRegistry(t)
	g.push("v1", arch, ociGzip, oneFile("a", "b"))
	h := build(t, nil)
	img := h.pull(t, g.host+"/app:v1")
	before := g.requests("GET ")
	if again := h.pull(t, g.host+"/app:v1"); again.ID != img.ID || g.requests("GET ") != before {
		t.Errorf("requests: %v", g.log)
	}
	g.push("v1", arch, ociGzip, oneFile("a", "c"))
	if again := h.pull(t, g.host+"/app:v1"); again.ID == img.ID {
		t.Error("the tag moved and nobody noticed")
	}
}

const someRegistries = `
[default]
[[default.mirror]]
url = "https://cache.example:5000"
prefix = "{registry}"
[registry."index.docker.io"]
auth-hosts = ["auth.example"]
[[registry."index.docker.io".mirror]]
url = "http://10.0.0.1:5000"
digests-only = true
headers = { X-Team = "a" }
[registry."10.0.0.2:5000"]
plain-http = true
`

func TestRegistriesFile(t *testing.T) {
	r, err := parseRegistries(someRegistries)
	if err != nil {
		t.Fatal(err)
	}
	if hub := r.lookup("docker.io"); len(hub.Mirrors) != 1 || hub.Mirrors[0].host != "10.0.0.1:5000" || !hub.Mirrors[0].DigestsOnly || hub.Mirrors[0].Headers["X-Team"] != "a" {
		t.Errorf("hub: %+v", hub)
	}
	if !r.lookup("10.0.0.2:5000").PlainHTTP || r.lookup("ghcr.io") != &r.Default {
		t.Error("an entry is not found")
	}
	for text, says := range map[string]string{
		"[registry.x.y]\nz = 1":                                                                        "unknown key",
		"[default]\nmirrors = 1":                                                                       "unknown key default.mirrors",
		"[registry.\"http://x\"]":                                                                      "want a host",
		"[registry.\"docker.io\"]\n[registry.\"index.docker.io\"]":                                     "twice",
		"[[default.mirror]]\nurl = \"x\"":                                                              "want url",
		"[[default.mirror]]\nurl = \"ftp://x\"":                                                        "want url",
		"[[default.mirror]]\nurl = \"https://u:p@x\"":                                                  "username and password",
		"[[default.mirror]]\nurl = \"https://x/v2/hub\"":                                               "prefix",
		"[[default.mirror]]\nurl = \"https://x\"\nprefix = \"../../x\"":                                "cannot be part",
		"[[default.mirror]]\nurl = \"https://x\"\npassword = \"p\"":                                    "without username",
		"[[default.mirror]]\nurl = \"http://x\"\nca = \"/x\"":                                          "no use for",
		"[default]\nclient-cert = \"x\"":                                                               "need one another",
		"[default]\nheaders = { \"a b\" = \"c\" }":                                                     "no HTTP header",
		"[default]\nheaders = { a = \"b\\nc\" }":                                                       "no HTTP header",
		"[default]\nheaders = { host = \"x\" }":                                                        "not to be set",
		"[default]\nauth-hosts = [\"https://x/\"]":                                                     "no host",
		"[[default.mirror]]\nurl = \"https://x\"\nusername=\"u\"\npassword=\"p\"\npassword-file=\"f\"": "exclude",
		"= x": "toml",
	} {
		if _, err := parseRegistries(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
	dir := t.TempDir()
	if _, err := LoadRegistries(filepath.Join(dir, "none")); !fault.Is(err, fault.NotFound) {
		t.Errorf("a missing file: %v", err)
	}
	os.WriteFile(filepath.Join(dir, "ca"), []byte("no certificate"), 0o600)
	os.WriteFile(filepath.Join(dir, "pw"), []byte("secret\n"), 0o600)
	file := filepath.Join(dir, "registries.toml")
	for text, ok := range map[string]bool{
		"[default]\nca = \"" + dir + "/ca\"":                                                        false,
		"[default]\nca = \"" + dir + "/nothing\"":                                                   false,
		"[[default.mirror]]\nurl = \"https://x\"\nusername=\"u\"\npassword-file=\"" + dir + "/pw\"": true,
	} {
		os.WriteFile(file, []byte(text), 0o600)
		r, err := LoadRegistries(file)
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), file) {
			t.Errorf("%q: %v", text, err)
		}
		if ok && r.Default.Mirrors[0].Password != "secret" {
			t.Errorf("password %q", r.Default.Mirrors[0].Password)
		}
	}
}

func FuzzRegistries(f *testing.F) {
	f.Add(someRegistries)
	f.Add("[registry.\"[::1]:5000\"]\ninsecure = true")
	f.Add("[[default.mirror]]\nurl = \"http://a%2fb\"")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseRegistries(text)
		if err != nil {
			return
		}
		for host, e := range r.Hosts {
			if _, err := image.ParseName(host + "/x"); err != nil {
				t.Errorf("%q is no host", host)
			}
			for _, m := range e.Mirrors {
				if _, err := http.NewRequest(http.MethodGet, m.base+"/v2/x/", nil); err != nil {
					t.Errorf("%q: %v", m.URL, err)
				}
			}
		}
	})
}
