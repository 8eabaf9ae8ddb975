package build

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// manyFiles makes a context of n files of the given size.
func manyFiles(b *testing.B, n, size int) string {
	dir := b.TempDir()
	buf := make([]byte, size)
	for i := range n {
		d := filepath.Join(dir, fmt.Sprint("d", i/200))
		if i%200 == 0 {
			os.MkdirAll(d, 0o755)
		}
		rand.Read(buf)
		if err := os.WriteFile(filepath.Join(d, fmt.Sprint("f", i)), buf, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	return dir
}

// BenchmarkRebuild builds what is cached already.
func BenchmarkRebuild(b *testing.B) {
	for _, size := range []struct {
		name     string
		n, bytes int
	}{{"2000-files-50MB", 2000, 25 << 10}, {"50000-files", 50000, 64}} {
		b.Run(size.name, func(b *testing.B) {
			h := newHouse(b)
			dir := manyFiles(b, size.n, size.bytes)
			at := func(r *Request) { r.ContextDir = dir }
			const text = "FROM busybox\nCOPY . /src\nRUN ls /src > /list\n"
			h.build(text, nil, at)
			for b.Loop() {
				if o := h.build(text, nil, at); o.ran() != "" {
					b.Fatal(o.ran())
				}
			}
		})
	}
}

// BenchmarkTenSteps builds ten trivial steps without the cache.
func BenchmarkTenSteps(b *testing.B) {
	h := newHouse(b)
	text := "FROM busybox\n"
	for i := range 10 {
		text += fmt.Sprintf("RUN echo %d > /f%d\n", i, i)
	}
	for b.Loop() {
		h.build(text, nil, func(r *Request) { r.NoCache = true })
	}
}
