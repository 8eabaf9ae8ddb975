package images

import (
	"cmp"
	"context"
	"path"
	"strings"
	"time"

	"berth/internal/engine/filter"
	"berth/internal/fault"
	"berth/internal/image"

	api "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
)

// ListOptions select images and say what to tell of them.
type ListOptions struct {
	All            bool // also those that are only parents of others
	SharedSize     bool // fill Summary.SharedSize
	Manifests      bool // fill Summary.Manifests
	ContainerCount bool // fill Summary.Containers
	Filters        filter.Set
}

// listFilter is what a list or a prune of images is narrowed by.
type listFilter struct {
	before, since time.Time // created before, after; zero means any time
	references    []string  // patterns, one of which a name must match
	dangling      *bool     // nil: whether or not
	labels        filter.Set
}

// readFilter understands the filters of an image list.
func (s *Service) readFilter(ctx context.Context, f filter.Set) (*listFilter, error) {
	if err := f.Check("before", "dangling", "label", "reference", "since", "until"); err != nil {
		return nil, err
	}
	out := &listFilter{references: f.Get("reference"), labels: f}
	for _, p := range out.references {
		if _, err := path.Match(p, ""); err != nil {
			return nil, fault.New(fault.Invalid, "", "", "invalid filter 'reference=%s': %w", p, err)
		}
	}
	if f.Has("dangling") {
		dangling, err := f.Bool("dangling", false)
		if err != nil {
			return nil, err
		}
		out.dangling = &dangling
	}
	var err error
	if out.before, err = f.Until(); err != nil {
		return nil, err
	}
	for _, ref := range f.Get("before") {
		img, err := s.stock.Images.Get(ctx, ref)
		if err != nil {
			return nil, err
		}
		if out.before.IsZero() || img.Created.Before(out.before) {
			out.before = img.Created
		}
	}
	for _, ref := range f.Get("since") {
		img, err := s.stock.Images.Get(ctx, ref)
		if err != nil {
			return nil, err
		}
		if img.Created.After(out.since) {
			out.since = img.Created
		}
	}
	return out, nil
}

// admits reports whether an image is in the list at all.
func (f *listFilter) admits(img *image.Image) bool {
	return (f.before.IsZero() || img.Created.Before(f.before)) &&
		(f.since.IsZero() || img.Created.After(f.since)) &&
		(f.dangling == nil || *f.dangling == img.Dangling()) &&
		f.labels.Labels("label", img.Config.Config.Labels)
}

// names returns those of an image's names that the list is about. What a tag is
// called at its registry comes with the tag, which docker shows only when the
// pattern has no tag.
func (f *listFilter) names(img *image.Image) (tags, digests []string) {
	tags, digests = []string{}, []string{}
	repositories := map[string]bool{}
	for _, ref := range img.RepoTags {
		if len(f.references) == 0 || referenceMatches(f.references, ref) {
			tags = append(tags, ref)
			repositories[bareName(ref)] = true
		}
	}
	for _, ref := range img.RepoDigests {
		if len(f.references) == 0 || referenceMatches(f.references, ref) || repositories[bareName(ref)] {
			digests = append(digests, ref)
		}
	}
	return tags, digests
}

// referenceMatches compares a name with patterns, with and without its tag.
func referenceMatches(patterns []string, ref string) bool {
	name := bareName(ref)
	for _, p := range patterns {
		for _, s := range []string{ref, name} {
			if ok, err := path.Match(p, s); err == nil && ok {
				return true
			}
		}
	}
	return false
}

// bareName cuts tag and digest off a familiar name.
func bareName(ref string) string {
	if i := strings.IndexByte(ref, '@'); i >= 0 {
		ref = ref[:i]
	}
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i]
	}
	return ref
}

// ImageList returns images, newest first.
func (s *Service) ImageList(ctx context.Context, o ListOptions) ([]api.Summary, error) {
	f, err := s.readFilter(ctx, o.Filters)
	if err != nil {
		return nil, err
	}
	images, err := s.stock.Images.List(ctx)
	if err != nil {
		return nil, err
	}
	parents := ParentsOf(images)
	var shared map[digest.Digest]int
	if o.SharedSize {
		shared = layerUses(images)
	}
	var users map[digest.Digest][]image.User
	if o.ContainerCount || o.Manifests {
		users = s.stock.AllUsers()
	}
	out := []api.Summary{}
	for _, img := range images {
		if !f.admits(img) {
			continue
		}
		tags, digests := f.names(img)
		if nameless := len(tags)+len(digests) == 0; nameless && (len(f.references) > 0 || !o.All && parents[img.ID]) {
			continue
		}
		sum := summary(img)
		sum.RepoTags, sum.RepoDigests = tags, digests
		if o.ContainerCount {
			sum.Containers = int64(len(users[img.ID]))
		}
		if o.SharedSize {
			sum.SharedSize = s.sharedSize(img, shared)
		}
		if o.Manifests {
			if members, raw, err := s.stock.Images.Members(ctx, cmp.Or(img.Index, img.ID).String()); err == nil {
				sum.Manifests, sum.Descriptor = s.manifestSummaries(ctx, members, users), targetOf(members, raw)
			}
		}
		out = append(out, sum)
	}
	return out, nil
}

// ParentsOf returns the images from which others were made.
func ParentsOf(images []*image.Image) map[digest.Digest]bool {
	parents := map[digest.Digest]bool{}
	for _, img := range images {
		if img.Parent != "" {
			parents[img.Parent] = true
		}
	}
	return parents
}

// layerUses counts in how many images each layer is.
func layerUses(images []*image.Image) map[digest.Digest]int {
	uses := map[digest.Digest]int{}
	for _, img := range images {
		for d := range layerSet(img) {
			uses[d]++
		}
	}
	return uses
}

func layerSet(img *image.Image) map[digest.Digest]bool {
	set := make(map[digest.Digest]bool, len(img.DiffIDs))
	for _, d := range img.DiffIDs {
		set[d] = true
	}
	return set
}

// sharedSize is how much of an image is in others, too, in bytes.
func (s *Service) sharedSize(img *image.Image, uses map[digest.Digest]int) int64 {
	total := int64(0)
	for d := range layerSet(img) {
		if uses[d] < 2 {
			continue
		}
		if l, err := s.stock.Layers.Stat(d); err == nil {
			total += l.Size
		}
	}
	return total
}

// summary is what can be told of an image without looking at others, or at containers.
func summary(img *image.Image) api.Summary {
	return api.Summary{
		ID: img.ID.String(), ParentID: img.Parent.String(),
		Created: unixOrZero(img.Created), Size: img.Size, SharedSize: -1, Containers: -1, Labels: img.Config.Config.Labels,
	}
}

func notNil(list []string) []string { return append([]string{}, list...) }

func unixOrZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}
