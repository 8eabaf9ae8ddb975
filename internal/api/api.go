// Package api speaks the Docker Engine HTTP API: it decodes a request, calls one
// use case of the engine and encodes the answer. It exists so that every client
// written for Docker works unchanged, and so that nothing else in the house has
// to know about API versions, JSON shapes or hijacked connections. It decides
// nothing: what a request means is the engine's business.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"berth/internal/version"
)

// Engine is what the API needs of an engine; *engine.Engine has it all.
type Engine interface {
	containerEngine
	execEngine
	imageEngine
	networkEngine
	systemEngine
	lifeEngine
	buildEngine
}

// API is an http.Handler for one engine.
type API struct {
	engine Engine
	log    *slog.Logger
	mux    *http.ServeMux
	server string // value of the Server header

	failures answers
	builds   running
	shells   shells
	blobs    blobs
	agents   agents

	closing context.Context // done when streams must end
	close   context.CancelFunc
}

// New returns the API of an engine. A nil logger discards.
func New(e Engine, log *slog.Logger) *API {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	a := &API{engine: e, log: log, mux: http.NewServeMux(), server: "Berth/" + version.String() + " (linux)"}
	a.closing, a.close = context.WithCancel(context.Background())
	for _, rt := range slices.Concat(routes, routesLife, routesBuild) {
		a.handle(rt.pattern, rt.serve)
	}
	for _, rf := range refusals {
		a.handle(rf.pattern, rf.serve)
	}
	a.handle("/", notFound)
	return a
}

// Close ends the streams (events, followed logs, waits) which would otherwise
// keep a server's shutdown waiting. Attached connections belong to the monitor
// and go on.
func (a *API) Close() { a.close() }

// handle registers one route; ServeHTTP has made the ResponseWriter an exchange.
func (a *API) handle(pattern string, serve func(*exchange) error) {
	a.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		x, ok := w.(*exchange)
		if !ok {
			http.Error(w, "handler outside of its API", http.StatusInternalServerError)
			return
		}
		if err := serve(x); err != nil {
			x.fail(err)
		}
	})
}

// ServeHTTP strips the version from the path, checks it and dispatches.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{ResponseWriter: w, r: r, api: a, version: newest}
	defer x.rescue()
	if a.log.Enabled(context.Background(), slog.LevelDebug) {
		defer a.logAccess(r.Method, r.URL.RequestURI(), time.Now())
	}
	h := w.Header()
	h["Server"] = []string{a.server}
	h["Api-Version"] = newestHeader
	h["Ostype"] = linuxHeader
	h["Docker-Experimental"] = falseHeader

	v, rest, named := cutVersion(r.URL.Path)
	if named {
		r.URL.RawPath = strings.TrimPrefix(r.URL.RawPath, r.URL.Path[:len(r.URL.Path)-len(rest)])
		r.URL.Path = rest
		x.version = v
		if err := v.check(); err != nil {
			x.fail(err)
			return
		}
	}
	if !clean(r.URL.Path) {
		x.redirect(named)
		return
	}
	a.mux.ServeHTTP(x, r)
}

// redirect names the path without empty, "." and ".." parts, as docker does. It is
// not served at once: whoever lets only some paths through must see which it is.
func (x *exchange) redirect(versioned bool) {
	to := url.URL{Path: path.Clean("/" + x.r.URL.Path), RawQuery: x.r.URL.RawQuery}
	if versioned {
		to.Path = "/v" + x.version.String() + to.Path
	}
	x.Header()["Location"] = []string{to.String()}
	x.WriteHeader(http.StatusMovedPermanently)
}

// logAccess records a request after its end; only debugging engines pay for it.
func (a *API) logAccess(method, uri string, start time.Time) {
	a.log.Debug("request", "method", method, "uri", uri, "took", time.Since(start))
}

var (
	newestHeader = []string{newest.String()}
	linuxHeader  = []string{"linux"}
	falseHeader  = []string{"false"}
)

// clean reports whether ServeMux would serve the path without redirecting: its
// redirects would point to a path without the version.
func clean(p string) bool {
	if p == "" || p[0] != '/' || strings.Contains(p, "//") {
		return false
	}
	if !strings.Contains(p, "/.") {
		return true
	}
	for seg := range strings.SplitSeq(p, "/") {
		if seg == "." || seg == ".." {
			return false
		}
	}
	return true
}

// rescue turns a defect in one handler into an answer and a log record; the
// other requests and all containers go on.
func (x *exchange) rescue() {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	x.api.log.Error("handler panicked", "method", x.r.Method, "path", x.r.URL.Path, "panic", p, "stack", string(debug.Stack()))
	if x.started {
		panic(http.ErrAbortHandler)
	}
	x.fail(errDefect)
}
