package transfer

import (
	"bytes"
	stdgzip "compress/gzip"
	"crypto/sha256"
	"errors"
	"io"
	"testing"
)

// TestGzipWriter: everybody can read it, and it depends on the bytes alone.
func TestGzipWriter(t *testing.T) {
	for _, n := range []int{0, 1, packBlock - 1, packBlock, packBlock + 1, 3*packBlock + 12345} {
		data := []byte(noise(n, 7))
		for i := range data {
			data[i] &= 7 // so that it shrinks
		}
		var sums [][32]byte
		for _, piece := range []int{n + 1, 4096, 100_001} {
			var b bytes.Buffer
			z := newGzipWriter(&b)
			for rest := data; len(rest) > 0; {
				k := min(piece, len(rest))
				z.Write(rest[:k])
				rest = rest[k:]
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			sums = append(sums, sha256.Sum256(b.Bytes()))
			r, err := stdgzip.NewReader(&b)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes in pieces of %d: %d came back, %v", n, piece, len(got), err)
			}
		}
		if sums[0] != sums[1] || sums[1] != sums[2] {
			t.Errorf("%d bytes pack differently", n)
		}
	}
}

// brokenWriter fails after some bytes.
type brokenWriter struct{ left int }

var errBroken = errors.New("broken")

func (w *brokenWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, errBroken
	}
	return len(p), nil
}

func TestGzipWriterFails(t *testing.T) {
	for _, left := range []int{0, 5, 100_000, packBlock} {
		z := newGzipWriter(&brokenWriter{left})
		data := []byte(noise(4*packBlock, 3))
		for range 4 {
			z.Write(data)
		}
		if err := z.Close(); !errors.Is(err, errBroken) {
			t.Errorf("after %d bytes: %v", left, err)
		}
	}
}
