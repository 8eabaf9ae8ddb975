package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/internal/engine/filter"
	"berth/internal/fault"
	"berth/internal/runtime"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func dupFD(f *os.File) (int, error) { return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0) }

func autoRemove(r *container.CreateRequest) { r.HostConfig.AutoRemove = true }

func policy(name container.RestartPolicyMode) func(*container.CreateRequest) {
	return func(r *container.CreateRequest) { r.HostConfig.RestartPolicy.Name = name }
}

func TestLifeOfAContainer(t *testing.T) {
	b := newBench(t)
	id := b.create("web", nil)
	if s := b.state("web"); s.Status != "created" {
		t.Errorf("%+v", s)
	}
	if err := b.ContainerStop(t.Context(), "web", StopOptions{}); !fault.Is(err, fault.NotModified) {
		t.Errorf("stop of a created one: %v", err)
	}
	b.start(id[:12])
	if s := b.state("web"); s.Status != "running" || !s.Running || s.Pid != os.Getpid() {
		t.Errorf("%+v", s)
	}
	if err := b.ContainerStart(t.Context(), "web", ""); !fault.Is(err, fault.NotModified) {
		t.Errorf("second start: %v", err)
	}
	err := b.ContainerRemove(t.Context(), "web", RemoveOptions{})
	if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "container is running: stop the container before removing or force remove") {
		t.Errorf("remove of a running one: %v", err)
	}
	wait, next, gone := b.wait("web", ""), b.wait("web", "next-exit"), b.wait("web", "removed")
	b.monitor.exit(id, 7)
	if r := wait(); r.StatusCode != 7 {
		t.Errorf("%+v", r)
	}
	if r := next(); r.StatusCode != 7 {
		t.Errorf("%+v", r)
	}
	if s := b.state("web"); s.Status != "exited" || s.ExitCode != 7 || s.Running {
		t.Errorf("%+v", s)
	}
	b.eventually("the monitor forgets it", func() bool { return !b.monitor.knows(id) })
	if err := b.ContainerRemove(t.Context(), "web", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	gone()
	if _, err := b.ContainerInspect(t.Context(), "web", false); !fault.Is(err, fault.NotFound) || err.Error() != "No such container: web" {
		t.Errorf("after removal: %v", err)
	}
	if _, err := os.Stat(filepath.Join(b.cfg.Root, "containers", id)); !os.IsNotExist(err) {
		t.Errorf("files are left: %v", err)
	}
	b.create("web", nil) // the name is free
}

func TestAutoRemove(t *testing.T) {
	b := newBench(t)
	id := b.create("once", autoRemove)
	gone := b.wait(id, "removed")
	exit := b.wait(id, "next-exit")
	b.start(id)
	b.monitor.exit(id, 3)
	if r := exit(); r.StatusCode != 3 {
		t.Errorf("%+v", r)
	}
	if r := gone(); r.StatusCode != 3 || r.Err != nil {
		t.Errorf("%+v", r)
	}
	if list, err := b.ContainerList(t.Context(), ListOptions{All: true}); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
	b.create("once", nil)
}

func TestNamesAreTakenOnce(t *testing.T) {
	b := newBench(t)
	id := b.create("web", nil)
	req := container.CreateRequest{Config: &container.Config{Image: "image"}}
	_, err := b.ContainerCreate(t.Context(), "web", req, nil)
	if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), `The container name "/web" is already in use by container "`+id+`"`) {
		t.Errorf("got %v", err)
	}
	req.Config = &container.Config{Image: "nope"}
	if _, err := b.ContainerCreate(t.Context(), "other", req, nil); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "No such image") {
		t.Errorf("got %v", err)
	}
	if err := b.ContainerRename(t.Context(), "web", "shop"); err != nil {
		t.Fatal(err)
	}
	b.create("web", nil)
	if c, err := b.ContainerInspect(t.Context(), "shop", false); err != nil || c.ID != id || c.Name != "/shop" {
		t.Errorf("%v %v", c.Name, err)
	}
}

func TestStartThatFails(t *testing.T) {
	b := newBench(t)
	id := b.create("web", nil)
	b.monitor.fail(&runtime.ExecError{Path: "serve", Err: errors.New("it is nowhere in PATH"), Code: 127})
	err := b.ContainerStart(t.Context(), id, "")
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "executable file not found in $PATH") {
		t.Errorf("got %v", err)
	}
	if s := b.state(id); s.Status != "created" || s.ExitCode != 127 || s.Error == "" {
		t.Errorf("%+v", s)
	}
	b.start(id) // it can be tried again
	b.monitor.exit(id, 0)

	once := b.create("once", autoRemove)
	gone := b.wait(once, "removed")
	b.monitor.fail(fault.New(fault.Internal, "", "", "no"))
	if err := b.ContainerStart(t.Context(), once, ""); err == nil {
		t.Error("started")
	}
	if r := gone(); r.StatusCode != 128 {
		t.Errorf("%+v", r)
	}
}

func TestStopAndKill(t *testing.T) {
	b := newBench(t)
	id := b.create("web", func(r *container.CreateRequest) { r.Config.StopSignal = "SIGUSR1" })
	b.start(id)
	b.monitor.handle(func(id string, signal int) {
		if signal == int(unix.SIGUSR1) {
			b.monitor.exit(id, 0)
		}
	})
	if err := b.ContainerStop(t.Context(), id, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if s := b.state(id); s.Status != "exited" || s.ExitCode != 0 {
		t.Errorf("%+v", s)
	}
	b.start(id)
	zero := 0
	if err := b.ContainerStop(t.Context(), id, StopOptions{Timeout: &zero}); err != nil {
		t.Fatal(err)
	}
	if s := b.state(id); s.ExitCode != 137 {
		t.Errorf("stopped at once: %+v", s)
	}
	b.start(id)
	if err := b.ContainerKill(t.Context(), id, "SIGHUP"); err != nil {
		t.Fatal(err)
	}
	if s := b.state(id); !s.Running {
		t.Errorf("after SIGHUP: %+v", s)
	}
	if err := b.ContainerKill(t.Context(), id, ""); err != nil {
		t.Fatal(err)
	}
	if s := b.state(id); s.Status != "exited" {
		t.Errorf("after SIGKILL: %+v", s)
	}
	if err := b.ContainerKill(t.Context(), id, ""); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "is not running") {
		t.Errorf("kill of a dead one: %v", err)
	}
	if err := b.ContainerKill(t.Context(), id, "WAT"); !fault.Is(err, fault.Invalid) {
		t.Errorf("unknown signal: %v", err)
	}
}

func TestForcedRemovalKills(t *testing.T) {
	b := newBench(t)
	for _, how := range []func(*container.CreateRequest){nil, autoRemove, policy("always")} {
		id := b.create("web", how)
		b.start(id)
		if err := b.ContainerRemove(t.Context(), id, RemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.ContainerInspect(t.Context(), id, false); !fault.Is(err, fault.NotFound) {
			t.Errorf("still there: %v", err)
		}
		b.eventually("the monitor forgets it", func() bool { return !b.monitor.knows(id) })
	}
}

func TestPause(t *testing.T) {
	b := newBench(t)
	id := b.create("web", nil)
	if err := b.ContainerPause(t.Context(), id); !fault.Is(err, fault.Conflict) {
		t.Errorf("pause of a created one: %v", err)
	}
	b.start(id)
	if err := b.ContainerPause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if s := b.state(id); s.Status != "paused" || !s.Running || !s.Paused {
		t.Errorf("%+v", s)
	}
	if _, err := b.ExecCreate(t.Context(), id, container.ExecCreateRequest{Cmd: []string{"x"}}); !fault.Is(err, fault.Conflict) {
		t.Errorf("exec in a paused one: %v", err)
	}
	b.crash()
	b.open()
	if s := b.state(id); s.Status != "paused" {
		t.Errorf("after a restart of the engine: %+v", s)
	}
	if err := b.ContainerUnpause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	b.monitor.exit(id, 0)
}

func TestRestartPolicy(t *testing.T) {
	b := newBench(t)
	id := b.create("web", policy("always"))
	b.start(id)
	ended := b.wait(id, "not-running")
	for i := range 2 {
		b.monitor.exit(id, 1)
		b.eventually("it runs again", func() bool {
			c, err := b.ContainerInspect(t.Context(), id, false)
			return err == nil && c.State.Status == "running" && c.RestartCount == i+1
		})
	}
	b.monitor.handle(func(id string, _ int) { b.monitor.exit(id, 0) })
	if err := b.ContainerStop(t.Context(), id, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	ended()
	time.Sleep(3 * restartFirst)
	if s := b.state(id); s.Status != "exited" {
		t.Errorf("after a stop: %+v", s)
	}
}

func TestRestartOnFailureGivesUp(t *testing.T) {
	b := newBench(t)
	id := b.create("web", func(r *container.CreateRequest) {
		r.HostConfig.RestartPolicy = container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 1}
	})
	b.start(id)
	ended := b.wait(id, "not-running")
	b.monitor.exit(id, 5)
	b.eventually("it runs again", func() bool {
		c, err := b.ContainerInspect(t.Context(), id, false)
		return err == nil && c.State.Status == "running" && c.RestartCount == 1
	})
	b.monitor.exit(id, 6)
	if r := ended(); r.StatusCode != 6 {
		t.Errorf("%+v", r)
	}
	if s := b.state(id); s.Status != "exited" || s.ExitCode != 6 {
		t.Errorf("%+v", s)
	}
}

func TestEventsOfALife(t *testing.T) {
	b := newBench(t)
	since := time.Now()
	id := b.create("web", func(r *container.CreateRequest) { r.Config.Labels = map[string]string{"tier": "front"} })
	b.start(id)
	ended := b.wait(id, "")
	b.monitor.exit(id, 4)
	ended()
	if err := b.ContainerRemove(t.Context(), id, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	f := filter.Set{}
	f.Add("container", "web")
	ch, err := b.Events(t.Context(), since, time.Now(), f)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for m := range ch {
		got = append(got, string(m.Action))
		if m.Actor.Attributes["image"] != "image" || m.Actor.Attributes["tier"] != "front" {
			t.Errorf("%+v", m)
		}
		if m.Action == events.ActionDie && m.Actor.Attributes["exitCode"] != "4" {
			t.Errorf("%+v", m)
		}
	}
	if strings.Join(got, " ") != "create start die destroy" {
		t.Errorf("%v", got)
	}
}

func TestVolumesOfAContainer(t *testing.T) {
	b := newBench(t)
	host := t.TempDir()
	id := b.create("web", func(r *container.CreateRequest) {
		r.Config.Volumes = map[string]struct{}{"/data": {}}
		r.HostConfig.Binds = []string{"named:/data/../named", filepath.Join(host, "made") + ":/h:ro"}
		r.HostConfig.Tmpfs = map[string]string{"/run": ""}
	})
	c, err := b.ContainerInspect(t.Context(), id, false)
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]container.MountPoint{}
	for _, m := range c.Mounts {
		at[m.Destination] = m
	}
	if len(at) != 3 || at["/named"].Name != "named" || at["/h"].RW || at["/h"].Type != mount.TypeBind || at["/data"].Driver != "local" {
		t.Fatalf("%+v", c.Mounts)
	}
	if text, err := os.ReadFile(filepath.Join(at["/data"].Source, "seed")); err != nil || string(text) != "from the image" {
		t.Errorf("the volume has not got the image's files: %q %v", text, err)
	}
	b.start(id)
	if info, err := os.Stat(filepath.Join(host, "made")); err != nil || !info.IsDir() {
		t.Errorf("the source of a bind was not made: %v", err)
	}
	var s specs.Spec
	if err := json.Unmarshal(b.monitor.spec(id), &s); err != nil {
		t.Fatal(err)
	}
	seen := ""
	for _, m := range s.Mounts {
		if m.Source == at["/data"].Source || m.Destination == "/h" || m.Destination == "/run" {
			seen += m.Destination + " " + fmt.Sprint(m.Options) + "\n"
		}
	}
	if !strings.Contains(seen, "/data [rbind rprivate]") || !strings.Contains(seen, "/h [rbind rprivate rro]") || !strings.Contains(seen, "/run [noexec") {
		t.Errorf("mounts:\n%s", seen)
	}
	from := b.create("taker", func(r *container.CreateRequest) { r.HostConfig.VolumesFrom = []string{"web:ro"} })
	taken, err := b.ContainerInspect(t.Context(), from, false)
	if err != nil || len(taken.Mounts) != 3 {
		t.Fatalf("%+v %v", taken.Mounts, err)
	}
	for _, m := range taken.Mounts {
		if m.RW {
			t.Errorf("%s is writable", m.Destination)
		}
	}
	if err := b.ContainerRemove(t.Context(), id, RemoveOptions{Force: true, Volumes: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(at["/data"].Source); err != nil {
		t.Errorf("a volume which another container mounts was removed: %v", err)
	}
	if _, err := os.Stat(at["/named"].Source); err != nil {
		t.Errorf("a named volume was removed: %v", err)
	}
	_, err = b.ContainerCreate(t.Context(), "", container.CreateRequest{
		Config:     &container.Config{Image: "image"},
		HostConfig: &container.HostConfig{Binds: []string{"/a:/x", "/b:/x"}},
	}, nil)
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "Duplicate mount point: /x") {
		t.Errorf("got %v", err)
	}
}
