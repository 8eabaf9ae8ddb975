package engine

import (
	"context"

	"berth/internal/transfer"

	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// RegistryLogin asks a registry whether credentials are good.
func (e *Engine) RegistryLogin(ctx context.Context, auth registry.AuthConfig) (registry.AuthResponse, error) {
	token, status, err := e.transfers().Login(ctx, auth)
	if err != nil {
		return registry.AuthResponse{}, err
	}
	return registry.AuthResponse{Status: status, IdentityToken: token}, nil
}

// Distribution tells what a registry has under a name.
func (e *Engine) Distribution(ctx context.Context, ref string, auth registry.AuthConfig) (registry.DistributionInspect, error) {
	return e.transfers().Distribution(ctx, ref, auth)
}

// ImageReferrers lists what refers to an image in its registry; artifactType ""
// means all of it.
func (e *Engine) ImageReferrers(ctx context.Context, ref, artifactType string, auth registry.AuthConfig) ([]ocispec.Descriptor, error) {
	return e.transfers().Referrers(ctx, ref, artifactType, auth)
}

// ImageAttach sends an artifact about an image to the image's registry.
func (e *Engine) ImageAttach(ctx context.Context, ref string, a Artifact, auth registry.AuthConfig) error {
	_, err := e.transfers().Attach(ctx, ref, transfer.Artifact{Manifest: a.Manifest, Blobs: a.Blobs}, auth)
	return err
}
