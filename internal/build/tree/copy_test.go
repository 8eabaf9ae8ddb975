package tree

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCopyOfManyDirectories copies files side by side, some of which go into the
// same directory by a link: there the last one of a name stays, always.
func TestCopyOfManyDirectories(t *testing.T) {
	ctx := context.Background()
	from, to := t.TempDir(), t.TempDir()
	write := func(name, text string) {
		t.Helper()
		p := filepath.Join(from, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for d := range 30 {
		for f := range 20 {
			write(fmt.Sprintf("d%02d/sub/f%02d", d, f), fmt.Sprintf("%d of %d", f, d))
		}
	}
	for _, d := range []string{"d05", "d17", "d29"} {
		if err := os.Mkdir(filepath.Join(to, d), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../shared", filepath.Join(to, d, "sub")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(to, "shared"), 0o755); err != nil {
		t.Fatal(err)
	}
	d := open(t, from, Options{Flat: true})
	m, err := d.Select(ctx, Selection{Src: "."})
	if err != nil {
		t.Fatal(err)
	}
	if err := rootAt(t, to).Copy(ctx, d, m, "/", CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		for f := range 20 {
			name, want := fmt.Sprintf("d%02d/sub/f%02d", i, f), fmt.Sprintf("%d of %d", f, i)
			if i == 5 || i == 17 || i == 29 {
				name, want = fmt.Sprintf("shared/f%02d", f), fmt.Sprintf("%d of 29", f)
			}
			if got, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(got) != want {
				t.Errorf("%s: %q %v, want %q", name, got, err, want)
			}
		}
	}
}

// TestHolesStayHoles copies files of which some take less room than they are long.
func TestHolesStayHoles(t *testing.T) {
	type piece struct {
		at   int64
		text string
	}
	const most = 1 << 20 // bytes that a copy may take; file systems round up
	for name, f := range map[string]struct {
		size   int64
		pieces []piece
	}{
		"nothing but a hole": {64 << 20, nil},
		"a hole at the end":  {64 << 20, []piece{{0, "begins"}}},
		"holes between":      {64 << 20, []piece{{0, "a"}, {20<<20 + 5, "b"}, {64<<20 - 1, "c"}}},
		"no hole":            {5, []piece{{0, "whole"}}},
		"empty":              {0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, from, to := context.Background(), t.TempDir(), t.TempDir()
			src, err := os.Create(filepath.Join(from, "f"))
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			if err := src.Truncate(f.size); err != nil {
				t.Fatal(err)
			}
			for _, p := range f.pieces {
				if _, err := src.WriteAt([]byte(p.text), p.at); err != nil {
					t.Fatal(err)
				}
			}
			d := open(t, from, Options{Flat: true})
			m, err := d.Select(ctx, Selection{Src: "f"})
			if err != nil {
				t.Fatal(err)
			}
			if err := rootAt(t, to).Copy(ctx, d, m, "/copy", CopyOptions{}); err != nil {
				t.Fatal(err)
			}
			sums, err := d.sums(ctx, m)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(filepath.Join(from, "f"))
			if err != nil || sums[0].Data != sha256.Sum256(want) {
				t.Errorf("the digest is another one: %v", err)
			}
			same, err := sameBytes(filepath.Join(from, "f"), filepath.Join(to, "copy"))
			if err != nil || !same {
				t.Errorf("the copy has other bytes: %v", err)
			}
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(to, "copy"), &st); err != nil || st.Blocks*blockSize > most {
				t.Errorf("the copy takes %d bytes: %v", st.Blocks*blockSize, err)
			}
		})
	}
}

func sameBytes(a, b string) (bool, error) {
	one, err := os.ReadFile(a)
	if err != nil {
		return false, err
	}
	other, err := os.ReadFile(b)
	return bytes.Equal(one, other), err
}
