package api

import (
	"bufio"
	"io"
	"net/http"

	"berth/internal/engine/images"
	"berth/internal/fault"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// platforms reads the parameter platform of endpoints that take several since
// 1.52 and one since 1.48. nil means all there are.
func (x *exchange) platforms() ([]*ocispec.Platform, error) {
	values := x.queries("platform")
	if x.version.before(48) {
		return nil, nil
	}
	if len(values) > 1 && x.version.before(52) {
		return nil, fault.New(fault.Invalid, "", "", "multiple platform parameters not supported")
	}
	var list []*ocispec.Platform
	for _, v := range values {
		if v == "" {
			continue
		}
		p, err := parsePlatform(v)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

func loadImages(x *exchange) error {
	o := images.LoadOptions{Quiet: x.flagOr("quiet", true)}
	var err error
	if o.Platforms, err = x.platforms(); err != nil {
		return err
	}
	return x.upload(func(out io.Writer) error {
		return x.api.engine.ImageLoad(x.ctx(), x.r.Body, o, out)
	})
}

// saveSeveral serves GET /images/get?names=a&names=b.
func saveSeveral(x *exchange) error {
	names := x.queries("names")
	if len(names) == 0 {
		return fault.New(fault.Invalid, "", "", "no image is named").WithHint("give the parameter names, once for each image")
	}
	return saveImages(x, names)
}

// saveBuffer is how much of an archive is gathered before it is sent, in bytes;
// a failure before that much was made still has a status.
const saveBuffer = 64 << 10

// saveImages sends an archive of images.
func saveImages(x *exchange, names []string) error {
	platforms, err := x.platforms()
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(&typed{x, "application/x-tar"}, saveBuffer)
	if err := x.api.engine.ImageSave(x.ctx(), names, platforms, w); err != nil {
		return err
	}
	// A failed flush means that the client is gone: there is nobody to tell.
	_ = w.Flush()
	if !x.started {
		return x.done(http.StatusOK)
	}
	return nil
}

// typed sets the type of an answer with its first byte, so that an error before
// that has its own.
type typed struct {
	x           *exchange
	contentType string
}

// Write sends a part of the answer.
func (t *typed) Write(p []byte) (int, error) {
	if !t.x.started {
		t.x.Header()["Content-Type"] = []string{t.contentType}
	}
	return t.x.Write(p)
}
