package client

import (
	"context"
	"net/url"

	"berth/internal/wire"
)

// PruneReport is what a prune did.
type PruneReport struct {
	ContainersDeleted []string
	NetworksDeleted   []string
	VolumesDeleted    []string
	ImagesDeleted     []DeleteResponse
	CachesDeleted     []string
	SpaceReclaimed    uint64 // bytes
}

// Prune removes what nothing uses: kind is containers, images, networks or
// volumes.
func (c *Client) Prune(ctx context.Context, kind string, filters Filters) (PruneReport, error) {
	q := url.Values{}
	filters.query(q)
	return fetch[PruneReport](ctx, c, "POST", "/"+kind+"/prune", q, nil)
}

// Plan asks what removals would do. Only berth's engine can say so: from another comes
// a refusal with status 404.
func (c *Client) Plan(ctx context.Context, req wire.PlanRequest) (wire.Plan, error) {
	return fetch[wire.Plan](ctx, c, "POST", "/berth/plan", nil, req)
}
