package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"berth/internal/client"
)

// fakeEngine serves as much of the Engine API as the command line uses, with
// containers whose programs are functions; see fakeContainer.
type fakeEngine struct {
	t      *testing.T
	socket string

	mu         sync.Mutex // guards the rest
	listener   net.Listener
	conns      map[net.Conn]bool
	images     map[string]bool
	containers map[string]*fakeContainer
	execs      map[string]*fakeContainer
	requests   []fakeRequest
	next       int
	dying      bool           // the next request kills the engine
	dyingLate  bool           // after it was carried out
	more       *http.ServeMux // what else a test serves
	// beforeStart runs in the handler of a start before anything else and
	// reports whether the handler is to end there.
	beforeStart func(c *fakeContainer) bool
}

type fakeRequest struct {
	method, path string
	query        url.Values
	body         []byte
	auth         string
}

func newFakeEngine(t *testing.T) *fakeEngine {
	t.Helper()
	dir, err := os.MkdirTemp("", "bc-") // short: socket paths are limited
	if err != nil {
		t.Fatal(err)
	}
	e := &fakeEngine{t: t, socket: filepath.Join(dir, "engine.sock"), conns: map[net.Conn]bool{},
		images: map[string]bool{"img:latest": true}, containers: map[string]*fakeContainer{}, execs: map[string]*fakeContainer{}, more: http.NewServeMux()}
	e.listen()
	t.Cleanup(func() {
		e.kill()
		_ = os.RemoveAll(dir)
	})
	return e
}

func (e *fakeEngine) listen() {
	l, err := net.Listen("unix", e.socket)
	if err != nil {
		e.t.Fatal(err)
	}
	e.mu.Lock()
	e.listener = l
	e.mu.Unlock()
	server := &http.Server{Handler: e.routes(), ConnState: func(c net.Conn, state http.ConnState) {
		e.mu.Lock()
		defer e.mu.Unlock()
		switch state {
		case http.StateNew:
			e.conns[c] = true
		case http.StateClosed:
			delete(e.conns, c)
		case http.StateHijacked:
			delete(e.conns, c) // as the real one, which hands it to another process
		}
	}}
	go func() { _ = server.Serve(l) }()
}

// kill drops the listener and every connection but the hijacked ones.
func (e *fakeEngine) kill() {
	e.mu.Lock()
	defer e.mu.Unlock()
	_ = e.listener.Close()
	for c := range e.conns {
		_ = c.Close()
	}
}

func (e *fakeEngine) recorded(method, path string) []fakeRequest {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []fakeRequest
	for _, r := range e.requests {
		if r.method == method && strings.HasSuffix(r.path, path) {
			out = append(out, r)
		}
	}
	return out
}

// awaitRequest returns when a request has arrived.
func (e *fakeEngine) awaitRequest(method, path string) {
	for len(e.recorded(method, path)) == 0 {
		runtime.Gosched()
	}
}

func (e *fakeEngine) container(ref string) *fakeContainer {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, c := range e.containers {
		if id == ref || c.name == ref {
			return c
		}
	}
	return nil
}

func (e *fakeEngine) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", e.more)
	mux.HandleFunc("GET /_ping", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "OK") })
	mux.HandleFunc("POST /containers/create", e.create)
	mux.HandleFunc("POST /images/create", e.pull)
	mux.HandleFunc("POST /images/load", e.load)
	mux.HandleFunc("GET /containers/json", e.list)
	with := func(do func(http.ResponseWriter, *http.Request, *fakeContainer)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if c := e.container(r.PathValue("id")); c != nil {
				do(w, r, c)
				return
			}
			refuse(w, 404, "No such container: "+r.PathValue("id"))
		}
	}
	mux.HandleFunc("POST /containers/{id}/start", with(e.start))
	mux.HandleFunc("POST /containers/{id}/attach", with(e.attach))
	mux.HandleFunc("POST /containers/{id}/wait", with(e.wait))
	mux.HandleFunc("POST /containers/{id}/kill", with(e.signal))
	mux.HandleFunc("POST /containers/{id}/stop", with(e.stop))
	mux.HandleFunc("POST /containers/{id}/resize", with(e.resize))
	mux.HandleFunc("GET /containers/{id}/json", with(e.inspect))
	mux.HandleFunc("GET /containers/{id}/logs", with(e.logs))
	mux.HandleFunc("DELETE /containers/{id}", with(e.remove))
	mux.HandleFunc("POST /containers/{id}/exec", with(e.execCreate))
	mux.HandleFunc("POST /exec/{id}/start", e.execStart)
	mux.HandleFunc("GET /exec/{id}/json", e.execInspect)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body []byte
		if r.Header.Get("Upgrade") == "" || r.ContentLength > 0 {
			body, _ = io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		e.mu.Lock()
		e.requests = append(e.requests, fakeRequest{r.Method, r.URL.Path, r.URL.Query(), body, r.Header.Get("X-Registry-Auth")})
		e.mu.Unlock()
		if dead := e.dies(mux, r); !dead {
			mux.ServeHTTP(w, r)
		}
	})
}

// dieOver makes the engine die over the next request, after having carried it
// out when done is set, and come back.
func (e *fakeEngine) dieOver(done bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dying, e.dyingLate = true, done
}

func (e *fakeEngine) dies(mux http.Handler, r *http.Request) bool {
	e.mu.Lock()
	dying, late := e.dying, e.dyingLate
	e.dying = false
	e.mu.Unlock()
	if dying && late {
		mux.ServeHTTP(httptest.NewRecorder(), r)
	}
	if dying {
		e.kill()
		e.listen()
	}
	return dying
}

func (e *fakeEngine) create(w http.ResponseWriter, r *http.Request) {
	c := &fakeContainer{status: "created", signals: make(chan string, 16), resized: make(chan [2]string, 16), done: make(chan struct{})}
	if err := json.NewDecoder(r.Body).Decode(&c.request); err != nil {
		refuse(w, 400, err.Error())
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.images[withTag(c.request.Image)] {
		refuse(w, 404, "No such image: "+c.request.Image)
		return
	}
	e.next++
	c.id = fmt.Sprintf("%064x", e.next)
	c.name = r.URL.Query().Get("name")
	c.stdin, c.feed = io.Pipe()
	e.containers[c.id] = c
	w.WriteHeader(201)
	_ = json.NewEncoder(w).Encode(client.CreateResponse{ID: c.id})
}

func (e *fakeEngine) pull(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("fromSrc") != "" {
		_, _ = fmt.Fprintln(w, `{"status":"sha256:abc"}`)
		return
	}
	if q.Get("fromImage") == "broken" {
		_, _ = fmt.Fprintln(w, `{"status":"Pulling from broken","id":"latest"}`)
		_, _ = fmt.Fprintln(w, `{"errorDetail":{"message":"manifest unknown"},"error":"manifest unknown"}`)
		return
	}
	e.mu.Lock()
	e.images[q.Get("fromImage")+":"+q.Get("tag")] = true
	e.mu.Unlock()
	_, _ = fmt.Fprintln(w, `{"status":"Pulling from x","id":"latest"}`)
	for _, status := range []string{"Pulling fs layer", "Downloading", "Download complete", "Pull complete"} {
		detail := ""
		if status == "Downloading" {
			detail = `,"progressDetail":{"current":5,"total":10}`
		}
		_, _ = fmt.Fprintf(w, `{"status":%q,"id":"0123456789ab"%s}`+"\n", status, detail)
	}
	_, _ = fmt.Fprintln(w, `{"status":"Status: Downloaded newer image"}`)
}

func (e *fakeEngine) load(w http.ResponseWriter, r *http.Request) {
	n, _ := io.Copy(io.Discard, r.Body)
	_, _ = fmt.Fprintf(w, `{"stream":"Loaded image: %d bytes\n"}`, n)
}

func (e *fakeEngine) list(w http.ResponseWriter, _ *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []client.Summary{}
	for _, c := range e.containers {
		out = append(out, client.Summary{SummaryHead: client.SummaryHead{ID: c.id, Names: []string{"/" + c.name}, Image: c.request.Image, State: c.status}})
	}
	_ = json.NewEncoder(w).Encode(out)
}
