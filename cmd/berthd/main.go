// Command berthd is the container engine: it wires flags and configuration to
// the engine, serves the Docker Engine API and ends without ending a single
// container. It may be killed at any instant; the next start takes over.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync/atomic"

	"berth/internal/api"
	"berth/internal/engine"
	"berth/internal/fault"
	"berth/internal/network"
	"berth/internal/sysmon"
	"berth/internal/version"

	"github.com/spf13/pflag"
)

// garbage is how much garbage may gather before it is collected, in percent of
// what is in use. Most of the time an engine waits, and what it holds then is
// taken from the containers; half of Go's default costs builds nothing that can
// be measured and saves a sixth of their memory.
const garbage = 50

// nameServer is the argument that makes this program the name service of an
// engine's networks, which starts it so.
const nameServer = "name-server"

func main() {
	sysmon.Calm()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	err := run(os.Args[1:])
	switch {
	case err == nil:
	case errors.Is(err, pflag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, filepath.Base(os.Args[0])+":", err)
		os.Exit(exitCode(err))
	}
}

// exitCode tells apart for scripts: 2 a wrong command line or configuration,
// 1 everything else.
func exitCode(err error) int {
	if fault.Is(err, fault.Invalid) {
		return 2
	}
	return 1
}

// run is berthd from its arguments to its end.
func run(args []string) error {
	if len(args) > 0 && args[0] == "registry" {
		return runRegistry(args[1:], os.Stdout)
	}
	if len(args) == 2 && args[0] == nameServer {
		return network.NameServerMain(args[1])
	}
	if filepath.Base(os.Args[0]) == dockerdName {
		return runDockerd(args, os.Stdout)
	}
	o, err := parseOptions(args, os.Stdout)
	if err != nil {
		return err
	}
	if o.showVersion {
		fmt.Printf("berthd version %s, build %s, %s\n", version.String(), revision(), runtime.Version())
		return nil
	}
	if os.Geteuid() != 0 {
		return fault.New(fault.Forbidden, "", "", "root privileges are needed: the engine makes namespaces, mounts and cgroups").
			WithHint("start it with sudo")
	}
	level := new(slog.LevelVar)
	level.Set(o.level)
	log := newLogger(o.logFormat, level)
	o.hooks.reload = func(e *engine.Engine) error { return o.reload(args, e, level, log) }
	return o.serve(log)
}

// newLogger writes to standard error, lines of JSON when form is json.
func newLogger(form string, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if form == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}

func revision() string {
	if r := version.Revision(); len(r) >= 7 {
		return r[:7]
	}
	return "unknown"
}

// serve opens the engine, serves it until a signal arrives and closes it.
func (o *options) serve(log *slog.Logger) error {
	o.inherited = inheritedSockets()
	var running atomic.Pointer[engine.Engine]
	stop := catchSignals(log, func() error {
		if e := running.Load(); e != nil {
			return o.hooks.reload(e)
		}
		return nil // it is about to read everything
	})
	cfg, err := o.engineConfig(log)
	if err != nil {
		return err
	}
	ctx := context.Background()
	// The engine's lock on its directories comes before the sockets: only its
	// holder may replace what a dead engine left.
	e, err := engine.Open(ctx, cfg)
	if err != nil {
		return err
	}
	running.Store(e)
	listeners, err := o.listen()
	a := api.New(e, log)
	if err == nil {
		err = o.serveMetrics(a, log)
	}
	if err == nil {
		err = writePid(o.pidfile)
	}
	if err != nil {
		closeAll(listeners)
		return errors.Join(err, e.Close(ctx))
	}
	for _, l := range listeners {
		log.Info("serving the API", "address", l.String())
	}
	o.hooks.onReady(listeners)
	notify("READY=1")
	err = serveUntil(stop, a, listeners, log)
	notify("STOPPING=1")
	o.hooks.onEnd(e)
	err = errors.Join(err, e.Close(ctx))
	closeAll(listeners)
	if o.pidfile != "" {
		_ = os.Remove(o.pidfile)
	}
	if o.hooks.end == nil {
		log.Info("stopped; containers go on running")
	}
	return err
}

// engineConfig turns the options into the engine's configuration.
func (o *options) engineConfig(log *slog.Logger) (engine.Config, error) {
	binary, err := o.findRuntime()
	if err != nil {
		return engine.Config{}, err
	}
	return engine.Config{
		BuildCacheKeep: o.buildKeep,
		Network:        o.networkConfig(),
		Root:           o.root,
		RunDir:         o.run,
		RuntimeBinary:  binary,
		Runtimes:       o.runtimes,
		Labels:         o.labels,
		Registry:       o.images.engineConfig(),
		LogMaxSize:     o.logMaxSize,
		LogMaxFiles:    o.logMaxFiles,
		Version:        version.String(),
		Commit:         version.Revision(),
		Debug:          o.level <= slog.LevelDebug,
		Defaults:       o.defaults,
		DiskBudget:     o.diskBudget,

		DiskBudgetFresh: o.diskBudgetFresh,
		Logger:          log,

		StopsContainers: o.hooks.end != nil,
	}, nil
}

func (o *options) networkConfig() network.Config {
	c := o.bridged
	c.Bridge, c.Subnet4, c.Subnet6, c.PoolSize = o.bridge, o.subnet4, o.subnet6, o.poolSize
	c.NameServer = []string{"/proc/self/exe", nameServer}
	return c
}

// findRuntime returns the path of berth-runtime: the one named, the one beside
// this program, or the one in PATH.
func (o *options) findRuntime() (string, error) {
	if o.runtimeBinary != "" {
		path, err := filepath.Abs(o.runtimeBinary)
		if err != nil {
			return "", err
		}
		if _, err := os.Stat(path); err != nil {
			return "", fault.New(fault.Invalid, "", "", "--runtime-binary: %w", err)
		}
		return path, nil
	}
	path, err := beside("berth-runtime")
	if err != nil {
		return "", fault.New(fault.Invalid, "", "", "the program berth-runtime is neither beside berthd nor in PATH").
			WithHint("install it, or name it with --runtime-binary")
	}
	return path, nil
}

// writePid writes the process id for service managers. The file appears whole.
func writePid(path string) error {
	if path == "" {
		return nil
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return fault.New(fault.Invalid, "write pid file", path, "%w", err)
	}
	return fault.Wrap("write pid file", path, os.Rename(tmp, path))
}
