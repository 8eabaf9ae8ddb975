package transfer

import (
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestPullsMemory: four layers of 48 MB at once take less than 64 MB of heap.
func TestPullsMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 400 MB")
	}
	const size, layers, limit = 48 << 20, 4, 64 << 20
	g := newRegistry(t)
	dir := t.TempDir()
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	var ids []string
	for i := range layers {
		d, diffID := writeLayer(t, filepath.Join(dir, itoa(i)), size, byte(i))
		m.Layers = append(m.Layers, d)
		ids = append(ids, `"`+diffID.String()+`"`)
	}
	m.Config = g.blob(ocispec.MediaTypeImageConfig, []byte(`{"os":"linux","architecture":"`+arch+`","rootfs":{"type":"layers","diff_ids":[`+strings.Join(ids, ",")+`]}}`))
	g.manifest("v1", ocispec.MediaTypeImageManifest, m)
	g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		for i, l := range m.Layers {
			if strings.HasSuffix(r.URL.Path, l.Digest.String()) {
				http.ServeFile(w, r, filepath.Join(dir, itoa(i)))
				return true
			}
		}
		return false
	})
	h := build(t, func(c *Config) { c.KeepBlobs = true })
	heap := func() uint64 {
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	runtime.GC()
	before, most := heap(), uint64(0)
	done := make(chan error)
	go func() {
		_, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{})
		done <- err
	}()
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		select {
		case err := <-done:
			tick.Stop()
			if err != nil {
				t.Fatal(err)
			}
			if most > before+limit {
				t.Errorf("the heap grew by %d MB", (most-before)>>20)
			}
			return
		case <-tick.C:
			most = max(most, heap())
		}
	}
}

// writeLayer writes a packed layer with one file of that size, without holding
// it in memory.
func writeLayer(t *testing.T, file string, size int64, seed byte) (ocispec.Descriptor, digest.Digest) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	packed, plain := sha256.New(), sha256.New()
	z, err := gzip.NewWriterLevel(io.MultiWriter(f, packed), gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	w := tarWriter(io.MultiWriter(z, plain), "file", size)
	chunk := []byte(noise(1<<20, uint32(seed)+1))
	for range size >> 20 {
		w.Write(chunk)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.NewDigest(digest.SHA256, packed), Size: fi.Size()}, digest.NewDigest(digest.SHA256, plain)
}
