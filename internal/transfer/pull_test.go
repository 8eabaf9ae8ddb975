package transfer

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
	"berth/internal/image"
	"berth/internal/layer"
)

const arch = runtime.GOARCH

func TestPullForms(t *testing.T) {
	for name, p := range map[string]packing{"OCI gzip": ociGzip, "OCI zstd": ociZstd, "OCI plain": ociPlain, "docker": dockerTwo} {
		t.Run(name, func(t *testing.T) {
			g := newRegistry(t)
			_, d := g.push("v1", arch, p, oneFile("a", "1"), oneFile("b", "2"))
			h := build(t, nil)
			img, got, err := h.Pull(context.Background(), g.host+"/team/app:v1", Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got != d.Digest || h.read(t, img, "a")+h.read(t, img, "b") != "12" {
				t.Errorf("digest %s, want %s", got, d.Digest)
			}
			if !slices.Equal(img.RepoTags, []string{g.host + "/team/app:v1"}) || !slices.Equal(img.RepoDigests, []string{g.host + "/team/app@" + d.Digest.String()}) {
				t.Errorf("names %v %v", img.RepoTags, img.RepoDigests)
			}
			// By digest, and with both.
			for _, ref := range []string{"@" + d.Digest.String(), ":v9@" + d.Digest.String()} {
				again, _, err := h.Pull(context.Background(), g.host+"/team/app"+ref, Options{})
				if err != nil || again.ID != img.ID || len(again.RepoTags) != 1 {
					t.Errorf("%s: %v, %v", ref, again, err)
				}
			}
			if n := g.requests("/blobs/"); n != 3 {
				t.Errorf("%d blobs were fetched, want 3", n)
			}
		})
	}
}

func TestPullPicksThePlatform(t *testing.T) {
	g := newRegistry(t)
	_, mine := g.push("", arch, ociGzip, oneFile("a", arch))
	_, other := g.push("", "s390x", ociGzip, oneFile("a", "s390x"))
	x := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{other, mine}}
	x.SchemaVersion = 2
	top := g.manifest("v1", ocispec.MediaTypeImageIndex, x)
	h := build(t, nil)
	img, d, err := h.Pull(context.Background(), g.host+"/app:v1", Options{})
	if err != nil || d != top.Digest || h.read(t, img, "a") != arch {
		t.Fatalf("%v, %v", d, err)
	}
	want, _ := image.ParsePlatform("linux/s390x")
	if img, _, err = h.Pull(context.Background(), g.host+"/app:v1", Options{Platform: want}); err != nil || h.read(t, img, "a") != "s390x" {
		t.Fatal(err)
	}
	for _, s := range []string{"linux/riscv64", "windows/amd64"} {
		want, _ := image.ParsePlatform(s)
		_, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{Platform: want})
		if !errors.Is(err, image.ErrPlatform) || !strings.Contains(err.Error(), "linux/s390x") {
			t.Errorf("%s: %v", s, err)
		}
	}
	g.push("single", "s390x", ociGzip, oneFile("a", "s390x"))
	mineOnly := image.HostPlatform()
	if _, _, err := h.Pull(context.Background(), g.host+"/app:single", Options{Platform: &mineOnly}); !errors.Is(err, image.ErrPlatform) {
		t.Errorf("a single image of another platform: %v", err)
	}
}

// TestProgress checks the messages that docker's clients make bars of.
func TestProgress(t *testing.T) {
	g := newRegistry(t)
	m, d := g.push("v1", arch, ociGzip, oneFile("a", noise(3<<20, 1)), oneFile("b", "2"))
	h := build(t, nil)
	pull := func() []string {
		t.Helper()
		var got []string
		var busy atomic.Bool
		_, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{Progress: func(m jsonstream.Message) {
			if !busy.CompareAndSwap(false, true) {
				t.Error("called concurrently")
			}
			got = append(got, strings.TrimSpace(m.ID+" "+m.Status))
			busy.Store(false)
		}})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	first := pull()
	a, b := m.Layers[0].Digest.Encoded()[:12], m.Layers[1].Digest.Encoded()[:12]
	for _, want := range []string{"v1 Pulling from app", a + " Pulling fs layer", b + " Pulling fs layer", a + " Downloading", a + " Download complete",
		a + " Pull complete", b + " Pull complete", "Digest: " + d.Digest.String(), "Status: Downloaded newer image for " + g.host + "/app:v1"} {
		if !slices.Contains(first, want) {
			t.Errorf("%q is missing from %q", want, first)
		}
	}
	second := pull()
	if want := []string{"v1 Pulling from app", a + " Already exists", b + " Already exists", "Digest: " + d.Digest.String(),
		"Status: Image is up to date for " + g.host + "/app:v1"}; !slices.Equal(second, want) {
		t.Errorf("again: %q", second)
	}
}

// TestBadAnswers: whatever a registry serves, the error is of its own kind and
// nothing stays.
func TestBadAnswers(t *testing.T) {
	l := oneFile("a", noise(200_000, 7))
	other := oneFile("b", "other")
	endless := func(w http.ResponseWriter, match string, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, match) {
			return false
		}
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return true
			}
		}
	}
	for _, tc := range []struct {
		name  string
		bend  func(*ocispec.Manifest)
		setup func(g *registry, m ocispec.Manifest)
		err   error
		kind  fault.Kind
		says  string
	}{
		{"no such tag", nil, func(g *registry, m ocispec.Manifest) { delete(g.manifests, "v1") }, nil, fault.NotFound, "manifest for HOST/app:v1 not found: manifest unknown"},
		{"forbidden", nil, func(g *registry, m ocispec.Manifest) {
			g.fault = func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(403); return true }
		}, nil, fault.Forbidden, "pull access denied"},
		{"password wanted", nil, func(g *registry, m ocispec.Manifest) {
			g.fault = func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(401)
				return true
			}
		}, nil, fault.Unauthorized, "password"},
		{"always 500", nil, func(g *registry, m ocispec.Manifest) {
			g.fault = func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(500); return true }
		}, nil, fault.Unavailable, "500"},
		{"wait for hours", nil, func(g *registry, m ocispec.Manifest) {
			g.fault = func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Retry-After", "7200")
				w.WriteHeader(429)
				return true
			}
		}, nil, fault.Unavailable, "limits how much"},
		{"layer missing", nil, func(g *registry, m ocispec.Manifest) { delete(g.blobs, m.Layers[0].Digest) }, nil, fault.NotFound, "404"},
		{"layer of another digest", nil, func(g *registry, m ocispec.Manifest) {
			data := slices.Clone(g.blobs[m.Layers[0].Digest])
			data[len(data)/2] ^= 1
			g.blobs[m.Layers[0].Digest] = data
		}, nil, fault.Invalid, ""},
		{"another layer of the same length", nil, func(g *registry, m ocispec.Manifest) {
			g.blobs[m.Layers[0].Digest] = gz(oneFile("a", noise(200_000, 8)))
		}, nil, fault.Invalid, ""},
		{"layer too short", nil, func(g *registry, m ocispec.Manifest) {
			g.blobs[m.Layers[0].Digest] = g.blobs[m.Layers[0].Digest][:1000]
		}, image.ErrSize, fault.Invalid, "1000 bytes"},
		{"layer too long", nil, func(g *registry, m ocispec.Manifest) {
			g.blobs[m.Layers[0].Digest] = append(slices.Clone(g.blobs[m.Layers[0].Digest]), "more"...)
		}, image.ErrSize, fault.Invalid, ""},
		{"layer not what the config says", nil, func(g *registry, m ocispec.Manifest) {
			g.mu.Unlock()
			defer g.mu.Lock()
			d := ocispec.Descriptor{}
			g.pushBent("v1", arch, ociGzip, func(m *ocispec.Manifest) { d = m.Layers[0]; m.Layers[0] = g.blob(d.MediaType, gz(other)) }, l)
		}, layer.ErrDigest, fault.Invalid, ""},
		{"config of another digest", nil, func(g *registry, m ocispec.Manifest) {
			data := slices.Clone(g.blobs[m.Config.Digest])
			data[0] = ' '
			g.blobs[m.Config.Digest] = data
		}, image.ErrDigest, fault.Invalid, ""},
		{"config too large", func(m *ocispec.Manifest) { m.Config.Size = image.MaxConfig + 1 }, nil, image.ErrSize, fault.Invalid, ""},
		{"manifest too large", nil, func(g *registry, m ocispec.Manifest) {
			g.manifests["v1"] = served{image.DockerManifest, []byte(strings.Repeat(" ", image.MaxManifest) + "{}")}
		}, image.ErrTooLarge, fault.Invalid, ""},
		{"manifest without end", nil, func(g *registry, m ocispec.Manifest) {
			g.fault = func(w http.ResponseWriter, r *http.Request) bool { return endless(w, "/manifests/", r) }
		}, image.ErrTooLarge, fault.Invalid, ""},
		{"layer without end", nil, func(g *registry, m ocispec.Manifest) {
			g.fault = func(w http.ResponseWriter, r *http.Request) bool {
				return endless(w, m.Layers[0].Digest.String(), r)
			}
		}, nil, fault.Invalid, ""},
		{"manifest is HTML", nil, func(g *registry, m ocispec.Manifest) {
			g.manifests["v1"] = served{"text/html", []byte("<html>")}
		}, image.ErrDocument, fault.Invalid, ""},
		{"unknown media type", nil, func(g *registry, m ocispec.Manifest) {
			g.manifests["v1"] = served{"application/evil", []byte(`{"schemaVersion":2,"layers":[]}`)}
		}, image.ErrMediaType, fault.Invalid, "application/evil"},
		{"layers and manifests", nil, func(g *registry, m ocispec.Manifest) {
			g.manifests["v1"] = served{ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"layers":[],"config":{},"manifests":[]}`)}
		}, image.ErrDocument, fault.Invalid, "both"},
		{"header with another digest", nil, func(g *registry, m ocispec.Manifest) {
			g.fault = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/manifests/") {
					return false
				}
				w.Header().Set("Docker-Content-Digest", digest.FromString("x").String())
				w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
				w.Write(g.manifests["v1"].data)
				return true
			}
		}, image.ErrDigest, fault.Invalid, ""},
		{"foreign layer", func(m *ocispec.Manifest) {
			m.Layers[0].MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
			m.Layers[0].URLs = []string{"http://169.254.169.254/latest"}
		}, nil, image.ErrForeignLayer, fault.Unsupported, ""},
		{"digest that is a path", func(m *ocispec.Manifest) { m.Layers[0].Digest = "sha256:../../../etc/passwd" }, nil, nil, fault.Invalid, "etc/passwd"},
		{"more layers than diff_ids", func(m *ocispec.Manifest) { m.Layers = append(m.Layers, m.Layers[0]) }, nil, image.ErrDocument, fault.Invalid, "2 layers for 1"},
		{"an artifact", func(m *ocispec.Manifest) { m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json" }, nil, image.ErrMediaType, fault.Unsupported, "helm"},
		{"hostile layer", nil, func(g *registry, m ocispec.Manifest) {
			g.mu.Unlock()
			defer g.mu.Lock()
			g.push("v1", arch, ociGzip, oneFile("../evil", "x"))
		}, layer.ErrTraversal, fault.Invalid, "../evil"},
		{"redirect in a ring", nil, func(g *registry, m ocispec.Manifest) {
			g.fault = func(w http.ResponseWriter, r *http.Request) bool {
				http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
				return true
			}
		}, nil, fault.Forbidden, "redirects"},
		{"redirect to a file", nil, func(g *registry, m ocispec.Manifest) {
			g.fault = func(w http.ResponseWriter, r *http.Request) bool {
				http.Redirect(w, r, "file:///etc/passwd", http.StatusTemporaryRedirect)
				return true
			}
		}, nil, fault.Forbidden, "file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newRegistry(t)
			bend := tc.bend
			if bend == nil {
				bend = func(*ocispec.Manifest) {}
			}
			m, _ := g.pushBent("v1", arch, ociGzip, bend, l)
			if tc.setup != nil {
				g.mu.Lock()
				tc.setup(g, m)
				g.mu.Unlock()
			}
			h := build(t, nil)
			_, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{})
			if err == nil || tc.err != nil && !errors.Is(err, tc.err) || fault.KindOf(err) != tc.kind {
				t.Fatalf("got %v (%v), want %v (%v)", err, fault.KindOf(err), tc.err, tc.kind)
			}
			if says := strings.ReplaceAll(tc.says, "HOST", g.host); !strings.Contains(err.Error(), says) {
				t.Errorf("%q does not say %q", err, says)
			}
			h.empty(t)
		})
	}
}

// TestBrokenConnections cuts each answer somewhere, at every sixteenth of the
// layer, and expects the pull to go on from there.
func TestBrokenConnections(t *testing.T) {
	data := noise(640<<10, 3)
	l := oneFile("a", data)
	for i := range 16 {
		t.Run(itoa(i), func(t *testing.T) {
			g := newRegistry(t)
			m, _ := g.push("v1", arch, ociGzip, l)
			blob := "/blobs/" + m.Layers[0].Digest.String()
			var cuts atomic.Int32
			g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, blob) && cuts.Add(1) <= 3 {
					g.cutAfter(w, r, int(m.Layers[0].Size)*i/16/3+i)
					return true
				}
				return false
			})
			h := build(t, nil)
			img, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{})
			if err != nil {
				t.Fatal(err)
			}
			if h.read(t, img, "a") != data {
				t.Error("the file differs")
			}
			if i > 0 && g.requests("bytes=") != 3 {
				t.Errorf("%d requests with a range, want 3", g.requests("bytes="))
			}
		})
	}
}

func TestServersThatDoRangesBadly(t *testing.T) {
	data := noise(300<<10, 5)
	for name, tc := range map[string]struct {
		resume func(g *registry, w http.ResponseWriter, r *http.Request)
		ok     bool
	}{
		"ignored": {func(g *registry, w http.ResponseWriter, r *http.Request) { r.Header.Del("Range"); g.answer(w, r) }, true},
		"wrong start": {func(g *registry, w http.ResponseWriter, r *http.Request) {
			r.Header.Set("Range", "bytes=5-")
			g.answer(w, r)
		}, false},
		"no header": {func(g *registry, w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusPartialContent)
			w.Write([]byte("x"))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRegistry(t)
			m, _ := g.push("v1", arch, ociGzip, oneFile("a", data))
			g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case !strings.HasSuffix(r.URL.Path, m.Layers[0].Digest.String()):
					return false
				case r.Header.Get("Range") == "":
					g.cutAfter(w, r, 100_000)
				default:
					tc.resume(g, w, r)
				}
				return true
			})
			h := build(t, nil)
			img, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{})
			if (err == nil) != tc.ok {
				t.Fatal(err)
			}
			if err == nil && h.read(t, img, "a") != data {
				t.Error("the file differs")
			}
			if err != nil {
				h.empty(t)
			}
		})
	}
}

func TestServerThatAlwaysCuts(t *testing.T) {
	g := newRegistry(t)
	m, _ := g.push("v1", arch, ociGzip, oneFile("a", noise(1<<20, 6)))
	g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, m.Layers[0].Digest.String()) {
			g.cutAfter(w, r, 10)
			return true
		}
		return false
	})
	h := build(t, nil)
	_, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{})
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "the connection broke") {
		t.Errorf("got %v", err)
	}
	h.empty(t)
}

func TestServerThatStalls(t *testing.T) {
	g := newRegistry(t)
	m, _ := g.push("v1", arch, ociGzip, oneFile("a", noise(1<<20, 6)))
	var stalls atomic.Int32
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, m.Layers[0].Digest.String()) && stalls.Add(1) <= 2 {
			w.Header().Set("Content-Length", itoa(int(m.Layers[0].Size)))
			w.Write([]byte("x")[:0])
			http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
			case <-release:
			}
			return true
		}
		return false
	})
	h := build(t, func(c *Config) { c.Stall = 100 * time.Millisecond })
	if _, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{}); err != nil {
		t.Fatal(err)
	}
}

// TestTroubleThatPasses: 500 and 429 with a short Retry-After are waited for.
func TestTroubleThatPasses(t *testing.T) {
	g := newRegistry(t)
	g.push("v1", arch, ociGzip, oneFile("a", "b"))
	var n atomic.Int32
	g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		switch n.Add(1) % 4 {
		case 1:
			w.WriteHeader(http.StatusInternalServerError)
		case 2:
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
		case 3:
			conn, _, _ := http.NewResponseController(w).Hijack()
			conn.Close()
		default:
			return false
		}
		return true
	})
	h := build(t, nil)
	if _, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{}); err != nil {
		t.Fatal(err)
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	for v, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "x": 0, "-1": 0, "Mon, 02 Jan 2006 15:04:05 GMT": 0} {
		res := &http.Response{Header: http.Header{"Retry-After": {v}}}
		if got := retryAfter(res); got != want {
			t.Errorf("%q: %v, want %v", v, got, want)
		}
	}
}

// TestTokens: a bearer token is fetched from the realm without credentials and
// shown to the registry only, not to where it redirects.
func TestTokens(t *testing.T) {
	var leaked atomic.Value
	elsewhere := newRegistry(t)
	elsewhere.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if v := r.Header.Get("Authorization"); v != "" {
			leaked.Store(v)
		}
		return false
	})
	g := newRegistry(t)
	m, _ := g.push("v1", arch, ociGzip, oneFile("a", noise(200_000, 9)))
	elsewhere.blobs = g.blobs
	var tokens atomic.Int32
	realm := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			leaked.Store(r.Header.Get("Authorization"))
		}
		if r.URL.Query().Get("scope") != "repository:team/app:pull" || r.URL.Query().Get("service") != "the, registry" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		tokens.Add(1)
		w.Write([]byte(`{"access_token":"secret"}`))
	}))
	defer realm.Close()
	expired := false
	g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v2/" {
			return false
		}
		isLayer := strings.HasSuffix(r.URL.Path, m.Layers[0].Digest.String())
		if r.Header.Get("Authorization") != "Bearer secret" || isLayer && !expired {
			expired = expired || isLayer
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm.URL+`/token",service="the, registry",error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		if isLayer {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	h := build(t, nil)
	if _, _, err := h.Pull(context.Background(), g.host+"/team/app:v1", Options{}); err != nil {
		t.Fatal(err)
	}
	if v := leaked.Load(); v != nil {
		t.Errorf("credentials went elsewhere: %v", v)
	}
	if n := tokens.Load(); n != 2 {
		t.Errorf("%d tokens were fetched, want 2: one at first, one when it had expired", n)
	}
	if elsewhere.requests("/blobs/") != 1 {
		t.Error("the redirect was not followed")
	}
}

func TestBadRealms(t *testing.T) {
	for _, realm := range []string{"", "file:///etc/passwd", "not a url", "gopher://x/"} {
		g := newRegistry(t)
		g.push("v1", arch, ociGzip, oneFile("a", "b"))
		g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		})
		h := build(t, nil)
		_, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{})
		if k := fault.KindOf(err); k != fault.Invalid && k != fault.Unauthorized {
			t.Errorf("%q: %v", realm, err)
		}
	}
}

// TestRegistriesWithTLS: a certificate that nobody vouches for is refused,
// except on this machine, where it is as good as plain http.
func TestRegistriesWithTLS(t *testing.T) {
	g := newRegistry(t)
	g.push("v1", arch, ociGzip, oneFile("a", "b"))
	s := httptest.NewTLSServer(g)
	defer s.Close()
	h := build(t, nil)
	host := strings.TrimPrefix(s.URL, "https://")
	if _, _, err := h.Pull(context.Background(), host+"/app:v1", Options{}); err != nil {
		t.Error(err)
	}
	for host, want := range map[string]bool{
		"localhost:5000": true, "127.0.0.1": true, "127.9.9.9:80": true, "[::1]:5000": true, "x.localhost": true, "named:5000": true,
		"registry.example": false, "10.0.0.1:5000": false, "localhost.example": false, "docker.io": false, "128.0.0.1": false,
	} {
		h := New(Config{Insecure: []string{"named:5000"}})
		if got := h.mayBeInsecure(host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
}

// TestConcurrentPullsShareDownloads: however many want an image, each blob is
// fetched once.
func TestConcurrentPullsShareDownloads(t *testing.T) {
	g := newRegistry(t)
	m, _ := g.push("v1", arch, ociGzip, oneFile("a", noise(2<<20, 1)), oneFile("b", noise(2<<20, 2)))
	h := build(t, nil)
	waiting := make(chan struct{})
	var arrived atomic.Int32
	g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, m.Layers[0].Digest.String()) {
			<-waiting // until all pulls have joined
		}
		return false
	})
	var wg sync.WaitGroup
	const n = 8
	for range n {
		wg.Go(func() {
			_, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{Progress: func(msg jsonstream.Message) {
				if msg.Status == "Pulling fs layer" && msg.ID == shortID(m.Layers[1]) && arrived.Add(1) == n {
					close(waiting)
				}
			}})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := g.requests("GET /v2/app/blobs/" + m.Layers[0].Digest.String()); got != 1 {
		t.Errorf("the layer was fetched %d times", got)
	}
}

// TestOneOfTwoGivesUp: the other gets its image nevertheless.
func TestOneOfTwoGivesUp(t *testing.T) {
	g := newRegistry(t)
	m, _ := g.push("v1", arch, ociGzip, oneFile("a", noise(1<<20, 1)))
	h := build(t, nil)
	asked, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, m.Layers[0].Digest.String()) {
			once.Do(func() { close(asked) })
			<-goOn
		}
		return false
	})
	ctx, cancel := context.WithCancel(context.Background())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { _, _, err := h.Pull(ctx, g.host+"/app:v1", Options{}); first <- err }()
	<-asked
	joined := make(chan struct{})
	var joinOnce sync.Once
	go func() {
		_, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{Progress: func(msg jsonstream.Message) {
			if msg.Status == "Downloading" || msg.Status == "Pulling fs layer" {
				joinOnce.Do(func() { close(joined) })
			}
		}})
		second <- err
	}()
	<-joined
	cancel()
	if err := <-first; !fault.Is(err, fault.Canceled) {
		t.Errorf("the one that gave up got %v", err)
	}
	close(goOn)
	if err := <-second; err != nil {
		t.Errorf("the other got %v", err)
	}
}

func TestCanceledPullLeavesNothing(t *testing.T) {
	g := newRegistry(t)
	m, _ := g.push("v1", arch, ociGzip, oneFile("a", noise(1<<20, 1)))
	h := build(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, m.Layers[0].Digest.String()) {
			g.cutAfter(w, r, 500_000)
			cancel()
			return true
		}
		return false
	})
	if _, _, err := h.Pull(ctx, g.host+"/app:v1", Options{}); !fault.Is(err, fault.Canceled) {
		t.Errorf("got %v", err)
	}
	h.empty(t)
}

// TestPullsAndRemovalsAtOnce: whoever pulls has a whole image afterwards.
func TestPullsAndRemovalsAtOnce(t *testing.T) {
	g := newRegistry(t)
	g.push("v1", arch, ociGzip, oneFile("a", "1"), oneFile("b", "2"))
	h := build(t, nil)
	ref := g.host + "/app:v1"
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range 10 {
				if _, _, err := h.Pull(context.Background(), ref, Options{}); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 10 {
				if _, err := h.images.Remove(context.Background(), ref, image.RemoveOptions{}); err != nil && !fault.Is(err, fault.NotFound) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	img, _, err := h.Pull(context.Background(), ref, Options{})
	if err != nil || h.read(t, img, "b") != "2" {
		t.Error(err)
	}
}

func TestOnlyMissingLayersAreFetched(t *testing.T) {
	g := newRegistry(t)
	base := oneFile("base", noise(100_000, 1))
	g.push("v1", arch, ociGzip, base, oneFile("a", "1"))
	m, _ := g.push("v2", arch, ociZstd, base, oneFile("a", "2"))
	h := build(t, nil)
	for _, tag := range []string{"v1", "v2"} {
		if _, _, err := h.Pull(context.Background(), g.host+"/app:"+tag, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if g.requests(m.Layers[0].Digest.String()) != 0 || g.requests(m.Layers[1].Digest.String()) != 1 {
		t.Errorf("requests: %v", g.log)
	}
}

func FuzzChallenge(f *testing.F) {
	f.Add(`Bearer realm="https://auth.example/token",service="a,b",scope="x\"y"`)
	f.Add(`Basic realm=x`)
	f.Add(`Bearer realm="unfinished`)
	f.Fuzz(func(t *testing.T, s string) { parseChallenge(s) })
}

// TestUnreachable: a registry that is not there is an answer within seconds.
func TestUnreachable(t *testing.T) {
	h := build(t, nil)
	s := httptest.NewServer(http.NotFoundHandler())
	host := strings.TrimPrefix(s.URL, "http://")
	s.Close()
	_, _, err := h.Pull(context.Background(), host+"/app:v1", Options{})
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), host) {
		t.Errorf("got %v", err)
	}
}
