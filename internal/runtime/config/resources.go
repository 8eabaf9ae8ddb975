package config

import "github.com/opencontainers/runtime-spec/specs-go"

func (d *decoder) resources(r *specs.LinuxResources) {
	d.object(func(key string) bool {
		switch key {
		case "devices":
			listOf(d, &r.Devices, d.deviceRule)
		case "memory":
			pointer(d, &r.Memory, d.memory)
		case "cpu":
			pointer(d, &r.CPU, d.cpu)
		case "pids":
			pointer(d, &r.Pids, d.pids)
		case "blockIO":
			pointer(d, &r.BlockIO, d.blockIO)
		case "hugepageLimits":
			listOf(d, &r.HugepageLimits, d.hugepages)
		case "network":
			pointer(d, &r.Network, d.network)
		case "rdma":
			mapOf(d, &r.Rdma, d.rdma)
		case "unified":
			mapOf(d, &r.Unified, d.str)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) deviceRule(r *specs.LinuxDeviceCgroup) {
	d.object(func(key string) bool {
		switch key {
		case "allow":
			d.boolean(&r.Allow)
		case "type":
			d.str(&r.Type)
		case "major":
			optional(d, &r.Major)
		case "minor":
			optional(d, &r.Minor)
		case "access":
			d.str(&r.Access)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) memory(m *specs.LinuxMemory) {
	d.object(func(key string) bool {
		switch key {
		case "limit":
			optional(d, &m.Limit)
		case "reservation":
			optional(d, &m.Reservation)
		case "swap":
			optional(d, &m.Swap)
		case "kernel":
			optional(d, &m.Kernel)
		case "kernelTCP":
			optional(d, &m.KernelTCP)
		case "swappiness":
			optional(d, &m.Swappiness)
		case "disableOOMKiller":
			d.optionalBool(&m.DisableOOMKiller)
		case "useHierarchy":
			d.optionalBool(&m.UseHierarchy)
		case "checkBeforeUpdate":
			d.optionalBool(&m.CheckBeforeUpdate)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) cpu(c *specs.LinuxCPU) {
	d.object(func(key string) bool {
		switch key {
		case "shares":
			optional(d, &c.Shares)
		case "quota":
			optional(d, &c.Quota)
		case "burst":
			optional(d, &c.Burst)
		case "period":
			optional(d, &c.Period)
		case "realtimeRuntime":
			optional(d, &c.RealtimeRuntime)
		case "realtimePeriod":
			optional(d, &c.RealtimePeriod)
		case "cpus":
			d.str(&c.Cpus)
		case "mems":
			d.str(&c.Mems)
		case "idle":
			optional(d, &c.Idle)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) pids(p *specs.LinuxPids) {
	d.object(func(key string) bool {
		if key != "limit" {
			return false
		}
		optional(d, &p.Limit)
		return true
	})
}

func (d *decoder) blockIO(b *specs.LinuxBlockIO) {
	d.object(func(key string) bool {
		switch key {
		case "weight":
			optional(d, &b.Weight)
		case "leafWeight":
			optional(d, &b.LeafWeight)
		case "weightDevice":
			listOf(d, &b.WeightDevice, d.weightDevice)
		case "throttleReadBpsDevice":
			listOf(d, &b.ThrottleReadBpsDevice, d.throttleDevice)
		case "throttleWriteBpsDevice":
			listOf(d, &b.ThrottleWriteBpsDevice, d.throttleDevice)
		case "throttleReadIOPSDevice":
			listOf(d, &b.ThrottleReadIOPSDevice, d.throttleDevice)
		case "throttleWriteIOPSDevice":
			listOf(d, &b.ThrottleWriteIOPSDevice, d.throttleDevice)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) weightDevice(w *specs.LinuxWeightDevice) {
	d.object(func(key string) bool {
		switch key {
		case "major":
			whole(d, &w.Major)
		case "minor":
			whole(d, &w.Minor)
		case "weight":
			optional(d, &w.Weight)
		case "leafWeight":
			optional(d, &w.LeafWeight)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) throttleDevice(t *specs.LinuxThrottleDevice) {
	d.object(func(key string) bool {
		switch key {
		case "major":
			whole(d, &t.Major)
		case "minor":
			whole(d, &t.Minor)
		case "rate":
			whole(d, &t.Rate)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) hugepages(h *specs.LinuxHugepageLimit) {
	d.object(func(key string) bool {
		switch key {
		case "pageSize":
			d.str(&h.Pagesize)
		case "limit":
			whole(d, &h.Limit)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) network(n *specs.LinuxNetwork) {
	d.object(func(key string) bool {
		switch key {
		case "classID":
			optional(d, &n.ClassID)
		case "priorities":
			listOf(d, &n.Priorities, d.interfacePriority)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) interfacePriority(p *specs.LinuxInterfacePriority) {
	d.object(func(key string) bool {
		switch key {
		case "name":
			d.str(&p.Name)
		case "priority":
			whole(d, &p.Priority)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) rdma(r *specs.LinuxRdma) {
	d.object(func(key string) bool {
		switch key {
		case "hcaHandles":
			optional(d, &r.HcaHandles)
		case "hcaObjects":
			optional(d, &r.HcaObjects)
		default:
			return false
		}
		return true
	})
}
