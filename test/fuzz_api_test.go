package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestFuzzAPI sends random requests, right and wrong, to all routes of an engine
// with real containers, from several clients at once, some of which go away in
// the middle. Nothing may panic, hang, be answered with 500, or stay behind.
// BERTH_FUZZ_API sets how long (default 20 s), BERTH_FUZZ_SEED repeats a choice
// of requests.
func TestFuzzAPI(t *testing.T) {
	t.Parallel()
	length := 20 * time.Second
	if text := os.Getenv("BERTH_FUZZ_API"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatalf("BERTH_FUZZ_API: %v", err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("BERTH_FUZZ_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("BERTH_FUZZ_SEED: %v", err)
		}
	}
	h := newEngine(t)
	f := &apiFuzz{h: h, routes: apiRoutes(t), answers: map[int]int{}, seen: map[string]bool{}, reached: map[string]int{}}
	t.Logf("seed %d, %s, %d routes", seed, length, len(f.routes))
	h.berth("run", "--rm", busyboxImage, "true") // everything that is made once is made
	f.image = h.berth("inspect", "--format", "{{.Image}}", h.berth("run", "-d", "--name", "keeper", busyboxImage, "sleep", "100000"))
	before := f.settled()

	end := time.Now().Add(length)
	var group sync.WaitGroup
	for client := range uint64(8) {
		group.Go(func() {
			g := &grammar{r: rand.New(rand.NewPCG(seed, client)), dir: h.path("shared"), ids: &f.ids}
			for time.Now().Before(end) && !f.dead() {
				if g.chance(4) {
					f.rude(g)
				} else {
					f.send(g)
				}
			}
		})
	}
	group.Wait()
	t.Logf("answers by status: %v", f.answers)
	for _, route := range f.routes {
		if f.reached[route] == 0 && length > 10*time.Second {
			t.Errorf("%s was never asked", route)
		}
	}
	f.expectSound(before)
}

type apiFuzz struct {
	h      *host
	routes []string
	ids    idPool
	image  string // id of the busybox image, which one container keeps alive

	mu      sync.Mutex
	answers map[int]int
	seen    map[string]bool // findings told
	reached map[string]int
}

// dead reports an engine that does not run any more.
func (f *apiFuzz) dead() bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d/fd/0", f.h.daemon.Process.Pid))
	return err != nil
}

// finding fails the test once for each kind of finding.
func (f *apiFuzz) finding(kind, format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	kind = regexp.MustCompile(`[0-9a-f]{12,}|[0-9]+`).ReplaceAllString(kind, "N")
	if f.seen[kind] {
		return
	}
	f.seen[kind] = true
	f.h.t.Errorf(format, args...)
}

// endless are answers that end only when the client or a container does.
var endless = regexp.MustCompile(`/(events|logs|stats|attach|attach/ws|wait|start|stop|restart|build|pull|push|export|archive|create)(\?|$)|^/berth/build`)

// send makes one request and judges the answer.
func (f *apiFuzz) send(g *grammar) {
	route := f.routes[g.r.IntN(len(f.routes))]
	if g.chance(45) {
		route = g.pick("POST /containers/create", "POST /containers/create", "POST /containers/{id}/start", "POST /containers/{id}/start", "POST /containers/{id}/exec", "POST /exec/{id}/start", "DELETE /containers/{id}",
			"POST /containers/create", "POST /containers/{id}/start", "POST /containers/{id}/kill", "POST /containers/{id}/attach", "PUT /containers/{id}/archive")
	}
	f.mu.Lock()
	f.reached[route]++
	f.mu.Unlock()
	fr := g.request(route)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	hasty := g.chance(15) || endless.MatchString(fr.path)
	if hasty {
		time.AfterFunc(time.Duration(1+g.r.IntN(400))*time.Millisecond, cancel)
	}
	var body io.Reader
	if fr.body != nil {
		body = bytes.NewReader(fr.body)
		if fr.chunked {
			body = io.NopCloser(body)
		}
	}
	req, err := http.NewRequestWithContext(ctx, fr.method, "http://engine"+fr.path, body)
	if err != nil {
		return // not a request that net/http would send
	}
	for k, v := range fr.header {
		req.Header.Set(k, v)
	}
	if fr.contentType != "" {
		req.Header.Set("Content-Type", fr.contentType)
	}
	resp, err := f.h.client().Do(req)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") && !strings.Contains(err.Error(), "broken pipe") && !strings.Contains(err.Error(), "invalid header") {
			f.finding("err "+route, "%s %s: %v", fr.method, fr.path, err)
		} else if !hasty && ctx.Err() != nil {
			f.finding("hang "+route, "%s %s: no answer within 30 s; body %.300q", fr.method, fr.path, fr.body)
		}
		return
	}
	defer resp.Body.Close()
	// A connection that was taken over does not end with the context.
	defer context.AfterFunc(ctx, func() { resp.Body.Close() })()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if !hasty && ctx.Err() != nil {
		f.finding("endless "+route, "%s %s: the answer did not end within 30 s", fr.method, fr.path)
	}
	f.judge(route, fr, resp, text)
}

func (f *apiFuzz) judge(route string, fr fuzzRequest, resp *http.Response, text []byte) {
	f.mu.Lock()
	f.answers[resp.StatusCode]++
	f.mu.Unlock()
	var doc struct{ ID, Message string }
	_ = json.Unmarshal(text, &doc)
	switch {
	case resp.StatusCode == http.StatusInternalServerError:
		f.finding("500 "+route+doc.Message, "%s %s: 500 %s\n  body %.600q", fr.method, fr.path, text, fr.body)
	case strings.Contains(doc.Message, "No such image: "+busyboxImage):
		f.nameAgain()
	case resp.StatusCode == http.StatusCreated && doc.ID != "":
		f.ids.add(fr.path, doc.ID)
	case resp.StatusCode >= 400 && fr.method != http.MethodHead && resp.Header.Get("Content-Type") == "application/json" && doc.Message == "":
		f.finding("message "+route, "%s %s: %d without a message: %q", fr.method, fr.path, resp.StatusCode, text)
	}
}

// nameAgain gives the image its name back, which some request has removed.
func (f *apiFuzz) nameAgain() {
	var b bytes.Buffer
	if err := f.h.post("/images/"+f.image+"/tag?repo=test/busybox&tag=1", &b); err != nil {
		f.finding("tag", "the image that a container uses is gone: %v", err)
	}
}

// rude talks to the socket by hand: half requests, half-closed streams, readers
// that read nothing, and things that are not HTTP.
func (f *apiFuzz) rude(g *grammar) {
	conn, err := net.Dial("unix", f.h.path("run", "berth.sock"))
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	name := g.name()
	attach := "POST /v1.41/containers/" + name + "/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
	_, _ = io.WriteString(conn, g.pick(
		attach, attach+"input", attach,
		"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"Image\":",
		"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"GET /events HTTP/1.1\r\nHost: x\r\n\r\n", "GET /containers/"+name+"/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /containers/"+name+"/stats HTTP/1.1\r\nHost: x\r\n\r\n", "GET /containers/"+name+"/export HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nhalf", "POST /build HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
		"PUT /containers/"+name+"/archive?path=/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n", "GET / HTTP/3.7\r\n\r\n", "\x16\x03\x01\x02\x00", "GET", "\r\n\r\n\r\n"))
	if c, ok := conn.(*net.UnixConn); ok && g.chance(50) {
		_ = c.CloseWrite()
	}
	if g.chance(50) {
		_, _ = bufio.NewReader(conn).ReadString('\n')
	}
	time.Sleep(time.Duration(g.r.IntN(100)) * time.Millisecond)
}

// holdings is what an engine at rest holds.
type holdings struct {
	goroutines, descriptors, monitorDescriptors, mounts, links int
	monitor                                                    []int
}

func (f *apiFuzz) holdings() holdings {
	var info struct{ NGoroutines int }
	var b bytes.Buffer
	if err := f.h.get("/info", &b); err != nil {
		f.h.t.Errorf("the engine does not answer: %v", err)
	}
	_ = json.Unmarshal(b.Bytes(), &info)
	now := holdings{goroutines: info.NGoroutines, descriptors: descriptorsOf(f.h.daemon.Process.Pid), monitor: f.h.monitors()}
	for _, pid := range now.monitor {
		now.monitorDescriptors += descriptorsOf(pid)
	}
	mounts, _ := f.h.within("cat", "/proc/self/mountinfo").Output()
	now.mounts = strings.Count(string(mounts), "\n")
	links, _ := f.h.within("ip", "-o", "link").Output()
	now.links = strings.Count(string(links), "\n")
	return now
}

// settled is what the engine holds once its pool of ready network namespaces is
// full again: when two looks, a while apart, see the same links.
func (f *apiFuzz) settled() holdings {
	now := f.holdings()
	f.h.eventually("the pool of network namespaces is full", func() bool {
		earlier := now
		time.Sleep(500 * time.Millisecond)
		now = f.holdings()
		return now.links == earlier.links
	})
	return now
}

func descriptorsOf(pid int) int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(entries)
}

// expectSound checks that the engine works, removes everything and compares
// what is left with what was there before.
func (f *apiFuzz) expectSound(before holdings) {
	h, t := f.h, f.h.t
	if f.dead() {
		t.Fatalf("the engine died:\n%s", h.engineLog())
	}
	log := h.read(h.path("engine.log"))
	for _, word := range []string{"panicked", "panic:", "goroutine 1 [", "fatal error", "DATA RACE"} {
		if at := strings.Index(log, word); at >= 0 {
			t.Errorf("the engine's log has %q:\n%.3000s", word, log[max(0, at-200):])
		}
	}
	f.nameAgain()
	if ids := strings.Fields(h.berth("ps", "-aq", "--no-trunc")); len(ids) > 0 {
		h.berth(append([]string{"rm", "-fv"}, ids...)...)
	}
	h.equal(h.berth("run", "--rm", busyboxImage, "echo", "still works"), "still works")
	for _, path := range []string{"/networks/prune", `/volumes/prune?filters={"all":["1"]}`} {
		var b bytes.Buffer
		if err := h.post(path, &b); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	var now holdings
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		now = f.holdings()
		if now.goroutines <= before.goroutines+2 && now.descriptors <= before.descriptors+4 && now.mounts <= before.mounts && now.links <= before.links && now.monitorDescriptors <= before.monitorDescriptors+2 {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("left behind: before %+v, now %+v", before, now)
			break
		}
	}
	if !slices.Equal(now.monitor, before.monitor) {
		t.Errorf("the monitor was %v and is %v: it died", before.monitor, now.monitor)
	}
	if t.Failed() {
		return
	}
	ids := f.ids.all()
	h.stopEngine()
	h.eventually("the monitor ends", func() bool { return len(h.processes()) == 0 })
	h.expectNothingLeftOf(ids)
}

// expectNothingLeftOf is expectNothingLeft for very many containers.
func (h *host) expectNothingLeftOf(ids []string) {
	h.t.Helper()
	h.expectNothingLeft(nil)
	names := map[string]bool{}
	for _, id := range ids {
		names[id] = true
	}
	out, _ := h.within("find", "/sys/fs/cgroup", h.path("data"), h.path("run"), "-name", "*"+strings.Repeat("[0-9a-f]", 64)+"*").Output()
	hexID := regexp.MustCompile(`[0-9a-f]{64}`)
	for _, line := range strings.Split(string(out), "\n") {
		if names[hexID.FindString(line[strings.LastIndexByte(line, '/')+1:])] {
			h.t.Errorf("left: %s", line)
		}
	}
}
