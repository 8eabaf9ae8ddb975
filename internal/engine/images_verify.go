package engine

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
	"github.com/opencontainers/go-digest"
)

// signatureID marks the message that says that signatures hold.
const signatureID = "signature"

// ImageVerify reads everything of an image anew and compares it with its
// digests. With public keys it also wants a signature by one of them, of what
// the image is called at its registry. Progress goes to out as docker's stream.
func (e *Engine) ImageVerify(ctx context.Context, ref string, o ImageVerifyOptions, out io.Writer) error {
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
	err := e.images.Verify(ctx, ref, func(v image.Verified) {
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
	named, d, err := e.signedName(ctx, ref)
	if err != nil {
		return err
	}
	if err := e.transfers().Verify(ctx, named, d, keys, o.Auth); err != nil {
		return err
	}
	p.send(jsonstream.Message{ID: signatureID, Status: fmt.Sprintf("Signed: %s@%s", reference.FamiliarName(named), d)})
	return nil
}

// signedName is what an image is called at the registry of a name: that is what
// signatures are about.
func (e *Engine) signedName(ctx context.Context, ref string) (reference.Named, digest.Digest, error) {
	img, err := e.images.Get(ctx, ref)
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
