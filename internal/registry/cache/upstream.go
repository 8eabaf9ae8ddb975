package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"berth/internal/fault"
)

// dockerHub is how Docker Hub's registry is really called, and its token
// server, the only one of another name that gets credentials unasked.
const (
	dockerHub      = "registry-1.docker.io"
	dockerHubToken = "auth.docker.io"
)

const (
	longestAnswer = 1 << 20 // of a token server, in bytes
	answerTime    = 30 * time.Second
	tokenMargin   = 20 * time.Second // a token is not used in its last seconds
)

// upstream is the registry that is cached, and how to ask it.
type upstream struct {
	base       *url.URL
	user, pass string
	tokenHosts []string
	client     *http.Client

	mu     sync.Mutex // guards tokens
	tokens map[string]token
}

type token struct {
	header string
	until  time.Time
}

func newUpstream(cfg Config) (*upstream, error) {
	text := cfg.Upstream
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" {
		return nil, fault.New(fault.Invalid, "configure cache", cfg.Upstream, "the upstream is not the URL of a registry, such as https://registry-1.docker.io")
	}
	if slices.Contains([]string{"docker.io", "index.docker.io", "hub.docker.com"}, u.Host) {
		u.Host = dockerHub
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	up := &upstream{base: u, user: cfg.Username, pass: cfg.Password, tokenHosts: cfg.TokenHosts, tokens: map[string]token{}}
	if u.Host == dockerHub {
		up.tokenHosts = append(slices.Clone(up.tokenHosts), dockerHubToken)
	}
	transport := cfg.Transport
	if transport == nil {
		transport = &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
			TLSHandshakeTimeout:   15 * time.Second,
			ResponseHeaderTimeout: answerTime,
			MaxIdleConnsPerHost:   16,
			IdleConnTimeout:       time.Minute,
			DisableCompression:    true, // the bytes must be the ones of the digest
			ReadBufferSize:        64 << 10,
		}
	}
	up.client = &http.Client{Transport: transport, CheckRedirect: checkRedirect}
	return up, nil
}

// checkRedirect lets a redirect lead to another host without credentials (the
// library's own rule lets them follow to subdomains), and never from https to
// http.
func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	switch {
	case len(via) > 5:
		return errors.New("more than five redirects")
	case first.Scheme == "https" && req.URL.Scheme != "https":
		return errors.New("a redirect from https to " + req.URL.Scheme)
	case req.URL.Host != first.Host:
		req.Header.Del("Authorization")
	}
	return nil
}

// name is what the upstream calls a repository.
func (u *upstream) name(repo string) string {
	if u.base.Host == dockerHub && !strings.Contains(repo, "/") {
		return "library/" + repo
	}
	return repo
}

// do asks for a path below a repository. Answers of 200 and 206 are returned;
// others are errors, of which 404 is fault.NotFound. header may be nil.
func (u *upstream) do(ctx context.Context, method, repo, path string, header http.Header) (*http.Response, error) {
	scope := "repository:" + u.name(repo) + ":pull"
	for try := 0; ; try++ {
		req, err := http.NewRequestWithContext(ctx, method, u.base.String()+"/v2/"+u.name(repo)+path, nil)
		if err != nil {
			return nil, fault.Wrap("ask the upstream", repo, err)
		}
		for k, v := range header {
			req.Header[k] = v
		}
		req.Header.Set("User-Agent", "berth-registry")
		if h := u.authorization(scope); h != "" {
			req.Header.Set("Authorization", h)
		}
		resp, err := u.client.Do(req)
		if err != nil {
			return nil, u.failure(repo, err)
		}
		if resp.StatusCode == http.StatusUnauthorized && try == 0 {
			challenge := resp.Header.Values("WWW-Authenticate")
			drop(resp)
			if err := u.authorize(ctx, challenge, scope); err != nil {
				return nil, u.failure(repo, err)
			}
			continue
		}
		return u.judge(repo, resp)
	}
}

func (u *upstream) failure(repo string, err error) error {
	kind := fault.Unavailable
	if errors.Is(err, context.Canceled) {
		kind = fault.Canceled
	}
	return &fault.Error{Kind: kind, Op: "ask the upstream " + u.base.Host, Subject: repo, Err: err}
}

func (u *upstream) judge(repo string, resp *http.Response) (*http.Response, error) {
	op := "ask the upstream " + u.base.Host
	switch code := resp.StatusCode; code {
	case http.StatusOK, http.StatusPartialContent:
		return resp, nil
	case http.StatusNotFound, http.StatusForbidden, http.StatusUnauthorized:
		// Registries say 401 and 403 of what does not exist, too.
		drop(resp)
		return nil, fault.New(fault.NotFound, op, repo, "it answers %d", code)
	default:
		drop(resp)
		return nil, fault.New(fault.Unavailable, op, repo, "it answers %d", code)
	}
}

func drop(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	resp.Body.Close()
}

func (u *upstream) authorization(scope string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	t, ok := u.tokens[scope]
	if !ok || time.Now().After(t.until) {
		return ""
	}
	return t.header
}

func (u *upstream) remember(scope, header string, life time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.tokens) > 4096 {
		clear(u.tokens)
	}
	u.tokens[scope] = token{header, time.Now().Add(life)}
}

// authorize answers a challenge of the upstream.
func (u *upstream) authorize(ctx context.Context, challenges []string, scope string) error {
	for _, c := range challenges {
		scheme, params, _ := strings.Cut(strings.TrimSpace(c), " ")
		switch strings.ToLower(scheme) {
		case "basic":
			if u.user == "" {
				continue
			}
			req := http.Request{Header: http.Header{}}
			req.SetBasicAuth(u.user, u.pass)
			u.remember(scope, req.Header.Get("Authorization"), time.Hour)
			return nil
		case "bearer":
			return u.fetchToken(ctx, parseParams(params), scope)
		}
	}
	return errors.New("it wants credentials of a kind that we do not have")
}

// fetchToken asks the token server that the upstream names. The upstream says
// where to go, so credentials go along only if that is the upstream's own host
// or one that the configuration trusts (CVE-2020-15157 and its kind).
func (u *upstream) fetchToken(ctx context.Context, params map[string]string, scope string) error {
	realm, err := url.Parse(params["realm"])
	if err != nil || realm.Host == "" || realm.Scheme != "https" && realm.Scheme != u.base.Scheme {
		return fmt.Errorf("its token server %.200q is not a URL that we go to", params["realm"])
	}
	q := realm.Query()
	q.Set("scope", scope)
	if s := params["service"]; s != "" {
		q.Set("service", s)
	}
	realm.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, realm.String(), nil)
	if err != nil {
		return err
	}
	if u.user != "" {
		if realm.Host != u.base.Host && !slices.Contains(u.tokenHosts, realm.Host) {
			return fmt.Errorf("it sends us to the token server %s, which is not trusted with the password: name it in token-hosts if it should be", realm.Host)
		}
		req.SetBasicAuth(u.user, u.pass)
	}
	resp, err := u.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("its token server %s answers %d", realm.Host, resp.StatusCode)
	}
	var answer struct {
		Token   string `json:"token"`
		Access  string `json:"access_token"`
		Expires int64  `json:"expires_in"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, longestAnswer)).Decode(&answer); err != nil {
		return fmt.Errorf("its token server %s: %w", realm.Host, err)
	}
	if answer.Token == "" {
		answer.Token = answer.Access
	}
	if answer.Token == "" || strings.ContainsAny(answer.Token, "\r\n") {
		return fmt.Errorf("its token server %s gives no token", realm.Host)
	}
	life := time.Minute
	if answer.Expires > 0 && answer.Expires < 1<<20 {
		life = time.Duration(answer.Expires) * time.Second
	}
	u.remember(scope, "Bearer "+answer.Token, max(life-tokenMargin, life/2))
	return nil
}

// parseParams reads the parameters of a challenge (RFC 9110, section 11.2).
func parseParams(s string) map[string]string {
	out := map[string]string{}
	for s != "" {
		name, rest, ok := strings.Cut(strings.TrimLeft(s, " ,"), "=")
		if !ok {
			break
		}
		var value string
		if strings.HasPrefix(rest, `"`) {
			quoted, err := strconv.QuotedPrefix(rest)
			if err != nil {
				break
			}
			value, _ = strconv.Unquote(quoted)
			s = rest[len(quoted):]
		} else {
			value, s, _ = strings.Cut(rest, ",")
		}
		out[strings.ToLower(strings.TrimSpace(name))] = value
	}
	return out
}
