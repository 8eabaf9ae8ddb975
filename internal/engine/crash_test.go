package engine

import (
	"os"
	"path/filepath"
	"testing"

	"berth/internal/fault"
	"berth/internal/metadata"

	"github.com/moby/moby/api/types/container"
)

func TestAnEngineTakesOverWhatRuns(t *testing.T) {
	b := newBench(t)
	id := b.create("web", nil)
	b.start(id)
	b.crash()
	b.open()
	if s := b.state("web"); s.Status != "running" || s.Pid != os.Getpid() {
		t.Fatalf("%+v", s)
	}
	ended := b.wait("web", "")
	b.monitor.exit(id, 9)
	if r := ended(); r.StatusCode != 9 {
		t.Errorf("%+v", r)
	}
}

func TestAnEndWhileNoEngineRan(t *testing.T) {
	b := newBench(t)
	id := b.create("web", nil)
	once := b.create("once", autoRemove)
	again := b.create("again", policy("always"))
	for _, c := range []string{id, once, again} {
		b.start(c)
	}
	b.crash()
	for _, c := range []string{id, once, again} {
		b.monitor.end(c, 5)
	}
	b.open()
	if s := b.state(id); s.Status != "exited" || s.ExitCode != 5 {
		t.Errorf("%+v", s)
	}
	if _, err := b.ContainerInspect(t.Context(), once, false); !fault.Is(err, fault.NotFound) {
		t.Errorf("the one to be removed: %v", err)
	}
	b.eventually("the policy starts it", func() bool { return b.state(again).Status == "running" })
	if b.monitor.knows(id) || b.monitor.knows(once) {
		t.Error("the monitor still holds what has ended")
	}
	b.monitor.handle(func(id string, _ int) { b.monitor.exit(id, 0) })
	if err := b.ContainerStop(t.Context(), again, StopOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestAnEndThatWasCommittedAndNotForgotten(t *testing.T) {
	b := newBench(t)
	id := b.create("web", nil)
	b.start(id)
	exit := b.monitor.end(id, 5)
	c := b.containers.Get(id)
	s, err := c.State().Exited(exitOf(*exit))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.save(c.SetState(s)); err != nil {
		t.Fatal(err)
	}
	b.crash() // before the monitor is told
	b.open()
	if s := b.state(id); s.Status != "exited" || s.ExitCode != 5 {
		t.Errorf("%+v", s)
	}
	if b.monitor.knows(id) {
		t.Error("the monitor still holds it")
	}
	b.start(id)
	b.monitor.exit(id, 0)
}

func TestRemovalThatWasCommittedAndNotFinished(t *testing.T) {
	b := newBench(t)
	id := b.create("web", nil)
	b.start(id)
	if err := b.db.Update(func(tx *metadata.Tx) error { return b.deleteRecord(tx, id, nil) }); err != nil {
		t.Fatal(err)
	}
	b.crash()
	b.open()
	b.eventually("what runs without a record is ended", func() bool { return !b.monitor.knows(id) })
	if _, err := os.Stat(filepath.Join(b.cfg.Root, "containers", id)); !os.IsNotExist(err) {
		t.Errorf("files are left: %v", err)
	}
}

func TestCreateThatWasNotFinished(t *testing.T) {
	b := newBench(t)
	const id = "00000000000000000000000000000000000000000000000000000000000000ff"
	if _, _, err := b.layers.Writable(id, nil); err != nil {
		t.Fatal(err)
	}
	b.crash()
	b.open()
	if _, err := os.Stat(filepath.Join(b.cfg.Root, "containers", id)); !os.IsNotExist(err) {
		t.Errorf("files are left: %v", err)
	}
}

func TestRebootEndsWhatRan(t *testing.T) {
	b := newBench(t)
	plain := b.create("plain", nil)
	policies := map[string]string{
		b.create("always", policy("always")):          "running",
		b.create("unless", policy("unless-stopped")):  "running",
		b.create("failed", policy("on-failure")):      "running",
		b.create("stopped", policy("unless-stopped")): "exited",
		b.create("unstarted", policy("always")):       "created",
	}
	b.start(plain)
	b.monitor.handle(func(id string, _ int) { b.monitor.exit(id, 0) })
	for _, name := range []string{"always", "unless", "failed", "stopped"} {
		b.start(name)
	}
	if err := b.ContainerStop(t.Context(), "stopped", StopOptions{}); err != nil {
		t.Fatal(err)
	}
	b.saveAllLaggards()
	b.crash()
	b.monitor.mu.Lock()
	clear(b.monitor.known)
	b.monitor.mu.Unlock()
	b.open()
	if s := b.state(plain); s.Status != "exited" || s.ExitCode != 255 {
		t.Errorf("plain: %+v", s)
	}
	for id, want := range policies {
		b.eventually(id[:12]+" is "+want, func() bool { return string(b.state(id).Status) == want })
	}
}

func TestAStartBeforeAPowerCutIsRemembered(t *testing.T) {
	b := newBench(t)
	id := b.create("web", policy("always"))
	b.start(id)
	// No laggard was saved yet: only what start itself wrote is on disk.
	b.crash()
	b.monitor.mu.Lock()
	clear(b.monitor.known)
	b.monitor.mu.Unlock()
	b.open()
	b.eventually("it is started again", func() bool { return b.state(id).Status == "running" })
}

func TestEventsLostWithTheMonitorsConnection(t *testing.T) {
	b := newBench(t)
	id := b.create("web", nil)
	b.start(id)
	ended := b.wait(id, "")
	b.monitor.end(id, 8)
	b.monitor.cut()
	if r := ended(); r.StatusCode != 8 {
		t.Errorf("%+v", r)
	}
}

func TestAnOldEndDoesNotEndTheNextRun(t *testing.T) {
	b := newBench(t)
	id := b.create("web", nil)
	b.start(id)
	ended := b.wait(id, "")
	old := b.monitor.end(id, 8)
	b.handleExit(b.containers.Get(id), *old)
	ended()
	b.start(id)
	b.handleExit(b.containers.Get(id), *old) // told twice
	if s := b.state(id); s.Status != "running" {
		t.Errorf("%+v", s)
	}
	// A clock that went back must not make an end unbelievable.
	ended = b.wait(id, "")
	b.monitor.end(id, 3)
	back := *old
	back.Code = 3
	b.handleExit(b.containers.Get(id), back)
	if r := ended(); r.StatusCode != 3 {
		t.Errorf("%+v", r)
	}
}

func TestTwoEnginesOnOneDirectory(t *testing.T) {
	b := newBench(t)
	cfg := b.cfg
	cfg.RunDir = t.TempDir()
	if e, err := Open(t.Context(), cfg); !fault.Is(err, fault.Conflict) {
		t.Errorf("got %v %v", e, err)
	}
	if _, err := b.ContainerList(t.Context(), ListOptions{}); err != nil {
		t.Errorf("the first engine suffered: %v", err)
	}
}

func TestAnUnreadableRecordDoesNotStopTheEngine(t *testing.T) {
	b := newBench(t)
	id := b.create("web", nil)
	broken := metadata.NewBucket[string]("containers")
	if err := b.db.Update(func(tx *metadata.Tx) error { return broken.Put(tx, id, "nonsense") }); err != nil {
		t.Fatal(err)
	}
	b.crash()
	b.open()
	if _, err := os.Stat(filepath.Join(b.cfg.Root, "containers", id)); err != nil {
		t.Errorf("the files of a container whose record is unreadable are gone: %v", err)
	}
	b.create("other", func(r *container.CreateRequest) {})
}

func TestARunThatTheLastEngineDidNotLiveToSee(t *testing.T) {
	b := newBench(t)
	late, ended := b.create("late", nil), b.create("ended", nil)
	b.crash()
	b.open()
	// The dead engine's requests reach the monitor only now.
	b.monitor.begin(late)
	b.monitor.begin(ended)
	b.start(late)
	if s := b.state(late); s.Status != "running" || s.Pid != os.Getpid() {
		t.Errorf("%+v", s)
	}
	b.monitor.exit(late, 0)
	b.monitor.exit(ended, 4)
	b.eventually("the end is recorded", func() bool { return b.state(ended).Status == "exited" })
	if s := b.state(ended); s.ExitCode != 4 {
		t.Errorf("%+v", s)
	}
}
