package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
)

// pull does with the store what a pull does: hold, look, fetch what is missing,
// record. The packed layers are kept.
func (h *house) pull(tag string, layers ...[]byte) error {
	ctx := context.Background()
	hold, blobs := h.lay.Hold(), h.con.Hold()
	defer h.Release(hold)
	defer func() { h.con.Collect(blobs.Release()...) }()
	named, err := parseTag(tag)
	if err != nil {
		return err
	}
	reg := Registration{Config: mustJSON(config(layers...)), Tags: []reference.NamedTagged{named}}
	for _, l := range layers {
		d, packed := digest.FromBytes(l), gz(l)
		p := digest.FromBytes(packed)
		hold.Add(d)
		blobs.Add(p)
		if !h.lay.Has(d) {
			if _, err := hold.Apply(ctx, d, bytes.NewReader(packed)); err != nil {
				return err
			}
		}
		if !h.con.Has(p) {
			if _, err := h.con.Ingest(ctx, bytes.NewReader(packed), p, -1); err != nil {
				return err
			}
		}
		reg.Packed = append(reg.Packed, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: p, Size: int64(len(packed))})
	}
	_, err = h.Register(ctx, hold, []Registration{reg}, nil)
	return err
}

// TestEverythingAtOnce runs pulls, loads, commits, saves, removals, tags,
// leases and collections of the same few images and layers beside each other.
// Whoever finds an image finds all of it, and at the end nothing is left over.
func TestEverythingAtOnce(t *testing.T) {
	h := build(t, t.TempDir())
	ctx := context.Background()
	layers := make([][]byte, 5)
	for i := range layers {
		layers[i] = oneFile("f", fmt.Sprint("content ", i))
	}
	index, _ := several("multi:1")
	pick := func() [][]byte { return [][]byte{layers[rand.IntN(3)], layers[3+rand.IntN(2)]} }
	tag := func() string { return fmt.Sprintf("app:%d", rand.IntN(6)) }
	gone := func(err error) bool {
		return err == nil || fault.Is(err, fault.NotFound) || fault.Is(err, fault.Conflict)
	}
	work := map[string]func() error{
		"pull":  func() error { return h.pull(tag(), pick()...) },
		"load":  func() error { _, err := h.load(dockerArchive([]string{tag()}, pick()...).bytes()); return err },
		"index": func() error { _, err := h.load(index); return err },
		"commit": func() error {
			hold := h.lay.Hold()
			defer h.Release(hold)
			l, err := hold.Apply(ctx, "", bytes.NewReader(layers[rand.IntN(5)]))
			if err != nil {
				return err
			}
			o := CommitOptions{Hold: hold, Layer: l, Ref: tag(), Container: v1.DockerOCIImageConfig{}}
			if img, err := h.Get(ctx, tag()); err == nil {
				o.Parent = img.ID
			}
			if _, err = h.Commit(ctx, o); gone(err) {
				err = nil
			}
			return err
		},
		"remove": func() error {
			ref := tag()
			if rand.IntN(4) == 0 {
				ref = "multi:1"
			}
			if _, err := h.Remove(ctx, ref, RemoveOptions{Prune: true, Force: rand.IntN(2) == 0}); !gone(err) {
				return err
			}
			return nil
		},
		"clean": func() error {
			all, err := h.List(ctx)
			for _, img := range all {
				if img.Dangling() {
					if _, err := h.Remove(ctx, string(img.ID), RemoveOptions{Prune: true}); !gone(err) {
						return err
					}
				}
			}
			return err
		},
		"tag": func() error {
			if err := h.Tag(ctx, tag(), tag()); !gone(err) {
				return err
			}
			return nil
		},
		"save": func() error {
			if err := h.Save(ctx, []string{tag()}, io.Discard, SaveOptions{}); !gone(err) {
				return err
			}
			return nil
		},
		"verify": func() error {
			if err := h.Verify(ctx, tag(), nil); !gone(err) {
				return err
			}
			return nil
		},
		"lease": func() error {
			hold, blobs := h.lay.Hold(), h.con.Hold()
			defer h.Release(hold)
			defer func() { h.con.Collect(blobs.Release()...) }()
			l, err := hold.Apply(ctx, "", bytes.NewReader(layers[0]))
			if err != nil {
				return err
			}
			blobs.Add(digest.FromString("leased"))
			b, err := h.con.Ingest(ctx, bytes.NewReader([]byte("leased")), digest.FromString("leased"), -1)
			if err != nil {
				return err
			}
			if err := h.Lease(ctx, "k", time.Hour, []digest.Digest{l.DiffID}, []digest.Digest{b.Digest}); err != nil {
				return err
			}
			return h.DropLease(ctx, "k")
		},
		"sweep": h.sweep,
	}
	// A container's engine: what it holds and finds, it can run.
	work["run"] = func() error {
		img, err := h.Get(ctx, tag())
		if err != nil {
			return nil
		}
		hold := h.lay.Hold()
		defer h.Release(hold)
		hold.Add(img.DiffIDs...)
		if again, err := h.Get(ctx, string(img.ID)); err != nil || again.ID != img.ID {
			return nil // removed before it was held
		}
		_, err = h.lay.Lower(img.DiffIDs)
		return err
	}
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	var wg sync.WaitGroup
	var done atomic.Int64
	for name, fn := range work {
		for range 2 {
			wg.Go(func() {
				for range rounds {
					if err := fn(); err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
					done.Add(1)
				}
			})
		}
	}
	wg.Wait()
	if done.Load() == 0 {
		t.Fatal("nothing was done")
	}
	h.noWaste(t)
	if err := h.Verify(ctx, "", nil); err != nil {
		t.Error(err)
	}
	h.mustClean(t)
	h.empty(t)
}

// mustClean removes every image.
func (h *house) mustClean(t *testing.T) {
	t.Helper()
	for range 100 {
		all, err := h.List(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 0 {
			return
		}
		for _, img := range all { // parents once their children are gone
			h.Remove(context.Background(), string(img.ID), RemoveOptions{Force: true, Prune: true})
		}
	}
	t.Fatal("some images cannot be removed")
}

// TestManyImages removes a thousand images of ten thousand layers, half of
// which they share; that would take minutes if each removal looked at all
// others.
func TestManyImages(t *testing.T) {
	h := build(t, t.TempDir())
	ctx := context.Background()
	const images, perImage = 1000, 20
	_, err := h.change(func(c *change) error {
		for i := range images {
			r := &record{ID: digest.FromString(fmt.Sprint("image ", i)), OS: "linux", Arch: "amd64",
				Tags: []string{fmt.Sprintf("docker.io/library/app:%d", i)}}
			for j := range perImage / 2 {
				r.DiffIDs = append(r.DiffIDs, digest.FromString(fmt.Sprint("shared ", i%10, " ", j)), digest.FromString(fmt.Sprint("own ", i, " ", j)))
			}
			for j := range perImage {
				r.Packed = append(r.Packed, ocispec.Descriptor{Digest: digest.FromString(fmt.Sprint("packed ", r.DiffIDs[j]))})
			}
			if i > 0 && i%3 == 0 {
				r.Parent = digest.FromString(fmt.Sprint("image ", i-1))
			}
			c.put(r)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(h.refs.layers); n != images*perImage/2+10*perImage/2 {
		t.Errorf("%d layers", n)
	}
	for i := images - 1; i >= 0; i-- {
		if _, err := h.Remove(ctx, fmt.Sprintf("app:%d", i), RemoveOptions{Prune: true}); err != nil && !fault.Is(err, fault.NotFound) {
			t.Fatal(err)
		}
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	if n := len(h.refs.layers) + len(h.refs.blobs) + len(h.refs.sources) + len(h.refs.parents) + len(h.refs.indexes) + len(h.images) + len(h.tags); n != 0 {
		t.Errorf("%d references are left: %+v", n, h.refs)
	}
}
