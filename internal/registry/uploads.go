package registry

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"berth/internal/content"
)

// buffers are what uploads are received through.
var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// uploadStatus says how far an upload is.
func uploadStatus(req *request, s *session, status int) error {
	h := req.w.Header()
	size := s.size.Load()
	h.Set("Location", "/v2/"+s.repo+"/blobs/uploads/"+s.id)
	h.Set("Range", "0-"+itoa(max(size-1, 0)))
	h.Set("Docker-Upload-UUID", s.id)
	if status != http.StatusNoContent {
		h.Set("Content-Length", "0")
	}
	req.w.WriteHeader(status)
	return nil
}

// upload serves one upload: its status, a chunk, its end, its cancellation.
func (r *Registry) upload(req *request) error {
	s, err := r.uploads.find(req.reference, req.repo, req.caller.User)
	if err != nil {
		return err
	}
	if req.Method == http.MethodGet || req.Method == http.MethodHead {
		if s.size.Load() < 0 {
			if err := r.uploads.acquire(req.Context(), s); err != nil {
				return err
			}
			r.uploads.release(s)
		}
		return uploadStatus(req, s, http.StatusNoContent)
	}
	if err := r.uploads.acquire(req.Context(), s); err != nil {
		return err
	}
	switch req.Method {
	case http.MethodDelete:
		err := s.upload.Discard()
		r.uploads.finish(s)
		if err != nil {
			return err
		}
		req.w.WriteHeader(http.StatusNoContent)
		return nil
	case http.MethodPatch:
		err := r.receive(req, s)
		r.uploads.release(s)
		if err != nil {
			return err
		}
		return uploadStatus(req, s, http.StatusAccepted)
	}
	return r.finish(req, s)
}

// finish takes the last bytes, if any, and makes a blob of the upload. The
// caller holds the session.
func (r *Registry) finish(req *request, s *session) error {
	d, ok := parseDigest(req.URL.Query().Get("digest"))
	if !ok {
		r.uploads.release(s)
		return fail(http.StatusBadRequest, codeDigestInvalid, "digest is not a sha256 or sha512 digest")
	}
	req.digest = d
	if err := r.receive(req, s); err != nil {
		r.uploads.release(s)
		return err
	}
	b, err := s.upload.Commit(req.Context(), req.repo, d)
	if errors.Is(err, content.ErrDigest) {
		// What arrived is not what was meant, and nobody can tell which byte.
		_ = s.upload.Discard()
		r.uploads.finish(s)
		return err
	}
	if err != nil {
		r.uploads.release(s)
		return err
	}
	r.uploads.finish(s)
	r.blobCreated(req, b)
	return nil
}

// receive appends a request's body to the upload. A chunk that says where it
// belongs must begin where the upload ends and be as long as it says.
func (r *Registry) receive(req *request, s *session) error {
	length := int64(-1)
	if text := req.Header.Get("Content-Range"); text != "" {
		start, end, ok := parseChunk(text)
		switch {
		case !ok:
			return fail(http.StatusBadRequest, codeUploadInvalid, "Content-Range is not of the form START-END")
		case start != s.upload.Size():
			req.w.Header().Set("Location", "/v2/"+s.repo+"/blobs/uploads/"+s.id)
			req.w.Header().Set("Range", "0-"+itoa(max(s.upload.Size()-1, 0)))
			req.w.Header().Set("Docker-Upload-UUID", s.id)
			return fail(http.StatusRequestedRangeNotSatisfiable, codeUploadInvalid, "the chunk begins at %d, and the upload ends at %d", start, s.upload.Size())
		}
		length = end - start + 1
		if req.ContentLength >= 0 && req.ContentLength != length {
			return fail(http.StatusBadRequest, codeSizeInvalid, "Content-Range speaks of %d bytes, Content-Length of %d", length, req.ContentLength)
		}
	}
	n, err := r.drain(req, s, length)
	s.size.Store(s.upload.Size())
	switch {
	case err != nil:
		return r.received(req, err)
	case length >= 0 && n != length:
		return fail(http.StatusBadRequest, codeSizeInvalid, "Content-Range speaks of %d bytes, and %d came", length, n)
	}
	if length >= 0 && req.ContentLength < 0 {
		var one [1]byte
		if k, _ := req.body.Read(one[:]); k > 0 {
			return fail(http.StatusBadRequest, codeSizeInvalid, "Content-Range speaks of %d bytes, and more came", length)
		}
	}
	return nil
}

// drain writes up to limit bytes (all if it is negative) of the body to the
// upload, counting what is safe as it goes.
func (r *Registry) drain(req *request, s *session, limit int64) (int64, error) {
	p := buffers.Get().(*[]byte)
	defer buffers.Put(p)
	var total int64
	for limit < 0 || total < limit {
		b := *p
		if limit >= 0 && limit-total < int64(len(b)) {
			b = b[:limit-total]
		}
		n, err := req.body.Read(b)
		if n > 0 {
			if _, werr := s.upload.Write(b[:n]); werr != nil {
				return total, werr
			}
			total += int64(n)
			s.size.Store(s.upload.Size())
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// parseChunk reads the Content-Range of a chunk: "START-END" as the
// specification has it; "bytes START-END/TOTAL" as HTTP has it is understood,
// too.
func parseChunk(s string) (start, end int64, ok bool) {
	s = strings.TrimPrefix(s, "bytes ")
	s, _, _ = strings.Cut(s, "/")
	a, b, found := strings.Cut(s, "-")
	if !found || !digits(a) || !digits(b) {
		return 0, 0, false
	}
	start, e1 := strconv.ParseInt(a, 10, 64)
	end, e2 := strconv.ParseInt(b, 10, 64)
	return start, end, e1 == nil && e2 == nil && end >= start && end < 1<<62
}

func digits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
