package client

import (
	"context"
	"net/url"
)

// PlanItem is one thing that a prune would remove or keep, and why.
type PlanItem struct {
	Kind   string // image, container, network, volume or build-cache
	ID     string
	Names  []string
	Size   int64 // bytes that come back, or that it takes and shares with nobody
	Reason string
}

// PruneReport is what a prune did, or with a dry run what it would do.
type PruneReport struct {
	ContainersDeleted []string
	NetworksDeleted   []string
	VolumesDeleted    []string
	ImagesDeleted     []DeleteResponse
	CachesDeleted     []string
	SpaceReclaimed    uint64 // bytes
	DryRun            bool
	Remove, Keep      []PlanItem // of a dry run alone
}

// Prune removes what nothing uses: kind is containers, images, networks or
// volumes.
func (c *Client) Prune(ctx context.Context, kind string, filters Filters, dryRun bool) (PruneReport, error) {
	q := url.Values{}
	filters.query(q)
	setFlag(q, "dryRun", dryRun)
	return fetch[PruneReport](ctx, c, "POST", "/"+kind+"/prune", q, nil)
}
