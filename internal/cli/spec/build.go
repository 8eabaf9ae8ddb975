package spec

import (
	"encoding/csv"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"berth/internal/wire"
)

// BuildLimits are the flags of `build` that bound what each step may use.
type BuildLimits struct {
	memory, shm              sizeValue
	swap                     swapValue
	cpus                     cpusValue
	shares, period, quota    int64
	cpuset, memset, parentCG string
	ulimit                   []string
}

// Register adds the flags to a set.
func (f *BuildLimits) Register(fs *pflag.FlagSet) {
	fs.VarP(&f.memory, "memory", "m", "most memory a step may use: 512m, 2g")
	fs.Var(&f.swap, "memory-swap", "memory and swap together, -1 for no limit")
	fs.Var(&f.shm, "shm-size", "size of /dev/shm")
	fs.Var(&f.cpus, "cpus", "how many processors a step may use: 0.5, 2")
	fs.Int64VarP(&f.shares, "cpu-shares", "c", 0, "a step's weight against others (1024)")
	fs.Int64Var(&f.period, "cpu-period", 0, "`MICROSECONDS` scheduler period")
	fs.Int64Var(&f.quota, "cpu-quota", 0, "`MICROSECONDS` a step may run in a period")
	fs.StringVar(&f.cpuset, "cpuset-cpus", "", "`LIST` processors a step may use: 0-2,4")
	fs.StringVar(&f.memset, "cpuset-mems", "", "`LIST` memory nodes a step may use: 0-2,4")
	fs.StringVar(&f.parentCG, "cgroup-parent", "", "`PATH` be in this cgroup")
	List(fs, &f.ulimit, "ulimit", "", "`NAME=SOFT[:HARD]` limit a step's processes: nofile=1024:2048")
}

// Limits returns what the flags say.
func (f *BuildLimits) Limits() (wire.BuildLimits, error) {
	l := wire.BuildLimits{
		Memory: int64(f.memory), MemorySwap: int64(f.swap), ShmSize: int64(f.shm), CPUShares: f.shares, CPUPeriod: f.period, CPUQuota: f.quota,
		CpusetCpus: f.cpuset, CpusetMems: f.memset, CgroupParent: f.parentCG,
	}
	if f.cpus != 0 {
		if l.CPUPeriod != 0 || l.CPUQuota != 0 {
			return l, errors.New("--cpus and --cpu-period or --cpu-quota set the same limit; use one of them")
		}
		const period = 100_000
		l.CPUPeriod, l.CPUQuota = period, max(1000, int64(f.cpus)*period/1e9)
	}
	list, err := ulimits(f.ulimit)
	for _, u := range list {
		l.Ulimits = append(l.Ulimits, wire.BuildUlimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	return l, err
}

// Fields reads a value that docker's flags write as KEY=VALUE,KEY=VALUE with CSV's
// quotes. known are the keys that there are; a part without a value goes to bare,
// if that is one of them.
func Fields(flag, text, bare string, known ...string) (map[string]string, error) {
	parts, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return nil, fmt.Errorf("--%s %q: it is not KEY=VALUE[,KEY=VALUE...]", flag, text)
	}
	out := map[string]string{}
	for _, part := range parts {
		key, value, ok := strings.Cut(part, "=")
		if !ok && bare != "" {
			key, value = bare, part
		}
		key = strings.ToLower(strings.TrimSpace(key))
		if !slices.Contains(known, key) {
			return nil, fmt.Errorf("--%s %q: %q is unknown here; known are %s", flag, text, key, strings.Join(known, ", "))
		}
		out[key] = value
	}
	return out, nil
}

// Size reads a size such as 512m.
func Size(text string) (int64, error) { return parseSize(text) }
