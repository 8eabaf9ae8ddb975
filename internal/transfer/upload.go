package transfer

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
)

// hasBlob asks whether the repository has a blob.
func (s *session) hasBlob(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	res, err := s.do(ctx, request{op: "look for", method: http.MethodHead, path: "blobs/" + d.Digest.String(), want: []int{http.StatusOK}})
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	drop(res.Response)
	return res.ContentLength < 0 || res.ContentLength == d.Size, nil
}

// upload is a blob on its way to the registry.
type upload struct {
	s    *session
	url  string // where to go on
	used bool   // bytes were sent, of which some may have come
}

const uploadOp = "upload to"

// begin starts an upload. With from, the registry is asked to take the blob from
// that repository of its own instead; mounted tells that it did.
func (s *session) begin(ctx context.Context, mount digest.Digest, from string) (u *upload, mounted bool, err error) {
	r := request{op: uploadOp, method: http.MethodPost, path: "blobs/uploads/", want: []int{http.StatusAccepted}, data: []byte{}}
	if from != "" {
		r.query = url.Values{"mount": {mount.String()}, "from": {from}}
		r.scopes = []string{"repository:" + from + ":pull"}
		r.want = append(r.want, http.StatusCreated)
		r.most = 1
	}
	res, err := s.do(ctx, r)
	if err != nil {
		return nil, false, err
	}
	drop(res.Response)
	if res.StatusCode == http.StatusCreated {
		return nil, true, nil
	}
	u = &upload{s: s}
	return u, false, u.moved(res)
}

// moved takes note of where the registry wants the upload to go on. It may be
// another host; credentials do not go there.
func (u *upload) moved(res *response) error {
	v := res.Header.Get("Location")
	to, err := res.Request.URL.Parse(v)
	if err != nil || v == "" || to.Host == "" || to.Scheme != "https" && to.Scheme != "http" {
		return fault.New(fault.Invalid, uploadOp, u.s.subject(), "the registry names no place to upload to: %.200q", v)
	}
	if to.Scheme == "http" && res.Request.URL.Scheme == "https" {
		if to.Host != res.Request.URL.Host && !res.from.insecure {
			return fault.New(fault.Forbidden, uploadOp, u.s.subject(), "the registry sends to %.200q, which has no TLS", v)
		}
		if to.Host == res.Request.URL.Host {
			to.Scheme = "https" // it does not know that a proxy in front of it has TLS
		}
	}
	to.User = nil
	u.url = to.String()
	return nil
}

// put sends the rest of a blob of known digest and ends the upload. body may be
// nil when everything was sent.
func (u *upload) put(ctx context.Context, d ocispec.Descriptor, off int64, body io.Reader) error {
	r := request{op: uploadOp, method: http.MethodPut, url: u.url, query: url.Values{"digest": {d.Digest.String()}}, want: []int{http.StatusCreated, http.StatusNoContent},
		header: http.Header{"Content-Type": {"application/octet-stream"}}}
	if body == nil {
		r.data = []byte{}
	} else {
		r.stream, r.size, u.used = body, d.Size-off, true
		if off > 0 {
			r.header.Set("Content-Range", fmt.Sprintf("%d-%d", off, d.Size-1))
		}
	}
	res, err := u.s.do(ctx, r)
	if err != nil {
		return err
	}
	drop(res.Response)
	return nil
}

// patch streams bytes whose number and digest are not known yet.
func (u *upload) patch(ctx context.Context, body io.Reader) error {
	u.used = true
	res, err := u.s.do(ctx, request{op: uploadOp, method: http.MethodPatch, url: u.url, stream: body, size: -1,
		header: http.Header{"Content-Type": {"application/octet-stream"}}, want: []int{http.StatusAccepted, http.StatusNoContent, http.StatusCreated}})
	if err != nil {
		return err
	}
	drop(res.Response)
	return u.moved(res)
}

// cancel tells the registry that nothing will come; if it does not hear that,
// it finds out in time.
func (u *upload) cancel(ctx context.Context) {
	res, err := u.s.do(ctx, request{op: uploadOp, method: http.MethodDelete, url: u.url, most: 1,
		want: []int{http.StatusNoContent, http.StatusAccepted, http.StatusOK}})
	if err == nil {
		drop(res.Response)
	}
}

// offset asks how much of the upload the registry has.
func (u *upload) offset(ctx context.Context) (int64, error) {
	res, err := u.s.do(ctx, request{op: uploadOp, url: u.url, want: []int{http.StatusNoContent, http.StatusAccepted, http.StatusOK}})
	if err != nil {
		return 0, err
	}
	drop(res.Response)
	if res.Header.Get("Location") != "" {
		if err := u.moved(res); err != nil {
			return 0, err
		}
	}
	_, last, ok := strings.Cut(strings.TrimPrefix(res.Header.Get("Range"), "bytes="), "-")
	n, err := strconv.ParseInt(last, 10, 64)
	if !ok || err != nil || n <= 0 { // "0-0" is what registries say of nothing
		return 0, nil
	}
	return n + 1, nil
}

// sendBlob uploads a blob that is here. u may be an upload that has begun, or nil.
// When the connection breaks, it asks how much has come and sends the rest.
func (s *session) sendBlob(ctx context.Context, u *upload, d ocispec.Descriptor, blob io.ReaderAt, passed func(n int64)) error {
	wait := s.c.c.Backoff
	best, idle := int64(0), 0
	for tries := 0; ; tries++ {
		off, err := int64(0), error(nil)
		if u != nil && u.used {
			if off, err = u.offset(ctx); err != nil || off > d.Size {
				u = nil // it is lost
			}
		}
		if u == nil {
			off = 0
			if u, _, err = s.begin(ctx, "", ""); err != nil {
				return err
			}
		}
		body := &passing{r: io.NewSectionReader(blob, off, d.Size-off), n: off, passed: passed}
		if err = u.put(ctx, d, off, body); err == nil || ctx.Err() != nil {
			return err
		}
		if has, headErr := s.hasBlob(ctx, d); headErr == nil && has {
			return nil // it was the answer that was lost
		}
		if !mayPass(err) && !(fault.Is(err, fault.NotFound) || fault.Is(err, fault.Invalid)) || idle >= maxIdleCuts || tries >= maxCuts {
			return err
		}
		if !mayPass(err) {
			u = nil // it does not know the upload, or what we say of it, any more
		}
		if off > best {
			best, idle = off, 0
		}
		idle++
		if err := s.pause(ctx, jitter(wait<<(idle-1))); err != nil {
			return err
		}
	}
}

// passing tells how much of a body was taken.
type passing struct {
	r      io.Reader
	n      int64
	passed func(n int64)
}

func (p *passing) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.n += int64(n)
	p.passed(p.n)
	return n, err
}

// putManifest sends a manifest or index under a tag or its digest, and returns
// the answer's headers.
func (s *session) putManifest(ctx context.Context, ref, mediaType string, data []byte) (http.Header, error) {
	const op = "send manifest to"
	res, err := s.do(ctx, request{op: op, method: http.MethodPut, path: "manifests/" + ref, data: data,
		header: http.Header{"Content-Type": {mediaType}}, want: []int{http.StatusCreated, http.StatusOK, http.StatusAccepted}})
	if err != nil {
		return nil, err
	}
	drop(res.Response)
	if got, want := res.Header.Get("Docker-Content-Digest"), digest.FromBytes(data).String(); got != "" && got != want {
		return nil, fault.New(fault.Invalid, op, s.subject(), "the registry took it for %.80q, it is %s", got, want)
	}
	return res.Header, nil
}

// hasManifest asks whether the repository has a manifest.
func (s *session) hasManifest(ctx context.Context, d digest.Digest) (bool, error) {
	res, err := s.do(ctx, request{op: "look for", method: http.MethodHead, path: "manifests/" + d.String(),
		header: http.Header{"Accept": manifestTypes}, want: []int{http.StatusOK}})
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	drop(res.Response)
	return true, nil
}
