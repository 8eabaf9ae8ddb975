package layer

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// BenchmarkApply unpacks the tar named by BERTH_BENCH_TAR (by default one of
// /usr/share/doc and the like, made on the fly) beside GNU tar.
func BenchmarkApply(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("unpacking sets owners, which needs root")
	}
	data := benchTar(b)
	b.Run("berth", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for range b.N {
			s, err := Open(b.TempDir(), Limits{})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := s.Apply(context.Background(), "", bytes.NewReader(data)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("tar", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for range b.N {
			cmd := exec.Command("tar", "-xpf", "-", "--numeric-owner", "--xattrs", "-C", b.TempDir())
			cmd.Stdin = bytes.NewReader(data)
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
		}
	})
}

func benchTar(b *testing.B) []byte {
	if p := os.Getenv("BERTH_BENCH_TAR"); p != "" {
		data, err := os.ReadFile(p)
		if err != nil {
			b.Fatal(err)
		}
		return data
	}
	out := filepath.Join(b.TempDir(), "bench.tar")
	if msg, err := exec.Command("tar", "-C", "/usr", "-cf", out, "share/doc", "lib/x86_64-linux-gnu").CombinedOutput(); err != nil {
		b.Skipf("nothing to pack: %v: %s", err, msg)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		b.Fatal(err)
	}
	return data
}
