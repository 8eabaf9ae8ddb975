package transfer

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"berth/internal/fault"
)

// TestTokens: a bearer token is fetched from the realm without credentials and
// shown to the registry only, not to where it redirects.
func TestTokens(t *testing.T) {
	var leaked atomic.Value
	elsewhere := newRegistry(t)
	elsewhere.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if v := r.Header.Get("Authorization"); v != "" {
			leaked.Store(v)
		}
		return false
	})
	g := newRegistry(t)
	m, _ := g.push("v1", arch, ociGzip, oneFile("a", noise(200_000, 9)))
	elsewhere.blobs = g.blobs
	var tokens atomic.Int32
	realm := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			leaked.Store(r.Header.Get("Authorization"))
		}
		if r.URL.Query().Get("scope") != "repository:team/app:pull" || r.URL.Query().Get("service") != "the, registry" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		tokens.Add(1)
		w.Write([]byte(`{"access_token":"secret"}`))
	}))
	defer realm.Close()
	expired := false
	g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v2/" {
			return false
		}
		isLayer := strings.HasSuffix(r.URL.Path, m.Layers[0].Digest.String())
		if r.Header.Get("Authorization") != "Bearer secret" || isLayer && !expired {
			expired = expired || isLayer
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm.URL+`/token",service="the, registry",error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		if isLayer {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	h := build(t, nil)
	if _, _, err := h.Pull(context.Background(), g.host+"/team/app:v1", Options{}); err != nil {
		t.Fatal(err)
	}
	if v := leaked.Load(); v != nil {
		t.Errorf("credentials went elsewhere: %v", v)
	}
	if n := tokens.Load(); n != 2 {
		t.Errorf("%d tokens were fetched, want 2: one at first, one when it had expired", n)
	}
	if elsewhere.requests("/blobs/") != 1 {
		t.Error("the redirect was not followed")
	}
}

func TestBadRealms(t *testing.T) {
	for _, realm := range []string{"", "file:///etc/passwd", "not a url", "gopher://x/"} {
		g := newRegistry(t)
		g.push("v1", arch, ociGzip, oneFile("a", "b"))
		g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		})
		h := build(t, nil)
		_, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{})
		if k := fault.KindOf(err); k != fault.Invalid && k != fault.Unauthorized {
			t.Errorf("%q: %v", realm, err)
		}
	}
}

// TestRegistriesWithTLS: a certificate that nobody vouches for is refused,
// except on this machine, where it is as good as plain http.
func TestRegistriesWithTLS(t *testing.T) {
	g := newRegistry(t)
	g.push("v1", arch, ociGzip, oneFile("a", "b"))
	s := httptest.NewTLSServer(g)
	defer s.Close()
	h := build(t, nil)
	host := strings.TrimPrefix(s.URL, "https://")
	if _, _, err := h.Pull(context.Background(), host+"/app:v1", Options{}); err != nil {
		t.Error(err)
	}
	for host, want := range map[string]bool{
		"localhost:5000": true, "127.0.0.1": true, "127.9.9.9:80": true, "[::1]:5000": true, "x.localhost": true, "named:5000": true,
		"registry.example": false, "10.0.0.1:5000": false, "localhost.example": false, "docker.io": false, "128.0.0.1": false,
	} {
		h := New(Config{Insecure: []string{"named:5000"}})
		if got := h.mayBeInsecure(host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
}
