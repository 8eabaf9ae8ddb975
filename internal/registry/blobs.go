package registry

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/internal/fault"
	"berth/internal/registry/auth"
	"berth/internal/registry/store"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// blob serves a blob, or deletes it.
func (r *Registry) blob(req *request) error {
	d, ok := parseDigest(req.reference)
	if !ok {
		return fail(http.StatusBadRequest, codeDigestInvalid, "not a sha256 or sha512 digest")
	}
	req.digest = d
	ctx := req.Context()
	if req.Method == http.MethodDelete {
		if err := r.storage.DeleteBlob(ctx, req.repo, d); err != nil {
			return err
		}
		req.w.WriteHeader(http.StatusAccepted)
		return nil
	}
	if req.Method == http.MethodHead {
		b, err := r.statBlob(ctx, req.repo, d)
		if err != nil {
			return err
		}
		// Whoever was told that it is here may leave it out of his push.
		r.touched.add(req.repo, d)
		if blobHeaders(req, b) {
			req.w.Header().Set("Content-Length", itoa(b.Size))
			req.w.WriteHeader(http.StatusOK)
		}
		return nil
	}
	f, b, err := r.openBlob(ctx, req.repo, d)
	if err != nil {
		return err
	}
	defer f.Close()
	if blobHeaders(req, b) {
		// The names of files mean nothing here; the type is set already. It
		// understands ranges, and hands an *os.File to ReadFrom.
		http.ServeContent(req.w, req.Request, "", zeroTime, f)
		if failing, ok := f.(interface{ Err() error }); ok {
			return failing.Err()
		}
	}
	return nil
}

func (r *Registry) statBlob(ctx context.Context, repo string, d digest.Digest) (store.Blob, error) {
	b, err := r.storage.Blob(ctx, repo, d)
	if fault.Is(err, fault.NotFound) && r.cache != nil {
		return r.cache.Stat(ctx, repo, d)
	}
	return b, err
}

func (r *Registry) openBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, store.Blob, error) {
	f, b, err := r.storage.OpenBlob(ctx, repo, d)
	if r.cache == nil {
		return f, b, err
	}
	if err == nil {
		r.cache.Used(repo, d)
		return f, b, nil
	}
	if !fault.Is(err, fault.NotFound) {
		return nil, b, err
	}
	return r.cache.Open(ctx, repo, d)
}

// blobHeaders sets what HEAD and GET have in common, and reports whether there
// is more to say than that the client has it already.
func blobHeaders(req *request, b store.Blob) bool {
	h := req.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", b.Digest.String())
	h.Set("ETag", `"`+b.Digest.String()+`"`)
	h.Set("Accept-Ranges", "bytes")
	h.Set("Cache-Control", "private, max-age=31536000, immutable")
	if matches(req.Header.Get("If-None-Match"), b.Digest) {
		h.Del("Content-Type")
		req.w.WriteHeader(http.StatusNotModified)
		return false
	}
	return true
}

// matches reports whether an If-None-Match header (RFC 9110, section 13.1.2)
// names the digest. Clients are known to leave the quotes off.
func matches(header string, d digest.Digest) bool {
	for tag := range strings.SplitSeq(header, ",") {
		tag = strings.TrimSpace(tag)
		if tag == "*" || strings.Trim(strings.TrimPrefix(tag, "W/"), `"`) == d.String() {
			return true
		}
	}
	return false
}

// begin starts an upload, takes a whole blob at once, or mounts one.
func (r *Registry) begin(req *request) error {
	q := req.URL.Query()
	if a := q.Get("digest-algorithm"); a != "" && a != "sha256" && a != "sha512" {
		return fail(http.StatusBadRequest, codeUnsupported, "digest-algorithm is neither sha256 nor sha512")
	}
	if q.Has("mount") {
		if done, err := r.mount(req, q.Get("mount"), q.Get("from")); done || err != nil {
			return err
		}
	} else if q.Has("digest") {
		return r.whole(req, q.Get("digest"))
	}
	s, err := r.uploads.begin(req.repo, req.caller.User)
	if err != nil {
		return err
	}
	return uploadStatus(req, s, http.StatusAccepted)
}

// whole takes a blob in the body of a POST.
func (r *Registry) whole(req *request, text string) error {
	d, ok := parseDigest(text)
	if !ok {
		return fail(http.StatusBadRequest, codeDigestInvalid, "digest is not a sha256 or sha512 digest")
	}
	req.digest = d
	b, err := r.storage.PutBlob(req.Context(), req.repo, req.body, d, req.ContentLength)
	if err != nil {
		return r.received(req, err)
	}
	r.blobCreated(req, b)
	return nil
}

// received tells a client's own failure to send from one of the storage.
func (r *Registry) received(req *request, err error) error {
	if req.body.cut != nil {
		return fail(http.StatusBadRequest, codeUploadInvalid, "the body ended early").with(map[string]string{"cause": req.body.cut.Error()})
	}
	return err
}

func (r *Registry) blobCreated(req *request, b store.Blob) {
	r.metrics.blobs.Add(1)
	r.touched.add(req.repo, b.Digest)
	h := req.w.Header()
	h.Set("Location", "/v2/"+req.repo+"/blobs/"+b.Digest.String())
	h.Set("Docker-Content-Digest", b.Digest.String())
	h.Set("Content-Length", "0")
	req.w.WriteHeader(http.StatusCreated)
}

// mount links a blob of another repository, if the caller may pull from there.
// Where that repository is not named, every one counts that he may pull from.
// When nothing can be mounted, an ordinary upload begins: what he may not see is
// not there.
func (r *Registry) mount(req *request, text, from string) (bool, error) {
	d, ok := parseDigest(text)
	if !ok {
		return false, fail(http.StatusBadRequest, codeDigestInvalid, "mount is not a sha256 or sha512 digest")
	}
	req.digest = d
	if from == "" {
		if err := r.storage.Holders(req.Context(), d, func(repo string) bool {
			if req.caller.May(repo, auth.Pull) {
				from = repo
			}
			return from == ""
		}); err != nil {
			return false, err
		}
	}
	if !validName(from) {
		return false, nil
	}
	if !req.caller.May(from, auth.Pull) {
		if req.caller.Could(from, auth.Pull) {
			return false, r.refuse(req, "repository:"+req.repo+":pull,push repository:"+from+":pull")
		}
		return false, nil
	}
	b, err := r.storage.Mount(req.Context(), req.repo, from, d)
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	r.metrics.mounts.Add(1)
	r.blobCreated(req, b)
	return true, nil
}
