// Package provenance puts into words what a build was made of: SLSA's predicates
// in the form that BuildKit gives them, as in-toto statements. It exists so that
// what is known and what is said about it can be read, and tested, in one place;
// it neither builds nor stores anything.
//
// The fields are those of BuildKit's definitions of its build type, which
// scanners and policies know how to read (docs/attestations/slsa-definitions.md
// of BuildKit). What BuildKit says in its own low-level language, the definition
// of each step, is left out.
package provenance

import (
	"encoding/json"
	"net/url"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Media type and annotation of statements, which BuildKit's image format names.
const (
	MediaType     = "application/vnd.in-toto+json"
	PredicateType = "in-toto.io/predicate-type"
)

// Options say how much is told, and how.
type Options struct {
	Min          bool   // no values of arguments, no secrets' names, no Dockerfile
	V02          bool   // in SLSA's version 0.2, not 1
	Builder      string // the builder's id, as a URI; may be ""
	Reproducible bool   // the user says that the same build gives the same image
}

// Material is one thing that a build used.
type Material struct {
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"` // by algorithm; empty when it is not known
}

// Secret is a secret, or an agent, that steps asked for.
type Secret struct {
	ID       string `json:"id"`
	Optional bool   `json:"optional,omitempty"`
}

// Build is what is known about a build for one platform.
type Build struct {
	ID                string
	Started, Finished time.Time
	Machine, Platform string            // on and for which it was built: "linux/amd64"
	Source            Material          // the context, if it is not the caller's directory
	File              string            // path of the Dockerfile
	Text              []byte            // of the Dockerfile
	Args              map[string]string // as the front end is given them: "target", "build-arg:NAME", "label:NAME"
	Secrets, SSH      []Secret
	Locals            []string // the caller's directories, of which no digest can be told
	Materials         []Material
	Network           bool // steps could reach others
}

type request struct {
	Frontend string              `json:"frontend"`
	Args     map[string]string   `json:"args,omitempty"`
	Secrets  []Secret            `json:"secrets,omitempty"`
	SSH      []Secret            `json:"ssh,omitempty"`
	Locals   []map[string]string `json:"locals,omitempty"`
}

// request returns what the build was asked for, and whether that is all.
func (b *Build) request(o Options) (request, bool) {
	r := request{Frontend: "dockerfile.v0", Args: map[string]string{}, Secrets: b.Secrets, SSH: b.SSH}
	for _, name := range b.Locals {
		r.Locals = append(r.Locals, map[string]string{"name": name})
	}
	complete := true
	for k, v := range b.Args {
		if o.Min && (strings.HasPrefix(k, "build-arg:") || strings.HasPrefix(k, "label:")) {
			complete = false
			continue
		}
		r.Args[k] = v
	}
	if o.Min && len(r.Secrets)+len(r.SSH) > 0 {
		r.Secrets, r.SSH, complete = nil, nil, false
	}
	return r, complete
}

// known reports whether all that was used is among the materials, by its digest.
func (b *Build) known() bool {
	for _, m := range b.Materials {
		if len(m.Digest) == 0 {
			return false
		}
	}
	return len(b.Locals) == 0
}

// buildkitMetadata is the Dockerfile, unless little is to be told.
func (b *Build) buildkitMetadata(o Options) map[string]any {
	if o.Min {
		return map[string]any{}
	}
	info := map[string]any{"filename": b.File, "language": "Dockerfile", "data": b.Text}
	return map[string]any{"source": map[string]any{"infos": []any{info}}}
}

// predicate returns the predicate and its type.
func (b *Build) predicate(o Options) (kind string, predicate any) {
	r, complete := b.request(o)
	materials := b.Materials
	if materials == nil {
		materials = []Material{}
	}
	type object = map[string]any
	hermetic := b.known() && !b.Network
	source := object{"path": b.File}
	if b.Source.URI != "" {
		source["uri"] = b.Source.URI
		if len(b.Source.Digest) > 0 {
			source["digest"] = b.Source.Digest
		}
	}
	if !o.V02 {
		return "https://slsa.dev/provenance/v1", object{
			"buildDefinition": object{
				"buildType":            "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md",
				"externalParameters":   object{"configSource": source, "request": r},
				"internalParameters":   object{"builderPlatform": b.Machine, "targetPlatform": b.Platform},
				"resolvedDependencies": materials,
			},
			"runDetails": object{
				"builder": object{"id": o.Builder},
				"metadata": object{
					"invocationId": b.ID, "startedOn": b.Started.UTC(), "finishedOn": b.Finished.UTC(),
					"buildkit_metadata": b.buildkitMetadata(o), "buildkit_hermetic": hermetic, "buildkit_reproducible": o.Reproducible,
					"buildkit_completeness": object{"request": complete, "resolvedDependencies": b.known()},
				},
			},
		}
	}
	source["entryPoint"] = b.File
	delete(source, "path")
	return "https://slsa.dev/provenance/v0.2", object{
		"builder": object{"id": o.Builder}, "buildType": "https://mobyproject.org/buildkit@v1", "materials": materials,
		"invocation": object{"configSource": source, "parameters": r, "environment": object{"platform": b.Machine}},
		"metadata": object{
			"buildInvocationID": b.ID, "buildStartedOn": b.Started.UTC(), "buildFinishedOn": b.Finished.UTC(), "reproducible": o.Reproducible,
			"completeness": object{"parameters": complete, "environment": true, "materials": b.known()},
			"https://mobyproject.org/buildkit@v1#metadata": b.buildkitMetadata(o),
			"https://mobyproject.org/buildkit@v1#hermetic": hermetic,
		},
	}
}

// Statement says of a manifest, under all its names, how it was made. kind is the
// type of the predicate in it.
func (b *Build) Statement(o Options, manifest digest.Digest, names []reference.NamedTagged) (doc []byte, kind string, err error) {
	kind, predicate := b.predicate(o)
	type subject struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	}
	form := "https://in-toto.io/Statement/v1"
	if o.V02 {
		form = "https://in-toto.io/Statement/v0.1"
	}
	var subjects []subject
	for _, n := range names {
		subjects = append(subjects, subject{ImageURI("docker", n, b.Platform), Sum(manifest)})
	}
	if subjects == nil {
		subjects = []subject{{"_", Sum(manifest)}}
	}
	doc, err = json.Marshal(struct {
		Type          string    `json:"_type"`
		PredicateType string    `json:"predicateType"`
		Subject       []subject `json:"subject"`
		Predicate     any       `json:"predicate"`
	}{form, kind, subjects, predicate})
	return doc, kind, err
}

// Sum is a digest as these documents write it.
func Sum(d digest.Digest) map[string]string {
	return map[string]string{d.Algorithm().String(): d.Encoded()}
}

// ImageURI names an image as a package URL: kind is "docker" for one that is at a
// registry, "oci" for one that only this machine has.
func ImageURI(kind string, named reference.Named, platform string) string {
	uri := "pkg:" + kind + "/" + reference.FamiliarName(named)
	if tagged, ok := named.(reference.Tagged); ok {
		uri += "@" + url.PathEscape(tagged.Tag())
	}
	q := "?"
	if canonical, ok := named.(reference.Canonical); ok {
		uri += "?digest=" + canonical.Digest().String()
		q = "&"
	}
	if platform != "" {
		uri += q + "platform=" + url.QueryEscape(platform)
	}
	return uri
}
