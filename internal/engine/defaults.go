package engine

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// ContainerDefaults is what containers get that do not say otherwise. The zero
// value leaves docker's defaults.
type ContainerDefaults struct {
	ShmSize         int64               // bytes
	StorageSize     int64               // of writable layers, bytes; see layer.Store.CanBound
	Ulimits         []*container.Ulimit //
	LogDriver       string              //
	LogOpts         map[string]string   // of LogDriver
	Runtime         string              //
	CgroupParent    string              //
	CgroupNS        string              // host or private
	IPC             string              // private or shareable
	Init            bool                // run an init in each
	NoNewPrivileges bool                //
	Seccomp         string              // a profile's text, or unconfined
	DNS             []netip.Addr        //
	DNSSearch       []string            //
	DNSOptions      []string            //
	HostIP          netip.Addr          // on which ports are published
}

// apply fills in what a request leaves open.
func (d *ContainerDefaults) apply(hc *container.HostConfig) {
	if d == nil {
		return
	}
	if hc.ShmSize == 0 {
		hc.ShmSize = d.ShmSize
	}
	if d.StorageSize > 0 && len(hc.StorageOpt) == 0 {
		hc.StorageOpt = map[string]string{"size": strconv.FormatInt(d.StorageSize, 10)}
	}
	for _, u := range d.Ulimits {
		if !slices.ContainsFunc(hc.Ulimits, func(o *container.Ulimit) bool { return o != nil && o.Name == u.Name }) {
			hc.Ulimits = append(hc.Ulimits, u)
		}
	}
	if d.LogDriver != "" && (hc.LogConfig.Type == "" || hc.LogConfig.Type == d.LogDriver) {
		opts := maps.Clone(d.LogOpts)
		if opts == nil {
			opts = map[string]string{}
		}
		maps.Copy(opts, hc.LogConfig.Config)
		hc.LogConfig = container.LogConfig{Type: d.LogDriver, Config: opts}
	}
	text := func(to *string, value string) {
		if *to == "" {
			*to = value
		}
	}
	text(&hc.Runtime, d.Runtime)
	text(&hc.CgroupParent, d.CgroupParent)
	text((*string)(&hc.CgroupnsMode), d.CgroupNS)
	text((*string)(&hc.IpcMode), d.IPC)
	if hc.Init == nil && d.Init {
		on := true
		hc.Init = &on
	}
	d.applySecurity(hc)
	d.applyNetwork(hc)
}

func (d *ContainerDefaults) applySecurity(hc *container.HostConfig) {
	says := func(name string) bool {
		return slices.ContainsFunc(hc.SecurityOpt, func(o string) bool {
			return o == name || len(o) > len(name) && o[:len(name)] == name && (o[len(name)] == '=' || o[len(name)] == ':')
		})
	}
	if d.NoNewPrivileges && !says("no-new-privileges") {
		hc.SecurityOpt = append(hc.SecurityOpt, "no-new-privileges")
	}
	if d.Seccomp != "" && !hc.Privileged && !says("seccomp") {
		hc.SecurityOpt = append(hc.SecurityOpt, "seccomp="+d.Seccomp)
	}
}

func (d *ContainerDefaults) applyNetwork(hc *container.HostConfig) {
	if len(hc.DNS) == 0 {
		hc.DNS = d.DNS
	}
	if len(hc.DNSSearch) == 0 {
		hc.DNSSearch = d.DNSSearch
	}
	if len(hc.DNSOptions) == 0 {
		hc.DNSOptions = d.DNSOptions
	}
	if !d.HostIP.IsValid() {
		return
	}
	ports := make(network.PortMap, len(hc.PortBindings))
	for p, bindings := range hc.PortBindings {
		for _, b := range bindings {
			if !b.HostIP.IsValid() {
				b.HostIP = d.HostIP
			}
			ports[p] = append(ports[p], b)
		}
	}
	hc.PortBindings = ports
}
