package api

import (
	"context"
	"io"
	"net/http"
	"strings"

	"berth/internal/engine/filter"
	"berth/internal/engine/images"
	"berth/internal/engine/reclaim"
	"berth/internal/fault"

	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// imageEngine is what the image endpoints call.
type imageEngine interface {
	ImageList(ctx context.Context, o images.ListOptions) ([]image.Summary, error)
	ImageInspect(ctx context.Context, ref string, o images.InspectOptions) (images.Inspection, error)
	ImageHistory(ctx context.Context, ref string, platform *ocispec.Platform) ([]image.HistoryResponseItem, error)
	ImageRemove(ctx context.Context, ref string, force, prune bool) ([]image.DeleteResponse, error)
	ImageTag(ctx context.Context, src, target string) error
	ImagePrune(ctx context.Context, f filter.Set) (reclaim.ImageReport, error)

	ImageLoad(ctx context.Context, r io.Reader, o images.LoadOptions, out io.Writer) error
	ImageSave(ctx context.Context, refs []string, platforms []*ocispec.Platform, out io.Writer) error
	ImageImport(ctx context.Context, o images.ImportOptions, r io.Reader, out io.Writer) error
	ImageCommit(ctx context.Context, o images.CommitOptions) (id string, err error)

	ImagePull(ctx context.Context, ref string, o images.PullOptions, out io.Writer) error
	ImagePush(ctx context.Context, ref string, o images.PushOptions, out io.Writer) error
	ImageVerify(ctx context.Context, ref string, o images.VerifyOptions, out io.Writer) error
	ImageTree(ctx context.Context) (images.Tree, error)
	registryEngine
}

// registryEngine is what the endpoints about registries call.
type registryEngine interface {
	RegistryLogin(ctx context.Context, auth registry.AuthConfig) (registry.AuthResponse, error)
	RegistrySearch(ctx context.Context, o images.SearchOptions) ([]registry.SearchResult, error)
	Distribution(ctx context.Context, ref string, auth registry.AuthConfig) (registry.DistributionInspect, error)
	ImageReferrers(ctx context.Context, ref, artifactType string, auth registry.AuthConfig) ([]ocispec.Descriptor, error)
	ImageAttach(ctx context.Context, ref string, a images.Artifact, auth registry.AuthConfig) error
}

func listImages(x *exchange) error {
	o := images.ListOptions{
		All: x.flag("all"), ContainerCount: !x.version.before(51),
		SharedSize: x.flag("shared-size") && !x.version.before(42),
		Manifests:  x.flag("manifests") && !x.version.before(47),
	}
	if x.flag("identity") && !x.version.before(53) {
		return notOffered("the identity of images", "see their RepoDigests")
	}
	var err error
	if o.Filters, err = filter.Parse(x.query("filters")); err != nil {
		return err
	}
	if name := x.query("filter"); name != "" && x.version.before(41) && !o.Filters.Has("reference") {
		if o.Filters == nil {
			o.Filters = filter.Set{}
		}
		o.Filters.Add("reference", name)
	}
	list, err := x.api.engine.ImageList(x.ctx(), o)
	if err != nil {
		return err
	}
	if list == nil {
		list = []image.Summary{}
	}
	if x.version.before(51) {
		for i := range list {
			list[i].Containers = -1
		}
	}
	return x.reply(http.StatusOK, listedImages(x.version, list))
}

// listedImages gives a list the shape of the client's version.
func listedImages(v apiVersion, list []image.Summary) any {
	for i := range list {
		adaptSummary(v, &list[i])
	}
	if v.before(44) {
		return withVirtualSize(list)
	}
	return list
}

func adaptSummary(v apiVersion, s *image.Summary) {
	if s.RepoTags == nil {
		s.RepoTags = []string{}
	}
	if s.RepoDigests == nil {
		s.RepoDigests = []string{}
	}
	if v.before(43) && len(s.RepoTags) == 0 && len(s.RepoDigests) == 0 {
		s.RepoTags, s.RepoDigests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
	}
	if v.before(48) {
		s.Descriptor = nil
	}
}

// getImage serves GET /images/{name}/{verb}; names hold slashes, so the verb is
// the last part.
func getImage(x *exchange) error {
	name, verb := cutLast(x.path("name"))
	switch verb {
	case "json":
		return inspectImage(x, name)
	case "history":
		return imageHistory(x, name)
	case "get":
		return saveImages(x, []string{name})
	case "attestations":
		return notOffered("attestations of images", "look at what refers to it in its registry")
	}
	return notFound(x)
}

// postImage serves POST /images/{name}/{verb}.
func postImage(x *exchange) error {
	name, verb := cutLast(x.path("name"))
	switch verb {
	case "tag":
		return tagImage(x, name)
	case "push":
		return pushImage(x, name)
	}
	return notFound(x)
}

func cutLast(path string) (before, last string) {
	i := strings.LastIndexByte(path, '/')
	if i <= 0 {
		return path, ""
	}
	return path[:i], path[i+1:]
}

func inspectImage(x *exchange, name string) error {
	o := images.InspectOptions{Manifests: x.flag("manifests") && !x.version.before(48)}
	var err error
	if o.Platform, err = x.platform(49); err != nil {
		return err
	}
	if o.Manifests && o.Platform != nil {
		return fault.New(fault.Invalid, "", "", "conflicting options: manifests and platform options cannot both be set")
	}
	img, err := x.api.engine.ImageInspect(x.ctx(), name, o)
	if err != nil {
		return err
	}
	if img.RepoTags == nil {
		img.RepoTags = []string{}
	}
	if img.RepoDigests == nil {
		img.RepoDigests = []string{}
	}
	if x.version.before(48) {
		img.Descriptor = nil
	}
	if x.version.before(53) {
		img.Identity = nil
	}
	if x.version.before(52) {
		return x.reply(http.StatusOK, imageBefore52(x.version, img))
	}
	return x.reply(http.StatusOK, imageNow{img.InspectResponse, imageConfig(img.Config)})
}

func imageHistory(x *exchange, name string) error {
	p, err := x.platform(48)
	if err != nil {
		return err
	}
	list, err := x.api.engine.ImageHistory(x.ctx(), name, p)
	if err != nil {
		return err
	}
	if list == nil {
		list = []image.HistoryResponseItem{}
	}
	return x.reply(http.StatusOK, list)
}

func tagImage(x *exchange, name string) error {
	target := x.query("repo")
	if target == "" {
		return fault.New(fault.Invalid, "", "", "the new name of the image (parameter repo) is missing")
	}
	target, _ = wholeName(target, x.query("tag"))
	if err := x.api.engine.ImageTag(x.ctx(), name, target); err != nil {
		return err
	}
	return x.done(http.StatusCreated)
}

func removeImage(x *exchange) error {
	name := x.path("name")
	if strings.TrimSpace(name) == "" {
		return fault.New(fault.Invalid, "", "", "image name cannot be blank")
	}
	if len(x.queries("platforms")) > 0 && !x.version.before(50) {
		return notOffered("removal of single platforms of an image", "remove all of it and pull what you need")
	}
	list, err := x.api.engine.ImageRemove(x.ctx(), name, x.flag("force"), !x.flag("noprune"))
	if err != nil {
		return err
	}
	if list == nil {
		list = []image.DeleteResponse{}
	}
	return x.reply(http.StatusOK, list)
}

type prunedImages struct {
	ImagesDeleted  []image.DeleteResponse
	SpaceReclaimed uint64
}

func pruneImages(x *exchange) error {
	f, err := x.pruneFilters()
	if err != nil {
		return err
	}
	r, err := x.api.engine.ImagePrune(x.ctx(), f)
	if err != nil {
		return err
	}
	return x.reply(http.StatusOK, prunedImages{r.ImagesDeleted, r.SpaceReclaimed})
}
