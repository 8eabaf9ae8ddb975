package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"berth/internal/fault"
)

func TestPatternsMatchPartByPart(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"**", "a", true}, {"**", "a/b/c", true}, {"*", "a", true}, {"*", "a/b", false}, {"team/**", "team/a", true}, {"team/**", "team/a/b", true},
		{"team/**", "team", true}, {"team/*", "team", false}, {"team/**", "teams/a", false}, {"**/app", "app", true}, {"**/app", "x/y/app", true},
		{"**/app", "x/app/y", false}, {"a*c", "abbc", true}, {"a*c", "ac", true}, {"a*c", "ab", false}, {"a*b*c", "a-b-b-c", true}, {"ab*ba", "aba", false},
		{"a/**/b/**/c", "a/x/b/c", true}, {"a/**/b/**/c", "a/c", false}, {"app", "app", true}, {"app", "App", false},
	} {
		if got := matchName(c.pattern, c.name); got != c.want {
			t.Errorf("%s on %s: %v", c.pattern, c.name, got)
		}
	}
	done := make(chan bool)
	go func() {
		done <- matchName(strings.Repeat("**/a/", 60)+"b", strings.Repeat("a/", 120)+"c")
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("a pattern of many ** takes for ever")
	}
}

func TestRulesOnlyAdd(t *testing.T) {
	rules := []Rule{
		{[]string{"anonymous"}, []string{"public/**"}, Pull},
		{[]string{"users"}, []string{"home/{user}/**"}, All},
		{[]string{"group:dev"}, []string{"team/*"}, Pull | Push},
		{[]string{"user:root"}, []string{"**"}, All},
	}
	for _, c := range []struct {
		user, repo string
		groups     []string
		want       Rights
	}{
		{"", "public/a", nil, Pull}, {"", "home/ann/x", nil, 0}, {"ann", "home/ann/x", nil, All}, {"ann", "home/bob/x", nil, 0}, {"ann", "public/a", nil, Pull},
		{"ann", "team/x", []string{"dev"}, Pull | Push}, {"ann", "team/x", nil, 0}, {"root", "anything", nil, All},
		{"**", "home/bob/x", nil, 0}, {"bob/..", "home/bob/x", nil, 0}, {"*", "home/bob/x", nil, 0}, {"", "home//x", nil, 0},
	} {
		if got := rightsOf(rules, c.user, c.groups, c.repo); got != c.want {
			t.Errorf("%q in %s: %v, want %v", c.user, c.repo, got.Names(), c.want.Names())
		}
	}
	for _, r := range []Rule{
		{}, {[]string{"ann"}, []string{"**"}, Pull}, {[]string{"user:"}, []string{"**"}, Pull}, {[]string{"users"}, []string{""}, Pull}, {[]string{"users"}, []string{"/a"}, Pull},
		{[]string{"users"}, []string{"a/{group}"}, Pull}, {[]string{"users"}, []string{"**"}, 0},
	} {
		if r.Check() == nil {
			t.Errorf("%+v was accepted", r)
		}
	}
	if _, err := ParseRights([]string{"pull", "admin"}); err == nil {
		t.Error("an unknown right was accepted")
	}
}

func htpasswd(t *testing.T, users ...string) string {
	t.Helper()
	var text string
	for _, u := range users {
		hash, err := bcrypt.GenerateFromPassword([]byte("pw-"+u), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		text += u + ":" + string(hash) + "\n"
	}
	path := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func request(user, password string) *http.Request {
	r := httptest.NewRequest("GET", "/v2/", nil)
	if user != "" {
		r.SetBasicAuth(user, password)
	}
	return r
}

func TestPasswordsAreCheckedAndReadAgain(t *testing.T) {
	path := htpasswd(t, "ann")
	a, err := New(Config{Htpasswd: path})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		user, pw string
		ok       bool
	}{{"ann", "pw-ann", true}, {"ann", "pw-ann", true}, {"ann", "pw-bob", false}, {"bob", "pw-bob", false}, {"ann", "", false}, {"ann", strings.Repeat("x", 80), false}} {
		caller, err := a.Identify(request(c.user, c.pw))
		if (err == nil) != c.ok || err != nil && !fault.Is(err, fault.Unauthorized) {
			t.Errorf("%v: %v", c, err)
		}
		if err == nil && (caller.User != "ann" || !caller.May("x", All)) {
			t.Errorf("%+v", caller)
		}
	}
	if caller, err := a.Identify(request("", "")); err != nil || caller.User != "" || caller.May("x", Pull) || caller.Lists() {
		t.Errorf("anonymous: %+v, %v", caller, err)
	}
	text, err := os.ReadFile(htpasswd(t, "bob"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	a.pass.mu.Lock()
	a.pass.look = time.Time{}
	a.pass.mu.Unlock()
	if _, err := a.Identify(request("ann", "pw-ann")); err == nil {
		t.Error("a removed user is still let in: the remembered password won")
	}
	if _, err := a.Identify(request("bob", "pw-bob")); err != nil {
		t.Errorf("a new user: %v", err)
	}
	for _, bad := range []string{"ann", "ann:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=", "ann:$apr1$x$y", ":$2y$05$x"} {
		file := filepath.Join(t.TempDir(), "h")
		os.WriteFile(file, []byte("# users\n\n"+bad+"\n"), 0o600)
		if _, err := New(Config{Htpasswd: file}); err == nil || !strings.Contains(err.Error(), file+":3") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// signed makes a token with any key.
func signed(t *testing.T, alg, kid string, key crypto.Signer, c any) string {
	t.Helper()
	enc := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := enc(map[string]string{"alg": alg, "kid": kid}) + "." + enc(c)
	sum := sha256.Sum256([]byte(text))
	var sig []byte
	var err error
	switch k := key.(type) {
	case *rsa.PrivateKey:
		sig, err = rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:])
	case *ecdsa.PrivateKey:
		r, s, e := ecdsa.Sign(rand.Reader, k, sum[:])
		err, sig = e, make([]byte, 64)
		r.FillBytes(sig[:32])
		s.FillBytes(sig[32:])
	case ed25519.PrivateKey:
		sig = ed25519.Sign(k, []byte(text))
	}
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func bearer(token string) *http.Request {
	r := httptest.NewRequest("GET", "/v2/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

func TestTokensOfAnotherServer(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, stranger, _ := ed25519.GenerateKey(rand.Reader)
	var text []byte
	for _, k := range []crypto.Signer{rsaKey, ecKey, edKey} {
		der, err := x509.MarshalPKIXPublicKey(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)
	}
	keys := filepath.Join(t.TempDir(), "keys.pem")
	os.WriteFile(keys, text, 0o600)
	a, err := New(Config{Token: Token{Keys: keys, Realm: "https://auth.example/token", Issuer: "iss", Service: "svc"}})
	if err != nil {
		t.Fatal(err)
	}
	now := float64(time.Now().Unix())
	claims := func(change map[string]any) map[string]any {
		c := map[string]any{"iss": "iss", "aud": []string{"x", "svc"}, "sub": "ann", "exp": now + 60, "nbf": now - 5,
			"access": []Access{{"repository", "team/app", []string{"pull", "push", "fly"}}}}
		for k, v := range change {
			if v == nil {
				delete(c, k)
			} else {
				c[k] = v
			}
		}
		return c
	}
	for alg, key := range map[string]crypto.Signer{"RS256": rsaKey, "ES256": ecKey, "EdDSA": edKey} {
		c, err := a.Identify(bearer(signed(t, alg, "", key, claims(nil))))
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		if c.User != "ann" || !c.May("team/app", Pull|Push) || c.May("team/app", Delete) || c.May("team/other", Pull) || c.Lists() {
			t.Errorf("%s: %+v", alg, c)
		}
	}
	good := signed(t, "EdDSA", "", edKey, claims(nil))
	part := strings.Split(good, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + part[1] + "."
	der, _ := x509.MarshalPKIXPublicKey(rsaKey.Public())
	for name, token := range map[string]string{
		"alg none": none, "no signature": part[0] + "." + part[1] + ".", "another's key": signed(t, "EdDSA", "", stranger, claims(nil)),
		"algorithm of another key": signed(t, "RS256", "", edKey, claims(nil)), "HMAC with the public key": signed(t, "HS256", "", ed25519.NewKeyFromSeed(der[:32]), claims(nil)),
		"changed claims": part[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"iss","aud":"svc"}`)) + "." + part[2],
		"expired":        signed(t, "EdDSA", "", edKey, claims(map[string]any{"exp": now - 120})), "eternal": signed(t, "EdDSA", "", edKey, claims(map[string]any{"exp": nil})),
		"far future": signed(t, "EdDSA", "", edKey, claims(map[string]any{"exp": 1e300})), "not yet": signed(t, "EdDSA", "", edKey, claims(map[string]any{"nbf": now + 600})),
		"issuer": signed(t, "EdDSA", "", edKey, claims(map[string]any{"iss": "other"})), "audience": signed(t, "EdDSA", "", edKey, claims(map[string]any{"aud": "other"})),
		"no audience": signed(t, "EdDSA", "", edKey, claims(map[string]any{"aud": nil})), "garbage": "a.b.c", "empty": "", "long": strings.Repeat("a", 1<<20),
	} {
		if c, err := a.Identify(bearer(token)); !fault.Is(err, fault.Unauthorized) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	h := http.Header{}
	a.Challenge(h, bearer(good), "repository:x:pull", false)
	if got := h.Get("WWW-Authenticate"); got != `Bearer realm="https://auth.example/token",service="svc",scope="repository:x:pull",error="insufficient_scope"` {
		t.Errorf("challenge %s", got)
	}
}

func TestKeySets(t *testing.T) {
	b64 := base64.RawURLEncoding.EncodeToString
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	point, err := ec.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	set := fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"one","x":%q},{"kty":"EC","crv":"P-256","kid":"two","x":%q,"y":%q},{"kty":"oct","use":"enc"}]}`,
		b64(ed.Public().(ed25519.PublicKey)), b64(point[1:33]), b64(point[33:]))
	keys, err := parseKeys([]byte(set))
	if err != nil || len(keys) != 2 {
		t.Fatalf("%v, %v", keys, err)
	}
	if _, err := verifyToken(signed(t, "ES256", "two", ec, map[string]any{}), keys); err != nil {
		t.Error(err)
	}
	if _, err := verifyToken(signed(t, "ES256", "one", ec, map[string]any{}), keys); err == nil {
		t.Error("a token that names another key was accepted")
	}
	short, _ := rsa.GenerateKey(rand.Reader, 1024)
	var shortText string
	if short != nil {
		shortText = fmt.Sprintf(`{"keys":[{"kty":"RSA","n":%q,"e":"AQAB"}]}`, b64(short.N.Bytes()))
	}
	for _, bad := range []string{
		"", "{}", `{"keys":[]}`, `{"keys":[{"kty":"oct"}]}`, shortText, `{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`,
		fmt.Sprintf(`{"keys":[{"kty":"EC","crv":"P-256","x":%q,"y":%q}]}`, b64(make([]byte, 32)), b64(make([]byte, 32))),
		"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
	} {
		if _, err := parseKeys([]byte(bad)); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestTokenEndpoint(t *testing.T) {
	cfg := Config{Htpasswd: htpasswd(t, "ann", "bob"), Token: Token{Endpoint: true, Seed: make([]byte, 32), Service: "svc"}, Rules: []Rule{
		{[]string{"user:ann"}, []string{"team/*"}, Pull | Push}, {[]string{"anonymous"}, []string{"public"}, Pull},
	}}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(r *http.Request) (int, string) {
		w := httptest.NewRecorder()
		a.ServeToken(w, r)
		var body struct{ Token string }
		json.Unmarshal(w.Body.Bytes(), &body)
		return w.Code, body.Token
	}
	get := func(query, user string) *http.Request {
		r := httptest.NewRequest("GET", "/token?"+query, nil)
		if user != "" {
			r.SetBasicAuth(user, "pw-"+user)
		}
		return r
	}
	form := func(text string) *http.Request {
		r := httptest.NewRequest("POST", "/token", strings.NewReader(text))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return r
	}
	code, token := ask(get("service=svc&scope=repository:team/app:pull,push,delete&scope=repository:other:pull", "ann"))
	if code != 200 {
		t.Fatal(code)
	}
	c, err := a.Identify(bearer(token))
	if err != nil || c.User != "ann" || !c.May("team/app", Pull|Push) || c.May("team/app", Delete) || c.May("other", Pull) || c.May("team/else", Pull) {
		t.Errorf("%+v, %v", c, err)
	}
	_, token = ask(get("scope=repository:public:pull,push", ""))
	if c, err := a.Identify(bearer(token)); err != nil || !c.May("public", Pull) || c.May("public", Push) {
		t.Errorf("anonymous: %+v, %v", c, err)
	}
	code, token = ask(form("grant_type=password&username=ann&password=pw-ann&service=svc&scope=repository:team/app:pull"))
	if c, err := a.Identify(bearer(token)); code != 200 || err != nil || !c.May("team/app", Pull) || c.May("team/app", Push) {
		t.Errorf("password grant: %d, %+v, %v", code, c, err)
	}
	wrong := get("", "ann")
	wrong.SetBasicAuth("ann", "wrong")
	for name, x := range map[string]struct {
		r    *http.Request
		want int
	}{
		"wrong password": {wrong, 401}, "wrong password in a form": {form("grant_type=password&username=ann&password=x"), 401}, "other service": {get("service=x", "ann"), 400},
		"refresh token": {form("grant_type=refresh_token&refresh_token=x"), 400}, "token for a token": {bearer(token), 400}, "many scopes": {get(strings.Repeat("scope=x&", 100), "ann"), 400},
		"method": {httptest.NewRequest("PUT", "/token", nil), 405},
	} {
		if code, _ := ask(x.r); code != x.want {
			t.Errorf("%s: %d, want %d", name, code, x.want)
		}
	}
	// A token never outlives the rule or the user that it came from.
	cfg.Rules = cfg.Rules[1:]
	if a, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	if c, err := a.Identify(bearer(token)); err != nil || c.May("team/app", Pull) {
		t.Errorf("after the rule went: %+v, %v", c, err)
	}
	cfg.Htpasswd = htpasswd(t, "bob")
	if a, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Identify(bearer(token)); err == nil {
		t.Error("after the user went the token is still good")
	}
	cfg.Token.Seed = []byte(strings.Repeat("x", 32))
	if a, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Identify(bearer(token)); err == nil {
		t.Error("signed with another key the token is still good")
	}
	h := http.Header{}
	r := httptest.NewRequest("GET", "/v2/", nil)
	r.Host = "reg\".example\r\nX: y:5000"
	a.Challenge(h, r, "", false)
	if got := h.Get("WWW-Authenticate"); strings.ContainsAny(got, "\r\n") || strings.Count(got, `"`)%2 != 0 || strings.Count(got, `"`) != 4 {
		t.Errorf("a Host header breaks the challenge: %q", got)
	}
}

func FuzzToken(f *testing.F) {
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	s, err := newSigner(make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	good, _ := s.sign(newClaims("i", "s", "u", nil, time.Now(), time.Minute))
	f.Add(good)
	f.Add("e30.e30.")
	f.Fuzz(func(t *testing.T, token string) {
		if c, err := verifyToken(token, []publicKey{{"", key.Public()}}); err == nil {
			t.Errorf("a token without a key was believed: %+v", c)
		}
	})
}

func FuzzKeys(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if keys, err := parseKeys(text); err == nil && len(keys) == 0 {
			t.Error("no keys and no error")
		}
	})
}
