package client

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/url"
	"strings"

	"berth/internal/fault"
)

// ProgressFunc receives the messages of a transfer under way.
type ProgressFunc func(Progress)

// SplitReference splits a reference into name and tag or digest; a reference
// with neither has the tag "latest".
func SplitReference(ref string) (name, tag string) {
	if name, digest, ok := strings.Cut(ref, "@"); ok {
		return name, digest
	}
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i], ref[i+1:]
	}
	return ref, "latest"
}

// PullOptions say what to pull. Auth is the value of X-Registry-Auth, "" for
// nobody in particular.
type PullOptions struct {
	Platform     string // "" means the engine's own
	AllTags      bool   // every tag of the repository
	AllPlatforms bool   // everything that an index names
	Auth         string
}

// ImagePull pulls ref.
func (c *Client) ImagePull(ctx context.Context, ref string, o PullOptions, progress ProgressFunc) error {
	name, tag := SplitReference(ref)
	q := url.Values{"fromImage": {name}}
	if o.AllTags {
		q.Set("all", "1")
	} else {
		q.Set("tag", tag)
	}
	setFlag(q, "allPlatforms", o.AllPlatforms)
	setText(q, "platform", o.Platform)
	return c.transfer(ctx, &request{method: "POST", path: "/images/create", query: q.Encode(), auth: o.Auth}, progress)
}

// ImportOptions describe an image made from a file tree.
type ImportOptions struct {
	Ref, Message, Platform string
	Changes                []string
	URL                    string // fetched by the engine instead of r
}

// ImageImport makes an image of one layer from an archive of a file tree and
// returns its id.
func (c *Client) ImageImport(ctx context.Context, o ImportOptions, r io.Reader) (string, error) {
	q := url.Values{"fromSrc": {"-"}, "changes": o.Changes}
	if o.URL != "" {
		q.Set("fromSrc", o.URL)
	}
	if o.Ref != "" {
		name, tag := SplitReference(o.Ref)
		q.Set("repo", name)
		q.Set("tag", tag)
	}
	if o.Message != "" {
		q.Set("message", o.Message)
	}
	if o.Platform != "" {
		q.Set("platform", o.Platform)
	}
	var id string
	rq := &request{method: "POST", path: "/images/create", query: q.Encode(), stream: r, contentType: "application/x-tar"}
	err := c.transfer(ctx, rq, func(m Progress) {
		if m.Status != "" {
			id = m.Status
		}
	})
	return id, err
}

// ImageLoad loads the images of an archive.
func (c *Client) ImageLoad(ctx context.Context, r io.Reader, quiet bool, platforms []string, progress ProgressFunc) error {
	q := url.Values{"quiet": {"0"}}
	setFlag(q, "quiet", quiet)
	if err := setPlatforms(q, platforms); err != nil {
		return err
	}
	rq := &request{method: "POST", path: "/images/load", query: q.Encode(), stream: r, contentType: "application/x-tar"}
	return c.transfer(ctx, rq, progress)
}

// transfer sends a request that answers with messages, and returns the failure
// that one of them may report.
func (c *Client) transfer(ctx context.Context, rq *request, progress ProgressFunc) error {
	a, err := c.do(ctx, rq)
	if err != nil {
		return err
	}
	in := json.NewDecoder(a)
	for {
		var m Progress
		err := in.Decode(&m)
		if err == io.EOF {
			return a.Close()
		}
		if err != nil {
			_ = a.Close()
			return transferFailed(rq, err)
		}
		if m.Error == nil && m.Failed != "" {
			m.Error = &ProgressError{Message: m.Failed}
		}
		if m.Error != nil {
			_ = a.Close()
			return fault.New(fault.Internal, "", "", "%s", strings.TrimSpace(m.Error.Message))
		}
		if progress != nil {
			progress(m)
		}
	}
}

func transferFailed(rq *request, err error) error {
	if Broken(err) || err == io.ErrUnexpectedEOF {
		return broken(err)
	}
	return fault.New(fault.Unavailable, "read the engine's answer to", rq.path, "%w", err)
}

// ImageList lists images.
func (c *Client) ImageList(ctx context.Context, all, digests bool, filters Filters) ([]ImageSummary, error) {
	q := url.Values{}
	setFlag(q, "all", all)
	setFlag(q, "digests", digests)
	filters.query(q)
	return fetch[[]ImageSummary](ctx, c, "GET", "/images/json", q, nil)
}

// ImageInspect returns everything about an image as the engine wrote it; "" is
// the engine's own platform.
func (c *Client) ImageInspect(ctx context.Context, ref, platform string) (json.RawMessage, error) {
	q := url.Values{}
	if platform != "" {
		if err := setPlatforms(q, []string{platform}); err != nil {
			return nil, err
		}
	}
	return fetch[json.RawMessage](ctx, c, "GET", "/images/"+segment(ref)+"/json", q, nil)
}

// ImageRemove removes a name of an image, and the image with its last one.
func (c *Client) ImageRemove(ctx context.Context, ref string, force, keepParents bool, platform string) ([]DeleteResponse, error) {
	q := url.Values{}
	setFlag(q, "force", force)
	setFlag(q, "noprune", keepParents)
	if platform != "" {
		p, err := ParsePlatform(platform)
		if err != nil {
			return nil, err
		}
		raw, _ := json.Marshal(p) // strings always encode
		q.Set("platforms", string(raw))
	}
	return fetch[[]DeleteResponse](ctx, c, "DELETE", "/images/"+segment(ref), q, nil)
}

// ImageTag gives an image another name.
func (c *Client) ImageTag(ctx context.Context, source, target string) error {
	name, tag := SplitReference(target)
	return c.call(ctx, "POST", "/images/"+segment(source)+"/tag", url.Values{"repo": {name}, "tag": {tag}}, nil, nil)
}

// Info returns what the engine says about itself and its machine.
func (c *Client) Info(ctx context.Context) (json.RawMessage, error) {
	return fetch[json.RawMessage](ctx, c, "GET", "/info", nil, nil)
}

// Version returns the engine's version.
func (c *Client) Version(ctx context.Context) (json.RawMessage, error) {
	return fetch[json.RawMessage](ctx, c, "GET", "/version", nil, nil)
}

// Ping reports whether an engine answers.
func (c *Client) Ping(ctx context.Context) error {
	return c.call(ctx, "GET", "/_ping", nil, nil, nil)
}

// IsBerth tells whether the engine is one of ours, by what it calls itself.
func (c *Client) IsBerth(ctx context.Context) (bool, error) {
	a, err := c.do(ctx, &request{method: "GET", path: "/_ping"})
	if err != nil {
		return false, err
	}
	return strings.HasPrefix(a.header.Get("server"), "Berth/"), a.Close()
}

// Indent lays raw JSON out for a person.
func Indent(raw json.RawMessage, prefix, indent string) string {
	var b bytes.Buffer
	if json.Indent(&b, raw, prefix, indent) != nil {
		return string(raw)
	}
	return b.String()
}
