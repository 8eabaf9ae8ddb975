package overlay

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Both ways of mounting show the same tree, whatever the number of layers.
func TestMountStacksLayers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts overlays")
	}
	ways := map[string]func(Stack, int) (int, error){"as this kernel does": Mount, "before 6.5": allAtOnce}
	for name, mount := range ways {
		for _, count := range []int{1, 2, 200} {
			t.Run(fmt.Sprintf("%s, %d layers", name, count), func(t *testing.T) {
				s := layers(t, count)
				fd, err := mount(s, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(fd)
				root := fmt.Sprintf("/proc/self/fd/%d/", fd)
				expect(t, root+"top", fmt.Sprint(count-1))
				expect(t, root+"file0", "0")
				if err := os.WriteFile(root+"new", []byte("written"), 0o600); err != nil {
					t.Fatal(err)
				}
				expect(t, filepath.Join(s.Upper, "new"), "written")
			})
		}
	}
}

func TestReadOnlyMountRefusesWrites(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts overlays")
	}
	for name, mount := range map[string]func(Stack, int) (int, error){"as this kernel does": Mount, "before 6.5": allAtOnce} {
		t.Run(name, func(t *testing.T) {
			s := layers(t, 3)
			s.Upper, s.Work = "", ""
			fd, err := mount(s, unix.MOUNT_ATTR_RDONLY)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if err := os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/new", fd), nil, 0o600); err == nil {
				t.Error("a file was written")
			}
		})
	}
}

func TestMissingLayerIsNamed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts overlays")
	}
	for name, mount := range map[string]func(Stack, int) (int, error){"as this kernel does": Mount, "before 6.5": allAtOnce} {
		s := layers(t, 2)
		s.Lower[1] = filepath.Join(t.TempDir(), "absent")
		if fd, err := mount(s, 0); err == nil {
			_ = unix.Close(fd)
			t.Errorf("%s: mounted", name)
		} else if !strings.Contains(err.Error(), "absent") {
			t.Errorf("%s: %v, want the layer's name", name, err)
		}
	}
}

// layers makes count lower directories, each with a file of its own and one that
// the next one up replaces.
func layers(t *testing.T, count int) Stack {
	t.Helper()
	dir := t.TempDir()
	s := Stack{Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work")}
	for _, d := range []string{s.Upper, s.Work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i := range count {
		lower := filepath.Join(dir, fmt.Sprintf("layer%d", i))
		if err := os.Mkdir(lower, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"top", fmt.Sprintf("file%d", i)} {
			if err := os.WriteFile(filepath.Join(lower, name), []byte(fmt.Sprint(i)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		s.Lower = append([]string{lower}, s.Lower...)
	}
	return s
}

func expect(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s: %q, %v; want %q", path, got, err, want)
	}
}
