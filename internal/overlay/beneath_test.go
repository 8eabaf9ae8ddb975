package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A part of a mount that is attached nowhere is itself such a mount, on kernels
// that can copy it at once and on those that cannot.
func TestBeneathFindsPartsOfAMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts overlays")
	}
	s := layers(t, 3)
	s.Upper, s.Work = "", ""
	deep := filepath.Join(s.Lower[2], "a", "b")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(deep, "file"), []byte("deep"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"absolute": "/a/b", "upwards": "../../../../a/b", "away": "/etc"} {
		if err := os.Symlink(to, filepath.Join(s.Lower[0], name)); err != nil {
			t.Fatal(err)
		}
	}
	aside := func(base int, name string, recursive bool) (int, error) {
		type result struct {
			fd  int
			err error
		}
		done := make(chan result)
		OnSpoiltThread(func() {
			fd, err := cloneAside(base, name, recursive)
			done <- result{fd, err}
		})
		r := <-done
		return r.fd, r.err
	}
	for way, beneath := range map[string]func(int, string, bool) (int, error){"as this kernel does": Beneath, "before 6.15": aside} {
		for _, name := range []string{"a/b", "/a/b", "../a/b", "absolute", "upwards"} {
			t.Run(way+" "+name, func(t *testing.T) {
				whole, err := Mount(s, 0)
				if err != nil {
					t.Fatal(err)
				}
				fd, err := beneath(whole, name, false)
				_ = unix.Close(whole)
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(fd)
				expect(t, fmt.Sprintf("/proc/self/fd/%d/file", fd), "deep")
			})
		}
		whole, err := Mount(s, 0)
		if err != nil {
			t.Fatal(err)
		}
		if fd, err := beneath(whole, "away", false); !errors.Is(err, unix.ENOENT) {
			_ = unix.Close(fd)
			t.Errorf("%s: a link to /etc led to %d, %v", way, fd, err)
		}
		_ = unix.Close(whole)
	}
}
