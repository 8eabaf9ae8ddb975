package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"syscall"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/registry/store"
)

// The codes of the distribution specification (1.1, "Error codes").
const (
	codeBlobUnknown         = "BLOB_UNKNOWN"
	codeUploadInvalid       = "BLOB_UPLOAD_INVALID"
	codeUploadUnknown       = "BLOB_UPLOAD_UNKNOWN"
	codeDigestInvalid       = "DIGEST_INVALID"
	codeManifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN"
	codeManifestInvalid     = "MANIFEST_INVALID"
	codeManifestUnknown     = "MANIFEST_UNKNOWN"
	codeNameInvalid         = "NAME_INVALID"
	codeNameUnknown         = "NAME_UNKNOWN"
	codeSizeInvalid         = "SIZE_INVALID"
	codeTagInvalid          = "TAG_INVALID"
	codePageInvalid         = "PAGINATION_NUMBER_INVALID"
	codeUnauthorized        = "UNAUTHORIZED"
	codeDenied              = "DENIED"
	codeUnsupported         = "UNSUPPORTED"
	codeTooMany             = "TOOMANYREQUESTS"
	codeUnknown             = "UNKNOWN"
	codeUnavailable         = "UNAVAILABLE"
)

// problem is one error as a client sees it.
type problem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Detail  any    `json:"detail,omitempty"`
	status  int
}

// Error makes a problem an error.
func (p *problem) Error() string { return p.Code + ": " + p.Message }

func fail(status int, code, format string, args ...any) *problem {
	return &problem{Code: code, Message: fmt.Sprintf(format, args...), status: status}
}

func (p *problem) with(detail any) *problem { p.Detail = detail; return p }

// problemOf tells a client about an error of the rooms below. unknown is the
// code of what was not found. What is ours to know only (paths, causes) goes to
// the log and not to the client.
func problemOf(err error, unknown string) []*problem {
	var p *problem
	if errors.As(err, &p) {
		return []*problem{p}
	}
	var missing *store.MissingError
	if errors.As(err, &missing) {
		return missingProblems(missing)
	}
	switch {
	case errors.Is(err, content.ErrDigest):
		return []*problem{fail(http.StatusBadRequest, codeDigestInvalid, "the content does not have the digest it was announced with")}
	case errors.Is(err, content.ErrSize):
		return []*problem{fail(http.StatusBadRequest, codeSizeInvalid, "the content does not have the length it was announced with")}
	}
	kind := fault.KindOf(err)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		kind = fault.Exhausted
	}
	switch kind {
	case fault.NotFound:
		return []*problem{fail(http.StatusNotFound, unknown, "not known in this repository")}
	case fault.Invalid:
		return []*problem{fail(http.StatusBadRequest, codeUnsupported, "the request cannot be carried out")}
	case fault.Conflict:
		return []*problem{fail(http.StatusConflict, codeUploadInvalid, "another request is writing to this upload")}
	case fault.Unsupported:
		return []*problem{fail(http.StatusBadRequest, codeUnsupported, "not supported")}
	case fault.Exhausted:
		return []*problem{fail(http.StatusInsufficientStorage, codeUnavailable, "the registry's disk is full")}
	case fault.Unavailable:
		return []*problem{fail(http.StatusBadGateway, codeUnavailable, "the upstream registry cannot be reached")}
	case fault.Canceled:
		return []*problem{fail(http.StatusRequestTimeout, codeUnavailable, "the request was cut short")}
	}
	return []*problem{fail(http.StatusInternalServerError, codeUnknown, "the registry could not do this; its log says why")}
}

func missingProblems(m *store.MissingError) []*problem {
	var out []*problem
	for _, d := range m.Blobs {
		out = append(out, fail(http.StatusBadRequest, codeManifestBlobUnknown, "the manifest refers to a blob that this repository does not have").with(map[string]any{"digest": d}))
	}
	for _, d := range m.Manifests {
		out = append(out, fail(http.StatusBadRequest, codeManifestBlobUnknown, "the index refers to a manifest that this repository does not have").with(map[string]any{"digest": d}))
	}
	for _, d := range m.Sizes {
		out = append(out, fail(http.StatusBadRequest, codeSizeInvalid, "the blob has another size than the manifest says").with(map[string]any{"digest": d}))
	}
	return out
}

// writeProblems answers with an error document. To HEAD it answers with the
// status alone.
func writeProblems(w http.ResponseWriter, list []*problem) {
	body, err := json.Marshal(map[string]any{"errors": list})
	if err != nil {
		body = []byte(`{"errors":[{"code":"UNKNOWN","message":"the error cannot be written"}]}`)
	}
	h := w.Header()
	for _, k := range []string{"ETag", "Docker-Content-Digest", "Cache-Control"} {
		h.Del(k)
	}
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(list[0].status)
	_, _ = w.Write(body)
}
