package test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ok runs the real docker command line, which must succeed, and returns its
// trimmed output.
func (h *host) ok(args ...string) string {
	h.t.Helper()
	o := h.docker(args...)
	if o.code != 0 {
		h.t.Fatalf("docker %s: code %d: %s%s", strings.Join(args, " "), o.code, o.stdout, o.stderr)
	}
	return strings.TrimSpace(o.stdout)
}

// refused runs the docker command line, which must fail with these words.
func (h *host) refused(words string, args ...string) {
	h.t.Helper()
	o := h.docker(args...)
	if o.code == 0 || !strings.Contains(o.stderr, words) {
		h.t.Errorf("docker %s: code %d, %q; want a failure with %q", strings.Join(args, " "), o.code, o.stderr, words)
	}
}

func (h *host) equal(got, want string) {
	h.t.Helper()
	if got != want {
		h.t.Errorf("got %q, want %q", got, want)
	}
}

// write makes a file on the host and returns its path.
func (h *host) write(name, text string, mode os.FileMode) string {
	h.t.Helper()
	path := h.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		h.t.Fatal(err)
	}
	return path
}

func (h *host) read(path string) string {
	h.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}

func TestCopyBothDirections(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	src := h.write("src/a.txt", "first\n", 0o640)
	h.write("src/sub/b.sh", "#!/bin/sh\n", 0o755)
	if err := os.Symlink("a.txt", h.path("src", "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(src, h.path("src", "hard")); err != nil {
		t.Fatal(err)
	}
	for _, running := range []bool{true, false} {
		name := fmt.Sprintf("running-%v", running)
		args := []string{"--name", name, "-v", "store:/data", "-v", h.path() + ":/host:ro", "--tmpfs", "/scratch", busyboxImage, "sleep", "1000"}
		if running {
			h.ok(append([]string{"run", "-d"}, args...)...)
		} else {
			h.ok(append([]string{"create"}, args...)...)
		}
		h.ok("cp", src, name+":/")
		h.ok("cp", h.path("src"), name+":/tree")
		h.ok("cp", h.path("src")+"/.", name+":/data")
		out := h.path("out-" + name)
		h.ok("cp", name+":/tree", out)
		h.equal(h.read(filepath.Join(out, "a.txt")), "first\n")
		h.equal(h.read(filepath.Join(out, "sub", "b.sh")), "#!/bin/sh\n")
		if to, _ := os.Readlink(filepath.Join(out, "link")); to != "a.txt" {
			t.Errorf("the link became %q", to)
		}
		var st, hard syscall.Stat_t
		if err := syscall.Stat(filepath.Join(out, "a.txt"), &st); err != nil || st.Mode&0o7777 != 0o640 {
			t.Errorf("mode %o, %v", st.Mode, err)
		}
		if err := syscall.Stat(filepath.Join(out, "hard"), &hard); err != nil || hard.Ino != st.Ino {
			t.Errorf("the two names of one file became two files")
		}
		// Volumes are part of the container, running or not.
		h.ok("cp", name+":/data/a.txt", h.path("from-volume"))
		h.equal(h.read(h.path("from-volume")), "first\n")
		h.ok("cp", name+":/host/src/a.txt", h.path("from-bind"))
		h.refused("read-only", "cp", src, name+":/host/new")
		h.refused("Could not find the file /none", "cp", name+":/none", h.path("x"))
		if running {
			h.equal(h.ok("exec", name, "cat", "/tree/sub/b.sh"), "#!/bin/sh")
			h.equal(h.ok("exec", name, "stat", "-c", "%a %u:%g", "/a.txt"), "640 0:0")
			h.ok("cp", src, name+":/scratch/")
			h.equal(h.ok("exec", name, "cat", "/scratch/a.txt"), "first")
		} else {
			h.ok("start", name)
			h.equal(h.ok("exec", name, "cat", "/tree/a.txt"), "first")
			h.equal(h.ok("exec", name, "cat", "/data/sub/b.sh"), "#!/bin/sh")
		}
		h.ok("rm", "-f", name)
	}
	h.ok("create", "--name", "sealed", "--read-only", "-v", "store:/data", busyboxImage, "sleep", "1000")
	h.refused("read-only", "cp", src, "sealed:/etc/new")
	h.ok("cp", src, "sealed:/data/new")
	h.ok("start", "sealed")
	h.refused("read-only", "cp", src, "sealed:/etc/new")
	h.equal(h.ok("exec", "sealed", "cat", "/data/new"), "first")
	h.refused("holds no files", "cp", "sealed:/proc/version", h.path("x"))
	h.ok("cp", "sealed:/", h.path("whole"))
	h.equal(h.read(h.path("whole", "www", "index.html")), "hello from a container\n")
	h.equal(h.read(h.path("whole", "data", "new")), "first\n")
}

func TestCopyFollowsLinksWhenAsked(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.ok("run", "-d", "--name", "box", busyboxImage, "sh", "-c",
		"mkdir -p /real/dir /run /var; echo text >/real/file; ln -s /real/file /abs; ln -s ../../../../../real/dir /real/up; ln -s /real/none /dangling; ln -s /etc/passwd /pw; sleep 1000")
	h.eventually("the links are there", func() bool { return h.docker("exec", "box", "test", "-L", "/pw").code == 0 })
	h.ok("cp", "box:/abs", h.path("as-link"))
	if to, err := os.Readlink(h.path("as-link")); err != nil || to != "/real/file" {
		t.Errorf("without -L: %q, %v", to, err)
	}
	h.ok("cp", "-L", "box:/abs", h.path("as-file"))
	h.equal(h.read(h.path("as-file")), "text\n")
	h.ok("cp", "-L", "box:/pw", h.path("pw"))
	if !strings.Contains(h.read(h.path("pw")), "user:x:1000") {
		t.Error("an absolute link was followed on the host")
	}
	src := h.write("new", "new\n", 0o600)
	h.ok("cp", src, "box:/real/up/")
	h.equal(h.ok("exec", "box", "cat", "/real/dir/new"), "new")
	h.ok("cp", src, "box:/dangling")
	h.equal(h.ok("exec", "box", "cat", "/real/none"), "new")
}

// put sends an archive to a container and returns the status and the body.
func (h *host) put(query string, body io.Reader) (int, string) {
	h.t.Helper()
	req, err := http.NewRequest(http.MethodPut, "http://engine"+query, body)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-tar")
	resp, err := h.client().Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

func tarOf(t *testing.T, headers ...*tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		text := h.Uname // the content, for short
		h.Uname, h.Size = "", int64(len(text))
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestHostileArchivesStayInTheContainer(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	canary := h.write("canary", "unharmed", 0o600)
	h.ok("run", "-d", "--name", "box", "-u", "1000", busyboxImage, "sleep", "1000")
	put := func(dir string, want int, headers ...*tar.Header) {
		t.Helper()
		if code, text := h.put("/containers/box/archive?path="+dir, tarOf(t, headers...)); code != want {
			t.Errorf("status %d, want %d: %s", code, want, text)
		}
	}
	put("/none", 404)
	put("/etc/passwd", 400)
	put("/tmp", 404)
	put("/", 400, &tar.Header{Name: "../up", Typeflag: tar.TypeReg, Uname: "x"})
	put("/www", 400, &tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "../../../" + canary})
	// Links lead within the container, wherever they point.
	put("/", 200, &tar.Header{Name: h.dir[1:], Typeflag: tar.TypeDir, Mode: 0o755}, &tar.Header{Name: "esc", Typeflag: tar.TypeSymlink, Linkname: h.dir},
		&tar.Header{Name: "esc2", Typeflag: tar.TypeSymlink, Linkname: "../../../../../../.." + h.dir},
		&tar.Header{Name: "esc/canary", Typeflag: tar.TypeReg, Uname: "first"},
		&tar.Header{Name: "esc2/canary", Typeflag: tar.TypeReg, Uname: "second"},
		&tar.Header{Name: "mode", Typeflag: tar.TypeSymlink, Linkname: canary, Mode: 0o777},
		&tar.Header{Name: "mode2", Typeflag: tar.TypeLink, Linkname: "mode", Mode: 0o777})
	h.equal(h.read(canary), "unharmed")
	if fi, err := os.Stat(canary); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("CVE-2021-41089: the host's file has mode %v, %v", fi.Mode(), err)
	}
	h.equal(h.ok("exec", "box", "cat", h.dir+"/canary"), "second")
	// copyUIDGID gives everything to the container's user, otherwise the archive says.
	file := &tar.Header{Name: "mine", Typeflag: tar.TypeReg, Uname: "x", Uid: 7, Gid: 8, Mode: 0o4755, ModTime: time.Unix(1000, 0)}
	again := *file
	put("/www", 200, file)
	h.equal(h.ok("exec", "box", "stat", "-c", "%a %u:%g %Y", "/www/mine"), "4755 7:8 1000")
	if code, text := h.put("/containers/box/archive?path=/www&copyUIDGID=1", tarOf(t, &again)); code != 200 {
		t.Errorf("copyUIDGID: %d %s", code, text)
	}
	h.equal(h.ok("exec", "box", "stat", "-c", "%u:%g", "/www/mine"), "1000:1000")
	if code, text := h.put("/containers/box/archive?path=/&noOverwriteDirNonDir=1", tarOf(t, &tar.Header{Name: "www", Typeflag: tar.TypeReg})); code != 400 || !strings.Contains(text, "cannot overwrite directory") {
		t.Errorf("a file for a directory: %d %s", code, text)
	}
	// CVE-2026-41567: what would need a program to unpack is refused, not run.
	if code, text := h.put("/containers/box/archive?path=/", strings.NewReader("\xfd7zXZ\x00more")); code != 501 || !strings.Contains(text, "xz") {
		t.Errorf("xz: %d %s", code, text)
	}
	if code, _ := h.put("/containers/box/archive?path=/", strings.NewReader("no archive at all, but long enough to be looked at as one"+strings.Repeat("x", 1000))); code != 400 {
		t.Errorf("garbage: status %d", code)
	}
}

// CVE-2018-15664: a directory on the way is swapped with a link to the host's
// directory of the same name while files are copied both ways.
func TestCopyRacesWithASymlink(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	canary := h.write("canary/file", "unharmed", 0o600)
	h.ok("run", "-d", "--name", "box", busyboxImage, "sh", "-c",
		"mkdir -p /stash"+h.path("canary")+" "+h.dir+"; echo inside >/stash"+h.path("canary")+"/file; "+
			"while :; do ln -s "+h.path("canary")+" /x; rm /x; mkdir /x; touch /x/file; rm -r /x; done")
	defer h.ok("rm", "-f", "box")
	client := h.client()
	archive := tarOf(t, &tar.Header{Name: "file", Typeflag: tar.TypeReg, Uname: "overwritten"}).Bytes()
	for i := range 500 {
		if i%2 == 0 {
			_, _ = h.put("/containers/box/archive?path=/x", bytes.NewReader(archive))
			continue
		}
		resp, err := client.Get("http://engine/containers/box/archive?path=/x/file")
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if strings.Contains(string(text), "unharmed") {
			t.Fatal("a file of the host was read")
		}
	}
	h.equal(h.read(canary), "unharmed")
}
