package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"berth/internal/engine/images"
	"berth/internal/fault"

	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// createImage pulls an image from a registry (fromImage) or makes one from a
// file system archive (fromSrc).
func createImage(x *exchange) error {
	platform, err := x.platform(32)
	if err != nil {
		return err
	}
	name := x.query("fromImage")
	if name == "" {
		return importImage(x, platform)
	}
	ref, named := wholeName(strings.TrimSuffix(name, ":"), x.query("tag")) // docker pull -a used to send "name:"
	o := images.PullOptions{Platform: platform, AllPlatforms: x.flag("allPlatforms"), AllTags: x.flag("all") || !named}
	if o.AllPlatforms && platform != nil {
		return fault.New(fault.Invalid, "", "", "conflicting options: allPlatforms and platform cannot both be set")
	}
	auth := x.registryAuth(ref)
	o.Auth = auth.config
	return x.progress(func(out io.Writer) error {
		return auth.explain(x.api.engine.ImagePull(x.ctx(), ref, o, out))
	})
}

// wholeName joins a name and the parameter tag, which may be a digest and wins
// over a tag within the name. named is false when there is neither.
func wholeName(name, tag string) (ref string, named bool) {
	bare, own := name, ""
	if i := strings.IndexByte(name, '@'); i >= 0 {
		return name, true
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		bare, own = name[:i], name[i+1:]
	}
	switch {
	case strings.Contains(tag, ":"):
		return bare + "@" + tag, true
	case tag != "":
		return bare + ":" + tag, true
	}
	return name, own != ""
}

// pushImage sends an image, or all of a repository's when no tag is named.
func pushImage(x *exchange, name string) error {
	if strings.Contains(name, "@") || strings.Contains(x.query("tag"), ":") {
		return fault.New(fault.Invalid, "", "", "cannot push a digest reference").WithHint("name a tag")
	}
	platform, err := x.platform(46)
	if err != nil {
		return err
	}
	ref, named := wholeName(name, x.query("tag"))
	auth := x.registryAuth(ref)
	o := images.PushOptions{Platform: platform, AllTags: !named, Auth: auth.config}
	return x.progress(func(out io.Writer) error {
		return auth.explain(x.api.engine.ImagePush(x.ctx(), ref, o, out))
	})
}

func importImage(x *exchange, platform *ocispec.Platform) error {
	src := x.query("fromSrc")
	o := images.ImportOptions{Ref: x.query("repo"), Message: x.query("message"), Changes: x.queries("changes"), Platform: platform}
	if o.Ref != "" {
		o.Ref, _ = wholeName(o.Ref, x.query("tag"))
	}
	if o.Message == "" {
		o.Message = "Imported from " + src
	}
	switch src {
	case "-":
		return x.upload(func(out io.Writer) error {
			return x.api.engine.ImageImport(x.ctx(), o, x.r.Body, out)
		})
	case "":
		return fault.New(fault.Invalid, "", "", "one of the parameters fromImage and fromSrc must be given")
	}
	return x.progress(func(out io.Writer) error { return x.importURL(src, o, out) })
}

// fetcher gets the archives that an engine imports from elsewhere. A server
// that accepts a connection and says nothing is given up.
var fetcher = &http.Client{Transport: &http.Transport{
	Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 15 * time.Second, ResponseHeaderTimeout: time.Minute, DisableKeepAlives: true,
}}

// importURL imports an archive which the engine fetches itself.
func (x *exchange) importURL(src string, o images.ImportOptions, out io.Writer) error {
	if !strings.Contains(src, "://") {
		src = "http://" + src
	}
	ctx, cancel := context.WithCancel(x.ctx())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, src, nil)
	if err != nil {
		return fault.New(fault.Invalid, "", "", "invalid source: %w", err)
	}
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return fault.New(fault.Invalid, "", "", "invalid source: %q is neither http nor https", req.URL.Scheme)
	}
	resp, err := fetcher.Do(req)
	if err != nil {
		return fault.New(fault.Unavailable, "fetch", src, "%w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fault.New(fault.Invalid, "fetch", src, "the server answered %s", resp.Status)
	}
	line, err := json.Marshal(jsonstream.Message{Status: "Downloading from " + src})
	if err != nil {
		return err
	}
	if _, err := out.Write(append(line, '\r', '\n')); err != nil {
		return err
	}
	return x.api.engine.ImageImport(x.ctx(), o, resp.Body, out)
}

// upload runs work that reads the request's body while it reports progress.
// After a failure the rest of the body, within reason, is read and thrown away: most
// clients look for an answer only when they have sent everything.
func (x *exchange) upload(work func(out io.Writer) error) error {
	// Without this the server would drop what it has not yet read of the body
	// as soon as the answer starts. Servers that cannot do it do not need it.
	_ = http.NewResponseController(x.ResponseWriter).EnableFullDuplex()
	err := x.report(work)
	if err != nil && x.ctx().Err() == nil {
		x.Header().Set("Connection", "close")
		x.fail(err)
		x.Flush()
		x.drain()
		return nil
	}
	return err
}

// How much of a failed upload is read at most, in bytes and time: what a client
// sends after that finds the connection closed.
const (
	drainBytes = 1 << 30
	drainTime  = 30 * time.Second
)

// drain reads what is left of the body and throws it away.
func (x *exchange) drain() {
	_ = http.NewResponseController(x.ResponseWriter).SetReadDeadline(time.Now().Add(drainTime))
	_, _ = io.CopyN(io.Discard, x.r.Body, drainBytes)
}

// progress runs work that needs no body and reports as report has it. A body there is
// all the same is read first: as long as some of it may come, the server does not
// notice that the client is gone.
func (x *exchange) progress(work func(out io.Writer) error) error {
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(x.ResponseWriter, x.r.Body, maxBody)); err != nil {
		return fault.New(fault.Invalid, "read request body", "", "%w", err)
	}
	return x.report(work)
}

// report runs work that reports as a stream of JSON lines. An error before the
// first line is returned, to be answered with its status; a later one becomes
// the last line.
func (x *exchange) report(work func(out io.Writer) error) error {
	s := newStream(x, true)
	x.Header()["Content-Type"] = jsonType
	err := work(s)
	if !s.wrote() && fault.Is(err, fault.Unauthorized) {
		// Docker's command line takes 401 for an invitation to ask for a password, and
		// waits for ever where its standard input has ended.
		err = fault.New(fault.Forbidden, "", "", "%w", err)
	}
	if err != nil && s.wrote() {
		x.logFailure(statusOf(fault.KindOf(err)), err)
		_, _ = s.Write(errorLine(err))
		err = nil
	}
	if s.finish() != nil {
		return nil // the client is gone
	}
	if err == nil && !x.started {
		return x.done(http.StatusOK)
	}
	return err
}

// errorLine is the last line of a failed stream; old clients read "error", newer
// ones "errorDetail".
func errorLine(err error) []byte {
	line, jerr := json.Marshal(struct {
		Detail jsonstream.Error `json:"errorDetail"`
		Error  string           `json:"error"`
	}{jsonstream.Error{Code: errorCode(err), Message: err.Error()}, err.Error()})
	if jerr != nil {
		return nil
	}
	return append(line, '\r', '\n')
}

// errorCode lets docker's command line tell a refused login from other failures
// in the middle of a stream.
func errorCode(err error) int {
	if fault.Is(err, fault.Unauthorized) {
		return http.StatusUnauthorized
	}
	return 0
}
