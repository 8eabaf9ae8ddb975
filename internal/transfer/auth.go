package transfer

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"

	api "github.com/moby/moby/api/types/registry"
	"golang.org/x/net/publicsuffix"

	"berth/internal/fault"
)

// Who is shown a password. A registry gets one only after it has asked for it
// itself: a 401 that comes from somewhere else, to where it redirected, is
// answered with nothing. It may ask for the password (Basic) or name a realm
// where the password is exchanged for a token (Bearer). Docker sends it to
// whatever realm is named, over plain http, too. Here a realm gets it only
//
//   - over TLS, unless the registry itself may be spoken to without (loopback,
//     or configured), and the realm may, too;
//   - if it is the registry's host, or one of the same registrable domain
//     (registry-1.docker.io and auth.docker.io), or both are this machine, or
//     the configuration lists it (auth-hosts);
//   - in a request that follows no redirect.
//
// What a realm answers is shown to the registry alone. CVE-2020-15157 was a
// client that sent a registry's password to whoever a layer's URL made it ask.

const (
	maxTokenBody = 1 << 20 // bytes
	clientID     = "berth" // as OAuth2 wants one
)

// credentials are what a caller may prove to a registry.
type credentials struct {
	user, password string
	identity       string // a refresh token, exchanged for access tokens
	token          string // a bearer token, shown as it is
}

// Auth is a caller's credentials for a registry, as docker's API carries them.
type Auth = api.AuthConfig

func credentialsOf(a Auth) credentials {
	c := credentials{user: a.Username, password: a.Password, identity: a.IdentityToken, token: a.RegistryToken}
	if c.user == "" && c.password == "" && a.Auth != "" {
		if raw, err := base64.StdEncoding.DecodeString(a.Auth); err == nil {
			c.user, c.password, _ = strings.Cut(strings.TrimRight(string(raw), "\x00"), ":")
		}
	}
	if c.user == "<token>" { // docker's way to store an identity token
		c.identity, c.user, c.password = c.password, "", ""
	}
	return c
}

// empty reports whether there is nothing to prove oneself with.
func (c credentials) empty() bool { return c == credentials{} }

// authorizer answers the challenges of one endpoint within one session.
type authorizer struct {
	creds   credentials
	offline bool // asks for an identity token with the next access token

	mu     sync.Mutex        // guards what follows, and is held while a token is fetched: one is enough
	ask    *challenge        // what the endpoint asked for last
	tokens map[string]string // value of the Authorization header by scopes
	fresh  string            // an identity token that came
}

// header returns what to show for the scopes, "" for nothing. A token for
// further scopes is fetched without another refusal.
func (e *endpoint) header(ctx context.Context, s *session, scopes []string) (string, error) {
	a := &e.auth
	a.mu.Lock()
	defer a.mu.Unlock()
	if v, ok := a.tokens[scopeKey(scopes)]; ok || a.ask == nil {
		return v, nil
	}
	return e.answer(ctx, s, scopes)
}

// authorize answers a refusal of what was shown.
func (e *endpoint) authorize(ctx context.Context, s *session, challenges []string, shown string, scopes []string) error {
	a := &e.auth
	a.mu.Lock()
	defer a.mu.Unlock()
	if v := a.tokens[scopeKey(scopes)]; v != "" && v != shown {
		return nil // somebody else has got a new one
	}
	ask := choose(parseChallenges(challenges))
	if ask == nil || ask.scheme == "basic" && (shown != "" || a.creds.user == "") || shown != "" && a.creds.token != "" {
		return s.refused(e, shown != "")
	}
	a.ask = ask
	_, err := e.answer(ctx, s, scopes)
	return err
}

// choose picks what is answered; a token says less than a password.
func choose(all []challenge) *challenge {
	for _, scheme := range []string{"bearer", "basic"} {
		for i := range all {
			if all[i].scheme == scheme && (scheme == "basic" || all[i].params["realm"] != "") {
				return &all[i]
			}
		}
	}
	return nil
}

// refused is the error of a registry that wants other credentials, or any.
func (s *session) refused(e *endpoint, shown bool) error {
	why := "the registry wants a user name and a password"
	if shown || !e.auth.creds.empty() {
		why = "the registry does not accept the credentials"
	}
	host := e.registry
	if e.mirror != nil {
		return fault.New(fault.Unauthorized, s.action, s.subject(), "%s", strings.Replace(why, "registry", "mirror "+e.host, 1)).
			WithHint("give the mirror a username and a password in registries.toml")
	}
	return fault.New(fault.Unauthorized, s.action, s.subject(), "%s", why).WithHint("try `berth login %s`", host)
}

// answer gets what the endpoint has asked for and returns the header. The
// caller holds mu.
func (e *endpoint) answer(ctx context.Context, s *session, scopes []string) (string, error) {
	a := &e.auth
	var value string
	switch {
	case a.ask.scheme == "basic":
		value = "Basic " + base64.StdEncoding.EncodeToString([]byte(a.creds.user+":"+a.creds.password))
	case a.creds.token != "":
		value = "Bearer " + a.creds.token
	default:
		token, err := e.fetchToken(ctx, s, a.ask.params, scopes)
		if err != nil {
			return "", err
		}
		value = "Bearer " + token
	}
	if strings.ContainsAny(value, "\r\n") {
		return "", fault.New(fault.Invalid, s.action, s.subject(), "the token has line ends")
	}
	if a.tokens == nil {
		a.tokens = map[string]string{}
	}
	a.tokens[scopeKey(scopes)] = value
	return value, nil
}

func scopeKey(scopes []string) string { return strings.Join(scopes, " ") }

const tokenOp = "get token for"

// realm checks the URL at which the endpoint wants a token to be fetched.
func (e *endpoint) realm(c *Client, subject, raw string, secret bool) (*url.URL, error) {
	realm, err := url.Parse(raw)
	if err != nil || realm.Host == "" || realm.Scheme != "https" && realm.Scheme != "http" {
		return nil, fault.New(fault.Invalid, tokenOp, subject, "the registry's realm %.200q is no URL", raw)
	}
	realm.User = nil
	if realm.Scheme == "http" && strings.HasPrefix(e.base, "https:") && !(e.insecure && c.mayBeInsecure(realm.Host)) {
		return nil, fault.New(fault.Forbidden, tokenOp, subject, "the registry sends to %.200q, which has no TLS", raw)
	}
	if !secret {
		return realm, nil
	}
	if realm.Scheme == "http" && !(e.insecure && (realm.Host == e.host || c.mayBeInsecure(realm.Host))) {
		return nil, fault.New(fault.Forbidden, tokenOp, subject, "credentials are not sent to %.200q, which has no TLS", raw)
	}
	if host := bareHost(realm.Host); !sameSite(bareHost(e.host), host) && !e.access.mayAuthAt(realm.Host, host) {
		return nil, fault.New(fault.Forbidden, tokenOp, subject,
			"%s wants its credentials sent to %s, which is not of its domain", e.host, realm.Host).
			WithHint("if that is right, list %s as one of its auth-hosts in registries.toml", host)
	}
	return realm, nil
}

// sameSite reports whether two hosts are in the hands of the same people: the
// same, both this machine, or names below one registrable domain.
func sameSite(a, b string) bool {
	a, b = strings.ToLower(strings.TrimSuffix(a, ".")), strings.ToLower(strings.TrimSuffix(b, "."))
	if a == b || isLoopback(a) && isLoopback(b) {
		return true
	}
	if _, err := netip.ParseAddr(a); err == nil {
		return false
	}
	if _, err := netip.ParseAddr(b); err == nil {
		return false
	}
	x, errX := publicsuffix.EffectiveTLDPlusOne(a)
	y, errY := publicsuffix.EffectiveTLDPlusOne(b)
	return errX == nil && errY == nil && x == y
}

// fetchToken exchanges the credentials, or nothing, for a token, trying again
// what may pass.
func (e *endpoint) fetchToken(ctx context.Context, s *session, params map[string]string, scopes []string) (string, error) {
	creds := e.auth.creds
	realm, err := e.realm(s.c, s.subject(), params["realm"], !creds.empty())
	if err != nil {
		return "", err
	}
	base := realm.Scheme + "://" + realm.Host
	access := e.access
	if realm.Host != e.host {
		access = &Access{roots: e.access.roots} // headers and client certificate stay at home
	}
	insecure := e.insecure && (realm.Host == e.host || s.c.mayBeInsecure(realm.Host))
	client := s.c.httpClient(access, base, realm.Host, insecure, creds.empty())
	wait := s.c.c.Backoff
	for attempt := 1; ; attempt++ {
		token, err := e.tryToken(ctx, s, client, realm, params["service"], scopes)
		if err == nil || !mayPass(err) || attempt >= attemptsAt(err) {
			return token, err
		}
		if err := s.pause(ctx, jitter(wait)); err != nil {
			return "", err
		}
		wait *= 2
	}
}

// tokenRequest makes the request for a token: an identity token goes into the
// body of a POST (OAuth2), a password into the header of a GET.
func (e *endpoint) tokenRequest(ctx context.Context, realm *url.URL, service string, scopes []string) (*http.Request, error) {
	creds := e.auth.creds
	q := url.Values{}
	if creds.identity == "" {
		q = realm.Query()
	}
	if service != "" {
		q.Set("service", service)
	}
	if creds.identity != "" {
		q.Set("grant_type", "refresh_token")
		q.Set("refresh_token", creds.identity)
		q.Set("client_id", clientID)
		if len(scopes) > 0 {
			q.Set("scope", strings.Join(scopes, " "))
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(q.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return req, err
	}
	for _, scope := range scopes {
		q.Add("scope", scope)
	}
	if creds.user != "" {
		q.Set("account", creds.user)
	}
	if e.auth.offline {
		q.Set("offline_token", "true")
		q.Set("client_id", clientID)
	}
	target := *realm
	target.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err == nil && creds.user != "" {
		req.SetBasicAuth(creds.user, creds.password)
	}
	return req, err
}

func (e *endpoint) tryToken(ctx context.Context, s *session, client *http.Client, realm *url.URL, service string, scopes []string) (string, error) {
	reqCtx, cancel := context.WithCancel(ctx)
	req, err := e.tokenRequest(reqCtx, realm, service, scopes)
	if err != nil {
		cancel()
		return "", fault.New(fault.Invalid, tokenOp, s.subject(), "%w", err)
	}
	req.Header.Set("User-Agent", s.c.c.UserAgent)
	res, err := client.Do(req)
	if err != nil {
		cancel()
		return "", networkError(ctx, tokenOp, s.subject(), err)
	}
	res.Body = newStallBody(res.Body, s.c.c.Stall, cancel)
	defer drop(res)
	switch {
	case res.StatusCode == http.StatusUnauthorized && !e.auth.creds.empty():
		return "", fault.New(fault.Unauthorized, tokenOp, s.subject(), "unauthorized: incorrect username or password").
			WithHint("try `berth login %s`", e.registry)
	case res.StatusCode != http.StatusOK:
		return "", s.statusError(tokenOp, "token", res)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxTokenBody))
	if err != nil {
		return "", networkError(ctx, tokenOp, s.subject(), err)
	}
	var answer struct {
		Token        string `json:"token"`
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", fault.New(fault.Invalid, tokenOp, s.subject(), "the answer is no token: %w", err)
	}
	if answer.RefreshToken != "" && !e.auth.creds.empty() {
		e.auth.fresh = answer.RefreshToken
		if e.auth.creds.identity != "" {
			e.auth.creds.identity = answer.RefreshToken // the old one may be used up
		}
	}
	token := cmp.Or(answer.Token, answer.AccessToken)
	if token == "" {
		return "", fault.New(fault.Invalid, tokenOp, s.subject(), "the answer holds no token")
	}
	return token, nil
}
