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

const fetchOp = "fetch manifest of"

// raw is a manifest or index as a registry has it, not looked into yet.
type raw struct {
	data      []byte
	digest    digest.Digest
	mediaType string
	header    http.Header
}

// fetchManifest fetches a manifest or index by tag or digest. What came by
// digest has that digest.
func (s *session) fetchManifest(ctx context.Context, ref string) (raw, error) {
	isTag := !strings.Contains(ref, ":")
	r := request{op: fetchOp, path: "manifests/" + ref, header: http.Header{"Accept": manifestTypes}, want: []int{http.StatusOK}, tag: isTag}
	for {
		res, err := s.do(ctx, r)
		if err != nil {
			return raw{}, err
		}
		m, err := s.readManifest(ctx, res, ref, isTag)
		if err == nil || res.from.mirror == nil || ctx.Err() != nil {
			return m, err
		}
		s.failed(res.from, err)
	}
}

func (s *session) readManifest(ctx context.Context, res *response, ref string, isTag bool) (raw, error) {
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, image.MaxManifest+1))
	if err != nil {
		return raw{}, networkError(ctx, fetchOp, s.subject(), err)
	}
	if len(data) > image.MaxManifest {
		return raw{}, fault.New(fault.Invalid, fetchOp, s.subject(), "%w: more than %d bytes", image.ErrTooLarge, image.MaxManifest)
	}
	got := digest.FromBytes(data)
	want := digest.Digest(ref)
	if isTag { // take the registry at its word
		want = digest.Digest(res.Header.Get("Docker-Content-Digest"))
	}
	if content.CheckDigest(want) == nil && want != got || !isTag && want != got {
		return raw{}, fault.New(fault.Invalid, fetchOp, s.subject(), "%w: asked for %.80s and got %s", image.ErrDigest, want, got)
	}
	return raw{data, got, res.Header.Get("Content-Type"), res.Header}, nil
}

// document with the bytes that its digest is of.
type document struct {
	image.Document
	raw       []byte
	digest    digest.Digest
	mediaType string
}

// manifest fetches a manifest or index of an image, by tag or digest. What was
// here before is not fetched again.
func (s *session) manifest(ctx context.Context, ref string) (*document, error) {
	m, err := s.fetchManifest(ctx, ref)
	if err != nil {
		return nil, err
	}
	return s.parse(m)
}

// byDigest is manifest for a descriptor in a document that was verified; it
// looks here first.
func (s *session) byDigest(ctx context.Context, d ocispec.Descriptor) (*document, error) {
	if data, err := s.c.c.Content.Read(d.Digest, image.MaxManifest); err == nil {
		return s.parse(raw{data: data, digest: d.Digest, mediaType: d.MediaType})
	}
	return s.manifest(ctx, d.Digest.String())
}

func (s *session) parse(m raw) (*document, error) {
	doc, err := image.ParseDocument(m.data, m.mediaType)
	if err != nil {
		return nil, fault.Wrap(fetchOp, s.subject(), err)
	}
	mediaType, _, _ := strings.Cut(m.mediaType, ";")
	switch {
	case doc.Manifest != nil && doc.Manifest.MediaType != "":
		mediaType = doc.Manifest.MediaType
	case doc.Index != nil && doc.Index.MediaType != "":
		mediaType = doc.Index.MediaType
	}
	return &document{doc, m.data, m.digest, mediaType}, nil
}

// top resolves what the caller asked for. When here is the image that has the
// name now, and the registry still means it, the document is not sent again:
// that is quicker, and registries count what they send.
func (s *session) top(ctx context.Context, ref string, here []digest.Digest) (*document, error) {
	isTag := !strings.Contains(ref, ":")
	if len(here) > 0 {
		res, err := s.do(ctx, request{op: fetchOp, method: http.MethodHead, path: "manifests/" + ref,
			header: http.Header{"Accept": manifestTypes}, want: []int{http.StatusOK}, tag: isTag, most: 1})
		if err == nil {
			drop(res.Response)
			for _, d := range here {
				if res.Header.Get("Docker-Content-Digest") != d.String() {
					continue
				}
				if data, err := s.c.c.Content.Read(d, image.MaxManifest); err == nil {
					return s.parse(raw{data: data, digest: d, mediaType: res.Header.Get("Content-Type")})
				}
			}
		}
	}
	return s.manifest(ctx, ref)
}

// maxNesting is how deep indexes may lie in one another.
const maxNesting = 4

// resolve follows indexes from top to the manifest for a platform and returns
// all documents on the way, that manifest last.
func (s *session) resolve(ctx context.Context, top *document, platform *ocispec.Platform) ([]*document, error) {
	chain := []*document{top}
	for {
		doc := chain[len(chain)-1]
		if doc.Manifest != nil {
			return chain, nil
		}
		if len(chain) > maxNesting {
			return nil, fault.New(fault.Invalid, fetchOp, s.subject(), "%w: indexes nested more than %d deep", image.ErrDocument, maxNesting)
		}
		next, err := image.Select(doc.Index, platform)
		if err != nil {
			return nil, fault.Wrap(fetchOp, s.subject(), err)
		}
		if doc, err = s.byDigest(ctx, next); err != nil {
			return nil, err
		}
		chain = append(chain, doc)
	}
}
