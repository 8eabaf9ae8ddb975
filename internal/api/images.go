package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"berth/internal/engine"
	"berth/internal/fault"

	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// imageEngine is what the image endpoints call.
type imageEngine interface {
	ImageLoad(ctx context.Context, r io.Reader, quiet bool, out io.Writer) error
	ImageImport(ctx context.Context, o engine.ImageImportOptions, r io.Reader, out io.Writer) error
	ImagePull(ctx context.Context, ref string, platform *ocispec.Platform, out io.Writer) error
	ImageList(ctx context.Context, o engine.ImageListOptions) ([]image.Summary, error)
	ImageInspect(ctx context.Context, ref string) (image.InspectResponse, error)
	ImageRemove(ctx context.Context, ref string, force, prune bool) ([]image.DeleteResponse, error)
	ImageTag(ctx context.Context, src, target string) error
}

func listImages(x *exchange) error {
	o := engine.ImageListOptions{All: x.flag("all"), SharedSize: x.flag("shared-size"), ContainerCount: !x.version.before(51)}
	var err error
	if o.Filters, err = engine.ParseFilters(x.query("filters")); err != nil {
		return err
	}
	if name := x.query("filter"); name != "" && x.version.before(25) && !o.Filters.Has("reference") {
		if o.Filters == nil {
			o.Filters = engine.Filters{}
		}
		o.Filters.Add("reference", name)
	}
	list, err := x.api.engine.ImageList(x.ctx(), o)
	if err != nil {
		return err
	}
	if list == nil {
		list = []image.Summary{}
	}
	for i := range list {
		adaptSummary(x.version, &list[i])
	}
	if x.version.before(44) {
		return x.reply(http.StatusOK, withVirtualSize(list))
	}
	return x.reply(http.StatusOK, list)
}

func adaptSummary(v apiVersion, s *image.Summary) {
	if s.RepoTags == nil {
		s.RepoTags = []string{}
	}
	if s.RepoDigests == nil {
		s.RepoDigests = []string{}
	}
	if v.before(43) && len(s.RepoTags) == 0 && len(s.RepoDigests) == 0 {
		s.RepoTags, s.RepoDigests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
	}
	if v.before(48) {
		s.Descriptor = nil
	}
	if v.before(51) {
		s.Containers = -1
	}
}

// getImage serves GET /images/{name}/{verb}; names hold slashes, so the verb is
// the last part.
func getImage(x *exchange) error {
	name, verb := cutLast(x.path("name"))
	switch verb {
	case "json":
		return inspectImage(x, name)
	case "history":
		return notOffered("the history of an image", "inspect it")
	case "get":
		return notOffered("save of images", "")
	case "attestations":
		return notOffered("attestations of images", "")
	}
	return notFound(x)
}

// postImage serves POST /images/{name}/{verb}.
func postImage(x *exchange) error {
	name, verb := cutLast(x.path("name"))
	switch verb {
	case "tag":
		return tagImage(x, name)
	case "push":
		return notOffered("push of images", "")
	}
	return notFound(x)
}

func cutLast(path string) (before, last string) {
	i := strings.LastIndexByte(path, '/')
	if i <= 0 {
		return path, ""
	}
	return path[:i], path[i+1:]
}

func tagImage(x *exchange, name string) error {
	target := x.query("repo")
	if target == "" {
		return fault.New(fault.Invalid, "", "", "the new name of the image (parameter repo) is missing")
	}
	if tag := x.query("tag"); tag != "" {
		target += ":" + tag
	}
	if err := x.api.engine.ImageTag(x.ctx(), name, target); err != nil {
		return err
	}
	return x.done(http.StatusCreated)
}

func removeImage(x *exchange) error {
	name := x.path("name")
	if strings.TrimSpace(name) == "" {
		return fault.New(fault.Invalid, "", "", "image name cannot be blank")
	}
	if len(x.queries("platforms")) > 0 && !x.version.before(50) {
		return notOffered("removal of single platforms of an image", "")
	}
	list, err := x.api.engine.ImageRemove(x.ctx(), name, x.flag("force"), !x.flag("noprune"))
	if err != nil {
		return err
	}
	if list == nil {
		list = []image.DeleteResponse{}
	}
	return x.reply(http.StatusOK, list)
}

func loadImages(x *exchange) error {
	if len(x.queries("platform")) > 0 && !x.version.before(48) {
		return notOffered("load of single platforms of an archive", "")
	}
	quiet := x.flagOr("quiet", true)
	return x.upload(func(out io.Writer) error {
		return x.api.engine.ImageLoad(x.ctx(), x.r.Body, quiet, out)
	})
}

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
	ref := strings.TrimSuffix(name, ":") // what docker pull -a used to send
	if tag := x.query("tag"); strings.Contains(tag, ":") {
		ref += "@" + tag
	} else if tag != "" {
		ref += ":" + tag
	}
	return x.progress(func(out io.Writer) error {
		return x.unused(x.api.engine.ImagePull(x.ctx(), ref, platform, out))
	})
}

// unused adds to a failed pull that credentials came with it and were not used:
// without them a private image only looks as if it did not exist.
func (x *exchange) unused(err error) error {
	header := x.r.Header.Get("X-Registry-Auth")
	if err == nil || header == "" {
		return err
	}
	text, _ := base64.URLEncoding.DecodeString(header)
	var auth registry.AuthConfig
	if json.Unmarshal(text, &auth) != nil || auth.Username+auth.Password+auth.Auth+auth.IdentityToken+auth.RegistryToken == "" {
		return err
	}
	return fault.New(fault.KindOf(err), "", "", "%w", err).WithHint("the client's registry credentials were not used: this engine pulls anonymously yet")
}

func importImage(x *exchange, platform *ocispec.Platform) error {
	src := x.query("fromSrc")
	o := engine.ImageImportOptions{Ref: x.query("repo"), Message: x.query("message"), Changes: x.queries("changes"), Platform: platform}
	if tag := x.query("tag"); tag != "" && o.Ref != "" {
		o.Ref += ":" + tag
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

// importURL imports an archive which the engine fetches itself.
func (x *exchange) importURL(src string, o engine.ImageImportOptions, out io.Writer) error {
	if !strings.Contains(src, "://") {
		src = "http://" + src
	}
	req, err := http.NewRequestWithContext(x.ctx(), http.MethodGet, src, nil)
	if err != nil {
		return fault.New(fault.Invalid, "", "", "invalid source: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
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
// After a failure the rest of the body is read and thrown away: most clients
// look for an answer only when they have sent everything.
func (x *exchange) upload(work func(out io.Writer) error) error {
	// Without this the server would drop what it has not yet read of the body
	// as soon as the answer starts. Servers that cannot do it do not need it.
	_ = http.NewResponseController(x.ResponseWriter).EnableFullDuplex()
	err := x.progress(work)
	if err != nil && x.ctx().Err() == nil {
		x.Header().Set("Connection", "close")
		x.fail(err)
		x.Flush()
		_, _ = io.Copy(io.Discard, x.r.Body)
		return nil
	}
	return err
}

// progress runs work that reports as a stream of JSON lines. An error before the
// first line is returned, to be answered with its status; a later one becomes
// the last line.
func (x *exchange) progress(work func(out io.Writer) error) error {
	s := newStream(x, true)
	x.Header()["Content-Type"] = jsonType
	err := work(s)
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
	}{jsonstream.Error{Message: err.Error()}, err.Error()})
	if jerr != nil {
		return nil
	}
	return append(line, '\r', '\n')
}
