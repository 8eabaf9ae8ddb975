// Package imagestest makes stocks of images for tests. It exists because several rooms
// of the engine are about images, and none of their tests needs an engine for it: the
// stores are real, and containers are records that a test makes up.
package imagestest

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/internal/container"
	"berth/internal/content"
	"berth/internal/engine/filter"
	"berth/internal/engine/images"
	"berth/internal/engine/intake"
	"berth/internal/events"
	"berth/internal/image"
	"berth/internal/layer"
	"berth/internal/metadata"

	api "github.com/moby/moby/api/types/events"
)

// Bench is a stock of images on a directory of its own, and its use cases.
type Bench struct {
	*images.Service
	Stock *images.Stock
	DB    *metadata.DB
	Dir   string
	t     testing.TB
}

// New opens a stock without images. Registries are reached through remote, which may
// be nil for tests that reach none.
func New(t testing.TB, remote images.Remote) *Bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: images are unpacked")
	}
	b := &Bench{t: t, Dir: t.TempDir()}
	s := &images.Stock{Containers: container.NewIndex(), Bus: &events.Bus{}}
	var err error
	if b.DB, err = metadata.Open(filepath.Join(b.Dir, "metadata.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.DB.Close() })
	if s.Content, err = content.Open(filepath.Join(b.Dir, "content")); err != nil {
		t.Fatal(err)
	}
	if s.Layers, err = layer.Open(b.Dir, layer.Limits{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Layers.Close() })
	if s.Images, err = image.Open(t.Context(), image.Options{DB: b.DB, Content: s.Content, Layers: s.Layers}); err != nil {
		t.Fatal(err)
	}
	b.Stock, b.Service = s, images.New(s, remote, intake.Open(0, nil))
	return b
}

// Import makes an image whose layer holds one file with content, and returns its id.
func (b *Bench) Import(ref, content string, changes ...string) string {
	b.t.Helper()
	o := images.ImportOptions{Ref: ref, Changes: changes}
	if err := b.ImageImport(b.t.Context(), o, bytes.NewReader(OneFile(b.t, "file", content)), io.Discard); err != nil {
		b.t.Fatal(err)
	}
	img, err := b.Stock.Images.Get(b.t.Context(), ref)
	if err != nil {
		b.t.Fatal(err)
	}
	return img.ID.String()
}

// Names returns the names that a list of images shows, in order, those of one image
// together.
func (b *Bench) Names(o images.ListOptions) []string {
	b.t.Helper()
	all, err := b.ImageList(b.t.Context(), o)
	if err != nil {
		b.t.Fatal(err)
	}
	names := []string{}
	for _, i := range all {
		names = append(names, strings.Join(i.RepoTags, "+"))
	}
	slices.Sort(names)
	return names
}

// Filters are made of keys and values in turn.
func Filters(pairs ...string) filter.Set {
	f := filter.Set{}
	for i := 0; i < len(pairs); i += 2 {
		f.Add(pairs[i], pairs[i+1])
	}
	return f
}

// OneFile is the archive of one file.
func OneFile(t testing.TB, name, content string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Heard collects the events of images on a bus until the returned function is called:
// action, id, name and the label tier of each.
func Heard(t testing.TB, bus *events.Bus) func() []string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	ch := bus.Subscribe(ctx, time.Time{}, time.Time{}, func(m *api.Message) bool { return m.Type == api.ImageEventType })
	return func() []string {
		bus.Publish(api.ImageEventType, "end", "", nil)
		var got []string
		for m := range ch {
			if m.Action == "end" {
				return got
			}
			got = append(got, string(m.Action)+" "+m.Actor.ID+" "+m.Actor.Attributes["name"]+" "+m.Actor.Attributes["tier"])
		}
		return got
	}
}
