package build

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// files lists what an image has that is no directory, below a directory.
func (h *house) files(o *outcome, below string) string {
	var out []string
	for name, text := range h.tree(o, below) {
		if !strings.HasSuffix(text, " dir") {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// What patterns of a .dockerignore leave of a context, as docker's own tables have
// it.
func TestIgnoreCorpus(t *testing.T) {
	h := newHouse(t)
	const all = "a.go a.txt b.go dir/a.go dir/a.txt dir/deep/a.txt dir/deep/z dir/z file other/x"
	for _, tt := range []struct{ name, ignore, want string }{
		{"none", "", all},
		{"comments and blank lines", "# *.go\n\n   \n#file", all},
		{"a name", "file", "a.go a.txt b.go dir/a.go dir/a.txt dir/deep/a.txt dir/deep/z dir/z other/x"},
		{"a name at the top only", "a.txt", "a.go b.go dir/a.go dir/a.txt dir/deep/a.txt dir/deep/z dir/z file other/x"},
		{"a name with slashes", "/file\n./a.go\n//b.go\ndir/../other/", "a.txt dir/a.go dir/a.txt dir/deep/a.txt dir/deep/z dir/z"},
		{"a directory", "dir", "a.go a.txt b.go file other/x"},
		{"a directory with a slash", "dir/", "a.go a.txt b.go file other/x"},
		{"spaces around", "  dir  \n\tother\t", "a.go a.txt b.go file"},
		{"windows line ends and a mark", "\ufeffdir\r\nother\r\n", "a.go a.txt b.go file"},
		{"one level", "*/a.txt", "a.go a.txt b.go dir/a.go dir/deep/a.txt dir/deep/z dir/z file other/x"},
		{"any level", "**/a.txt", "a.go b.go dir/a.go dir/deep/z dir/z file other/x"},
		{"any level, close", "**a.txt", "a.go b.go dir/a.go dir/deep/z dir/z file other/x"},
		{"below only", "dir/**", "a.go a.txt b.go file other/x"},
		{"below, some", "dir/**/z", "a.go a.txt b.go dir/a.go dir/a.txt dir/deep/a.txt file other/x"},
		{"all", "*", ""},
		{"all, otherwise", "**", ""},
		{"a letter", "?.go", "a.txt dir/a.go dir/a.txt dir/deep/a.txt dir/deep/z dir/z file other/x"},
		{"a set", "[a-b].[^t]*", "a.txt dir/a.go dir/a.txt dir/deep/a.txt dir/deep/z dir/z file other/x"},
		{"all but one", "*\n!file", "file"},
		{"all but one below", "*\n!dir/deep/z", "dir/deep/z"},
		{"all but a directory", "**\n!dir/deep", "dir/deep/a.txt dir/deep/z"},
		{"all but a kind", "*\n!**/*.txt", "a.txt dir/a.txt dir/deep/a.txt"},
		{"all but a kind in one directory", "**\n!dir/*.go", "dir/a.go"},
		{"the last that matches counts", "*.go\n!a.go\n*.go", "a.txt dir/a.go dir/a.txt dir/deep/a.txt dir/deep/z dir/z file other/x"},
		{"taken back and left out again", "*\n!dir\ndir/deep", "dir/a.go dir/a.txt dir/z"},
		{"taken back with a space", "*\n! file", "file"},
		{"taken back without being left out", "!file", all},
		{"points are points", "a?txt\nb.g", "a.go b.go dir/a.go dir/a.txt dir/deep/a.txt dir/deep/z dir/z file other/x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			files := map[string]string{".dockerignore": tt.ignore}
			for name := range strings.FieldsSeq(all) {
				files[name] = name
			}
			o := h.build("FROM scratch\nCOPY . /\n", files)
			got := strings.TrimSpace(strings.Replace(h.files(o, ""), ".dockerignore", "", 1))
			if got != tt.want {
				t.Errorf("left is\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
	h.t = t
	for _, ignore := range []string{"!\n", "[\n", "a[]b\n"} {
		if o := h.try(Request{Text: []byte("FROM scratch\nCOPY . /\n"), ContextDir: h.context(map[string]string{".dockerignore": ignore})}); o.err == nil || !strings.Contains(o.err.Error(), ".dockerignore") {
			t.Errorf("%q: %v", ignore, o.err)
		}
	}
	// The file of a Dockerfile goes before that of the context, and a Dockerfile that
	// is left out is read all the same.
	files := map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\n", "Dockerfile.dockerignore": "bar\nDocker*\n", "sub/Two": "FROM scratch\nCOPY . /\n", "sub/Two.dockerignore": "foo\n**/*Docker*\n.d*\nsub\n", ".dockerignore": "*", "foo": "", "bar": ""}
	for name, want := range map[string]string{"Dockerfile": ".dockerignore foo sub/Two sub/Two.dockerignore", "sub/Two": "bar"} {
		o := h.try(Request{ContextDir: h.context(files), Dockerfile: name})
		if o.err != nil {
			t.Fatal(o.err)
		}
		if got := h.files(o, ""); got != want {
			t.Errorf("%s copies %q, want %q", name, got, want)
		}
	}
}

// What ADD makes of archives and addresses.
func TestAddCorpus(t *testing.T) {
	h := newHouse(t)
	file := func(name, body string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeReg, Linkname: body}
	}
	one := tarball(t, file("foo", "content0"))
	var gz, zst bytes.Buffer
	z := gzip.NewWriter(&gz)
	z.Write(one)
	z.Close()
	zw, _ := zstd.NewWriter(&zst)
	zw.Write(one)
	zw.Close()
	files := map[string]string{
		"t.tar": string(one), "t.tar.gz": gz.String(), "t.tar.zst": zst.String(), "plain": "p", "d/in.tar": string(one),
		"two/a.tar": string(one), "two/b.tar": string(tarball(t, file("bar", "content1"))), "two/c": "no archive",
		"deep.tar":  string(tarball(t, file("etc/dnf/dnf.conf", "c"), tar.Header{Name: "./x/", Typeflag: tar.TypeDir, Mode: 0o700})),
		"root.tar":  string(tarball(t, tar.Header{Name: "var/", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "var/run", Typeflag: tar.TypeSymlink, Linkname: "/run"}, tar.Header{Name: "sl", Typeflag: tar.TypeSymlink, Linkname: "../tmp/target"})),
		"load.tar":  string(tarball(t, file("var/run/act/.git/HEAD", "ref"), tar.Header{Name: "var/run/act/.git/HEAD.link", Typeflag: tar.TypeLink, Linkname: "var/run/act/.git/HEAD"})),
		"over.tar":  string(tarball(t, file("a", "1"), file("a", "2"), file("l/f", "1"), tar.Header{Name: "x", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "x", Typeflag: tar.TypeDir, Mode: 0o711})),
		"empty.tar": string(tarball(t)), "cut.gz": gz.String()[:gz.Len()/2],
	}
	for name, pack := range map[string][]string{"t.tar.bz2": {"bzip2"}, "t.tar.xz": {"xz"}} {
		cmd := exec.Command(pack[0], "-c")
		cmd.Stdin = bytes.NewReader(one)
		if out, err := cmd.Output(); err == nil {
			files[name] = string(out)
		}
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/")
		if files[name] == "" && name != "" {
			http.NotFound(w, r)
			return
		}
		w.Write([]byte(cmp.Or(files[name], "index")))
	}))
	defer srv.Close()
	for _, tt := range []struct {
		name, text string
		want       map[string]string
	}{
		{"plain archive", "ADD t.tar /", map[string]string{"foo": "644 0:0 content0", "t.tar": ""}},
		{"gzip", "ADD t.tar.gz /n", map[string]string{"n/foo": "644 0:0 content0"}},
		{"zstd", "ADD t.tar.zst /n", map[string]string{"n/foo": "644 0:0 content0"}},
		{"not unpacked", "ADD --unpack=false t.tar.gz /n/", map[string]string{"n/foo": "", "n/t.tar.gz": "644 0:0 " + gz.String()}},
		{"COPY does not unpack", "COPY t.tar.gz /n/", map[string]string{"n/foo": ""}},
		{"an archive that is cut off is a file", "ADD cut.gz /n/", map[string]string{"n/cut.gz": "644 0:0 " + files["cut.gz"]}},
		{"an archive in a directory is copied", "ADD d /n", map[string]string{"n/foo": "", "n/in.tar": "644 0:0 " + string(one)}},
		{"a file", "ADD plain /n/", map[string]string{"n/plain": "644 0:0 p"}},
		{"several of both kinds", "ADD two/* plain /n/", map[string]string{"n/foo": "644 0:0 content0", "n/bar": "644 0:0 content1", "n/c": "644 0:0 no archive", "n/plain": "644 0:0 p"}},
		{"wildcard of archives", "ADD two/*.tar /n", map[string]string{"n/foo": "644 0:0 content0", "n/bar": "644 0:0 content1"}},
		{"directories that the archive leaves out", "ADD deep.tar /n", map[string]string{"n/etc": "755 0:0 dir", "n/etc/dnf/dnf.conf": "644 0:0 c", "n/x": "700 0:0 dir"}},
		{"an empty archive is a file", "ADD empty.tar /n", map[string]string{"n": "644 0:0 " + string(tarball(t))}},
		{"through a link that an archive made", "ADD root.tar /\nADD load.tar /\nCOPY plain /sl/", map[string]string{"var/run": "-> /run", "run/act/.git/HEAD": "644 0:0 ref", "run/act/.git/HEAD.link": "644 0:0 ref", "tmp/target/plain": "644 0:0 p"}},
		{"over what is there", "RUN mkdir -p /n/d && ln -s d /n/l && echo old > /n/a\nADD over.tar /n", map[string]string{"n/a": "644 0:0 2", "n/l": "-> d", "n/d/f": "644 0:0 1", "n/x": "711 0:0 dir"}},
		{"owners", "ADD --chown=100:200 t.tar /out/\nADD --chown=web:www plain /p", map[string]string{"out": "755 100:200 dir", "out/foo": "644 100:200 content0", "p": "644 500:600 p"}},
		{"an address", "ADD URL/plain /n/\nADD URL/t.tar.gz /n/\nADD URL/t.tar.gz /n/new.gz", map[string]string{"n/plain": "600 0:0 p", "n/t.tar.gz": "600 0:0 " + gz.String(), "n/foo": "", "n/new.gz": "600 0:0 " + gz.String()}},
		{"an address, unpacked", "ADD --unpack=true URL/t.tar.gz /n/", map[string]string{"n/foo": "644 0:0 content0"}},
		{"an address without a name", "ADD URL/ /n/", map[string]string{"n/__unnamed__": "600 0:0 index"}},
		{"an address with a question", "ADD URL/plain?x=/y/z /n/", map[string]string{"n/plain": "600 0:0 p"}},
		{"an address and owners", "ARG m=400\nADD --chmod=755 --chown=7:8 URL/plain /a\nADD --chmod=$m URL/plain /b\nADD --chmod=0413 URL/plain /c", map[string]string{"a": "755 7:8 p", "b": "400 0:0 p", "c": "413 0:0 p"}},
		{"an address of variables", "ENV L=URL/plain\nADD --checksum=sha256:148de9c5a7a44d19e56cd9ae1a554bf67847afb0c58f6e12fa29ac7ddfca9940 ${L} /n", map[string]string{"n": "600 0:0 p"}},
		{"an address and a file", "ADD plain URL/t.tar /n/", map[string]string{"n/plain": "644 0:0 p", "n/t.tar": "600 0:0 " + string(one)}},
		{"linked", "ADD --link t.tar /n\nADD --link --chown=1:2 URL/plain /m/", map[string]string{"n/foo": "644 0:0 content0", "m/plain": "600 1:2 p"}},
		{"a document", "ADD <<EOF /n/f\n#!/bin/sh\nEOF", map[string]string{"n/f": "644 0:0 #!/bin/sh\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			h.want(h.build("FROM busybox\n"+strings.ReplaceAll(tt.text, "URL", srv.URL)+"\n", files), tt.want)
		})
	}
	h.t = t
	for _, name := range []string{"t.tar.bz2", "t.tar.xz"} {
		if files[name] == "" {
			t.Logf("nothing here makes %s", name)
			continue
		}
		h.want(h.build("FROM busybox\nADD "+name+" /n\n", files), map[string]string{"n/foo": "644 0:0 content0"})
	}
	for text, says := range map[string]string{
		"ADD nosuch /":     "not found",
		"ADD URL/nosuch /": "404",
		"ADD --checksum=sha256:" + strings.Repeat("0", 64) + " URL/plain /": "digest mismatch",
	} {
		o := h.try(Request{Text: []byte("FROM busybox\n" + strings.ReplaceAll(text, "URL", srv.URL) + "\n"), ContextDir: h.context(files)})
		if o.err == nil || !strings.Contains(o.err.Error(), says) {
			t.Errorf("%s: %v, want %s", text, o.err, says)
		}
	}
	h.clean()
}
