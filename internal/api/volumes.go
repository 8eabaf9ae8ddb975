package api

import (
	"context"
	"net/http"

	"berth/internal/engine"
	"berth/internal/engine/filter"
	"berth/internal/engine/reclaim"

	"github.com/moby/moby/api/types/volume"
)

// volumeEngine is what the volume endpoints call.
type volumeEngine interface {
	VolumeList(ctx context.Context, f filter.Set) ([]volume.Volume, error)
	VolumeInspect(ctx context.Context, name string) (volume.Volume, error)
	VolumeCreate(ctx context.Context, req volume.CreateRequest) (volume.Volume, error)
	VolumeRemove(ctx context.Context, name string, force bool) error
	VolumePrune(ctx context.Context, f filter.Set, dryRun bool) (engine.VolumePruneReport, error)
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

// plan is what a dry run of a prune adds to its answer.
type plan struct {
	DryRun bool           `json:",omitempty"`
	Remove []reclaim.Item `json:",omitempty"`
	Keep   []reclaim.Item `json:",omitempty"`
}

func planOf(dryRun bool, p reclaim.Plan) plan {
	if !dryRun {
		return plan{}
	}
	return plan{true, p.Remove, p.Keep}
}

type prunedVolumes struct {
	VolumesDeleted []string
	SpaceReclaimed uint64
	plan
}

// pruneVolumes removes unused volumes. With dryRun it removes nothing and answers
// with the plan.
func pruneVolumes(x *exchange) error {
	f, err := filter.Parse(x.query("filters"))
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
	r, err := x.api.engine.VolumePrune(x.ctx(), f, x.flag("dryRun"))
	if err != nil {
		return err
	}
	return x.reply(http.StatusOK, prunedVolumes{r.VolumesDeleted, r.SpaceReclaimed, planOf(x.flag("dryRun"), r.Plan)})
}
