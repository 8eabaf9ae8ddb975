package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/content"
	"berth/internal/layer"
	"berth/internal/metadata"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("unpacking layers sets owners, which needs root")
	}
}

// house is a store with everything it stands on.
type house struct {
	*Store
	root string
	db   *metadata.DB
	lay  *layer.Store
	con  *content.Store
}

// build opens a house in root; it is closed at the test's end or before.
func build(t testing.TB, root string) *house {
	t.Helper()
	needRoot(t)
	h, err := tryBuild(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.close)
	return h
}

func tryBuild(root string) (*house, error) {
	h := &house{root: root}
	var err error
	if h.db, err = metadata.Open(filepath.Join(root, "metadata.db")); err != nil {
		return nil, err
	}
	if h.con, err = content.Open(filepath.Join(root, "content")); err != nil {
		return nil, err
	}
	if h.lay, err = layer.Open(root, layer.Limits{RatioFloor: 1 << 20}); err != nil {
		return nil, err
	}
	h.Store, err = Open(context.Background(), Options{DB: h.db, Content: h.con, Layers: h.lay, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	return h, h.sweep()
}

// sweep is what the engine does when all owners are registered.
func (h *house) sweep() error {
	_, err := h.lay.CollectAll()
	_, err2 := h.con.CollectAll()
	return errors.Join(err, err2)
}

func (h *house) close() {
	h.lay.Close()
	h.db.Close()
}

// empty fails the test unless nothing at all is stored.
func (h *house) empty(t testing.TB) {
	t.Helper()
	images, err := h.List(context.Background())
	if err != nil || len(images) != 0 {
		t.Errorf("images: %v, %v", images, err)
	}
	h.noWaste(t)
}

// noWaste fails the test when layers or blobs are stored that no image has.
func (h *house) noWaste(t testing.TB) {
	t.Helper()
	h.mu.RLock()
	layers, blobs := maps.Clone(h.refs.layers), maps.Clone(h.refs.blobs)
	h.mu.RUnlock()
	for _, d := range h.lay.List() {
		if layers[d] == 0 {
			t.Errorf("layer %s belongs to no image", d)
		}
	}
	h.con.Walk(func(i content.Info) error {
		if blobs[i.Digest] == 0 {
			t.Errorf("blob %s belongs to no image", i.Digest)
		}
		return nil
	})
	h.lay.Flush()
	for _, sub := range []string{"layers/.tmp", "layers/.trash", "content/ingest"} {
		entries, err := os.ReadDir(filepath.Join(h.root, sub))
		if err != nil || len(entries) != 0 {
			t.Errorf("%s holds %v, %v", sub, entries, err)
		}
	}
}

// tarball collects the entries of an archive.
type tarball struct{ ents []tarEnt }

type tarEnt struct {
	h    tar.Header
	data []byte
}

func (b *tarball) file(name string, data []byte) *tarball {
	b.ents = append(b.ents, tarEnt{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))}, data})
	return b
}

func (b *tarball) json(name string, v any) *tarball { return b.file(name, mustJSON(v)) }

func (b *tarball) link(flag byte, name, target string) *tarball {
	b.ents = append(b.ents, tarEnt{tar.Header{Typeflag: flag, Name: name, Linkname: target}, nil})
	return b
}

func (b *tarball) bytes() []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range b.ents {
		if err := w.WriteHeader(&e.h); err != nil {
			panic(err)
		}
		w.Write(e.data)
	}
	w.Close()
	return out.Bytes()
}

func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

func gz(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	w.Close()
	return b.Bytes()
}

func zst(data []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll(data, nil)
}

// oneFile is a layer with one file.
func oneFile(name, data string) []byte { return new(tarball).file(name, []byte(data)).bytes() }

// config is an image config for layers, as the map it is, to be bent by tests.
func config(layers ...[]byte) map[string]any {
	ids := []string{}
	for _, l := range layers {
		ids = append(ids, digest.FromBytes(l).String())
	}
	return map[string]any{
		"architecture": HostPlatform().Architecture, "os": "linux", "created": "2020-01-02T03:04:05Z",
		"config": map[string]any{"Cmd": []string{"/bin/true"}, "Labels": map[string]string{"a": "b"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids},
	}
}

// dockerArchive is what docker save wrote for twenty versions: the manifest
// comes last.
func dockerArchive(tags []string, layers ...[]byte) *tarball {
	b := new(tarball)
	var names []string
	for _, l := range layers {
		name := digest.FromBytes(l).Encoded() + "/layer.tar"
		names = append(names, name)
		b.file(name, l)
	}
	c := mustJSON(config(layers...))
	name := digest.FromBytes(c).Encoded() + ".json"
	b.file(name, c)
	return b.json("manifest.json", []map[string]any{{"Config": name, "RepoTags": tags, "Layers": names}})
}

// layout builds an OCI layout.
type layout struct {
	tarball
	seen map[digest.Digest]bool
}

func (o *layout) blob(mediaType string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	if o.seen == nil {
		o.seen = map[digest.Digest]bool{}
	}
	if !o.seen[d] {
		o.seen[d] = true
		o.file(blobs+d.Encoded(), data)
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

// image adds an image whose layers are packed by pack, and returns its
// manifest's descriptor.
func (o *layout) image(arch, layerType string, pack func([]byte) []byte, layers ...[]byte) ocispec.Descriptor {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	for _, l := range layers {
		m.Layers = append(m.Layers, o.blob(layerType, pack(l)))
	}
	c := config(layers...)
	c["architecture"] = arch
	m.Config = o.blob(ocispec.MediaTypeImageConfig, mustJSON(c))
	d := o.blob(ocispec.MediaTypeImageManifest, mustJSON(m))
	d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
	return d
}

func (o *layout) index(ds ...ocispec.Descriptor) ocispec.Descriptor {
	return o.blob(ocispec.MediaTypeImageIndex, mustJSON(indexOf(ds...)))
}

func indexOf(ds ...ocispec.Descriptor) ocispec.Index {
	x := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: ds}
	x.SchemaVersion = 2
	return x
}

// finish writes the entry point and returns the archive.
func (o *layout) finish(ds ...ocispec.Descriptor) []byte {
	o.json("index.json", indexOf(ds...))
	o.json("oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"})
	return o.bytes()
}

func named(d ocispec.Descriptor, key, name string) ocispec.Descriptor {
	d.Annotations = map[string]string{key: name}
	return d
}

func same(data []byte) []byte { return data }

func (h *house) load(data []byte) ([]Loaded, error) {
	return h.Load(context.Background(), bytes.NewReader(data), LoadOptions{})
}

func (h *house) mustLoad(t testing.TB, data []byte) []Loaded {
	t.Helper()
	l, err := h.load(data)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// read returns a file of a loaded image as a container would see it.
func (h *house) read(t testing.TB, ref, name string) string {
	t.Helper()
	img, err := h.Get(context.Background(), ref)
	if err != nil {
		t.Fatal(err)
	}
	lower, err := h.lay.Lower(img.DiffIDs)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range lower {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			return string(data)
		}
	}
	t.Fatalf("%s has no %s", ref, name)
	return ""
}
