package main

import (
	"io"
	"log/slog"

	"berth/internal/engine"

	"github.com/spf13/pflag"
)

// live is what of the options may change while the engine runs.
func (o *options) live() engine.Live {
	return engine.Live{Labels: o.labels, Debug: o.level <= slog.LevelDebug, Defaults: o.defaults, Registries: o.images.settings()}
}

// reloadFlags are the flags whose new values take effect on SIGHUP.
var reloadFlags = map[string]bool{
	"label": true, "debug": true, "log-level": true, "insecure-registry": true, "registry-mirror": true,
	"max-concurrent-downloads": true, "max-concurrent-uploads": true,
}

// reload reads the configuration file of berthd again, and the files about
// registries and policy. What can't change while it runs is named; on an error
// everything stays as it was.
func (o *options) reload(args []string, e *engine.Engine, level *slog.LevelVar, log *slog.Logger) error {
	next, err := parseOptions(args, io.Discard)
	if err != nil {
		return err
	}
	if err := e.Reconfigure(next.live()); err != nil {
		return err
	}
	level.Set(next.level)
	next.flags.VisitAll(func(f *pflag.Flag) {
		if !reloadFlags[f.Name] && f.Value.String() != o.flags.Lookup(f.Name).Value.String() {
			log.Warn("changed in the configuration; it takes effect with the next start", "option", f.Name)
		}
	})
	log.Info("read the configuration again", "labels", next.labels, "log-level", next.level)
	return nil
}
