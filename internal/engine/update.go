package engine

import (
	"context"

	"berth/internal/container"
	"berth/internal/engine/spec"
	"berth/internal/engine/vocabulary"
	"berth/internal/fault"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
)

// ContainerUpdate changes limits and the restart policy of a container; those of
// a running one take effect at once. What the request leaves at zero stays.
func (e *Engine) ContainerUpdate(ctx context.Context, ref string, want api.UpdateConfig) (api.UpdateResponse, error) {
	none := api.UpdateResponse{}
	c, err := e.containers.Find(ref)
	if err != nil {
		return none, err
	}
	if err := c.Lock(ctx); err != nil {
		return none, err
	}
	defer c.Unlock()
	rec := c.Record()
	if c.Gone() || rec.State.Status == api.StateRemoving || rec.State.Status == api.StateDead {
		return none, fault.New(fault.Conflict, "", "", "Container is marked for removal and cannot be \"update\".")
	}
	hc, delta, err := merged(rec.HostConfig, want)
	if err != nil {
		return none, err
	}
	check := &vocabulary.Request{Config: rec.Config, HostConfig: hc, Networking: &network.NetworkingConfig{}, Host: e.host}
	warnings, err := check.Check()
	if err != nil {
		return none, err
	}
	if rec.State.Alive() {
		limits, err := spec.Resources(delta, e.host)
		if err != nil {
			return none, err
		}
		// A client that goes away meanwhile leaves no limits in force of which the record
		// does not know.
		if err := e.monitor.Update(context.WithoutCancel(ctx), c.ID, limits); err != nil {
			return none, err
		}
	}
	next := rec.Clone()
	next.HostConfig = hc
	wanted := rec.State.Alive() && !rec.State.StoppedByHand && !hc.RestartPolicy.IsNone()
	next.State.Wanted = next.State.Wanted || wanted
	if err := e.save(next); err != nil {
		return none, err
	}
	next = c.Edit(func(r *container.Record) {
		r.HostConfig = hc
		r.State.Wanted = r.State.Wanted || wanted
	})
	e.emit(next, events.ActionUpdate, nil)
	if warnings == nil {
		warnings = []string{}
	}
	return api.UpdateResponse{Warnings: warnings}, nil
}

// merged returns the host configuration with the changes applied, and one that
// holds the changed limits alone.
func merged(old *api.HostConfig, want api.UpdateConfig) (hc, delta *api.HostConfig, err error) {
	next, change := *old, api.HostConfig{}
	w, n := &want.Resources, &next.Resources
	if err := updatable(w); err != nil {
		return nil, nil, err
	}
	switch {
	case w.NanoCPUs > 0 && n.CPUPeriod > 0:
		return nil, nil, fault.New(fault.Conflict, "", "", "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set")
	case w.NanoCPUs > 0 && n.CPUQuota > 0:
		return nil, nil, fault.New(fault.Conflict, "", "", "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set")
	case (w.CPUPeriod > 0 || w.CPUQuota > 0) && n.NanoCPUs > 0:
		return nil, nil, fault.New(fault.Conflict, "", "", "Conflicting options: CPU Period and Quota cannot be updated as NanoCPUs has already been set")
	case w.Memory > 0 && w.MemorySwap == 0 && n.MemorySwap > 0 && w.Memory > n.MemorySwap:
		return nil, nil, fault.New(fault.Invalid, "", "", "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	}
	d := &change.Resources
	for _, f := range []struct {
		from     int64
		to, also *int64
	}{
		{w.CPUShares, &n.CPUShares, &d.CPUShares}, {w.CPUPeriod, &n.CPUPeriod, &d.CPUPeriod}, {w.CPUQuota, &n.CPUQuota, &d.CPUQuota},
		{w.NanoCPUs, &n.NanoCPUs, &d.NanoCPUs}, {w.CPURealtimePeriod, &n.CPURealtimePeriod, &d.CPURealtimePeriod},
		{w.CPURealtimeRuntime, &n.CPURealtimeRuntime, &d.CPURealtimeRuntime}, {w.Memory, &n.Memory, &d.Memory},
		{w.MemorySwap, &n.MemorySwap, &d.MemorySwap}, {w.MemoryReservation, &n.MemoryReservation, &d.MemoryReservation},
	} {
		if f.from != 0 {
			*f.to, *f.also = f.from, f.from
		}
	}
	if w.BlkioWeight != 0 {
		n.BlkioWeight, d.BlkioWeight = w.BlkioWeight, w.BlkioWeight
	}
	if w.CpusetCpus != "" {
		n.CpusetCpus, d.CpusetCpus = w.CpusetCpus, w.CpusetCpus
	}
	if w.CpusetMems != "" {
		n.CpusetMems, d.CpusetMems = w.CpusetMems, w.CpusetMems
	}
	if w.PidsLimit != nil {
		n.PidsLimit, d.PidsLimit = w.PidsLimit, w.PidsLimit
	}
	if p := want.RestartPolicy; p.Name != "" {
		if old.AutoRemove && !p.IsNone() {
			return nil, nil, fault.New(fault.Invalid, "", "", "Restart policy cannot be updated because AutoRemove is enabled for the container")
		}
		if err := api.ValidateRestartPolicy(p); err != nil {
			return nil, nil, fault.New(fault.Invalid, "", "", "%w", err)
		}
		next.RestartPolicy = p
	}
	return &next, &change, nil
}

// updatable refuses by name what docker's clients may send and nobody can change.
func updatable(w *api.Resources) error {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"CgroupParent", w.CgroupParent != ""}, {"Devices", len(w.Devices) > 0}, {"DeviceCgroupRules", len(w.DeviceCgroupRules) > 0},
		{"DeviceRequests", len(w.DeviceRequests) > 0}, {"Ulimits", len(w.Ulimits) > 0}, {"BlkioWeightDevice", len(w.BlkioWeightDevice) > 0},
		{"BlkioDeviceReadBps", len(w.BlkioDeviceReadBps) > 0}, {"BlkioDeviceWriteBps", len(w.BlkioDeviceWriteBps) > 0},
		{"BlkioDeviceReadIOps", len(w.BlkioDeviceReadIOps) > 0}, {"BlkioDeviceWriteIOps", len(w.BlkioDeviceWriteIOps) > 0},
		{"MemorySwappiness", w.MemorySwappiness != nil && *w.MemorySwappiness != -1}, {"OomKillDisable", w.OomKillDisable != nil && *w.OomKillDisable},
	} {
		if f.set {
			return fault.New(fault.Unsupported, "", "", "%s cannot be changed on an existing container", f.name).WithHint("create it anew")
		}
	}
	return nil
}
