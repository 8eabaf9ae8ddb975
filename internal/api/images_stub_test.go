package api

import (
	"context"
	"io"

	"berth/internal/engine/filter"
	"berth/internal/engine/images"
	"berth/internal/engine/reclaim"
	"berth/internal/fault"

	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// imageStub is the part of stub that has no images. Single use cases can be
// replaced.
type imageStub struct {
	load    func(r io.Reader, o images.LoadOptions, out io.Writer) error
	save    func(refs []string, platforms []*ocispec.Platform, out io.Writer) error
	imports func(o images.ImportOptions, r io.Reader, out io.Writer) error
	commit  func(o images.CommitOptions) (string, error)
	pull    func(ctx context.Context, ref string, o images.PullOptions, out io.Writer) error
	push    func(ref string, o images.PushOptions, out io.Writer) error
	list    func(o images.ListOptions) ([]image.Summary, error)
	inspect func(ref string, o images.InspectOptions) (image.InspectResponse, error)
	history func(ref string, p *ocispec.Platform) ([]image.HistoryResponseItem, error)
	tag     func(src, target string) error
	prune   func(f filter.Set) (reclaim.ImageReport, error)
	attach  func(ref string, a images.Artifact, auth registry.AuthConfig) error
	login   func(auth registry.AuthConfig) (registry.AuthResponse, error)
	search  func(o images.SearchOptions) ([]registry.SearchResult, error)
	remote  func(ref string, auth registry.AuthConfig) (registry.DistributionInspect, error)
}

func noImage(ref string) error { return fault.New(fault.NotFound, "", "", "No such image: %s", ref) }

func (s *stub) ImageLoad(_ context.Context, r io.Reader, o images.LoadOptions, out io.Writer) error {
	if s.img.load != nil {
		return s.img.load(r, o, out)
	}
	return fault.New(fault.Invalid, "", "", "not an archive")
}
func (s *stub) ImageSave(_ context.Context, refs []string, platforms []*ocispec.Platform, out io.Writer) error {
	if s.img.save != nil {
		return s.img.save(refs, platforms, out)
	}
	return noImage(refs[0])
}
func (s *stub) ImageImport(_ context.Context, o images.ImportOptions, r io.Reader, out io.Writer) error {
	if s.img.imports != nil {
		return s.img.imports(o, r, out)
	}
	return fault.New(fault.Invalid, "", "", "not an archive")
}
func (s *stub) ImageCommit(_ context.Context, o images.CommitOptions) (string, error) {
	if s.img.commit != nil {
		return s.img.commit(o)
	}
	return "", missing(o.Container)
}
func (s *stub) ImagePull(ctx context.Context, ref string, o images.PullOptions, out io.Writer) error {
	if s.img.pull != nil {
		return s.img.pull(ctx, ref, o, out)
	}
	return noImage(ref)
}
func (s *stub) ImagePush(_ context.Context, ref string, o images.PushOptions, out io.Writer) error {
	if s.img.push != nil {
		return s.img.push(ref, o, out)
	}
	return noImage(ref)
}
func (s *stub) ImageList(_ context.Context, o images.ListOptions) ([]image.Summary, error) {
	if s.img.list != nil {
		return s.img.list(o)
	}
	return nil, nil
}
func (s *stub) ImageInspect(_ context.Context, ref string, o images.InspectOptions) (images.Inspection, error) {
	if s.img.inspect != nil {
		img, err := s.img.inspect(ref, o)
		return images.Inspection{InspectResponse: img}, err
	}
	return images.Inspection{}, noImage(ref)
}
func (s *stub) ImageHistory(_ context.Context, ref string, p *ocispec.Platform) ([]image.HistoryResponseItem, error) {
	if s.img.history != nil {
		return s.img.history(ref, p)
	}
	return nil, noImage(ref)
}
func (s *stub) ImageRemove(_ context.Context, ref string, _, _ bool) ([]image.DeleteResponse, error) {
	return nil, noImage(ref)
}
func (s *stub) ImageTag(_ context.Context, src, target string) error {
	if s.img.tag != nil {
		return s.img.tag(src, target)
	}
	return noImage(src)
}
func (s *stub) ImagePrune(_ context.Context, o filter.Set) (reclaim.ImageReport, error) {
	if s.img.prune != nil {
		return s.img.prune(o)
	}
	return reclaim.ImageReport{}, nil
}
func (s *stub) ImageVerify(_ context.Context, ref string, _ images.VerifyOptions, _ io.Writer) error {
	return noImage(ref)
}
func (s *stub) ImageTree(context.Context) (t images.Tree, _ error) { return t, nil }
func (s *stub) ImageReferrers(_ context.Context, ref, artifactType string, _ registry.AuthConfig) ([]ocispec.Descriptor, error) {
	if ref == "none" {
		return nil, nil
	}
	return []ocispec.Descriptor{{ArtifactType: artifactType}}, nil
}
func (s *stub) ImageAttach(_ context.Context, ref string, a images.Artifact, auth registry.AuthConfig) error {
	if s.img.attach != nil {
		return s.img.attach(ref, a, auth)
	}
	return noImage(ref)
}
func (s *stub) RegistryLogin(_ context.Context, auth registry.AuthConfig) (registry.AuthResponse, error) {
	if s.img.login != nil {
		return s.img.login(auth)
	}
	return registry.AuthResponse{}, fault.New(fault.Unauthorized, "", "", "incorrect username or password")
}
func (s *stub) RegistrySearch(_ context.Context, o images.SearchOptions) ([]registry.SearchResult, error) {
	if s.img.search != nil {
		return s.img.search(o)
	}
	return nil, nil
}
func (s *stub) Distribution(_ context.Context, ref string, auth registry.AuthConfig) (registry.DistributionInspect, error) {
	if s.img.remote != nil {
		return s.img.remote(ref, auth)
	}
	return registry.DistributionInspect{}, noImage(ref)
}
