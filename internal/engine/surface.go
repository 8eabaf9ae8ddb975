package engine

import (
	"context"
	"io"
	"os"
	"time"

	"berth/internal/fault"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var errUnbuilt = fault.New(fault.Unavailable, "", "", "this engine is a skeleton")

func (e *Engine) ContainerCreate(ctx context.Context, name string, req container.CreateRequest, platform *ocispec.Platform) (container.CreateResponse, error) {
	return container.CreateResponse{}, errUnbuilt
}
func (e *Engine) ContainerStart(ctx context.Context, ref string, detachKeys string) error {
	return errUnbuilt
}
func (e *Engine) ContainerStop(ctx context.Context, ref string, o StopOptions) error {
	return errUnbuilt
}
func (e *Engine) ContainerRestart(ctx context.Context, ref string, o StopOptions) error {
	return errUnbuilt
}
func (e *Engine) ContainerKill(ctx context.Context, ref, signal string) error { return errUnbuilt }
func (e *Engine) ContainerRemove(ctx context.Context, ref string, o RemoveOptions) error {
	return errUnbuilt
}
func (e *Engine) ContainerPause(ctx context.Context, ref string) error           { return errUnbuilt }
func (e *Engine) ContainerUnpause(ctx context.Context, ref string) error         { return errUnbuilt }
func (e *Engine) ContainerRename(ctx context.Context, ref, newName string) error { return errUnbuilt }
func (e *Engine) ContainerList(ctx context.Context, o ListOptions) ([]container.Summary, error) {
	return nil, errUnbuilt
}
func (e *Engine) ContainerInspect(ctx context.Context, ref string, size bool) (container.InspectResponse, error) {
	return container.InspectResponse{}, errUnbuilt
}
func (e *Engine) ContainerWait(ctx context.Context, ref string, cond container.WaitCondition) (<-chan WaitResult, error) {
	return nil, errUnbuilt
}
func (e *Engine) ContainerLogs(ctx context.Context, ref string, o LogsOptions, stdout, stderr io.Writer) error {
	return errUnbuilt
}
func (e *Engine) ContainerTTY(ref string) (bool, error) { return false, errUnbuilt }
func (e *Engine) ContainerAttach(ctx context.Context, ref string, o AttachOptions, conn *os.File) error {
	return errUnbuilt
}
func (e *Engine) ContainerResize(ctx context.Context, ref string, h, w uint16) error {
	return errUnbuilt
}
func (e *Engine) ExecCreate(ctx context.Context, ref string, req container.ExecCreateRequest) (string, error) {
	return "", errUnbuilt
}
func (e *Engine) ExecStart(ctx context.Context, id string, o ExecStartOptions, conn *os.File) error {
	return errUnbuilt
}
func (e *Engine) ExecInspect(ctx context.Context, id string) (container.ExecInspectResponse, error) {
	return container.ExecInspectResponse{}, errUnbuilt
}
func (e *Engine) ExecResize(ctx context.Context, id string, h, w uint16) error { return errUnbuilt }
func (e *Engine) ImageLoad(ctx context.Context, r io.Reader, quiet bool, out io.Writer) error {
	return errUnbuilt
}
func (e *Engine) ImageImport(ctx context.Context, o ImageImportOptions, r io.Reader, out io.Writer) error {
	return errUnbuilt
}
func (e *Engine) ImagePull(ctx context.Context, ref string, platform *ocispec.Platform, out io.Writer) error {
	return errUnbuilt
}
func (e *Engine) ImageList(ctx context.Context, o ImageListOptions) ([]image.Summary, error) {
	return nil, errUnbuilt
}
func (e *Engine) ImageInspect(ctx context.Context, ref string) (image.InspectResponse, error) {
	return image.InspectResponse{}, errUnbuilt
}
func (e *Engine) ImageRemove(ctx context.Context, ref string, force, prune bool) ([]image.DeleteResponse, error) {
	return nil, errUnbuilt
}
func (e *Engine) ImageTag(ctx context.Context, src, target string) error { return errUnbuilt }
func (e *Engine) Info(ctx context.Context) (system.Info, error)          { return system.Info{}, errUnbuilt }
func (e *Engine) Version(ctx context.Context) (system.VersionResponse, error) {
	return system.VersionResponse{}, errUnbuilt
}
func (e *Engine) Events(ctx context.Context, since, until time.Time, f Filters) (<-chan events.Message, error) {
	return nil, errUnbuilt
}
func (e *Engine) NetworkList(ctx context.Context, f Filters) ([]network.Summary, error) {
	return nil, errUnbuilt
}
func (e *Engine) NetworkInspect(ctx context.Context, ref string) (network.Inspect, error) {
	return network.Inspect{}, errUnbuilt
}
