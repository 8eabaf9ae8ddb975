package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// wire is a connection to an engine that counts what goes over it: for its
// clients, the engine is on another machine.
type wire struct {
	h        *host
	listener net.Listener
	sent     atomic.Int64  // bytes from clients
	cut      atomic.Int64  // the client is to be killed after so many bytes; 0 is never
	reached  chan struct{} // closed when they were sent
	old      bool          // the engine is one that takes archives only
	mu       sync.Mutex    // guards conns
	conns    []net.Conn
}

func (h *host) wire() *wire {
	h.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	w := &wire{h: h, listener: l, reached: make(chan struct{})}
	h.t.Cleanup(func() {
		_ = l.Close()
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, c := range w.conns {
			_ = c.Close()
		}
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.serve(c)
		}
	}()
	return w
}

func (w *wire) serve(c net.Conn) {
	engine, err := net.Dial("unix", w.h.path("run", "berth.sock"))
	if err != nil {
		_ = c.Close()
		return
	}
	w.mu.Lock()
	w.conns = append(w.conns, c, engine)
	w.mu.Unlock()
	go func() {
		_, _ = io.Copy(c, engine)
		_ = c.Close()
	}()
	_, _ = io.Copy(engine, counting{c, w, c})
	_ = engine.Close()
	_ = c.Close()
}

type counting struct {
	io.Reader
	w    *wire
	back io.Writer
}

func (c counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	sum, most := c.w.sent.Add(int64(n)), c.w.cut.Load()
	if most > 0 && sum > most && c.w.cut.CompareAndSwap(most, 0) {
		close(c.w.reached)
	}
	if c.w.old && bytes.Contains(p[:n], []byte("/berth/build/context ")) {
		_, _ = io.WriteString(c.back, "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		return 0, io.EOF
	}
	return n, err
}

// command returns a command of a client on the other side, whose home is user's.
func (w *wire) command(user string, args ...string) *exec.Cmd {
	cmd := exec.Command(w.h.berthBin, args...)
	cmd.Env = append(os.Environ(), "BERTH_HOST=tcp://"+w.listener.Addr().String(), "HOME="+w.h.path(user), "XDG_CACHE_HOME="+w.h.path(user, "cache"), "NO_COLOR=1")
	return cmd
}

// build builds, which must succeed, and returns what was shown and how many bytes
// were sent for it.
func (w *wire) build(user string, args ...string) (string, int64) {
	w.h.t.Helper()
	before := w.sent.Load()
	o := execute(w.h.t, w.command(user, append([]string{"build"}, args...)...))
	if o.code != 0 {
		w.h.t.Fatalf("berth build %s: code %d\n%s", strings.Join(args, " "), o.code, o.stderr)
	}
	return o.stdout + o.stderr, w.sent.Load() - before
}

// manyFiles makes a context of 2,000 files, 5 MB.
func (h *host) manyFiles(name, dockerfile string) string {
	files := map[string]string{"Dockerfile": dockerfile}
	for i := range 2000 {
		files[fmt.Sprintf("src/d%02d/file%d", i%50, i)] = fmt.Sprint(strings.Repeat("content ", 300), i)
	}
	return h.context(name, files)
}

// An engine elsewhere is sent what changed, and nothing else.
func TestBuildElsewhereSendsWhatChanged(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	w := h.wire()
	dir := h.manyFiles("many", "FROM "+busyboxImage+"\nCOPY . /files/\n")
	show := func(image, what string) string {
		t.Helper()
		return h.berth("run", "--rm", image, "sh", "-c", "cd /files; "+what)
	}
	if _, n := w.build("home", "-t", "many", dir); n < 4<<20 {
		t.Errorf("only %d bytes were sent at first", n)
	}
	local := strings.Fields(h.build("-q", "-t", "here", dir))[0]
	if text, n := w.build("home", "-q", "-t", "many", dir); n > 8<<10 || strings.TrimSpace(text) != local {
		t.Errorf("nothing changed, and %d bytes were sent; the image is %s, from the directory it is %s", n, text, local)
	}

	h.write("many/src/d07/file7", "changed", 0o644)
	if _, n := w.build("home", "-t", "many", dir); n > 8<<10 {
		t.Errorf("one file changed, and %d bytes were sent", n)
	}
	if got := show("many", "cat src/d07/file7; find . -type f | wc -l"); got != "changed2001" {
		t.Errorf("the image has %q", got)
	}

	// What moves, goes, and becomes something else.
	for _, err := range []error{
		os.Rename(filepath.Join(dir, "src"), filepath.Join(dir, "moved")), os.RemoveAll(filepath.Join(dir, "moved/d01")),
		os.Symlink("d02", filepath.Join(dir, "moved/d01")), os.Remove(filepath.Join(dir, "moved/d03/file3")),
		os.Mkdir(filepath.Join(dir, "moved/d03/file3"), 0o700), os.Chmod(filepath.Join(dir, "moved/d04/file4"), 0o711),
		os.Link(filepath.Join(dir, "moved/d05/file5"), filepath.Join(dir, "second")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, n := w.build("home", "-t", "many", dir); n > 300<<10 {
		t.Errorf("a directory was renamed, and %d bytes were sent", n)
	}
	if got := show("many", "ls; readlink moved/d01; stat -c '%a %F' moved/d03/file3 moved/d04/file4; stat -c %h second; cat moved/d07/file7"); got !=
		"Dockerfile\nmoved\nsecond\nd02\n700 directory\n711 regular file\n2\nchanged" {
		t.Errorf("the image has %q", got)
	}
	if text, _ := w.build("home", "-q", "-t", "many", dir); strings.TrimSpace(text) != strings.Fields(h.build("-q", dir))[0] {
		t.Error("from elsewhere the image is another one than from the directory")
	}

	// Another directory with the same files, and after the engine was killed.
	if out, err := exec.Command("cp", "-a", dir, h.path("copy")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h.killEngine()
	h.startEngine()
	if _, n := w.build("home", h.path("copy")); n > 300<<10 {
		t.Errorf("another directory has the same files, and %d bytes were sent", n)
	}
	if got := h.berth("build", "cache", "du", "--filter", "type=source.local"); !strings.Contains(got, "many") || !strings.Contains(got, "copy") {
		t.Errorf("du shows\n%s", got)
	}
	h.berth("build", "cache", "prune", "-f", "--filter", "type=source.local")
	if _, n := w.build("home", dir); n < 4<<20 {
		t.Errorf("after a prune only %d bytes were sent", n)
	}
}

// A client that is killed while it sends has not sent in vain, and builds of one
// directory at the same time are not in each other's way.
func TestBuildElsewhereSurvives(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	w := h.wire()
	dir := h.manyFiles("many", "FROM "+busyboxImage+"\nARG N\nCOPY . /files/\nRUN cat /files/src/d07/file7 | tail -c 10; echo; ls /files/src/* | wc -l\n")
	w.cut.Store(3 << 20)
	cmd := w.command("home", "build", dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-w.reached
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	h.killEngine()
	h.startEngine()
	if text, n := w.build("home", "--progress", "plain", dir); n > 4<<20 {
		t.Errorf("after 3 MB had been sent, %d bytes were sent again", n)
	} else {
		contains(t, text, "content 7\n", "2099")
	}

	var wait sync.WaitGroup
	for i := range 4 {
		wait.Go(func() {
			o := execute(t, w.command("home", "build", "--no-cache", "-t", fmt.Sprint("at-once:", i), dir))
			if o.code != 0 {
				t.Errorf("build %d: %s", i, o.stderr)
			}
		})
	}
	wait.Wait()
	for i := range 4 {
		if got := h.berth("run", "--rm", fmt.Sprint("at-once:", i), "sh", "-c", "ls /files/src/* | wc -l"); got != "2099" {
			t.Errorf("image %d has %s files", i, got)
		}
	}
	if list, err := os.ReadDir(h.path("data", "build", "sources", "received")); err != nil || len(list) > 4 {
		t.Errorf("%d directories are kept: %v", len(list), err)
	}
}

// What is sent is what a build from the directory would have read.
func TestBuildElsewhereReadsTheSame(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	dir := h.context("app", map[string]string{
		"a.txt": "a", "skip/b.txt": "b", "skip/keep.txt": "keep", ".dockerignore": "skip\n!skip/keep.txt\nDockerfile\n", "pipe": "",
		"Dockerfile":         "FROM scratch AS files\nCOPY . /\nFROM " + busyboxImage + "\nCOPY --from=files / /files/\nCOPY --from=extra / /extra/\nCOPY --from=deep / /deep/\n",
		"other":              "FROM scratch\nCOPY . /\n",
		"other.dockerignore": "*\n!a.txt\n",
	})
	extra := h.context("extra", map[string]string{"e.txt": "e", "deep/f.txt": "f", ".dockerignore": "deep\n"})
	if err := os.Chmod(filepath.Join(dir, "skip"), 0o711); err != nil {
		t.Fatal(err)
	}
	outside := h.context("elsewhere", map[string]string{"Outside": "FROM " + busyboxImage + "\nCOPY a.txt /\n"})
	for name, old := range map[string]bool{"what changed": false, "an archive": true} {
		w := h.wire()
		w.old = old
		for _, args := range [][]string{
			{"-f", filepath.Join(dir, "other"), dir},
			{"-f", filepath.Join(outside, "Outside"), dir},
			{"--build-context", "extra=" + extra, "--build-context", "deep=" + filepath.Join(extra, "deep"), dir},
		} {
			args = append([]string{"-q"}, args...)
			if old && len(args) > 4 {
				o := execute(t, w.command("home", append([]string{"build"}, args...)...))
				if o.code == 0 || !strings.Contains(o.stderr, "--build-context") {
					t.Errorf("code %d\n%s", o.code, o.stderr)
				}
				continue
			}
			want := h.build(args...)
			if got, _ := w.build("home", args...); got != want {
				t.Errorf("%s %s: the image is %s, from the directory it is %s", name, args, got, want)
			}
		}
		cmd := w.command("home", "build", "-q", "-f", "-", dir)
		cmd.Stdin = strings.NewReader("FROM " + busyboxImage + "\nCOPY skip /skip\n")
		if o := execute(t, cmd); o.code != 0 {
			t.Errorf("%s: -f -: %s", name, o.stderr)
		}
	}
	if got := h.berth("build", "history", "ls", "--format", "{{.Name}}"); !strings.Contains(got, "app") {
		t.Errorf("history: %s", got)
	}
}

// A file that is written to while it is sent comes as it is in the end, or fails
// the build in words.
func TestBuildElsewhereWhileFilesChange(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	w := h.wire()
	dir := h.context("log", map[string]string{"log": strings.Repeat("line\n", 1<<20), "Dockerfile": "FROM " + busyboxImage + "\nCOPY log /\n"})
	f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = f.WriteString("more\n")
			}
		}
	})
	o := execute(t, w.command("home", "build", dir))
	close(stop)
	wait.Wait()
	_ = f.Close()
	if o.code != 0 && (!strings.Contains(o.stderr, "changes while it is being read") || !strings.Contains(o.stderr, ".dockerignore")) {
		t.Errorf("code %d\n%s", o.code, o.stderr)
	}
	w.build("home", "-o", h.path("out"), dir)
	if readFile(t, h.path("out", "log")) != readFile(t, filepath.Join(dir, "log")) {
		t.Error("another file came")
	}
}

// A context may be an archive or a Dockerfile, on standard input or at an address,
// for an engine here and elsewhere.
func TestBuildContextsOfAllKinds(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	w := h.wire()
	dir := h.context("app", map[string]string{"a.txt": "a", "Dockerfile": "FROM " + busyboxImage + "\nCOPY a.txt /\n", "sub/other": "FROM " + busyboxImage + "\nCOPY a.txt /b\n"})
	extra := h.context("extra", map[string]string{"e.txt": "e"})
	named := "FROM " + busyboxImage + "\nCOPY --from=extra . /\n"
	www := h.path("www")
	if err := os.Mkdir(www, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, flag := range map[string]string{"app.tar": "-cf", "app.tar.gz": "-czf", "app.tar.xz": "-cJf"} {
		if out, err := exec.Command("tar", flag, filepath.Join(www, file), "-C", dir, ".").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	copyFile(t, filepath.Join(www, "app.tar.gz"), filepath.Join(www, "nothing")) // of no known type
	h.write("www/Dockerfile", "FROM "+busyboxImage+"\nRUN echo only > /b\n", 0o644)
	copyFile(t, "/bin/true", filepath.Join(www, "program"))
	h.berth("run", "-d", "-p", "127.0.0.1:18079:80", "-v", www+":/www", busyboxImage, "httpd", "-f", "-p", "80", "-h", "/www")
	h.eventually("the server answers", func() bool { return h.within("bash", "-c", "</dev/tcp/127.0.0.1/18079").Run() == nil })
	for where, command := range map[string]func(args ...string) *exec.Cmd{
		"here":      func(args ...string) *exec.Cmd { return h.within(append([]string{h.berthBin}, args...)...) },
		"elsewhere": func(args ...string) *exec.Cmd { return w.command("home", args...) },
	} {
		for _, c := range []struct {
			stdin, text string
			args        []string
			file, want  string
		}{
			{file: "a.txt", want: "a", stdin: "app.tar", args: []string{"-"}},
			{file: "a.txt", want: "a", stdin: "app.tar.gz", args: []string{"-"}},
			{file: "a.txt", want: "a", stdin: "app.tar.xz", args: []string{"-", "-o", h.path("twice")}}, // sent twice
			{file: "b", want: "a", stdin: "app.tar", args: []string{"-f", "sub/other", "-"}},
			{file: "b", want: "only\n", stdin: "Dockerfile", args: []string{"-"}},
			{file: "e.txt", want: "e", text: named, args: []string{"--build-context", "extra=" + extra, "-"}},
			{file: "e.txt", want: "e", text: named, args: []string{"--build-context", "extra=" + extra, "-f", "-", dir}},
			{file: "e.txt", want: "e", text: named, args: []string{"--build-context", "extra=" + extra, "-f", "-", "http://127.0.0.1:18079/app.tar"}},
			{file: "a.txt", want: "a", text: named, args: []string{"--build-context", "extra=http://127.0.0.1:18079/app.tar.gz", "-"}},
			{file: "a.txt", want: "a", stdin: "app.tar.gz", args: []string{"--build-context", "extra=" + extra, "-"}},
			{file: "a.txt", want: "a", args: []string{"http://127.0.0.1:18079/app.tar"}},
			{file: "a.txt", want: "a", args: []string{"http://127.0.0.1:18079/nothing"}},
			{file: "b", want: "a", args: []string{"-f", "sub/other", "http://127.0.0.1:18079/app.tar.xz"}},
			{file: "b", want: "only\n", args: []string{"http://127.0.0.1:18079/Dockerfile"}},
		} {
			if err := os.RemoveAll(h.path("out")); err != nil {
				t.Fatal(err)
			}
			cmd := command(append([]string{"build", "-o", h.path("out")}, c.args...)...)
			cmd.Stdin = strings.NewReader(c.text)
			if c.stdin != "" {
				cmd.Stdin = strings.NewReader(readFile(t, filepath.Join(www, c.stdin)))
			}
			if o := execute(t, cmd); o.code != 0 {
				t.Errorf("%s: %s%s: %s", where, c.stdin, c.args, o.stderr)
			} else if got := readFile(t, h.path("out", c.file)); got != c.want {
				t.Errorf("%s: %s%s: the file has %q", where, c.stdin, c.args, got)
			}
		}
		if o := execute(t, command("build", "http://127.0.0.1:18079/program")); o.code != 1 || !strings.Contains(o.stderr, "neither an archive nor a Dockerfile") {
			t.Errorf("%s: a program as context: code %d, %s", where, o.code, o.stderr)
		}
	}
	if names := strings.Fields(h.berth("build", "history", "ls", "--format", "{{.Name}}")); !slices.Contains(names, "app") || slices.Contains(names, ".") {
		t.Errorf("builds are called %s", names)
	}
}

// Images in OCI layouts of the client's machine can be built on.
func TestBuildContextsInLayouts(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	w := h.wire()
	layout := h.path("layout")
	if err := os.Mkdir(layout, 0o755); err != nil {
		t.Fatal(err)
	}
	base := h.context("base", map[string]string{"Dockerfile": "FROM " + busyboxImage + "\nENV FROM=layout\nRUN echo base > /base\n"})
	h.build("-t", "base:one", "-o", "type=oci,dest="+h.path("base.tar"), base)
	if out, err := exec.Command("tar", "-xf", h.path("base.tar"), "-C", layout).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var index struct {
		Manifests []struct {
			Digest      string
			Annotations map[string]string
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, filepath.Join(layout, "index.json"))), &index); err != nil || len(index.Manifests) != 1 {
		t.Fatal(err, index)
	}
	h.berth("rmi", "base:one")
	image := index.Manifests[0]
	tag := image.Annotations["org.opencontainers.image.ref.name"]
	dir := h.context("app", map[string]string{"Dockerfile": "FROM it\nARG N\nCOPY --from=other /base /other\nRUN echo $FROM-$(cat /base /other) > /said\n"})
	for n, where := range []string{"", "@" + image.Digest, ":" + tag, ":" + tag + "@" + image.Digest} {
		for _, elsewhere := range []bool{false, true} {
			h.berth("image", "prune", "-f") // what the layout had
			args := []string{"build", "--pull", "-q", "--build-arg", fmt.Sprint("N=", n, elsewhere), "--build-context", "it=oci-layout://" + layout + where,
				"--build-context", "other=oci-layout://" + layout + where, "-o", h.path("out"), dir}
			cmd := h.within(append([]string{h.berthBin}, args...)...)
			if elsewhere {
				cmd = w.command("home", args...)
			}
			if o := execute(t, cmd); o.code != 0 {
				t.Errorf("%q: %s", where, o.stderr)
			} else if got := readFile(t, h.path("out", "said")); got != "layout-base base\n" {
				t.Errorf("%q: %q", where, got)
			}
		}
	}
	for where, want := range map[string]string{
		"oci-layout://" + layout + ":nothing": "nothing", "oci-layout://" + dir: "index.json", "oci-layout://" + layout + "@sha256:12": "digest",
		"oci-layout://" + layout + "@sha256:" + strings.Repeat("0", 64): "no such file", "target:stage": "not offered",
	} {
		if o := h.run("build", "--build-context", "it="+where, dir); o.code == 0 || !strings.Contains(o.stderr, want) {
			t.Errorf("%s: code %d, %s", where, o.code, o.stderr)
		}
	}
	blob := filepath.Join(layout, "blobs/sha256", strings.TrimPrefix(image.Digest, "sha256:"))
	if err := os.WriteFile(blob, []byte(strings.Replace(readFile(t, blob), "{", "{ ", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if o := h.run("build", "--build-context", "it=oci-layout://"+layout, dir); o.code == 0 || !strings.Contains(o.stderr, "its bytes are others") {
		t.Errorf("a damaged layout: code %d, %s", o.code, o.stderr)
	}
}
