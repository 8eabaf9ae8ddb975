package tree

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzUntar unpacks damaged and hostile archives; nothing outside may change.
func FuzzUntar(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "d/f", Typeflag: tar.TypeReg, Size: 1, Mode: 0o644},
		{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../../../host"}, {Name: "l/x", Typeflag: tar.TypeReg, Size: 1},
		{Name: "h", Typeflag: tar.TypeLink, Linkname: "d/f"}, {Name: "../up", Typeflag: tar.TypeReg},
	} {
		w.WriteHeader(&h)
		w.Write(make([]byte, h.Size))
	}
	w.Close()
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:700])
	f.Fuzz(func(t *testing.T, data []byte) {
		base := t.TempDir()
		in, host := filepath.Join(base, "a/b/in"), filepath.Join(base, "host")
		os.MkdirAll(in, 0o755)
		os.Mkdir(host, 0o755)
		fd, err := unix.Open(in, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		r := NewRoot(fd, nil)
		defer r.Close()
		_ = r.Untar(context.Background(), bytes.NewReader(data), "/", CopyOptions{})
		for dir, want := range map[string]int{base: 2, filepath.Join(base, "a"): 1, filepath.Join(base, "a/b"): 1, host: 0} {
			if got, _ := os.ReadDir(dir); len(got) != want {
				t.Fatalf("%s has %d entries, want %d", dir, len(got), want)
			}
		}
	})
}
