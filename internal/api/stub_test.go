package api

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/internal/engine"
	"berth/internal/engine/filter"
	"berth/internal/fault"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The real engine serves; a compile-time check keeps the two in step.
var _ Engine = (*engine.Engine)(nil)

// stub is an engine without containers or images, for tests of what happens
// between the socket and the engine. Single use cases can be replaced.
type stub struct {
	lifeStub
	buildStub
	create  func(name string, req container.CreateRequest, p *ocispec.Platform) (container.CreateResponse, error)
	stop    func(o engine.StopOptions) error
	list    func(o engine.ListOptions) ([]container.Summary, error)
	inspect func() (container.InspectResponse, error)
	tty     func() (bool, error)
	wait    func(ctx context.Context, cond container.WaitCondition) (<-chan engine.WaitResult, error)
	logs    func(ctx context.Context, o engine.LogsOptions, stdout, stderr io.Writer) error
	attach  func(o engine.AttachOptions, conn *os.File) error
	exec    func(req container.ExecCreateRequest) (string, error)
	execRun func(o engine.ExecStartOptions, conn *os.File) error
	execGet func() (container.ExecInspectResponse, error)
	img     imageStub
	events  func(ctx context.Context, f filter.Set) (<-chan events.Message, error)
	info    func() (system.Info, error)
}

func missing(ref string) error {
	return fault.New(fault.NotFound, "", "", "No such container: %s", ref)
}

func (s *stub) ContainerCreate(_ context.Context, name string, req container.CreateRequest, p *ocispec.Platform) (container.CreateResponse, error) {
	if s.create != nil {
		return s.create(name, req, p)
	}
	return container.CreateResponse{ID: "new"}, nil
}
func (s *stub) ContainerStart(_ context.Context, ref, _ string) error { return missing(ref) }
func (s *stub) ContainerStop(_ context.Context, ref string, o engine.StopOptions) error {
	if s.stop != nil {
		return s.stop(o)
	}
	return missing(ref)
}
func (s *stub) ContainerRestart(ctx context.Context, ref string, o engine.StopOptions) error {
	return s.ContainerStop(ctx, ref, o)
}
func (s *stub) ContainerKill(_ context.Context, ref, _ string) error   { return missing(ref) }
func (s *stub) ContainerPause(_ context.Context, ref string) error     { return missing(ref) }
func (s *stub) ContainerUnpause(_ context.Context, ref string) error   { return missing(ref) }
func (s *stub) ContainerRename(_ context.Context, ref, _ string) error { return missing(ref) }
func (s *stub) ContainerRemove(_ context.Context, ref string, _ engine.RemoveOptions) error {
	return missing(ref)
}
func (s *stub) ContainerList(_ context.Context, o engine.ListOptions) ([]container.Summary, error) {
	if s.list != nil {
		return s.list(o)
	}
	return nil, nil
}
func (s *stub) ContainerInspect(_ context.Context, ref string, _ bool) (container.InspectResponse, error) {
	if s.inspect != nil {
		return s.inspect()
	}
	return container.InspectResponse{}, missing(ref)
}
func (s *stub) ContainerResize(_ context.Context, ref string, _, _ uint16) error { return missing(ref) }
func (s *stub) ContainerWait(ctx context.Context, ref string, cond container.WaitCondition) (<-chan engine.WaitResult, error) {
	if s.wait != nil {
		return s.wait(ctx, cond)
	}
	return nil, missing(ref)
}
func (s *stub) ContainerLogs(ctx context.Context, ref string, o engine.LogsOptions, stdout, stderr io.Writer) error {
	if s.logs != nil {
		return s.logs(ctx, o, stdout, stderr)
	}
	return missing(ref)
}
func (s *stub) ContainerTTY(ref string) (bool, error) {
	if s.tty != nil {
		return s.tty()
	}
	return false, missing(ref)
}
func (s *stub) ContainerAttach(_ context.Context, ref string, o engine.AttachOptions, conn *os.File) error {
	if s.attach != nil {
		return s.attach(o, conn)
	}
	return missing(ref)
}
func (s *stub) ExecCreate(_ context.Context, ref string, req container.ExecCreateRequest) (string, error) {
	if s.exec != nil {
		return s.exec(req)
	}
	return "", missing(ref)
}
func (s *stub) ExecStart(_ context.Context, id string, o engine.ExecStartOptions, conn *os.File) error {
	if s.execRun != nil {
		return s.execRun(o, conn)
	}
	return missing(id)
}
func (s *stub) ExecInspect(_ context.Context, id string) (container.ExecInspectResponse, error) {
	if s.execGet != nil {
		return s.execGet()
	}
	return container.ExecInspectResponse{}, missing(id)
}
func (s *stub) ExecResize(_ context.Context, id string, _, _ uint16) error { return missing(id) }
func (s *stub) NetworkList(context.Context, filter.Set) ([]network.Summary, error) {
	return nil, nil
}
func (s *stub) NetworkInspect(_ context.Context, ref string) (network.Inspect, error) {
	return network.Inspect{}, missing(ref)
}
func (s *stub) Info(context.Context) (system.Info, error) {
	if s.info != nil {
		return s.info()
	}
	return system.Info{}, nil
}
func (s *stub) Version(context.Context) (system.VersionResponse, error) {
	return system.VersionResponse{Version: "test", Components: []system.ComponentVersion{{Name: "Engine", Details: map[string]string{}}}}, nil
}
func (s *stub) Events(ctx context.Context, _, _ time.Time, f filter.Set) (<-chan events.Message, error) {
	if s.events != nil {
		return s.events(ctx, f)
	}
	ch := make(chan events.Message)
	close(ch)
	return ch, nil
}

// ask sends one request without a network and returns the answer.
func ask(t *testing.T, e Engine, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	New(e, nil).ServeHTTP(w, r)
	return w
}

// service is an API on a real unix socket.
type service struct {
	socket string
	client *http.Client
	api    *API
}

// serve starts an API on a unix socket for the time of the test.
func serve(t *testing.T, e Engine) *service {
	t.Helper()
	dir, err := os.MkdirTemp("", "api")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &service{socket: filepath.Join(dir, "s"), api: New(e, nil)}
	ln, err := net.Listen("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: s.api}
	go srv.Serve(ln)
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", s.socket) }}
	s.client = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		s.api.Close()
		srv.Close()
	})
	return s
}

// dial opens a plain connection to the service.
func (s *service) dial(t *testing.T) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: s.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func newRequest(method, path, body, contentType string) *http.Request {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	return r
}

func newRecorder() *httptest.ResponseRecorder { return httptest.NewRecorder() }
