package transfer

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
	"berth/internal/image"
)

// lines collects what a progress says, as "id status".
type lines struct {
	mu  sync.Mutex
	all []string
	aux []string
}

func (l *lines) add(m jsonstream.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.Aux != nil {
		l.aux = append(l.aux, string(*m.Aux))
		return
	}
	line := strings.TrimSpace(m.ID + " " + m.Status)
	if !strings.Contains(line, "Pushing") {
		l.all = append(l.all, line)
	}
}

func (l *lines) has(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		if !slices.Contains(l.all, w) {
			t.Errorf("%q is missing from %q", w, l.all)
		}
	}
}

// push pushes and returns what was said.
func (h *house) push(t *testing.T, ref string, o PushOptions) (digest.Digest, *lines) {
	t.Helper()
	l := &lines{}
	o.Progress = l.add
	d, err := h.Push(context.Background(), ref, o)
	if err != nil {
		t.Fatal(err)
	}
	return d, l
}

func (h *house) pull(t *testing.T, ref string) *image.Image {
	t.Helper()
	img, _, err := h.Pull(context.Background(), ref, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// packedAs returns what an image's first layer is called at its registry.
func (h *house) packedAs(t *testing.T, img *image.Image) digest.Digest {
	t.Helper()
	raw, err := h.images.Manifest(context.Background(), img.ID)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := image.ParseDocument(raw, "")
	if err != nil {
		t.Fatal(err)
	}
	return doc.Manifest.Layers[0].Digest
}

func (h *house) tag(t *testing.T, src, target string) {
	t.Helper()
	if err := h.images.Tag(context.Background(), src, target); err != nil {
		t.Fatal(err)
	}
}

// TestPushForms: what was pulled in any form goes to another registry and comes
// from there the same, whether blobs were kept or not.
func TestPushForms(t *testing.T) {
	for name, p := range map[string]packing{"OCI gzip": ociGzip, "OCI zstd": ociZstd, "OCI plain": ociPlain, "docker": dockerTwo} {
		for _, keep := range []bool{true, false} {
			t.Run(name+" "+map[bool]string{true: "kept", false: "dropped"}[keep], func(t *testing.T) {
				from, to := newRegistry(t), newPushRegistry(t)
				_, first := from.push("v1", arch, p, oneFile("a", noise(300_000, 1)), oneFile("b", "2"))
				h := build(t, func(c *Config) { c.KeepBlobs = keep })
				img := h.pull(t, from.host+"/app:v1")
				h.tag(t, from.host+"/app:v1", to.host+"/team/app:v2")
				d, said := h.push(t, to.host+"/team/app:v2", PushOptions{})
				a, b := shortDigest(img.DiffIDs[0]), shortDigest(img.DiffIDs[1])
				said.has(t, "The push refers to repository ["+to.host+"/team/app]", a+" Preparing", b+" Preparing", a+" Pushed", b+" Pushed")
				if keep && d != first.Digest {
					t.Errorf("the manifest was %s and became %s", first.Digest, d)
				}
				if len(said.aux) != 1 || !strings.Contains(said.aux[0], `"Tag":"v2","Digest":"`+d.String()) {
					t.Errorf("aux: %q", said.aux)
				}
				other := build(t, nil)
				got := other.pull(t, to.host+"/team/app:v2")
				if got.ID != img.ID || other.read(t, got, "a") != noise(300_000, 1) {
					t.Error("another image came back")
				}
				again, said := h.push(t, to.host+"/team/app:v2", PushOptions{})
				said.has(t, a+" Layer already exists", b+" Layer already exists")
				if again != d {
					t.Errorf("again it is %s, was %s", again, d)
				}
				after, err := h.images.Get(context.Background(), img.ID.String())
				if err != nil || !slices.Contains(after.RepoDigests, to.host+"/team/app@"+d.String()) {
					t.Errorf("digests %v, %v", after.RepoDigests, err)
				}
				if has := h.content.Has(h.packedAs(t, img)); has != keep {
					t.Errorf("the packed layer is kept: %v", has)
				}
			})
		}
	}
}

// TestPushMounts: a layer that is in another repository of the registry is not
// sent again.
func TestPushMounts(t *testing.T) {
	g := newPushRegistry(t)
	src := newRegistry(t)
	src.push("v1", arch, ociGzip, oneFile("a", noise(100_000, 1)))
	h := build(t, nil)
	img := h.pull(t, src.host+"/app:v1")
	h.tag(t, src.host+"/app:v1", g.host+"/one:v1")
	h.tag(t, src.host+"/app:v1", g.host+"/two:v1")
	h.push(t, g.host+"/one:v1", PushOptions{})
	before := g.requests("PATCH") + g.requests("PUT /v2/two/blobs")
	_, said := h.push(t, g.host+"/two:v1", PushOptions{})
	said.has(t, shortDigest(img.DiffIDs[0])+" Mounted from one")
	if n := g.requests("PATCH"); n != before {
		t.Error("the layer was sent again")
	}
}

// TestPushIsRefusedInDockersWords for names that are not here.
func TestPushIsRefusedInDockersWords(t *testing.T) {
	g := newPushRegistry(t)
	src := newRegistry(t)
	src.push("v1", arch, ociGzip, oneFile("a", "b"))
	h := build(t, nil)
	h.pull(t, src.host+"/app:v1")
	h.tag(t, src.host+"/app:v1", g.host+"/app:v1")
	for ref, want := range map[string]string{
		g.host + "/nope":   "An image does not exist locally with the tag: " + g.host + "/nope",
		g.host + "/app:v9": "tag does not exist: " + g.host + "/app:v9",
	} {
		_, err := h.Push(context.Background(), ref, PushOptions{})
		if !fault.Is(err, fault.NotFound) || err.Error() != ": "+want && err.Error() != want {
			t.Errorf("%s: %q", ref, err)
		}
	}
	if _, err := h.Push(context.Background(), g.host+"/app:v1", PushOptions{AllTags: true}); !fault.Is(err, fault.Invalid) {
		t.Errorf("all tags and a tag: %v", err)
	}
	if n := len(g.log); n != 0 {
		t.Errorf("the registry was asked %d times", n)
	}
}

func TestPushAllTags(t *testing.T) {
	src, g := newRegistry(t), newPushRegistry(t)
	src.push("v1", arch, ociGzip, oneFile("a", "1"))
	src.push("v2", arch, ociGzip, oneFile("a", "2"))
	h := build(t, nil)
	if _, _, err := h.Pull(context.Background(), src.host+"/app", Options{AllTags: true}); err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"v1", "v2"} {
		h.tag(t, src.host+"/app:"+v, g.host+"/app:"+v)
	}
	h.tag(t, src.host+"/app:v1", g.host+"/app:also")
	var names []string
	_, said := h.push(t, g.host+"/app", PushOptions{AllTags: true, Pushed: func(n reference.Named, d digest.Digest) { names = append(names, n.String()) }})
	if want := []string{g.host + "/app:also", g.host + "/app:v1", g.host + "/app:v2"}; !slices.Equal(names, want) {
		t.Errorf("pushed %v", names)
	}
	if len(said.aux) != 3 {
		t.Errorf("aux: %v", said.aux)
	}
	for _, v := range []string{"also", "v1", "v2"} {
		if _, ok := g.manifests[v]; !ok {
			t.Errorf("%s is missing", v)
		}
	}
}

// TestPushOverBrokenConnections cuts uploads at every place.
func TestPushOverBrokenConnections(t *testing.T) {
	data := noise(500_000, 4)
	for _, keep := range []bool{true, false} {
		for i := range 8 {
			t.Run(map[bool]string{true: "kept ", false: "packed "}[keep]+itoa(i), func(t *testing.T) {
				src, g := newRegistry(t), newPushRegistry(t)
				src.push("v1", arch, ociGzip, oneFile("a", data))
				h := build(t, func(c *Config) { c.KeepBlobs = keep })
				h.pull(t, src.host+"/app:v1")
				h.tag(t, src.host+"/app:v1", g.host+"/app:v1")
				var cuts atomic.Int32
				g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
					if (r.Method == http.MethodPut || r.Method == http.MethodPatch) && strings.Contains(r.URL.Path, "/uploads/") && r.ContentLength != 0 && cuts.Add(1) <= 2 {
						g.takeSome(w, r, 60_000*i+i)
						return true
					}
					return false
				})
				h.push(t, g.host+"/app:v1", PushOptions{})
				other := build(t, nil)
				if other.read(t, other.pull(t, g.host+"/app:v1"), "a") != data {
					t.Error("the file differs")
				}
			})
		}
	}
}

// TestPushToServersThatFail: each error is of its own kind and nothing is
// visible at the registry.
func TestPushToServersThatFail(t *testing.T) {
	status := func(code int) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(code); return true }
	}
	for _, tc := range []struct {
		name string
		on   string // part of "METHOD path"
		f    func(w http.ResponseWriter, r *http.Request) bool
		kind fault.Kind
		says string
	}{
		{"password", "", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("WWW-Authenticate", "Basic realm=x")
			w.WriteHeader(401)
			return true
		}, fault.Unauthorized, "berth login"},
		{"forbidden", "POST", status(403), fault.Forbidden, "push access denied"},
		{"no place", "POST", status(202), fault.Invalid, "no place to upload"},
		{"no such path", "POST", status(404), fault.NotFound, "404"},
		{"full", "/uploads/u", status(500), fault.Unavailable, "500"},
		{"wait", "POST", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Retry-After", "7200")
			w.WriteHeader(429)
			return true
		}, fault.Unavailable, "limits"},
		{"manifest refused", "PUT /v2/app/manifests", status(400), fault.Invalid, "400"},
		{"another digest", "PUT /v2/app/manifests", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Docker-Content-Digest", digest.FromString("x").String())
			w.WriteHeader(201)
			return true
		}, fault.Invalid, "took it for"},
		{"to a file", "POST", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(202)
			return true
		}, fault.Invalid, "no place to upload"},
		{"elsewhere by redirect", "POST", func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "http://localhost:1/", http.StatusTemporaryRedirect)
			return true
		}, fault.Invalid, "307"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src, g := newRegistry(t), newPushRegistry(t)
			src.push("v1", arch, ociGzip, oneFile("a", noise(200_000, 3)))
			h := build(t, nil)
			h.pull(t, src.host+"/app:v1")
			h.tag(t, src.host+"/app:v1", g.host+"/app:v1")
			g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
				return strings.Contains(r.Method+" "+r.URL.Path, tc.on) && tc.f(w, r)
			})
			_, err := h.Push(context.Background(), g.host+"/app:v1", PushOptions{})
			if fault.KindOf(err) != tc.kind || err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v (%v), want %v with %q", err, fault.KindOf(err), tc.kind, tc.says)
			}
			if len(g.manifests) != 0 {
				t.Error("a manifest is visible")
			}
		})
	}
}

// TestPushIndex: an index with its attestation goes whole, and what is not here
// makes it a single image.
func TestPushIndex(t *testing.T) {
	src := newRegistry(t)
	top, att := src.pushIndex("v1")
	for _, keep := range []bool{true, false} {
		g := newPushRegistry(t)
		h := build(t, func(c *Config) { c.KeepBlobs = keep })
		if _, _, err := h.Pull(context.Background(), src.host+"/app:v1", Options{AllPlatforms: true}); err != nil {
			t.Fatal(err)
		}
		h.tag(t, src.host+"/app:v1", g.host+"/app:v1")
		d, _ := h.push(t, g.host+"/app:v1", PushOptions{})
		_, hasAttestation := g.manifests[att.Digest.String()]
		if keep && (d != top.Digest || !hasAttestation) {
			t.Errorf("kept: %s, want %s; attestation %v", d, top.Digest, hasAttestation)
		}
		other := build(t, nil)
		want, _ := image.ParsePlatform("linux/s390x")
		img, _, err := other.Pull(context.Background(), g.host+"/app:v1", Options{Platform: want})
		if err != nil || other.read(t, img, "a") != "s390x" {
			t.Errorf("keep %v: %v", keep, err)
		}
		d, _ = h.push(t, g.host+"/app:v1", PushOptions{Platform: want})
		if m := g.manifests[d.String()]; m.mediaType != ocispec.MediaTypeImageManifest {
			t.Errorf("one platform is a %s", m.mediaType)
		}
	}
	g := newPushRegistry(t)
	h := build(t, nil)
	h.pull(t, src.host+"/app:v1")
	h.tag(t, src.host+"/app:v1", g.host+"/app:v1")
	if d, _ := h.push(t, g.host+"/app:v1", PushOptions{}); g.manifests[d.String()].mediaType != ocispec.MediaTypeImageManifest {
		t.Error("what was pulled for one platform is pushed as an index")
	}
}

// TestPushToServerThatStalls: one that takes nothing more is left, and the
// upload goes on.
func TestPushToServerThatStalls(t *testing.T) {
	src, g := newRegistry(t), newPushRegistry(t)
	src.push("v1", arch, ociGzip, oneFile("a", noise(20<<20, 3))) // more than sockets hold
	h := build(t, func(c *Config) { c.Stall = 2 * time.Second })
	h.pull(t, src.host+"/app:v1")
	h.tag(t, src.host+"/app:v1", g.host+"/app:v1")
	var stalls atomic.Int32
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPatch && r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/uploads/") || stalls.Add(1) > 1 {
			return false
		}
		select {
		case <-r.Context().Done():
		case <-release:
		case <-time.After(20 * time.Second):
			t.Error("the stalled upload goes on")
		}
		return true
	})
	h.push(t, g.host+"/app:v1", PushOptions{})
	build(t, nil).pull(t, g.host+"/app:v1")
}

// TestPullAllTagsPassesOverArtifacts: signatures have tags, too.
func TestPullAllTagsPassesOverArtifacts(t *testing.T) {
	g := newRegistry(t)
	g.push("v1", arch, ociGzip, oneFile("a", "1"))
	g.pushBent("sha256-"+strings.Repeat("a", 64)+".sig", arch, ociGzip, func(m *ocispec.Manifest) {
		m.Layers[0].MediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
	}, oneFile("a", "2"))
	h := build(t, nil)
	l := &lines{}
	if _, _, err := h.Pull(context.Background(), g.host+"/app", Options{AllTags: true, Progress: l.add}); err != nil {
		t.Fatal(err)
	}
	l.has(t, "sha256-"+strings.Repeat("a", 64)+".sig Passed over: it is no image to run", "Status: Downloaded newer image for "+g.host+"/app")
}
