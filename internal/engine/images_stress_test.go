package engine

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"berth/internal/engine/images"
	"berth/internal/engine/images/imagestest"
	"berth/internal/fault"
	"berth/internal/wire"

	"github.com/moby/moby/api/types/container"
)

// Whatever is done to images at once, each answer is a good one, and at the end
// nothing is left that nobody has.
func TestEverythingAtOnceWithImages(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.create("base", nil)
	b.change(b.containers.All()[0].ID, "made", "by hand")
	saved := &bytes.Buffer{}
	if err := b.ImageSave(t.Context(), []string{"image"}, nil, saved); err != nil {
		t.Fatal(err)
	}
	ok := func(what string, err error, fine ...fault.Kind) {
		for _, kind := range fine {
			if fault.Is(err, kind) {
				return
			}
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	works := []func(n int){
		func(n int) {
			ref := fmt.Sprintf("imported:%d", n%3)
			ok("import", b.ImageImport(t.Context(), images.ImportOptions{Ref: ref}, bytes.NewReader(imagestest.OneFile(t, "f", strings.Repeat("x", n%4))), io.Discard))
		},
		func(n int) {
			_, err := b.ImageCommit(t.Context(), images.CommitOptions{Container: "base", Ref: fmt.Sprint("made:", n%3), Changes: []string{fmt.Sprintf("ENV N=%d", n%5)}})
			ok("commit", err)
		},
		func(n int) {
			ok("load", b.ImageLoad(t.Context(), bytes.NewReader(saved.Bytes()), images.LoadOptions{Quiet: true}, io.Discard))
		},
		func(n int) {
			_, err := b.ImageRemove(t.Context(), fmt.Sprintf("imported:%d", n%3), n%2 == 0, true)
			ok("remove", err, fault.NotFound, fault.Conflict)
			_, err = b.ImageRemove(t.Context(), fmt.Sprintf("made:%d", n%3), false, true)
			ok("remove", err, fault.NotFound, fault.Conflict)
		},
		func(n int) {
			_, err := b.ImagePrune(t.Context(), nil)
			ok("prune", err, fault.Conflict)
			_, err = b.Plan(t.Context(), wire.PlanRequest{Prunes: []wire.PlanPrune{{Kind: wire.PlanImages}},
				Remove: &wire.PlanRemoval{Kind: wire.PlanImages, Refs: []string{fmt.Sprintf("imported:%d", n%3), fmt.Sprintf("made:%d", n%3)}}})
			ok("plan", err)
		},
		func(n int) {
			list, err := b.ImageList(t.Context(), images.ListOptions{All: true, SharedSize: true, Manifests: true})
			ok("list", err)
			for _, i := range list {
				_, err := b.ImageInspect(t.Context(), i.ID, images.InspectOptions{Manifests: true})
				ok("inspect", err, fault.NotFound)
				_, err = b.ImageHistory(t.Context(), i.ID, nil)
				ok("history", err, fault.NotFound)
				ok("save", b.ImageSave(t.Context(), []string{i.ID}, nil, io.Discard), fault.NotFound)
				ok("verify", b.ImageVerify(t.Context(), i.ID, images.VerifyOptions{}, io.Discard), fault.NotFound)
			}
			_, err = b.ImageTree(t.Context())
			ok("tree", err)
		},
		func(n int) {
			ok("tag", b.ImageTag(t.Context(), "image", fmt.Sprintf("made:%d", n%3)))
			ok("reload", b.ReloadRegistries())
		},
		func(n int) {
			name := fmt.Sprintf("c%d", n)
			_, err := b.ContainerCreate(t.Context(), name, container.CreateRequest{
				Config: &container.Config{Image: fmt.Sprintf("made:%d", n%3), Cmd: []string{"x"}}, HostConfig: &container.HostConfig{NetworkMode: "host"}}, nil)
			if err == nil {
				err = b.ContainerRemove(t.Context(), name, RemoveOptions{Force: true})
			}
			ok("container", err, fault.NotFound)
		},
	}
	rounds := 30
	if testing.Short() {
		rounds = 8
	}
	var wg sync.WaitGroup
	for _, work := range works {
		wg.Go(func() {
			for n := range rounds {
				work(n)
			}
		})
	}
	wg.Wait()
	if err := b.ContainerRemove(t.Context(), "base", RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ImagePrune(t.Context(), imagestest.Filters("dangling", "false")); err != nil {
		t.Fatal(err)
	}
	b.eventually("nothing is left", func() bool {
		return empty(t, b.cfg.Root, "layers") && empty(t, b.cfg.Root, "content/blobs/sha256") && empty(t, b.cfg.Root, "content/ingest")
	})
}

// empty reports whether a directory holds nothing but what is hidden.
func empty(t *testing.T, root, dir string) bool {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			return false
		}
	}
	return true
}
