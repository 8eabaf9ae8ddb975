package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"berth/internal/engine/images"
	"berth/internal/fault"
	"berth/internal/monitor"
	"berth/internal/monitor/proto"
	"berth/internal/network"

	"github.com/moby/moby/api/types/container"
)

// fakeMonitor speaks the monitor's protocol and runs nothing: containers end
// when the test says so. It shows what the engine does at instants which the real
// monitor passes through too quickly to be caught there.
type fakeMonitor struct {
	t testing.TB

	mu       sync.Mutex
	conns    map[*proto.Conn]bool
	known    map[string]*monitor.ContainerState
	specs    map[string][]byte
	clock    time.Duration // how far this machine's clock is ahead of the real one
	failNext error
	onSignal func(id string, signal int)
	signals  []int
	forgot   map[string]int
}

func newFakeMonitor(t testing.TB, runDir string) *fakeMonitor {
	t.Helper()
	m := &fakeMonitor{t: t, conns: map[*proto.Conn]bool{}, known: map[string]*monitor.ContainerState{}, specs: map[string][]byte{}, forgot: map[string]int{}}
	dir := monitor.Dir(runDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "monitor.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		m.mu.Lock()
		defer m.mu.Unlock()
		for c := range m.conns {
			_ = c.Close()
		}
	})
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			f, err := c.File()
			c.Close()
			if err != nil {
				return
			}
			go m.serve(f)
		}
	}()
	return m
}

func (m *fakeMonitor) serve(f *os.File) {
	fd, err := dupFD(f)
	f.Close()
	if err != nil {
		return
	}
	conn, err := proto.NewConn(fd, "engine")
	if err != nil {
		return
	}
	defer conn.Close()
	m.mu.Lock()
	m.conns[conn] = true
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.conns, conn)
		m.mu.Unlock()
	}()
	for {
		frame, err := conn.Receive()
		if err != nil {
			return
		}
		answer, err := m.answer(frame)
		out := &proto.Frame{Kind: proto.KindReply, Seq: frame.Seq}
		if frame.Kind == proto.KindHello {
			out.Kind = proto.KindHello
		}
		if err != nil {
			out.Kind, out.Head = proto.KindError, proto.EncodeError(err)
		} else if out.Head, err = json.Marshal(answer); err != nil {
			return
		}
		if conn.Send(out) != nil {
			return
		}
	}
}

func (m *fakeMonitor) answer(f *proto.Frame) (any, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var target proto.Target
	_ = json.Unmarshal(f.Head, &target)
	state := m.known[target.ID]
	switch f.Kind {
	case proto.KindHello:
		return proto.Hello{Version: proto.Version, PID: os.Getpid()}, nil
	case proto.KindStart:
		if err := m.failNext; err != nil {
			m.failNext = nil
			return nil, err
		}
		if state != nil && !state.Exited {
			return nil, fault.New(fault.Conflict, "start container", target.ID, "it is running already")
		}
		now := time.Now().Add(m.clock)
		m.known[target.ID] = &monitor.ContainerState{ID: target.ID, PID: os.Getpid(), StartedAt: now}
		m.specs[target.ID] = f.Blob
		return monitor.Started{PID: os.Getpid(), At: now}, nil
	case proto.KindExec:
		return monitor.Started{PID: os.Getpid(), At: time.Now()}, nil
	case proto.KindSignal:
		var req proto.SignalRequest
		_ = json.Unmarshal(f.Head, &req)
		m.signals = append(m.signals, req.Signal)
		if m.onSignal != nil {
			go m.onSignal(target.ID, req.Signal)
		}
	case proto.KindKillAll:
		if state == nil {
			return nil, fault.New(fault.NotFound, "kill", target.ID, "unknown")
		}
		go m.exit(target.ID, 137)
	case proto.KindPause, proto.KindResume:
		state.Paused = f.Kind == proto.KindPause
	case proto.KindList:
		list := []monitor.ContainerState{}
		for _, s := range m.known {
			list = append(list, *s)
		}
		return list, nil
	case proto.KindForget:
		if state != nil && !state.Exited {
			return nil, fault.New(fault.Conflict, "forget", target.ID, "it runs")
		}
		m.forgot[target.ID]++
		delete(m.known, target.ID)
	}
	return struct{}{}, nil
}

// jump puts the machine's clock forward or back.
func (m *fakeMonitor) jump(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clock += d
}

// begin runs a container without being asked by the engine under test.
func (m *fakeMonitor) begin(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known[id] = &monitor.ContainerState{ID: id, PID: os.Getpid(), StartedAt: time.Now()}
}

// end marks a container as ended without telling anybody.
func (m *fakeMonitor) end(id string, code int) *monitor.Exit {
	m.mu.Lock()
	defer m.mu.Unlock()
	exit := &monitor.Exit{Code: code, At: time.Now().Add(m.clock)}
	if s := m.known[id]; s != nil && !s.Exited {
		s.Exited, s.Exit = true, exit
	}
	return exit
}

// exit ends a container and tells the engine.
func (m *fakeMonitor) exit(id string, code int) {
	m.tell(monitor.Event{Type: monitor.EventExit, ID: id, Exit: m.end(id, code)})
}

func (m *fakeMonitor) tell(ev monitor.Event) {
	head, err := json.Marshal(ev)
	if err != nil {
		m.t.Error(err)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range m.conns {
		_ = c.Send(&proto.Frame{Kind: proto.KindEvent, Head: head})
	}
}

// cut drops every connection, as the death of the worker does.
func (m *fakeMonitor) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range m.conns {
		_ = c.Close()
	}
}

// spec returns the specification with which a container was started.
func (m *fakeMonitor) spec(id string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.specs[id]
}

// fail makes the next start fail.
func (m *fakeMonitor) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failNext = err
}

// handle says what containers do when they get a signal.
func (m *fakeMonitor) handle(fn func(id string, signal int)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onSignal = fn
}

func (m *fakeMonitor) knows(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[id] != nil
}

// bench is an engine with a fake monitor on directories of its own.
type bench struct {
	*Engine
	t       testing.TB
	cfg     Config
	monitor *fakeMonitor
}

func newBench(t testing.TB) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: an engine unpacks images and makes network namespaces")
	}
	dir := t.TempDir()
	b := &bench{t: t, cfg: Config{
		Root: filepath.Join(dir, "root"), RunDir: filepath.Join(dir, "run"), RuntimeBinary: "/none",
		Network: network.Config{PoolSize: -1},
	}}
	b.monitor = newFakeMonitor(t, b.cfg.RunDir)
	b.open()
	t.Cleanup(func() {
		if b.Engine != nil {
			if err := b.Engine.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
	if err := b.ImageImport(t.Context(), images.ImportOptions{Ref: "image", Changes: []string{"CMD [\"serve\"]"}}, bytes.NewReader(rootfs(t)), &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) open() {
	b.t.Helper()
	e, err := Open(b.t.Context(), b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Engine = e
}

// crash abandons the engine as a kill would: nothing is saved or told on the way
// out. The lock and the database's file must be free for the next one.
func (b *bench) crash() {
	b.t.Helper()
	e := b.Engine
	b.Engine = nil
	if err := e.close(); err != nil {
		b.t.Fatal(err)
	}
}

// rootfs is the archive of a root file system with users.
func rootfs(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\nwww:x:33:33::/srv:/bin/sh\n", "etc/group": "root:x:0:\nweb:x:44:www\n", "data/seed": "from the image",
	} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// create makes a container without a network.
func (b *bench) create(name string, change func(*container.CreateRequest)) string {
	b.t.Helper()
	req := container.CreateRequest{
		Config:     &container.Config{Image: "image"},
		HostConfig: &container.HostConfig{NetworkMode: "host"},
	}
	if change != nil {
		change(&req)
	}
	resp, err := b.ContainerCreate(b.t.Context(), name, req, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.ID
}

func (b *bench) start(ref string) {
	b.t.Helper()
	if err := b.ContainerStart(b.t.Context(), ref, ""); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) state(ref string) *container.State {
	b.t.Helper()
	c, err := b.ContainerInspect(b.t.Context(), ref, false)
	if err != nil {
		b.t.Fatal(err)
	}
	return c.State
}

// wait returns a function which waits for the condition that was registered now.
func (b *bench) wait(ref string, cond container.WaitCondition) func() WaitResult {
	b.t.Helper()
	ch, err := b.ContainerWait(b.t.Context(), ref, cond)
	if err != nil {
		b.t.Fatal(err)
	}
	return func() WaitResult {
		b.t.Helper()
		select {
		case r := <-ch:
			return r
		case <-time.After(20 * time.Second):
			b.t.Fatal("the wait was not answered")
			return WaitResult{}
		}
	}
}

// eventually waits for something that happens in the background.
func (b *bench) eventually(what string, holds func() bool) {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if holds() {
			return
		}
	}
	b.t.Fatalf("never: %s", what)
}
