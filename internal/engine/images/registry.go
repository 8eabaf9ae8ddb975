package images

import (
	"context"

	"berth/internal/transfer"

	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Artifact is a document about an image, such as a signature, with what it
// refers to.
type Artifact struct {
	Manifest []byte
	Blobs    [][]byte
}

// RegistryLogin asks a registry whether credentials are good.
func (s *Service) RegistryLogin(ctx context.Context, auth registry.AuthConfig) (registry.AuthResponse, error) {
	token, status, err := s.remote.Transfers().Login(ctx, auth)
	if err != nil {
		return registry.AuthResponse{}, err
	}
	return registry.AuthResponse{Status: status, IdentityToken: token}, nil
}

// Distribution tells what a registry has under a name.
func (s *Service) Distribution(ctx context.Context, ref string, auth registry.AuthConfig) (registry.DistributionInspect, error) {
	return s.remote.Transfers().Distribution(ctx, ref, auth)
}

// ImageReferrers lists what refers to an image in its registry; artifactType ""
// means all of it.
func (s *Service) ImageReferrers(ctx context.Context, ref, artifactType string, auth registry.AuthConfig) ([]ocispec.Descriptor, error) {
	return s.remote.Transfers().Referrers(ctx, ref, artifactType, auth)
}

// ImageAttach sends an artifact about an image to the image's registry.
func (s *Service) ImageAttach(ctx context.Context, ref string, a Artifact, auth registry.AuthConfig) error {
	_, err := s.remote.Transfers().Attach(ctx, ref, transfer.Artifact{Manifest: a.Manifest, Blobs: a.Blobs}, auth)
	return err
}
