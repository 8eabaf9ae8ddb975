package tree

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
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
