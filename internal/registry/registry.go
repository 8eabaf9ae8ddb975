// Package registry is an OCI distribution server (specification 1.1): an
// http.Handler over a storage. It exists so that what was built on one machine
// can be run on another without a second program, and so that a push to one's
// own engine copies nothing.
package registry

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/internal/fault"
	"berth/internal/registry/auth"
	"berth/internal/registry/cache"
	"berth/internal/registry/store"
)

// Config is what a registry is made of. Only Storage is needed.
//
// An engine that mounts a registry opens its storage with local.Open over the
// stores it has (which makes the registry an owner of blobs, so before
// content.CollectAll), serves the handler with NewServer on an address of its
// own (the paths /, /v2/, /token and /metrics belong to it), calls Close after
// the server has shut down and before the database is closed, and pushes to
// itself with Link. LoadFile reads the file that says all but the storage and
// the loggers.
type Config struct {
	Storage store.Storage
	Auth    auth.Config
	// ReadOnly refuses every push and delete.
	ReadOnly bool
	// AllowMissing accepts manifests that refer to blobs and manifests which the
	// repository does not have (sparse indexes).
	AllowMissing bool
	// Cache makes the registry a pull-through cache of another; pushes are
	// refused then.
	Cache *cache.Config
	GC    GC
	// UploadAge is how long an upload to which nobody adds is kept; a day when 0.
	UploadAge time.Duration
	// Origins are the web origins whose scripts may read from the registry (CORS);
	// "*" is all of them.
	Origins []string
	// Metrics says who may read /metrics: "anyone", "users" (whoever has logged
	// in) or "off". Empty: users where there are any, else anyone.
	Metrics string
	// NoPage turns the page at / off.
	NoPage bool
	// Log is for what goes wrong, Access for one line a request; both may be nil.
	Log, Access *slog.Logger
}

// GC says what the periodic collection does. Zero values: nothing periodic, an
// hour of grace.
type GC struct {
	Interval time.Duration // 0: never by itself
	Grace    time.Duration // how long something must have been unused
	Untagged bool          // manifests that no tag leads to go, too
}

// limitManifest is the largest manifest that is accepted, in bytes: what the
// specification asks every registry to accept.
const limitManifest = 4 << 20

// Registry serves a storage. It is safe for concurrent use.
type Registry struct {
	cfg     Config
	storage store.Storage
	auth    *auth.Auth
	cache   *cache.Cache
	log     *slog.Logger
	metrics *metrics
	uploads *sessions
	touched touched

	gcMu   sync.Mutex // held while a collection runs
	stop   context.CancelFunc
	ctx    context.Context
	wg     sync.WaitGroup
	closed sync.Once
}

// Notes that a registry keeps in its storage.
const (
	noteUploads = "upload-secret"
	noteToken   = "token-seed"
)

// New makes a registry and starts its periodic work.
func New(cfg Config) (*Registry, error) {
	const op = "open registry"
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.UploadAge <= 0 {
		cfg.UploadAge = 24 * time.Hour
	}
	if cfg.GC.Grace <= 0 {
		cfg.GC.Grace = time.Hour
	}
	if !slices.Contains([]string{"", "anyone", "users", "off"}, cfg.Metrics) {
		return nil, fault.New(fault.Invalid, op, "", "metrics: %q is none of anyone, users, off", cfg.Metrics)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &Registry{cfg: cfg, storage: cfg.Storage, log: cfg.Log, metrics: newMetrics(), ctx: ctx, stop: stop}
	cfg.Auth.Token.Endpoint = cfg.Auth.Token.Endpoint || cfg.Auth.NeedsTokens()
	secret, err := r.note(noteUploads, 32)
	if err == nil && cfg.Auth.Token.Endpoint {
		cfg.Auth.Token.Seed, err = r.note(noteToken, ed25519.SeedSize)
	}
	if err == nil {
		r.auth, err = auth.New(cfg.Auth)
	}
	if err == nil && cfg.Cache != nil {
		c := *cfg.Cache
		c.Parse = readManifest
		r.cache, err = cache.New(c, cfg.Storage, cfg.Log)
	}
	if err != nil {
		stop()
		return nil, fault.Wrap(op, "", err)
	}
	r.uploads = newSessions(cfg.Storage, secret, cfg.UploadAge)
	r.touched.init(cfg.GC.Grace)
	r.wg.Go(r.periodic)
	return r, nil
}

// note returns a secret of n bytes that survives restarts, made at first use.
func (r *Registry) note(key string, n int) ([]byte, error) {
	v, err := r.storage.Note(r.ctx, key)
	if err != nil || len(v) == n {
		return v, err
	}
	v = make([]byte, n)
	rand.Read(v)
	return v, r.storage.SetNotes(r.ctx, map[string][]byte{key: v})
}

// Close ends periodic work and keeps unfinished uploads for the next start. The
// storage stays open. Requests must have ended.
func (r *Registry) Close() error {
	r.closed.Do(func() {
		r.stop()
		r.wg.Wait()
		if r.cache != nil {
			r.cache.Close()
		}
		r.uploads.close()
	})
	return nil
}

// request is one request on its way through the handlers.
type request struct {
	*http.Request
	target
	w      *response
	body   *body
	caller *auth.Caller
	digest digest.Digest // what it was about, for the log
}

// ServeHTTP serves the registry's paths.
func (r *Registry) ServeHTTP(raw http.ResponseWriter, hr *http.Request) {
	start := time.Now()
	w := newResponse(raw)
	req := &request{Request: hr, w: w, target: r.route(hr)}
	req.body = &body{Reader: hr.Body, control: w.control}
	r.metrics.begin()
	defer func() {
		panicked := recover()
		if panicked != nil && panicked != http.ErrAbortHandler {
			r.log.Error("registry: a request panicked", "path", hr.URL.Path, "panic", panicked)
			panicked = http.ErrAbortHandler
		}
		r.metrics.end(req, time.Since(start))
		r.logAccess(req, time.Since(start), panicked != nil)
		if panicked != nil {
			panic(panicked) // the client must not take it for a whole answer
		}
	}()
	h := w.Header()
	h.Set("Docker-Distribution-Api-Version", "registry/2.0")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.cors(req) {
		return
	}
	if err := r.serve(req); err != nil {
		r.answer(req, err)
	}
}

func (r *Registry) route(hr *http.Request) target {
	switch path := hr.URL.Path; {
	case strings.HasPrefix(path, "/v2"):
		return parsePath(path)
	case path == "/token" && r.auth.HasToken():
		return target{route: routeToken}
	case path == "/" && !r.cfg.NoPage:
		return target{route: routePage}
	case path == "/metrics" && r.cfg.Metrics != "off":
		return target{route: routeMetrics}
	}
	return target{route: routeNone}
}

// serve finds out who asks and lets the route's handler answer.
func (r *Registry) serve(req *request) error {
	if req.route == routeNone {
		return fail(http.StatusNotFound, codeUnsupported, "no such path in a registry")
	}
	if allowed := methods[req.route]; !slices.Contains(allowed, req.Method) {
		req.w.Header().Set("Allow", strings.Join(allowed, ", "))
		return fail(http.StatusMethodNotAllowed, codeUnsupported, "the method is not offered here")
	}
	if req.route == routeToken {
		r.auth.ServeToken(req.w, req.Request)
		return nil
	}
	var err error
	if req.caller, err = r.auth.Identify(req.Request); err != nil {
		r.metrics.refused.Add(1)
		return err
	}
	if err := r.check(req); err != nil {
		return err
	}
	switch req.route {
	case routeBase:
		return r.base(req)
	case routeCatalog:
		return r.catalog(req)
	case routeManifest:
		return r.manifest(req)
	case routeBlob:
		return r.blob(req)
	case routeUploads:
		return r.begin(req)
	case routeUpload:
		return r.upload(req)
	case routeTags:
		return r.tags(req)
	case routeReferrers:
		return r.referrers(req)
	case routePage:
		return r.page(req)
	}
	return r.serveMetrics(req)
}

// check applies what the routes have in common: names, rights, modes.
func (r *Registry) check(req *request) error {
	need := auth.Pull
	switch req.route {
	case routeBase:
		// Who asks here wants to know how to log in.
		if req.caller.User == "" && r.auth.Closed() && req.Header.Get("Authorization") == "" {
			return r.refuse(req, "")
		}
		return nil
	case routeCatalog, routePage:
		if !req.caller.Lists() {
			return r.refuse(req, "registry:catalog:*")
		}
		return nil
	case routeMetrics:
		if (r.cfg.Metrics == "users" || r.cfg.Metrics == "" && !r.auth.Open()) && req.caller.User == "" {
			return r.refuse(req, "")
		}
		return nil
	case routeUploads, routeUpload:
		need = auth.Pull | auth.Push
	case routeManifest, routeBlob:
		switch req.Method {
		case http.MethodPut:
			need = auth.Pull | auth.Push
		case http.MethodDelete:
			need = auth.Delete
		}
	}
	if !validName(req.repo) {
		return fail(http.StatusBadRequest, codeNameInvalid, "the repository's name is not valid")
	}
	if !req.caller.May(req.repo, need) {
		return r.refuse(req, "repository:"+req.repo+":"+strings.Join(need.Names(), ","))
	}
	if need != auth.Pull && (r.cfg.ReadOnly || r.cache != nil) {
		req.w.Header().Set("Allow", "GET, HEAD")
		what := "this registry is read-only"
		if r.cache != nil {
			what = "this registry is a cache of another one"
		}
		return fail(http.StatusMethodNotAllowed, codeUnsupported, "%s", what)
	}
	return nil
}

// refuse answers a caller who lacks a right.
func (r *Registry) refuse(req *request, scope string) error {
	r.metrics.refused.Add(1)
	if r.auth.Refusal(req.caller) == fault.Unauthorized {
		r.auth.Challenge(req.w.Header(), req.Request, scope, req.route == routePage || req.route == routeMetrics)
		return fail(http.StatusUnauthorized, codeUnauthorized, "authentication is required")
	}
	return fail(http.StatusForbidden, codeDenied, "this user has no right to do that")
}

// answer tells the client about an error, and the log about ours.
func (r *Registry) answer(req *request, err error) {
	unknown := map[string]string{
		routeManifest: codeManifestUnknown, routeBlob: codeBlobUnknown, routeUpload: codeUploadUnknown, routeUploads: codeBlobUnknown, routeTags: codeNameUnknown,
	}[req.route]
	if unknown == "" {
		unknown = codeNameUnknown
	}
	if req.w.status != 0 {
		// The answer has begun: all that is left is to cut it short.
		r.log.Warn("registry: an answer was cut short", "path", req.URL.Path, "error", err)
		panic(http.ErrAbortHandler)
	}
	if fault.Is(err, fault.Unauthorized) && req.caller == nil {
		r.auth.Challenge(req.w.Header(), req.Request, "", req.route == routePage || req.route == routeMetrics)
		err = fail(http.StatusUnauthorized, codeUnauthorized, "%s", strings.TrimPrefix(err.Error(), ": "))
	}
	list := problemOf(err, unknown)
	if list[0].status >= 500 {
		r.log.Error("registry: a request failed", "method", req.Method, "path", req.URL.Path, "error", err)
	}
	if req.body.bytes == 0 && req.ContentLength > 256<<10 {
		// Nobody reads a large body that is refused: say so instead of taking it.
		req.w.Header().Set("Connection", "close")
	}
	writeProblems(req.w, list)
}

// base answers that this is a registry.
func (r *Registry) base(req *request) error {
	return writeJSON(req.w, "application/json", []byte("{}"))
}

func writeJSON(w http.ResponseWriter, kind string, data []byte) error {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", itoa(int64(len(data))))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(data)
	return nil
}

var _ io.ReaderFrom = (*response)(nil)
