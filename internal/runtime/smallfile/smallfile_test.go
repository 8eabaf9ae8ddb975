package smallfile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestReadAndWrite(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	for _, size := range []int{0, 1, 4095, 4096, 4097, 100_000} {
		data := bytes.Repeat([]byte("x"), size)
		if err := Write(name, data, 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := Read(name, 1<<20)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes came back as %d, %v", size, len(got), err)
		}
	}
	if got, err := Read(name, 10); err != nil || len(got) != 11 {
		t.Errorf("a limit of 10 gives %d bytes, %v", len(got), err)
	}
	if st, _ := os.Stat(name); st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", st.Mode())
	}
	if _, err := Read(filepath.Join(t.TempDir(), "none"), 10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if err := Write(filepath.Join(t.TempDir(), "no", "dir"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing directory: %v", err)
	}
	if b, err := Read("/proc/self/stat", 4096); err != nil || len(b) == 0 {
		t.Errorf("a file of procfs: %q, %v", b, err)
	}
}
