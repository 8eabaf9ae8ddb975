package content

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"

	"berth/internal/fault"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "content"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// files returns the names below the store's directories.
func files(t *testing.T, s *Store, sub string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.dir, sub))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestIngestKeepsOnlyWhatIsVerified(t *testing.T) {
	data := []byte("hello, harbour")
	d := digest.FromBytes(data)
	for _, tc := range []struct {
		name     string
		r        io.Reader
		expected digest.Digest
		size     int64
		want     error
		kind     fault.Kind
	}{
		{"all known", bytes.NewReader(data), d, int64(len(data)), nil, 0},
		{"nothing known", bytes.NewReader(data), "", -1, nil, 0},
		{"wrong digest", bytes.NewReader(data), digest.FromString("other"), -1, ErrDigest, fault.Invalid},
		{"too long", bytes.NewReader(data), d, 3, ErrSize, fault.Invalid},
		{"endless", endless{}, d, 100, ErrSize, fault.Invalid},
		{"too short", bytes.NewReader(data), d, 1000, ErrSize, fault.Invalid},
		{"cut", iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(data))), d, -1, iotest.ErrTimeout, fault.Internal},
		{"digest with a path", bytes.NewReader(data), "sha256:../../../../etc/passwd", -1, nil, fault.Invalid},
		{"digest with upper case", bytes.NewReader(data), digest.Digest(strings.ToUpper(string(d))), -1, nil, fault.Invalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := open(t)
			info, err := s.Ingest(context.Background(), tc.r, tc.expected, tc.size)
			if tc.want == nil && tc.kind == 0 {
				if err != nil || info.Digest != d || info.Size != int64(len(data)) {
					t.Fatalf("got %v, %v", info, err)
				}
				got, err := s.Read(d, 100)
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("read back %q, %v", got, err)
				}
			} else {
				if tc.want != nil && !errors.Is(err, tc.want) || fault.KindOf(err) != tc.kind {
					t.Fatalf("got %v (%v), want %v (%v)", err, fault.KindOf(err), tc.want, tc.kind)
				}
				if n := files(t, s, "blobs/sha256"); len(n) != 0 {
					t.Errorf("kept %v", n)
				}
			}
			if n := files(t, s, "ingest"); len(n) != 0 {
				t.Errorf("left %v in ingest", n)
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestConcurrentIngestsOfOneDigest(t *testing.T) {
	s := open(t)
	data := bytes.Repeat([]byte("x"), 1<<20)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := s.Ingest(context.Background(), bytes.NewReader(data), digest.FromBytes(data), -1); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := files(t, s, "blobs/sha256"); len(n) != 1 {
		t.Errorf("blobs: %v", n)
	}
}

func TestOpenSweepsInterruptedIngests(t *testing.T) {
	s := open(t)
	w, err := s.Writer("", -1)
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("half"))
	s2, err := Open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if n := files(t, s2, "ingest"); len(n) != 0 {
		t.Errorf("left %v", n)
	}
	if s2.Has(digest.FromString("half")) {
		t.Error("an interrupted ingest is visible")
	}
}

func TestReadNoticesChangedBytes(t *testing.T) {
	s := open(t)
	info, err := s.Ingest(context.Background(), strings.NewReader("good"), "", -1)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := s.path(info.Digest)
	if err := os.WriteFile(p, []byte("evil"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(info.Digest, 10); !errors.Is(err, ErrDigest) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Read(info.Digest, 3); !errors.Is(err, ErrSize) {
		t.Errorf("above the limit: %v", err)
	}
}

func TestCollectAndWalk(t *testing.T) {
	s := open(t)
	a, _ := s.Ingest(context.Background(), strings.NewReader("a"), "", -1)
	b, _ := s.Ingest(context.Background(), strings.NewReader("bb"), "", -1)
	os.WriteFile(filepath.Join(s.dir, "blobs/sha256/stray"), nil, 0o600)
	if n, err := s.Collect(a.Digest); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if n, err := s.Collect(a.Digest); err != nil || n != 0 {
		t.Errorf("deleting twice: %d, %v", n, err)
	}
	var got []Info
	if err := s.Walk(func(i Info) error { got = append(got, i); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0] != b {
		t.Errorf("walk found %v", got)
	}
	if _, err := s.Open(a.Digest); !fault.Is(err, fault.NotFound) {
		t.Errorf("a deleted blob gives %v", err)
	}
}

func TestCanceledIngest(t *testing.T) {
	s := open(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := s.Ingest(ctx, endless{}, "", -1)
	if !fault.Is(err, fault.Canceled) {
		t.Errorf("got %v", err)
	}
}
