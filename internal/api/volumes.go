package api

import (
	"context"
	"net/http"

	"berth/internal/engine"
	"berth/internal/engine/filter"

	"github.com/moby/moby/api/types/volume"
)

// volumeEngine is what the volume endpoints call.
type volumeEngine interface {
	VolumeList(ctx context.Context, f filter.Set) ([]volume.Volume, error)
	VolumeInspect(ctx context.Context, name string) (volume.Volume, error)
	VolumeCreate(ctx context.Context, req volume.CreateRequest) (volume.Volume, error)
	VolumeRemove(ctx context.Context, name string, force bool) error
	VolumePrune(ctx context.Context, f filter.Set) (engine.VolumePruneReport, error)
}

func listVolumes(x *exchange) error {
	f, err := filter.Parse(x.query("filters"))
	if err != nil {
		return err
	}
	list, err := x.api.engine.VolumeList(x.ctx(), f)
	if err != nil {
		return err
	}
	if list == nil {
		list = []volume.Volume{}
	}
	return x.reply(http.StatusOK, volume.ListResponse{Volumes: list, Warnings: []string{}})
}

func inspectVolume(x *exchange) error {
	v, err := x.api.engine.VolumeInspect(x.ctx(), x.path("name"))
	if err != nil {
		return err
	}
	return x.reply(http.StatusOK, v)
}

func createVolume(x *exchange) error {
	var req volume.CreateRequest
	if err := x.decode(&req); err != nil {
		return err
	}
	v, err := x.api.engine.VolumeCreate(x.ctx(), req)
	if err != nil {
		return err
	}
	return x.reply(http.StatusCreated, v)
}

func removeVolume(x *exchange) error {
	if err := x.api.engine.VolumeRemove(x.ctx(), x.path("name"), x.flag("force")); err != nil {
		return err
	}
	return x.done(http.StatusNoContent)
}

type prunedVolumes struct {
	VolumesDeleted []string
	SpaceReclaimed uint64
}

func pruneVolumes(x *exchange) error {
	f, err := x.pruneFilters()
	if err != nil {
		return err
	}
	if x.version.before(42) {
		// Up to then named volumes went, too.
		if f == nil {
			f = filter.Set{}
		}
		f["all"] = map[string]bool{"true": true}
	}
	r, err := x.api.engine.VolumePrune(x.ctx(), f)
	if err != nil {
		return err
	}
	return x.reply(http.StatusOK, prunedVolumes{r.VolumesDeleted, r.SpaceReclaimed})
}
