package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/internal/content"
	"berth/internal/registry/store"
)

var zeroTime time.Time

// mostTags bounds the tags that one request sets.
const mostTags = 100

// manifest serves, takes or deletes a manifest.
func (r *Registry) manifest(req *request) error {
	d, byDigest := parseDigest(req.reference)
	if !byDigest && !validTag(req.reference) {
		if req.Method == http.MethodGet || req.Method == http.MethodHead {
			return fail(http.StatusNotFound, codeManifestUnknown, "neither a tag nor a digest")
		}
		return fail(http.StatusBadRequest, codeDigestInvalid, "neither a tag nor a sha256 or sha512 digest")
	}
	switch req.Method {
	case http.MethodPut:
		return r.putManifest(req, d)
	case http.MethodDelete:
		if byDigest {
			return r.deleted(req, r.storage.DeleteManifest(req.Context(), req.repo, d))
		}
		return r.deleted(req, r.storage.DeleteTag(req.Context(), req.repo, req.reference))
	}
	return r.getManifest(req, d)
}

func (r *Registry) deleted(req *request, err error) error {
	if err != nil {
		return err
	}
	req.w.WriteHeader(http.StatusAccepted)
	return nil
}

// resolve finds the digest that a tag stands for.
func (r *Registry) resolve(ctx context.Context, req *request, d digest.Digest) (digest.Digest, error) {
	if r.cache != nil {
		return r.cache.Manifest(ctx, req.repo, req.reference, d)
	}
	if d != "" {
		return d, nil
	}
	t, err := r.storage.Tag(ctx, req.repo, req.reference)
	return t.Digest, err
}

func (r *Registry) getManifest(req *request, d digest.Digest) error {
	ctx := req.Context()
	d, err := r.resolve(ctx, req, d)
	if err != nil {
		return err
	}
	req.digest = d
	h := req.w.Header()
	set := func(m store.Manifest) bool {
		h.Set("Docker-Content-Digest", d.String())
		h.Set("ETag", `"`+d.String()+`"`)
		if matches(req.Header.Get("If-None-Match"), d) {
			req.w.WriteHeader(http.StatusNotModified)
			return false
		}
		h.Set("Content-Type", m.MediaType)
		h.Set("Content-Length", itoa(m.Size))
		return true
	}
	if req.Method == http.MethodHead {
		m, err := r.storage.Manifest(ctx, req.repo, d)
		if err != nil {
			return err
		}
		r.touched.add(req.repo, d)
		if set(m) {
			req.w.WriteHeader(http.StatusOK)
		}
		return nil
	}
	raw, m, err := r.storage.ReadManifest(ctx, req.repo, d)
	if err != nil {
		return err
	}
	if set(m) {
		req.w.WriteHeader(http.StatusOK)
		_, _ = req.w.Write(raw)
	}
	return nil
}

// putManifest takes a manifest under its digest, a tag, or its digest with tags
// as parameters.
func (r *Registry) putManifest(req *request, d digest.Digest) error {
	var tags []string
	if d == "" {
		tags = []string{req.reference}
	}
	if more := req.URL.Query()["tag"]; len(more) > 0 {
		if d == "" || len(more) > mostTags {
			return fail(http.StatusBadRequest, codeTagInvalid, "tag parameters go with a digest, and are at most %d", mostTags)
		}
		for _, t := range more {
			if !validTag(t) {
				return fail(http.StatusBadRequest, codeTagInvalid, "a tag parameter is not a tag")
			}
		}
		tags = more
	}
	if req.ContentLength > limitManifest {
		return fail(http.StatusRequestEntityTooLarge, codeManifestInvalid, "larger than %d bytes", limitManifest)
	}
	raw, err := io.ReadAll(io.LimitReader(req.body, limitManifest+1))
	if err != nil {
		return r.received(req, err)
	}
	if len(raw) > limitManifest {
		return fail(http.StatusRequestEntityTooLarge, codeManifestInvalid, "larger than %d bytes", limitManifest)
	}
	got := digestOf(raw, d)
	req.digest = got
	if d != "" && got != d {
		return fail(http.StatusBadRequest, codeDigestInvalid, "the manifest has digest %s", got)
	}
	m, err := parseManifest(raw, req.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	m.Digest = got
	if err := r.storage.PutManifest(req.Context(), req.repo, m, raw, tags, r.cfg.AllowMissing); err != nil {
		if errors.Is(err, content.ErrDigest) {
			return fail(http.StatusInternalServerError, codeUnknown, "the manifest could not be stored")
		}
		return err
	}
	r.metrics.manifests.Add(1)
	r.touched.add(req.repo, got)
	h := req.w.Header()
	if req.URL.Query().Has("tag") {
		for _, t := range tags {
			h.Add("OCI-Tag", t)
		}
	}
	if m.Subject != "" {
		h.Set("OCI-Subject", m.Subject.String())
	}
	h.Set("Location", "/v2/"+req.repo+"/manifests/"+got.String())
	h.Set("Docker-Content-Digest", got.String())
	h.Set("Content-Length", "0")
	req.w.WriteHeader(http.StatusCreated)
	return nil
}
