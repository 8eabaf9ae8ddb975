package spec

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/pflag"

	"berth/internal/client"
)

// UpdateFlags are the flags of `update`, which changes a container that is there.
type UpdateFlags struct {
	set *pflag.FlagSet
	own []*pflag.Flag // those of set that are about the container

	memory, reservation          sizeValue
	swap                         swapValue
	cpus                         cpusValue
	cpuShares, period, quota     int64
	realtimePeriod, realtimeTime int64
	cpuset, memset, restart      string
	pids                         int64
	blkio                        uint16
}

// Register adds the flags to a set.
func (f *UpdateFlags) Register(fs *pflag.FlagSet) {
	f.set = fs
	fs.VarP(&f.memory, "memory", "m", "most memory it may use, such as 512m")
	fs.Var(&f.reservation, "memory-reservation", "memory it keeps when the machine runs short")
	fs.Var(&f.swap, "memory-swap", "memory and swap together, -1 for no limit")
	fs.Var(&f.cpus, "cpus", "processors it may use, such as 1.5")
	fs.Int64VarP(&f.cpuShares, "cpu-shares", "c", 0, "its share of processor time, 1024 is the usual one")
	fs.Int64Var(&f.period, "cpu-period", 0, "`MICROSECONDS` period of the scheduler's limit")
	fs.Int64Var(&f.quota, "cpu-quota", 0, "`MICROSECONDS` processor time within each period")
	fs.Int64Var(&f.realtimePeriod, "cpu-rt-period", 0, "`MICROSECONDS` period of the real-time limit")
	fs.Int64Var(&f.realtimeTime, "cpu-rt-runtime", 0, "`MICROSECONDS` real-time use within each period")
	fs.StringVar(&f.cpuset, "cpuset-cpus", "", "`LIST` processors it may run on: 0-3,8")
	fs.StringVar(&f.memset, "cpuset-mems", "", "`LIST` memory nodes it may use")
	fs.Int64Var(&f.pids, "pids-limit", 0, "most processes it may have, -1 for no limit")
	fs.Uint16Var(&f.blkio, "blkio-weight", 0, "its share of block I/O, 10 to 1000")
	fs.StringVar(&f.restart, "restart", "", "`POLICY` no, on-failure[:N], always or unless-stopped")
	fs.VisitAll(func(flag *pflag.Flag) { f.own = append(f.own, flag) })
}

// Request returns what is to change.
func (f *UpdateFlags) Request() (*client.UpdateRequest, error) {
	if !slices.ContainsFunc(f.own, func(flag *pflag.Flag) bool { return flag.Changed }) {
		return nil, errors.New("nothing to change was given: name at least one flag")
	}
	if f.cpus != 0 && (f.period != 0 || f.quota != 0) {
		return nil, errors.New("--cpus and --cpu-period or --cpu-quota set the same limit; use one of them")
	}
	if f.blkio != 0 && (f.blkio < 10 || f.blkio > 1000) {
		return nil, fmt.Errorf("--blkio-weight %d is not between 10 and 1000", f.blkio)
	}
	req := &client.UpdateRequest{}
	r := &req.Resources
	r.Memory, r.MemoryReservation, r.MemorySwap = int64(f.memory), int64(f.reservation), int64(f.swap)
	r.NanoCPUs, r.CPUShares, r.CPUPeriod, r.CPUQuota = int64(f.cpus), f.cpuShares, f.period, f.quota
	r.CPURealtimePeriod, r.CPURealtimeRuntime = f.realtimePeriod, f.realtimeTime
	r.CpusetCpus, r.CpusetMems, r.BlkioWeight = f.cpuset, f.memset, f.blkio
	if f.set.Changed("pids-limit") {
		r.PidsLimit = &f.pids
	}
	var err error
	req.RestartPolicy, err = restartPolicy(f.restart)
	return req, err
}

// Pairs reads repeated NAME=VALUE arguments of a flag; a name alone has an empty
// value.
func Pairs(flag string, args []string) (map[string]string, error) { return pairs(flag, args) }
