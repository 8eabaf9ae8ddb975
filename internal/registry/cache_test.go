package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/registry/cache"
)

// upstream is a registry that counts and can be told to misbehave.
type upstream struct {
	*harness
	front *httptest.Server
	gets  sync.Map // "METHOD path": *atomic.Int64

	mu   sync.Mutex
	hook func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
}

func newUpstream(t *testing.T) *upstream {
	u := &upstream{harness: newHarness(t, nil)}
	u.front = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := u.gets.LoadOrStore(r.Method+" "+r.URL.Path, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
		u.mu.Lock()
		hook := u.hook
		u.mu.Unlock()
		if hook != nil && hook(w, r) {
			return
		}
		u.registry.ServeHTTP(w, r)
	}))
	t.Cleanup(u.front.Close)
	return u
}

func (u *upstream) misbehave(hook func(w http.ResponseWriter, r *http.Request) bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.hook = hook
}

func (u *upstream) count(request string) int64 {
	n, ok := u.gets.Load(request)
	if !ok {
		return 0
	}
	return n.(*atomic.Int64).Load()
}

func (u *upstream) cache(t *testing.T, change func(*cache.Config)) *harness {
	return newHarness(t, func(c *Config) {
		c.Cache = &cache.Config{Upstream: u.front.URL, TTL: time.Hour}
		if change != nil {
			change(c.Cache)
		}
	})
}

// random makes a blob of n bytes.
func random(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(b)
	return b
}

func TestCacheFetchesOnceAndRevalidates(t *testing.T) {
	u := newUpstream(t)
	raw := u.pushImage("library/app", "v1")
	blob := digest.FromString("layer of library/appv1")
	ttl := time.Hour
	h := u.cache(t, func(c *cache.Config) { c.TTL = ttl })
	for range 3 {
		if a := h.want(200, "", "GET", "/v2/library/app/manifests/v1", nil); !bytes.Equal(a.body, raw) || a.Header.Get("Content-Type") != ocispec.MediaTypeImageManifest {
			t.Errorf("%s", a.body)
		}
		if a := h.want(200, "", "GET", "/v2/library/app/blobs/"+blob.String(), nil); string(a.body) != "layer of library/appv1" {
			t.Errorf("%q", a.body)
		}
		h.want(200, "", "HEAD", "/v2/library/app/blobs/"+blob.String(), nil)
	}
	for _, request := range []string{"GET /v2/library/app/manifests/v1", "GET /v2/library/app/blobs/" + blob.String()} {
		if n := u.count(request); n != 1 {
			t.Errorf("%s: asked %d times", request, n)
		}
	}
	h.want(405, codeUnsupported, "POST", "/v2/library/app/blobs/uploads/", nil)
	h.want(404, codeManifestUnknown, "GET", "/v2/library/app/manifests/none", nil)
	h.want(404, codeBlobUnknown, "GET", "/v2/library/app/blobs/"+digest.FromString("none").String(), nil)
	if a := h.want(200, "", "GET", "/v2/library/app/tags/list", nil); !strings.Contains(string(a.body), `"v1"`) {
		t.Errorf("%s", a.body)
	}

	ttl = time.Nanosecond
	h.restart()
	h.want(200, "", "GET", "/v2/library/app/manifests/v1", nil)
	if n := u.count("GET /v2/library/app/manifests/v1"); n != 1 || u.count("HEAD /v2/library/app/manifests/v1") == 0 {
		t.Errorf("a tag that did not change was fetched %d times", n)
	}
	config := u.pushBlob("library/app", "{}")
	moved := manifestOf(config, nil, nil)
	u.putManifest(201, "", "library/app", "v1", moved)
	if a := h.want(200, "", "GET", "/v2/library/app/manifests/v1", nil); !bytes.Equal(a.body, moved) {
		t.Errorf("a moved tag: %s", a.body)
	}
	u.misbehave(func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(503); return true })
	if a := h.want(200, "", "GET", "/v2/library/app/manifests/v1", nil); !bytes.Equal(a.body, moved) {
		t.Errorf("while the upstream is down: %s", a.body)
	}
	h.want(502, codeUnavailable, "GET", "/v2/library/app/manifests/v2", nil)
	u.misbehave(nil)
	u.want(202, "", "DELETE", "/v2/library/app/manifests/v1", nil)
	h.want(404, codeManifestUnknown, "GET", "/v2/library/app/manifests/v1", nil)
}

func TestCacheStreamsToAllWhileItFetchesOnce(t *testing.T) {
	u := newUpstream(t)
	text := random(3 << 20)
	blob := u.pushBlob("r", string(text))
	path := "/v2/r/blobs/" + blob.Digest.String()
	half := make(chan struct{})
	u.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != path || r.Method != "GET" {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		w.Write(text[:1<<20])
		w.(http.Flusher).Flush()
		<-half
		w.Write(text[1<<20:])
		return true
	})
	h := u.cache(t, nil)
	var wg sync.WaitGroup
	first := make(chan struct{}, 8)
	for range 8 {
		wg.Go(func() {
			resp, err := http.Get(h.server.URL + path)
			if err != nil {
				t.Error(err)
				first <- struct{}{}
				return
			}
			defer resp.Body.Close()
			got := make([]byte, len(text))
			_, err = io.ReadFull(resp.Body, got[:1<<19])
			first <- struct{}{} // it came before the upstream was done
			if err == nil {
				_, err = io.ReadFull(resp.Body, got[1<<19:])
			}
			if err != nil || !bytes.Equal(got, text) {
				t.Errorf("%v", err)
			}
		})
	}
	for range 8 {
		<-first
	}
	close(half)
	wg.Wait()
	if n := u.count("GET " + path); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	u.front.Close()
	if a := h.want(206, "", "GET", path, nil, "Range: bytes=1000000-1000009"); !bytes.Equal(a.body, text[1000000:1000010]) {
		t.Error("a range of the stored blob")
	}
}

func TestCacheGoesOnWhereTheUpstreamBreaksOff(t *testing.T) {
	u := newUpstream(t)
	text := random(2 << 20)
	blob := u.pushBlob("r", string(text))
	path := "/v2/r/blobs/" + blob.Digest.String()
	var ranges []string
	u.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != path || r.Method != "GET" {
			return false
		}
		ranges = append(ranges, r.Header.Get("Range"))
		if len(ranges) > 2 {
			return false
		}
		at := 0
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &at)
		w.Header().Set("Content-Length", fmt.Sprint(len(text)-at))
		if at > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", at, len(text)-1, len(text)))
			w.WriteHeader(206)
		}
		w.Write(text[at : at+600_000])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	h := u.cache(t, nil)
	if a := h.want(200, "", "GET", path, nil); !bytes.Equal(a.body, text) {
		t.Errorf("%d bytes", len(a.body))
	}
	if fmt.Sprint(ranges) != "[ bytes=600000- bytes=1200000-]" {
		t.Errorf("asked for %q", ranges)
	}
}

func TestCacheNeverPassesAWrongBlobForAWholeOne(t *testing.T) {
	u := newUpstream(t)
	text := random(1 << 20)
	d := digest.FromBytes(text)
	evil := append(append([]byte{}, text[:len(text)-1]...), text[len(text)-1]^1)
	u.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/v2/r/") {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(evil)))
		w.Write(evil)
		return true
	})
	h := u.cache(t, nil)
	resp, err := http.Get(h.server.URL + "/v2/r/blobs/" + d.String())
	if err == nil {
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode != http.StatusBadGateway {
			t.Errorf("%d with a whole answer of %d bytes", resp.StatusCode, len(got))
		}
	}
	u.misbehave(func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(404); return true })
	h.want(404, codeBlobUnknown, "GET", "/v2/r/blobs/"+d.String(), nil)
	u.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		io.WriteString(w, `{"schemaVersion":2}`)
		return true
	})
	h.want(502, codeUnavailable, "GET", "/v2/r/manifests/"+d.String(), nil)
	h.want(502, codeUnavailable, "GET", "/v2/r/manifests/t", nil)
}

func TestCacheStaysWithinItsBudget(t *testing.T) {
	u := newUpstream(t)
	var blobs []string
	for i := range 6 {
		blobs = append(blobs, "/v2/r/blobs/"+u.pushBlob("r", string(random(100_000+i))).Digest.String())
	}
	h := u.cache(t, func(c *cache.Config) { c.Budget = 350_000 })
	for i, path := range blobs {
		h.want(200, "", "GET", path, nil)
		h.want(200, "", "GET", blobs[0], nil) // often used
		if size := h.registry.cache.Counts().Size; size > 350_000 {
			t.Errorf("after %d: %d bytes", i, size)
		}
	}
	if n := u.count("GET " + strings.Split(blobs[0], "?")[0]); n != 1 {
		t.Errorf("the most used blob was fetched %d times", n)
	}
	h.want(200, "", "GET", blobs[1], nil)
	if n := u.count("GET " + blobs[1]); n != 2 {
		t.Errorf("the least used blob was fetched %d times", n)
	}
	before := h.registry.cache.Counts().Size
	h.restart()
	if after := h.registry.cache.Counts().Size; after != before {
		t.Errorf("%d bytes before a restart, %d after", before, after)
	}
}

func TestCacheShowsNothingThatTheUpstreamWouldNot(t *testing.T) {
	u := newUpstream(t)
	blob := u.pushBlob("private", "secret layer")
	h := u.cache(t, nil)
	h.want(200, "", "GET", "/v2/private/blobs/"+blob.Digest.String(), nil)
	h.want(404, codeBlobUnknown, "GET", "/v2/public/blobs/"+blob.Digest.String(), nil)
	u.pushBlob("public", "secret layer")
	h.want(200, "", "GET", "/v2/public/blobs/"+blob.Digest.String(), nil)
	if n := u.count("GET /v2/public/blobs/" + blob.Digest.String()); n != 1 { // the one that failed
		t.Errorf("a blob that is here was fetched again (%d)", n)
	}
}

func TestCredentialsGoNowhereElse(t *testing.T) {
	var leaked atomic.Value
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a := r.Header.Get("Authorization"); a != "" {
			leaked.Store(r.URL.Path + " " + a)
		}
		if r.URL.Path == "/token" {
			json.NewEncoder(w).Encode(map[string]string{"token": "t"})
			return
		}
		io.WriteString(w, "from elsewhere")
	}))
	defer other.Close()
	d := digest.FromString("from elsewhere")
	var realm atomic.Value
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			if user, pw, _ := r.BasicAuth(); user != "me" || pw != "secret" {
				w.WriteHeader(401)
				return
			}
			json.NewEncoder(w).Encode(map[string]any{"access_token": "good", "expires_in": 300})
		case r.Header.Get("Authorization") != "Bearer good":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="s"`, realm.Load()))
			w.WriteHeader(401)
		default:
			http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
		}
	}))
	defer up.Close()
	h := newHarness(t, func(c *Config) {
		c.Cache = &cache.Config{Upstream: up.URL, Username: "me", Password: "secret"}
	})
	realm.Store(other.URL + "/token")
	h.want(502, codeUnavailable, "GET", "/v2/r/blobs/"+d.String(), nil)
	realm.Store(up.URL + "/token")
	if a := h.want(200, "", "GET", "/v2/r/blobs/"+d.String(), nil); string(a.body) != "from elsewhere" {
		t.Errorf("%s", a.body)
	}
	if l := leaked.Load(); l != nil {
		t.Errorf("credentials went to another host: %v", l)
	}
}
