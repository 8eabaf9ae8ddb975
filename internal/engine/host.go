package engine

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"berth/internal/container/reaper"
	"berth/internal/engine/machine"
	"berth/internal/fault"
)

// lookAtHost collects what requests are judged against. Nothing of it changes
// while the machine is up.
func (e *Engine) lookAtHost() {
	e.boot, e.lastCap, e.host = machine.Boot(), machine.LastCap(), machine.Look()
	e.host.Runtimes = slices.Sorted(maps.Keys(e.cfg.Runtimes))
}

// initPath is the file of the init that --init puts into containers. It is below
// the data root because nothing may be executed from /run on many hosts.
func (e *Engine) initPath() string { return filepath.Join(e.cfg.Root, "init") }

// writeInit makes sure that the init's file is there and is this version's.
func (e *Engine) writeInit() error {
	image, err := reaper.Image()
	if err != nil {
		return fault.Wrap("make the init of containers", "", err)
	}
	if have, err := os.ReadFile(e.initPath()); err != nil || !bytes.Equal(have, image) {
		if err := writeFile(e.initPath(), image, 0o755); fault.Is(err, fault.Forbidden) || fault.Is(err, fault.Exhausted) {
			e.log.Error("containers cannot have an init", "error", err)
			return nil
		} else if err != nil {
			return err
		}
	}
	e.host.Init = true
	return nil
}
