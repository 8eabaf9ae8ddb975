package transfer

import (
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/image"
)

var manifestTypes = []string{
	ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, image.DockerIndex, image.DockerManifest,
}

// document with the bytes that its digest is of.
type document struct {
	image.Document
	raw    []byte
	digest digest.Digest
}

// manifest fetches a manifest or index by tag or digest. What came by digest
// has that digest.
func (s *session) manifest(ctx context.Context, ref string) (*document, error) {
	const op = "fetch manifest of"
	header := http.Header{"Accept": manifestTypes}
	res, err := s.get(ctx, op, "manifests/"+ref, header, http.StatusOK)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, image.MaxManifest+1))
	if err != nil {
		return nil, networkError(op, s.subject(), err)
	}
	if len(raw) > image.MaxManifest {
		return nil, fault.New(fault.Invalid, op, s.subject(), "%w: more than %d bytes", image.ErrTooLarge, image.MaxManifest)
	}
	got := digest.FromBytes(raw)
	want := digest.Digest(ref)
	if !strings.Contains(ref, ":") { // a tag: take the registry at its word
		want = digest.Digest(res.Header.Get("Docker-Content-Digest"))
	}
	if content.CheckDigest(want) == nil && want != got || strings.Contains(ref, ":") && want != got {
		return nil, fault.New(fault.Invalid, op, s.subject(), "%w: asked for %.80s and got %s", image.ErrDigest, want, got)
	}
	doc, err := image.ParseDocument(raw, res.Header.Get("Content-Type"))
	if err != nil {
		return nil, fault.Wrap(op, s.subject(), err)
	}
	return &document{doc, raw, got}, nil
}

// resolve follows indexes to the manifest for a platform and returns all
// documents on the way, that manifest last.
func (s *session) resolve(ctx context.Context, ref string, platform *ocispec.Platform) ([]*document, error) {
	const maxNesting = 4
	var chain []*document
	for {
		doc, err := s.manifest(ctx, ref)
		if err != nil {
			return nil, err
		}
		chain = append(chain, doc)
		if doc.Manifest != nil {
			return chain, nil
		}
		if len(chain) > maxNesting {
			return nil, fault.New(fault.Invalid, "fetch manifest of", s.subject(), "%w: indexes nested more than %d deep", image.ErrDocument, maxNesting)
		}
		next, err := image.Select(doc.Index, platform)
		if err != nil {
			return nil, fault.Wrap("fetch manifest of", s.subject(), err)
		}
		ref = next.Digest.String()
	}
}
