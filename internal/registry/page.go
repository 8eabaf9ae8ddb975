package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
	"berth/internal/registry/auth"
	"berth/internal/registry/store"
)

const (
	pageRows   = 50  // rows of a table before there is a next page
	countsTags = 500 // tags of a repository that the first page counts
)

//go:embed page.html
var pageText string

//go:embed page.css
var pageStyle string

var pages = template.Must(template.New("").Parse(pageText))

// pagePolicy lets a browser load nothing but the page, whose style it knows by
// its hash: what somebody pushes as a name or an annotation cannot become code.
var pagePolicy = func() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

// view is what the templates show.
type view struct {
	Title, Host, User string
	Style             template.CSS
	First, Next       string // addresses of other pages

	Repositories []repositoryRow
	Repository   string
	Tags         []tagRow

	Reference, MediaType, ArtifactType, Total, Pushed string
	Digest, Subject                                   digest.Digest
	ByDigest                                          bool
	Members, Layers, Referrers                        []partRow
}

type repositoryRow struct {
	Name, Pushed string
	Tags         int
	More         bool
}

type tagRow struct {
	Name, Kind, Size, Pushed string
	Digest                   digest.Digest
}

type partRow struct {
	Name, Size, MediaType string
	Digest                digest.Digest
	Here                  bool
}

// page shows repositories, the tags of one, or what is behind a tag.
func (r *Registry) page(req *request) error {
	q := req.URL.Query()
	repo, ref, after := q.Get("repository"), q.Get("tag"), q.Get("after")
	v := &view{Host: req.Host, User: req.caller.User, Style: template.CSS(pageStyle), Repository: repo, Reference: ref}
	name := "repositories"
	var err error
	switch {
	case repo == "":
		v.Title = "Repositories"
		err = r.showRepositories(req, v, after)
	case !validName(repo) || !req.caller.May(repo, auth.Pull):
		return fail(http.StatusNotFound, codeNameUnknown, "no such repository")
	case ref == "":
		name, v.Title = "tags", repo
		err = r.showTags(req, v, after)
	default:
		name, v.Title = "manifest", repo+" "+ref
		err = r.showManifest(req.Context(), v)
	}
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, name, v); err != nil {
		return fault.Wrap("make page", repo, err)
	}
	h := req.w.Header()
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", itoa(int64(b.Len())))
	req.w.WriteHeader(http.StatusOK)
	_, _ = req.w.Write(b.Bytes())
	return nil
}

func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04")
}

func address(kv ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(kv); i += 2 {
		q.Set(kv[i], kv[i+1])
	}
	return "/?" + q.Encode()
}

func (r *Registry) showRepositories(req *request, v *view, after string) error {
	names, more, err := r.visible(req, after, pageRows)
	if err != nil {
		return err
	}
	if after != "" {
		v.First = "/"
	}
	if more {
		v.Next = address("after", names[len(names)-1])
	}
	for _, name := range names {
		row := repositoryRow{Name: name}
		var last time.Time
		err := r.storage.Tags(req.Context(), name, "", func(t store.Tag) bool {
			if row.More = row.Tags >= countsTags; row.More {
				return false
			}
			row.Tags++
			if t.Pushed.After(last) {
				last = t.Pushed
			}
			return true
		})
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		row.Pushed = when(last)
		v.Repositories = append(v.Repositories, row)
	}
	return nil
}

func (r *Registry) showTags(req *request, v *view, after string) error {
	var list []store.Tag
	err := r.storage.Tags(req.Context(), v.Repository, after, func(t store.Tag) bool {
		list = append(list, t)
		return len(list) <= pageRows
	})
	if err != nil {
		return err
	}
	if after != "" {
		v.First = address("repository", v.Repository)
	}
	if len(list) > pageRows {
		list = list[:pageRows]
		v.Next = address("repository", v.Repository, "after", list[pageRows-1].Name)
	}
	for _, t := range list {
		row := tagRow{Name: t.Name, Pushed: when(t.Pushed), Digest: t.Digest}
		if m, err := r.storage.Manifest(req.Context(), v.Repository, t.Digest); err == nil {
			row.Kind, row.Size = r.describe(req.Context(), v.Repository, m)
		}
		v.Tags = append(v.Tags, row)
	}
	return nil
}

// describe says in a few words what a manifest is and how large.
func (r *Registry) describe(ctx context.Context, repo string, m store.Manifest) (kind, size string) {
	if !isIndex(m.MediaType) {
		if m.ArtifactType != "" {
			return "artifact", units.HumanSize(float64(m.Content))
		}
		return "image", units.HumanSize(float64(m.Content))
	}
	var sum int64
	for _, d := range m.Manifests[:min(len(m.Manifests), 64)] {
		if member, err := r.storage.Manifest(ctx, repo, d); err == nil {
			sum += member.Content
		}
	}
	return "index of " + itoa(int64(len(m.Manifests))), units.HumanSize(float64(sum))
}

func (r *Registry) showManifest(ctx context.Context, v *view) error {
	d, ok := parseDigest(v.Reference)
	v.ByDigest = ok
	if !ok {
		t, err := r.storage.Tag(ctx, v.Repository, v.Reference)
		if err != nil {
			return err
		}
		d = t.Digest
	}
	raw, m, err := r.storage.ReadManifest(ctx, v.Repository, d)
	if err != nil {
		return err
	}
	v.Digest, v.MediaType, v.ArtifactType, v.Pushed, v.Subject = d, m.MediaType, m.ArtifactType, when(m.Pushed), m.Subject
	_, v.Total = r.describe(ctx, v.Repository, m)
	var doc document
	if err := json.Unmarshal(raw, &doc); err != nil {
		return fault.Wrap("read manifest", d.String(), err)
	}
	for _, member := range doc.Manifests {
		_, err := r.storage.Manifest(ctx, v.Repository, member.Digest)
		v.Members = append(v.Members, partRow{Name: platformName(member), Digest: member.Digest, Here: err == nil})
	}
	if doc.Config != nil {
		v.Layers = append(v.Layers, part("configuration", *doc.Config))
	}
	for i, l := range doc.Layers {
		v.Layers = append(v.Layers, part("layer "+itoa(int64(i+1)), l))
	}
	return r.storage.Referrers(ctx, v.Repository, d, "", func(m store.Manifest) bool {
		v.Referrers = append(v.Referrers, partRow{Name: m.ArtifactType, Digest: m.Digest})
		return len(v.Referrers) < pageRows
	})
}

func part(name string, d ocispec.Descriptor) partRow {
	return partRow{Name: name, Size: units.HumanSize(float64(d.Size)), MediaType: d.MediaType, Digest: d.Digest}
}

func platformName(d ocispec.Descriptor) string {
	if d.Platform == nil {
		return d.MediaType
	}
	parts := []string{d.Platform.OS, d.Platform.Architecture}
	if d.Platform.Variant != "" {
		parts = append(parts, d.Platform.Variant)
	}
	return strings.Join(parts, "/")
}
