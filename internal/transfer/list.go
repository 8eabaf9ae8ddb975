package transfer

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/image"
)

// Bounds on lists that a registry gives in pages.
const (
	maxPages = 1000
	maxTags  = 100_000
)

// tags lists the tags of the repository.
func (s *session) tags(ctx context.Context) ([]string, error) {
	var all []string
	err := s.pages(ctx, request{op: "list tags of", path: "tags/list", want: []int{http.StatusOK}}, func(data []byte, _ http.Header) error {
		var page struct {
			Tags []string `json:"tags"`
		}
		if err := json.Unmarshal(data, &page); err != nil {
			return err
		}
		all = append(all, page.Tags...)
		if len(all) > maxTags {
			return image.ErrTooLarge
		}
		return nil
	})
	return all, err
}

// pages reads a list page by page. All come from whoever gave the first.
func (s *session) pages(ctx context.Context, r request, read func(data []byte, h http.Header) error) error {
	for range maxPages {
		res, err := s.do(ctx, r)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(io.LimitReader(res.Body, image.MaxManifest+1))
		res.Body.Close()
		if err != nil {
			return networkError(ctx, r.op, s.subject(), err)
		}
		if len(data) > image.MaxManifest {
			return fault.New(fault.Invalid, r.op, s.subject(), "%w: more than %d bytes", image.ErrTooLarge, image.MaxManifest)
		}
		if err := read(data, res.Header); err != nil {
			return fault.New(fault.Invalid, r.op, s.subject(), "%w", err)
		}
		next := nextPage(res.Header)
		if next == "" {
			return nil
		}
		u, err := res.Request.URL.Parse(next)
		if err != nil || u.Scheme+"://"+u.Host != res.from.base {
			return fault.New(fault.Invalid, r.op, s.subject(), "the next page is at %.200q, which is not at the registry", next)
		}
		r.url, r.query, r.at = u.String(), nil, res.from
	}
	return fault.New(fault.Invalid, r.op, s.subject(), "%w: more than %d pages", image.ErrTooLarge, maxPages)
}

// nextPage reads the header Link (RFC 8288) of a page.
func nextPage(h http.Header) string {
	for _, v := range h.Values("Link") {
		target, params, ok := strings.Cut(v, ">")
		target, found := strings.CutPrefix(strings.TrimSpace(target), "<")
		if ok && found && strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
			return target
		}
	}
	return ""
}

// referrers lists what refers to a manifest: as the registry's API says or,
// where it has none, as the index says that clients keep under a tag instead
// (distribution-spec 1.1). artifactType "" means all.
func (s *session) referrers(ctx context.Context, d digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	const op = "list referrers of"
	if err := content.CheckDigest(d); err != nil {
		return nil, err
	}
	r := request{op: op, path: "referrers/" + d.String(), header: http.Header{"Accept": {ocispec.MediaTypeImageIndex}}, want: []int{http.StatusOK}}
	if artifactType != "" {
		r.query = url.Values{"artifactType": {artifactType}}
	}
	var all []ocispec.Descriptor
	err := s.pages(ctx, r, func(data []byte, _ http.Header) error {
		x, err := parseReferrers(data)
		all = append(all, x.Manifests...)
		if len(all) > maxTags {
			return image.ErrTooLarge
		}
		return err
	})
	if lacksReferrers(err) {
		var x ocispec.Index
		x, err = s.fallbackIndex(ctx, d)
		all = x.Manifests
	}
	if err != nil {
		return nil, err
	}
	out := []ocispec.Descriptor{}
	for _, one := range all {
		if artifactType == "" || one.ArtifactType == artifactType {
			out = append(out, one)
		}
	}
	return out, nil
}

// lacksReferrers reports whether an error means that the registry does not know
// the API: it answers 404 or takes the path for something else.
func lacksReferrers(err error) bool {
	return fault.Is(err, fault.NotFound) || fault.Is(err, fault.Invalid) || fault.Is(err, fault.Unsupported)
}

// fallbackTag is where clients keep the list of referrers of a manifest at
// registries that do not.
func fallbackTag(d digest.Digest) string { return strings.Replace(d.String(), ":", "-", 1) }

// fallbackIndex fetches that list; one that is not there is empty.
func (s *session) fallbackIndex(ctx context.Context, d digest.Digest) (ocispec.Index, error) {
	m, err := s.fetchManifest(ctx, fallbackTag(d))
	if fault.Is(err, fault.NotFound) {
		return ocispec.Index{}, nil
	}
	if err != nil {
		return ocispec.Index{}, err
	}
	return parseReferrers(m.data)
}

func parseReferrers(data []byte) (ocispec.Index, error) {
	doc, err := image.ParseDocument(data, "")
	if err != nil {
		return ocispec.Index{}, err
	}
	if doc.Index == nil {
		return ocispec.Index{}, fault.New(fault.Invalid, "read referrers", "", "%w: it is no index", image.ErrDocument)
	}
	return *doc.Index, nil
}
