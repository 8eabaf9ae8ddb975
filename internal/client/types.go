package client

import (
	"encoding/json"
	"time"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/mount"
)

// The structures below mirror those of the Engine API's published type
// packages, with the same field and JSON names, and leave out what a command
// line neither sends nor shows.

// Config is the part of a container that could move to another machine.
type Config struct {
	Hostname     string              `json:",omitempty"`
	Domainname   string              `json:",omitempty"`
	User         string              `json:",omitempty"`
	AttachStdin  bool                `json:",omitempty"`
	AttachStdout bool                `json:",omitempty"`
	AttachStderr bool                `json:",omitempty"`
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Tty          bool                `json:",omitempty"`
	OpenStdin    bool                `json:",omitempty"`
	StdinOnce    bool                `json:",omitempty"`
	Env          []string            `json:",omitempty"`
	Cmd          []string            `json:",omitempty"`
	Healthcheck  *HealthConfig       `json:",omitempty"`
	Image        string
	Volumes      map[string]struct{} `json:",omitempty"`
	WorkingDir   string              `json:",omitempty"`
	Entrypoint   []string            `json:",omitempty"`
	Labels       map[string]string   `json:",omitempty"`
	StopSignal   string              `json:",omitempty"`
	StopTimeout  *int                `json:",omitempty"` // seconds
}

// HealthConfig says how to find out whether a container works.
type HealthConfig struct {
	Test          []string      `json:",omitempty"`
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}

// HostConfig is the part of a container that depends on the machine.
type HostConfig struct {
	Binds           []string                 `json:",omitempty"`
	ContainerIDFile string                   `json:",omitempty"`
	LogConfig       LogConfig                `json:",omitzero"`
	NetworkMode     string                   `json:",omitempty"`
	PortBindings    map[string][]PortBinding `json:",omitempty"`
	RestartPolicy   RestartPolicy            `json:",omitzero"`
	AutoRemove      bool                     `json:",omitempty"`
	VolumeDriver    string                   `json:",omitempty"`
	VolumesFrom     []string                 `json:",omitempty"`
	ConsoleSize     [2]uint                  `json:",omitzero"` // height, width
	Annotations     map[string]string        `json:",omitempty"`

	CapAdd          []string          `json:",omitempty"`
	CapDrop         []string          `json:",omitempty"`
	CgroupnsMode    string            `json:",omitempty"`
	DNS             []string          `json:"Dns,omitempty"`
	DNSOptions      []string          `json:"DnsOptions,omitempty"`
	DNSSearch       []string          `json:"DnsSearch,omitempty"`
	ExtraHosts      []string          `json:",omitempty"`
	GroupAdd        []string          `json:",omitempty"`
	IpcMode         string            `json:",omitempty"`
	Links           []string          `json:",omitempty"`
	OomScoreAdj     int               `json:",omitempty"`
	PidMode         string            `json:",omitempty"`
	Privileged      bool              `json:",omitempty"`
	PublishAllPorts bool              `json:",omitempty"`
	ReadonlyRootfs  bool              `json:",omitempty"`
	SecurityOpt     []string          `json:",omitempty"`
	StorageOpt      map[string]string `json:",omitempty"`
	Tmpfs           map[string]string `json:",omitempty"`
	UTSMode         string            `json:",omitempty"`
	UsernsMode      string            `json:",omitempty"`
	ShmSize         int64             `json:",omitempty"` // bytes
	Sysctls         map[string]string `json:",omitempty"`
	Runtime         string            `json:",omitempty"`
	Isolation       string            `json:",omitempty"`
	Resources
	Mounts        []mount.Mount `json:",omitempty"`
	MaskedPaths   []string      `json:",omitzero"` // empty, not nil, means none
	ReadonlyPaths []string      `json:",omitzero"` // empty, not nil, means none
	Init          *bool         `json:",omitempty"`
}

// Resources are a container's limits.
type Resources struct {
	CPUShares            int64                      `json:"CpuShares,omitempty"`
	Memory               int64                      `json:",omitempty"` // bytes
	NanoCPUs             int64                      `json:"NanoCpus,omitempty"`
	CgroupParent         string                     `json:",omitempty"`
	BlkioWeight          uint16                     `json:",omitempty"`
	BlkioWeightDevice    []*blkiodev.WeightDevice   `json:",omitempty"`
	BlkioDeviceReadBps   []*blkiodev.ThrottleDevice `json:",omitempty"`
	BlkioDeviceWriteBps  []*blkiodev.ThrottleDevice `json:",omitempty"`
	BlkioDeviceReadIOps  []*blkiodev.ThrottleDevice `json:",omitempty"`
	BlkioDeviceWriteIOps []*blkiodev.ThrottleDevice `json:",omitempty"`
	CPUPeriod            int64                      `json:"CpuPeriod,omitempty"`          // microseconds
	CPUQuota             int64                      `json:"CpuQuota,omitempty"`           // microseconds
	CPURealtimePeriod    int64                      `json:"CpuRealtimePeriod,omitempty"`  // microseconds
	CPURealtimeRuntime   int64                      `json:"CpuRealtimeRuntime,omitempty"` // microseconds
	CpusetCpus           string                     `json:",omitempty"`
	CpusetMems           string                     `json:",omitempty"`
	Devices              []DeviceMapping            `json:",omitempty"`
	DeviceCgroupRules    []string                   `json:",omitempty"`
	DeviceRequests       []DeviceRequest            `json:",omitempty"`
	MemoryReservation    int64                      `json:",omitempty"` // bytes
	MemorySwap           int64                      `json:",omitempty"` // bytes, -1 unlimited
	MemorySwappiness     *int64                     `json:",omitempty"`
	OomKillDisable       *bool                      `json:",omitempty"`
	PidsLimit            *int64                     `json:",omitempty"`
	Ulimits              []*Ulimit                  `json:",omitempty"`
}

// Ulimit is one resource limit of the container's processes.
type Ulimit struct {
	Name string
	Hard int64
	Soft int64
}

// DeviceMapping gives a device of the host to a container.
type DeviceMapping struct {
	PathOnHost        string
	PathInContainer   string
	CgroupPermissions string
}

// DeviceRequest asks a device driver for devices.
type DeviceRequest struct {
	Driver       string            `json:",omitempty"`
	Count        int               `json:",omitempty"` // -1 means all
	DeviceIDs    []string          `json:",omitempty"`
	Capabilities [][]string        `json:",omitempty"`
	Options      map[string]string `json:",omitempty"`
}

// LogConfig names a log driver and its options.
type LogConfig struct {
	Type   string            `json:",omitempty"`
	Config map[string]string `json:",omitempty"`
}

// RestartPolicy says when a container is started again.
type RestartPolicy struct {
	Name              string
	MaximumRetryCount int `json:",omitempty"`
}

// PortBinding is the host's side of a published port.
type PortBinding struct {
	HostIP   string `json:"HostIp,omitempty"`
	HostPort string `json:",omitempty"`
}

// NetworkingConfig holds the settings of each network by its name.
type NetworkingConfig struct {
	EndpointsConfig map[string]*EndpointSettings `json:",omitempty"`
}

// EndpointSettings are a container's settings on one network.
type EndpointSettings struct {
	IPAMConfig *IPAMConfig       `json:",omitempty"`
	Links      []string          `json:",omitempty"`
	Aliases    []string          `json:",omitempty"`
	DriverOpts map[string]string `json:",omitempty"`
	GwPriority int               `json:",omitempty"`
	MacAddress string            `json:",omitempty"`
}

// IPAMConfig holds the addresses asked for.
type IPAMConfig struct {
	IPv4Address  string   `json:",omitempty"`
	IPv6Address  string   `json:",omitempty"`
	LinkLocalIPs []string `json:",omitempty"`
}

// CreateRequest is the body of a container's creation.
type CreateRequest struct {
	*Config
	HostConfig       *HostConfig       `json:",omitempty"`
	NetworkingConfig *NetworkingConfig `json:",omitempty"`
}

// CreateResponse names the container made.
type CreateResponse struct {
	ID       string `json:"Id"`
	Warnings []string
}

// WaitResponse is how a container ended.
type WaitResponse struct {
	StatusCode int64
	Error      *WaitError `json:",omitempty"`
}

// WaitError is why an exit status could not be had.
type WaitError struct{ Message string }

// PortSummary is one port of a container in a list.
type PortSummary struct {
	IP          string
	PrivatePort uint16
	PublicPort  uint16
	Type        string
}

// SummaryHead is what a list shows of a container unless it is asked for more.
type SummaryHead struct {
	ID         string `json:"Id"`
	Names      []string
	Image      string
	Command    string
	Created    int64 // Unix time, seconds
	Ports      []PortSummary
	SizeRw     int64
	SizeRootFs int64
	State      string
	Status     string
}

// Summary is one container in a list.
type Summary struct {
	SummaryHead
	ImageID         string
	Labels          map[string]string
	NetworkSettings *struct{ Networks map[string]json.RawMessage }
	Mounts          []MountPoint
	HostConfig      struct{ NetworkMode string }
}

// MountPoint is a mount of a listed container.
type MountPoint struct {
	Type   string
	Name   string
	Source string
	Driver string
}

// ImageSummary is one image in a list.
type ImageSummary struct {
	ID          string `json:"Id"`
	ParentID    string `json:"ParentId"`
	RepoTags    []string
	RepoDigests []string
	Created     int64 // Unix time, seconds
	Size        int64 // bytes
	SharedSize  int64 // bytes, -1 when not counted
	Containers  int64 // -1 when not counted
	Labels      map[string]string
}

// DeleteResponse is one thing that an image's removal did.
type DeleteResponse struct {
	Untagged string
	Deleted  string
}

// ContainerState is the part of an inspected container that commands act on.
type ContainerState struct {
	ID    string `json:"Id"`
	Name  string
	State struct {
		Status     string
		Running    bool
		Paused     bool
		Restarting bool
		ExitCode   int
		Error      string
		StartedAt  string
	}
	Config struct {
		Tty       bool
		OpenStdin bool
		StdinOnce bool
	}
	HostConfig struct{ AutoRemove bool }
}

// ExecRequest is the body of an exec's creation.
type ExecRequest struct {
	User         string   `json:",omitempty"`
	Privileged   bool     `json:",omitempty"`
	Tty          bool     `json:",omitempty"`
	ConsoleSize  *[2]uint `json:",omitempty"` // height, width
	AttachStdin  bool     `json:",omitempty"`
	AttachStderr bool     `json:",omitempty"`
	AttachStdout bool     `json:",omitempty"`
	DetachKeys   string   `json:",omitempty"`
	Env          []string `json:",omitempty"`
	WorkingDir   string   `json:",omitempty"`
	Cmd          []string
}

// ExecStartRequest is the body of an exec's start.
type ExecStartRequest struct {
	Detach      bool
	Tty         bool
	ConsoleSize *[2]uint `json:",omitempty"` // height, width
}

// ExecState is the part of an inspected exec that commands act on.
type ExecState struct {
	Running  bool
	ExitCode *int
	Pid      int
}

// Progress is one message of a pull, load or import under way.
type Progress struct {
	Stream string           `json:"stream"`
	Status string           `json:"status"`
	ID     string           `json:"id"`
	Detail ProgressDetail   `json:"progressDetail"`
	Error  *ProgressError   `json:"errorDetail"`
	Failed string           `json:"error"` // the older form of Error
	Aux    *json.RawMessage `json:"aux"`
}

// ProgressDetail counts what one layer has done so far.
type ProgressDetail struct {
	Current    int64  `json:"current"`
	Total      int64  `json:"total"` // 0 when not known
	HideCounts bool   `json:"hidecounts"`
	Units      string `json:"units"` // "" means bytes
}

// ProgressError ends a stream of messages with a failure.
type ProgressError struct {
	Message string `json:"message"`
}
