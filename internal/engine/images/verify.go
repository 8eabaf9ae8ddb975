package images

import (
	"context"
	"fmt"
	"io"
	"strings"

	"berth/internal/fault"
	"berth/internal/image"
	"berth/internal/signature"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
)

// VerifyOptions say what is wanted of an image besides being whole.
type VerifyOptions struct {
	PublicKeys []string // PEM; one of them must have signed it
	Auth       registry.AuthConfig
}

// signatureID marks the message that says that signatures hold.
const signatureID = "signature"

// ImageVerify reads everything of an image anew and compares it with its
// digests. With public keys it also wants a signature by one of them, of what
// the image is called at its registry. Progress goes to out as docker's stream.
func (s *Service) ImageVerify(ctx context.Context, ref string, o VerifyOptions, out io.Writer) error {
	var keys *signature.Policy
	if len(o.PublicKeys) > 0 {
		texts := make([][]byte, len(o.PublicKeys))
		for i, text := range o.PublicKeys {
			texts[i] = []byte(text)
		}
		var err error
		if keys, err = signature.WithKeys(texts...); err != nil {
			return err
		}
	}
	p := &progress{out: out}
	err := s.stock.Images.Verify(ctx, ref, func(v image.Verified) {
		text := "Verified"
		switch {
		case v.Err != nil:
			text = "Damaged: " + v.Err.Error()
		case v.Skipped != "":
			text = "Skipped: " + v.Skipped
		}
		p.send(jsonstream.Message{ID: v.Kind + " " + v.Digest.Encoded()[:12], Status: text})
	})
	if err != nil || keys == nil {
		return err
	}
	named, d, err := s.signedName(ctx, ref)
	if err != nil {
		return err
	}
	if err := s.remote.Transfers().Verify(ctx, named, d, keys, o.Auth); err != nil {
		return err
	}
	p.send(jsonstream.Message{ID: signatureID, Status: fmt.Sprintf("Signed: %s@%s", reference.FamiliarName(named), d)})
	return nil
}

// signedName is what an image is called at the registry of a name: that is what
// signatures are about.
func (s *Service) signedName(ctx context.Context, ref string) (reference.Named, digest.Digest, error) {
	img, err := s.stock.Images.Get(ctx, ref)
	if err != nil {
		return nil, "", err
	}
	repository := ""
	if named, err := reference.ParseNormalizedNamed(ref); err == nil && !strings.HasPrefix(img.ID.String(), ref) && !strings.HasPrefix(img.ID.Encoded(), ref) {
		repository = named.Name()
	}
	for _, known := range img.RepoDigests {
		named, err := reference.ParseNormalizedNamed(known)
		if err != nil || repository != "" && named.Name() != repository {
			continue
		}
		if c, ok := named.(reference.Canonical); ok {
			return reference.TrimNamed(named), c.Digest(), nil
		}
	}
	return nil, "", fault.New(fault.NotFound, "verify the signature of", ref, "the image was neither pulled from its registry nor pushed to it, so no signature can be about it").
		WithHint("push it, or pull what was signed")
}
