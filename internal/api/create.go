package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"

	"berth/internal/fault"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

// createBody is a create request as clients of every served version send it:
// today's vocabulary and the fields that have left it since 1.24, so that one
// decoding knows them all.
type createBody struct {
	*container.Config
	Cmd, Entrypoint  words // a string instead of a list, in old clients
	OnBuild, Shell   words
	MacAddress       network.HardwareAddr // moved to the endpoint in 1.44
	Runtime          string               // docker-py repeats HostConfig.Runtime here
	HostConfig       *hostBody
	NetworkingConfig *network.NetworkingConfig
}

type hostBody struct {
	container.HostConfig
	KernelMemory    int64    // went with cgroup v1's kmem controller
	KernelMemoryTCP int64    // the same
	Capabilities    []string // 1.40 only
}

// words is a list of strings which may be written as one string.
type words []string

// UnmarshalJSON accepts "a", ["a"] and null.
func (s *words) UnmarshalJSON(b []byte) error {
	if b = bytes.TrimSpace(b); len(b) > 0 && b[0] == '"' {
		var one string
		if err := json.Unmarshal(b, &one); err != nil {
			return err
		}
		*s = words{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(s))
}

func createContainer(x *exchange) error {
	platform, err := x.platform(41)
	if err != nil {
		return err
	}
	var body createBody
	if err := x.decode(&body); err != nil {
		return err
	}
	req, err := body.request()
	if err != nil {
		return err
	}
	warnings, err := adaptCreate(x.version, &req, body.MacAddress)
	if err != nil {
		return err
	}
	resp, err := x.api.engine.ContainerCreate(x.ctx(), x.query("name"), req, platform)
	if err != nil {
		return err
	}
	if resp.Warnings = append(append(resp.Warnings, warnings...), x.ignored()...); resp.Warnings == nil {
		resp.Warnings = []string{}
	}
	return x.reply(http.StatusCreated, resp)
}

// request turns the body into today's vocabulary.
func (b *createBody) request() (container.CreateRequest, error) {
	if b.Config == nil {
		// The embedded Config stays nil when only fields beside it were sent.
		if b.Cmd == nil && b.Entrypoint == nil {
			return container.CreateRequest{}, fault.New(fault.Invalid, "", "", "config cannot be empty in order to create a container")
		}
		b.Config = &container.Config{}
	}
	c := b.Config
	c.Cmd, c.Entrypoint, c.OnBuild, c.Shell = b.Cmd, b.Entrypoint, b.OnBuild, b.Shell
	if b.HostConfig == nil {
		b.HostConfig = &hostBody{}
	}
	if b.NetworkingConfig == nil {
		b.NetworkingConfig = &network.NetworkingConfig{}
	}
	h := b.HostConfig
	switch {
	case h.KernelMemory > 0:
		return container.CreateRequest{}, gone("HostConfig.KernelMemory", "use Memory")
	case h.KernelMemoryTCP > 0:
		return container.CreateRequest{}, gone("HostConfig.KernelMemoryTCP", "use Memory")
	case len(h.Capabilities) > 0:
		return container.CreateRequest{}, gone("HostConfig.Capabilities", "use CapAdd and CapDrop")
	}
	if b.Runtime != "" {
		if h.Runtime != "" && h.Runtime != b.Runtime {
			return container.CreateRequest{}, fault.New(fault.Invalid, "", "", "conflicting fields: Runtime is %q and HostConfig.Runtime is %q", b.Runtime, h.Runtime)
		}
		h.Runtime = b.Runtime
	}
	return container.CreateRequest{Config: c, HostConfig: &h.HostConfig, NetworkingConfig: b.NetworkingConfig}, nil
}

func gone(field, instead string) error {
	return fault.New(fault.Invalid, "", "", "the field %s is not supported any more", field).WithHint("%s", instead)
}

// adaptCreate gives a request the meaning it had in the client's version: newer
// fields are dropped as an engine of that time would have done, and defaults
// which changed since are written out.
func adaptCreate(v apiVersion, req *container.CreateRequest, mac network.HardwareAddr) (warnings []string, err error) {
	hc := req.HostConfig
	adaptHost(v, hc)
	if v.before(44) && req.Healthcheck != nil {
		req.Healthcheck.StartInterval = 0
	}
	for i := range hc.Mounts {
		if err := adaptMount(v, &hc.Mounts[i]); err != nil {
			return nil, err
		}
	}
	if warnings, err = adaptEndpoints(v, hc, req.NetworkingConfig, mac); err != nil {
		return nil, err
	}
	if hc.VolumeDriver != "" && !v.before(48) && slices.ContainsFunc(hc.Mounts, withoutDriver) {
		warnings = append(warnings, "The container-wide VolumeDriver has no effect on volumes in Mounts; name the driver in VolumeOptions.DriverConfig instead.")
	}
	var empty []string
	for port, bindings := range hc.PortBindings {
		if len(bindings) == 0 {
			empty = append(empty, port.String())
			hc.PortBindings[port] = []network.PortBinding{{}}
		}
	}
	if len(empty) > 0 && !v.before(52) {
		slices.Sort(empty)
		warnings = append(warnings, "Container ports with an empty list of port bindings are published on an ephemeral port: "+strings.Join(empty, ", "))
	}
	return warnings, nil
}

// withoutDriver reports whether a mount is a volume that names no driver itself.
func withoutDriver(m mount.Mount) bool {
	o := m.VolumeOptions
	return m.Type == mount.TypeVolume && (o == nil || o.DriverConfig == nil || o.DriverConfig.Name == "")
}

// adaptHost does so for the fields of HostConfig outside of mounts and ports.
func adaptHost(v apiVersion, hc *container.HostConfig) {
	if v.before(25) {
		hc.AutoRemove = false // such a client removes the container itself
	}
	if v.before(40) && hc.IpcMode.IsEmpty() {
		hc.IpcMode = container.IPCModeShareable
	}
	if v.before(41) && hc.CgroupnsMode.IsEmpty() && !cgroupUnified() {
		hc.CgroupnsMode = container.CgroupnsModeHost
	}
	if v.before(42) {
		hc.ConsoleSize = [2]uint{}
	}
	if v.before(43) {
		hc.Annotations = nil
	}
	if v.before(56) {
		hc.Umask = nil
	}
	// 0 and negative numbers mean no limit.
	if hc.PidsLimit != nil && *hc.PidsLimit <= 0 {
		hc.PidsLimit = nil
	}
}

// cgroupUnified reports whether the host has cgroup v2 only.
var cgroupUnified = sync.OnceValue(func() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
})

// adaptMount adapts one mount; options of another mount type were ignored before
// 1.42 and are refused since.
func adaptMount(v apiVersion, m *mount.Mount) error {
	if v.before(42) {
		if m.Type != mount.TypeVolume {
			m.VolumeOptions = nil
		}
		if m.Type != mount.TypeTmpfs {
			m.TmpfsOptions = nil
		}
	}
	switch {
	case m.VolumeOptions != nil && m.Type != mount.TypeVolume:
		return misplaced("VolumeOptions", m.Type)
	case m.TmpfsOptions != nil && m.Type != mount.TypeTmpfs:
		return misplaced("TmpfsOptions", m.Type)
	case m.BindOptions != nil && m.Type != mount.TypeBind && !v.before(42):
		return misplaced("BindOptions", m.Type)
	case m.Type == mount.TypeImage && v.before(48):
		return needs(`Mount type "Image"`, 48)
	case m.VolumeOptions != nil && m.VolumeOptions.Subpath != "" && v.before(45):
		return needs("VolumeOptions.Subpath", 45)
	case m.BindOptions != nil && m.BindOptions.ReadOnlyForceRecursive && v.before(44):
		return needs("BindOptions.ReadOnlyForceRecursive", 44)
	}
	if b := m.BindOptions; b != nil {
		b.NonRecursive = b.NonRecursive && !v.before(40)
		b.CreateMountpoint = b.CreateMountpoint && !v.before(42)
	}
	if v.before(44) && m.Type == mount.TypeBind && m.ReadOnly {
		// Read-only binds covered the mounts below them only since 1.44.
		if m.BindOptions == nil {
			m.BindOptions = &mount.BindOptions{}
		}
		m.BindOptions.ReadOnlyNonRecursive = true
	}
	return nil
}

func misplaced(option string, t mount.Type) error {
	return fault.New(fault.Invalid, "", "", "%s must not be specified on mount type %q", option, t)
}

func needs(what string, minor int) error {
	return fault.New(fault.Invalid, "", "", "%s needs API v%s or newer", what, apiVersion(1000+minor))
}

// adaptEndpoints adapts the networks of a request and moves the container-wide
// MAC address of old clients to the endpoint it is meant for.
func adaptEndpoints(v apiVersion, hc *container.HostConfig, nc *network.NetworkingConfig, mac network.HardwareAddr) (warnings []string, err error) {
	if v.before(44) && len(nc.EndpointsConfig) > 1 {
		names := make([]string, 0, len(nc.EndpointsConfig))
		for name := range nc.EndpointsConfig {
			names = append(names, name)
		}
		slices.Sort(names)
		return nil, fault.New(fault.Invalid, "", "", "Container cannot be created with multiple network endpoints: %s", strings.Join(names, ", "))
	}
	for _, ep := range nc.EndpointsConfig {
		if ep == nil {
			continue
		}
		if v.before(44) {
			ep.MacAddress = nil
		}
		if v.before(48) {
			ep.GwPriority = 0
		}
	}
	if len(mac) == 0 {
		return nil, nil
	}
	if !v.before(52) {
		return nil, fault.New(fault.Invalid, "", "", "container-wide MAC address no longer supported; use endpoint-specific MAC address instead")
	}
	if err := moveMAC(v, hc.NetworkMode, nc, mac); err != nil {
		return nil, err
	}
	if !v.before(44) {
		warnings = append(warnings, "The container-wide MacAddress field is deprecated; it should be specified in EndpointsConfig instead.")
	}
	return warnings, nil
}

func moveMAC(v apiVersion, mode container.NetworkMode, nc *network.NetworkingConfig, mac network.HardwareAddr) error {
	if mode.IsHost() || mode.IsNone() || mode.IsContainer() {
		return fault.New(fault.Invalid, "", "", "conflicting options: mac-address and the network mode")
	}
	name := string(mode)
	if name == "" {
		name = network.NetworkDefault
	}
	ep := nc.EndpointsConfig[name]
	if ep == nil && v.before(44) {
		for _, only := range nc.EndpointsConfig {
			ep = only
		}
	}
	switch {
	case ep != nil:
	case len(nc.EndpointsConfig) == 0:
		ep = &network.EndpointSettings{}
		nc.EndpointsConfig = map[string]*network.EndpointSettings{name: ep}
	default:
		return fault.New(fault.Invalid, "", "", "HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks")
	}
	if len(ep.MacAddress) > 0 && !slices.Equal(ep.MacAddress, mac) {
		return fault.New(fault.Invalid, "", "", "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty")
	}
	ep.MacAddress = mac
	return nil
}
