package client

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
	"strings"

	"berth/internal/fault"
)

// Platform is an operating system and an architecture.
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
}

// ParsePlatform reads OS/ARCH[/VARIANT].
func ParsePlatform(text string) (Platform, error) {
	parts := strings.Split(strings.ToLower(text), "/")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return Platform{}, fault.New(fault.Invalid, "", "", "%q is not a platform", text).WithHint("write linux/arm64 or linux/arm/v7")
	}
	p := Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}

// setPlatforms adds platforms in the form of the younger endpoints, JSON.
func setPlatforms(q url.Values, texts []string) error {
	for _, text := range texts {
		p, err := ParsePlatform(text)
		if err != nil {
			return err
		}
		raw, _ := json.Marshal(p) // strings always encode
		q.Add("platform", string(raw))
	}
	return nil
}

func setText(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}

// PushOptions say what to push.
type PushOptions struct {
	AllTags  bool
	Platform string // "" means all that are here
	Auth     string // X-Registry-Auth
}

// ImagePush sends ref to its registry.
func (c *Client) ImagePush(ctx context.Context, ref string, o PushOptions, progress ProgressFunc) error {
	name, tag := SplitReference(ref)
	q := url.Values{}
	if !o.AllTags {
		q.Set("tag", tag)
	}
	if o.Platform != "" {
		if err := setPlatforms(q, []string{o.Platform}); err != nil {
			return err
		}
	}
	auth := o.Auth
	if auth == "" {
		auth = "e30=" // {}: some engines refuse a push without the header
	}
	return c.transfer(ctx, &request{method: "POST", path: "/images/" + segment(name) + "/push", query: q.Encode(), auth: auth}, progress)
}

// Login is what a registry is told about who asks.
type Login struct {
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	ServerAddress string `json:"serveraddress,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
}

// LoginAnswer is what a registry said to it.
type LoginAnswer struct {
	Status        string
	IdentityToken string // to be kept instead of the password; may be ""
}

// RegistryLogin asks a registry whether credentials are good.
func (c *Client) RegistryLogin(ctx context.Context, login Login) (LoginAnswer, error) {
	return fetch[LoginAnswer](ctx, c, "POST", "/auth", nil, login)
}

// Descriptor names something that a registry has.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// Distribution is what a registry has under a name.
type Distribution struct{ Descriptor Descriptor }

// DistributionInspect asks the registry of ref what it has.
func (c *Client) DistributionInspect(ctx context.Context, ref, auth string) (Distribution, error) {
	var out Distribution
	err := c.callAs(ctx, &request{method: "GET", path: "/distribution/" + segment(ref) + "/json", auth: auth}, nil, &out)
	return out, err
}

// ImageReferrers lists what a registry has about an image; "" means every type.
func (c *Client) ImageReferrers(ctx context.Context, ref, artifactType, auth string) ([]Descriptor, error) {
	q := url.Values{}
	setText(q, "artifactType", artifactType)
	var out []Descriptor
	err := c.callAs(ctx, &request{method: "GET", path: "/berth/images/" + segment(ref) + "/referrers", query: q.Encode(), auth: auth}, nil, &out)
	return out, err
}

// ImageAttach sends an artifact about an image to the image's registry.
func (c *Client) ImageAttach(ctx context.Context, ref, auth string, manifest []byte, blobs [][]byte) error {
	body := struct {
		Manifest []byte   `json:"manifest"`
		Blobs    [][]byte `json:"blobs"`
	}{manifest, blobs}
	return c.callAs(ctx, &request{method: "POST", path: "/berth/images/" + segment(ref) + "/attach", auth: auth}, body, nil)
}

// ImageVerify has the engine read everything of an image anew. With publicKeys,
// in PEM form, the image must also be signed at its registry by one of them.
func (c *Client) ImageVerify(ctx context.Context, ref, auth string, publicKeys []string, progress ProgressFunc) error {
	rq := &request{method: "POST", path: "/berth/images/" + segment(ref) + "/verify", auth: auth}
	if len(publicKeys) > 0 {
		if err := rq.json(map[string][]string{"publicKeys": publicKeys}); err != nil {
			return err
		}
	}
	return c.transfer(ctx, rq, progress)
}

// ImageTree returns which layers images share, as the engine wrote it.
func (c *Client) ImageTree(ctx context.Context) (json.RawMessage, error) {
	return fetch[json.RawMessage](ctx, c, "GET", "/berth/images/tree", nil, nil)
}

// HistoryItem is one step that an image was made of.
type HistoryItem struct {
	ID        string `json:"Id"`
	Created   int64  // Unix time, seconds
	CreatedBy string
	Tags      []string
	Size      int64 // bytes
	Comment   string
}

// ImageHistory returns the steps of an image, the last one first.
func (c *Client) ImageHistory(ctx context.Context, ref, platform string) ([]HistoryItem, error) {
	q := url.Values{}
	if platform != "" {
		if err := setPlatforms(q, []string{platform}); err != nil {
			return nil, err
		}
	}
	return fetch[[]HistoryItem](ctx, c, "GET", "/images/"+segment(ref)+"/history", q, nil)
}

// ImageSave writes an archive of images to w.
func (c *Client) ImageSave(ctx context.Context, refs, platforms []string, w io.Writer) error {
	q := url.Values{"names": refs}
	if err := setPlatforms(q, platforms); err != nil {
		return err
	}
	return c.download(ctx, &request{method: "GET", path: "/images/get", query: q.Encode()}, w)
}

// download copies an answer's body. It is not begun again when the engine dies:
// half of it has been written.
func (c *Client) download(ctx context.Context, rq *request, w io.Writer) error {
	a, err := c.do(ctx, rq)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, struct{ io.Reader }{a}); err != nil {
		_ = a.Close()
		return err
	}
	return a.Close()
}

// CommitOptions describe an image made of a container.
type CommitOptions struct {
	Ref, Author, Message string
	Changes              []string
	NoPause              bool
}

// ContainerCommit makes an image of a container and returns its id.
func (c *Client) ContainerCommit(ctx context.Context, container string, o CommitOptions) (string, error) {
	q := url.Values{"container": {container}}
	if len(o.Changes) > 0 {
		q["changes"] = o.Changes
	}
	if o.Ref != "" {
		name, tag := SplitReference(o.Ref)
		q.Set("repo", name)
		q.Set("tag", tag)
	}
	setText(q, "author", o.Author)
	setText(q, "comment", o.Message)
	if o.NoPause {
		q.Set("pause", "0")
	}
	out, err := fetch[struct {
		ID string `json:"Id"`
	}](ctx, c, "POST", "/commit", q, nil)
	return out.ID, err
}

// SearchResult is a repository that a search found.
type SearchResult struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	StarCount   int    `json:"star_count"`
	IsOfficial  bool   `json:"is_official"`
}

// ImageSearch searches a registry; a limit of 0 leaves it to the registry.
func (c *Client) ImageSearch(ctx context.Context, term string, limit string, filters Filters, auth string) ([]SearchResult, error) {
	q := url.Values{"term": {term}}
	setText(q, "limit", limit)
	filters.query(q)
	var out []SearchResult
	err := c.callAs(ctx, &request{method: "GET", path: "/images/search", query: q.Encode(), auth: auth}, nil, &out)
	return out, err
}
