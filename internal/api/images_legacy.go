package api

import (
	"time"

	"berth/internal/engine/images"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
)

// legacySummary is an entry of the image list before 1.44.
type legacySummary struct {
	image.Summary
	VirtualSize int64
}

func withVirtualSize(list []image.Summary) []legacySummary {
	out := make([]legacySummary, len(list))
	for i, s := range list {
		out[i] = legacySummary{s, s.Size}
	}
	return out
}

// legacyImage is the answer of image inspect before 1.52: nothing was left out
// for being empty, and clients index it blindly (docker-compose 1.29 reads
// ContainerConfig.Volumes).
type legacyImage struct {
	image.InspectResponse
	Parent          string
	Comment         string
	Created         string `json:",omitempty"`
	DockerVersion   string
	Author          string
	Config          any     // a *legacyImageConfig, a *wholeImageConfig from 1.50 on
	Container       *string `json:",omitempty"`
	ContainerConfig *legacyImageConfig
	VirtualSize     *int64 `json:",omitempty"`
}

type legacyImageConfig struct {
	container.Config
	OnBuild []string
}

// wholeImageConfig is what 1.50 and 1.51 say of an image's configuration: what
// only containers have is gone, the rest is there also when it is empty.
type wholeImageConfig struct {
	dockerspec.DockerOCIImageConfig
	User       string
	Env        []string
	Cmd        []string
	Entrypoint []string
	Volumes    map[string]struct{}
	WorkingDir string
	Labels     map[string]string
	OnBuild    []string
}

// imageNow is the answer from 1.52 on. docker-compose 1.29 asks in the newest version
// that there is, and cannot recreate a container without what docker dropped in 1.45.
type imageNow struct {
	image.InspectResponse
	ContainerConfig *legacyImageConfig
}

func imageBefore52(v apiVersion, img images.Inspection) legacyImage {
	out := legacyImage{InspectResponse: img.InspectResponse, Parent: img.Parent, Comment: img.Comment, Created: img.Created, Author: img.Author, Config: imageConfig(img.Config)}
	if !v.before(50) {
		out.Config = wholeConfig(img.Config)
	}
	out.ContainerConfig = imageConfig(img.Config)
	if v.before(45) {
		out.Container = new(string)
	}
	if v.before(44) {
		out.VirtualSize = &img.Size
		if out.Created == "" {
			out.Created = time.Time{}.Format(time.RFC3339Nano)
		}
	}
	return out
}

// imageConfig writes an image's configuration in the shape of a container's.
func imageConfig(c *dockerspec.DockerOCIImageConfig) *legacyImageConfig {
	out := &legacyImageConfig{}
	if c == nil {
		return out
	}
	out.User, out.Env, out.Cmd, out.Entrypoint = c.User, c.Env, c.Cmd, c.Entrypoint
	out.Volumes, out.WorkingDir, out.Labels, out.StopSignal = c.Volumes, c.WorkingDir, c.Labels, c.StopSignal
	out.ArgsEscaped = c.ArgsEscaped //nolint:staticcheck // Windows images still carry it
	out.OnBuild, out.Healthcheck, out.Shell = c.OnBuild, c.Healthcheck, c.Shell
	out.ExposedPorts = exposedPorts(c.ExposedPorts)
	return out
}

func wholeConfig(c *dockerspec.DockerOCIImageConfig) *wholeImageConfig {
	if c == nil {
		return &wholeImageConfig{}
	}
	return &wholeImageConfig{DockerOCIImageConfig: *c, User: c.User, Env: c.Env, Cmd: c.Cmd, Entrypoint: c.Entrypoint,
		Volumes: c.Volumes, WorkingDir: c.WorkingDir, Labels: c.Labels, OnBuild: c.OnBuild}
}

// exposedPorts reads the ports of an image; what is not a port was never
// published either and is left out.
func exposedPorts(in map[string]struct{}) network.PortSet {
	out := make(network.PortSet, len(in))
	for s := range in {
		if p, err := network.ParsePort(s); err == nil {
			out[p] = struct{}{}
		}
	}
	return out
}
