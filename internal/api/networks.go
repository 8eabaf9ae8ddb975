package api

import (
	"context"
	"net/http"

	"berth/internal/engine"

	"github.com/moby/moby/api/types/network"
)

// networkEngine is what the network endpoints call.
type networkEngine interface {
	NetworkList(ctx context.Context, f engine.Filters) ([]network.Summary, error)
	NetworkInspect(ctx context.Context, ref string) (network.Inspect, error)
}

func listNetworks(x *exchange) error {
	f, err := engine.ParseFilters(x.query("filters"))
	if err != nil {
		return err
	}
	list, err := x.api.engine.NetworkList(x.ctx(), f)
	if err != nil {
		return err
	}
	if x.version.before(28) {
		// Up to then a list held everything that inspect shows.
		full := make([]network.Inspect, 0, len(list))
		for _, n := range list {
			if in, err := x.api.engine.NetworkInspect(x.ctx(), n.ID); err == nil {
				full = append(full, in)
			}
		}
		return x.reply(http.StatusOK, full)
	}
	if list == nil {
		list = []network.Summary{}
	}
	return x.reply(http.StatusOK, list)
}

func inspectNetwork(x *exchange) error {
	n, err := x.api.engine.NetworkInspect(x.ctx(), x.path("id"))
	if err != nil {
		return err
	}
	if x.version.before(52) {
		n.Status = nil
	}
	return x.reply(http.StatusOK, n)
}
