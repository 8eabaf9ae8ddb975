package registry

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/registry/store"
)

const (
	// longestPage bounds a list that the client does not bound, in entries.
	longestPage = 10000
	// longestIndex bounds a page of referrers, in bytes: what a client reads of a
	// manifest (4 MiB) holds it.
	longestIndex = 2 << 20
)

// pageOf reads the parameters of a list: at most n entries after last.
func pageOf(q url.Values) (n int, last string, err error) {
	n = longestPage
	if text := q.Get("n"); text != "" {
		v, e := strconv.ParseUint(text, 10, 31)
		if e != nil {
			return 0, "", fail(http.StatusBadRequest, codePageInvalid, "n is not a number of entries")
		}
		n = min(int(v), longestPage)
	}
	last = q.Get("last")
	if len(last) > longestName {
		return 0, "", fail(http.StatusBadRequest, codePageInvalid, "last is not the name of an entry")
	}
	return n, last, nil
}

// link sets the header that leads to the next page.
func link(w http.ResponseWriter, path string, q url.Values) {
	w.Header().Set("Link", "<"+path+"?"+q.Encode()+`>; rel="next"`)
}

// tags lists the tags of a repository.
func (r *Registry) tags(req *request) error {
	n, last, err := pageOf(req.URL.Query())
	if err != nil {
		return err
	}
	names := []string{}
	more := false
	if r.cache != nil {
		if all, ok := r.cache.Tags(req.Context(), req.repo); ok {
			i, found := slices.BinarySearch(all, last)
			if found {
				i++
			}
			names = append(names, all[i:min(len(all), i+n)]...)
			return r.answerTags(req, names, len(all) > i+n, n)
		}
	}
	err = r.storage.Tags(req.Context(), req.repo, last, func(t store.Tag) bool {
		if more = len(names) >= n; !more {
			names = append(names, t.Name)
		}
		return !more
	})
	if err != nil {
		return err
	}
	return r.answerTags(req, names, more, n)
}

func (r *Registry) answerTags(req *request, names []string, more bool, n int) error {
	if more && n > 0 {
		link(req.w, "/v2/"+req.repo+"/tags/list", url.Values{"n": {strconv.Itoa(n)}, "last": {names[len(names)-1]}})
	}
	return answerJSON(req, "application/json", map[string]any{"name": req.repo, "tags": names})
}

// catalog lists the repositories that the caller may pull from.
func (r *Registry) catalog(req *request) error {
	n, last, err := pageOf(req.URL.Query())
	if err != nil {
		return err
	}
	names, more, err := r.visible(req, last, n)
	if err != nil {
		return err
	}
	if more && n > 0 {
		link(req.w, "/v2/_catalog", url.Values{"n": {strconv.Itoa(n)}, "last": {names[len(names)-1]}})
	}
	return answerJSON(req, "application/json", map[string]any{"repositories": names})
}

// visible returns up to n names after last, and whether there are more.
func (r *Registry) visible(req *request, last string, n int) (names []string, more bool, err error) {
	names = []string{}
	err = r.storage.Repositories(req.Context(), last, func(name string) bool {
		if !req.caller.Sees(name) {
			return true
		}
		if more = len(names) >= n; !more {
			names = append(names, name)
		}
		return !more
	})
	return names, more, err
}

func answerJSON(req *request, kind string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeJSON(req.w, kind, append(data, '\n'))
}

// referrers lists what refers to a manifest. A subject that nobody has may be
// referred to, so that is never "not found".
func (r *Registry) referrers(req *request) error {
	subject, ok := parseDigest(req.reference)
	if !ok {
		return fail(http.StatusBadRequest, codeDigestInvalid, "not a sha256 or sha512 digest")
	}
	q := req.URL.Query()
	n, last, err := pageOf(q)
	if err != nil {
		return err
	}
	filter := q.Get("artifactType")
	if r.cache != nil {
		if list, ok := r.cache.Referrers(req.Context(), req.repo, subject, filter); ok {
			return r.answerIndex(req, list, filter)
		}
	}
	list := []ocispec.Descriptor{}
	size, more := 0, false
	err = r.storage.Referrers(req.Context(), req.repo, subject, digest.Digest(last), func(m store.Manifest) bool {
		if filter != "" && m.ArtifactType != filter {
			return true
		}
		weight := 256 + len(m.ArtifactType)
		for k, v := range m.Annotations {
			weight += len(k) + len(v) + 8
		}
		if more = len(list) >= n || size > 0 && size+weight > longestIndex; more {
			return false
		}
		size += weight
		list = append(list, ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size, ArtifactType: m.ArtifactType, Annotations: m.Annotations})
		return true
	})
	if err != nil {
		return err
	}
	if more && len(list) > 0 {
		next := url.Values{"last": {list[len(list)-1].Digest.String()}}
		if q.Has("n") {
			next.Set("n", strconv.Itoa(n))
		}
		if filter != "" {
			next.Set("artifactType", filter)
		}
		link(req.w, "/v2/"+req.repo+"/referrers/"+subject.String(), next)
	}
	return r.answerIndex(req, list, filter)
}

func (r *Registry) answerIndex(req *request, list []ocispec.Descriptor, filter string) error {
	if filter != "" {
		req.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	return answerJSON(req, ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: list})
}
