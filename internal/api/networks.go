package api

import (
	"context"
	"net/http"
	"strconv"

	"berth/internal/engine/filter"
	"berth/internal/engine/networks"
	"berth/internal/fault"

	"github.com/moby/moby/api/types/network"
)

// networkEngine is what the network endpoints call.
type networkEngine interface {
	NetworkList(ctx context.Context, f filter.Set) ([]network.Summary, error)
	NetworkInspect(ctx context.Context, ref string) (network.Inspect, error)
	NetworkCreate(ctx context.Context, req network.CreateRequest) (network.CreateResponse, error)
	NetworkRemove(ctx context.Context, ref string) error
	NetworkConnect(ctx context.Context, ref string, req network.ConnectRequest) error
	NetworkDisconnect(ctx context.Context, ref string, req network.DisconnectRequest) error
	NetworkPrune(ctx context.Context, f filter.Set) (networks.PruneReport, error)
}

func listNetworks(x *exchange) error {
	f, err := filter.Parse(x.query("filters"))
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
	if v := x.query("verbose"); v != "" { // what it adds is about swarms
		if _, err := strconv.ParseBool(v); err != nil {
			return fault.New(fault.Invalid, "", "", "invalid value for verbose: %s", v)
		}
	}
	n, err := x.api.engine.NetworkInspect(x.ctx(), x.path("id"))
	if err != nil {
		return err
	}
	if scope := x.query("scope"); scope != "" && scope != n.Scope {
		return fault.New(fault.NotFound, "", "", "network %s not found", x.path("id"))
	}
	if x.version.before(52) {
		n.Status = nil
	}
	return x.reply(http.StatusOK, n)
}

// networkCreate is the request to create a network; CheckDuplicate was always
// true in effect and is sent by clients still.
type networkCreate struct {
	network.CreateRequest
	CheckDuplicate bool
}

func createNetwork(x *exchange) error {
	var req networkCreate
	if err := x.decode(&req); err != nil {
		return err
	}
	answer, err := x.api.engine.NetworkCreate(x.ctx(), req.CreateRequest)
	if err != nil {
		return err
	}
	return x.reply(http.StatusCreated, answer)
}

func removeNetwork(x *exchange) error {
	if err := x.api.engine.NetworkRemove(x.ctx(), x.path("id")); err != nil {
		return err
	}
	return x.done(http.StatusNoContent)
}

func connectNetwork(x *exchange) error {
	var req network.ConnectRequest
	if err := x.decode(&req); err != nil {
		return err
	}
	if err := x.api.engine.NetworkConnect(x.ctx(), x.path("id"), req); err != nil {
		return err
	}
	return x.done(http.StatusOK)
}

func disconnectNetwork(x *exchange) error {
	var req network.DisconnectRequest
	if err := x.decode(&req); err != nil {
		return err
	}
	if err := x.api.engine.NetworkDisconnect(x.ctx(), x.path("id"), req); err != nil {
		return err
	}
	return x.done(http.StatusOK)
}

type prunedNetworks struct{ NetworksDeleted []string }

func pruneNetworks(x *exchange) error {
	f, err := x.pruneFilters()
	if err != nil {
		return err
	}
	r, err := x.api.engine.NetworkPrune(x.ctx(), f)
	if err != nil {
		return err
	}
	return x.reply(http.StatusOK, prunedNetworks{r.NetworksDeleted})
}
