package layer

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestTrashIsEmptiedWhileMoreComes makes sure that somebody who removes one
// container after another gets the space of the first back meanwhile.
func TestTrashIsEmptiedWhileMoreComes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	trash := newTrash(dir)
	defer trash.stop()
	add := func(name string) string {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Join(p, "upper"), 0o700); err != nil {
			t.Fatal(err)
		}
		trash.add(p)
		return p
	}
	first := add("first")
	for end, i := time.Now().Add(30*time.Second), 0; ; i++ {
		if _, err := os.Lstat(first); errors.Is(err, fs.ErrNotExist) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("what was removed first is still there")
		}
		time.Sleep(calm / 10)
		add(strconv.Itoa(i))
	}
	trash.flush()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}
