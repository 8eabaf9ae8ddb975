package worker

import (
	"encoding/json"
	"math"

	"berth/internal/fault"
	"berth/internal/runtime"
)

// statsEvent is what "events --stats" of runc and crun prints.
type statsEvent struct {
	Data struct {
		CPU struct {
			Usage struct {
				Total  uint64   `json:"total"`
				PerCPU []uint64 `json:"percpu"`
				Kernel uint64   `json:"kernel"`
				User   uint64   `json:"user"`
			} `json:"usage"`
			Throttling struct {
				Periods          uint64 `json:"periods"`
				ThrottledPeriods uint64 `json:"throttledPeriods"`
				ThrottledTime    uint64 `json:"throttledTime"`
			} `json:"throttling"`
		} `json:"cpu"`
		Memory struct {
			Usage  memoryEntry       `json:"usage"`
			Swap   memoryEntry       `json:"swap"`
			Kernel memoryEntry       `json:"kernel"`
			Raw    map[string]uint64 `json:"raw"`
		} `json:"memory"`
		Pids struct {
			Current uint64 `json:"current"`
			Limit   uint64 `json:"limit"`
		} `json:"pids"`
	} `json:"data"`
}

type memoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage"`
	Max     uint64 `json:"max"`
	Failcnt uint64 `json:"failcnt"`
}

func (f *foreign) stats(id string) (*runtime.Stats, error) {
	text, err := f.run(id, "events", "--stats", id)
	if err != nil {
		return nil, err
	}
	var event statsEvent
	if err := json.Unmarshal(text, &event); err != nil {
		return nil, fault.New(fault.Internal, "measure container", id, "%s: %w", f.path, err)
	}
	d, stats := &event.Data, new(runtime.Stats)
	stats.CPU.Usage, stats.CPU.User, stats.CPU.Kernel = d.CPU.Usage.Total, d.CPU.Usage.User, d.CPU.Usage.Kernel
	stats.CPU.PerCPU = d.CPU.Usage.PerCPU
	stats.CPU.Periods, stats.CPU.ThrottledPeriods = d.CPU.Throttling.Periods, d.CPU.Throttling.ThrottledPeriods
	stats.CPU.ThrottledTime = d.CPU.Throttling.ThrottledTime
	stats.Memory.Usage, stats.Memory.MaxUsage = d.Memory.Usage.Usage, d.Memory.Usage.Max
	stats.Memory.Limit, stats.Memory.Failcnt = d.Memory.Usage.Limit, d.Memory.Usage.Failcnt
	if stats.Memory.Limit == 0 {
		stats.Memory.Limit = math.MaxUint64
	}
	stats.Memory.SwapUsage, stats.Memory.SwapLimit = d.Memory.Swap.Usage, d.Memory.Swap.Limit
	stats.Memory.KernelUsage, stats.Memory.Raw = d.Memory.Kernel.Usage, d.Memory.Raw
	stats.Pids.Current, stats.Pids.Limit = d.Pids.Current, d.Pids.Limit
	return stats, nil
}
