package signature

import (
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
	"berth/internal/signature/cosign"
)

// Sign makes a signature of the image that subject describes, as the repository
// named. The artifact is to be sent to the registry under its tag, merged with
// what the tag holds (cosign.Merge), or as a referrer alone.
func Sign(key *cosign.PrivateKey, named reference.Named, subject ocispec.Descriptor) (cosign.Artifact, error) {
	if err := subject.Digest.Validate(); err != nil {
		return cosign.Artifact{}, fault.New(fault.Invalid, "sign", named.Name(), "%w", err)
	}
	return cosign.Sign(key, repositoryName(named), cosign.Descriptor{
		MediaType: subject.MediaType, Digest: subject.Digest.String(), Size: subject.Size})
}
