package engine

import (
	"context"
	"net/netip"
	"sync/atomic"

	"berth/internal/fault"
	"berth/internal/layer"
	"berth/internal/signature"
	"berth/internal/transfer"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
)

// RegistryConfig says how the engine deals with registries and what comes from
// there. The zero value asks every registry where its name says and takes
// whatever it gives.
type RegistryConfig struct {
	DropBlobs     bool     // do not keep layers packed as they came
	Registries    string   // file that says how registries are reached; "" means none
	Policy        string   // file that says which images may be pulled; "" means none
	Insecure      []string // host[:port] of registries that may be spoken to without verified TLS
	HubMirrors    []string // http[s]://host[:port], asked before Docker Hub, in this order
	Downloads     int      // layers fetched at once; 0 means 4
	Uploads       int      // layers sent at once; 0 means as many
	MaxLayerSize  int64    // bytes of an unpacked layer; 0 means 128 GiB
	MaxLayerFiles int64    // files of a layer; 0 means 4,000,000
	Serve         string   // [host]:port on which the engine's own registry is served; "" means nowhere, or where ServeFile says
	ServeFile     string   // configuration of that registry; "" means none
}

func (c *RegistryConfig) limits() layer.Limits {
	return layer.Limits{MaxBytes: c.MaxLayerSize, MaxEntries: c.MaxLayerFiles}
}

// livePolicy is the signature policy in force. It can be replaced while pulls ask it.
type livePolicy struct {
	now atomic.Pointer[signature.Policy]
}

// Check asks the policy in force whether an image may be pulled.
func (p *livePolicy) Check(ctx context.Context, named reference.Named, d digest.Digest, src signature.Source) error {
	return p.now.Load().Check(ctx, named, d, src)
}

// ReloadRegistries reads the files about registries and policy again. When
// either cannot be read, what was in force stays.
func (e *Engine) ReloadRegistries() error {
	c := &e.cfg.Registry
	var registries transfer.Registries
	var rules *signature.Policy
	var err error
	if c.Registries != "" {
		if registries, err = transfer.LoadRegistries(c.Registries); err != nil {
			return err
		}
	}
	if c.Policy != "" {
		if rules, err = signature.LoadPolicy(c.Policy); err != nil {
			return err
		}
	}
	now := e.live()
	for _, mirror := range now.HubMirrors {
		if err := registries.AddMirror("docker.io", mirror); err != nil {
			return fault.New(fault.Invalid, "use registry mirror", mirror, "%w", err)
		}
	}
	if e.client.Load() != nil {
		e.log.Info("read again how registries are reached and which images may be pulled", "registries", c.Registries, "policy", c.Policy)
	}
	e.policy.now.Store(rules)
	// Transfers under way go on with the client that they began with.
	e.client.Store(transfer.New(transfer.Config{
		Images: e.images, Content: e.content, Layers: e.layers, Registries: registries, Insecure: now.Insecure,
		Policy: &e.policy, Local: e.localRegistry, KeepBlobs: !c.DropBlobs, UserAgent: "berth/" + e.cfg.Version,
		Parallel: now.Downloads, Uploads: now.Uploads,
	}))
	return nil
}

// transfers returns the client that talks to registries now.
func (e *Engine) transfers() *transfer.Client { return e.client.Load() }

// sweepImages deletes layers and blobs that nobody needs. It runs when whoever
// keeps any has said so, and beside everything else.
func (e *Engine) sweepImages() {
	var freed int64
	for _, collect := range []func() (int64, error){e.layers.CollectAll, e.content.CollectAll} {
		n, err := collect()
		if err != nil {
			e.log.Error("layers and blobs without an owner cannot be deleted", "error", err)
		}
		freed += n
	}
	if freed > 0 {
		e.log.Info("deleted layers and blobs without an owner", "bytes", freed)
	}
}

// registryConfig shows in docker's words what the flags say; the file of
// registries says more.
func (e *Engine) registryConfig() *registry.ServiceConfig {
	const hub = "docker.io"
	mirrors := append([]string{}, e.live().HubMirrors...)
	out := &registry.ServiceConfig{
		InsecureRegistryCIDRs: []netip.Prefix{netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("127.0.0.0/8")},
		Mirrors:               mirrors,
		IndexConfigs:          map[string]*registry.IndexInfo{hub: {Name: hub, Mirrors: mirrors, Secure: true, Official: true}},
	}
	for _, host := range e.live().Insecure {
		out.IndexConfigs[host] = &registry.IndexInfo{Name: host, Mirrors: []string{}}
	}
	return out
}
