// Package registries knows how the engine stands to registries: how those of others
// are reached and what may be taken from there, and the one that the engine serves
// from its own stores. It exists so that whoever pulls, pushes or builds asks for a
// client and need not know which files and flags it was made of.
package registries

import (
	"log/slog"
	"net/netip"
	"sync/atomic"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/image"
	"berth/internal/layer"
	"berth/internal/signature"
	"berth/internal/transfer"

	"github.com/moby/moby/api/types/registry"
)

// Config says how the engine deals with registries and what comes from there. The
// zero value asks every registry where its name says and takes whatever it gives.
type Config struct {
	Settings
	DropBlobs     bool   // do not keep layers packed as they came
	Registries    string // file that says how registries are reached; "" means none
	Policy        string // file that says which images may be pulled; "" means none
	MaxLayerSize  int64  // bytes of an unpacked layer; 0 means 128 GiB
	MaxLayerFiles int64  // files of a layer; 0 means 4,000,000
	Serve         string // [host]:port on which the engine's own registry is served; "" means nowhere, or where ServeFile says
	ServeFile     string // configuration of that registry; "" means none
	UserAgent     string // filled in by the engine
}

// Settings are what may change while an engine runs.
type Settings struct {
	Insecure   []string // host[:port] of registries that may be spoken to without verified TLS
	HubMirrors []string // http[s]://host[:port], asked before Docker Hub, in this order
	Downloads  int      // layers fetched at once; 0 means 4
	Uploads    int      // layers sent at once; 0 means as many
}

// Limits bound the layers that are taken.
func (c *Config) Limits() layer.Limits {
	return layer.Limits{MaxBytes: c.MaxLayerSize, MaxEntries: c.MaxLayerFiles}
}

// Stores are where images come to and go from.
type Stores struct {
	Images  *image.Store
	Content *content.Store
	Layers  *layer.Store
}

// Reach is how registries are reached now.
type Reach struct {
	cfg    Config
	on     Stores
	own    *Own
	log    *slog.Logger
	policy livePolicy
	client atomic.Pointer[transfer.Client]
	now    atomic.Pointer[Settings]
}

// NewReach reads the files that the configuration names.
func NewReach(cfg Config, on Stores, own *Own, log *slog.Logger) (*Reach, error) {
	r := &Reach{cfg: cfg, on: on, own: own, log: log}
	return r, r.Load(cfg.Settings)
}

// Transfers returns the client that is in force. Transfers under way go on with the
// one that they began with.
func (r *Reach) Transfers() *transfer.Client { return r.client.Load() }

// Load reads the files about registries and policy and puts them in force, with
// settings. When either cannot be read, what was in force stays.
func (r *Reach) Load(now Settings) error {
	var registries transfer.Registries
	var rules *signature.Policy
	var err error
	if r.cfg.Registries != "" {
		if registries, err = transfer.LoadRegistries(r.cfg.Registries); err != nil {
			return err
		}
	}
	if r.cfg.Policy != "" {
		if rules, err = signature.LoadPolicy(r.cfg.Policy); err != nil {
			return err
		}
	}
	for _, mirror := range now.HubMirrors {
		if err := registries.AddMirror("docker.io", mirror); err != nil {
			return fault.New(fault.Invalid, "use registry mirror", mirror, "%w", err)
		}
	}
	if r.client.Load() != nil {
		r.log.Info("read again how registries are reached and which images may be pulled", "registries", r.cfg.Registries, "policy", r.cfg.Policy)
	}
	r.policy.now.Store(rules)
	r.now.Store(&now)
	r.client.Store(transfer.New(transfer.Config{
		Images: r.on.Images, Content: r.on.Content, Layers: r.on.Layers, Registries: registries, Insecure: now.Insecure,
		Policy: &r.policy, Local: r.own.At, KeepBlobs: !r.cfg.DropBlobs, UserAgent: r.cfg.UserAgent,
		Parallel: now.Downloads, Uploads: now.Uploads,
	}))
	return nil
}

// Describe shows in docker's words what the flags say; the file of
// registries says more.
func (r *Reach) Describe() *registry.ServiceConfig {
	const hub = "docker.io"
	now := r.now.Load()
	mirrors := append([]string{}, now.HubMirrors...)
	out := &registry.ServiceConfig{
		InsecureRegistryCIDRs: []netip.Prefix{netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("127.0.0.0/8")},
		Mirrors:               mirrors,
		IndexConfigs:          map[string]*registry.IndexInfo{hub: {Name: hub, Mirrors: mirrors, Secure: true, Official: true}},
	}
	for _, host := range now.Insecure {
		out.IndexConfigs[host] = &registry.IndexInfo{Name: host, Mirrors: []string{}}
	}
	return out
}
