package layer

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"testing"
)

// TestMemoryDoesNotGrowWithEntries unpacks a layer of many directories, files,
// links and whiteouts, and looks at what is on the heap when all have been
// read. BERTH_ENTRIES=1000000 shows the same of a million.
func TestMemoryDoesNotGrowWithEntries(t *testing.T) {
	needRoot(t)
	n := 30_000
	if v, err := strconv.Atoi(os.Getenv("BERTH_ENTRIES")); err == nil {
		n = v
	}
	live := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	s := openStore(t, diskDir(t))
	before := live()
	var at uint64
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		for i := range n {
			d := fmt.Sprintf("directory%d/", i/3)
			h := tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o2755, ModTime: stamp}
			switch i % 3 {
			case 1:
				h = tar.Header{Name: d + "file", Typeflag: tar.TypeReg, Mode: 0o644, Size: 5, ModTime: stamp}
			case 2:
				h = tar.Header{Name: d + ".wh.gone", Typeflag: tar.TypeReg, Mode: 0o644, ModTime: stamp}
			}
			tw.WriteHeader(&h)
			if h.Size > 0 {
				tw.Write([]byte("12345"))
			}
		}
		tw.Flush()
		at = live()
		tw.Close()
		w.Close()
	}()
	l, err := s.Apply(context.Background(), "", r)
	if err != nil || l.Entries != int64(n) {
		t.Fatalf("%+v, %v", l, err)
	}
	t.Logf("%d entries: %d KiB more on the heap than before", n, (int64(at)-int64(before))>>10)
	if at > before+8<<20 {
		t.Errorf("%d bytes on the heap after %d entries, %d before", at, n, before)
	}
	if !l.Exact {
		t.Error(l.Inexact)
	}
}
