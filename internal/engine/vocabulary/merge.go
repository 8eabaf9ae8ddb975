package vocabulary

import (
	"slices"
	"strings"

	"berth/internal/image"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// Merge fills in from the image what the user left open. The user's config is
// changed; the image's is only read, and nothing of it is shared.
func Merge(user *container.Config, img *dockerspec.DockerOCIImageConfig) {
	if user.User == "" {
		user.User = img.User
	}
	if user.WorkingDir == "" {
		user.WorkingDir = img.WorkingDir
	}
	if user.StopSignal == "" {
		user.StopSignal = img.StopSignal
	}
	if len(user.Shell) == 0 {
		user.Shell = slices.Clone(img.Shell)
	}
	mergeCommand(user, img)
	mergeEnv(user, img.Env)
	user.Healthcheck = image.MergeHealth(user.Healthcheck, img.Healthcheck)
	if user.Labels == nil {
		user.Labels = make(map[string]string, len(img.Labels))
	}
	for k, v := range img.Labels {
		if _, set := user.Labels[k]; !set {
			user.Labels[k] = v
		}
	}
	for dst := range img.Volumes {
		if user.Volumes == nil {
			user.Volumes = make(map[string]struct{}, len(img.Volumes))
		}
		user.Volumes[dst] = struct{}{}
	}
	for p := range img.ExposedPorts {
		ports, err := network.ParsePortRange(p)
		if err != nil {
			continue // an image's mistake must not keep its containers from starting
		}
		if user.ExposedPorts == nil {
			user.ExposedPorts = make(network.PortSet, len(img.ExposedPorts))
		}
		for port := range ports.All() {
			user.ExposedPorts[port] = struct{}{}
		}
	}
}

// mergeCommand follows docker: a user's entrypoint also hides the image's
// command, and an entrypoint of one empty string means none.
func mergeCommand(user *container.Config, img *dockerspec.DockerOCIImageConfig) {
	if len(user.Entrypoint) == 0 {
		if len(user.Cmd) == 0 {
			user.Cmd = slices.Clone(img.Cmd)
			user.ArgsEscaped = img.ArgsEscaped //nolint:staticcheck // shown by inspect
		}
		if user.Entrypoint == nil {
			user.Entrypoint = slices.Clone(img.Entrypoint)
		}
	}
	if len(user.Entrypoint) == 1 && user.Entrypoint[0] == "" {
		user.Entrypoint = nil
	}
}

// mergeEnv adds the image's variables which the user did not set. A variable
// without "=" means: remove it.
func mergeEnv(user *container.Config, img []string) {
	for _, e := range img {
		key, _, _ := strings.Cut(e, "=")
		set := slices.ContainsFunc(user.Env, func(u string) bool {
			k, _, _ := strings.Cut(u, "=")
			return k == key
		})
		if !set && key != "" {
			user.Env = append(user.Env, e)
		}
	}
}
