package transfer

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"berth/internal/fault"
)

// guard makes a registry want tokens from a token server that knows one user.
type guard struct {
	*registry
	realm *httptest.Server

	gmu     sync.Mutex
	valid   map[string]string // token -> scopes
	issued  int
	seen    []string // how tokens were asked for
	leaked  []string // credentials that came where they do not belong
	refresh string   // the identity token
}

const (
	theUser     = "ann"
	thePassword = "s3cret:with colon"
)

func newGuard(t *testing.T, g *registry) *guard {
	u := &guard{registry: g, valid: map[string]string{}, refresh: "identity-1"}
	u.realm = httptest.NewServer(http.HandlerFunc(u.token))
	t.Cleanup(u.realm.Close)
	g.setFault(u.check)
	return u
}

// token answers as docker's token servers do.
func (u *guard) token(w http.ResponseWriter, r *http.Request) {
	u.gmu.Lock()
	defer u.gmu.Unlock()
	how, ok := "anonymous", true
	if user, password, basic := r.BasicAuth(); basic {
		how, ok = "password", user == theUser && password == thePassword
	}
	if r.Method == http.MethodPost {
		r.ParseForm()
		how, ok = "identity", r.Form.Get("grant_type") == "refresh_token" && r.Form.Get("refresh_token") == u.refresh
		if r.URL.RawQuery != "" {
			u.leaked = append(u.leaked, "identity token in a URL")
		}
	}
	scopes := strings.Join(append(r.URL.Query()["scope"], r.Form["scope"]...), " ")
	u.seen = append(u.seen, how)
	if !ok {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	u.issued++
	token := fmt.Sprintf("token-%d", u.issued)
	u.valid[token] = how + " " + scopes
	more := ""
	if r.URL.Query().Get("offline_token") == "true" {
		more = `,"refresh_token":"` + u.refresh + `"`
	}
	fmt.Fprintf(w, `{"token":%q,"expires_in":60%s}`, token, more)
}

// check lets those pass who have a token for what they do.
func (u *guard) check(w http.ResponseWriter, r *http.Request) bool {
	u.gmu.Lock()
	defer u.gmu.Unlock()
	auth := r.Header.Get("Authorization")
	if strings.HasPrefix(auth, "Basic ") {
		u.leaked = append(u.leaked, "password at the registry")
	}
	scopes, ok := u.valid[strings.TrimPrefix(auth, "Bearer ")]
	repo := strings.TrimPrefix(r.URL.Path, "/v2/")
	for _, sep := range []string{"/blobs/", "/manifests/", "/tags/", "/referrers/"} {
		repo, _, _ = strings.Cut(repo, sep)
	}
	need := "repository:" + repo + ":pull"
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		need += ",push"
	}
	if from := r.URL.Query().Get("from"); from != "" && !strings.Contains(scopes, "repository:"+from+":pull") {
		ok = false
	}
	if ok && !strings.HasPrefix(scopes, "anonymous") && (repo == "" || strings.Contains(scopes, need)) {
		return false
	}
	w.Header().Set("WWW-Authenticate", `Bearer realm="`+u.realm.URL+`/token",service="registry"`)
	w.WriteHeader(http.StatusUnauthorized)
	return true
}

// expire makes all tokens invalid.
func (u *guard) expire() {
	u.gmu.Lock()
	defer u.gmu.Unlock()
	u.valid = map[string]string{}
}

func (u *guard) clean(t *testing.T) {
	t.Helper()
	u.gmu.Lock()
	defer u.gmu.Unlock()
	if len(u.leaked) != 0 {
		t.Errorf("leaked: %v", u.leaked)
	}
}

// TestCredentials: whatever a caller has is exchanged for a token; without, the
// error says what to do.
func TestCredentials(t *testing.T) {
	for _, tc := range []struct {
		name string
		auth Auth
		how  string
		kind fault.Kind
	}{
		{"password", Auth{Username: theUser, Password: thePassword}, "password", fault.Internal},
		{"packed password", Auth{Auth: base64.StdEncoding.EncodeToString([]byte(theUser + ":" + thePassword))}, "password", fault.Internal},
		{"identity token", Auth{IdentityToken: "identity-1"}, "identity", fault.Internal},
		{"identity token as docker keeps it", Auth{Username: "<token>", Password: "identity-1"}, "identity", fault.Internal},
		{"registry token", Auth{RegistryToken: "mine"}, "", fault.Internal},
		{"wrong password", Auth{Username: theUser, Password: "x"}, "password", fault.Unauthorized},
		{"wrong identity token", Auth{IdentityToken: "x"}, "identity", fault.Unauthorized},
		{"wrong registry token", Auth{RegistryToken: "x"}, "", fault.Unauthorized},
		{"none", Auth{}, "anonymous", fault.Unauthorized},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newRegistry(t)
			g.push("v1", arch, ociGzip, oneFile("a", noise(100_000, 9)))
			u := newGuard(t, g)
			u.valid["mine"] = "given repository:team/app:pull"
			h := build(t, nil)
			_, _, err := h.Pull(context.Background(), g.host+"/team/app:v1", Options{Auth: tc.auth})
			if (err == nil) != (tc.kind == fault.Internal) || err != nil && fault.KindOf(err) != tc.kind {
				t.Errorf("got %v", err)
			}
			if err != nil && !strings.Contains(err.Error(), "berth login "+g.host) {
				t.Errorf("%q does not say what to do", err)
			}
			if tc.how != "" && (len(u.seen) == 0 || u.seen[0] != tc.how) || tc.how == "" && len(u.seen) != 0 {
				t.Errorf("tokens were asked for by %v", u.seen)
			}
			u.clean(t)
		})
	}
}

// TestTokensExpireMidTransfer: while layers come and go, every token becomes
// invalid several times.
func TestTokensExpireMidTransfer(t *testing.T) {
	src := newRegistry(t)
	data := noise(400_000, 2)
	src.push("v1", arch, ociGzip, oneFile("a", data), oneFile("b", noise(300_000, 3)))
	h := build(t, nil)
	h.pull(t, src.host+"/app:v1")
	g := newPushRegistry(t)
	u := newGuard(t, g)
	var mu sync.Mutex
	n := 0
	g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if u.check(w, r) {
			return true
		}
		// Twice, so that no request is refused more often than a client asks
		// again, whatever runs beside it.
		mu.Lock()
		defer mu.Unlock()
		if n++; n == 3 || n == 8 {
			u.expire()
		}
		return false
	})
	auth := Auth{Username: theUser, Password: thePassword}
	h.tag(t, src.host+"/app:v1", g.host+"/app:v1")
	h.push(t, g.host+"/app:v1", PushOptions{Auth: auth})
	other := build(t, nil)
	img, _, err := other.Pull(context.Background(), g.host+"/app:v1", Options{Auth: auth})
	if err != nil || other.read(t, img, "a") != data {
		t.Fatal(err)
	}
	if u.issued < 3 {
		t.Errorf("only %d tokens were needed", u.issued)
	}
	u.clean(t)
}

// TestMountWantsToReadTheOther: a mount's token is for both repositories.
func TestMountWantsToReadTheOther(t *testing.T) {
	src, g := newRegistry(t), newPushRegistry(t)
	src.push("v1", arch, ociGzip, oneFile("a", "1"))
	u := newGuard(t, g)
	h := build(t, nil)
	img := h.pull(t, src.host+"/app:v1")
	auth := Auth{Username: theUser, Password: thePassword}
	for _, name := range []string{"one", "two"} {
		h.tag(t, src.host+"/app:v1", g.host+"/"+name+":v1")
		_, said := h.push(t, g.host+"/"+name+":v1", PushOptions{Auth: auth})
		if name == "two" {
			said.has(t, shortDigest(img.DiffIDs[0])+" Mounted from one")
		}
	}
	u.clean(t)
}

// TestCVE_2020_15157: a host that a registry redirects to asks for credentials
// and gets none, neither itself nor at a realm that it names.
func TestCVE_2020_15157(t *testing.T) {
	var mu sync.Mutex
	got := map[string]string{}
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		r.ParseForm()
		if v := r.Header.Get("Authorization") + r.Form.Get("refresh_token") + r.Header.Get("X-Secret"); v != "" {
			got[r.URL.Path] = v
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="x"`)
		w.Header().Add("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer thief.Close()
	for name, auth := range map[string]Auth{"password": {Username: theUser, Password: thePassword}, "identity": {IdentityToken: "identity-1"}} {
		t.Run(name, func(t *testing.T) {
			g := newRegistry(t)
			m, _ := g.push("v1", arch, ociGzip, oneFile("a", noise(100_000, 9)))
			u := newGuard(t, g)
			g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
				if u.check(w, r) {
					return true
				}
				if strings.HasSuffix(r.URL.Path, m.Layers[0].Digest.String()) {
					http.Redirect(w, r, thief.URL+r.URL.Path, http.StatusTemporaryRedirect)
					return true
				}
				return false
			})
			h := build(t, func(c *Config) {
				c.Registries.Hosts = map[string]*Registry{g.host: {Access: Access{Headers: map[string]string{"X-Secret": "mine"}}}}
			})
			_, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{Auth: auth})
			if !fault.Is(err, fault.Unauthorized) {
				t.Errorf("got %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			if len(got) != 0 {
				t.Errorf("the other host got %v", got)
			}
		})
	}
}

// TestRealms: which hosts are sent the password when a registry asks for it.
func TestRealms(t *testing.T) {
	for _, tc := range []struct {
		registry, realm string
		insecure        bool
		access          Access
		secret, open    bool // may get credentials; may be asked without
	}{
		{"registry-1.docker.io", "https://auth.docker.io/token", false, Access{}, true, true},
		{"ghcr.io", "https://ghcr.io/token", false, Access{}, true, true},
		{"registry.gitlab.com", "https://gitlab.com/jwt/auth", false, Access{}, true, true},
		{"registry.example.co.uk", "https://evil.co.uk/token", false, Access{}, false, true},
		{"registry.example.com", "https://registry.example.com.evil.net/", false, Access{}, false, true},
		{"registry.example.com", "https://evil.net/token", false, Access{}, false, true},
		{"registry.example.com", "https://evil.net/token", false, Access{AuthHosts: []string{"evil.net"}}, true, true},
		{"registry.example.com", "http://registry.example.com/token", false, Access{}, false, false},
		{"registry.example.com", "http://127.0.0.1/token", false, Access{}, false, false},
		{"127.0.0.1:5000", "http://127.0.0.1:5001/token", true, Access{}, true, true},
		{"localhost:5000", "http://127.0.0.1:5001/token", true, Access{}, true, true},
		{"127.0.0.1:5000", "http://10.0.0.1/token", true, Access{}, false, false},
		{"127.0.0.1:5000", "https://auth.example.com/token", true, Access{}, false, true},
		{"10.0.0.1:5000", "https://10.0.0.1/token", false, Access{}, true, true},
		{"10.0.0.1:5000", "https://10.0.0.2/token", false, Access{}, false, true},
		{"registry.example.com", "ftp://registry.example.com/", false, Access{}, false, false},
		{"registry.example.com", "https://ann:pw@registry.example.com/", false, Access{}, true, true},
	} {
		c := New(Config{})
		e := &endpoint{base: "https://" + tc.registry, host: tc.registry, insecure: tc.insecure, access: &tc.access}
		for _, secret := range []bool{true, false} {
			u, err := e.realm(c, "x", tc.realm, secret)
			want := tc.open
			if secret {
				want = tc.secret
			}
			if (err == nil) != want {
				t.Errorf("%s to %s, secret %v: %v", tc.registry, tc.realm, secret, err)
			}
			if err == nil && u.User != nil {
				t.Error("the realm's own user stays")
			}
		}
	}
}

// TestRealmThatRedirects: what is sent to a realm is not sent on.
func TestRealmThatRedirects(t *testing.T) {
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.Errorf("asked for %s", r.URL) }))
	defer thief.Close()
	realm := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, thief.URL, http.StatusTemporaryRedirect)
	}))
	defer realm.Close()
	g := newRegistry(t)
	g.push("v1", arch, ociGzip, oneFile("a", "b"))
	g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm.URL+`"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	h := build(t, nil)
	for _, auth := range []Auth{{Username: theUser, Password: thePassword}, {IdentityToken: "i"}} {
		if _, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{Auth: auth}); err == nil {
			t.Error("it was followed")
		}
	}
}

func TestLogin(t *testing.T) {
	g := newRegistry(t)
	u := newGuard(t, g)
	plain := newRegistry(t)
	plain.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, _ := r.BasicAuth(); user == theUser && password == thePassword {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	good := Auth{Username: theUser, Password: thePassword}
	for _, tc := range []struct {
		name  string
		auth  Auth
		host  string
		token string
		says  string
	}{
		{"token server", good, g.host, "identity-1", ""},
		{"as a URL", good, "http://" + g.host + "/v2/", "identity-1", ""},
		{"identity token", Auth{IdentityToken: "identity-1"}, g.host, "", ""},
		{"wrong password", Auth{Username: theUser, Password: "x"}, g.host, "", `/v2/": unauthorized: incorrect username or password`},
		{"htpasswd", good, plain.host, "", ""},
		{"wrong htpasswd", Auth{Username: theUser, Password: "x"}, plain.host, "", "unauthorized: incorrect username or password"},
		{"no host", good, "a b", "", "want a host"},
		{"user in host", good, "x@" + g.host, "", "want a host"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.auth.ServerAddress = tc.host
			token, status, err := New(Config{}).Login(context.Background(), tc.auth)
			switch {
			case tc.says != "":
				if err == nil || !strings.Contains(err.Error(), tc.says) {
					t.Errorf("got %v", err)
				}
			case err != nil || token != tc.token || status != "Login Succeeded":
				t.Errorf("got %q, %q, %v", token, status, err)
			}
		})
	}
	u.clean(t)
	for address, want := range map[string]string{"": "docker.io", "https://index.docker.io/v1/": "docker.io", "registry-1.docker.io": "docker.io", "ghcr.io": "ghcr.io"} {
		if got, err := serverHost(address); err != nil || got != want {
			t.Errorf("%q: %q, %v", address, got, err)
		}
	}
}

func TestParseChallenges(t *testing.T) {
	for text, want := range map[string][]challenge{
		`Bearer realm="https://a/t",service="a, b",scope="x\"y"`: {{"bearer", map[string]string{"realm": "https://a/t", "service": "a, b", "scope": `x"y`}}},
		`Basic realm=x, Bearer realm="y" , error = "z"`:          {{"basic", map[string]string{"realm": "x"}}, {"bearer", map[string]string{"realm": "y", "error": "z"}}},
		`Negotiate, Basic realm="x"`:                             {{"negotiate", nil}, {"basic", map[string]string{"realm": "x"}}},
		`Bearer realm="unfinished`:                               {{"bearer", map[string]string{"realm": "unfinished"}}},
		` , ,`:                                                   nil,
	} {
		got := parseChallenges([]string{text})
		same := len(got) == len(want)
		for i := 0; same && i < len(got); i++ {
			same = got[i].scheme == want[i].scheme && maps.Equal(got[i].params, want[i].params)
		}
		if !same {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

func FuzzChallenge(f *testing.F) {
	f.Add(`Bearer realm="https://auth.example/token",service="a,b",scope="x\"y"`)
	f.Add(`Basic realm=x, Negotiate abc==, Bearer`)
	f.Add(`Bearer realm="unfinished`)
	f.Add("\"\", = ,\\")
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range parseChallenges([]string{s, s}) {
			if c.scheme == "" {
				t.Error("a challenge without scheme")
			}
		}
	})
}
