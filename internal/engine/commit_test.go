package engine

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/internal/engine/images"
	"berth/internal/engine/images/imagestest"
	"berth/internal/fault"

	"github.com/moby/moby/api/types/container"
)

// change writes into a container's writable layer as its process would.
func (b *bench) change(id, path, text string) {
	b.t.Helper()
	full := filepath.Join(b.dir(id), "upper", path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func TestCommitMakesAnImageOfWhatChanged(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	id := b.create("work", func(r *container.CreateRequest) {
		r.Config.Env, r.Config.Labels, r.Config.Cmd = []string{"KEPT=1"}, map[string]string{"tier": "x"}, []string{"serve", "all"}
	})
	b.change(id, "srv/new", "text")
	b.change(id, "etc/hosts", "") // where the engine mounts its own
	heard := imagestest.Heard(t, &b.bus)
	made, err := b.ImageCommit(t.Context(), images.CommitOptions{Container: "work", Ref: "made:1", Comment: "why", Author: "me", Pause: true,
		Changes: []string{"ENV ADDED=2"}, Config: &container.Config{User: "www"}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := heard(), []string{"tag " + made + " made:1 x"}; !slices.Equal(got, want) {
		t.Errorf("image events %q, want %q", got, want)
	}
	img, err := b.ImageInspect(t.Context(), "made:1", images.InspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := img.Config
	slices.Sort(c.Env)
	if img.ID != made || c.User != "www" || !slices.Equal(c.Cmd, []string{"serve", "all"}) || !slices.Contains(c.Env, "ADDED=2") || !slices.Contains(c.Env, "KEPT=1") || c.Labels["tier"] != "x" || img.Author != "me" || img.Comment != "why" {
		t.Errorf("%+v, %+v", img, c)
	}
	if img.Size-b.size("image") != int64(len("text")) || len(img.RootFS.Layers) != 2 {
		t.Errorf("size %d, layers %v", img.Size, img.RootFS.Layers)
	}
	l, err := b.images.Get(t.Context(), "made:1")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := b.layers.Tree(l.DiffIDs[1])
	if err != nil {
		t.Fatal(err)
	}
	if exists(filepath.Join(tree, "etc")) || !exists(filepath.Join(tree, "srv/new")) {
		t.Error("the layer holds where the engine mounts, or not what changed")
	}
	// What only the engine mounts over is no change at all.
	idle := b.create("idle", nil)
	b.change(idle, "etc/resolv.conf", "")
	if _, err := b.ImageCommit(t.Context(), images.CommitOptions{Container: "idle", Ref: "same"}); err != nil {
		t.Fatal(err)
	}
	if same, err := b.ImageInspect(t.Context(), "same", images.InspectOptions{}); err != nil || len(same.RootFS.Layers) != 1 {
		t.Errorf("%v, %v", same.RootFS.Layers, err)
	}
}

func (b *bench) size(ref string) int64 {
	b.t.Helper()
	img, err := b.ImageInspect(b.t.Context(), ref, images.InspectOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	return img.Size
}

func TestCommitFreezesAndAlwaysThaws(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	id := b.create("work", nil)
	b.start("work")
	b.change(id, "a", "b")
	for _, pause := range []bool{true, false} {
		if _, err := b.ImageCommit(t.Context(), images.CommitOptions{Container: "work", Pause: pause}); err != nil {
			t.Fatal(err)
		}
		if s := b.state("work"); !s.Running || s.Paused {
			t.Errorf("pause %v: the container is %s", pause, s.Status)
		}
	}
	// A commit that fails, and one whose client goes away, thaw as well.
	b.change(id, ".wh.odd", "no layer can hold this name")
	if _, err := b.ImageCommit(t.Context(), images.CommitOptions{Container: "work", Pause: true}); err == nil {
		t.Error("a file with a whiteout's name was committed")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.ImageCommit(gone, images.CommitOptions{Container: "work", Pause: true}); err == nil {
		t.Error("the commit of a client that went away succeeded")
	}
	if s := b.state("work"); !s.Running || s.Paused {
		t.Errorf("after failures the container is %s", s.Status)
	}
	// One that was paused stays so.
	if err := b.ContainerPause(t.Context(), "work"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ImageCommit(t.Context(), images.CommitOptions{Container: "work", Pause: true}); err == nil {
		t.Error("committed")
	}
	if s := b.state("work"); !s.Paused {
		t.Errorf("a paused container is %s after a commit", s.Status)
	}
}

func TestAnEngineKilledInACommitLeavesNothingFrozen(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	frozen, paused := b.create("frozen", nil), b.create("paused", nil)
	b.start("frozen")
	b.start("paused")
	c, err := b.containers.Find(frozen)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.freeze(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := b.ContainerPause(t.Context(), paused); err != nil {
		t.Fatal(err)
	}
	b.crash()
	b.open()
	if s := b.state("frozen"); !s.Running || s.Paused {
		t.Errorf("what a commit had frozen is %s", s.Status)
	}
	if s := b.state("paused"); !s.Paused {
		t.Errorf("what a user had paused is %s", s.Status)
	}
	if left, _ := os.ReadDir(filepath.Join(b.cfg.RunDir, "frozen")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestCommitsThatCannotBe(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.create("work", nil)
	for _, c := range []struct {
		o    images.CommitOptions
		kind fault.Kind
		says string
	}{
		{images.CommitOptions{Container: "nosuch"}, fault.NotFound, "No such container: nosuch"},
		{images.CommitOptions{Container: "work", Ref: "UPPER"}, fault.Invalid, "lowercase"},
		{images.CommitOptions{Container: "work", Ref: "a:b c"}, fault.Invalid, "a:b c"},
		{images.CommitOptions{Container: "work", Ref: "a@sha256:x"}, fault.Invalid, ""},
		{images.CommitOptions{Container: "work", Ref: "a@sha256:" + strings.Repeat("a", 64)}, fault.Invalid, "digest"},
		{images.CommitOptions{Container: "work", Changes: []string{"RUN true"}}, fault.Invalid, "RUN is not a valid change command"},
	} {
		if _, err := b.ImageCommit(t.Context(), c.o); !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c.o, err)
		}
	}
}
