package transfer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// registry is a registry in memory that can be made to misbehave.
type registry struct {
	*httptest.Server
	host string

	mu        sync.Mutex
	blobs     map[digest.Digest][]byte // of all repositories
	has       map[string]bool          // "repository digest" of what was pushed
	pushed    bool                     // blobs are looked for in has, not in blobs
	manifests map[string]served        // by tag and by digest, of all repositories
	uploads   map[string][]byte
	seq       int
	referrers bool              // has the referrers API
	log       []string          // "GET path range" of each request
	auth      map[string]string // Authorization by path, as it came

	// fault, when set, is asked before each answer and tells whether it has
	// answered itself.
	fault func(w http.ResponseWriter, r *http.Request) bool
}

type served struct {
	mediaType string
	data      []byte
}

func newRegistry(t testing.TB) *registry {
	g := &registry{blobs: map[digest.Digest][]byte{}, has: map[string]bool{}, manifests: map[string]served{},
		uploads: map[string][]byte{}, auth: map[string]string{}}
	g.Server = httptest.NewServer(g)
	t.Cleanup(g.Close)
	g.host = strings.TrimPrefix(g.URL, "http://")
	return g
}

// newPushRegistry is empty and knows its repositories apart.
func newPushRegistry(t testing.TB) *registry {
	g := newRegistry(t)
	g.pushed, g.referrers = true, true
	return g
}

func (g *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	line := r.Method + " " + r.URL.Path
	if v := r.Header.Get("Range"); v != "" {
		line += " " + v
	}
	if v := r.URL.RawQuery; v != "" && r.Method != http.MethodGet {
		line += "?" + v
	}
	g.log = append(g.log, line)
	g.auth[r.URL.Path] = r.Header.Get("Authorization")
	f := g.fault
	g.mu.Unlock()
	if f != nil && f(w, r) {
		return
	}
	g.answer(w, r)
}

func (g *registry) answer(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	for _, what := range []string{"/blobs/uploads/", "/blobs/", "/manifests/", "/referrers/", "/tags/"} {
		repo, ref, ok := strings.Cut(path, what)
		if !ok {
			continue
		}
		switch what {
		case "/blobs/uploads/":
			g.upload(w, r, repo, ref)
		case "/blobs/":
			g.serveBlob(w, r, repo, digest.Digest(ref))
		case "/manifests/":
			g.serveManifest(w, r, ref)
		case "/referrers/":
			g.serveReferrers(w, r, ref)
		case "/tags/":
			g.serveTags(w, r)
		}
		return
	}
}

func (g *registry) serveBlob(w http.ResponseWriter, r *http.Request, repo string, d digest.Digest) {
	g.mu.Lock()
	data, ok := g.blobs[d]
	ok = ok && (!g.pushed || g.has[repo+" "+string(d)])
	g.mu.Unlock()
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

func (g *registry) serveManifest(w http.ResponseWriter, r *http.Request, ref string) {
	if r.Method == http.MethodPut {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		g.putManifest(w, r, ref, data)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	m, ok := g.manifests[ref]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`)
		return
	}
	w.Header().Set("Content-Type", m.mediaType)
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(m.data).String())
	w.Header().Set("Content-Length", itoa(len(m.data)))
	if r.Method != http.MethodHead {
		w.Write(m.data)
	}
}

// putManifest takes a manifest if everything that it names is there.
func (g *registry) putManifest(w http.ResponseWriter, r *http.Request, ref string, data []byte) {
	var m struct {
		Config    *ocispec.Descriptor
		Layers    []ocispec.Descriptor
		Manifests []ocispec.Descriptor
		Subject   *ocispec.Descriptor
	}
	repo, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/")
	g.mu.Lock()
	defer g.mu.Unlock()
	err := json.Unmarshal(data, &m)
	if m.Config != nil {
		m.Layers = append(m.Layers, *m.Config)
	}
	for _, d := range m.Layers {
		if !g.has[repo+" "+string(d.Digest)] {
			err = fmt.Errorf("blob %s is missing", d.Digest)
		}
	}
	for _, d := range m.Manifests {
		if _, ok := g.manifests[string(d.Digest)]; !ok {
			err = fmt.Errorf("manifest %s is missing", d.Digest)
		}
	}
	d := digest.FromBytes(data)
	if strings.Contains(ref, ":") && ref != string(d) {
		err = fmt.Errorf("it is %s", d)
	}
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"errors":[{"code":"MANIFEST_INVALID","message":%q}]}`, err)
		return
	}
	s := served{r.Header.Get("Content-Type"), data}
	g.manifests[ref], g.manifests[string(d)] = s, s
	w.Header().Set("Docker-Content-Digest", string(d))
	if g.referrers && m.Subject != nil {
		w.Header().Set("OCI-Subject", string(m.Subject.Digest))
	}
	w.WriteHeader(http.StatusCreated)
}

func (g *registry) serveReferrers(w http.ResponseWriter, r *http.Request, subject string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.referrers {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	x := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	x.SchemaVersion = 2
	for ref, s := range g.manifests {
		var m ocispec.Manifest
		if strings.Contains(ref, ":") && json.Unmarshal(s.data, &m) == nil && m.Subject != nil && string(m.Subject.Digest) == subject {
			d := ocispec.Descriptor{MediaType: s.mediaType, Digest: digest.Digest(ref), Size: int64(len(s.data)), ArtifactType: m.ArtifactType}
			x.Manifests = append(x.Manifests, d)
		}
	}
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	json.NewEncoder(w).Encode(x)
}

// serveTags gives two tags a page.
func (g *registry) serveTags(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var tags []string
	for ref := range g.manifests {
		if !strings.Contains(ref, ":") && ref > r.URL.Query().Get("last") {
			tags = append(tags, ref)
		}
	}
	slices.Sort(tags)
	if len(tags) > 2 {
		tags = tags[:2]
		w.Header().Set("Link", fmt.Sprintf(`<%s?n=2&last=%s>; rel="next"`, r.URL.Path, tags[1]))
	}
	json.NewEncoder(w).Encode(map[string]any{"name": "x", "tags": tags})
}

// upload is POST, PATCH, PUT, GET and DELETE of uploads.
func (g *registry) upload(w http.ResponseWriter, r *http.Request, repo, id string) {
	if r.Method == http.MethodPost {
		g.begin(w, r, repo)
		return
	}
	g.mu.Lock()
	data, ok := g.uploads[id]
	g.mu.Unlock()
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if v := r.Header.Get("Content-Range"); v != "" && !strings.HasPrefix(v, itoa(len(data))+"-") {
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		return
	}
	var err error
	if r.Method == http.MethodPatch || r.Method == http.MethodPut {
		var b bytes.Buffer
		_, err = io.Copy(&b, r.Body)
		data = append(data, b.Bytes()...)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.uploads[id] = data // what came before a cut is kept
	w.Header().Set("Location", r.URL.Path+"?state="+itoa(len(data)))
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, len(data)-1)))
	switch {
	case err != nil:
		w.WriteHeader(http.StatusInternalServerError)
	case r.Method == http.MethodGet:
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPatch:
		w.WriteHeader(http.StatusAccepted)
	case r.Method == http.MethodDelete:
		delete(g.uploads, id)
		w.WriteHeader(http.StatusNoContent)
	case digest.FromBytes(data) != digest.Digest(r.URL.Query().Get("digest")):
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"errors":[{"code":"DIGEST_INVALID","message":"another digest"}]}`)
	default:
		delete(g.uploads, id)
		d := digest.FromBytes(data)
		g.blobs[d], g.has[repo+" "+string(d)] = data, true
		w.WriteHeader(http.StatusCreated)
	}
}

func (g *registry) begin(w http.ResponseWriter, r *http.Request, repo string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	d, from := r.URL.Query().Get("mount"), r.URL.Query().Get("from")
	if d != "" && g.has[from+" "+d] {
		g.has[repo+" "+d] = true
		w.WriteHeader(http.StatusCreated)
		return
	}
	g.seq++
	id := "u" + itoa(g.seq)
	g.uploads[id] = nil
	w.Header().Set("Location", "/v2/"+repo+"/blobs/uploads/"+id+"?state=0")
	w.WriteHeader(http.StatusAccepted)
}
