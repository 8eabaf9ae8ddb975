package transfer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/distribution/reference"

	"berth/internal/fault"
)

const (
	dockerHub     = "docker.io"
	dockerHubHost = "registry-1.docker.io"

	attempts      = 6 // at one request
	maxRetryAfter = 2 * time.Minute
	maxErrorBody  = 64 << 10 // bytes of an error document that are read
)

// session talks to one repository of one registry on behalf of one pull.
type session struct {
	p      *Puller
	name   reference.Named
	notify func(status string) // tells about waiting; may be nil
	base   string              // scheme://host
	client *http.Client

	mu    sync.Mutex // guards token
	token string     // value of the Authorization header, "" before it was asked for
}

// open finds out how the registry of a name is spoken to.
func (p *Puller) open(ctx context.Context, name reference.Named) (*session, error) {
	host := reference.Domain(name)
	s := &session{p: p, name: name, client: p.secure, base: "https://" + host}
	if host == dockerHub {
		s.base = "https://" + dockerHubHost
		return s, nil
	}
	if !p.mayBeInsecure(host) {
		return s, nil
	}
	s.client = p.insecure
	plain, err := p.speaksPlain(ctx, host)
	if err != nil {
		return nil, err
	}
	if plain {
		s.base = "http://" + host
	}
	return s, nil
}

// mayBeInsecure reports whether a registry may be spoken to without verified
// TLS: one on this machine, or one that the configuration names.
func (p *Puller) mayBeInsecure(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]")
	}
	if slices.Contains(p.c.Insecure, hostport) || slices.Contains(p.c.Insecure, host) {
		return true
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// speaksPlain finds out whether such a registry has no TLS, and remembers that.
func (p *Puller) speaksPlain(ctx context.Context, host string) (bool, error) {
	p.mu.Lock()
	plain := p.plain[host]
	p.mu.Unlock()
	if plain {
		return true, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/v2/", nil)
	if err != nil {
		return false, fault.New(fault.Invalid, "find registry", host, "%w", err)
	}
	res, err := p.insecure.Do(req)
	if err == nil {
		res.Body.Close()
		return false, nil
	}
	var record tls.RecordHeaderError
	if !errors.As(err, &record) && !strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") &&
		!errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.ECONNREFUSED) {
		return false, networkError("find registry", host, err)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		p.mu.Lock()
		p.plain[host] = true
		p.mu.Unlock()
	}
	return true, nil
}

// checkRedirect keeps credentials away from other hosts and refuses to leave
// TLS.
func checkRedirect(req *http.Request, via []*http.Request, downgrade bool) error {
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	from := via[len(via)-1].URL
	if req.URL.Scheme != "https" && req.URL.Scheme != "http" {
		return fmt.Errorf("redirected to a %q URL", req.URL.Scheme)
	}
	if from.Scheme == "https" && req.URL.Scheme == "http" && !downgrade {
		return errors.New("redirected from https to http")
	}
	if req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {
		req.Header.Del("Authorization")
	}
	return nil
}

// get sends a GET for a path below /v2/<name>/ and returns a response with one
// of the wanted codes. It authenticates, retries what may pass, and turns
// everything else into an error that says what it was about.
func (s *session) get(ctx context.Context, op, path string, header http.Header, want ...int) (*http.Response, error) {
	target := s.base + "/v2/" + reference.Path(s.name) + "/" + path
	wait := s.p.c.Backoff
	authorized := false
	for attempt := 1; ; attempt++ {
		s.mu.Lock()
		token := s.token
		s.mu.Unlock()
		res, err := s.send(ctx, target, header, token)
		var again time.Duration
		switch {
		case err != nil:
			err = networkError(op, s.subject(), err)
			if !mayPass(err) {
				return nil, err
			}
		case slices.Contains(want, res.StatusCode):
			return res, nil
		case res.StatusCode == http.StatusUnauthorized && !authorized:
			authorized = true
			attempt--
			challenges := res.Header.Values("WWW-Authenticate")
			drop(res)
			if err := s.authorize(ctx, challenges); err != nil {
				return nil, err
			}
			continue
		default:
			err = s.statusError(op, path, res)
			again = retryAfter(res)
			drop(res)
			if !mayPass(err) || again > maxRetryAfter {
				return nil, err
			}
		}
		if attempt >= attemptsAt(err) {
			return nil, err
		}
		if sleepErr := s.pause(ctx, max(again, jitter(wait))); sleepErr != nil {
			return nil, sleepErr
		}
		wait *= 2
	}
}

// send makes one request. The answer's body must be closed; it gives up when
// nothing comes for too long.
func (s *session) send(ctx context.Context, target string, header http.Header, authorization string) (*http.Response, error) {
	ctx, cancel := context.WithCancel(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", s.p.c.UserAgent)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	res, err := s.client.Do(req)
	if err != nil {
		cancel()
		return nil, err
	}
	res.Body = newStallBody(res.Body, s.p.c.Stall, cancel)
	return res, nil
}

// attemptsAt returns how often it is tried when this is the error: a name that
// does not exist, or a machine that refuses, seldom changes within seconds.
func attemptsAt(err error) int {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return 1
	case errors.Is(err, syscall.ECONNREFUSED):
		return 2
	}
	return attempts
}

// pause waits before the next attempt and says so when it takes long.
func (s *session) pause(ctx context.Context, d time.Duration) error {
	if s.notify != nil && d >= time.Second {
		s.notify(fmt.Sprintf("Retrying in %d seconds", int(d.Round(time.Second).Seconds())))
	}
	return sleep(ctx, d)
}

func (s *session) subject() string { return reference.FamiliarName(s.name) }

// drop closes a response whose body nobody wants, reading a little so that the
// connection can be used again.
func drop(res *http.Response) {
	io.CopyN(io.Discard, res.Body, maxErrorBody)
	res.Body.Close()
}

// mayPass reports whether the same request can succeed later.
func mayPass(err error) bool { return fault.Is(err, fault.Unavailable) }

func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// retryAfter returns how long the server asks to wait.
func retryAfter(res *http.Response) time.Duration {
	v := res.Header.Get("Retry-After")
	if v == "" {
		return 0
	}
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(t))
	}
	return 0
}

// networkError classifies a failure to get an answer at all.
func networkError(op, subject string, err error) error {
	if kind := fault.KindOf(err); kind == fault.Canceled && !isTimeout(err) {
		return &fault.Error{Kind: kind, Op: op, Subject: subject, Err: err}
	}
	e := &fault.Error{Kind: fault.Unavailable, Op: op, Subject: subject, Err: err}
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var uerr *url.Error
	switch {
	case errors.As(err, &unknown), errors.As(err, &name), errors.As(err, &invalid):
		e.Kind = fault.Forbidden
		e.Hint = "the registry's certificate is not trusted here: install its CA on this machine"
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		e.Kind = fault.Forbidden
		e.Hint = "the registry has no TLS: list it as insecure if that is meant"
	case errors.As(err, &uerr) && (strings.Contains(err.Error(), "redirect")):
		e.Kind = fault.Forbidden
	}
	return e
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout() && !errors.Is(err, context.DeadlineExceeded)
}

// statusError says what an answer means. It reads the body but does not close
// it.
func (s *session) statusError(op, path string, res *http.Response) error {
	detail := errorDetail(res)
	e := &fault.Error{Op: op, Subject: s.subject(), Err: fmt.Errorf("%s%s", res.Status, detail)}
	switch code := res.StatusCode; {
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		e.Kind = fault.Unauthorized
		if code == http.StatusForbidden {
			e.Kind = fault.Forbidden
		}
		e.Err = fmt.Errorf("pull access denied for %s, repository does not exist or may require credentials: %w", s.subject(), e.Err)
	case code == http.StatusNotFound:
		e.Kind = fault.NotFound
		if what, ref, _ := strings.Cut(path, "/"); what == "manifests" {
			sep := ":"
			if strings.Contains(ref, ":") {
				sep = "@"
			}
			e.Err = fmt.Errorf("manifest for %s%s%s not found%s", s.subject(), sep, ref, detail)
		}
	case code == http.StatusTooManyRequests:
		e.Kind = fault.Unavailable
		e.Hint = "the registry limits how much is pulled: wait, or pull with credentials"
	case code == http.StatusRequestTimeout, code >= 500:
		e.Kind = fault.Unavailable
	default:
		e.Kind = fault.Invalid
	}
	return e
}

// errorDetail returns what a registry's error document says, in front of it a
// colon.
func errorDetail(res *http.Response) string {
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxErrorBody))
	var doc struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(body, &doc) != nil || len(doc.Errors) == 0 {
		return ""
	}
	e := doc.Errors[0]
	code := strings.ToLower(strings.ReplaceAll(e.Code, "_", " "))
	return fmt.Sprintf(": %.100s: %.300s", code, e.Message)
}
