package api

import (
	"context"
	"io"
	"os"

	"berth/internal/build"
	"berth/internal/build/solve"
	"berth/internal/build/source"
	"berth/internal/engine"
	"berth/internal/engine/builds"
	"berth/internal/engine/filter"
	"berth/internal/engine/networks"
	"berth/internal/engine/reclaim"
	"berth/internal/fault"
	"berth/internal/wire"

	api "github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
)

// lifeStub is the part of the stub behind routesLife.
type lifeStub struct {
	extract func(path string, o engine.ExtractOptions, in io.Reader) error
	plan    func(wire.PlanRequest) (*reclaim.Ahead, error)
}

func (s *lifeStub) ContainerStatPath(_ context.Context, ref, _ string) (container.PathStat, error) {
	return container.PathStat{}, missing(ref)
}

func (s *lifeStub) ContainerArchive(_ context.Context, ref, _ string) (container.PathStat, func(io.Writer) error, func(), error) {
	return container.PathStat{}, nil, nil, missing(ref)
}

func (s *lifeStub) ContainerExtract(_ context.Context, ref, path string, o engine.ExtractOptions, in io.Reader) error {
	if s.extract != nil {
		return s.extract(path, o, in)
	}
	return missing(ref)
}

func (s *lifeStub) ContainerStats(_ context.Context, ref string, _, _ bool) (<-chan container.StatsResponse, error) {
	return nil, missing(ref)
}

func (s *lifeStub) ContainerTop(_ context.Context, ref, _ string) (container.TopResponse, error) {
	return container.TopResponse{}, missing(ref)
}

func (s *lifeStub) ContainerUpdate(_ context.Context, ref string, _ container.UpdateConfig) (container.UpdateResponse, error) {
	return container.UpdateResponse{}, missing(ref)
}

func (s *lifeStub) ContainerExport(_ context.Context, ref string) (func(io.Writer) error, func(), error) {
	return nil, nil, missing(ref)
}

func (s *lifeStub) ContainerWhy(_ context.Context, ref string) (*wire.Why, error) {
	return nil, missing(ref)
}

func (s *lifeStub) VolumeList(context.Context, filter.Set) ([]volume.Volume, error) {
	return nil, nil
}

func (s *lifeStub) VolumeInspect(_ context.Context, name string) (volume.Volume, error) {
	return volume.Volume{}, missing(name)
}

func (s *lifeStub) VolumeCreate(_ context.Context, req volume.CreateRequest) (volume.Volume, error) {
	return volume.Volume{Name: req.Name}, nil
}

func (s *lifeStub) VolumeRemove(_ context.Context, name string, _ bool) error { return missing(name) }

func (s *lifeStub) VolumePrune(context.Context, filter.Set) (engine.VolumePruneReport, error) {
	return engine.VolumePruneReport{}, nil
}

func (s *lifeStub) ContainerChanges(_ context.Context, ref string) ([]container.FilesystemChange, error) {
	return nil, missing(ref)
}

func (s *lifeStub) NetworkCreate(context.Context, network.CreateRequest) (network.CreateResponse, error) {
	return network.CreateResponse{ID: "new"}, nil
}

func (s *lifeStub) NetworkRemove(_ context.Context, ref string) error { return missing(ref) }

func (s *lifeStub) NetworkConnect(_ context.Context, _ string, req network.ConnectRequest) error {
	return missing(req.Container)
}

func (s *lifeStub) NetworkDisconnect(_ context.Context, _ string, req network.DisconnectRequest) error {
	return missing(req.Container)
}

func (s *lifeStub) NetworkPrune(context.Context, filter.Set) (networks.PruneReport, error) {
	return networks.PruneReport{}, nil
}

func (s *lifeStub) DiskUsage(context.Context, engine.DiskUsageOptions) (engine.DiskUsageReport, error) {
	return engine.DiskUsageReport{}, nil
}

func (s *lifeStub) Plan(_ context.Context, req wire.PlanRequest) (*reclaim.Ahead, error) {
	if s.plan != nil {
		return s.plan(req)
	}
	return &reclaim.Ahead{}, nil
}

func (s *lifeStub) ContainerPrune(context.Context, filter.Set) (engine.ContainerPruneReport, error) {
	return engine.ContainerPruneReport{}, nil
}

func (s *lifeStub) Metrics(context.Context, io.Writer) error { return nil }

// buildStub is the part of the stub behind routesBuild.
type buildStub struct{}

func (buildStub) Build(context.Context, build.Request, builds.Options) (*build.Result, error) {
	return nil, fault.New(fault.Invalid, "", "", "the stub builds nothing")
}

func (buildStub) BuildReceive(context.Context, source.Sent) (*source.Incoming, error) {
	return &source.Incoming{}, nil
}

func (buildStub) BuildFiles(context.Context, *build.Result, bool, io.Writer) error { return nil }

func (buildStub) BuildShell(context.Context, solve.Step, builds.ShellOptions, *os.File) error {
	return nil
}

func (buildStub) BuildShellResize(context.Context, solve.Step, uint16, uint16) error { return nil }

func (buildStub) BuildHistory() *build.History { return new(build.History) }

func (buildStub) BuildCache(context.Context, filter.Set) ([]api.CacheRecord, error) {
	return nil, nil
}

func (buildStub) BuildPrune(context.Context, builds.PruneOptions) (*api.CachePruneReport, error) {
	return &api.CachePruneReport{}, nil
}
