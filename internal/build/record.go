package build

import (
	"context"
	"encoding/json"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/build/graph"
	"berth/internal/build/solve"
	"berth/internal/fault"
	"berth/internal/image"
)

// record makes images of the outputs: as they are when there is one and no more
// to say about it, and else under a document that their names stand for.
func (o *one) record(ctx context.Context, graphs []*graph.Graph, solved *solve.Solved, res *Result) error {
	if len(res.Outputs) == 1 && len(o.notes) == 0 && o.provenance == nil {
		out := &res.Outputs[0]
		if out.Image = o.there(ctx, out.Config); out.Image != nil {
			return nil
		}
		return o.register(ctx, solved, res, []image.Registration{{Config: out.Config, Tags: o.tags}})
	}
	top, regs, err := o.compose(ctx, graphs, solved, res.Outputs)
	if err != nil {
		return err
	}
	res.Top = top
	if o.topThere(ctx, res) {
		return nil
	}
	return o.register(ctx, solved, res, regs)
}

func (o *one) register(ctx context.Context, solved *solve.Solved, res *Result, regs []image.Registration) error {
	images, err := o.b.o.Images.Register(ctx, solved.Hold, regs, nil)
	if err != nil {
		return err
	}
	for i := range images {
		res.Outputs[i].Image = images[i]
	}
	return nil
}

// compose makes the document that the result's names stand for, and what is to be
// registered with it: an index of the images, or for one image, of which nothing is
// attested, its manifest.
func (o *one) compose(ctx context.Context, graphs []*graph.Graph, solved *solve.Solved, outputs []Output) (*ocispec.Descriptor, []image.Registration, error) {
	regs := make([]image.Registration, len(outputs))
	x := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Annotations: o.notes.of(onIndex, ocispec.Platform{})}
	x.SchemaVersion = 2
	var documents [][]byte
	for i := range outputs {
		out := &outputs[i]
		raw, err := o.b.o.Images.ManifestFor(ctx, out.Config, o.notes.of(onManifest, out.Platform))
		if err != nil {
			return nil, nil, err
		}
		d := describe(ocispec.MediaTypeImageManifest, raw)
		d.Platform, d.Annotations = &out.Platform, o.notes.of(onManifestDescriptor, out.Platform)
		x.Manifests = append(x.Manifests, d)
		documents = append(documents, raw) // the index's: the image itself may have other names
		regs[i] = image.Registration{Config: out.Config, Tags: o.tags}
	}
	attests, err := o.attest(ctx, &x, graphs, solved)
	if err != nil {
		return nil, nil, err
	}
	top := x.Manifests[0]
	member := image.IndexMembership{Raw: documents[0], Documents: documents, Annotations: top.Annotations}
	if len(x.Manifests) > 1 {
		raw, err := json.Marshal(x)
		if err != nil {
			return nil, nil, fault.Wrap("make index", "", err)
		}
		top = describe(ocispec.MediaTypeImageIndex, raw)
		top.Annotations = o.notes.of(onIndexDescriptor, ocispec.Platform{})
		member.Raw, member.Annotations, member.Documents = raw, top.Annotations, append(documents, attests...)
	}
	for i := range regs {
		own := member
		own.Manifest = x.Manifests[i].Digest
		regs[i].Index = &own
	}
	return &top, regs, nil
}

func describe(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// topThere is there for a document that names stand for, and fills in its images.
func (o *one) topThere(ctx context.Context, res *Result) bool {
	if len(res.Top.Annotations) > 0 {
		return false // which are not part of the document
	}
	refs := []string{res.Top.Digest.String()}
	for _, t := range o.tags {
		refs = append(refs, t.String())
	}
	for _, ref := range refs {
		members, raw, err := o.b.o.Images.Members(ctx, ref)
		if err != nil || digest.FromBytes(raw) != res.Top.Digest || len(members) != len(res.Outputs) {
			return false
		}
		for i, m := range members {
			if m.Image == nil {
				return false
			}
			res.Outputs[i].Image = m.Image
		}
	}
	return true
}
