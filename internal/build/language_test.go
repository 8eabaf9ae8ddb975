package build

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

func TestCopies(t *testing.T) {
	h := newHouse(t)
	dir := h.context(map[string]string{
		"a": "A", "d/x": "X", "d/sub/y": "Y", "d/skip.log": "L", "w/1.txt": "1", "w/2.txt": "2", "w/3.md": "3",
		"link -> d/x": "", "p/q/r/deep": "D", "p/q/other": "O", "root/lib/new": "N", "out -> /etc/passwd": "",
	})
	os.Chmod(filepath.Join(dir, "d/sub"), 0o711)
	at := func(r *Request) { r.ContextDir = dir }
	for _, tt := range []struct {
		name, copy string
		want       map[string]string
	}{
		{"file to file", "COPY a /b", map[string]string{"b": "644 0:0 A"}},
		{"file into directory", "COPY a /n/", map[string]string{"n/a": "644 0:0 A", "n": "755 0:0 dir"}},
		{"file into an existing directory", "COPY a /tmp", map[string]string{"tmp/a": "644 0:0 A", "tmp": "1777 0:0 dir"}},
		{"directory's content", "COPY d /n", map[string]string{"n/x": "644 0:0 X", "n/sub/y": "644 0:0 Y", "n/sub": "711 0:0 dir"}},
		{"several", "COPY a d/x /n/", map[string]string{"n/a": "644 0:0 A", "n/x": "644 0:0 X"}},
		{"wildcard", "COPY w/*.txt /n/", map[string]string{"n/1.txt": "644 0:0 1", "n/2.txt": "644 0:0 2", "n/3.md": ""}},
		{"wildcard of nothing", "COPY a nosuch* /n/", map[string]string{"n/a": "644 0:0 A"}},
		{"a link is followed", "COPY link /n/", map[string]string{"n/link": "644 0:0 X"}},
		{"links below stay links", "COPY . /n/", map[string]string{"n/link": "-> d/x", "n/out": "-> /etc/passwd"}},
		{"chown by name", "COPY --chown=web:www d /n", map[string]string{"n/x": "644 500:600 X", "n": "755 500:600 dir"}},
		{"chown by number", "COPY --chown=7 a /n/", map[string]string{"n/a": "644 7:7 A", "n": "755 7:7 dir"}},
		{"chmod", "COPY --chmod=4711 a /n", map[string]string{"n": "4711 0:0 A"}},
		{"chmod in letters", "COPY --chmod=go-r,u+x a /n", map[string]string{"n": "700 0:0 A"}},
		{"exclude", "COPY --exclude=*.log --exclude=sub d /n/", map[string]string{"n/x": "644 0:0 X", "n/skip.log": "", "n/sub": ""}},
		{"exclude among wildcards", "COPY --exclude=2* w/*.txt /n/", map[string]string{"n/1.txt": "644 0:0 1", "n/2.txt": ""}},
		{"parents", "COPY --parents p/q/r/deep a /n/", map[string]string{"n/p/q/r/deep": "644 0:0 D", "n/p/q/other": "", "n/a": "644 0:0 A"}},
		{"parents with pivot", "COPY --parents p/./q/*r /n/", map[string]string{"n/q/r/deep": "644 0:0 D", "n/q/other": "644 0:0 O", "n/p": ""}},
		{"parents any depth", "COPY --parents **/deep /n/", map[string]string{"n/p/q/r/deep": "644 0:0 D", "n/p/q/other": ""}},
		{"through the image's links", "COPY root/ /", map[string]string{"usr/lib/new": "644 0:0 N", "lib": "-> usr/lib"}},
		{"link", "COPY --link a /lib/", map[string]string{"lib/a": "644 0:0 A"}},
		{"document", "COPY <<EOF /n/f\nhello $PATH\nEOF", map[string]string{"n/f": "644 0:0 hello /bin\n"}},
		{"from an image", "COPY --from=busybox /etc/passwd /n/", map[string]string{"n/passwd": "644 0:0 root:x:0:0:root:/root:/bin/sh\nweb:x:500:501::/:/bin/sh\n"}},
		{"into the working directory", "WORKDIR /w/x\nCOPY a .", map[string]string{"w/x/a": "644 0:0 A"}},
		{"over a file", "COPY a /etc/passwd", map[string]string{"etc/passwd": "644 0:0 A"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			h.want(h.build("FROM busybox\n"+tt.copy+"\n", nil, at), tt.want)
		})
	}
	for _, tt := range []struct{ name, copy, says string }{
		{"missing", "COPY nosuch /n", "nosuch: not found"},
		{"up", "COPY ../../../../etc/passwd /n", "not found"},
		{"a link out of the context", "COPY out /n", "not found"},
		{"unknown user", "COPY --chown=nobody a /n", "nobody"},
		{"directory over a file", "COPY d /etc/passwd", "passwd"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			o := h.try(Request{Text: []byte("FROM busybox\n" + tt.copy + "\n"), ContextDir: dir})
			if o.err == nil || !strings.Contains(o.err.Error(), tt.says) {
				t.Errorf("error %v, want %q", o.err, tt.says)
			}
		})
	}
	h.t = t
	h.clean()
}

func tarball(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, hd := range headers {
		data := ""
		if hd.Typeflag == tar.TypeReg {
			data, hd.Linkname = hd.Linkname, ""
		}
		hd.Size = int64(len(data))
		if hd.Mode == 0 {
			hd.Mode = 0o644
		}
		if err := w.WriteHeader(&hd); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(data))
	}
	w.Close()
	return b.Bytes()
}

func TestLinkedCopyGoesOnWhatIsBelowNow(t *testing.T) {
	h := newHouse(t)
	files := map[string]string{"f": "x"}
	for _, which := range []string{"a", "b"} {
		o := h.build("FROM busybox\nRUN echo "+which+" > /which\nCOPY --link f /f\nRUN cat /which > /after\n", files)
		h.want(o, map[string]string{"which": "644 0:0 " + which + "\n", "after": "644 0:0 " + which + "\n", "f": "644 0:0 x"})
		if which == "b" && strings.Contains(o.ran(), "COPY") {
			t.Errorf("the linked copy was made again: it does not depend on what is below it")
		}
	}
}

func TestAdd(t *testing.T) {
	h := newHouse(t)
	plain := tarball(t,
		tar.Header{Name: "in/", Typeflag: tar.TypeDir, Mode: 0o750},
		tar.Header{Name: "in/f", Typeflag: tar.TypeReg, Linkname: "F", Uid: 5, Gid: 6},
		tar.Header{Name: "../up", Typeflag: tar.TypeReg, Linkname: "U"},
		tar.Header{Name: "abs", Typeflag: tar.TypeSymlink, Linkname: "/etc"},
		tar.Header{Name: "abs/evil", Typeflag: tar.TypeReg, Linkname: "E"},
	)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(plain)
	z.Close()
	files := map[string]string{"a.tar": string(plain), "a.tgz": packed.String(), "fake.tar": "no archive"}
	if _, err := exec.LookPath("xz"); err == nil {
		cmd := exec.Command("xz", "-c")
		cmd.Stdin = bytes.NewReader(plain)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		files["a.xz"] = string(out)
	}
	for name := range files {
		if name == "fake.tar" {
			continue
		}
		o := h.build("FROM busybox\nADD "+name+" /n/\n", files)
		h.want(o, map[string]string{"n/in/f": "644 5:6 F", "n/in": "750 0:0 dir", "n/up": "644 0:0 U", "n/abs": "-> /etc", "etc/evil": "644 0:0 E"})
		if _, err := os.Lstat("/etc/evil"); err == nil {
			t.Fatal("an archive wrote to the host")
		}
	}
	h.want(h.build("FROM busybox\nADD fake.tar /n/\n", files), map[string]string{"n/fake.tar": "644 0:0 no archive"})
	h.want(h.build("FROM busybox\nCOPY a.tgz /n/x\n", files), map[string]string{"n/in/f": ""})
	h.want(h.build("FROM busybox\nADD --unpack=false a.tar /n/\n", files), map[string]string{"n/in/f": ""})

	var requests, bodies atomic.Int64
	body := "one"
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		w.Header().Set("ETag", `"`+body+`"`)
		if r.Header.Get("If-None-Match") == `"`+body+`"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		bodies.Add(1)
		w.Write([]byte(body))
	}))
	defer srv.Close()
	text := "FROM busybox\nADD " + srv.URL + "/dir/f.txt /n/\n"
	h.want(h.build(text, nil), map[string]string{"n/f.txt": "600 0:0 one"})
	if o := h.build(text, nil); o.ran() != "" || bodies.Load() != 1 {
		t.Errorf("the file was fetched %d times: %s", bodies.Load(), o.ran())
	}
	body = "two"
	h.want(h.build(text, nil), map[string]string{"n/f.txt": "600 0:0 two"})
	const two = "sha256:3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"
	sum := strings.Replace(text, "ADD", "ADD --checksum="+two, 1)
	h.want(h.build(sum, nil), map[string]string{"n/f.txt": "600 0:0 two"})
	before := requests.Load()
	if h.build(sum, nil); requests.Load() != before {
		t.Error("a file whose checksum is known was asked for")
	}
	body = "three"
	if o := h.try(Request{Text: []byte(sum), NoCache: true}); o.err == nil || !strings.Contains(o.err.Error(), "digest mismatch") {
		t.Errorf("a wrong checksum: %v", o.err)
	}
	h.clean()
}

func TestMounts(t *testing.T) {
	h := newHouse(t)
	dir := h.context(map[string]string{"f": "context", "s/g": "sub", "hidden": "x", ".dockerignore": "hidden"})
	at := func(r *Request) { r.ContextDir = dir }
	for _, tt := range []struct{ name, text, want string }{
		{"the context", "RUN --mount=target=/c cat /c/f /c/s/g > /o; ls /c/hidden >> /o 2>&1 || true; touch /c/w 2>/dev/null && echo rw >> /o || true", "contextsubls: /c/hidden: No such file or directory\n"},
		{"part of it", "RUN --mount=target=/c,source=s cat /c/g > /o", "sub"},
		{"one file", "RUN --mount=target=/c,source=f cat /c > /o", "context"},
		{"written to and thrown away", "RUN --mount=target=/c,rw echo w > /c/f; cat /c/f > /o", "w\n"},
		{"another image through its link", "RUN --mount=from=busybox,source=/lib/../../etc/passwd,target=/c head -c 4 /c > /o", "root"},
		{"a stage with deletions", "RUN --mount=from=st,target=/c ls /c/etc /c/d > /o", "/c/d:\nnew\n\n/c/etc:\ngroup\n"},
		{"part of a stage", "RUN --mount=from=st,source=/d,target=/c,rw ls /c > /o", "new\n"},
		{"cache", "RUN --mount=type=cache,target=/k echo -n 1 >> /k/n; cat /k/n > /o", "1"},
		{"cache again", "RUN --mount=type=cache,target=/k echo -n 2 >> /k/n; cat /k/n > /o", "12"},
		{"cache with another id", "RUN --mount=type=cache,target=/k,id=../../x,uid=500,mode=700 stat -c '%u %a' /k > /o", "500 700\n"},
		{"cache from a stage", "RUN --mount=type=cache,target=/k,id=seed,from=st,source=/d ls /k > /o", "new\n"},
		{"tmpfs", "RUN --mount=type=tmpfs,target=/k,size=1m touch /k/x && ls /k > /o", "x\n"},
		{"script", "RUN <<EOF\n#!/bin/cat\ntext\nEOF\nRUN <<E\necho -n 1 > /o\necho 2 >> /o\nE", "12\n"},
		{"network off", "RUN --network=none ls /sys/class/net > /o", "lo\n"},
		{"as a user", "USER 500\nRUN --mount=type=cache,target=/tmp/k,id=u,uid=500 id -u > /tmp/k/x; cat /tmp/k/x > /tmp/o\nUSER 0\nRUN cp /tmp/o /o", "500\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			o := h.build("FROM busybox AS st\nRUN mkdir /d && touch /d/old\nRUN rm /etc/passwd; rm -r /d; mkdir /d; touch /d/new\nFROM busybox\n"+tt.text+"\n", nil, at)
			if got := h.tree(o, "")["o"]; got != "644 0:0 "+tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	h.t = t
	h.clean()
}

func TestNamedContextsAndForeignFrom(t *testing.T) {
	h := newHouse(t)
	dir := h.context(map[string]string{"f": "named"})
	contexts := func(r *Request) {
		r.Contexts = map[string]string{"files": dir, "alpine": "docker-image://busybox"}
	}
	h.want(h.build("FROM alpine\nCOPY --from=files f /g\n", nil, contexts), map[string]string{"g": "644 0:0 named", "tmp": "1777 0:0 dir"})
	h.want(h.build("FROM files\n", nil, contexts), map[string]string{"f": "644 0:0 named", "tmp": ""})
	h.want(h.build("FROM files AS x\nFROM x\nCOPY --from=x f /h\n", nil, contexts), map[string]string{"f": "644 0:0 named", "h": "644 0:0 named"})
}

func TestArchiveAndRemoteContexts(t *testing.T) {
	h := newHouse(t)
	archive := tarball(t,
		tar.Header{Name: "sub/My.Dockerfile", Typeflag: tar.TypeReg, Linkname: "FROM busybox\nCOPY f /g\n"},
		tar.Header{Name: "f", Typeflag: tar.TypeReg, Linkname: "F", Uid: 1000, Mode: 0o600},
	)
	o := h.try(Request{Archive: bytes.NewReader(archive), Dockerfile: "sub/My.Dockerfile"})
	if o.err != nil {
		t.Fatal(o.err)
	}
	h.want(o, map[string]string{"g": "600 0:0 F"})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(archive) }))
	defer srv.Close()
	if o = h.try(Request{Remote: srv.URL + "/x.tar", Dockerfile: "sub/My.Dockerfile"}); o.err != nil || o.ran() != "" {
		t.Errorf("the same context from elsewhere: %v, ran %s", o.err, o.ran())
	}
	for name, req := range map[string]Request{
		"no Dockerfile":      {Archive: bytes.NewReader(archive)},
		"Dockerfile outside": {Archive: bytes.NewReader(archive), Dockerfile: "../../../etc/passwd"},
		"two contexts":       {Archive: bytes.NewReader(archive), Remote: "x"},
		"nothing":            {},
	} {
		if o := h.try(req); o.err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	h.clean()
}
