// Package spec turns what follows `berth run` on a command line into a request
// that creates a container. It exists because people type docker's flags from
// memory and expect docker's reading of them: port ranges, mounts in CSV,
// environment taken from the caller's, sizes with units. Everything here is a
// function of the flags, the environment and the files they name.
package spec

import (
	"time"

	"github.com/spf13/pflag"
)

// Flags are the values of the flags that `run` and `create` share. Register
// fills it from a command line.
type Flags struct {
	set *pflag.FlagSet // knows which flags were given

	Attach                     []string
	Stdin, TTY                 bool
	Name, Platform, Pull       string
	Quiet                      bool
	CIDFile, DetachKeys        string
	Hostname, Domainname, User string
	Workdir, Entrypoint        string
	Env, EnvFile               []string
	Label, LabelFile           []string
	StopSignal                 string
	StopTimeout                int
	Annotation                 []string

	Publish, Expose           []string
	PublishAll                bool
	Network, NetworkAlias     []string
	IP, IP6, MAC              string
	LinkLocalIP, Link         []string
	DNS, DNSOption, DNSSearch []string
	AddHost                   []string
	Volume, Mount, Tmpfs      []string
	VolumesFrom               []string
	VolumeDriver              string
	StorageOpt                []string
	ReadOnly                  bool
	Memory, MemoryReservation sizeValue
	MemorySwap                swapValue
	MemorySwappiness          int64
	ShmSize                   sizeValue
	CPUs                      cpusValue
	CPUShares, CPUPeriod      int64
	CPUQuota                  int64
	CPURTPeriod, CPURTRuntime int64
	CpusetCPUs, CpusetMems    string
	PidsLimit                 int64
	Ulimit                    []string
	BlkioWeight               uint16
	BlkioWeightDevice         []string
	DeviceReadBps             []string
	DeviceWriteBps            []string
	DeviceReadIOps            []string
	DeviceWriteIOps           []string
	Device, DeviceCgroupRule  []string
	GPUs                      string
	GroupAdd, CapAdd, CapDrop []string
	Privileged                bool
	SecurityOpt               []string
	Init                      bool
	Restart                   string
	Remove                    bool
	HealthCmd                 string
	HealthInterval            time.Duration
	HealthTimeout             time.Duration
	HealthStartPeriod         time.Duration
	HealthStartInterval       time.Duration
	HealthRetries             int
	NoHealthcheck             bool
	LogDriver                 string
	LogOpt                    []string
	IPC, PID, UTS, Userns     string
	Cgroupns, CgroupParent    string
	Isolation, Runtime        string
	Sysctl                    []string
	OOMKillDisable            bool
	OOMScoreAdj               int
	DisableContentTrust       bool
}

// Register adds the flags to a set.
func (f *Flags) Register(fs *pflag.FlagSet) {
	f.set = fs
	f.registerProcess(fs)
	f.registerNetwork(fs)
	f.registerStorage(fs)
	f.registerResources(fs)
	f.registerIsolation(fs)
}

func (f *Flags) registerProcess(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&f.Attach, "attach", "a", nil, "attach to `STREAM`: stdin, stdout or stderr")
	fs.BoolVarP(&f.Stdin, "interactive", "i", false, "keep standard input open")
	fs.BoolVarP(&f.TTY, "tty", "t", false, "give it a terminal")
	fs.BoolVar(&f.Remove, "rm", false, "remove the container when it ends")
	fs.StringVar(&f.Name, "name", "", "its `NAME`")
	fs.StringVar(&f.Platform, "platform", "", "`OS/ARCH` of the image, if it has several")
	fs.StringVar(&f.Pull, "pull", PullMissing, "pull the image: missing, always or never")
	fs.BoolVarP(&f.Quiet, "quiet", "q", false, "do not show the pull")
	fs.StringVar(&f.CIDFile, "cidfile", "", "write the container's id to `FILE`")
	fs.StringVarP(&f.Hostname, "hostname", "h", "", "its host `NAME`")
	fs.StringVar(&f.Domainname, "domainname", "", "its domain `NAME`")
	fs.StringVarP(&f.User, "user", "u", "", "run as `USER[:GROUP]`, names or numbers")
	fs.StringVarP(&f.Workdir, "workdir", "w", "", "working `DIR` of the command")
	fs.StringVar(&f.Entrypoint, "entrypoint", "", "run `PROGRAM` instead of the image's entrypoint")
	fs.StringArrayVarP(&f.Env, "env", "e", nil, "set `NAME=VALUE`, or NAME to pass the caller's on")
	fs.StringArrayVar(&f.EnvFile, "env-file", nil, "read environment variables from `FILE`")
	fs.StringArrayVarP(&f.Label, "label", "l", nil, "attach `NAME=VALUE` to the container")
	fs.StringArrayVar(&f.LabelFile, "label-file", nil, "read labels from `FILE`")
	fs.StringArrayVar(&f.Annotation, "annotation", nil, "pass `NAME=VALUE` to the runtime")
	fs.BoolVar(&f.Init, "init", false, "run a small init that forwards signals and reaps processes")
	fs.StringVar(&f.Restart, "restart", "", "start it again: no, on-failure[:N], always or unless-stopped")
	fs.StringVar(&f.StopSignal, "stop-signal", "", "`SIGNAL` that asks it to stop")
	fs.IntVar(&f.StopTimeout, "stop-timeout", 0, "`SECONDS` before a stop becomes a kill")
	fs.StringVar(&f.HealthCmd, "health-cmd", "", "`COMMAND` that tells whether it is healthy")
	fs.DurationVar(&f.HealthInterval, "health-interval", 0, "`TIME` between two checks (1m30s)")
	fs.DurationVar(&f.HealthTimeout, "health-timeout", 0, "`TIME` that one check may take")
	fs.DurationVar(&f.HealthStartPeriod, "health-start-period", 0, "`TIME` in which failures do not count")
	fs.DurationVar(&f.HealthStartInterval, "health-start-interval", 0, "`TIME` between checks in the start period")
	fs.IntVar(&f.HealthRetries, "health-retries", 0, "failures in a row that make it unhealthy")
	fs.BoolVar(&f.NoHealthcheck, "no-healthcheck", false, "ignore the image's health check")
	fs.StringVar(&f.LogDriver, "log-driver", "", "where output goes: json-file, none ...")
	fs.StringArrayVar(&f.LogOpt, "log-opt", nil, "`NAME=VALUE` for the log driver: max-size=10m, max-file=3")
	fs.BoolVar(&f.DisableContentTrust, "disable-content-trust", true, "accepted for docker's sake")
	_ = fs.MarkHidden("disable-content-trust")
}

func (f *Flags) registerNetwork(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&f.Publish, "publish", "p", nil, "publish `[IP:][HOST:]PORT[/udp]` on this machine")
	fs.BoolVarP(&f.PublishAll, "publish-all", "P", false, "publish every exposed port on a free one")
	fs.StringArrayVar(&f.Expose, "expose", nil, "mark `PORT` as one that can be published")
	fs.StringArrayVar(&f.Network, "network", nil, "`NETWORK` to join: bridge, host, none, container:NAME ...")
	fs.StringArrayVar(&f.Network, "net", nil, "same as --network")
	fs.StringArrayVar(&f.NetworkAlias, "network-alias", nil, "another `NAME` on its network")
	fs.StringArrayVar(&f.NetworkAlias, "net-alias", nil, "same as --network-alias")
	_ = fs.MarkHidden("net")
	_ = fs.MarkHidden("net-alias")
	fs.StringVar(&f.IP, "ip", "", "its IPv4 `ADDRESS`")
	fs.StringVar(&f.IP6, "ip6", "", "its IPv6 `ADDRESS`")
	fs.StringVar(&f.MAC, "mac-address", "", "its hardware `ADDRESS`")
	fs.StringArrayVar(&f.LinkLocalIP, "link-local-ip", nil, "a link-local `ADDRESS`")
	fs.StringArrayVar(&f.Link, "link", nil, "make `CONTAINER[:ALIAS]` known by name")
	fs.StringArrayVar(&f.DNS, "dns", nil, "name server `ADDRESS`")
	fs.StringArrayVar(&f.DNSOption, "dns-option", nil, "resolver `OPTION`")
	fs.StringArrayVar(&f.DNSOption, "dns-opt", nil, "same as --dns-option")
	_ = fs.MarkHidden("dns-opt")
	fs.StringArrayVar(&f.DNSSearch, "dns-search", nil, "search `DOMAIN`")
	fs.StringArrayVar(&f.AddHost, "add-host", nil, "make `NAME:ADDRESS` known; host-gateway is this machine")
}

func (f *Flags) registerStorage(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&f.Volume, "volume", "v", nil, "mount `[SOURCE:]TARGET[:ro]`, a path or a volume's name")
	fs.StringArrayVar(&f.Mount, "mount", nil, "mount type=bind|volume|tmpfs,source=..,target=..[,readonly]")
	fs.StringArrayVar(&f.Tmpfs, "tmpfs", nil, "mount memory at `TARGET[:OPTIONS]`")
	fs.StringArrayVar(&f.VolumesFrom, "volumes-from", nil, "mount the volumes of `CONTAINER[:ro]`")
	fs.StringVar(&f.VolumeDriver, "volume-driver", "", "`DRIVER` of volumes that are made")
	fs.StringArrayVar(&f.StorageOpt, "storage-opt", nil, "`NAME=VALUE` for the storage driver")
	fs.BoolVar(&f.ReadOnly, "read-only", false, "make its root file system read-only")
}

func (f *Flags) registerResources(fs *pflag.FlagSet) {
	fs.VarP(&f.Memory, "memory", "m", "memory limit: 512m, 2g")
	fs.Var(&f.MemoryReservation, "memory-reservation", "memory to try to stay below")
	fs.Var(&f.MemorySwap, "memory-swap", "memory and swap together, -1 for no limit")
	fs.Int64Var(&f.MemorySwappiness, "memory-swappiness", -1, "how readily its memory is swapped, 0 to 100")
	fs.Var(&f.ShmSize, "shm-size", "size of /dev/shm")
	fs.Var(&f.CPUs, "cpus", "how many processors it may use: 0.5, 2")
	fs.Int64VarP(&f.CPUShares, "cpu-shares", "c", 0, "its weight against other containers (1024)")
	fs.Int64Var(&f.CPUPeriod, "cpu-period", 0, "scheduler period in `MICROSECONDS`")
	fs.Int64Var(&f.CPUQuota, "cpu-quota", 0, "`MICROSECONDS` that it may run in a period")
	fs.Int64Var(&f.CPURTPeriod, "cpu-rt-period", 0, "real-time period in `MICROSECONDS`")
	fs.Int64Var(&f.CPURTRuntime, "cpu-rt-runtime", 0, "real-time `MICROSECONDS` in a period")
	fs.StringVar(&f.CpusetCPUs, "cpuset-cpus", "", "processors that it may use: 0-2,4")
	fs.StringVar(&f.CpusetMems, "cpuset-mems", "", "memory nodes that it may use: 0-2,4")
	fs.Int64Var(&f.PidsLimit, "pids-limit", 0, "most processes it may have, -1 for no limit")
	fs.StringArrayVar(&f.Ulimit, "ulimit", nil, "`NAME=SOFT[:HARD]`: nofile=1024:2048")
	fs.Uint16Var(&f.BlkioWeight, "blkio-weight", 0, "its share of block I/O, 10 to 1000")
	fs.StringArrayVar(&f.BlkioWeightDevice, "blkio-weight-device", nil, "`DEVICE:WEIGHT` of block I/O")
	fs.StringArrayVar(&f.DeviceReadBps, "device-read-bps", nil, "`DEVICE:RATE` of reading: /dev/sda:10mb")
	fs.StringArrayVar(&f.DeviceWriteBps, "device-write-bps", nil, "`DEVICE:RATE` of writing")
	fs.StringArrayVar(&f.DeviceReadIOps, "device-read-iops", nil, "`DEVICE:RATE` of reads a second")
	fs.StringArrayVar(&f.DeviceWriteIOps, "device-write-iops", nil, "`DEVICE:RATE` of writes a second")
	fs.BoolVar(&f.OOMKillDisable, "oom-kill-disable", false, "do not kill it when memory runs out")
	fs.IntVar(&f.OOMScoreAdj, "oom-score-adj", 0, "how readily it is killed when memory runs out, -1000 to 1000")
}

func (f *Flags) registerIsolation(fs *pflag.FlagSet) {
	fs.StringArrayVar(&f.CapAdd, "cap-add", nil, "give `CAPABILITY`: NET_ADMIN, ALL")
	fs.StringArrayVar(&f.CapDrop, "cap-drop", nil, "take `CAPABILITY` away")
	fs.BoolVar(&f.Privileged, "privileged", false, "give it everything, as if there were no container")
	fs.StringArrayVar(&f.SecurityOpt, "security-opt", nil, "no-new-privileges, seccomp=FILE, apparmor=PROFILE ...")
	fs.StringArrayVar(&f.GroupAdd, "group-add", nil, "another `GROUP` of the user")
	fs.StringArrayVar(&f.Device, "device", nil, "give `DEVICE[:PATH[:rwm]]` of this machine")
	fs.StringArrayVar(&f.DeviceCgroupRule, "device-cgroup-rule", nil, "allow devices: `RULE` as in \"c 1:3 rwm\"")
	fs.StringVar(&f.GPUs, "gpus", "", "give GPUs: all, or a number")
	fs.StringVar(&f.IPC, "ipc", "", "IPC namespace: private, shareable, host, none, container:NAME")
	fs.StringVar(&f.PID, "pid", "", "process namespace: host, container:NAME")
	fs.StringVar(&f.UTS, "uts", "", "host name namespace: host")
	fs.StringVar(&f.Userns, "userns", "", "user namespace: host")
	fs.StringVar(&f.Cgroupns, "cgroupns", "", "cgroup namespace: private, host")
	fs.StringVar(&f.CgroupParent, "cgroup-parent", "", "`PATH` of the cgroup to be in")
	fs.StringArrayVar(&f.Sysctl, "sysctl", nil, "kernel setting `NAME=VALUE` of its namespaces")
	fs.StringVar(&f.Runtime, "runtime", "", "OCI runtime `NAME`")
	fs.StringVar(&f.Isolation, "isolation", "", "isolation `TECHNOLOGY` (Windows)")
}

// Values of --pull.
const (
	PullMissing = "missing"
	PullAlways  = "always"
	PullNever   = "never"
)
