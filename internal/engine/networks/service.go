package networks

import (
	"context"
	"slices"
	"strings"

	"berth/internal/container"
	"berth/internal/engine/filter"
	"berth/internal/engine/reclaim"
	"berth/internal/fault"
	"berth/internal/metadata"
	"berth/internal/wire"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
)

// Service answers what is asked about networks.
type Service struct{ set *Set }

// NewService returns the use cases of a set of networks.
func NewService(set *Set) *Service { return &Service{set} }

// NetworkList returns the networks that match.
func (x *Service) NetworkList(_ context.Context, f filter.Set) ([]network.Summary, error) {
	if err := f.Check("dangling", "driver", "id", "label", "name", "scope", "type"); err != nil {
		return nil, err
	}
	dangling, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	for _, v := range f.Get("type") {
		if v != "builtin" && v != "custom" {
			return nil, fault.New(fault.Invalid, "", "", "invalid filter: 'type'='%s'", v)
		}
	}
	out := []network.Summary{}
	for _, r := range x.set.all() {
		own := userDefined(r.Name)
		typed := !f.Has("type") || own && f["type"]["custom"] || !own && f["type"]["builtin"]
		loose := !f.Has("dangling") || dangling == (own && len(x.set.users(r.Name)) == 0)
		if typed && loose && matches(f, r.describe()) {
			out = append(out, network.Summary{Network: r.describe()})
		}
	}
	return out, nil
}

// matches applies the filters that are about what a network is by itself.
func matches(f filter.Set, n network.Network) bool {
	id := !f.Has("id") || slices.ContainsFunc(f.Get("id"), func(v string) bool { return strings.HasPrefix(n.ID, v) })
	return id && f.Match("name", n.Name) && f.Exact("driver", n.Driver) && f.Exact("scope", n.Scope) && f.Labels("label", n.Labels)
}

// NetworkInspect tells about one network and who is in it.
func (x *Service) NetworkInspect(_ context.Context, ref string) (network.Inspect, error) {
	r, err := x.set.find(ref)
	if err != nil {
		return network.Inspect{}, err
	}
	return network.Inspect{Network: r.describe(), Containers: x.set.members(r.Name)}, nil
}

// NetworkCreate makes a bridge network.
func (x *Service) NetworkCreate(ctx context.Context, req network.CreateRequest) (network.CreateResponse, error) {
	none, s := network.CreateResponse{}, x.set
	r, err := newRecord(req)
	if err != nil {
		return none, err
	}
	if err := s.reserve(r.Name); err != nil {
		return none, err
	}
	if r.Definition, err = s.Manager.Create(ctx, r.Definition); err != nil {
		s.settle(r.Name, nil)
		return none, err
	}
	err = s.DB.Update(func(tx *metadata.Tx) error { return s.records.Put(tx, r.ID, *r) })
	if err != nil {
		_ = s.Manager.Remove(r.ID)
		s.settle(r.Name, nil)
		return none, fault.Wrap("create network", r.Name, err)
	}
	s.settle(r.Name, r)
	s.tell(events.ActionCreate, r, "")
	return network.CreateResponse{ID: r.ID}, nil
}

// NetworkRemove removes a user-defined network that no running container is on.
func (x *Service) NetworkRemove(_ context.Context, ref string) error {
	r, err := x.set.findOwn(ref)
	if err != nil {
		return err
	}
	return x.set.remove(r)
}

// findOwn finds a user-defined network, and refuses the others.
func (s *Set) findOwn(ref string) (*record, error) {
	r, err := s.find(ref)
	if err == nil && !userDefined(r.Name) {
		err = fault.New(fault.Forbidden, "", "", "%s is a pre-defined network and cannot be removed", r.Name)
	}
	return r, err
}

func (s *Set) remove(r *record) error {
	if err := s.Manager.Remove(r.ID); err != nil {
		return err
	}
	// The kernel has forgotten it first: a crash in between brings it back whole.
	err := s.DB.Update(func(tx *metadata.Tx) error { return s.records.Delete(tx, r.ID) })
	if err != nil {
		s.Manager.Define(r.Definition)
		return fault.Wrap("remove network", r.Name, err)
	}
	s.drop(r.ID)
	s.tell(events.ActionDestroy, r, "")
	return nil
}

// PlanNetworkRemoval adds to a plan what the removal of networks by name would do.
func (x *Service) PlanNetworkRemoval(refs []string, ahead *reclaim.Ahead) {
	for _, ref := range refs {
		r, err := x.set.findOwn(ref)
		if err != nil {
			ahead.Refuse(ref, reclaim.Item{}, err)
			continue
		}
		if ahead.Gone(r.ID) {
			continue // named twice
		}
		item := reclaim.Item{Kind: wire.PlanNetworks, ID: r.ID, Names: []string{r.Name}, Reason: "it was named, and nobody is on it"}
		if err := x.set.Manager.Removable(r.ID); err != nil {
			ahead.Refuse(ref, item, err)
			continue
		}
		ahead.Go(item)
	}
}

// PruneReport is what a prune did.
type PruneReport struct{ NetworksDeleted []string }

// prunePlan decides which networks a prune removes.
func (s *Set) prunePlan(f filter.Set) (plan reclaim.Plan, err error) {
	if err := f.Check("label", "label!", "until"); err != nil {
		return plan, err
	}
	until, err := f.Until()
	if err != nil {
		return plan, err
	}
	for _, r := range s.own() {
		keep := reclaim.Spared(f, until, r.Created, r.Labels)
		if users := s.users(r.Name); len(users) > 0 {
			keep = "container " + users[0].Name + " is on it"
		}
		plan.Decide(reclaim.Item{Kind: wire.PlanNetworks, ID: r.ID, Names: []string{r.Name}}, "no running container is on it", keep)
	}
	return plan, nil
}

// PlanNetworkPrune adds to a plan what a prune would do.
func (x *Service) PlanNetworkPrune(f filter.Set, ahead *reclaim.Ahead) error {
	plan, err := x.set.prunePlan(f)
	ahead.Add(plan)
	return err
}

// NetworkPrune removes the user-defined networks that no running container is on.
func (x *Service) NetworkPrune(ctx context.Context, f filter.Set) (PruneReport, error) {
	s, out := x.set, PruneReport{NetworksDeleted: []string{}}
	plan, err := s.prunePlan(f)
	if err != nil {
		return out, err
	}
	for _, item := range plan.Remove {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		if r, _ := s.find(item.ID); r != nil {
			if err := s.remove(r); err != nil {
				s.Log.Warn("prune network", "network", r.Name, "error", err)
				continue
			}
		}
		out.NetworksDeleted = append(out.NetworksDeleted, item.Names[0])
	}
	s.Bus.Publish(events.NetworkEventType, events.ActionPrune, "", map[string]string{"reclaimed": "0"})
	return out, nil
}

// users returns the running containers that are on a network. Those that don't run
// keep no network, as with docker: they say what is missing when they start.
func (s *Set) users(name string) (users []*container.Record) {
	for _, c := range s.Containers.All() {
		if rec := c.Record(); rec.State.Alive() && slices.Contains(NamesOf(rec), name) {
			users = append(users, rec)
		}
	}
	return users
}

// tell publishes an event of a network, containerID "" where none is concerned.
func (s *Set) tell(action events.Action, r *record, containerID string) {
	attrs := map[string]string{"name": r.Name, "type": r.driver()}
	if containerID != "" {
		attrs["container"] = containerID
	}
	s.Bus.Publish(events.NetworkEventType, action, r.ID, attrs)
}
