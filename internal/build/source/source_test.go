package source

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"berth/internal/build/gitref"
	"berth/internal/build/tree"
	"berth/internal/fault"
)

func newStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "sources"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// write makes files below dir; names that end in a slash are directories.
func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, data := range files {
		p := filepath.Join(dir, name)
		if strings.HasSuffix(name, "/") {
			os.MkdirAll(p, 0o755)
			continue
		}
		os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// listing selects all of a context and returns its paths.
func listing(t testing.TB, c *Context, src string) string {
	t.Helper()
	m, err := c.Select(context.Background(), tree.Selection{Src: src})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, x := range m {
		for _, e := range x.Entries {
			if e.Rel != "." || !e.Dir() {
				out = append(out, e.Path)
			}
		}
	}
	return strings.Join(out, " ")
}

func TestIgnoreRules(t *testing.T) {
	files := map[string]string{"a.txt": "", "b.log": "", "dir/c.log": "", "dir/keep.log": "", "dir/d.txt": "", "deep/x/y/z.md": "", "node_modules/m/i.js": "", "Dockerfile": ""}
	for _, tt := range []struct{ name, ignore, want string }{
		{"nothing", "", "Dockerfile a.txt b.log deep deep/x deep/x/y deep/x/y/z.md dir dir/c.log dir/d.txt dir/keep.log node_modules node_modules/m node_modules/m/i.js"},
		{"comment and blank", "# c\n\n*.log\n", "Dockerfile a.txt deep deep/x deep/x/y deep/x/y/z.md dir dir/c.log dir/d.txt dir/keep.log node_modules node_modules/m node_modules/m/i.js"},
		{"any depth", "**/*.log\nnode_modules\ndeep", "Dockerfile a.txt dir dir/d.txt"},
		{"taken back", "**/*.log\n!dir/keep.log\nnode_modules\ndeep", "Dockerfile a.txt dir dir/d.txt dir/keep.log"},
		{"directory taken back in part", "*\n!dir/keep.log\n", "dir dir/keep.log"},
		{"all but", "*\n!*.txt\n", "a.txt"},
		{"order counts", "!a.txt\n*\n", ""},
		{"below a wildcard", "*\n!deep/**/*.md", "deep deep/x deep/x/y deep/x/y/z.md"},
		{"slashes and dots", "/dir/\n./deep\nnode_modules/\nb.log", "Dockerfile a.txt"},
		{"one character", "?.txt\ndeep\ndir\nnode_modules\nb.log", "Dockerfile"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, files)
			write(t, dir, map[string]string{"Dockerfile.dockerignore": tt.ignore + "\nDockerfile.dockerignore\n", ".dockerignore": "*"})
			if !strings.HasPrefix(tt.ignore, "*\n") && tt.name != "order counts" {
				write(t, dir, map[string]string{"Dockerfile.dockerignore": tt.ignore + "\n.dockerignore\nDockerfile.dockerignore\n"})
			} else {
				write(t, dir, map[string]string{"Dockerfile.dockerignore": tt.ignore})
			}
			c, err := newStore(t).Local(dir, nil, "Dockerfile")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got := listing(t, c, "."); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// age makes files look as if they had not changed for a while.
func age(t *testing.T, s *Sums) {
	t.Helper()
	time.Sleep(2 * tick) // the file system's clock itself is the thing awaited
}

func TestUnchangedFilesAreNotReadAgain(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "one", "d/b": "two"})
	age(t, nil)
	s := newStore(t)
	digestOf := func() string {
		c, err := s.Local(dir, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		m, err := c.Select(context.Background(), tree.Selection{Src: "."})
		if err != nil {
			t.Fatal(err)
		}
		d, _, err := c.Digest(context.Background(), m)
		if err != nil {
			t.Fatal(err)
		}
		return d.String()
	}
	first := digestOf()
	s.sums = sumCache{dir: s.sums.dir} // as after a restart
	sums := s.sums.open(dir, nil)
	if len(sums.known) != 2 {
		t.Fatalf("%d files are remembered, want 2", len(sums.known))
	}
	for _, k := range sums.known {
		k.sum.Data[0] ^= 1 // a wrong sum shows whether it is used
	}
	if digestOf() == first {
		t.Error("the files were read again")
	}
	for _, k := range sums.known {
		k.sum.Data[0] ^= 1
	}
	if digestOf() != first {
		t.Error("the digest changed by itself")
	}
	if err := os.Chtimes(filepath.Join(dir, "a"), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if digestOf() != first {
		t.Error("times count for the digest")
	}
	for name, change := range map[string]func() error{
		"content": func() error { return os.WriteFile(filepath.Join(dir, "a"), []byte("uno"), 0o644) },
		"mode":    func() error { return os.Chmod(filepath.Join(dir, "a"), 0o600) },
		"name":    func() error { return os.Rename(filepath.Join(dir, "d/b"), filepath.Join(dir, "d/c")) },
		"link":    func() error { return os.Symlink("x", filepath.Join(dir, "l")) },
		"xattr":   func() error { return unix.Setxattr(filepath.Join(dir, "a"), "user.k", []byte("v"), 0) },
		"dirmode": func() error { return os.Chmod(filepath.Join(dir, "d"), 0o700) },
	} {
		before := digestOf()
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if digestOf() == before {
			t.Errorf("a change of %s is not noticed", name)
		}
	}
}

func TestDamagedSumsAreForgotten(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "one"})
	age(t, nil)
	s := newStore(t)
	c, _ := s.Local(dir, nil, "")
	m, _ := c.Select(context.Background(), tree.Selection{Src: "."})
	if _, _, err := c.Digest(context.Background(), m); err != nil {
		t.Fatal(err)
	}
	c.Close()
	files, _ := filepath.Glob(filepath.Join(s.sums.dir, "*"))
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 0x40
		os.WriteFile(files[0], bad, 0o600)
		x := &Sums{path: files[0], known: map[string]*known{}}
		if x.load(); len(x.known) != 0 {
			t.Fatalf("a flipped bit at %d is believed", i)
		}
	}
}

func TestContextsKeepToThemselves(t *testing.T) {
	outside := t.TempDir()
	write(t, outside, map[string]string{"secret": "s"})
	dir := t.TempDir()
	write(t, dir, map[string]string{"f": "x", "d/g": ""})
	os.Symlink(outside, filepath.Join(dir, "out"))
	os.Symlink("../../../../../../../../"+outside+"/secret", filepath.Join(dir, "up"))
	os.Symlink("/f", filepath.Join(dir, "root")) // the context is its root
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	odd := "a\nb\xff\x01"
	write(t, dir, map[string]string{odd: "odd"})
	c, err := newStore(t).Local(dir, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	for _, src := range []string{"out/secret", "up", "out", "../" + filepath.Base(outside) + "/secret"} {
		if m, err := c.Select(ctx, tree.Selection{Src: src, Literal: true}); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v %v, want not found", src, m, err)
		}
	}
	if m, err := c.Select(ctx, tree.Selection{Src: "root"}); err != nil || m[0].Entries[0].Path != "f" || m[0].Name != "root" {
		t.Errorf("a link inside the context: %v %v", m, err)
	}
	got := listing(t, c, ".")
	if strings.Contains(got, "sock") || !strings.Contains(got, odd) {
		t.Errorf("got %q", got)
	}
}

func TestIgnoreFileIsNotReadThroughALinkOutside(t *testing.T) {
	outside := t.TempDir()
	write(t, outside, map[string]string{"ignore": "*"})
	dir := t.TempDir()
	write(t, dir, map[string]string{"f": ""})
	os.Symlink(outside+"/ignore", filepath.Join(dir, ".dockerignore"))
	c, err := newStore(t).Local(dir, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := listing(t, c, "."); got != ".dockerignore f" {
		t.Errorf("got %q", got)
	}
}

func TestRightsOfTheCaller(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	write(t, dir, map[string]string{"mine": "x", "private": "y"})
	os.Chmod(filepath.Join(dir, "private"), 0o600)
	c, err := newStore(t).Local(dir, &tree.Credentials{UID: 12345, GID: 12345}, "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	digestOf := func(src string) error {
		m, err := c.Select(ctx, tree.Selection{Src: src})
		if err != nil {
			return err
		}
		_, _, err = c.Digest(ctx, m)
		return err
	}
	if err := digestOf("mine"); err != nil {
		t.Error(err)
	}
	err = digestOf("private")
	if !fault.Is(err, fault.Forbidden) || !strings.Contains(err.Error(), "private") {
		t.Errorf("a file that the caller may not read: %v", err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "private")); err != nil || string(data) != "y" {
		t.Error("the engine itself lost its rights")
	}
}

func tarOf(t testing.TB, headers ...tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		data := h.Linkname
		if h.Typeflag == tar.TypeReg {
			h.Size, h.Linkname = int64(len(data)), ""
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			w.Write([]byte(data))
		}
	}
	w.Close()
	return &b
}

func TestArchivesStayInTheirDirectory(t *testing.T) {
	canary := t.TempDir()
	write(t, canary, map[string]string{"c": "untouched"})
	s := newStore(t)
	c, err := s.Archive(context.Background(), tarOf(t,
		tar.Header{Name: "Dockerfile", Typeflag: tar.TypeReg, Linkname: "FROM x"},
		tar.Header{Name: "../../escape", Typeflag: tar.TypeReg, Linkname: "x"},
		tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: canary},
		tar.Header{Name: "l/c", Typeflag: tar.TypeReg, Linkname: "overwritten"},
		tar.Header{Name: "/abs", Typeflag: tar.TypeReg, Linkname: "x", Uid: 1000},
	), "")
	if err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(canary + "/c"); string(data) != "untouched" {
		t.Error("the archive wrote outside")
	}
	if got := listing(t, c, "."); !strings.Contains(got, "Dockerfile abs escape") {
		t.Errorf("got %s", got)
	}
	c.Close()
	if left, _ := os.ReadDir(filepath.Join(s.dir, "tmp")); len(left) != 0 {
		t.Errorf("%d directories are left", len(left))
	}
	for name, bad := range map[string]*bytes.Buffer{
		"cut":     bytes.NewBuffer(tarOf(t, tar.Header{Name: "f", Typeflag: tar.TypeReg, Linkname: strings.Repeat("x", 5000)}).Bytes()[:2000]),
		"garbage": bytes.NewBufferString(strings.Repeat("no archive", 100)),
	} {
		if _, err := s.Archive(context.Background(), bad, ""); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, _ := os.ReadDir(filepath.Join(s.dir, "tmp")); len(left) != 0 {
		t.Errorf("failures left %d directories", len(left))
	}
}

func TestFetch(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"v1"`)
		switch {
		case r.URL.Path == "/gone":
			http.NotFound(w, r)
		case r.Header.Get("If-None-Match") == `"v1"`:
			w.WriteHeader(http.StatusNotModified)
		default:
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Write([]byte("FROM scratch\n"))
		}
	}))
	defer srv.Close()
	s := newStore(t)
	ctx := context.Background()
	f, err := s.Fetch(ctx, srv.URL+"/f", "", "")
	if err != nil {
		t.Fatal(err)
	}
	f.Remove()
	if again, err := s.Fetch(ctx, srv.URL+"/f", f.ETag, ""); err != nil || again.Path != "" {
		t.Errorf("a current file is sent again: %+v %v", again, err)
	}
	if _, err := s.Fetch(ctx, srv.URL+"/f", "", digest.FromString("x")); !fault.Is(err, fault.Invalid) {
		t.Errorf("a wrong checksum: %v", err)
	}
	if _, err := s.Fetch(ctx, srv.URL+"/gone", "", ""); !fault.Is(err, fault.NotFound) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := s.Fetch(ctx, "file:///etc/passwd", "", ""); !fault.Is(err, fault.Invalid) {
		t.Errorf("a file of this machine: %v", err)
	}
}

func TestURLsAreWhatTheirContentIs(t *testing.T) {
	archive := tarOf(t, tar.Header{Name: "Dockerfile", Typeflag: tar.TypeReg, Linkname: "xxxx"}).Bytes()
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(archive)
	z.Close()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind, what, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		w.Header().Set("Content-Type", strings.ReplaceAll(kind, "-", "/"))
		w.Write(map[string][]byte{"text": []byte("FROM scratch\n"), "archive": archive, "zipped": zipped.Bytes(), "other": []byte("\x7fELF\x00\x01")}[what])
	}))
	defer srv.Close()
	s := newStore(t)
	for _, kind := range []string{"text-plain", "application-octet-stream", "application-x-tar", "text-html"} {
		for what, want := range map[string]string{"text": "FROM scratch\n", "archive": "xxxx", "zipped": "xxxx", "other": ""} {
			c, err := s.URL(context.Background(), srv.URL+"/"+kind+"/"+what, "")
			if want == "" {
				if !fault.Is(err, fault.Invalid) {
					t.Errorf("%s of type %s: %v", what, kind, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s of type %s: %v", what, kind, err)
				continue
			}
			if data, err := c.ReadFile("Dockerfile", 100); err != nil || string(data) != want {
				t.Errorf("%s of type %s has %q: %v", what, kind, data, err)
			}
			c.Close()
		}
	}
}

func TestRepositories(t *testing.T) {
	backend, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Skip("needs git")
	}
	root := t.TempDir()
	work := filepath.Join(root, "work")
	write(t, work, map[string]string{"Dockerfile": "FROM scratch\n", "sub/f": "1", "sub/Dockerfile": "FROM x\n"})
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir = work
		cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b", "GIT_CONFIG_GLOBAL=/dev/null")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q", "-b", "main", ".")
	git("add", ".")
	git("commit", "-qm", "one")
	git("tag", "-am", "t", "v1")
	os.Symlink("/etc", filepath.Join(work, "out"))
	git("add", ".")
	git("commit", "-qm", "two")
	git("clone", "-q", "--bare", ".", filepath.Join(root, "r.git"))
	srv := httptest.NewServer(&cgi.Handler{
		Path: strings.TrimSpace(string(backend)) + "/git-http-backend",
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	})
	defer srv.Close()
	s := newStore(t)
	for _, tt := range []struct{ fragment, want string }{
		{"", "Dockerfile out sub sub/Dockerfile sub/f"},
		{"#v1", "Dockerfile sub sub/Dockerfile sub/f"},
		{"#main:sub", "Dockerfile f"},
		{"#" + git("rev-parse", "HEAD"), "Dockerfile out sub sub/Dockerfile sub/f"},
	} {
		ref, ok, err := gitref.Parse(srv.URL + "/r.git" + tt.fragment)
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		c, err := s.Repository(context.Background(), ref, "", "")
		if err != nil {
			t.Fatalf("%s: %v", tt.fragment, err)
		}
		if got := listing(t, c, "."); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.fragment, got, tt.want)
		}
		c.Close()
	}
	for _, fragment := range []string{"#nosuch", "#main:out", "#main:none", "?checksum=abcdef"} {
		ref, _, err := gitref.Parse(srv.URL + "/r.git" + fragment)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Repository(context.Background(), ref, "", ""); err == nil {
			t.Errorf("%s is accepted", fragment)
		}
	}
	if left, _ := os.ReadDir(filepath.Join(s.dir, "tmp")); len(left) != 0 {
		t.Errorf("%d directories are left", len(left))
	}
}
