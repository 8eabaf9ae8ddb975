package build

import (
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/json"
	"io"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/build/graph"
	"berth/internal/build/provenance"
	"berth/internal/build/solve"
	"berth/internal/fault"
	"berth/internal/image"
)

// parseAttests reads type=KIND,NAME=VALUE,... as buildx has it. Provenance is the
// one kind there is; nil is none.
func parseAttests(list []string) (*provenance.Options, error) {
	var out *provenance.Options
	for _, text := range list {
		bad := func(format string, args ...any) error {
			return fault.New(fault.Invalid, "read attestation", text, format, args...).
				WithHint("write type=provenance,mode=min or type=provenance,mode=max")
		}
		parts, err := csv.NewReader(strings.NewReader(text)).Read()
		if err != nil {
			return nil, bad("it is not NAME=VALUE[,NAME=VALUE...]")
		}
		fields := map[string]string{}
		for _, part := range parts {
			key, value, ok := strings.Cut(part, "=")
			if !ok {
				return nil, bad("%q has no value", part)
			}
			fields[key] = value
		}
		switch kind := fields["type"]; kind {
		case "provenance":
		case "sbom":
			if off, err := strconv.ParseBool(fields["disabled"]); err == nil && off {
				continue
			}
			return nil, fault.New(fault.Unsupported, "attest", kind, "a list of an image's packages is made by a scanner, and berth has none").
				WithHint("scan the image when it is built, for example with syft, and attach the result at the registry")
		default:
			return nil, bad("%q is no type of attestation", kind)
		}
		delete(fields, "type")
		if out, err = readProvenance(fields, bad); err != nil {
			return nil, fault.Wrap("read attestation", text, err)
		}
	}
	return out, nil
}

// readProvenance reads the fields of an attestation; nil is one that is turned off.
func readProvenance(fields map[string]string, bad func(format string, args ...any) error) (*provenance.Options, error) {
	o, disabled := &provenance.Options{}, false
	for key, value := range fields {
		var err error
		switch key {
		case "mode":
			if o.Min = value == "min"; value != "min" && value != "max" {
				err = bad("its mode %q is neither min nor max", value)
			}
		case "version":
			if o.V02 = value == "v0.2"; value != "v0.2" && value != "v1" {
				err = bad("its version %q is neither v1 nor v0.2", value)
			}
		case "builder-id":
			o.Builder = value
		case "reproducible":
			o.Reproducible, err = strconv.ParseBool(value)
		case "disabled":
			disabled, err = strconv.ParseBool(value)
		case "inline-only": // with images alone, which is always so
			_, err = strconv.ParseBool(value)
		default:
			err = bad("%q is unknown", key)
		}
		if err != nil {
			return nil, err
		}
	}
	if disabled {
		return nil, nil
	}
	return o, nil
}

// attest adds to an index what is to be said about its images, one document for
// each, and returns everything that belongs to those documents.
func (o *one) attest(ctx context.Context, x *ocispec.Index, graphs []*graph.Graph, solved *solve.Solved) ([][]byte, error) {
	if o.provenance == nil {
		return nil, nil
	}
	var documents [][]byte
	for i, m := range slices.Clone(x.Manifests) {
		statement, kind, err := o.madeOf(ctx, graphs[i], solved, o.platforms[i]).Statement(*o.provenance, m.Digest, o.tags)
		if err != nil {
			return nil, fault.Wrap("write provenance", "", err)
		}
		blob := describe(provenance.MediaType, statement)
		blob.Annotations = map[string]string{provenance.PredicateType: kind}
		about := ocispec.Platform{OS: "unknown", Architecture: "unknown"}
		config, err := json.Marshal(ocispec.Image{Platform: about, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{blob.Digest}}})
		if err != nil {
			return nil, fault.Wrap("write provenance", "", err)
		}
		manifest := ocispec.Manifest{
			MediaType: ocispec.MediaTypeImageManifest, Config: describe(ocispec.MediaTypeImageConfig, config), Layers: []ocispec.Descriptor{blob},
		}
		manifest.SchemaVersion = 2
		raw, err := json.Marshal(manifest)
		if err != nil {
			return nil, fault.Wrap("write provenance", "", err)
		}
		d := describe(ocispec.MediaTypeImageManifest, raw)
		d.Platform = &about
		d.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": m.Digest.String()}
		x.Manifests = append(x.Manifests, d)
		documents = append(documents, raw, config, statement)
	}
	return documents, nil
}

// madeOf gathers what is known about the build for one platform.
func (o *one) madeOf(ctx context.Context, g *graph.Graph, solved *solve.Solved, platform ocispec.Platform) *provenance.Build {
	r := o.req
	b := &provenance.Build{
		ID: o.rec.ID, Started: o.rec.Started, Finished: time.Now(), File: o.file, Text: o.text, Args: map[string]string{},
		Machine: image.FormatPlatform(image.HostPlatform()), Platform: image.FormatPlatform(platform),
	}
	for k, v := range r.Args {
		b.Args["build-arg:"+k] = v
	}
	for k, v := range r.Labels {
		b.Args["label:"+k] = v
	}
	if r.Target != "" {
		b.Args["target"] = r.Target
	}
	if r.Remote != "" {
		b.Source.URI = redacted(r.Remote)
		if commit := o.contexts[MainContext].Commit; commit != "" {
			b.Source.Digest = commitSum(commit)
			b.Materials = append(b.Materials, b.Source)
		} else {
			b.Locals = append(b.Locals, MainContext) // a file of the web, of which no digest was kept
		}
	}
	for _, n := range g.Nodes {
		o.used(ctx, b, n, solved)
	}
	return b
}

// used adds what one step used.
func (o *one) used(ctx context.Context, b *provenance.Build, n *graph.Node, solved *solve.Solved) {
	add := func(m provenance.Material) {
		if !slices.ContainsFunc(b.Materials, func(other provenance.Material) bool { return other.URI == m.URI }) {
			b.Materials = append(b.Materials, m)
		}
	}
	switch op := n.Op.(type) {
	case *graph.Source:
		add(o.base(ctx, op, n.Platform))
	case *graph.Git:
		m := provenance.Material{URI: redacted(op.Remote)}
		if op.Ref != "" {
			m.URI += "#" + op.Ref
		}
		if commit := solved.Commits[n]; commit != "" {
			m.Digest = commitSum(commit)
		}
		add(m)
	case *graph.HTTP:
		m := provenance.Material{URI: redacted(op.URL)}
		if d := o.fetched(op, solved.Layers[n]); d != "" {
			m.Digest = provenance.Sum(d)
		}
		add(m)
	case *graph.Local:
		if name := op.Name; !slices.Contains(b.Locals, name) && (name != MainContext || o.req.Remote == "") {
			b.Locals = append(b.Locals, name)
		}
	case *graph.Exec:
		b.Network = b.Network || op.Network != "none"
		for _, m := range op.Mounts {
			s := provenance.Secret{ID: m.ID, Optional: !m.Required}
			switch {
			case m.Kind == graph.Secret && !slices.Contains(b.Secrets, s):
				b.Secrets = append(b.Secrets, s)
			case m.Kind == graph.SSH && !slices.Contains(b.SSH, s):
				b.SSH = append(b.SSH, s)
			}
		}
	}
}

// base describes a base image: by the digest that it has at its registry, or by
// its id if it came from none.
func (o *one) base(ctx context.Context, op *graph.Source, platform ocispec.Platform) provenance.Material {
	named, err := reference.ParseNormalizedNamed(op.Ref)
	if err != nil {
		return provenance.Material{URI: "pkg:oci/" + op.ID.String(), Digest: provenance.Sum(op.ID)}
	}
	named = reference.TagNameOnly(named)
	if img, err := o.b.o.Images.Get(ctx, op.ID.String()); err == nil {
		for _, at := range img.RepoDigests {
			other, err := reference.ParseNormalizedNamed(at)
			canonical, ok := other.(reference.Canonical)
			if err == nil && ok && other.Name() == named.Name() {
				return provenance.Material{URI: provenance.ImageURI("docker", named, image.FormatPlatform(platform)), Digest: provenance.Sum(canonical.Digest())}
			}
		}
	}
	return provenance.Material{URI: provenance.ImageURI("oci", named, image.FormatPlatform(platform)), Digest: provenance.Sum(op.ID)}
}

// fetched returns the digest of a file that came from the web, "" if it is not
// here to be looked at.
func (o *one) fetched(op *graph.HTTP, layers []digest.Digest) (d digest.Digest) {
	if op.Checksum != "" {
		return op.Checksum
	}
	_ = o.b.mounted(layers, func(root string) error {
		dir, err := os.OpenRoot(root)
		if err != nil {
			return err
		}
		defer dir.Close()
		f, err := dir.Open(op.Filename)
		if err != nil {
			return err
		}
		defer f.Close()
		sum := sha256.New()
		if _, err := io.Copy(sum, f); err != nil {
			return err
		}
		d = digest.NewDigest(digest.SHA256, sum)
		return nil
	})
	return d
}

// commitSum is a commit as these documents write it.
func commitSum(commit string) map[string]string {
	if len(commit) == 64 {
		return map[string]string{"sha256": commit}
	}
	return map[string]string{"sha1": commit}
}

// redacted is an address without who asks, and the password, that may be in it.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return address // of the form user@host:path, which has no password
	}
	u.User = nil
	return u.String()
}
