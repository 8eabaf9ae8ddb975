package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

func TestReferencesKeepLayers(t *testing.T) {
	needRoot(t)
	root := diskDir(t)
	s := openStore(t, root)
	l, err := apply(s, pack(t, file("a", "x")))
	if err != nil {
		t.Fatal(err)
	}
	del := func(s *Store, want bool) {
		t.Helper()
		ok, err := deleted(s, l.DiffID)
		if ok != want || err != nil || s.Has(l.DiffID) == want {
			t.Fatalf("deleted %v, %v; there: %v", ok, err, s.Has(l.DiffID))
		}
	}
	h := s.Hold()
	h.Add(l.DiffID)
	del(s, false)
	upper, work, err := s.Writable("c1", []digest.Digest{l.DiffID})
	if err != nil {
		t.Fatal(err)
	}
	h.Release()
	del(s, false)

	// A new engine knows about the container's reference.
	s.Close()
	s = openStore(t, root)
	del(s, false)
	again, work2, err := s.Writable("c1", []digest.Digest{l.DiffID})
	if err != nil || again != upper || work2 != work {
		t.Errorf("the second time: %s, %s, %v", again, work2, err)
	}
	if err := s.RemoveWritable("c1"); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveWritable("c1"); err != nil {
		t.Errorf("removing twice: %v", err)
	}
	del(s, true)
	if _, err := s.Stat(l.DiffID); !fault.Is(err, fault.NotFound) {
		t.Errorf("stat of a deleted layer: %v", err)
	}
	if _, _, err := s.Writable("c2", []digest.Digest{l.DiffID}); !fault.Is(err, fault.NotFound) {
		t.Errorf("a container on a deleted layer: %v", err)
	}
	if n := leftovers(t, s); len(n) != 0 {
		t.Errorf("left %v", n)
	}
}

func TestContainerIDsAreNoPaths(t *testing.T) {
	s := openStore(t, diskDir(t))
	for _, id := range []string{"", ".", "..", "../x", "a/b", ".hidden", "a\x00b", strings.Repeat("x", 129)} {
		if _, _, err := s.Writable(id, nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", id, err)
		}
		if err := s.RemoveWritable(id); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestImageWithoutLayers(t *testing.T) {
	needRoot(t)
	s := openStore(t, diskDir(t))
	if got := listing(t, mountOverlay(t, s, "c1", nil)); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

func TestConcurrentApplyOfOneLayer(t *testing.T) {
	needRoot(t)
	s := openStore(t, diskDir(t))
	data := pack(t, file("a", strings.Repeat("x", 1<<20)))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := s.Apply(context.Background(), digest.FromBytes(data), bytes.NewReader(data)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(s.List()) != 1 || len(leftovers(t, s)) != 0 {
		t.Errorf("layers %v, left %v", s.List(), leftovers(t, s))
	}
}

func TestCancelWhileUnpacking(t *testing.T) {
	needRoot(t)
	s := openStore(t, diskDir(t))
	data := pack(t, file("a", strings.Repeat("x", 4<<20)))
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	go func() {
		w.Write(data[:1<<20])
		cancel()
		w.Write(data[1<<20:])
		w.Close()
	}()
	_, err := s.Apply(ctx, "", r)
	if !fault.Is(err, fault.Canceled) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	r.Close()
	if len(s.List()) != 0 || len(leftovers(t, s)) != 0 {
		t.Errorf("left %v %v", s.List(), leftovers(t, s))
	}
}

// TestRemovalStopsAtMounts: a bind mount that a crash left in a container's
// directory must not lead to the deletion of what it shows.
func TestRemovalStopsAtMounts(t *testing.T) {
	needRoot(t)
	s := openStore(t, diskDir(t))
	if _, _, err := s.Writable("c1", nil); err != nil {
		t.Fatal(err)
	}
	precious := t.TempDir()
	os.WriteFile(filepath.Join(precious, "file"), []byte("x"), 0o600)
	at := filepath.Join(s.containers, "c1", "mnt")
	os.Mkdir(at, 0o755)
	if err := unix.Mount(precious, at, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("no mount here: %v", err)
	}
	t.Cleanup(func() {
		matches, _ := filepath.Glob(filepath.Join(s.layers, ".trash/*/mnt"))
		for _, m := range append(matches, at) {
			unix.Unmount(m, unix.MNT_DETACH)
		}
	})
	if err := s.RemoveWritable("c1"); err != nil {
		t.Fatal(err)
	}
	s.Flush()
	if _, err := os.Stat(filepath.Join(precious, "file")); err != nil {
		t.Fatalf("removal went through the mount: %v", err)
	}
}

// smallDisk mounts a file system of a few MiB where the test's data go.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	needRoot(t)
	at := t.TempDir()
	if err := unix.Mount("small", at, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("no tmpfs here: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

func TestFullDiskGivesTheSpaceBack(t *testing.T) {
	root := smallDisk(t, "4m")
	s := openStore(t, root)
	free := func() uint64 {
		var st unix.Statfs_t
		if err := unix.Statfs(root, &st); err != nil {
			t.Fatal(err)
		}
		return st.Bfree * uint64(st.Bsize)
	}
	before := free()
	data := pack(t, file("a", strings.Repeat("x", 1<<20)), file("b", strings.Repeat("y", 8<<20)))
	_, err := apply(s, data)
	if !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("got %v", err)
	}
	if left := leftovers(t, s); len(left) != 0 || len(s.List()) != 0 {
		t.Errorf("left %v", left)
	}
	if after := free(); after < before {
		t.Errorf("%d bytes free before, %d after", before, after)
	}
	if _, err := apply(s, pack(t, file("a", strings.Repeat("x", 1<<20)))); err != nil {
		t.Errorf("afterwards a small layer: %v", err)
	}
}

// TestKilledWhileUnpacking kills a process in the middle of an Apply, again and
// again, and opens the store after it.
func TestKilledWhileUnpacking(t *testing.T) {
	needRoot(t)
	if root := os.Getenv("BERTH_TEST_APPLY"); root != "" {
		unpackForEver(root)
		return
	}
	root := diskDir(t)
	for i := range 8 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledWhileUnpacking$")
		cmd.Env = append(os.Environ(), "BERTH_TEST_APPLY="+root)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 6)
		if _, err := io.ReadFull(out, buf); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * 3 * time.Millisecond) // where in the work it is does not matter
		cmd.Process.Kill()
		cmd.Wait()

		s, err := Open(root, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if left := leftovers(t, s); len(left) != 0 {
			t.Fatalf("left %v", left)
		}
		for _, d := range s.List() {
			checkWhole(t, s, d)
		}
		s.Close()
	}
}

// unpackForEver is the process that gets killed.
func unpackForEver(root string) {
	s, err := Open(root, Limits{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	for i := 0; ; i++ {
		var b bytes.Buffer
		writeMany(&b, i)
		l, err := s.Apply(context.Background(), "", &b)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if i%2 == 0 {
			deleted(s, l.DiffID)
		}
	}
}

const manyFiles = 200

func checkWhole(t *testing.T, s *Store, d digest.Digest) {
	t.Helper()
	tree, err := s.Tree(d)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(tree)
	if err != nil || len(entries) != manyFiles {
		t.Fatalf("layer %s has %d files of %d, %v", d, len(entries), manyFiles, err)
	}
	if l, err := s.Stat(d); err != nil || l.Entries != manyFiles {
		t.Fatalf("layer %s is recorded as %+v, %v", d, l, err)
	}
}
