package test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// leaver is a request whose client goes away in the middle.
type leaver struct {
	name   string
	ask    string // method, path and query
	header string // lines that end with \r\n
	body   string // the beginning of a body that never ends; "" for none
	then   string // the state that the container comes to all the same
	until  string // the client leaves when it has read this, or a byte for ""; or one of the following
}

const (
	sent = "when it has sent everything"
	far  = "when the registry has been asked"
)

// TestWorkEndsWithItsClientInARealEngine: clients go away in the middle of everything that
// takes long. What was done for them ends, nothing of it stays, and the same can be asked
// for again at once. A stop and a restart go on all the same.
func TestWorkEndsWithItsClientInARealEngine(t *testing.T) {
	t.Parallel()
	h := newEngine(t, "--insecure-registry", "127.0.0.1:5999")
	asked := h.stalledRegistry("127.0.0.1:5999")
	h.berth("run", "-d", "--name", "up", "-v", "/data", busyboxImage, "sh", "-c",
		"head -c 30000000 /dev/urandom >/large; head -c 1000000 /dev/zero >/data/file; while sleep 0.05; do echo tick; done")
	h.eventually("the container writes", func() bool { return strings.Contains(h.try("logs", "up"), "tick") })
	h.berth("tag", busyboxImage, "127.0.0.1:5999/push:1")
	h.berth("run", "--rm", busyboxImage, "true")
	f, requests := &apiFuzz{h: h}, h.leavers()
	before, files := f.settled(), h.scratch()
	const times = 6 // a client that leaves something behind six times is told from noise
	for _, l := range requests {
		t.Run(l.name, func(t *testing.T) {
			for len(asked) > 0 {
				<-asked // by those before
			}
			for range times {
				h.leave(t, l, asked)
			}
			if l.then != "" {
				h.eventually("the container is "+l.then, func() bool { return h.try("inspect", "--format", "{{.State.Status}}", "up") == l.then })
			}
			var now holdings
			var left string
			deadline := time.Now().Add(30 * time.Second)
			for {
				if now, left = f.holdings(), h.scratch(); now.goroutines < before.goroutines+times && now.descriptors < before.descriptors+times &&
					now.monitorDescriptors < before.monitorDescriptors+times && now.mounts <= before.mounts && left == files && h.strayPrograms() == 0 {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("left behind: before %+v, now %+v\nfiles: %s\nnow: %s\nprograms: %d", before, now, files, left, h.strayPrograms())
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	h.equal(h.berth("exec", "up", "echo", "still works"), "still works")
	h.berth("rm", "-fv", "up")
}

// stray is how long the program sleeps that must not outlive its client; nobody else's does.
var stray = strconv.Itoa(31_000_000 + rand.IntN(1_000_000))

// leavers lists the requests.
func (h *host) leavers() []leaver {
	tar := "Content-Type: application/x-tar\r\n"
	document := "Content-Type: application/json\r\n"
	archive, err := os.ReadFile(h.busyboxTar())
	if err != nil {
		h.t.Fatal(err)
	}
	half := string(archive[:len(archive)/2])
	saved := h.path("saved.tar")
	h.berth("save", "-o", saved, busyboxImage)
	image, err := os.ReadFile(saved)
	if err != nil {
		h.t.Fatal(err)
	}
	context := h.path("context.tar")
	if err := writeTar(context, []tarFile{{name: "Dockerfile", mode: 0o644, body: "FROM " + busyboxImage + "\nRUN echo begun; sleep " + stray + "\n"}}); err != nil {
		h.t.Fatal(err)
	}
	dockerfile, err := os.ReadFile(context)
	if err != nil {
		h.t.Fatal(err)
	}
	upgrade := "Connection: Upgrade\r\nUpgrade: tcp\r\n"
	return []leaver{
		{name: "events", ask: "GET /events?since=0"},
		{name: "logs", ask: "GET /containers/up/logs?stdout=1&follow=1", until: "tick"},
		{name: "stats", ask: "GET /containers/up/stats", until: "cpu_stats"},
		{name: "stats of one sample", ask: "GET /containers/up/stats?stream=0", until: sent},
		{name: "wait", ask: "POST /containers/up/wait", until: "200 OK"},
		{name: "attach", ask: "POST /containers/up/attach?stream=1&stdout=1", header: upgrade, until: "tick"},
		{name: "attach with the logs", ask: "POST /containers/up/attach?logs=1&stream=1&stdout=1&stdin=1", header: upgrade, until: "tick"},
		{name: "attach over a websocket", ask: "GET /containers/up/attach/ws?stream=1&stdout=1", until: "tick",
			header: "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"},
		{name: "exec", ask: "POST /exec/{exec}/start", header: upgrade + document + "Content-Length: 2\r\n\r\n{}", until: "here"},
		{name: "stop", ask: "POST /containers/up/stop?t=0", until: sent, then: "exited"},
		{name: "restart", ask: "POST /containers/up/restart?t=0", until: sent, then: "running"},
		{name: "top", ask: "GET /containers/up/top", until: sent},
		{name: "export", ask: "GET /containers/up/export", until: "ustar"},
		{name: "changes", ask: "GET /containers/up/changes", until: sent},
		{name: "copying out", ask: "GET /containers/up/archive?path=/large", until: "ustar"},
		{name: "copying in", ask: "PUT /containers/up/archive?path=/data", header: tar, body: half, until: sent},
		{name: "copying in what does not come", ask: "PUT /containers/up/archive?path=/data", header: tar, body: half[:100], until: sent},
		{name: "commit", ask: "POST /commit?container=up&repo=commit", until: sent},
		{name: "save", ask: "GET /images/" + url.PathEscape(busyboxImage) + "/get", until: "ustar"},
		{name: "save of several", ask: "GET /images/get?names=" + url.QueryEscape(busyboxImage), until: "ustar"},
		{name: "load", ask: "POST /images/load", header: tar, body: string(image[:len(image)*2/3]), until: sent},
		{name: "import", ask: "POST /images/create?fromSrc=-&repo=half", header: tar, body: half, until: sent},
		{name: "import from an address", ask: "POST /images/create?repo=far&fromSrc=" + url.QueryEscape("http://127.0.0.1:5999/stalled.tar"), until: far},
		{name: "pull", ask: "POST /images/create?fromImage=127.0.0.1:5999/pull&tag=1", until: far},
		{name: "push", ask: "POST /images/127.0.0.1:5999/push/push?tag=1", header: "X-Registry-Auth: e30=\r\n", until: far},
		{name: "distribution", ask: "GET /distribution/127.0.0.1:5999/pull:1/json", until: far},
		{name: "search", ask: "GET /images/search?term=127.0.0.1:5999/x", until: far},
		{name: "login", ask: "POST /auth", header: document + "Content-Length: 72\r\n\r\n" + `{"username":"aaaa","password":"bbbb","serveraddress":"127.0.0.1:5999"}  `, until: sent},
		{name: "verify", ask: "POST /berth/images/127.0.0.1:5999/push:1/verify", until: sent},
		{name: "referrers", ask: "GET /berth/images/127.0.0.1:5999/push:1/referrers", until: far},
		{name: "df", ask: "GET /system/df?owners=1", until: sent},
		{name: "prune of containers", ask: "POST /containers/prune", until: sent},
		{name: "prune of images", ask: "POST /images/prune", until: sent},
		{name: "prune of the build cache", ask: "POST /build/prune", until: sent},
		{name: "plan", ask: "POST /berth/plan", header: document + "Content-Length: 30\r\n\r\n" + `{"Prunes":[{"Kind":"image"}]} `, until: sent},
		{name: "docker build, half a context", ask: "POST /build?t=b", header: tar, body: string(dockerfile[:600]), until: sent},
		{name: "docker build, a step", ask: "POST /build?t=b", header: tar + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(dockerfile), dockerfile), until: "begun"},
		{name: "build, a step", ask: "POST /berth/build", header: document + withLength(`{"ContextDir":"`+h.context("build", nil)+
			`","Text":"`+encoded("FROM "+busyboxImage+"\nRUN echo begun; sleep "+stray+"\n")+"\"}\n"), until: encoded("begun\n")},
		{name: "build, a context", ask: "POST /berth/build/context", header: document, body: `{"Key":"01234567890123456789012345678901","Slot":"s","Name":"n"}` + "\n", until: sent},
		{name: "create", ask: "POST /containers/create?name=half", header: document, body: `{"Image":"` + busyboxImage, until: sent},
	}
}

func encoded(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func withLength(body string) string {
	return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
}

// leave sends a request, reads some of the answer and goes away.
func (h *host) leave(t *testing.T, l leaver, asked <-chan struct{}) {
	t.Helper()
	conn, err := net.Dial("unix", h.path("run", "berth.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
	text := strings.Replace(l.ask, "{exec}", h.newExec("echo here; cat"), 1) + " HTTP/1.1\r\nHost: x\r\n" + l.header
	switch {
	case l.body != "":
		text += fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(l.body), l.body)
	case !strings.Contains(l.header, "\r\n\r\n"):
		text += "\r\n"
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	switch l.until {
	case sent:
		return
	case far:
		select {
		case <-asked:
		case <-time.After(30 * time.Second):
			t.Fatal("the registry is not asked")
		}
		return
	}
	var seen bytes.Buffer
	answer := bufio.NewReader(conn)
	for l.until == "" && seen.Len() == 0 || !bytes.Contains(seen.Bytes(), []byte(l.until)) {
		buf := make([]byte, 4096)
		n, err := answer.Read(buf)
		seen.Write(buf[:n])
		if err != nil {
			t.Fatalf("%v after %.2000q", err, seen.String())
		}
	}
	if strings.Contains(seen.String(), " 404 Not Found") || strings.Contains(seen.String(), " 500 Internal") {
		t.Fatalf("%.500q", seen.String())
	}
}

// newExec makes an exec of a shell's command in the container and returns its id.
func (h *host) newExec(command string) string {
	h.t.Helper()
	resp, err := h.client().Post("http://engine/containers/up/exec", "application/json",
		strings.NewReader(fmt.Sprintf(`{"AttachStdin":true,"AttachStdout":true,"Cmd":["sh","-c",%q]}`, command)))
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	var made struct {
		ID string `json:"Id"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&made); err != nil {
		h.t.Fatal(err)
	}
	return made.ID
}

// stalledRegistry serves a registry that begins every answer that is long and never ends
// it. What it returns tells of each.
func (h *host) stalledRegistry(addr string) <-chan struct{} {
	asked := make(chan struct{}, 1000)
	h.t.Helper()
	var l net.Listener
	h.inNetwork(func() (err error) { l, err = net.Listen("tcp", addr); return err })
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%064d","size":3000},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%064d","size":300000}]}`, 1, 2)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/" && !strings.Contains(r.Header.Get("Authorization"), "Basic"):
			return
		case strings.Contains(r.URL.Path, "/pull/manifests/") && r.Method == http.MethodGet:
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			_, _ = io.WriteString(w, manifest)
			return
		case strings.Contains(r.URL.Path, "/blobs/sha256:") && r.Method == http.MethodHead && strings.Contains(r.URL.Path, "/push/"):
			w.WriteHeader(http.StatusNotFound)
			return
		case strings.HasSuffix(r.URL.Path, "/blobs/uploads/"):
			w.Header().Set("Location", "/v2/push/blobs/uploads/1")
			w.WriteHeader(http.StatusAccepted)
			return
		}
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Length", "300000")
			_, _ = w.Write(make([]byte, 1000))
			_ = http.NewResponseController(w).Flush()
		}
		asked <- struct{}{}
		<-r.Context().Done()
	})}
	go server.Serve(l)
	h.t.Cleanup(func() { _ = server.Close() })
	return asked
}

// scratch lists the files that work in progress has in the data directory.
func (h *host) scratch() string {
	var list []string
	for _, dir := range []string{"content/ingest", "build/tmp", "build/fresh", "layers/.tmp", "layers/.trash", "containers", "tmp"} {
		_ = filepath.WalkDir(h.path("data", dir), func(path string, e fs.DirEntry, err error) error {
			if rel, _ := filepath.Rel(h.path("data"), path); err == nil && strings.Count(rel, "/") == strings.Count(dir, "/")+1 {
				list = append(list, rel)
				if e.IsDir() {
					return fs.SkipDir
				}
			}
			return nil
		})
	}
	return strings.Join(list, " ")
}

// strayPrograms counts the programs of builds whose clients have gone.
func (h *host) strayPrograms() (n int) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range lines {
		line, _ := os.ReadFile(name)
		if bytes.Contains(line, []byte("sleep\x00"+stray)) {
			n++
		}
	}
	return n
}
