package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"

	"berth/internal/fault"
)

const (
	attempts       = 6 // at one request
	mirrorAttempts = 2 // where there is another place to ask
	maxRefusals    = 2 // 401s in a row to what was shown that are answered
	maxRetryAfter  = 2 * time.Minute
)

// What a session is for, as messages say it.
const (
	actionPull  = "pull"
	actionPush  = "push"
	actionLogin = "log in"
)

// session talks to one repository on behalf of one caller.
type session struct {
	c         *Client
	name      reference.Named
	action    string
	scopes    []string            // what tokens are for
	notify    func(status string) // tells about waiting; may be nil
	endpoints []*endpoint         // in the order in which they are asked

	mu    sync.Mutex // guards quota and the endpoints' down
	quota *quota     // the last that the registry told
}

// open prepares a session. Pulls ask the mirrors, everything else goes to the
// registry itself.
func (c *Client) open(ctx context.Context, name reference.Named, action string, auth Auth) (*session, error) {
	s := &session{c: c, name: name, action: action}
	switch action {
	case actionPull:
		s.scopes = []string{"pull"}
	case actionPush:
		s.scopes = []string{"pull,push"}
	}
	var err error
	s.endpoints, err = c.endpoints(ctx, name, credentialsOf(auth), action == actionPull)
	return s, err
}

// scopesAt returns what a token for an endpoint is to allow.
func (s *session) scopesAt(e *endpoint, more []string) []string {
	scopes := make([]string, 0, len(s.scopes)+len(more))
	for _, actions := range s.scopes {
		scopes = append(scopes, "repository:"+e.path+":"+actions)
	}
	return append(scopes, more...)
}

func (s *session) origin() *endpoint { return s.endpoints[len(s.endpoints)-1] }

// request is one request to a registry.
type request struct {
	op     string // for messages: "fetch manifest of"
	method string // "" means GET
	path   string // below the repository: "blobs/sha256:..."
	url    string // instead of path: where the registry said to go on
	query  url.Values
	header http.Header
	data   []byte    // the body, sent again with each attempt
	stream io.Reader // the body, sent once; then nothing is tried again
	size   int64     // of stream, -1 unknown
	scopes []string  // further ones that are needed
	want   []int     // codes that are no error
	tag    bool      // asks what a tag means
	at     *endpoint // only this one; nil means any that has it
	most   int       // attempts; 0 means the usual
}

// response is an answer and who gave it.
type response struct {
	*http.Response
	from *endpoint
}

// do sends a request to the first endpoint that answers it with one of the
// wanted codes. Its body must be closed.
func (s *session) do(ctx context.Context, r request) (*response, error) {
	if r.at != nil {
		return s.doAt(ctx, r.at, r)
	}
	for i, e := range s.endpoints {
		last := i == len(s.endpoints)-1
		if !last && (s.isDown(e) || r.tag && e.mirror.DigestsOnly) {
			continue
		}
		res, err := s.doAt(ctx, e, r)
		if err == nil || last || ctx.Err() != nil {
			return res, err
		}
		s.failed(e, err)
	}
	return nil, errors.New("no endpoint") // not reached: there is always the registry itself
}

// failed notes that a mirror could not help.
func (s *session) failed(e *endpoint, err error) {
	if fault.Is(err, fault.NotFound) {
		return // it may have others
	}
	s.mu.Lock()
	first := !e.down
	e.down = e.mirror != nil
	s.mu.Unlock()
	if first && s.notify != nil {
		s.notify(fmt.Sprintf("Mirror %s is passed over: %.300s", e.host, err))
	}
}

func (s *session) isDown(e *endpoint) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return e.down
}

// doAt sends a request to one endpoint. It authenticates, retries what may
// pass, and turns everything else into an error that says what it was about.
func (s *session) doAt(ctx context.Context, e *endpoint, r request) (*response, error) {
	wait := s.c.c.Backoff
	refused := 0 // 401s in a row to what was shown; a token may expire while another is fetched
	for attempt := 1; ; attempt++ {
		shown, err := e.header(ctx, s, s.scopesAt(e, r.scopes))
		if err != nil {
			return nil, err
		}
		res, err := s.send(ctx, e, r, shown)
		var again time.Duration
		switch {
		case err != nil:
			if err = networkError(ctx, r.op, s.subject(), err); !mayPass(err) {
				return nil, err
			}
			refused = 0
		case slices.Contains(r.want, res.StatusCode):
			return &response{res, e}, nil
		case res.StatusCode == http.StatusUnauthorized && refused < maxRefusals && atHome(e, res):
			if shown != "" { // else it only says what it wants to be shown
				refused++
			}
			attempt--
			challenges := res.Header.Values("WWW-Authenticate")
			drop(res)
			if err := e.authorize(ctx, s, challenges, shown, s.scopesAt(e, r.scopes)); err != nil {
				return nil, err
			}
			if r.stream != nil {
				return nil, errAgain
			}
			continue
		default:
			err = s.statusError(r.op, r.path, res)
			again = retryAfter(res)
			drop(res)
			if !mayPass(err) || again > maxRetryAfter {
				return nil, err
			}
			refused = 0
		}
		if attempt >= s.limit(e, r, err) {
			return nil, err
		}
		if err := s.pause(ctx, max(again, jitter(wait))); err != nil {
			return nil, err
		}
		wait *= 2
	}
}

// errAgain tells who sends a stream that it can be sent again at once.
var errAgain = fault.New(fault.Unavailable, "send", "", "the registry wanted other credentials")

// atHome reports whether an answer is the endpoint's own. What another host, to
// which it redirected, asks for is not given.
func atHome(e *endpoint, res *http.Response) bool {
	return res.Request.URL.Scheme+"://"+res.Request.URL.Host == e.base
}

// limit returns how often a request is tried after err.
func (s *session) limit(e *endpoint, r request, err error) int {
	n := attemptsAt(err)
	if e.mirror != nil {
		n = min(n, mirrorAttempts)
	}
	if r.most > 0 {
		n = min(n, r.most)
	}
	if r.stream != nil {
		n = 1
	}
	return n
}

// send makes one request. The answer's body must be closed; it gives up when
// nothing comes for too long.
func (s *session) send(ctx context.Context, e *endpoint, r request, authorization string) (*http.Response, error) {
	ctx, cancel := context.WithCancel(ctx)
	var body *stallUpload
	if r.stream != nil {
		body = newStallUpload(r.stream, s.c.c.Stall, cancel)
		r.stream = body
	}
	req, err := s.newRequest(ctx, e, r)
	if err != nil {
		cancel()
		return nil, err
	}
	req.Header.Set("User-Agent", s.c.c.UserAgent)
	if authorization != "" {
		req.Header.Set("Authorization", authorization) // homeTransport keeps it at home
	}
	res, err := e.client.Do(req)
	if err != nil {
		cancel()
		return nil, body.explain(err)
	}
	if q, ok := quotaOf(res.Header); ok && atHome(e, res) {
		s.mu.Lock()
		s.quota = &q
		s.mu.Unlock()
	}
	res.Body = newStallBody(res.Body, s.c.c.Stall, cancel)
	return res, nil
}

func (s *session) newRequest(ctx context.Context, e *endpoint, r request) (*http.Request, error) {
	target := r.url
	if target == "" {
		target = e.base + "/v2/" + e.path + "/" + r.path
	}
	query := r.query
	if e.mirror != nil { // as containerd's clients do, so that one cache can serve several registries
		query = url.Values{"ns": {e.registry}}
		for k, v := range r.query {
			query[k] = v
		}
	}
	if len(query) > 0 {
		sep := "?"
		if strings.Contains(target, "?") {
			sep = "&"
		}
		target += sep + query.Encode()
	}
	method := r.method
	if method == "" {
		method = http.MethodGet
	}
	var body io.Reader
	switch {
	case r.stream != nil:
		body = r.stream
	case r.data != nil:
		body = bytes.NewReader(r.data)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	if r.stream != nil {
		req.ContentLength = r.size
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	return req, nil
}

// pause waits before the next attempt and says so when it takes long.
func (s *session) pause(ctx context.Context, d time.Duration) error {
	if s.notify != nil && d >= time.Second {
		s.notify(fmt.Sprintf("Retrying in %d seconds", int(d.Round(time.Second).Seconds())))
	}
	return sleep(ctx, d)
}

// showQuota tells how much the registry lets one pull, if it does.
func (s *session) showQuota() {
	s.mu.Lock()
	q := s.quota
	s.mu.Unlock()
	if q != nil && s.notify != nil {
		s.notify(reference.Domain(s.name) + ": " + q.String())
	}
}

func (s *session) subject() string { return reference.FamiliarName(s.name) }

// drop closes a response whose body nobody wants, reading a little so that the
// connection can be used again.
func drop(res *http.Response) {
	_, _ = io.CopyN(io.Discard, res.Body, maxErrorBody)
	res.Body.Close()
}

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
