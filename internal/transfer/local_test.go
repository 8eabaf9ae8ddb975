package transfer

import (
	"context"
	"net/http"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/content"
	"berth/internal/fault"
)

// ownRegistry is a registry that shares a content store.
type ownRegistry struct {
	t       *testing.T
	content *content.Store
	g       *registry // answers over HTTP

	mu    sync.Mutex
	tags  map[string]digest.Digest
	keeps map[digest.Digest]bool
	err   error
}

func (o *ownRegistry) Link(ctx context.Context, repo, tag string, manifests, blobs []ocispec.Descriptor) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	for _, b := range blobs {
		if info, err := o.content.Stat(b.Digest); err != nil || info.Size != b.Size {
			o.t.Errorf("%s is not in the content store: %v", b.Digest, err)
		}
		o.keeps[b.Digest] = true
	}
	for _, m := range manifests {
		if digest.FromBytes(m.Data) != m.Digest {
			o.t.Errorf("manifest %s has other data", m.Digest)
		}
	}
	o.tags[repo+":"+tag] = manifests[len(manifests)-1].Digest
	return nil
}

func (o *ownRegistry) uses(d digest.Digest) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.keeps[d]
}

// TestPushToOwnRegistry copies nothing over HTTP, and asks nevertheless whether
// the caller may push.
func TestPushToOwnRegistry(t *testing.T) {
	for _, keep := range []bool{true, false} {
		src, g := newRegistry(t), newPushRegistry(t)
		src.pushIndex("all")
		src.push("v1", arch, ociGzip, oneFile("a", noise(100_000, 1)))
		var own *ownRegistry
		h := build(t, func(c *Config) {
			own = &ownRegistry{t: t, content: c.Content, g: g, tags: map[string]digest.Digest{}, keeps: map[digest.Digest]bool{}}
			c.KeepBlobs = keep
			c.Content.AddOwner(own.uses)
			c.Local = func(host string) LocalRegistry {
				if host == g.host {
					return own
				}
				return nil
			}
		})
		h.pull(t, src.host+"/app:v1")
		if _, _, err := h.Pull(context.Background(), src.host+"/app:all", Options{AllPlatforms: true}); err != nil {
			t.Fatal(err)
		}
		for _, tag := range []string{"v1", "all"} {
			h.tag(t, src.host+"/app:"+tag, g.host+"/team/app:"+tag)
			d, _ := h.push(t, g.host+"/team/app:"+tag, PushOptions{})
			if own.tags["team/app:"+tag] != d {
				t.Errorf("tags: %v, want %s", own.tags, d)
			}
		}
		if g.requests("PUT") != 0 || g.requests("PATCH") != 0 {
			t.Errorf("requests: %v", g.log)
		}
		for d := range own.keeps {
			if !h.content.Has(d) {
				t.Errorf("%s was collected", d)
			}
		}
		g.setFault(func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(http.StatusForbidden); return true })
		before := len(own.tags)
		h.tag(t, src.host+"/app:v1", g.host+"/other:v1")
		if _, err := h.Push(context.Background(), g.host+"/other:v1", PushOptions{}); !fault.Is(err, fault.Forbidden) || len(own.tags) != before {
			t.Errorf("without the right: %v", err)
		}
	}
}

// TestOwnRegistryElsewhere: one that does not share the store gets everything
// sent.
func TestOwnRegistryElsewhere(t *testing.T) {
	src, g := newRegistry(t), newPushRegistry(t)
	src.push("v1", arch, ociGzip, oneFile("a", "b"))
	h := build(t, func(c *Config) {
		own := &ownRegistry{t: t, content: c.Content, g: g, err: fault.New(fault.Unsupported, "", "", "elsewhere")}
		c.Local = func(string) LocalRegistry { return own }
	})
	h.pull(t, src.host+"/app:v1")
	h.tag(t, src.host+"/app:v1", g.host+"/app:v1")
	h.push(t, g.host+"/app:v1", PushOptions{})
	build(t, nil).pull(t, g.host+"/app:v1")
}
