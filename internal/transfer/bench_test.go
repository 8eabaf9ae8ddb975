package transfer

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/klauspost/compress/gzip"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// likeReal makes a tar of about size bytes in files of every length up to 200
// KiB, which gzip to about a third, as those of real images do.
func likeReal(seed uint64, size int64) []byte {
	random := rand.New(rand.NewPCG(seed, 1))
	words := make([][]byte, 4096)
	for i := range words {
		words[i] = make([]byte, 3+random.IntN(9))
		for k := range words[i] {
			words[i][k] = byte(random.IntN(256))
		}
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var text []byte
	for n := 0; size > 0; n++ {
		text = text[:0]
		for length := 1 + random.IntN(200<<10); len(text) < length; {
			text = append(text, words[random.IntN(len(words))]...)
		}
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("data-%d/dir-%d/file-%d", seed, n%40, n), Mode: 0o644, Size: int64(len(text))})
		w.Write(text)
		size -= int64(len(text))
	}
	w.Close()
	return b.Bytes()
}

// BenchmarkTransfer pulls and pushes between Debian's docker-registry and this
// process, for profiles; comparisons are made by make bench.
func BenchmarkTransfer(b *testing.B) {
	if _, err := exec.LookPath("docker-registry"); err != nil {
		b.Skip("docker-registry is not installed (apt-get install docker-registry)")
	}
	for _, tc := range []struct {
		name   string
		layers int
		size   int64
	}{{"one layer of 120 MB", 1, 120 << 20}, {"ten layers of 40 MB", 10, 40 << 20}} {
		g := newRegistry(b)
		var layers [][]byte
		for i := range tc.layers {
			layers = append(layers, likeReal(uint64(i), tc.size))
		}
		g.push("v1", arch, ociGzip, layers...)
		seed := build(b, func(c *Config) { c.KeepBlobs = true })
		if _, _, err := seed.Pull(context.Background(), g.host+"/app:v1", Options{}); err != nil {
			b.Fatal(err)
		}
		host := startRegistryWith(b, b.TempDir(), "", "")
		if err := seed.images.Tag(context.Background(), g.host+"/app:v1", host+"/app:v1"); err != nil {
			b.Fatal(err)
		}
		if _, err := seed.Push(context.Background(), host+"/app:v1", PushOptions{}); err != nil {
			b.Fatal(err)
		}
		for _, keep := range []bool{true, false} {
			b.Run(fmt.Sprintf("pull/%s/keep=%v", tc.name, keep), func(b *testing.B) {
				b.SetBytes(tc.size * int64(tc.layers))
				defer cpu(b)()
				for b.Loop() {
					b.StopTimer()
					h, err := openHouse(b.TempDir(), func(c *Config) { c.KeepBlobs = keep })
					if err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
					if _, _, err := h.Pull(context.Background(), host+"/app:v1", Options{}); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					h.close()
					os.RemoveAll(h.root)
					b.StartTimer()
				}
			})
		}
		b.Run("pull/"+tc.name+"/floor", func(b *testing.B) {
			b.SetBytes(tc.size * int64(tc.layers))
			defer cpu(b)()
			for b.Loop() {
				floor(b, g, host)
			}
		})
		n := 0
		for _, keep := range []bool{true, false} {
			b.Run(fmt.Sprintf("push/%s/keep=%v", tc.name, keep), func(b *testing.B) {
				b.SetBytes(tc.size * int64(tc.layers))
				h, err := openHouse(b.TempDir(), func(c *Config) { c.KeepBlobs = keep })
				if err != nil {
					b.Fatal(err)
				}
				defer h.close()
				if _, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{}); err != nil {
					b.Fatal(err)
				}
				defer cpu(b)()
				for b.Loop() {
					b.StopTimer()
					to := startRegistryWith(b, b.TempDir(), "", "")
					n++
					ref := fmt.Sprintf("%s/app%d:v1", to, n)
					if err := h.images.Tag(context.Background(), g.host+"/app:v1", ref); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
					if _, err := h.Push(context.Background(), ref, PushOptions{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// cpu reports how much time processors spent in this process, which a busy
// machine changes less than how long it took. Removing trees counts, too.
func cpu(b *testing.B) func() {
	used := func() int64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/1e6/float64(b.N), "cpu-ms/op") }
}

// floor fetches, unpacks and writes files, and does nothing else.
func floor(b *testing.B, g *registry, host string) {
	b.Helper()
	dir := b.TempDir()
	var m ocispec.Manifest
	if err := json.Unmarshal(g.manifests["v1"].data, &m); err != nil {
		b.Fatal(err)
	}
	var work errgroup.Group
	work.SetLimit(4)
	for i, l := range m.Layers {
		work.Go(func() error {
			res, err := http.Get("http://" + host + "/v2/app/blobs/" + l.Digest.String())
			if err != nil {
				return err
			}
			defer res.Body.Close()
			z, err := gzip.NewReader(res.Body)
			if err != nil {
				return err
			}
			return writeTree(tar.NewReader(z), filepath.Join(dir, itoa(i)))
		})
	}
	if err := work.Wait(); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	os.RemoveAll(dir)
	b.StartTimer()
}

func writeTree(r *tar.Reader, dir string) error {
	buf := make([]byte, 128<<10)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		p := filepath.Join(dir, h.Name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		f, err := os.Create(p)
		if err != nil {
			return err
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{f}, r, buf); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
}
