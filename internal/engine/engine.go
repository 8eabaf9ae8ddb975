// Package engine holds the use cases of the container engine, one file each. It
// exists so that the API has one place to call and the rooms below (images,
// networks, the monitor, volumes) never meet each other: what a use case needs
// from several of them is put together here, and nothing else is. What can be said or
// read without an engine is in the packages below this one.
//
// Truth. What was created and how it ended is in the metadata database; what
// runs is known by the monitor. A start writes nothing durable: after a crash the
// monitor is asked, and what it knows wins over the record. An end is committed
// before anybody is told of it. A removal commits first and deletes files after;
// what a crash leaves behind has no record and is swept at the next start.
//
// Locks are described in package container. The engine adds none that is held
// while another is taken.
package engine

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"berth/internal/build"
	"berth/internal/container"
	"berth/internal/content"
	"berth/internal/engine/builds"
	"berth/internal/engine/images"
	"berth/internal/engine/intake"
	"berth/internal/engine/measure"
	"berth/internal/engine/networks"
	"berth/internal/engine/reclaim"
	"berth/internal/engine/registries"
	"berth/internal/engine/spec"
	"berth/internal/engine/vocabulary"
	"berth/internal/events"
	"berth/internal/fault"
	"berth/internal/image"
	"berth/internal/layer"
	"berth/internal/metadata"
	"berth/internal/monitor"
	"berth/internal/network"
	"berth/internal/volume"

	"golang.org/x/sys/unix"
)

// The use cases that have rooms of their own; callers find them in the engine.
type (
	imageCases   = images.Service
	buildCases   = builds.Service
	networkCases = networks.Service
)

// Engine is one container engine on one data directory.
type Engine struct {
	cfg     Config
	log     *slog.Logger
	lock    *os.File
	boot    string // id of the running boot
	id      string // of this data directory
	opened  time.Time
	host    vocabulary.Host
	lastCap int

	db      *metadata.DB
	records metadata.Bucket[container.Record]
	content *content.Store
	layers  *layer.Store
	images  *image.Store
	builder *build.Builder
	own     *registries.Own   // the registry that the engine serves itself
	reach   *registries.Reach // how registries are reached
	intake  *intake.Ledger
	stock   *images.Stock
	unused  *reclaim.Images // removes them
	*imageCases
	*buildCases

	liveConfig atomic.Pointer[Live] // nil until Reconfigure; see live
	volumes    *volume.Store
	monitor    *monitor.Client
	network    *network.Manager
	nets       *networks.Set
	*networkCases

	containers *container.Index
	execs      container.Execs
	bus        events.Bus
	specs      spec.Builder
	users      userCache
	laggards   laggards
	restarts   restarts
	probes     probes
	forwards   forwards
	sampler    *measure.Sampler
	counters   measure.Counters

	life context.Context // ends with Close
	end  context.CancelFunc
	work sync.WaitGroup // goroutines which Close waits for
}

// Open locks the data directory, finds or starts the monitor, takes over every
// container which still runs, finishes what an earlier engine left half done and
// returns an engine ready to serve. There is no other start path.
func Open(ctx context.Context, cfg Config) (_ *Engine, err error) {
	e := &Engine{cfg: cfg, log: cfg.Logger, containers: container.NewIndex(),
		opened: time.Now(), records: metadata.NewBucket[container.Record]("containers")}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.life, e.end = context.WithCancel(context.Background())
	e.restarts.init()
	e.probes.init()
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	if err := e.openDirs(); err != nil {
		return nil, err
	}
	e.lookAtHost()
	e.sampler = measure.NewSampler(e.life, &e.work, e.host)
	if err := e.openStores(ctx); err != nil {
		return nil, err
	}
	if e.monitor, err = monitor.Dial(ctx, cfg.RunDir, cfg.RuntimeBinary); err != nil {
		return nil, err
	}
	// From here on no exit is missed: the events of what happens during the
	// reconciliation wait until it is over.
	happenings := e.monitor.Events(e.life)
	if e.network, err = network.Open(ctx, e.networkConfig()); err != nil {
		return nil, err
	}
	if err := e.bus.Keep(filepath.Join(cfg.RunDir, "events.log")); err != nil {
		e.log.Warn("events will not outlive this engine", "error", err)
	}
	if err := e.openNetworks(); err != nil {
		return nil, err
	}
	steps := e.steps()
	if err := e.openBuilder(steps); err != nil {
		return nil, err
	}
	if err := e.reconcile(ctx); err != nil {
		return nil, err
	}
	steps.Sweep() // reconcile has ended those that still ran
	e.forwards.startAll(e)
	e.work.Go(func() { e.follow(happenings) })
	e.work.Go(e.saveLaggards)
	reclaim.KeepBudget(e.life, e.budgeted(), &e.work)
	e.thawForgotten(ctx)
	e.work.Go(e.unused.Sweep)
	return e, e.own.Serve()
}

func (e *Engine) openDirs() error {
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{{e.cfg.Root, 0o710}, {e.cfg.RunDir, 0o711}} {
		if err := os.MkdirAll(d.path, d.mode); err != nil {
			return fault.Wrap("create directory", d.path, err)
		}
	}
	// Others must not pass: what has setuid bits in images and volumes would
	// serve them on the host (CVE-2021-41091).
	switch err := os.Chmod(e.cfg.Root, 0o710); {
	case errors.Is(err, unix.EROFS):
		e.log.Error("the data directory is on a read-only file system: what there is is shown and what runs goes on, but nothing can be made, started or removed",
			"directory", e.cfg.Root)
	case err != nil:
		return fault.Wrap("protect directory", e.cfg.Root, err)
	}
	var err error
	e.lock, err = lockRoot(filepath.Join(e.cfg.Root, "lock"))
	return err
}

func (e *Engine) openStores(ctx context.Context) (err error) {
	root := e.cfg.Root
	if e.db, err = metadata.Open(filepath.Join(root, "metadata.db")); err != nil {
		return err
	}
	if e.content, err = content.Open(filepath.Join(root, "content")); err != nil {
		return err
	}
	if e.layers, err = layer.Open(root, e.cfg.Registry.Limits()); err != nil {
		return err
	}
	if err = e.checkDefaults(e.cfg.Defaults); err != nil {
		return err
	}
	if e.images, err = image.Open(ctx, image.Options{DB: e.db, Content: e.content, Layers: e.layers, Logger: e.log}); err != nil {
		return err
	}
	if err := e.openImages(); err != nil {
		return err
	}
	if e.volumes, err = volume.Open(e.db, filepath.Join(root, "volumes")); err != nil {
		return err
	}
	if err := e.writeInit(); err != nil {
		return err
	}
	return e.readIdentity()
}

// openImages opens what stands between the stores of images and whoever asks for one.
func (e *Engine) openImages() (err error) {
	cfg := e.cfg.Registry
	cfg.UserAgent = "berth/" + e.cfg.Version
	if e.own, err = registries.OpenOwn(cfg, e.content, e.db, e.log); err != nil {
		return err
	}
	e.reach, err = registries.NewReach(cfg, registries.Stores{Images: e.images, Content: e.content, Layers: e.layers}, e.own, e.log)
	if err != nil {
		return err
	}
	e.intake = intake.Open(e.cfg.DiskBudget, e.life.Done())
	e.stock = &images.Stock{Images: e.images, Layers: e.layers, Content: e.content, Containers: e.containers, Bus: &e.bus}
	e.imageCases = images.New(e.stock, e.reach, e.intake)
	return nil
}

// openNetworks opens what stands between the networks and whoever asks about one.
func (e *Engine) openNetworks() (err error) {
	e.nets, err = networks.Open(networks.Stores{
		Manager: e.network, DB: e.db, Containers: e.containers, Records: e.records, Bus: &e.bus, Log: e.log,
		Dir: filepath.Join(e.cfg.Root, "containers"),
	})
	e.networkCases = networks.NewService(e.nets)
	return err
}

// steps is what runs the programs of builds: on the same monitor and the same networks
// as containers.
func (e *Engine) steps() *builds.Steps {
	return builds.NewSteps(builds.Machine{
		Life: e.life, RunDir: e.cfg.RunDir, Host: e.host, LastCap: e.lastCap,
		Monitor: e.monitor, Networks: e.nets, Specs: &e.specs, Log: e.log,
	})
}

// openBuilder opens the builder on the engine's stores.
func (e *Engine) openBuilder(steps *builds.Steps) (err error) {
	e.builder, err = build.Open(build.Options{
		Dir: filepath.Join(e.cfg.Root, "build"), DB: e.db, Layers: e.layers, Images: e.images,
		Executor: steps, Keep: e.cfg.BuildCacheKeep, Logger: e.log,
	})
	e.buildCases = builds.New(e.builder, steps, e.stock, e.imageCases, e.reach, e.intake)
	e.unused = reclaim.NewImages(e.stock, struct {
		*registries.Own
		*build.Builder
	}{e.own, e.builder}, e.log)
	return err
}

// networkConfig completes the network's configuration with the directories.
func (e *Engine) networkConfig() network.Config {
	n := e.cfg.Network
	n.RunDir, n.DataRoot = e.cfg.RunDir, e.cfg.Root
	if n.Logger == nil {
		n.Logger = e.log
	}
	return n
}

// Close stops serving and leaves every container running.
func (e *Engine) Close(context.Context) error {
	e.saveAllLaggards()
	return e.close()
}

func (e *Engine) close() error {
	e.end()
	e.restarts.stop()
	if e.own != nil {
		e.own.Stop()
	}
	e.work.Wait()
	var errs []error
	if e.own != nil {
		errs = append(errs, e.own.Close())
	}
	if e.monitor != nil {
		errs = append(errs, e.monitor.Close())
	}
	if e.builder != nil {
		errs = append(errs, e.builder.Close())
	}
	if e.network != nil {
		e.network.Close()
	}
	for _, c := range []io.Closer{closer(e.layers != nil, e.layers), closer(e.db != nil, e.db), closer(e.lock != nil, e.lock)} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// closer avoids the interface that holds a nil pointer.
func closer(open bool, c io.Closer) io.Closer {
	if !open {
		return nil
	}
	return c
}
