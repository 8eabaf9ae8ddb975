package builds

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"time"

	"berth/internal/build"
	"berth/internal/fault"
	"berth/internal/image"
	"berth/internal/transfer"
	"berth/internal/wire"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// export gives what a build's steps gave to all who are to have it. A cache that
// cannot be written fails the build unless that was not wanted.
func (c *caches) export(ctx context.Context, res *build.Result) error {
	for i, to := range c.b.o.CacheTo {
		what := to.Ref
		if what == "" {
			what = "a directory"
		}
		err := c.exportTo(ctx, res, i, to)
		if err == nil || ctx.Err() != nil {
			continue
		}
		if !to.IgnoreError {
			return fault.Wrap("export build cache to", what, err)
		}
		c.b.warn("cache-to " + what + ": " + err.Error())
	}
	return ctx.Err()
}

func (c *caches) exportTo(ctx context.Context, res *build.Result, entry int, to wire.BuildCacheTo) error {
	stock, builder := c.b.s.stock, c.b.s.builder
	doc, layers, err := builder.Share(res)
	if err != nil {
		return err
	}
	bundle := transfer.Bundle{Type: wire.BuildCacheType, Document: doc}
	hold := stock.Layers.Hold()
	defer func() { stock.Images.Release(hold) }()
	hold.Add(layers...)
	for _, d := range layers {
		if !to.Max && !slices.Contains(res.Layers, d) {
			continue
		}
		part := transfer.Part{DiffID: d, Annotations: map[string]string{transfer.Uncompressed: d.String()}}
		part.Known, part.At = builder.Cache().Packed(d)
		if !stock.Layers.Has(d) {
			if part.Known, part.At = c.known(d); part.Known == nil {
				continue // nobody has it any more: its step will be run again
			}
			part.Bring = func(ctx context.Context) error { return c.fetch(ctx, []digest.Digest{d}) }
		}
		bundle.Parts = append(bundle.Parts, part)
	}
	if to.Mounts {
		bundle.Parts = append(bundle.Parts, c.mountParts(res.Mounts)...)
	}
	if to.Ref == "" {
		return c.write(ctx, bundle, to, c.b.o.CacheData(entry))
	}
	return c.push(ctx, bundle, to.Ref)
}

// known tells how a cache of this build has a layer.
func (c *caches) known(d digest.Digest) (*ocispec.Descriptor, string) {
	for _, one := range c.from {
		if desc, ok := one.layers[d]; ok {
			return &desc, one.at
		}
	}
	return nil, ""
}

// mountParts are the contents of cache mounts.
func (c *caches) mountParts(ids []string) []transfer.Part {
	var parts []transfer.Part
	cache := c.b.s.builder.Cache()
	for _, id := range ids {
		used := cache.MountUsed(id)
		if used.IsZero() {
			continue // no step that has it was ever run here
		}
		parts = append(parts, transfer.Part{
			MediaType:   wire.BuildMountType,
			Annotations: map[string]string{wire.BuildMountID: id, wire.BuildMountUsed: used.UTC().Format(time.RFC3339Nano)},
			Write:       func(ctx context.Context, w io.Writer) error { return cache.ExportMount(ctx, id, w) },
		})
	}
	return parts
}

func (c *caches) push(ctx context.Context, bundle transfer.Bundle, ref string) error {
	p := &pullTeller{b: c.b, name: "build cache to " + ref, push: true, layers: map[string]*jsonstream.Progress{}}
	p.send("")
	m, _, err := c.b.s.remote.Transfers().PushBundle(ctx, ref, bundle, transfer.PushOptions{Auth: c.b.o.auth(ref), Progress: p.message})
	if err != nil {
		return err
	}
	p.send("done")
	packed := map[digest.Digest]ocispec.Descriptor{}
	for i, d := range m.Layers {
		if diffID := bundle.Parts[i].DiffID; diffID != "" {
			packed[diffID] = d
		}
	}
	named, err := image.ParseName(ref)
	if err != nil {
		return err
	}
	c.b.s.builder.Cache().NotePacked(packed, named.Name())
	return c.b.s.builder.Cache().Commit()
}

// write writes an archive of an OCI layout, without the blobs that the client has
// already. Its index comes last.
func (c *caches) write(ctx context.Context, bundle transfer.Bundle, to wire.BuildCacheTo, out io.Writer) error {
	has := map[digest.Digest]bool{}
	for _, d := range to.Have {
		has[digest.Digest(d)] = true
	}
	w := tar.NewWriter(out)
	file := func(name string, size int64, r io.Reader) error {
		err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size})
		if err == nil {
			_, err = io.Copy(w, r)
		}
		return err
	}
	blob := func(d ocispec.Descriptor, r io.Reader) error {
		if has[d.Digest] {
			return nil
		}
		has[d.Digest] = true
		return file(ocispec.ImageBlobsDir+"/sha256/"+d.Digest.Encoded(), d.Size, r)
	}
	document := func(mediaType string, data []byte) (ocispec.Descriptor, error) {
		d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
		return d, blob(d, bytes.NewReader(data))
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: bundle.Type, Layers: []ocispec.Descriptor{}}
	var err error
	if m.Config, err = document(bundle.Type, bundle.Document); err != nil {
		return err
	}
	for i := range bundle.Parts {
		part := &bundle.Parts[i]
		d, err := c.writePart(ctx, part, has, blob)
		if err != nil {
			return err
		}
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Annotations: part.Annotations})
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return fault.New(fault.Internal, "make manifest", "", "%w", err)
	}
	top, err := document(m.MediaType, raw)
	if err != nil {
		return err
	}
	top.ArtifactType = bundle.Type
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{top}})
	if err != nil {
		return fault.New(fault.Internal, "make index", "", "%w", err)
	}
	return errors.Join(file(ocispec.ImageIndexFile, int64(len(index)), bytes.NewReader(index)), w.Close())
}

func (c *caches) writePart(ctx context.Context, part *transfer.Part, has map[digest.Digest]bool, blob func(ocispec.Descriptor, io.Reader) error) (ocispec.Descriptor, error) {
	if part.Known != nil && has[part.Known.Digest] {
		return *part.Known, nil
	}
	if part.Bring != nil {
		if err := part.Bring(ctx); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	client := c.b.s.remote.Transfers()
	var p *transfer.Packed
	var err error
	if part.DiffID != "" {
		p, err = client.Pack(ctx, part.DiffID, part.Known)
	} else {
		p, err = client.PackFile(ctx, part.MediaType, part.Write)
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer p.Close()
	if part.DiffID != "" {
		c.b.s.builder.Cache().NotePacked(map[digest.Digest]ocispec.Descriptor{part.DiffID: p.Descriptor}, part.At)
	}
	return p.Descriptor, blob(p.Descriptor, p)
}
