package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// BenchmarkApply unpacks the tar named by BERTH_BENCH_TAR, packed or not (by
// default one of /usr/share/doc and the like, made on the fly), beside a floor
// that only unpacks and writes files, and GNU tar.
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
	b.Run("floor", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for range b.N {
			parent := b.TempDir()
			spread(parent) // where files go matters more than all else
			dir := filepath.Join(parent, "tree")
			if err := errors.Join(os.Mkdir(dir, 0o700), writeFiles(dir, data)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("tar", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for range b.N {
			cmd := exec.Command("tar", "-xpf", "-", "--numeric-owner", "--xattrs", "-C", b.TempDir())
			if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
				cmd.Args = append(cmd.Args, "-z")
			}
			cmd.Stdin = bytes.NewReader(data)
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
		}
	})
}

// writeFiles is the least that can be done with an archive that one trusts.
func writeFiles(dir string, data []byte) error {
	in, err := NewReader(context.Background(), bytes.NewReader(data), Limits{})
	if err != nil {
		return err
	}
	defer in.Close()
	buf := make([]byte, copySize)
	for tr := tar.NewReader(in); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		p := filepath.Join(dir, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(p, 0o755)
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, p)
		case tar.TypeLink:
			err = os.Link(filepath.Join(dir, h.Linkname), p)
		case tar.TypeReg:
			var f *os.File
			if f, err = os.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, os.FileMode(h.Mode&0o777)); err == nil {
				_, err = io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{tr}, buf)
				f.Close()
			}
		}
		if err != nil {
			return err
		}
	}
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
