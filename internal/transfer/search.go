package transfer

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	api "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"

	"berth/internal/fault"
)

const (
	hubSearch     = "https://index.docker.io"
	maxSearchBody = 4 << 20 // bytes
)

// Search asks Docker Hub, or the registry that term begins with, for
// repositories, at most limit of them. It speaks version 1 of docker's registry
// API, the only one that has a search; few registries besides Docker Hub do.
func (c *Client) Search(ctx context.Context, term string, limit int, auth Auth) ([]api.SearchResult, error) {
	const op = "search"
	if strings.Contains(term, "://") {
		return nil, fault.New(fault.Invalid, op, term, "a name of a registry has no scheme").WithHint("leave out what is before ://")
	}
	name, err := reference.ParseNormalizedNamed(term)
	host := dockerHub
	if err == nil && reference.Domain(name) != dockerHub {
		host, term = reference.Domain(name), reference.Path(name)
	}
	there, err := reference.ParseNormalizedNamed(host + "/search/all")
	if err != nil {
		return nil, fault.New(fault.Invalid, op, host, "%w", err)
	}
	all, err := c.endpoints(ctx, there, credentialsOf(auth), false)
	if err != nil {
		return nil, err
	}
	at := all[len(all)-1]
	if host == dockerHub {
		at.base, at.host = hubSearch, hubSearch[len("https://"):]
		at.client = c.httpClient(at.access, at.base, at.host, false, true)
	}
	query := url.Values{"q": {term}, "n": {strconv.Itoa(limit)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.base+"/v1/search?"+query.Encode(), nil)
	if err != nil {
		return nil, fault.New(fault.Invalid, op, host, "%w", err)
	}
	req.Header.Set("User-Agent", c.c.UserAgent)
	if creds := at.auth.creds; creds.user != "" {
		req.SetBasicAuth(creds.user, creds.password)
	}
	res, err := at.client.Do(req)
	if err != nil {
		return nil, networkError(ctx, op, host, err)
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, fault.New(fault.Unsupported, op, host, "the registry has no search")
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, fault.New(fault.Unauthorized, op, host, "the registry answered %s", res.Status).WithHint("log in first")
	default:
		return nil, fault.New(fault.Unavailable, op, host, "the registry answered %s", res.Status)
	}
	var out api.SearchResults
	if err := json.NewDecoder(io.LimitReader(res.Body, maxSearchBody)).Decode(&out); err != nil {
		return nil, fault.New(fault.Unavailable, op, host, "the answer cannot be read: %w", err)
	}
	if len(out.Results) > limit {
		out.Results = out.Results[:limit]
	}
	return out.Results, nil
}

// Verify asks v about an image at its registry, as a pull does of the policy.
func (c *Client) Verify(ctx context.Context, named reference.Named, d digest.Digest, v Verifier, auth Auth) error {
	s, err := c.open(ctx, reference.TrimNamed(named), actionPull, auth)
	if err != nil {
		return err
	}
	return v.Check(ctx, named, d, source{s})
}
