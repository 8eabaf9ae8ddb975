package test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// raw sends bytes to the engine's socket and returns all of its answer.
func (h *host) raw(request string) string {
	h.t.Helper()
	conn, err := net.Dial("unix", h.path("run", "berth.sock"))
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	go func() { // an answer may come before everything is sent
		_, _ = io.WriteString(conn, request)
		_ = conn.(*net.UnixConn).CloseWrite()
	}()
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

// CVE-2024-41110, CVE-2026-34040: what a request does never depends on a body
// that somebody before the handler did not see: a length of 0 means that there
// is none, two lengths are refused, one that is too large is refused unread.
func TestCVE202441110BodiesAreWhatTheHeadersSay(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	body := `{"Image":"` + busyboxImage + `","Cmd":["true"]}`
	create := func(name, headers, body string) string {
		return h.raw("POST /containers/create?name=" + name + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + headers + "\r\n\r\n" + body)
	}
	status := func(answer, want string) {
		t.Helper()
		if !strings.HasPrefix(answer, "HTTP/1.1 "+want) {
			t.Errorf("want %s, got %.300q", want, answer)
		}
	}
	status(create("zero", "Content-Length: 0", body), "400")
	status(create("both", fmt.Sprintf("Content-Length: 3\r\nTransfer-Encoding: gzip\r\nContent-Length: %d", len(body)), body), "501")
	status(create("two", fmt.Sprintf("Content-Length: 0\r\nContent-Length: %d", len(body)), body), "400")
	status(create("large", "Content-Length: 1000000000", body), "413")
	status(create("short", "Content-Length: 1000", body), "400")
	huge := bytes.Repeat([]byte(" "), 5<<20)
	status(create("chunks", "Transfer-Encoding: chunked", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(huge), huge)), "413")
	h.equal(h.berth("ps", "-aq"), "")
	status(create("right", "Transfer-Encoding: chunked", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)), "201")
	h.equal(h.berth("ps", "-a", "--format", "{{.Names}}"), "right")
}

// CVE-2021-41091: nobody but root gets into the data directory, so that
// programs with setuid bits in images and volumes are of no use on the host.
func TestCVE202141091DataIsClosedToOthers(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	if err := os.Chmod(h.dir, 0o755); err != nil { // the harness's own, which would hide everything
		t.Fatal(err)
	}
	h.berth("run", "-d", "--name", "box", "-v", "store:/data", busyboxImage, "sh", "-c", "cp /bin/busybox /data/su; chmod 4755 /data/su; cp /data/su /su; chmod 4755 /su; sleep 1000")
	h.eventually("the files are there", func() bool { return h.run("exec", "box", "test", "-u", "/su").code == 0 })
	var reached []string
	err := filepath.WalkDir(h.path("data"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == h.path("data") || strings.Count(path, "/") > 9 {
			return nil
		}
		// Somebody who knows every name.
		if out, err := h.within("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "stat", "-c", "%F", path).Output(); err == nil &&
			(strings.HasSuffix(path, "su") || strings.Count(strings.TrimPrefix(path, h.dir), "/") > 2) {
			reached = append(reached, path+" "+strings.TrimSpace(string(out)))
		}
		if len(reached) > 5 {
			return filepath.SkipAll
		}
		return nil
	})
	if err != nil || len(reached) > 0 {
		t.Errorf("others reach %v, %v", reached, err)
	}
	if fi, err := os.Stat(h.path("data")); err != nil || fi.Mode().Perm()&0o007 != 0 {
		t.Errorf("the data directory has mode %v, %v", fi.Mode(), err)
	}
	var st syscall.Stat_t
	for _, name := range []string{"data", "data/metadata.db", "data/containers", "data/volumes"} {
		if err := syscall.Stat(h.path(name), &st); err != nil || st.Uid != 0 {
			t.Errorf("%s belongs to %d, %v", name, st.Uid, err)
		}
	}
}

// CVE-2021-21284, CVE-2021-21285: a mode of user namespaces that the engine
// does not have is refused instead of half done, and malformed manifests are
// refused instead of ending the engine.
func TestCVE202121285MalformedManifests(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	if o := h.run("create", "--userns", "private", busyboxImage, "true"); o.code == 0 || !strings.Contains(o.stderr, "userns") {
		t.Errorf("--userns private: code %d, %q", o.code, o.stderr)
	}
	digest := "sha256:" + strings.Repeat("a", 64)
	list := []string{"", "{", "null", "[]", `"x"`, `{"schemaVersion":2}`, `{"schemaVersion":2,"config":null,"layers":null}`, `{"schemaVersion":2,"config":{},"layers":[null]}`,
		`{"schemaVersion":1,"fsLayers":[],"history":[]}`, `{"schemaVersion":1,"name":"x","tag":"1","fsLayers":[{"blobSum":""}],"history":[{"v1Compatibility":""}]}`,
		`{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"digest":"` + digest + `","size":-1},"layers":[]}`,
		`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[null,{}]}`, `{"schemaVersion":2,"manifests":` + strings.Repeat("[", 10000),
		`{"schemaVersion":2,"config":{"digest":"sha256:../../../etc/passwd","size":1},"layers":[{"digest":"x","size":1e300}]}`}
	h.write("www/v2/index.html", "{}", 0o644)
	for i, text := range list {
		h.write("www/v2/bad/manifests/"+strconv.Itoa(i), text, 0o644)
	}
	h.background("busybox", "httpd", "-f", "-p", "127.0.0.1:5999", "-h", h.path("www"))
	h.eventually("the server answers", func() bool {
		return h.within("busybox", "wget", "-qO", "/dev/null", "http://127.0.0.1:5999/v2/").Run() == nil
	})
	for i, text := range list {
		o := h.run("pull", "127.0.0.1:5999/bad:"+strconv.Itoa(i))
		if o.code == 0 || o.stderr == "" || strings.Contains(o.stderr, "defect") {
			t.Errorf("manifest %.80q: code %d, %q", text, o.code, o.stderr)
		}
	}
	if log := h.read(h.path("engine.log")); strings.Contains(log, "panic") {
		t.Error(log)
	}
	h.equal(h.berth("run", "--rm", busyboxImage, "echo", "fine"), "fine")
}

// CVE-2020-13401: a container takes no router advertisements, from nobody.
func TestCVE202013401NoRouterAdvertisements(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.berth("network", "create", "--ipv6", "--subnet", "fd77::/64", "six")
	for _, network := range []string{"bridge", "six"} {
		out := h.berth("run", "--rm", "--network", network, busyboxImage, "cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra", "/proc/sys/net/ipv6/conf/default/accept_ra")
		h.equal(out, "0\n0")
	}
	links, _ := h.within("ip", "-o", "link", "show", "type", "bridge").Output()
	for line := range strings.Lines(string(links)) {
		name := strings.TrimSuffix(strings.Fields(line)[1], ":")
		h.equal(strings.TrimSpace(h.mustWithin("cat", "/proc/sys/net/ipv6/conf/"+name+"/accept_ra")), "0")
	}
}

// CVE-2014-9356, CVE-2014-9357, CVE-2014-9358: links in build contexts and
// archives lead nowhere outside, and ids that somebody sends are no paths.
func TestCVE20149358IdsAndLinks(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	canary := h.write("canary", "unharmed-secret", 0o600)
	h.write("data/build/canary.json", "unharmed", 0o600)
	build := func(headers ...*tar.Header) string {
		t.Helper()
		resp, err := h.client().Post("http://engine/build?t=stolen:1", "application/x-tar", tarOf(t, headers...))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return string(text)
	}
	for what, headers := range map[string][]*tar.Header{
		"a Dockerfile that is a link":       {{Name: "Dockerfile", Typeflag: tar.TypeSymlink, Linkname: canary}},
		"a source that is an absolute link": {{Name: "Dockerfile", Typeflag: tar.TypeReg, Uname: "FROM scratch\nCOPY l /l\n"}, {Name: "l", Typeflag: tar.TypeSymlink, Linkname: canary}},
		"a source below a link":             {{Name: "Dockerfile", Typeflag: tar.TypeReg, Uname: "FROM scratch\nCOPY d/canary /l\n"}, {Name: "d", Typeflag: tar.TypeSymlink, Linkname: h.dir}},
		"a source above":                    {{Name: "Dockerfile", Typeflag: tar.TypeReg, Uname: "FROM scratch\nCOPY ../../../../../../../.." + canary + " /l\n"}},
		"a hard link out":                   {{Name: "Dockerfile", Typeflag: tar.TypeReg, Uname: "FROM scratch\nCOPY l /l\n"}, {Name: "l", Typeflag: tar.TypeLink, Linkname: "../../../../../.." + canary}},
		"a file through a link": {{Name: "Dockerfile", Typeflag: tar.TypeReg, Uname: "FROM scratch\nCOPY d /d\n"}, {Name: "d", Typeflag: tar.TypeSymlink, Linkname: h.dir},
			{Name: "d/canary", Typeflag: tar.TypeReg, Uname: "overwritten"}},
	} {
		if text := build(headers...); strings.Contains(text, "secret") {
			t.Errorf("%s: %s", what, text)
		}
		if h.run("image", "inspect", "stolen:1").code == 0 {
			var b bytes.Buffer
			if err := h.get("/images/stolen:1/get", &b); err != nil || bytes.Contains(b.Bytes(), []byte("unharmed-secret")) {
				t.Errorf("%s: the image holds the host's file (%v)", what, err)
			}
			h.berth("rmi", "-f", "stolen:1")
		}
		h.equal(h.read(canary), "unharmed-secret")
	}
	for _, path := range []string{"/berth/builds/..%2Fcanary", "/containers/..%2F..%2Fcanary", "/images/..%2F..%2Fcanary", "/volumes/..%2F..%2Fcanary", "/networks/..%2Fcanary", "/volumes/.."} {
		req, err := http.NewRequest(http.MethodDelete, "http://engine"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := h.client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusBadRequest {
			t.Errorf("DELETE %s: %s", path, resp.Status)
		}
	}
	h.equal(h.read(h.path("data/build/canary.json")), "unharmed")
	manifest, _ := json.Marshal([]map[string]any{{"Config": "../../../../.." + canary, "RepoTags": []string{"../../x:1"}, "Layers": []string{"../" + canary}}})
	archive := h.path("hostile.tar")
	if err := os.WriteFile(archive, tarOf(t, &tar.Header{Name: "manifest.json", Typeflag: tar.TypeReg, Uname: string(manifest)},
		&tar.Header{Name: "repositories", Typeflag: tar.TypeReg, Uname: `{"x":{"1":"../../../etc"}}`}).Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := h.run("load", "-i", archive); o.code == 0 || strings.Contains(o.stdout+o.stderr, "secret") {
		t.Errorf("load: code %d, %q", o.code, o.stderr)
	}
}

// Malformed JSON, half-closed streams and clients that leave: neither
// descriptors nor goroutines stay.
func TestBrokenRequestsLeaveNothing(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.berth("run", "-d", "--name", "box", "-i", busyboxImage, "cat")
	f := &apiFuzz{h: h}
	before := f.holdings()
	upgrade := " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
	for i := range 60 {
		for _, request := range []string{
			"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n" + []string{`{"Image`, `[[[[[[[`, `{"a":{}`, "\x00\xff\xfe{}}}"}[i%4],
			"POST /containers/box/attach?stream=1&stdin=1&stdout=1" + upgrade + "\r\n",
			"POST /containers/nosuch/attach?stream=1" + upgrade + "\r\n",
			"POST /exec/nosuch/start" + upgrade + "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
			"GET /containers/box/attach/ws?stream=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x85",
			"GET /events HTTP/1.1\r\nHost: x\r\n\r\n", "GET /containers/box/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n", "GET /containers/box/stats HTTP/1.1\r\nHost: x\r\n\r\n",
		} {
			conn := h.send0(request)
			if i%2 == 0 {
				_ = conn.(*net.UnixConn).CloseWrite()
			}
			if i%3 == 0 {
				_ = conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
				_, _ = conn.Read(make([]byte, 10))
			}
			conn.Close()
		}
	}
	var now holdings
	defer func() { t.Logf("before %+v, now %+v", before, now) }()
	h.eventually("nothing is left", func() bool {
		now = f.holdings()
		return now.goroutines <= before.goroutines+2 && now.descriptors <= before.descriptors+2 && now.monitorDescriptors <= before.monitorDescriptors+2
	})
	if log := h.read(h.path("engine.log")); strings.Contains(log, "panic") {
		t.Error(log)
	}
	h.berth("rm", "-f", "box")
}

// send0 sends bytes and returns the connection.
func (h *host) send0(request string) net.Conn {
	h.t.Helper()
	conn, err := net.Dial("unix", h.path("run", "berth.sock"))
	if err != nil {
		h.t.Fatal(err)
	}
	_, _ = io.WriteString(conn, request)
	return conn
}
