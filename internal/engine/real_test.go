package engine

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"berth/internal/engine/filter"
	"berth/internal/fault"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

func TestRealRuns(t *testing.T) {
	b := newReal(t)
	none := func(r *container.CreateRequest) { r.HostConfig.NetworkMode = "none" }
	both := func(list ...func(*container.CreateRequest)) func(*container.CreateRequest) {
		return func(r *container.CreateRequest) {
			for _, f := range list {
				f(r)
			}
		}
	}
	on := true
	for _, tt := range []struct {
		name   string
		change func(*container.CreateRequest)
		code   int64
		out    string
	}{
		{"exit code", shell("exit 42"), 42, ""},
		{"signal", shell("kill -9 $$; sleep 1; echo no"), 0, "no\n"}, // process 1 cannot kill itself
		{"both streams", shell("echo out; echo err >&2"), 0, "out\nerr\n"},
		{"user by name", both(shell("id"), func(r *container.CreateRequest) { r.Config.User = "www" }), 0, "uid=33(www) gid=33 groups=33,44(web)\n"},
		{"user by number", both(shell("id -u; id -g"), func(r *container.CreateRequest) { r.Config.User = "1000" }), 0, "1000\n0\n"},
		{"group added", both(shell("id -G"), func(r *container.CreateRequest) { r.HostConfig.GroupAdd = []string{"web", "7"} }), 0, "0 7 44\n"},
		{"home", both(shell("echo $HOME"), func(r *container.CreateRequest) { r.Config.User = "www" }), 0, "/srv\n"},
		{"working directory", both(shell("pwd"), func(r *container.CreateRequest) { r.Config.WorkingDir = "/not/there" }), 0, "/not/there\n"},
		{"hostname", both(none, shell("hostname; cat /etc/hostname"), func(r *container.CreateRequest) { r.Config.Hostname = "port" }), 0, "port\nport\n"},
		{"init", both(shell("echo $$ $PPID"), func(r *container.CreateRequest) { r.HostConfig.Init = &on }), 0, "2 1\n"},
		{"no network", both(none, shell("ls /sys/class/net")), 0, "lo\n"},
		{"bridge", both(shell("ls /sys/class/net; cat /etc/hosts | busybox grep -c $(hostname)"), func(r *container.CreateRequest) { r.HostConfig.NetworkMode = "bridge" }), 0, "eth0\nlo\n2\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if code, out := b.run("", tt.change); code != tt.code || out != tt.out {
				t.Errorf("exit code %d, output %q; want %d, %q", code, out, tt.code, tt.out)
			}
		})
	}
}

func TestRealProgramsThatCannotStart(t *testing.T) {
	b := newReal(t)
	for command, want := range map[string]string{
		"nope": "executable file not found in $PATH", "/nope": "no such file or directory", "/etc/passwd": "permission denied", "/etc": "is a directory",
	} {
		id := b.create("", func(r *container.CreateRequest) { r.Config.Cmd = []string{command} })
		err := b.ContainerStart(t.Context(), id, "")
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), want) != 1 {
			t.Errorf("%s: %v", command, err)
		}
		code := 127
		if strings.HasPrefix(command, "/etc") {
			code = 126
		}
		if s := b.state(id); s.ExitCode != code || s.Running {
			t.Errorf("%s: %+v", command, s)
		}
	}
}

func TestRealStop(t *testing.T) {
	b := newReal(t)
	on := true
	for _, tt := range []struct {
		name   string
		change func(*container.CreateRequest)
		code   int
		note   bool
	}{
		{"deaf", shell("sleep 1000; true"), 137, true},
		{"caught", shell("trap 'exit 5' TERM; while :; do sleep 0.05; done"), 5, false},
		{"init", func(r *container.CreateRequest) {
			r.Config.Cmd, r.HostConfig.Init = []string{"sleep", "1000"}, &on
		}, 143, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := b.create("", tt.change)
			b.start(id)
			time.Sleep(100 * time.Millisecond) // let the shell set its trap
			note := ""
			began := time.Now()
			if err := b.ContainerStop(t.Context(), id, StopOptions{Note: func(text string) { note = text }}); err != nil {
				t.Fatal(err)
			}
			if s := b.state(id); s.ExitCode != tt.code {
				t.Errorf("%+v", s)
			}
			if (note != "") != tt.note || (tt.note && !strings.Contains(note, "--init")) {
				t.Errorf("note %q", note)
			}
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("it waited %s", took)
			}
		})
	}
	f := filter.Set{}
	f.Add("event", "die")
	ch, err := b.Events(t.Context(), time.Unix(1, 0), time.Now(), f)
	if err != nil {
		t.Fatal(err)
	}
	notes := 0
	for m := range ch {
		if strings.Contains(m.Actor.Attributes["note"], "--init") {
			notes++
		}
	}
	if notes != 1 {
		t.Errorf("%d events say why a stop had to kill", notes)
	}
}

func TestRealAttachAndExec(t *testing.T) {
	b := newReal(t)
	id := b.create("", func(r *container.CreateRequest) {
		r.Config.Cmd, r.Config.OpenStdin, r.Config.StdinOnce = []string{"cat"}, true, true
	})
	far, near := dial(t)
	// Early input, which the HTTP server had read already, comes first.
	o := AttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true, Header: []byte("HEAD\n"), Prefix: []byte("early ")}
	if err := b.ContainerAttach(t.Context(), id, o, far); err != nil {
		t.Fatal(err)
	}
	far.Close()
	b.start(id)
	// Without a terminal the detach keys (ctrl-p, ctrl-q) are data like any other.
	if _, err := near.Write([]byte("late\x10\x11\n")); err != nil {
		t.Fatal(err)
	}
	if err := near.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 5)
	if _, err := io.ReadFull(near, head); err != nil || string(head) != "HEAD\n" {
		t.Errorf("%q %v", head, err)
	}
	if got := readFrames(near); got != "early late\x10\x11\n" {
		t.Errorf("%q", got)
	}
	near.Close()

	id = b.create("", shell("sleep 1000"))
	b.start(id)
	execute := func(req container.ExecCreateRequest) (string, int) {
		t.Helper()
		req.AttachStdout, req.AttachStderr = true, true
		x, err := b.ExecCreate(t.Context(), id, req)
		if err != nil {
			t.Fatal(err)
		}
		far, near := dial(t)
		defer near.Close()
		if err := b.ExecStart(t.Context(), x, ExecStartOptions{}, far); err != nil {
			t.Fatal(err)
		}
		far.Close()
		out := readFrames(near)
		code := -1
		b.eventually("the exec has ended", func() bool {
			i, err := b.ExecInspect(t.Context(), x)
			if err == nil && i.ExitCode != nil {
				code = *i.ExitCode
			}
			return code >= 0
		})
		return out, code
	}
	if out, code := execute(container.ExecCreateRequest{Cmd: []string{"sh", "-c", "echo $X; id -u; exit 9"}, Env: []string{"X=y"}, User: "www"}); out != "y\n33\n" || code != 9 {
		t.Errorf("%q %d", out, code)
	}
	if out, code := execute(container.ExecCreateRequest{Cmd: []string{"nope"}}); !strings.Contains(out, "executable file not found in $PATH") || code != 127 {
		t.Errorf("%q %d", out, code)
	}
	x, err := b.ExecCreate(t.Context(), id, container.ExecCreateRequest{Cmd: []string{"nope"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.ExecStart(t.Context(), x, ExecStartOptions{Detach: true}, nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("detached: %v", err)
	}
	if err := b.ExecStart(t.Context(), x, ExecStartOptions{Detach: true}, nil); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second start: %v", err)
	}
}

func TestRealLogsFollowToTheEnd(t *testing.T) {
	b := newReal(t)
	id := b.create("", shell("for i in 1 2 3; do echo $i; sleep 0.05; done"))
	b.start(id)
	var out bytes.Buffer
	if err := b.ContainerLogs(t.Context(), id, LogsOptions{Stdout: true, Follow: true}, &out, nil); err != nil {
		t.Fatal(err)
	}
	if out.String() != "1\n2\n3\n" {
		t.Errorf("%q", out.String())
	}
	none := b.create("", func(r *container.CreateRequest) { r.HostConfig.LogConfig.Type = "none" })
	err := b.ContainerLogs(t.Context(), none, LogsOptions{Stdout: true}, &out, nil)
	if err == nil || !strings.Contains(err.Error(), "configured logging driver does not support reading") {
		t.Errorf("got %v", err)
	}
}

func TestRealHealth(t *testing.T) {
	b := newReal(t)
	id := b.create("", func(r *container.CreateRequest) {
		r.Config.Cmd = []string{"sleep", "1000"}
		r.Config.Healthcheck = &container.HealthConfig{Test: []string{"CMD-SHELL", "echo looked; test -e /ok"}, Interval: 50 * time.Millisecond, Retries: 2}
	})
	b.start(id)
	health := func() *container.Health { return b.state(id).Health }
	b.eventually("it is unhealthy", func() bool { return health().Status == container.Unhealthy })
	if log := health().Log; len(log) == 0 || log[len(log)-1].Output != "looked\n" || log[len(log)-1].ExitCode != 1 {
		t.Errorf("%+v", log)
	}
	x, err := b.ExecCreate(t.Context(), id, container.ExecCreateRequest{Cmd: []string{"sh", "-c", "> /ok"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.ExecStart(t.Context(), x, ExecStartOptions{Detach: true}, nil); err != nil {
		t.Fatal(err)
	}
	b.eventually("it is healthy", func() bool { return health().Status == container.Healthy })
	b.crash()
	b.open()
	if h := health(); h == nil {
		t.Error("no health after a restart of the engine")
	}
	b.eventually("it is checked again", func() bool { return health().Status == container.Healthy })
}

func TestRealTakeover(t *testing.T) {
	b := newReal(t)
	id := b.create("web", shell("echo one; while ! test -e /go; do sleep 0.02; done; echo two; exit 6"))
	b.start(id)
	b.crash()
	b.open()
	if s := b.state("web"); !s.Running || s.Pid == 0 {
		t.Fatalf("%+v", s)
	}
	ended := b.wait("web", "")
	x, err := b.ExecCreate(t.Context(), id, container.ExecCreateRequest{Cmd: []string{"sh", "-c", "> /go"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.ExecStart(t.Context(), x, ExecStartOptions{Detach: true}, nil); err != nil {
		t.Fatal(err)
	}
	if r := ended(); r.StatusCode != 6 {
		t.Errorf("%+v", r)
	}
	if out := b.output(id); out != "one\ntwo\n" {
		t.Errorf("%q", out)
	}
}

func TestRealNothingIsLeft(t *testing.T) {
	b := newReal(t)
	before := leftovers(t, b)
	for _, mode := range []container.NetworkMode{"bridge", "none", "host"} {
		for range 2 {
			id := b.create("", func(r *container.CreateRequest) {
				r.HostConfig.NetworkMode, r.HostConfig.IpcMode = mode, "shareable"
				r.Config.Volumes = map[string]struct{}{"/data": {}}
				r.Config.Cmd = []string{"sleep", "1000"}
			})
			b.start(id)
			if err := b.ContainerRemove(t.Context(), id, RemoveOptions{Force: true, Volumes: true}); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.layers.Flush()
	var now string
	defer func() {
		if now != before {
			t.Logf("before:\n%s\nnow:\n%s", before, now)
		}
	}()
	b.eventually("nothing is left", func() bool { now = leftovers(t, b); return now == before })
}

func TestRealOOMIsReported(t *testing.T) {
	b := newReal(t)
	id := b.create("", func(r *container.CreateRequest) {
		r.HostConfig.Memory, r.HostConfig.MemorySwap = 16<<20, 16<<20
		r.Config.Cmd = []string{"sh", "-c", "x=$(busybox head -c 100000000 /dev/zero | busybox tr '\\000' x)"}
	})
	wait := b.wait(id, "next-exit")
	b.start(id)
	wait()
	if s := b.state(id); !s.OOMKilled {
		t.Errorf("%+v", s)
	}
	f := filter.Set{}
	f.Add("event", string(events.ActionOOM))
	ch, err := b.Events(t.Context(), time.Unix(1, 0), time.Now(), f)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for range ch {
		n++
	}
	if n == 0 {
		t.Error("no event")
	}
}

// BenchmarkRealLife measures create, start, wait and remove with everything real.
func BenchmarkRealLife(b *testing.B) {
	for _, mode := range []container.NetworkMode{"none", "bridge"} {
		b.Run(string(mode), func(b *testing.B) {
			e := newReal(b)
			b.ReportAllocs()
			for b.Loop() {
				id := e.create("", func(r *container.CreateRequest) { r.HostConfig.NetworkMode = mode })
				wait := e.wait(id, "next-exit")
				e.start(id)
				wait()
				if err := e.ContainerRemove(b.Context(), id, RemoveOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
