package runtime

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hookLog returns a hook that appends its name, its view of the root and the
// state's status to a file of the host.
func hookLog(name, file string) specs.Hook {
	return specs.Hook{
		Path: "/bin/sh", Args: []string{"sh", "-c", "s=$(cat); echo " + name + " $WHO $(ls -d /usr/share 2>/dev/null) $s >> " + file},
		Env: []string{"WHO=me", "PATH=/bin:/usr/bin"},
	}
}

func TestHooksRunInOrder(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	s := spec(root, "sh", "-c", "echo program >> "+log)
	s.Mounts = append(s.Mounts, specs.Mount{Destination: dir, Source: dir, Options: []string{"bind"}})
	s.Annotations = map[string]string{"key": "value"}
	s.Hooks = &specs.Hooks{
		Prestart:        []specs.Hook{hookLog("prestart", log)},
		CreateRuntime:   []specs.Hook{hookLog("createRuntime", log)},
		CreateContainer: []specs.Hook{hookLog("createContainer", log)},
		StartContainer:  []specs.Hook{hookLog("startContainer", log)},
		Poststart:       []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat > " + dir + "/poststart"}}},
		Poststop:        []specs.Hook{hookLog("poststop", log)},
	}
	check := func(how string) {
		t.Helper()
		b, _ := os.ReadFile(log)
		os.Remove(log)
		var names []string
		for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
			f := strings.Fields(line)
			names = append(names, f[0])
			host := strings.Contains(line, "/usr/share")
			if wantHost := f[0] != "startContainer" && f[0] != "program"; host != wantHost {
				t.Errorf("%s: %s sees the host's root: %v", how, f[0], host)
			}
			if f[0] != "program" && (!strings.Contains(line, `"key":"value"`) || f[1] != "me") {
				t.Errorf("%s: %s", how, line)
			}
			status := map[string]string{"prestart": "creating", "createRuntime": "creating", "createContainer": "creating", "startContainer": "created", "poststop": "stopped"}[f[0]]
			if !strings.Contains(line, `"status":"`+status+`"`) && f[0] != "program" {
				t.Errorf("%s: %s has not status %s: %s", how, f[0], status, line)
			}
		}
		if got := strings.Join(names, " "); got != "prestart createRuntime createContainer startContainer program poststop" {
			t.Errorf("%s: %s", how, got)
		}
		if b, _ := os.ReadFile(filepath.Join(dir, "poststart")); !strings.Contains(string(b), `"status":"running"`) {
			t.Errorf("%s: poststart got %s", how, b)
		}
	}
	ctx := context.Background()
	c, err := Run(ctx, m.options(s))
	if err != nil {
		t.Fatal(err)
	}
	unix.Wait4(c.Init.PID, nil, 0, nil)
	if err := c.Delete(ctx, false); err != nil {
		t.Fatal(err)
	}
	check("run")
	if c, err = Create(ctx, m.options(s)); err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(m.root, c.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := loaded.Start(ctx); err != nil {
		t.Fatal(err)
	}
	unix.Wait4(c.Init.PID, nil, 0, nil)
	if err := loaded.Delete(ctx, false); err != nil {
		t.Fatal(err)
	}
	check("create and start")
}

func TestFailingHookEndsCreation(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	one := 1
	fail := []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo went wrong; exit 3"}}}
	for field, hooks := range map[string]*specs.Hooks{
		"hooks.prestart[0]":        {Prestart: fail},
		"hooks.createRuntime[0]":   {CreateRuntime: fail},
		"hooks.createContainer[0]": {CreateContainer: fail},
		"hooks.startContainer[0]":  {StartContainer: fail},
	} {
		s := spec(root, "true")
		s.Hooks = hooks
		_, err := m.start(m.options(s))
		if err == nil || !strings.Contains(err.Error(), field) || !strings.Contains(err.Error(), "went wrong") {
			t.Errorf("%s: %v", field, err)
		}
	}
	for field, hooks := range map[string]*specs.Hooks{
		"hooks.createRuntime[0]":   {CreateRuntime: []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Timeout: &one}}},
		"hooks.createContainer[0]": {CreateContainer: []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Timeout: &one}}},
	} {
		s := spec(root, "true")
		s.Hooks = hooks
		if _, err := m.start(m.options(s)); err == nil || !strings.Contains(err.Error(), "within 1s") {
			t.Errorf("%s: %v", field, err)
		}
	}
	s := spec(root, "true")
	s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/no/such/hook"}}}
	if _, err := m.start(m.options(s)); err == nil || !strings.Contains(err.Error(), "/no/such/hook") {
		t.Errorf("missing hook: %v", err)
	}
	if l, _ := os.ReadDir(m.root); len(l) != 0 {
		t.Errorf("failed creations left %v", l)
	}
}

func TestCreationIsCanceled(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	s := spec(root, "true")
	ctx, cancel := context.WithCancel(context.Background())
	marker := filepath.Join(t.TempDir(), "runs")
	s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "touch " + marker + "; sleep 60"}}}}
	go func() {
		for {
			if _, err := os.Stat(marker); err == nil {
				cancel()
				return
			}
			unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
		}
	}()
	if _, err := Run(ctx, m.options(s)); err == nil || ctx.Err() == nil {
		t.Errorf("a canceled creation: %v", err)
	}
	if l, _ := os.ReadDir(m.root); len(l) != 0 {
		t.Errorf("it left %v", l)
	}
}
