package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
)

// SaveOptions steers Save.
type SaveOptions struct {
	Platforms []ocispec.Platform // of an index; none: all that are here
	Progress  Progress
}

// Save writes images as one tar that is both a docker-archive and an OCI image
// layout, with uncompressed layers under their diff_ids. The same images give
// the same bytes. A name without a tag stands for all tags of its repository,
// as with docker; an index keeps its images together. After an error what was
// written is of no use.
func (s *Store) Save(ctx context.Context, refs []string, w io.Writer, o SaveOptions) error {
	const op = "save images"
	if len(refs) == 0 {
		return fault.New(fault.Invalid, op, "", "no image is named")
	}
	v := &saver{s: s, o: o, out: tar.NewWriter(w), blobs: map[digest.Digest]saved{}, sizes: map[digest.Digest]int64{}}
	targets, err := s.targets(refs)
	if err != nil {
		return err
	}
	hold, content := s.layers.Hold(), s.content.Hold()
	defer s.Release(hold)
	defer func() { s.collectBlobs(content.Release()) }()
	for _, t := range targets {
		for _, rec := range t.all() { // held before they are looked at: nothing goes now
			hold.Add(rec.DiffIDs...)
			content.Add(rec.blobs()...)
		}
	}
	for _, t := range targets {
		if err := v.target(ctx, t); err != nil {
			return fault.Wrap(op, t.subject(), err)
		}
	}
	return fault.Wrap(op, "", v.write(ctx))
}

// target is what one or more of the references given to Save mean.
type target struct {
	rec     *record
	members []savedMember // of an index: those that are here, by entry
	tags    []string      // canonical, as given
}

// savedMember is an image with what its index says it is for.
type savedMember struct {
	rec      *record
	platform ocispec.Platform
	entry    ocispec.Descriptor // in the index; zero without one
}

func (t *target) all() []*record {
	all := []*record{t.rec}
	for _, m := range t.members {
		all = append(all, m.rec)
	}
	return all
}

func (t *target) subject() string {
	if len(t.tags) > 0 {
		return familiarString(t.tags[0])
	}
	return t.rec.ID.String()
}

// targets finds what references mean, in their order, each once.
func (s *Store) targets(refs []string) ([]*target, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []*target
	add := func(id digest.Digest, tag string) {
		i := slices.IndexFunc(all, func(t *target) bool { return t.rec.ID == id })
		if i < 0 {
			t := &target{rec: s.images[id].rec}
			for _, m := range t.rec.Members {
				if st := s.images[m.Image]; st != nil {
					t.members = append(t.members, savedMember{st.rec, memberPlatform(m, st.rec), m.Descriptor})
				}
			}
			i, all = len(all), append(all, t)
		}
		if tag != "" && !slices.Contains(all[i].tags, tag) {
			all[i].tags = append(all[i].tags, tag)
		}
	}
	for _, ref := range refs {
		id, tags, err := s.target(ref)
		if err != nil {
			return nil, err
		}
		if id != "" {
			add(id, "")
		}
		for _, t := range tags {
			add(s.tags[t], t)
		}
	}
	return all, nil
}

// target returns the image or the tags that a reference means. The caller holds
// mu.
func (s *Store) target(ref string) (digest.Digest, []string, error) {
	if named, err := reference.ParseNormalizedNamed(ref); err == nil && !looksLikeID(ref) {
		switch n := named.(type) {
		case reference.Digested:
		case reference.Tagged:
			if _, ok := s.tags[named.String()]; ok {
				return "", []string{named.String()}, nil
			}
		default:
			var tags []string
			for t := range s.tags {
				if name, _ := cutTag(t); name == n.Name() {
					tags = append(tags, t)
				}
			}
			if slices.Sort(tags); len(tags) > 0 {
				return "", tags, nil
			}
		}
	}
	id, err := s.find(ref)
	return id, nil, err
}

// saver gathers what goes into the archive. Documents are kept in memory,
// layers only named.
type saver struct {
	s   *Store
	o   SaveOptions
	out *tar.Writer

	blobs     map[digest.Digest]saved
	sizes     map[digest.Digest]int64 // of layers' tars
	manifests []dockerManifest
	index     []ocispec.Descriptor
}

// saved is a blob of the archive: a document, or a layer by its diff_id.
type saved struct {
	data  []byte
	layer bool
}

// target adds one image or index.
func (v *saver) target(ctx context.Context, t *target) error {
	if !t.rec.isIndex() {
		for i := range v.o.Platforms {
			if !Matches(v.o.Platforms[i], t.rec.platform()) {
				return fault.New(fault.NotFound, "select platform", FormatPlatform(v.o.Platforms[i]), "%w: the image is for %s",
					ErrPlatform, FormatPlatform(t.rec.platform()))
			}
		}
		d, err := v.image(ctx, savedMember{rec: t.rec, platform: t.rec.platform()}, t.tags)
		if err != nil {
			return err
		}
		v.name(d, t.tags, nil)
		return nil
	}
	return v.whole(ctx, t)
}

// members returns the images of an index to save, the one for this machine
// first.
func (v *saver) members(t *target) ([]savedMember, error) {
	out := slices.Clone(t.members)
	if len(v.o.Platforms) > 0 {
		out = nil
	}
	for i := range v.o.Platforms {
		want := v.o.Platforms[i]
		best := savedMember{}
		for _, m := range t.members {
			if n := rank(want, m.platform); n > rank(want, best.platform) {
				best = m
			}
		}
		if best.rec == nil {
			return nil, fault.New(fault.NotFound, "select platform", FormatPlatform(want), "%w among those that are here", ErrPlatform).
				WithHint("pull it with --platform %s", FormatPlatform(want))
		}
		if !slices.ContainsFunc(out, func(m savedMember) bool { return m.rec == best.rec }) {
			out = append(out, best)
		}
	}
	host := HostPlatform()
	slices.SortStableFunc(out, func(a, b savedMember) int { return rank(host, b.platform) - rank(host, a.platform) })
	return out, nil
}

// write writes the archive, its entries in the order of their names.
func (v *saver) write(ctx context.Context) error {
	for _, dir := range []string{"blobs/", blobs} {
		if err := v.out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: epoch}); err != nil {
			return err
		}
	}
	for _, d := range slices.Sorted(maps.Keys(v.blobs)) {
		b := v.blobs[d]
		if !b.layer {
			if err := v.file(blobs+d.Encoded(), b.data); err != nil {
				return err
			}
			continue
		}
		if err := v.layer(ctx, d); err != nil {
			return err
		}
	}
	for i, m := range v.manifests {
		if _, saved := v.blobs[m.Parent]; !saved {
			v.manifests[i].Parent = ""
		}
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: v.index}
	index.SchemaVersion = 2
	for _, doc := range []struct {
		name string
		v    any
	}{
		{ocispec.ImageIndexFile, index},
		{dockerFile, v.manifests},
		{ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}},
		{legacyFile, v.repositories()},
	} {
		data, err := json.Marshal(doc.v)
		if err != nil {
			return err
		}
		if doc.name == legacyFile && string(data) == "{}" {
			continue
		}
		if err := v.file(doc.name, data); err != nil {
			return err
		}
	}
	return v.out.Close()
}

// Entry points of a docker-archive.
const (
	dockerFile = "manifest.json"
	legacyFile = "repositories"
)

// epoch is the time of all entries, so that the same images give the same
// bytes.
var epoch = time.Unix(0, 0)

func (v *saver) file(name string, data []byte) error {
	h := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: epoch}
	if err := v.out.WriteHeader(&h); err != nil {
		return err
	}
	_, err := v.out.Write(data)
	return err
}

func (v *saver) layer(ctx context.Context, d digest.Digest) error {
	h := tar.Header{Typeflag: tar.TypeReg, Name: blobs + d.Encoded(), Mode: 0o644, Size: v.sizes[d], ModTime: epoch}
	if err := v.out.WriteHeader(&h); err != nil {
		return err
	}
	w := &progressWriter{w: v.out, id: short(d.Encoded()), total: v.sizes[d], progress: v.o.Progress}
	if err := v.s.WriteLayer(ctx, d, w); err != nil {
		return err
	}
	if w.n != w.total {
		return fault.New(fault.Internal, "read layer", d.String(), "%w: it has %d bytes now and had %d", ErrSize, w.n, w.total)
	}
	v.o.Progress.Transfer(w.id, "Saving layer", w.total, w.total)
	return nil
}

// repositories is what docker before 1.10 looked for: names and the topmost
// layers.
func (v *saver) repositories() map[string]map[string]string {
	out := map[string]map[string]string{}
	for _, m := range v.manifests {
		for _, t := range m.RepoTags {
			if len(m.Layers) == 0 {
				continue
			}
			name, tag := cutTag(t)
			if out[name] == nil {
				out[name] = map[string]string{}
			}
			out[name][tag] = strings.TrimPrefix(m.Layers[len(m.Layers)-1], blobs)
		}
	}
	return out
}

// progressWriter reports how much of a layer was written.
type progressWriter struct {
	w        io.Writer
	id       string
	n, total int64
	shown    int64
	progress Progress
}

func (p *progressWriter) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	p.n += int64(n)
	if p.n-p.shown >= progressStep {
		p.shown = p.n
		p.progress.Transfer(p.id, "Saving layer", p.n, p.total)
	}
	if err != nil {
		return n, fmt.Errorf("write archive: %w", err)
	}
	return n, nil
}
