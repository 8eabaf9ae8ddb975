package source

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/internal/build/tree"
	"berth/internal/fault"
	"berth/internal/version"
)

// maxDownload bounds what is fetched from one URL.
const maxDownload = 64 << 30

// Fetched is a file from a URL.
type Fetched struct {
	Path     string // on this machine; "" when the server says that the known one is current
	Digest   digest.Digest
	Modified time.Time // zero when the server does not say
	ETag     string
	Remove   func()
}

// Client is what fetches; its Transport and limits are the engine's. Redirects
// are followed at most ten times and only to http and https, as Go does.
var Client = &http.Client{}

// Fetch gets a file. known is an ETag that the caller has the file of; when it is
// still current nothing is sent. A checksum that is not "" must come out.
func (s *Store) Fetch(ctx context.Context, url, known string, checksum digest.Digest) (*Fetched, error) {
	const op = "fetch"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fault.New(fault.Invalid, op, url, "%w", err)
	}
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return nil, fault.New(fault.Invalid, op, url, "only http and https are fetched")
	}
	req.Header.Set("User-Agent", "berth/"+version.String())
	req.Header.Set("Accept-Encoding", "identity")
	if known != "" {
		req.Header.Set("If-None-Match", known)
	}
	resp, err := Client.Do(req)
	if err != nil {
		kind := fault.Unavailable
		if ctx.Err() != nil {
			kind = fault.Canceled
		}
		return nil, (&fault.Error{Kind: kind, Op: op, Subject: url, Err: err}).WithHint("check the address and the network of this machine")
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotModified && known != "":
		return &Fetched{ETag: known, Remove: func() {}}, nil
	case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone:
		return nil, fault.New(fault.NotFound, op, url, "the server answers %s", resp.Status)
	case resp.StatusCode != http.StatusOK:
		return nil, fault.New(fault.Unavailable, op, url, "the server answers %s", resp.Status)
	}
	f := &Fetched{ETag: resp.Header.Get("ETag")}
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		f.Modified = t
	}
	dir, remove, err := s.temp()
	if err != nil {
		return nil, fault.Wrap(op, url, err)
	}
	f.Remove, f.Path = remove, filepath.Join(dir, "file")
	if f.Digest, err = save(f.Path, resp.Body); err == nil && checksum != "" && f.Digest != checksum {
		err = fault.New(fault.Invalid, op, url, "digest mismatch: it has %s, wanted is %s", f.Digest, checksum).
			WithHint("see whether the file was changed on purpose before you change the checksum")
	}
	if err != nil {
		remove()
		return nil, fault.Wrap(op, url, err)
	}
	return f, nil
}

func save(path string, r io.Reader) (digest.Digest, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(r, maxDownload+1))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil && n > maxDownload {
		err = fault.New(fault.Invalid, "read", "", "it is larger than %d bytes", int64(maxDownload))
	}
	return digest.NewDigest(digest.SHA256, h), err
}

// maxDockerfile bounds a Dockerfile that is a context of its own.
const maxDockerfile = 16 << 20

// URL makes a context of what is at a URL: an archive, or a Dockerfile alone. The
// content tells which, since servers often say nothing of use.
func (s *Store) URL(ctx context.Context, url, dockerfile string) (*Context, error) {
	const op = "open build context"
	f, err := s.Fetch(ctx, url, "", "")
	if err != nil {
		return nil, err
	}
	defer f.Remove()
	file, err := os.Open(f.Path)
	if err != nil {
		return nil, fault.Wrap(op, url, err)
	}
	defer file.Close()
	archive := tree.IsArchive(ctx, file)
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, fault.Wrap(op, url, err)
	}
	if archive {
		return s.Archive(ctx, file, dockerfile)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxDockerfile+1))
	if err != nil {
		return nil, fault.Wrap(op, url, err)
	}
	if len(data) > maxDockerfile || bytes.IndexByte(data, 0) >= 0 {
		return nil, fault.New(fault.Invalid, op, url, "it is neither an archive nor a Dockerfile")
	}
	if dockerfile == "" {
		dockerfile = "Dockerfile"
	}
	return s.Files(map[string][]byte{dockerfile: data}, dockerfile)
}
