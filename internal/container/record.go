// Package container holds what a container is: its record, the states it may be
// in and how it may pass from one to the next, its names, and who waits for it.
// It exists so that every use case sees one truth about a container and no use
// case invents a transition of its own. It does not start or stop anything.
//
// Locks. A Container has two: the operation lock (Lock), held by whoever changes
// what a container does (start, pause, rename, remove, the handling of its exit)
// for as long as that takes, and an internal mutex held for a few instructions
// around its fields. The Index has a mutex of its own. Order: operation lock
// first, then one of the short ones; the short ones are never held together, and
// nobody takes an operation lock while holding a short one.
package container

import (
	"slices"
	"time"

	"berth/internal/volume"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Record is all that is known about one container. A record is immutable once it
// was handed to Container.Set: whoever changes something changes a copy.
type Record struct {
	ID           string
	Name         string // without the slash
	Created      time.Time
	ImageRef     string        // as the user gave it
	ImageID      digest.Digest // config digest of the image at creation
	Platform     ocispec.Platform
	Layers       []digest.Digest // diff ids, base first: what the root is made of
	Path         string          // resolved command
	Args         []string
	Config       *container.Config                    // merged with the image's
	HostConfig   *container.HostConfig                // with defaults filled in
	Networks     map[string]*network.EndpointSettings `json:",omitempty"` // as requested, by network name
	Disconnected bool                                 `json:",omitempty"` // from the network that is always there and HostConfig.NetworkMode names
	Mounts       []volume.Mount                       `json:",omitempty"`
	Log          LogConfig
	State        State
}

// LogConfig is the resolved log configuration.
type LogConfig struct {
	Driver   string // json-file or none
	MaxSize  int64  // bytes; negative means unlimited
	MaxFiles int
	Attrs    map[string]string `json:",omitempty"` // written with each line: labels, env, tag
}

// State is the changing part of a record.
type State struct {
	Status     container.ContainerState
	Pid        int
	ExitCode   int
	Error      string `json:",omitempty"`
	OOMKilled  bool   `json:",omitempty"`
	StartedAt  time.Time
	FinishedAt time.Time
	// StartedUp is the start by Uptime, for as long as this process lives; 0 when it
	// is not known.
	StartedUp time.Duration `json:"-"`
	// Restarts counts starts by the restart policy since the last start by hand.
	Restarts int `json:",omitempty"`
	// Wanted is set by a start and cleared by a stop: what a boot finds wanted
	// and governed by a restart policy is started.
	Wanted bool `json:",omitempty"`
	// StoppedByHand is set by stop and kill: the restart policy leaves the
	// container alone until somebody starts it.
	StoppedByHand bool `json:",omitempty"`
	// Reviving is set while an unhealthy container is stopped in order to be
	// started again.
	Reviving bool `json:",omitempty"`
	// Note says what a user would want to know about the last stop.
	Note string `json:",omitempty"`
	// Boot is the boot in which StartedAt lies; a record which says running but
	// names another boot has ended with that boot.
	Boot string `json:",omitempty"`
	// Health is nil without a health check.
	Health *container.Health `json:",omitempty"`
	// Asked tells who wants it to end, from then on until the next start.
	Asked *Asked `json:",omitempty"`
	// Ends are the last ends and failed starts, the newest last.
	Ends []Ending `json:",omitempty"`
}

// Clone returns a copy whose State may be changed. Everything else is shared.
func (r *Record) Clone() *Record {
	c := *r
	return &c
}

// MountedLayers are the diff ids of the layers of images that are mounted beside
// the root.
func (r *Record) MountedLayers() []digest.Digest {
	var ids []digest.Digest
	for i := range r.Mounts {
		ids = append(ids, r.Mounts[i].Layers...)
	}
	return ids
}

// Images are the image that the root is made of and those that are mounted, each
// once.
func (r *Record) Images() []digest.Digest {
	ids := []digest.Digest{r.ImageID}
	for i := range r.Mounts {
		id := digest.Digest(r.Mounts[i].Source)
		if r.Mounts[i].Type == mount.TypeImage && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// Tty reports whether the container's process has a terminal.
func (r *Record) Tty() bool { return r.Config.Tty }

// OwnsNetwork reports whether the container has a network namespace of its own.
func (r *Record) OwnsNetwork() bool {
	m := r.HostConfig.NetworkMode
	return !m.IsContainer() && m != "host"
}
