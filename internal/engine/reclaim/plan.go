// Package reclaim decides what goes and what stays when room is wanted. It exists so
// that there is one such decision: a dry run shows the plan, a prune carries it out,
// and the keeper of the disk budget takes from it what was not used for longest.
package reclaim

import (
	"time"

	"berth/internal/engine/filter"
	"berth/internal/wire"
)

// Plan is what goes and what stays.
type Plan struct {
	Remove, Keep []Item
}

// Item is one thing that a plan is about.
type Item = wire.PlanItem

// Decide puts a thing where it belongs and tells whether it goes: for the reason
// remove, unless there is one to keep it.
func (p *Plan) Decide(item Item, remove, keep string) (goes bool) {
	if keep != "" {
		item.Reason = keep
		p.Keep = append(p.Keep, item)
		return false
	}
	item.Reason = remove
	p.Remove = append(p.Remove, item)
	return true
}

// Spared says why filters leave a thing alone that was made at a time, before until
// unless that is zero, and has labels; "" means that they do not.
func Spared(f filter.Set, until, made time.Time, labels map[string]string) string {
	switch {
	case !until.IsZero() && !made.Before(until):
		return "it is younger than the filter until"
	case !f.Labels("label", labels) || f.HasLabels("label!", labels):
		return "the label filter leaves it out"
	}
	return ""
}
