package registry

import (
	"net/http"
	"strings"
)

// The routes, as logs and metrics name them.
const (
	routeBase      = "base"
	routeCatalog   = "catalog"
	routeManifest  = "manifest"
	routeBlob      = "blob"
	routeUploads   = "uploads"
	routeUpload    = "upload"
	routeTags      = "tags"
	routeReferrers = "referrers"
	routeToken     = "token"
	routePage      = "page"
	routeMetrics   = "metrics"
	routeNone      = "none"
)

// target is what a path names.
type target struct {
	route     string
	repo      string
	reference string // tag, digest or upload id
}

// parsePath reads a path below /v2/ from its end: a repository may be called
// "manifests/blobs". The parts are not checked here.
func parsePath(path string) target {
	rest, ok := strings.CutPrefix(path, "/v2")
	if !ok || rest != "" && rest[0] != '/' {
		return target{route: routeNone}
	}
	rest = strings.TrimPrefix(rest, "/")
	switch rest {
	case "":
		return target{route: routeBase}
	case "_catalog":
		return target{route: routeCatalog}
	}
	if repo, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		return target{routeTags, repo, ""}
	}
	if repo, ok := strings.CutSuffix(strings.TrimSuffix(rest, "/"), "/blobs/uploads"); ok {
		return target{routeUploads, repo, ""}
	}
	head, last, ok := cutLast(rest)
	if !ok {
		return target{route: routeNone}
	}
	for suffix, route := range map[string]string{
		"/blobs/uploads": routeUpload, "/manifests": routeManifest, "/blobs": routeBlob, "/referrers": routeReferrers,
	} {
		if repo, ok := strings.CutSuffix(head, suffix); ok && (route != routeBlob || last != "uploads") {
			return target{route, repo, last}
		}
	}
	return target{route: routeNone}
}

func cutLast(s string) (head, last string, ok bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

// methods lists what a route answers to.
var methods = map[string][]string{
	routeBase:      {http.MethodGet, http.MethodHead},
	routeCatalog:   {http.MethodGet, http.MethodHead},
	routeManifest:  {http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete},
	routeBlob:      {http.MethodGet, http.MethodHead, http.MethodDelete},
	routeUploads:   {http.MethodPost},
	routeUpload:    {http.MethodGet, http.MethodHead, http.MethodPatch, http.MethodPut, http.MethodDelete},
	routeTags:      {http.MethodGet, http.MethodHead},
	routeReferrers: {http.MethodGet, http.MethodHead},
	routeToken:     {http.MethodGet, http.MethodHead, http.MethodPost},
	routePage:      {http.MethodGet, http.MethodHead},
	routeMetrics:   {http.MethodGet, http.MethodHead},
}
