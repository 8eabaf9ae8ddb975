package engine

import (
	"context"
	"io"

	"berth/internal/fault"

	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func refuse(what string) error {
	return fault.New(fault.Unsupported, "", "", "%s: not offered by this engine yet", what)
}

// RegistryLogin asks a registry whether credentials are good.
func (e *Engine) RegistryLogin(ctx context.Context, auth registry.AuthConfig) (registry.AuthResponse, error) {
	return registry.AuthResponse{}, refuse("registry login")
}

// RegistrySearch searches a registry for repositories.
func (e *Engine) RegistrySearch(ctx context.Context, o SearchOptions) ([]registry.SearchResult, error) {
	return nil, refuse("image search")
}

// Distribution tells what a registry has under a name.
func (e *Engine) Distribution(ctx context.Context, ref string, auth registry.AuthConfig) (registry.DistributionInspect, error) {
	return registry.DistributionInspect{}, refuse("inspection of images in a registry")
}

// ImageReferrers lists what refers to an image in its registry.
func (e *Engine) ImageReferrers(ctx context.Context, ref, artifactType string, auth registry.AuthConfig) ([]ocispec.Descriptor, error) {
	return nil, refuse("the list of what refers to an image")
}

// ImageAttach sends an artifact about an image to the image's registry.
func (e *Engine) ImageAttach(ctx context.Context, ref string, a Artifact, auth registry.AuthConfig) error {
	return refuse("attaching artifacts to an image")
}

// ImageVerify reads everything of an image anew and compares it with its digests.
func (e *Engine) ImageVerify(ctx context.Context, ref string, out io.Writer) error {
	return refuse("verification of images")
}

