package api

import (
	"context"
	"net/http"
	"time"

	"berth/internal/engine/filter"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
)

// systemEngine is what the endpoints about the engine itself call.
type systemEngine interface {
	Info(ctx context.Context) (system.Info, error)
	Version(ctx context.Context) (system.VersionResponse, error)
	Events(ctx context.Context, since, until time.Time, f filter.Set) (<-chan events.Message, error)
}

// ping answers without asking the engine: its headers are what clients
// negotiate by. Builder-Version 1 keeps docker's command line from asking for
// BuildKit.
func ping(x *exchange) error {
	h := x.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Builder-Version", "1")
	h.Set("Swarm", "inactive")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if x.r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return x.done(http.StatusOK)
	}
	_, _ = x.Write([]byte("OK"))
	return nil
}

func getVersion(x *exchange) error {
	v, err := x.api.engine.Version(x.ctx())
	if err != nil {
		return err
	}
	v.APIVersion, v.MinAPIVersion = newest.String(), oldest.String()
	for _, c := range v.Components {
		// docker's command line shows what it finds here, not the fields above.
		if c.Name == "Engine" && c.Details != nil {
			c.Details["ApiVersion"], c.Details["MinAPIVersion"] = v.APIVersion, v.MinAPIVersion
		}
	}
	return x.reply(http.StatusOK, v)
}

// legacyInfo is the answer before 1.50, with fields that have been constant for
// long and then left.
type legacyInfo struct {
	system.Info
	BridgeNfIptables  bool
	BridgeNfIP6tables bool  `json:"BridgeNfIp6tables"`
	KernelMemory      *bool `json:",omitempty"` // before 1.42
	KernelMemoryTCP   *bool `json:",omitempty"`
	ContainerdCommit  legacyCommit
	RuncCommit        legacyCommit
	InitCommit        legacyCommit
	RegistryConfig    *legacyRegistries
}

// legacyRegistries has what was there before 1.47, always empty.
type legacyRegistries struct {
	*registry.ServiceConfig
	AllowNondistributableArtifactsCIDRs     *[]string `json:",omitempty"`
	AllowNondistributableArtifactsHostnames *[]string `json:",omitempty"`
}

type legacyCommit struct {
	ID       string
	Expected *string `json:",omitempty"` // before 1.49
}

func infoBefore50(v apiVersion, info system.Info) legacyInfo {
	out := legacyInfo{Info: info, RegistryConfig: &legacyRegistries{ServiceConfig: info.RegistryConfig}}
	out.ContainerdCommit.ID, out.RuncCommit.ID, out.InitCommit.ID = info.ContainerdCommit.ID, info.RuncCommit.ID, info.InitCommit.ID
	if v.before(49) {
		out.ContainerdCommit.Expected, out.RuncCommit.Expected, out.InitCommit.Expected = &info.ContainerdCommit.ID, &info.RuncCommit.ID, &info.InitCommit.ID
	}
	if v.before(47) {
		out.RegistryConfig.AllowNondistributableArtifactsCIDRs, out.RegistryConfig.AllowNondistributableArtifactsHostnames = &[]string{}, &[]string{}
	}
	if v.before(42) {
		out.KernelMemory, out.KernelMemoryTCP = new(bool), new(bool)
		// Command lines of that time warn that rules would not hold when these are
		// off; those of this engine hold without.
		out.BridgeNfIptables, out.BridgeNfIP6tables = true, true
	}
	return out
}

func getInfo(x *exchange) error {
	info, err := x.api.engine.Info(x.ctx())
	if err != nil {
		return err
	}
	if x.version.before(44) {
		for name, rt := range info.Runtimes {
			rt.Status = nil
			info.Runtimes[name] = rt
		}
	}
	if x.version.before(46) {
		info.Containerd = nil
	}
	if x.version.before(49) {
		info.FirewallBackend = nil
	}
	if x.version.before(53) {
		info.NRI = nil
	}
	if !x.version.before(50) {
		return x.reply(http.StatusOK, info)
	}
	info.DiscoveredDevices = nil
	return x.reply(http.StatusOK, infoBefore50(x.version, info))
}
