package api

import (
	"context"
	"net/http"

	"berth/internal/engine"
	"berth/internal/engine/filter"
	"berth/internal/engine/measure"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
)

// usageEngine is what the endpoints call that measure and clean up.
type usageEngine interface {
	DiskUsage(ctx context.Context, o engine.DiskUsageOptions) (engine.DiskUsageReport, error)
	ContainerPrune(ctx context.Context, f filter.Set) (engine.ContainerPruneReport, error)
}

// legacyUsage is the answer before 1.52.
type legacyUsage struct {
	LayersSize  int64
	Images      any // of image.Summary
	Containers  []container.Summary
	Volumes     []volume.Volume
	BuildCache  []build.CacheRecord
	BuilderSize *int64          `json:",omitempty"` // before 1.42
	Owners      []measure.Owned `json:",omitempty"`
}

// currentUsage is the answer since then.
type currentUsage struct {
	system.DiskUsage
	Owners []measure.Owned `json:",omitempty"`
}

// bothUsage serves clients of 1.52 that did not say which of the two they want.
type bothUsage struct {
	legacyUsage
	system.DiskUsage
}

func diskUsage(x *exchange) error {
	o := engine.DiskUsageOptions{Owners: x.flag("owners")}
	if !x.version.before(42) {
		o.Types = x.queries("type")
	}
	u, err := x.api.engine.DiskUsage(x.ctx(), o)
	if err != nil {
		return err
	}
	if len(o.Types) == 0 && u.BuildCacheUsage == nil {
		u.BuildCacheUsage = &build.DiskUsage{}
	}
	legacy := legacyUsage{LayersSize: u.LayersSize, BuildCache: []build.CacheRecord{}, Owners: u.Owners}
	if u.ImageUsage != nil {
		legacy.Images = listedImages(x.version, u.ImageUsage.Items)
	}
	if u.ContainerUsage != nil {
		legacy.Containers = u.ContainerUsage.Items
		for i := range legacy.Containers {
			adaptListed(x.version, &legacy.Containers[i])
		}
	}
	if u.VolumeUsage != nil {
		legacy.Volumes = u.VolumeUsage.Items
	}
	if u.BuildCacheUsage != nil && u.BuildCacheUsage.Items != nil {
		legacy.BuildCache = u.BuildCacheUsage.Items
	}
	if x.version.before(42) {
		legacy.BuilderSize = new(int64)
		if u.BuildCacheUsage != nil {
			*legacy.BuilderSize = u.BuildCacheUsage.TotalSize
		}
	}
	if x.version.before(52) {
		return x.reply(http.StatusOK, legacy)
	}
	verbose := x.flag("verbose")
	if !verbose {
		shorten(&u.DiskUsage)
	}
	if !verbose && x.version.before(53) {
		return x.reply(http.StatusOK, bothUsage{legacy, u.DiskUsage})
	}
	return x.reply(http.StatusOK, currentUsage{u.DiskUsage, u.Owners})
}

// shorten leaves the items out, which only a verbose answer has.
func shorten(u *system.DiskUsage) {
	if u.ImageUsage != nil {
		u.ImageUsage.Items = nil
	}
	if u.ContainerUsage != nil {
		u.ContainerUsage.Items = nil
	}
	if u.VolumeUsage != nil {
		u.VolumeUsage.Items = nil
	}
	if u.BuildCacheUsage != nil {
		u.BuildCacheUsage.Items = nil
	}
}

type prunedContainers struct {
	ContainersDeleted []string
	SpaceReclaimed    uint64
}

func pruneContainers(x *exchange) error {
	f, err := x.pruneFilters()
	if err != nil {
		return err
	}
	r, err := x.api.engine.ContainerPrune(x.ctx(), f)
	if err != nil {
		return err
	}
	return x.reply(http.StatusOK, prunedContainers{r.ContainersDeleted, r.SpaceReclaimed})
}
