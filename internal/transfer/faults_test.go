package transfer

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
	"berth/internal/image"
	"berth/internal/layer"
)

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
