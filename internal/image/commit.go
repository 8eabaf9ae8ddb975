package image

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
	"berth/internal/layer"
)

// CommitOptions describes the image that Commit makes of a container.
type CommitOptions struct {
	Hold   *layer.Hold   // holds Layer; the caller releases it through Release
	Parent digest.Digest // the image the container was made from, "" for none
	// Layer is what the container changed. One without an entry makes an image
	// with the parent's layers and a step in its history, as docker does.
	Layer layer.Layer
	// Container is the container's own configuration: what the image does not
	// get from Config and Changes it has from there. Its Cmd, in words, is what
	// the history shows as the step.
	Container v1.DockerOCIImageConfig
	Config    *v1.DockerOCIImageConfig // what the request gives, may be nil
	Changes   []string                 // Dockerfile instructions, applied to Config
	Author    string
	Comment   string
	Platform  *ocispec.Platform // without a parent: nil means this machine's
	Ref       string            // name to give, may be ""
}

// Commit makes an image of what a container changed. The parent's history is
// continued and the parent recorded, as docker does.
func (s *Store) Commit(ctx context.Context, o CommitOptions) (*Image, error) {
	const op = "commit container"
	var reg Registration
	if o.Ref != "" {
		tag, err := tagToGive(op, o.Ref)
		if err != nil {
			return nil, err
		}
		reg.Tags = append(reg.Tags, tag)
	}
	child, err := s.child(ctx, o)
	if err != nil {
		return nil, fault.Wrap(op, o.Ref, err)
	}
	if reg.Config, err = json.Marshal(child); err != nil {
		return nil, fault.Wrap(op, o.Ref, err)
	}
	reg.Parent = o.Parent
	images, err := s.Register(ctx, o.Hold, []Registration{reg}, nil)
	if err != nil {
		return nil, fault.Wrap(op, o.Ref, err)
	}
	return images[0], nil
}

// tagToGive parses a name for an image that is about to be made.
func tagToGive(op, ref string) (reference.NamedTagged, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, badName(ref, err)
	}
	tagged, ok := reference.TagNameOnly(named).(reference.NamedTagged)
	if _, digested := named.(reference.Digested); !ok || digested {
		return nil, fault.New(fault.Invalid, op, quoteShort(ref), "cannot create a tag from a digest reference")
	}
	return tagged, nil
}

// child is the config of the new image.
func (s *Store) child(ctx context.Context, o CommitOptions) (*v1.DockerOCIImage, error) {
	child := &v1.DockerOCIImage{}
	platform := HostPlatform()
	if o.Platform != nil {
		platform = *o.Platform
	}
	child.Platform = platform
	child.RootFS.Type = "layers"
	if o.Parent != "" {
		parent, err := s.Get(ctx, o.Parent.String())
		if err != nil {
			return nil, err
		}
		p := parent.Config
		child.Platform = p.Platform
		child.RootFS.DiffIDs = slices.Clone(p.RootFS.DiffIDs)
		child.History = slices.Clone(p.History)
	}
	empty := o.Layer.Entries == 0
	if !empty {
		child.RootFS.DiffIDs = append(child.RootFS.DiffIDs, o.Layer.DiffID)
	}
	request := v1.DockerOCIImageConfig{}
	if o.Config != nil {
		request = *o.Config
	}
	config, err := ApplyChanges(request, o.Changes)
	if err != nil {
		return nil, err
	}
	child.Config = mergeConfig(config, o.Container)
	child.Created, child.Author = created(), o.Author
	child.History = append(child.History, ocispec.History{
		Created: child.Created, Author: o.Author, Comment: o.Comment, EmptyLayer: empty,
		CreatedBy: strings.Join(o.Container.Cmd, " "),
	})
	return child, nil
}

// mergeConfig completes what a request says with what the container has, as
// docker does: ONBUILD and SHELL are not taken over.
func mergeConfig(c, from v1.DockerOCIImageConfig) v1.DockerOCIImageConfig {
	set := func(to *string, value string) {
		if *to == "" {
			*to = value
		}
	}
	set(&c.User, from.User)
	set(&c.WorkingDir, from.WorkingDir)
	set(&c.StopSignal, from.StopSignal)
	c.ExposedPorts = union(c.ExposedPorts, from.ExposedPorts)
	c.Volumes = union(c.Volumes, from.Volumes)
	c.Labels = union(c.Labels, from.Labels)
	c.Env = slices.Clone(c.Env)
	for _, e := range from.Env {
		name, _, _ := strings.Cut(e, "=")
		same := func(have string) bool { n, _, _ := strings.Cut(have, "="); return n == name }
		if !slices.ContainsFunc(c.Env, same) {
			c.Env = append(c.Env, e)
		}
	}
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = from.Cmd
		}
		if c.Entrypoint == nil {
			c.Entrypoint = from.Entrypoint
		}
	}
	c.Healthcheck = MergeHealth(c.Healthcheck, from.Healthcheck)
	return c
}

// union adds the entries of more that m has not.
func union[V any](m, more map[string]V) map[string]V {
	if len(more) == 0 {
		return m
	}
	out := maps.Clone(more)
	maps.Copy(out, m)
	return out
}

// MergeHealth returns h with what it leaves open taken from another, as docker
// does when a container is made of an image. Either may be nil, and neither is
// changed or shared.
func MergeHealth(h, from *v1.HealthcheckConfig) *v1.HealthcheckConfig {
	if h == nil && from == nil {
		return nil
	}
	var m v1.HealthcheckConfig
	if h != nil {
		m = *h
	}
	if from == nil {
		from = &v1.HealthcheckConfig{}
	}
	if len(m.Test) == 0 {
		m.Test = from.Test
	}
	m.Test = slices.Clone(m.Test)
	if m.Interval == 0 {
		m.Interval = from.Interval
	}
	if m.Timeout == 0 {
		m.Timeout = from.Timeout
	}
	if m.StartPeriod == 0 {
		m.StartPeriod = from.StartPeriod
	}
	if m.StartInterval == 0 {
		m.StartInterval = from.StartInterval
	}
	if m.Retries == 0 {
		m.Retries = from.Retries
	}
	return &m
}
