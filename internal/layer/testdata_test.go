package layer

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"berth/internal/fault"
)

var update = flag.Bool("update", false, "write testdata anew")

const corpusDir = "testdata/hostile"

var errorNames = map[error]string{
	nil: "ok", ErrTraversal: "ErrTraversal", ErrWhiteout: "ErrWhiteout", ErrReserved: "ErrReserved", ErrDevice: "ErrDevice",
	ErrLink: "ErrLink", ErrField: "ErrField", ErrEntryType: "ErrEntryType", ErrTooLarge: "ErrTooLarge", ErrBomb: "ErrBomb",
	ErrCorrupt: "ErrCorrupt", ErrDigest: "ErrDigest", ErrCompressor: "ErrCompressor",
}

// corpusFile names a case's file. What is about the packing itself is stored as
// it is, the rest is packed.
func corpusFile(tc hostileCase) (name string, packed bool) {
	slug := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(tc.name))
	if errors.Is(tc.err, ErrCompressor) || strings.Contains(tc.name, "gzip") {
		return slug + ".bin", false
	}
	return slug + ".tar.gz", true
}

// TestCorpusInTestdata keeps the hostile archives as files, so that other
// programs can be tried on them, with the error that each must lead to. They
// are made by this code: go test -run Corpus -update.
func TestCorpusInTestdata(t *testing.T) {
	needRoot(t)
	cases := hostile(t, "/berth-canary")
	var index strings.Builder
	for _, tc := range cases {
		name, packed := corpusFile(tc)
		fmt.Fprintf(&index, "%s\t%s\n", name, errorNames[tc.err])
		data := tc.tar
		if packed {
			data = gz(data)
		}
		if *update {
			if err := errors.Join(os.MkdirAll(corpusDir, 0o755), os.WriteFile(filepath.Join(corpusDir, name), data, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if *update {
		if err := os.WriteFile(filepath.Join(corpusDir, "EXPECT"), []byte(index.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(filepath.Join(corpusDir, "EXPECT")); err != nil || string(have) != index.String() {
		t.Fatalf("testdata is not what the code makes; run with -update (%v)", err)
	}
	s := openStore(t, diskDir(t))
	for _, tc := range cases {
		name, packed := corpusFile(tc)
		data, err := os.ReadFile(filepath.Join(corpusDir, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := apply(s, data); !errors.Is(err, tc.err) {
			t.Errorf("%s: got %v, want %v", name, err, tc.err)
		}
		if packed {
			if data, err = io.ReadAll(must(gzip.NewReader(bytes.NewReader(data)))); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(data, tc.tar) {
			t.Errorf("%s is not what the code makes; run with -update", name)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// tenGigabytes is a file of 10 GB of zeros in 10 MB: gzip members, one after
// another.
func tenGigabytes() io.Reader {
	const member = 64 << 20
	const size = 160 * member
	zeros := gz(make([]byte, member))
	head := rawHeader('0', "zeros", "", "")
	head[124] = 0x80 // base 256
	for i, v := 135, int64(size); v > 0; i, v = i-1, v>>8 {
		head[i] = byte(v)
	}
	parts := []io.Reader{bytes.NewReader(gz(checksum(head)))}
	for range size / member {
		parts = append(parts, bytes.NewReader(zeros))
	}
	return io.MultiReader(append(parts, bytes.NewReader(gz(make([]byte, 1024))))...)
}

// TestTenGigabytesOfZeros is refused long before it is unpacked, by the limits
// that hold unless others are given.
func TestTenGigabytesOfZeros(t *testing.T) {
	needRoot(t)
	s := openStore(t, diskDir(t))
	if _, err := s.Apply(context.Background(), "", tenGigabytes()); !errors.Is(err, ErrBomb) || !strings.Contains(err.Error(), "bytes came out of") {
		t.Errorf("got %v", err)
	}
	if left := leftovers(t, s); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

// TestWindowsBeyondTheCap: a frame that needs more memory than a decoder must
// offer is refused, with the number.
func TestWindowsBeyondTheCap(t *testing.T) {
	needRoot(t)
	s := openStore(t, diskDir(t))
	frame := func(descriptor byte) []byte { return []byte{0x28, 0xb5, 0x2f, 0xfd, 0, descriptor, 1, 0, 0} }
	first := frame(17 << 3) // 2^27
	later := append(zst(pack(t, file("a", "x"))), first...)
	single := []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0x10, 1, 0, 0} // all of its 256 MiB at once
	for name, tc := range map[string]struct {
		data []byte
		want string
	}{"first": {first, "134217728"}, "later": {later, "8388608"}, "single": {single, "268435456"}} {
		_, err := apply(s, tc.data)
		if !errors.Is(err, ErrCompressor) || !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := apply(s, frame(13<<3)); errors.Is(err, ErrCompressor) {
		t.Errorf("8 MiB: %v", err)
	}
}
