package api

import (
	"context"
	"net/http"

	"berth/internal/engine/filter"
	"berth/internal/engine/reclaim"
	"berth/internal/fault"
	"berth/internal/wire"
)

// planEngine is what the endpoint calls that plans removals.
type planEngine interface {
	Plan(ctx context.Context, req wire.PlanRequest) (*reclaim.Ahead, error)
}

// planRemovals answers what removals would do.
func planRemovals(x *exchange) error {
	var req wire.PlanRequest
	body, err := x.readBody()
	if err != nil {
		return err
	}
	if err := decodeStrict(body, &req); err != nil {
		return err
	}
	a, err := x.api.engine.Plan(x.ctx(), req)
	if err != nil {
		return err
	}
	plan := wire.Plan{Remove: a.Remove, Keep: a.Keep, SpaceReclaimed: a.Freed}
	for _, r := range a.Refused {
		plan.Refused = append(plan.Refused, wire.PlanRefusal{Ref: r.Ref, Status: statusOf(fault.KindOf(r.Err)), Message: r.Err.Error()})
	}
	return x.reply(http.StatusOK, plan)
}

// pruneFilters reads the filters of a prune. Who asks it for a dry run means nothing to
// go, so that is refused where it would not be heard.
func (x *exchange) pruneFilters() (filter.Set, error) {
	if x.flag("dryRun") {
		return nil, fault.New(fault.Invalid, "", "", "a prune has no dry run").WithHint("ask POST /berth/plan what it would do")
	}
	return filter.Parse(x.query("filters"))
}
