package test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// mustWithin runs a command on the host, which must succeed.
func (h *host) mustWithin(argv ...string) string {
	h.t.Helper()
	out, err := h.within(argv...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%v: %v: %s", argv, err, out)
	}
	return string(out)
}

// TestFullDisk fills the file system of the data directory: what needs no room
// goes on, what does is refused in words, a restart works, and room that comes
// back is used.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.mustWithin("mkdir", "-p", h.path("data"))
	h.mustWithin("mount", "-t", "tmpfs", "-o", "size=64m", "berth-test", h.path("data"))
	h.startEngine()
	h.berth("import", h.busyboxTar(), busyboxImage)
	h.berth("run", "-d", "--name", "lives", busyboxImage, "sh", "-c", "while :; do echo line; sleep 0.05; done")
	h.berth("run", "--name", "ended", busyboxImage, "echo", "last words")
	pid := h.berth("inspect", "--format", "{{.State.Pid}}", "lives")
	_, _ = h.within("dd", "if=/dev/zero", "of="+h.path("data", "filler"), "bs=64k").CombinedOutput()

	check := func(when string) {
		t.Helper()
		// Some room may be left in blocks that files have already.
		var refusal outcome
		for range 50 {
			if refusal = h.run("create", busyboxImage, "true"); refusal.code != 0 {
				break
			}
		}
		if refusal.code == 0 || !strings.Contains(refusal.stderr, "no space left") {
			t.Errorf("%s: create: code %d, %q", when, refusal.code, refusal.stderr)
		}
		h.equal(h.berth("inspect", "--format", "{{.State.Pid}} {{.State.Running}}", "lives"), pid+" true")
		h.equal(h.berth("logs", "ended"), "last words")
		h.equal(h.berth("exec", "lives", "echo", "inside"), "inside")
		if !strings.Contains(h.berth("images"), "test/busybox") || !strings.Contains(h.berth("ps", "-a"), "ended") {
			t.Errorf("%s: the lists are not whole", when)
		}
		if o := h.run("import", h.busyboxTar(), "too:big"); o.code == 0 || !strings.Contains(o.stderr, "no space left") {
			t.Errorf("%s: import: code %d, %q", when, o.code, o.stderr)
		}
	}
	check("full")
	h.killEngine()
	h.startEngine()
	check("full and started again")
	// Removing must be possible where it is the way out.
	if o := h.run("rm", "ended"); o.code != 0 {
		t.Errorf("rm on a full disk: code %d: %s", o.code, o.stderr)
	}
	h.mustWithin("rm", h.path("data", "filler"))
	h.equal(h.berth("run", "--rm", busyboxImage, "echo", "room again"), "room again")
	h.berth("kill", "lives")
	h.eventually("the end is known", func() bool { return h.try("inspect", "--format", "{{.State.Running}}", "lives") == "false" })
}

// TestReadOnlyDataDirectory makes the data directory read-only, as a kernel does
// with a file system that has errors: the engine shows what there is and leaves
// what runs alone; whatever would write is refused in words.
func TestReadOnlyDataDirectory(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.berth("run", "-d", "--name", "lives", busyboxImage, "sleep", "1000")
	h.berth("run", "--name", "ended", busyboxImage, "echo", "last words")
	h.berth("volume", "create", "kept")
	h.killEngine()
	h.mustWithin("mount", "--bind", h.path("data"), h.path("data"))
	h.mustWithin("mount", "-o", "remount,ro,bind", h.path("data"))
	h.startEngine()
	if log := h.engineLog(); !strings.Contains(log, "read-only") {
		t.Errorf("the log does not say what is wrong:\n%s", log)
	}
	h.equal(h.berth("inspect", "--format", "{{.State.Running}}", "lives"), "true")
	h.equal(h.berth("logs", "ended"), "last words")
	h.equal(h.berth("exec", "lives", "echo", "inside"), "inside")
	h.equal(h.berth("volume", "ls", "-q"), "kept")
	if !strings.Contains(h.berth("images"), "test/busybox") {
		t.Error("the image is not listed")
	}
	for _, args := range [][]string{{"create", busyboxImage, "true"}, {"rm", "ended"}, {"import", h.busyboxTar(), "x:1"}, {"volume", "create", "fresh"}, {"tag", busyboxImage, "y:1"}, {"network", "create", "n"}} {
		if o := h.run(args...); o.code == 0 || !strings.Contains(o.stderr, "read-only") {
			t.Errorf("berth %s: code %d, %q", args[0], o.code, o.stderr)
		}
	}
	h.berth("kill", "lives")
	h.eventually("the end is known", func() bool { return h.try("inspect", "--format", "{{.State.Running}}", "lives") == "false" })
	h.killEngine()
	h.mustWithin("umount", h.path("data"))
	h.startEngine()
	h.equal(h.berth("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "lives"), "exited 137")
	h.equal(h.berth("run", "--rm", busyboxImage, "echo", "again"), "again")
}

// TestMissingDirectories takes away one directory of the engine after the other.
func TestMissingDirectories(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.berth("run", "-d", "--name", "lives", busyboxImage, "sleep", "1000")
	h.berth("volume", "create", "kept")
	pid := h.berth("inspect", "--format", "{{.State.Pid}}", "lives")
	entries, err := os.ReadDir(h.path("data"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		h.killEngine()
		if err := os.Rename(h.path("data", entry.Name()), h.path("aside")); err != nil {
			t.Fatal(err)
		}
		h.startEngine()
		if got := h.try("inspect", "--format", "{{.State.Pid}}", "lives"); got != pid {
			t.Errorf("without %s: the container is %q, was %s", entry.Name(), got, pid)
		}
		if o := h.run("images"); o.code != 0 {
			t.Errorf("without %s: images: %s", entry.Name(), o.stderr)
		}
		if o := h.run("run", "--rm", busyboxImage, "true"); o.code != 0 && o.stderr == "" {
			t.Errorf("without %s: run fails without a word", entry.Name())
		}
		h.killEngine()
		h.mustWithin("rm", "-rf", h.path("data", entry.Name()))
		if err := os.Rename(h.path("aside"), h.path("data", entry.Name())); err != nil {
			t.Fatal(err)
		}
		h.startEngine()
		if o := h.run("run", "--rm", busyboxImage, "true"); o.code != 0 {
			t.Errorf("%s is back, and run fails: %s", entry.Name(), o.stderr)
		}
	}
}

// database opens the engine's database while no engine runs.
func (h *host) database(change func(*bolt.Tx) error) {
	h.t.Helper()
	db, err := bolt.Open(h.path("data", "metadata.db"), 0o600, &bolt.Options{Timeout: 5 * time.Second})
	if err != nil {
		h.t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(change); err != nil {
		h.t.Fatal(err)
	}
}

// TestUnreadableRecords damages one record of each kind: the engine starts,
// names it, and the others work.
func TestUnreadableRecords(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.berth("import", h.busyboxTar(), "test/other:1")
	for _, name := range []string{"one", "two"} {
		h.berth("run", "-d", "--name", name, busyboxImage, "sleep", "1000")
		h.berth("volume", "create", "vol-"+name)
		h.berth("network", "create", "net-"+name)
	}
	broken := h.berth("inspect", "--format", "{{.Id}}", "one")
	for _, junk := range []string{"{", `"text"`, `{"ID":7}`, "\x00\xff", "", "null", "{}"} {
		h.killEngine()
		var buckets []string
		h.database(func(tx *bolt.Tx) error {
			return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
				buckets = append(buckets, string(name))
				key := []byte("junk")
				if string(name) == "containers" {
					key = []byte(broken)
				}
				return b.Put(key, []byte(junk))
			})
		})
		_ = os.Truncate(h.path("engine.log"), 0)
		h.startEngine()
		if log := h.read(h.path("engine.log")); !strings.Contains(log, broken) {
			t.Errorf("%q: the log does not name the record:\n%s", junk, log)
		}
		h.equal(h.berth("exec", "two", "echo", "fine"), "fine")
		h.equal(h.berth("run", "--rm", busyboxImage, "echo", "new"), "new")
		for _, args := range [][]string{{"ps", "-a"}, {"images", "-a"}, {"volume", "ls"}, {"network", "ls"}, {"system", "df"}, {"info"}} {
			if o := h.run(args...); o.code != 0 {
				t.Errorf("%q in %v: %v: %s", junk, buckets, args, o.stderr)
			}
		}
		if out, _ := h.within("pgrep", "-f", "sleep 1000").Output(); bytes.Count(out, []byte("\n")) < 2 {
			t.Error("a container was ended because its record cannot be read")
		}
	}
	h.endByCgroup(broken) // no engine ends it
}

// endByCgroup kills what runs in a container's cgroup.
func (h *host) endByCgroup(id string) {
	found, _ := filepath.Glob("/sys/fs/cgroup/pids/*/" + id + "/cgroup.procs")
	more, _ := filepath.Glob("/sys/fs/cgroup/*/" + id + "/cgroup.procs")
	for _, path := range append(found, more...) {
		text, _ := os.ReadFile(path)
		for _, pid := range strings.Fields(string(text)) {
			_ = exec.Command("kill", "-9", pid).Run()
		}
	}
}

// TestDamagedDatabaseFile destroys the file itself in many ways: the engine
// starts, or says what to do, and never crashes.
func TestDamagedDatabaseFile(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.berth("create", "--name", "one", busyboxImage, "true")
	h.stopEngine()
	good, err := os.ReadFile(h.path("data", "metadata.db"))
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(7, 7))
	damaged := map[string][]byte{"empty pages": make([]byte, len(good)), "text": []byte("this is no database"), "one byte": {7}, "cut": good[:5000], "half": good[:len(good)/2]}
	for _, name := range []string{"bits 1", "bits 2", "bits 3", "bits 4", "bits 5", "bits 6"} {
		b := bytes.Clone(good)
		for range 40 {
			b[r.IntN(min(len(b), 64<<10))] ^= byte(1 << r.IntN(8))
		}
		damaged[name] = b
	}
	refused := 0
	for name, content := range damaged {
		if err := os.WriteFile(h.path("data", "metadata.db"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		cmd := h.within(binary(t, "berthd"), "--root", h.path("data"), "--run", h.path("run"))
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stderr, &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		for started := false; !started; {
			select {
			case <-ended:
				started = true
				refused++
				if text := stderr.String(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(text, "metadata.db") || !strings.Contains(text, "restore the file from a backup, or move it away") ||
					strings.Contains(text, "goroutine ") {
					t.Errorf("%s: exit code %d:\n%s", name, cmd.ProcessState.ExitCode(), text)
				}
			case <-ctx.Done():
				t.Errorf("%s: neither started nor refused", name)
				started = true
			case <-time.After(20 * time.Millisecond):
				if h.get("/containers/json?all=1", nil) == nil {
					started = true
				}
			}
		}
		cancel()
		_ = cmd.Process.Signal(syscall.SIGKILL)
		<-ended
	}
	if refused == 0 {
		t.Error("every file was taken for a database")
	}
	if err := os.WriteFile(h.path("data", "metadata.db"), good, 0o600); err != nil {
		t.Fatal(err)
	}
	h.startEngine()
	h.equal(h.berth("inspect", "--format", "{{.State.Status}}", "one"), "created")
}
