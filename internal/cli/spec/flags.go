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
	OnUnhealthy               string
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
	List(fs, &f.Attach, "attach", "a", "`STREAM` attach to stdin, stdout or stderr alone")
	fs.BoolVarP(&f.Stdin, "interactive", "i", false, "keep standard input open")
	fs.BoolVarP(&f.TTY, "tty", "t", false, "give it a terminal")
	fs.BoolVar(&f.Remove, "rm", false, "remove the container when it ends")
	fs.StringVar(&f.Name, "name", "", "`NAME` call it so")
	fs.StringVar(&f.Platform, "platform", "", "`OS/ARCH` choose among the image's platforms")
	fs.StringVar(&f.Pull, "pull", PullMissing, "`WHEN` pull the image: missing, always or never")
	fs.BoolVarP(&f.Quiet, "quiet", "q", false, "do not show the pull")
	fs.StringVar(&f.CIDFile, "cidfile", "", "`FILE` write its id there")
	fs.StringVarP(&f.Hostname, "hostname", "h", "", "`NAME` its host name")
	fs.StringVar(&f.Domainname, "domainname", "", "`NAME` its domain name")
	fs.StringVarP(&f.User, "user", "u", "", "`USER[:GROUP]` run as this user, by name or number")
	fs.StringVarP(&f.Workdir, "workdir", "w", "", "`DIR` working directory of the command")
	fs.StringVar(&f.Entrypoint, "entrypoint", "", "`PROGRAM` run it instead of the image's entrypoint")
	List(fs, &f.Env, "env", "e", "`NAME[=VALUE]` set a variable, or pass the caller's on")
	List(fs, &f.EnvFile, "env-file", "", "`FILE` read variables from it")
	List(fs, &f.Label, "label", "l", "`NAME=VALUE` label it")
	List(fs, &f.LabelFile, "label-file", "", "`FILE` read labels from it")
	List(fs, &f.Annotation, "annotation", "", "`NAME=VALUE` tell the runtime")
	fs.BoolVar(&f.Init, "init", false, "run a small init that forwards signals and reaps processes")
	fs.StringVar(&f.Restart, "restart", "", "`WHEN` start it again: no, on-failure[:N], always or unless-stopped")
	fs.StringVar(&f.StopSignal, "stop-signal", "", "`SIGNAL` ask it to stop with this one")
	fs.IntVar(&f.StopTimeout, "stop-timeout", 0, "`SECONDS` patience before a stop becomes a kill")
	fs.StringVar(&f.HealthCmd, "health-cmd", "", "`COMMAND` tell by it whether the container is healthy")
	fs.DurationVar(&f.HealthInterval, "health-interval", 0, "`TIME` between two checks (1m30s)")
	fs.DurationVar(&f.HealthTimeout, "health-timeout", 0, "`TIME` allowed for one check")
	fs.DurationVar(&f.HealthStartPeriod, "health-start-period", 0, "`TIME` at the start in which failures do not count")
	fs.DurationVar(&f.HealthStartInterval, "health-start-interval", 0, "`TIME` between checks in the start period")
	fs.IntVar(&f.HealthRetries, "health-retries", 0, "failures in a row that make it unhealthy")
	fs.BoolVar(&f.NoHealthcheck, "no-healthcheck", false, "ignore the image's health check")
	fs.StringVar(&f.OnUnhealthy, "on-unhealthy", "", "`ACTION` when it is unhealthy: restart, stop or none")
	fs.StringVar(&f.LogDriver, "log-driver", "", "`DRIVER` where output goes: json-file, local, syslog, none")
	List(fs, &f.LogOpt, "log-opt", "", "`NAME=VALUE` tell the log driver: max-size=10m, max-file=3 ...")
	fs.BoolVar(&f.DisableContentTrust, "disable-content-trust", true, "accepted for docker's sake")
	_ = fs.MarkHidden("disable-content-trust")
}

func (f *Flags) registerNetwork(fs *pflag.FlagSet) {
	List(fs, &f.Publish, "publish", "p", "`PORTS` publish [IP:][HOST:]CONTAINER[/udp], as in 8080:80")
	fs.BoolVarP(&f.PublishAll, "publish-all", "P", false, "publish every exposed port on a free one")
	List(fs, &f.Expose, "expose", "", "`PORT` mark it as one to publish")
	List(fs, &f.Network, "network", "", "`NETWORK` join bridge, host, none, container:NAME ...")
	List(fs, &f.Network, "net", "", "same as --network")
	List(fs, &f.NetworkAlias, "network-alias", "", "`NAME` be known by it on the network, too")
	List(fs, &f.NetworkAlias, "net-alias", "", "same as --network-alias")
	_ = fs.MarkHidden("net")
	_ = fs.MarkHidden("net-alias")
	fs.StringVar(&f.IP, "ip", "", "`ADDRESS` its IPv4 address")
	fs.StringVar(&f.IP6, "ip6", "", "`ADDRESS` its IPv6 address")
	fs.StringVar(&f.MAC, "mac-address", "", "`ADDRESS` its hardware address")
	List(fs, &f.LinkLocalIP, "link-local-ip", "", "`ADDRESS` a link-local address")
	List(fs, &f.Link, "link", "", "`CONTAINER[:ALIAS]` make it known by name")
	List(fs, &f.DNS, "dns", "", "`ADDRESS` ask this name server")
	List(fs, &f.DNSOption, "dns-option", "", "`OPTION` of the resolver: ndots:2")
	List(fs, &f.DNSOption, "dns-opt", "", "same as --dns-option")
	_ = fs.MarkHidden("dns-opt")
	List(fs, &f.DNSSearch, "dns-search", "", "`DOMAIN` search it for short names")
	List(fs, &f.AddHost, "add-host", "", "`NAME:ADDRESS` make it known; host-gateway is this machine")
}

func (f *Flags) registerStorage(fs *pflag.FlagSet) {
	List(fs, &f.Volume, "volume", "v", "`VOLUME` mount [SOURCE:]TARGET[:ro], a path or a volume's name")
	List(fs, &f.Mount, "mount", "", "`MOUNT` mount type=bind|volume|tmpfs|image,source=..,target=..[,readonly]")
	List(fs, &f.Tmpfs, "tmpfs", "", "`TARGET[:OPTIONS]` mount memory there")
	List(fs, &f.VolumesFrom, "volumes-from", "", "`CONTAINER[:ro]` mount its volumes")
	fs.StringVar(&f.VolumeDriver, "volume-driver", "", "`DRIVER` for volumes that are made")
	List(fs, &f.StorageOpt, "storage-opt", "", "`size=SIZE` let it write at most that much into its root file system, size=10g")
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
	fs.Int64Var(&f.CPUPeriod, "cpu-period", 0, "`MICROSECONDS` scheduler period")
	fs.Int64Var(&f.CPUQuota, "cpu-quota", 0, "`MICROSECONDS` it may run in a period")
	fs.Int64Var(&f.CPURTPeriod, "cpu-rt-period", 0, "`MICROSECONDS` real-time period")
	fs.Int64Var(&f.CPURTRuntime, "cpu-rt-runtime", 0, "`MICROSECONDS` it may run in a real-time period")
	fs.StringVar(&f.CpusetCPUs, "cpuset-cpus", "", "`LIST` processors it may use: 0-2,4")
	fs.StringVar(&f.CpusetMems, "cpuset-mems", "", "`LIST` memory nodes it may use: 0-2,4")
	fs.Int64Var(&f.PidsLimit, "pids-limit", 0, "most processes it may have, -1 for no limit")
	List(fs, &f.Ulimit, "ulimit", "", "`NAME=SOFT[:HARD]` limit its processes: nofile=1024:2048")
	fs.Uint16Var(&f.BlkioWeight, "blkio-weight", 0, "its share of block I/O, 10 to 1000")
	List(fs, &f.BlkioWeightDevice, "blkio-weight-device", "", "`DEVICE:WEIGHT` its share of one device")
	List(fs, &f.DeviceReadBps, "device-read-bps", "", "`DEVICE:RATE` bytes read a second: /dev/sda:10mb")
	List(fs, &f.DeviceWriteBps, "device-write-bps", "", "`DEVICE:RATE` bytes written a second")
	List(fs, &f.DeviceReadIOps, "device-read-iops", "", "`DEVICE:RATE` reads a second")
	List(fs, &f.DeviceWriteIOps, "device-write-iops", "", "`DEVICE:RATE` writes a second")
	fs.BoolVar(&f.OOMKillDisable, "oom-kill-disable", false, "do not kill it when memory runs out")
	fs.IntVar(&f.OOMScoreAdj, "oom-score-adj", 0, "how readily it is killed when memory runs out, -1000 to 1000")
}

func (f *Flags) registerIsolation(fs *pflag.FlagSet) {
	List(fs, &f.CapAdd, "cap-add", "", "`NAME` give it a capability: NET_ADMIN, ALL")
	List(fs, &f.CapDrop, "cap-drop", "", "`NAME` take a capability away")
	fs.BoolVar(&f.Privileged, "privileged", false, "give it everything, as if there were no container")
	List(fs, &f.SecurityOpt, "security-opt", "", "`OPTION` no-new-privileges, seccomp=FILE, apparmor=PROFILE ...")
	List(fs, &f.GroupAdd, "group-add", "", "`GROUP` another group of its user")
	List(fs, &f.Device, "device", "", "`DEVICE[:PATH[:rwm]]` give it a device of this machine")
	List(fs, &f.DeviceCgroupRule, "device-cgroup-rule", "", "`RULE` allow devices, as in \"c 1:3 rwm\"")
	fs.StringVar(&f.GPUs, "gpus", "", "`GPUS` give it GPUs: all, or a number")
	fs.StringVar(&f.IPC, "ipc", "", "`MODE` IPC namespace: private, shareable, host, none, container:NAME")
	fs.StringVar(&f.PID, "pid", "", "`MODE` process namespace: host, container:NAME")
	fs.StringVar(&f.UTS, "uts", "", "`MODE` host name namespace: host, container:NAME")
	fs.StringVar(&f.Userns, "userns", "", "`MODE` user namespace: host, container:NAME")
	fs.StringVar(&f.Cgroupns, "cgroupns", "", "`MODE` cgroup namespace: private, host, container:NAME")
	fs.StringVar(&f.CgroupParent, "cgroup-parent", "", "`PATH` be in this cgroup")
	List(fs, &f.Sysctl, "sysctl", "", "`NAME=VALUE` kernel setting of its namespaces")
	fs.StringVar(&f.Runtime, "runtime", "", "`NAME` run it with this OCI runtime")
	fs.StringVar(&f.Isolation, "isolation", "", "`NAME` isolation technology (Windows)")
}

// Values of --pull.
const (
	PullMissing = "missing"
	PullAlways  = "always"
	PullNever   = "never"
)
