package api

import (
	"context"
	"io"

	"berth/internal/engine"

	"github.com/moby/moby/api/types/container"
)

// lifeStub is the part of the stub behind routesLife.
type lifeStub struct {
	extract func(path string, o engine.ExtractOptions, in io.Reader) error
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
