package transfer

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/content"
	"berth/internal/image"
	"berth/internal/layer"
	"berth/internal/metadata"
)

// requests returns how many requests' lines contain s.
func (g *registry) requests(s string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, l := range g.log {
		if strings.Contains(l, s) {
			n++
		}
	}
	return n
}

func (g *registry) setFault(f func(w http.ResponseWriter, r *http.Request) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fault = f
}

func (g *registry) blob(mediaType string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	g.blobs[d] = data
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (g *registry) manifest(tag, mediaType string, v any) ocispec.Descriptor {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	d := digest.FromBytes(data)
	g.manifests[d.String()] = served{mediaType, data}
	if tag != "" {
		g.manifests[tag] = served{mediaType, data}
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

// packing is how an image's layers are stored.
type packing struct {
	manifest, config, layer string
	pack                    func([]byte) []byte
}

var (
	ociGzip   = packing{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerGzip, gz}
	ociZstd   = packing{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerZstd, zst}
	ociPlain  = packing{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayer, func(b []byte) []byte { return b }}
	dockerTwo = packing{image.DockerManifest, image.DockerConfig, image.DockerLayerGzip, gz}
)

// push puts an image into the registry.
func (g *registry) push(tag, arch string, p packing, layers ...[]byte) (ocispec.Manifest, ocispec.Descriptor) {
	return g.pushBent(tag, arch, p, func(*ocispec.Manifest) {}, layers...)
}

// pushBent lets a test change the manifest before it is stored.
func (g *registry) pushBent(tag, arch string, p packing, bend func(*ocispec.Manifest), layers ...[]byte) (ocispec.Manifest, ocispec.Descriptor) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var ids []string
	m := ocispec.Manifest{MediaType: p.manifest}
	m.SchemaVersion = 2
	for _, l := range layers {
		ids = append(ids, digest.FromBytes(l).String())
		m.Layers = append(m.Layers, g.blob(p.layer, p.pack(l)))
	}
	c, err := json.Marshal(map[string]any{"os": "linux", "architecture": arch, "config": map[string]any{"Cmd": []string{arch}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
	if err != nil {
		panic(err)
	}
	m.Config = g.blob(p.config, c)
	bend(&m)
	d := g.manifest(tag, p.manifest, m)
	d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
	return m, d
}

// house is a puller with the stores it fills.
type house struct {
	*Client
	images  *image.Store
	layers  *layer.Store
	content *content.Store
	root    string
	close   func()
}

func build(t testing.TB, bend func(*Config)) *house {
	t.Helper()
	return buildAt(t, t.TempDir(), bend)
}

func buildAt(t testing.TB, root string, bend func(*Config)) *house {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("unpacking layers sets owners, which needs root")
	}
	h, err := openHouse(root, bend)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.close)
	return h
}

func openHouse(root string, bend func(*Config)) (*house, error) {
	h := &house{root: root}
	db, err := metadata.Open(filepath.Join(h.root, "metadata.db"))
	if err != nil {
		return nil, err
	}
	if h.content, err = content.Open(filepath.Join(h.root, "content")); err != nil {
		return nil, err
	}
	if h.layers, err = layer.Open(h.root, layer.Limits{}); err != nil {
		return nil, err
	}
	h.images, err = image.Open(context.Background(), image.Options{DB: db, Content: h.content, Layers: h.layers, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	c := Config{Images: h.images, Content: h.content, Layers: h.layers, Backoff: time.Millisecond, Stall: 5 * time.Second}
	if bend != nil {
		bend(&c)
	}
	h.Client = New(c)
	h.close = func() { h.layers.Close(); db.Close() }
	return h, nil
}

// empty fails the test unless a failed pull left nothing but what the next try
// goes on from.
func (h *house) empty(t testing.TB) {
	t.Helper()
	images, err := h.images.List(context.Background())
	if err != nil || len(images) != 0 {
		t.Errorf("images: %v, %v", images, err)
	}
	h.idle(t)
	if l := h.layers.List(); len(l) != 0 {
		t.Errorf("layers: %v", l)
	}
	h.layers.Flush()
	for _, sub := range []string{"layers/.tmp", "layers/.trash", "content/ingest", "content/blobs/sha256"} {
		entries, err := os.ReadDir(filepath.Join(h.root, sub))
		entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return strings.HasSuffix(e.Name(), ".part") })
		if err != nil || len(entries) != 0 {
			t.Errorf("%s holds %v, %v", sub, entries, err)
		}
	}
}

// idle waits for downloads that nobody wants any more to end.
func (h *house) idle(t testing.TB) {
	t.Helper()
	for range cap(h.slots) {
		select {
		case h.slots <- struct{}{}:
		case <-time.After(20 * time.Second):
			t.Fatal("a download goes on that nobody waits for")
		}
	}
	for range cap(h.slots) {
		<-h.slots
	}
}

// read returns a file of the topmost layer that has it.
func (h *house) read(t testing.TB, img *image.Image, name string) string {
	t.Helper()
	lower, err := h.layers.Lower(img.DiffIDs)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range lower {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			return string(data)
		}
	}
	t.Fatalf("the image has no %s", name)
	return ""
}

func oneFile(name, data string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))})
	io.WriteString(w, data)
	w.Close()
	return b.Bytes()
}

// noise is data that does not shrink when packed.
func noise(n int, seed uint32) string {
	b := make([]byte, n)
	x := seed*2654435761 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return string(b)
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

// cutAfter answers with only the first n bytes of what was asked for and then
// drops the connection.
func (g *registry) cutAfter(w http.ResponseWriter, r *http.Request, n int) {
	rec := httptest.NewRecorder()
	g.answer(rec, r)
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	fmt.Fprintf(buf, "HTTP/1.1 %d X\r\nContent-Length: %d\r\n", rec.Code, rec.Body.Len())
	if v := rec.Header().Get("Content-Range"); v != "" {
		fmt.Fprintf(buf, "Content-Range: %s\r\n", v)
	}
	fmt.Fprintf(buf, "Content-Type: %s\r\n\r\n", rec.Header().Get("Content-Type"))
	buf.Write(rec.Body.Bytes()[:min(n, rec.Body.Len())])
	buf.Flush()
}

func itoa(n int) string { return strconv.Itoa(n) }

// pushIndex puts an index of two images and an attestation into the registry.
func (g *registry) pushIndex(tag string) (top, attestation ocispec.Descriptor) {
	_, mine := g.push("", arch, ociGzip, oneFile("a", arch))
	_, other := g.push("", "s390x", ociGzip, oneFile("a", "s390x"))
	g.mu.Lock()
	defer g.mu.Unlock()
	a := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: g.blob(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"unknown","os":"unknown"}`)),
		Layers: []ocispec.Descriptor{g.blob("application/vnd.in-toto+json", []byte(`{"_type":"x"}`))}}
	a.SchemaVersion = 2
	attestation = g.manifest("", ocispec.MediaTypeImageManifest, a)
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	attestation.Annotations = map[string]string{attestationType: "attestation-manifest", "vnd.docker.reference.digest": mine.Digest.String()}
	x := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{other, mine, attestation}}
	x.SchemaVersion = 2
	return g.manifest(tag, ocispec.MediaTypeImageIndex, x), attestation
}

// takeSome reads the first n bytes of an upload, keeps them and drops the
// connection.
func (g *registry) takeSome(w http.ResponseWriter, r *http.Request, n int) {
	data, _ := io.ReadAll(io.LimitReader(r.Body, int64(n)))
	id := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	g.mu.Lock()
	g.uploads[id] = append(g.uploads[id], data...)
	g.mu.Unlock()
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	conn.Close()
}
