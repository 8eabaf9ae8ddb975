package build

import (
	"archive/tar"
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/build/source"
	"berth/internal/fault"
	"berth/internal/image"
)

// layoutScheme begins a named context that is an image in an OCI layout:
// oci-layout://DIR@DIGEST, or without the directory when its client sends it.
const layoutScheme = "oci-layout://"

// maxDocument bounds a manifest or an index of a layout.
const maxDocument = 8 << 20

// layout is an image in a directory that has the form of an OCI layout.
type layout struct {
	from      *source.Context
	platforms []ocispec.Platform
	top       ocispec.Descriptor
	id        digest.Digest        // of the image, or of the index of several
	files     []ocispec.Descriptor // what belongs to it, as far as it is there
}

// layoutImage brings the image that a named context means into the engine, which
// keeps it as one that was pulled, without a name, and returns its id.
func (o *one) layoutImage(ctx context.Context, name, where string) (string, error) {
	const op = "read OCI layout"
	cut := strings.LastIndexByte(where, '@')
	top, err := digest.Parse(where[cut+1:])
	if err != nil {
		return "", fault.New(fault.Invalid, op, name, "%w", err)
	}
	from := o.contexts[name]
	delete(o.contexts, name)
	if from == nil {
		if from, err = o.b.solver.Sources().Local(where[:max(cut, 0)], o.req.Credentials, ""); err != nil {
			return "", err
		}
	}
	defer from.Close()
	l := &layout{from: from, platforms: o.platforms, top: ocispec.Descriptor{Digest: top}}
	if err := l.read(&l.top, 0); err != nil {
		return "", fault.Wrap(op, name, err)
	}
	if l.here(ctx, o.b.o.Images) {
		return l.id.String(), nil
	}
	r, w := io.Pipe()
	packed := make(chan struct{})
	go func() {
		defer close(packed)
		_ = w.CloseWithError(l.pack(w))
	}()
	_, err = o.b.o.Images.Load(ctx, r, image.LoadOptions{Platforms: l.platforms})
	_ = r.Close()
	<-packed
	return l.id.String(), fault.Wrap(op, name, err)
}

// here reports whether the engine has the image for all platforms.
func (l *layout) here(ctx context.Context, images *image.Store) bool {
	return !slices.ContainsFunc(l.platforms, func(p ocispec.Platform) bool {
		_, err := images.GetPlatform(ctx, l.id.String(), &p)
		return err != nil
	})
}

func blobFile(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

// read finds out what belongs to a manifest or an index. Manifests of an index for
// platforms that nobody wants may be missing, and are left out.
func (l *layout) read(d *ocispec.Descriptor, depth int) error {
	if err := d.Digest.Validate(); err != nil {
		return fault.New(fault.Invalid, "read", d.Digest.String(), "%w", err)
	}
	data, err := l.from.ReadFile(blobFile(d.Digest), maxDocument)
	if err != nil {
		return err
	}
	if d.Digest.Algorithm().FromBytes(data) != d.Digest {
		return fault.New(fault.Invalid, "read", d.Digest.String(), "its bytes are others")
	}
	doc, err := image.ParseDocument(data, d.MediaType)
	if err != nil {
		return err
	}
	d.Size = int64(len(data))
	l.files = append(l.files, *d)
	if doc.Manifest != nil {
		if d.MediaType = doc.Manifest.MediaType; d.MediaType == "" {
			d.MediaType = ocispec.MediaTypeImageManifest
		}
		if depth == 0 {
			l.id = doc.Manifest.Config.Digest
		}
		l.files = append(append(l.files, doc.Manifest.Config), doc.Manifest.Layers...)
		return nil
	}
	if depth > 0 {
		return fault.New(fault.Unsupported, "read", d.Digest.String(), "it is an index in an index")
	}
	if d.MediaType, l.id = doc.Index.MediaType, d.Digest; d.MediaType == "" {
		d.MediaType = ocispec.MediaTypeImageIndex
	}
	for i := range doc.Index.Manifests {
		m := &doc.Index.Manifests[i]
		wanted := m.Platform == nil || slices.ContainsFunc(l.platforms, func(p ocispec.Platform) bool { return image.Matches(p, *m.Platform) })
		if !wanted {
			continue
		}
		if err := l.read(m, 1); err != nil {
			return err
		}
	}
	return nil
}

// pack writes the image as an archive, in which it has no name.
func (l *layout) pack(w io.Writer) error {
	out := tar.NewWriter(w)
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{{MediaType: l.top.MediaType, Digest: l.top.Digest, Size: l.top.Size}},
	})
	if err != nil {
		return err
	}
	for _, doc := range []struct {
		name string
		text []byte
	}{{ocispec.ImageLayoutFile, []byte(`{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`)}, {ocispec.ImageIndexFile, index}} {
		err := out.WriteHeader(&tar.Header{Name: doc.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(doc.text))})
		if err == nil {
			_, err = out.Write(doc.text)
		}
		if err != nil {
			return err
		}
	}
	seen := map[digest.Digest]bool{}
	for _, d := range l.files {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			if err := l.blob(out, d); err != nil {
				return err
			}
		}
	}
	return out.Close()
}

// blob adds a blob, whose digest the engine verifies.
func (l *layout) blob(out *tar.Writer, d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fault.New(fault.Invalid, "read", d.Digest.String(), "%w", err)
	}
	f, err := l.from.OpenFile(blobFile(d.Digest))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := out.WriteHeader(&tar.Header{Name: blobFile(d.Digest), Typeflag: tar.TypeReg, Mode: 0o644, Size: d.Size}); err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(f, d.Size))
	if err == nil && n < d.Size {
		err = fault.New(fault.Invalid, "read", d.Digest.String(), "it has %d bytes instead of %d", n, d.Size)
	}
	return err
}
