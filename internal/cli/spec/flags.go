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
	List(fs, &f.Attach, "attach", "a", "attach to `STREAM`: stdin, stdout or stderr")
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
	List(fs, &f.Env, "env", "e", "set `NAME=VALUE`, or NAME to pass the caller's on")
	List(fs, &f.EnvFile, "env-file", "", "read environment variables from `FILE`")
	List(fs, &f.Label, "label", "l", "attach `NAME=VALUE` to the container")
	List(fs, &f.LabelFile, "label-file", "", "read labels from `FILE`")
	List(fs, &f.Annotation, "annotation", "", "pass `NAME=VALUE` to the runtime")
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
	List(fs, &f.LogOpt, "log-opt", "", "`NAME=VALUE` for the log driver: max-size=10m, max-file=3")
	fs.BoolVar(&f.DisableContentTrust, "disable-content-trust", true, "accepted for docker's sake")
	_ = fs.MarkHidden("disable-content-trust")
}

func (f *Flags) registerNetwork(fs *pflag.FlagSet) {
	List(fs, &f.Publish, "publish", "p", "publish `[IP:][HOST:]PORT[/udp]` on this machine")
	fs.BoolVarP(&f.PublishAll, "publish-all", "P", false, "publish every exposed port on a free one")
	List(fs, &f.Expose, "expose", "", "mark `PORT` as one that can be published")
	List(fs, &f.Network, "network", "", "`NETWORK` to join: bridge, host, none, container:NAME ...")
	List(fs, &f.Network, "net", "", "same as --network")
	List(fs, &f.NetworkAlias, "network-alias", "", "another `NAME` on its network")
	List(fs, &f.NetworkAlias, "net-alias", "", "same as --network-alias")
	_ = fs.MarkHidden("net")
	_ = fs.MarkHidden("net-alias")
	fs.StringVar(&f.IP, "ip", "", "its IPv4 `ADDRESS`")
	fs.StringVar(&f.IP6, "ip6", "", "its IPv6 `ADDRESS`")
	fs.StringVar(&f.MAC, "mac-address", "", "its hardware `ADDRESS`")
	List(fs, &f.LinkLocalIP, "link-local-ip", "", "a link-local `ADDRESS`")
	List(fs, &f.Link, "link", "", "make `CONTAINER[:ALIAS]` known by name")
	List(fs, &f.DNS, "dns", "", "name server `ADDRESS`")
	List(fs, &f.DNSOption, "dns-option", "", "resolver `OPTION`")
	List(fs, &f.DNSOption, "dns-opt", "", "same as --dns-option")
	_ = fs.MarkHidden("dns-opt")
	List(fs, &f.DNSSearch, "dns-search", "", "search `DOMAIN`")
	List(fs, &f.AddHost, "add-host", "", "make `NAME:ADDRESS` known; host-gateway is this machine")
}

func (f *Flags) registerStorage(fs *pflag.FlagSet) {
	List(fs, &f.Volume, "volume", "v", "mount `[SOURCE:]TARGET[:ro]`, a path or a volume's name")
	List(fs, &f.Mount, "mount", "", "mount type=bind|volume|tmpfs,source=..,target=..[,readonly]")
	List(fs, &f.Tmpfs, "tmpfs", "", "mount memory at `TARGET[:OPTIONS]`")
	List(fs, &f.VolumesFrom, "volumes-from", "", "mount the volumes of `CONTAINER[:ro]`")
	fs.StringVar(&f.VolumeDriver, "volume-driver", "", "`DRIVER` of volumes that are made")
	List(fs, &f.StorageOpt, "storage-opt", "", "`NAME=VALUE` for the storage driver")
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
	List(fs, &f.Ulimit, "ulimit", "", "`NAME=SOFT[:HARD]`: nofile=1024:2048")
	fs.Uint16Var(&f.BlkioWeight, "blkio-weight", 0, "its share of block I/O, 10 to 1000")
	List(fs, &f.BlkioWeightDevice, "blkio-weight-device", "", "`DEVICE:WEIGHT` of block I/O")
	List(fs, &f.DeviceReadBps, "device-read-bps", "", "`DEVICE:RATE` of reading: /dev/sda:10mb")
	List(fs, &f.DeviceWriteBps, "device-write-bps", "", "`DEVICE:RATE` of writing")
	List(fs, &f.DeviceReadIOps, "device-read-iops", "", "`DEVICE:RATE` of reads a second")
	List(fs, &f.DeviceWriteIOps, "device-write-iops", "", "`DEVICE:RATE` of writes a second")
	fs.BoolVar(&f.OOMKillDisable, "oom-kill-disable", false, "do not kill it when memory runs out")
	fs.IntVar(&f.OOMScoreAdj, "oom-score-adj", 0, "how readily it is killed when memory runs out, -1000 to 1000")
}

func (f *Flags) registerIsolation(fs *pflag.FlagSet) {
	List(fs, &f.CapAdd, "cap-add", "", "give `CAPABILITY`: NET_ADMIN, ALL")
	List(fs, &f.CapDrop, "cap-drop", "", "take `CAPABILITY` away")
	fs.BoolVar(&f.Privileged, "privileged", false, "give it everything, as if there were no container")
	List(fs, &f.SecurityOpt, "security-opt", "", "no-new-privileges, seccomp=FILE, apparmor=PROFILE ...")
	List(fs, &f.GroupAdd, "group-add", "", "another `GROUP` of the user")
	List(fs, &f.Device, "device", "", "give `DEVICE[:PATH[:rwm]]` of this machine")
	List(fs, &f.DeviceCgroupRule, "device-cgroup-rule", "", "allow devices: `RULE` as in \"c 1:3 rwm\"")
	fs.StringVar(&f.GPUs, "gpus", "", "give GPUs: all, or a number")
	fs.StringVar(&f.IPC, "ipc", "", "IPC namespace: private, shareable, host, none, container:NAME")
	fs.StringVar(&f.PID, "pid", "", "process namespace: host, container:NAME")
	fs.StringVar(&f.UTS, "uts", "", "host name namespace: host")
	fs.StringVar(&f.Userns, "userns", "", "user namespace: host")
	fs.StringVar(&f.Cgroupns, "cgroupns", "", "cgroup namespace: private, host")
	fs.StringVar(&f.CgroupParent, "cgroup-parent", "", "`PATH` of the cgroup to be in")
	List(fs, &f.Sysctl, "sysctl", "", "kernel setting `NAME=VALUE` of its namespaces")
	fs.StringVar(&f.Runtime, "runtime", "", "OCI runtime `NAME`")
	fs.StringVar(&f.Isolation, "isolation", "", "isolation `TECHNOLOGY` (Windows)")
}

// Values of --pull.
const (
	PullMissing = "missing"
	PullAlways  = "always"
	PullNever   = "never"
)
