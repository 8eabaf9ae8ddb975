package images

import (
	"context"

	"berth/internal/container"
	"berth/internal/image"
	"berth/internal/layer"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	api "github.com/moby/moby/api/types/container"
)

// CommitOptions describe an image made of a container.
type CommitOptions struct {
	Container string      // id or name
	Ref       string      // name for the new image; may be empty
	Comment   string      // in its history
	Author    string      //
	Changes   []string    // Dockerfile instructions applied to its config
	Pause     bool        // freeze a running container meanwhile
	Config    *api.Config // goes before the container's own; may be nil
}

// Check refuses what no image can be made with, before gigabytes are read for it, and
// returns what the new image will be called, "" for nothing.
func (o *CommitOptions) Check() (ref string, err error) {
	if o.Ref != "" {
		named, err := image.ParseName(o.Ref)
		if err != nil {
			return "", err
		}
		ref = reference.FamiliarString(named)
	}
	_, err = image.ApplyChanges(dockerspec.DockerOCIImageConfig{}, o.Changes)
	return ref, err
}

// Commit makes an image of a container and a layer of what it changed, both held, and
// calls it ref unless that is empty.
func (s *Stock) Commit(ctx context.Context, rec *container.Record, hold *layer.Hold, changed layer.Layer, o CommitOptions, ref string) (*image.Image, error) {
	in := image.CommitOptions{
		Hold: hold, Layer: changed, Container: imageConfig(rec.Config), Changes: o.Changes,
		Author: o.Author, Comment: o.Comment, Platform: &rec.Platform, Ref: ref,
	}
	if o.Config != nil {
		config := imageConfig(o.Config)
		in.Config = &config
	}
	in.Container.Cmd = append([]string{rec.Path}, rec.Args...)[len(rec.Config.Entrypoint):]
	if img, err := s.Images.Get(ctx, rec.ImageID.String()); err == nil && img.ID == rec.ImageID {
		in.Parent = rec.ImageID
	}
	return s.Images.Commit(ctx, in)
}

// imageConfig is the part of a container's configuration that images have.
func imageConfig(c *api.Config) dockerspec.DockerOCIImageConfig {
	out := dockerspec.DockerOCIImageConfig{}
	out.User, out.Env, out.Entrypoint, out.Cmd = c.User, c.Env, c.Entrypoint, c.Cmd
	out.Volumes, out.WorkingDir, out.Labels, out.StopSignal = c.Volumes, c.WorkingDir, c.Labels, c.StopSignal
	out.ArgsEscaped = c.ArgsEscaped //nolint:staticcheck // Windows images still carry it
	out.Healthcheck, out.OnBuild, out.Shell = c.Healthcheck, c.OnBuild, c.Shell
	if len(c.ExposedPorts) > 0 {
		out.ExposedPorts = make(map[string]struct{}, len(c.ExposedPorts))
		for p := range c.ExposedPorts {
			out.ExposedPorts[p.String()] = struct{}{}
		}
	}
	return out
}
