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
	"sync"
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

// registry is a registry in memory that can be made to misbehave.
type registry struct {
	*httptest.Server
	host string

	mu        sync.Mutex
	blobs     map[digest.Digest][]byte
	manifests map[string]served // by tag and by digest
	log       []string          // "GET path range" of each request
	auth      map[string]string // Authorization by path, as it came

	// fault, when set, is asked before each answer and tells whether it has
	// answered itself.
	fault func(w http.ResponseWriter, r *http.Request) bool
}

type served struct {
	mediaType string
	data      []byte
}

func newRegistry(t testing.TB) *registry {
	g := &registry{blobs: map[digest.Digest][]byte{}, manifests: map[string]served{}, auth: map[string]string{}}
	g.Server = httptest.NewServer(g)
	t.Cleanup(g.Close)
	g.host = strings.TrimPrefix(g.URL, "http://")
	return g
}

func (g *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	line := r.Method + " " + r.URL.Path
	if v := r.Header.Get("Range"); v != "" {
		line += " " + v
	}
	g.log = append(g.log, line)
	g.auth[r.URL.Path] = r.Header.Get("Authorization")
	f := g.fault
	g.mu.Unlock()
	if f != nil && f(w, r) {
		return
	}
	g.answer(w, r)
}

func (g *registry) answer(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
	if len(parts) < 3 {
		return
	}
	ref := parts[len(parts)-1]
	if parts[len(parts)-2] == "manifests" {
		m, ok := g.manifests[ref]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`)
			return
		}
		w.Header().Set("Content-Type", m.mediaType)
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(m.data).String())
		w.Write(m.data)
		return
	}
	data, ok := g.blobs[digest.Digest(ref)]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

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
	images *image.Store
	layers *layer.Store
	root   string
}

func build(t testing.TB, bend func(*Config)) *house {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("unpacking layers sets owners, which needs root")
	}
	h := &house{root: t.TempDir()}
	db, err := metadata.Open(filepath.Join(h.root, "metadata.db"))
	if err != nil {
		t.Fatal(err)
	}
	con, err := content.Open(filepath.Join(h.root, "content"))
	if err != nil {
		t.Fatal(err)
	}
	if h.layers, err = layer.Open(h.root, layer.Limits{}); err != nil {
		t.Fatal(err)
	}
	h.images, err = image.Open(context.Background(), image.Options{DB: db, Content: con, Layers: h.layers, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Images: h.images, Content: con, Layers: h.layers, Backoff: time.Millisecond, Stall: 5 * time.Second}
	if bend != nil {
		bend(&c)
	}
	h.Client = New(c)
	t.Cleanup(func() { h.layers.Close(); db.Close() })
	return h
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
