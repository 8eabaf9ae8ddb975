package systemd

import (
	"math"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Properties translates the limits that the service manager knows on cgroup v2.
// It applies them again whenever it reloads, so it must know them; everything
// else is ours alone, for the cgroup is delegated.
func Properties(r *specs.LinuxResources, weight func(shares uint64) uint64) []Property {
	var out []Property
	add := func(name string, v uint64) { out = append(out, Property{name, v}) }
	limit := func(name string, v int64) {
		if v < 0 {
			add(name, math.MaxUint64)
		} else {
			add(name, uint64(v))
		}
	}
	if r == nil {
		return nil
	}
	if m := r.Memory; m != nil {
		if m.Limit != nil && *m.Limit != 0 {
			limit("MemoryMax", *m.Limit)
		}
		if m.Reservation != nil && *m.Reservation != 0 {
			limit("MemoryLow", *m.Reservation)
		}
		if m.Swap != nil && *m.Swap != 0 {
			swap := *m.Swap
			if swap > 0 && m.Limit != nil && *m.Limit > 0 {
				swap -= *m.Limit
			}
			limit("MemorySwapMax", swap)
		}
	}
	if c := r.CPU; c != nil {
		if c.Shares != nil && *c.Shares != 0 {
			add("CPUWeight", weight(*c.Shares))
		}
		if c.Quota != nil && *c.Quota != 0 {
			period := uint64(100_000)
			if c.Period != nil && *c.Period != 0 {
				period = *c.Period
				add("CPUQuotaPeriodUSec", period)
			}
			if *c.Quota < 0 {
				add("CPUQuotaPerSecUSec", math.MaxUint64)
			} else {
				// systemd wants whole hundredths of a processor.
				perSec := (uint64(*c.Quota)*1_000_000/period + 9999) / 10000 * 10000
				add("CPUQuotaPerSecUSec", perSec)
			}
		}
	}
	if r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit != 0 {
		limit("TasksMax", *r.Pids.Limit)
	}
	return out
}
