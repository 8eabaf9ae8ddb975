package engine

import (
	"berth/internal/engine/machine"
	"berth/internal/engine/registries"
	"berth/internal/fault"
)

// Live is the part of the configuration that may change while an engine runs.
type Live struct {
	Labels     []string
	Debug      bool // shown by info
	Defaults   *ContainerDefaults
	Registries registries.Settings
}

// live is what is in force: what the engine was opened with until Reconfigure.
func (e *Engine) live() *Live {
	if l := e.liveConfig.Load(); l != nil {
		return l
	}
	return &Live{Labels: e.cfg.Labels, Debug: e.cfg.Debug, Defaults: e.cfg.Defaults, Registries: e.cfg.Registry.Settings}
}

// Reconfigure changes what may change while the engine runs. Containers that exist
// keep what they were made with. On an error everything stays as it was.
func (e *Engine) Reconfigure(l Live) error {
	if err := e.checkDefaults(l.Defaults); err != nil {
		return err
	}
	if err := e.reach.Load(l.Registries); err != nil {
		return fault.Wrap("change the configuration", "", err)
	}
	e.liveConfig.Store(&l)
	e.bus.Publish("daemon", "reload", e.id, map[string]string{"name": machine.Name()})
	return nil
}

// checkDefaults refuses defaults that no container could have here.
func (e *Engine) checkDefaults(d *ContainerDefaults) error {
	if d == nil || d.StorageSize == 0 {
		return nil
	}
	return fault.Wrap("bound every container's writable layer", "", e.layers.CanBound())
}

// ReloadRegistries reads the files about registries and policy again. When either
// cannot be read, what was in force stays.
func (e *Engine) ReloadRegistries() error { return e.reach.Load(e.live().Registries) }
