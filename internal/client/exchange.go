package client

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/url"
	"strings"

	"berth/internal/fault"
)

// maxErrorBody bounds what is read of an answer that says why a request failed.
const maxErrorBody = 64 << 10

// maxIdle is how many connections are kept between requests.
const maxIdle = 4

// exchange is a request on the wire whose answer has not been read yet, so that
// several can be under way without a goroutine each.
type exchange struct {
	client  *Client
	conn    *conn
	request *request
	ctx     context.Context
	unwatch func() bool
	sent    chan error // result of a streamed body; nil when there is none
}

// answer is a successful response. Close must be called.
type answer struct {
	*response
	exchange *exchange
}

func (c *Client) connection(ctx context.Context) (*conn, error) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 {
		reused := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		return reused, nil
	}
	c.mu.Unlock()
	return c.fresh(ctx)
}

func (c *Client) fresh(ctx context.Context) (*conn, error) {
	raw, err := c.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: raw, r: bufio.NewReader(raw)}, nil
}

func (c *Client) release(idle *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.idle) >= maxIdle {
		_ = idle.Close()
		return
	}
	c.idle = append(c.idle, idle)
}

// Warm opens up to n connections ahead of their use. A failure is left for the
// request that needs the connection.
func (c *Client) Warm(ctx context.Context, n int) {
	for range n {
		idle, err := c.fresh(ctx)
		if err != nil {
			return
		}
		c.release(idle)
	}
}

func (c *Client) hostHeader() string {
	if c.endpoint.Scheme == "tcp" {
		return c.endpoint.Address
	}
	return "berth"
}

// begin puts a request on the wire.
func (c *Client) begin(ctx context.Context, rq *request) (*exchange, error) {
	used, err := c.connection(ctx)
	if err != nil {
		return nil, err
	}
	err = rq.send(used, c.hostHeader())
	if err != nil && used.used { // the engine closed it since its last use, and has not seen the request
		_ = used.Close()
		c.Close()
		if used, err = c.fresh(ctx); err != nil {
			return nil, err
		}
		err = rq.send(used, c.hostHeader())
	}
	if err != nil {
		_ = used.Close()
		return nil, broken(err)
	}
	x := &exchange{client: c, conn: used, request: rq, ctx: ctx, unwatch: used.watch(ctx)}
	if rq.stream != nil {
		x.sent = make(chan error, 1)
		go func() {
			err := sendStream(used, rq.stream)
			x.sent <- err
			if err != nil && !Broken(err) { // the source failed: the engine must not wait for more of it
				_ = used.Close()
			}
		}()
	}
	return x, nil
}

// finish reads the answer up to its body. An answer that refuses the request
// becomes an error of the kind its status says.
func (x *exchange) finish() (*answer, error) {
	rs, err := x.conn.receive(x.request.method)
	if err != nil {
		x.abandon()
		if x.ctx.Err() != nil {
			return nil, x.ctx.Err()
		}
		return nil, x.streamError(err)
	}
	if text := rs.header.Get("berth-notice"); text != "" {
		if notice, ok := x.ctx.Value(noticeKey{}).(func(string)); ok {
			notice(text)
		}
	}
	a := &answer{response: rs, exchange: x}
	if rs.status >= 400 {
		err := refusal(rs)
		a.Close()
		return nil, err
	}
	return a, nil
}

// streamError prefers the reason why a streamed body could not be read, such as
// a bad file, over the broken answer that followed from it.
func (x *exchange) streamError(err error) error {
	if x.sent == nil {
		return err
	}
	if sent := <-x.sent; sent != nil && !Broken(sent) {
		return sent
	}
	return err
}

// noticeKey is the context key of WithNotice.
type noticeKey struct{}

// WithNotice returns a context whose requests give notice what the engine wants
// a person to know about them although they succeeded.
func WithNotice(ctx context.Context, notice func(text string)) context.Context {
	return context.WithValue(ctx, noticeKey{}, notice)
}

func (x *exchange) abandon() {
	x.unwatch()
	_ = x.conn.Close()
}

// Read reads the body.
func (a *answer) Read(p []byte) (int, error) {
	n, err := a.body.Read(p)
	if err != nil && err != io.EOF && a.exchange.ctx.Err() != nil {
		err = a.exchange.ctx.Err()
	}
	return n, err
}

// Close gives the connection back when the body has been read to its end and
// closes it otherwise. It returns the error of a streamed request body, if any.
func (a *answer) Close() error {
	x := a.exchange
	var probe [1]byte
	if n, err := a.body.Read(probe[:]); !a.whole || n > 0 || err != io.EOF {
		x.abandon()
		return nil
	}
	if x.sent != nil { // the engine answered early: the rest of the body is not wanted
		select {
		case err := <-x.sent:
			if err != nil {
				x.abandon()
				return err
			}
		default:
			x.abandon()
			return nil
		}
	}
	if x.unwatch() {
		x.client.release(x.conn)
	} else {
		_ = x.conn.Close()
	}
	return nil
}

// refusal turns an answer with an error status into an error. The engine's own
// words are the message.
func refusal(rs *response) error {
	text, _ := io.ReadAll(io.LimitReader(rs.body, maxErrorBody))
	var reply struct {
		Message string `json:"message"`
		Hint    string `json:"hint"`
	}
	if json.Unmarshal(text, &reply) != nil || reply.Message == "" {
		reply.Message = strings.TrimSpace(string(text))
	}
	if reply.Message == "" {
		reply.Message = "the engine refused without saying why"
	}
	err := &Refusal{Status: rs.status, Message: strings.TrimRight(reply.Message, "\n"), ExitCode: rs.header.Get("berth-exit-code")}
	return &fault.Error{Kind: kindOf(rs.status), Err: err, Hint: reply.Hint}
}

// Refusal is an engine's answer that a request failed.
type Refusal struct {
	Status  int    // HTTP status
	Message string // the engine's words
	// ExitCode is what a shell would report when a program cannot be started
	// ("126", "127"), "" when the engine did not say.
	ExitCode string
}

// Error returns the engine's words.
func (r *Refusal) Error() string { return r.Message }

func kindOf(status int) fault.Kind {
	switch status {
	case 400:
		return fault.Invalid
	case 401:
		return fault.Unauthorized
	case 403:
		return fault.Forbidden
	case 404:
		return fault.NotFound
	case 409:
		return fault.Conflict
	case 501:
		return fault.Unsupported
	case 503:
		return fault.Unavailable
	case 507:
		return fault.Exhausted
	}
	return fault.Internal
}

// do sends a request and reads the answer up to its body. One that only reads is
// sent again when the engine went away before it answered.
func (c *Client) do(ctx context.Context, rq *request) (*answer, error) {
	a, err := c.once(ctx, rq)
	if Broken(err) && ctx.Err() == nil && rq.method == "GET" {
		soon, cancel := context.WithTimeout(ctx, restartPatience)
		defer cancel()
		if c.Reconnect(soon) != nil {
			return nil, err
		}
		return c.once(ctx, rq)
	}
	return a, err
}

func (c *Client) once(ctx context.Context, rq *request) (*answer, error) {
	x, err := c.begin(ctx, rq)
	if err != nil {
		return nil, err
	}
	return x.finish()
}

// call sends a request with an optional JSON body and decodes the answer into
// out unless it is nil.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	return c.callAs(ctx, &request{method: method, path: path, query: query.Encode()}, in, out)
}

// callAs is call for a request that says more, such as who asks.
func (c *Client) callAs(ctx context.Context, rq *request, in, out any) error {
	if in != nil {
		if err := rq.json(in); err != nil {
			return err
		}
	}
	a, err := c.do(ctx, rq)
	if err != nil {
		return err
	}
	if out != nil {
		if err := a.decode(out); err != nil {
			_ = a.Close()
			return err
		}
	}
	return a.Close()
}

// fetch is call with a typed answer.
func fetch[T any](ctx context.Context, c *Client, method, path string, query url.Values, in any) (T, error) {
	var out T
	err := c.call(ctx, method, path, query, in, &out)
	return out, err
}

// fetchList is fetch of a list, decoded one entry at a time: a long one is never
// in memory as text.
func fetchList[T any](ctx context.Context, c *Client, path string, query url.Values) ([]T, error) {
	a, err := c.do(ctx, &request{method: "GET", path: path, query: query.Encode()})
	if err != nil {
		return nil, err
	}
	out := []T{}
	dec := json.NewDecoder(a)
	first, err := dec.Token()
	if err == nil && first == nil {
		return out, a.Close() // null
	}
	for err == nil && dec.More() {
		var v T
		if err = dec.Decode(&v); err == nil {
			out = append(out, v)
		}
	}
	if err == nil {
		_, err = dec.Token() // the end of the list, or of what was cut
	}
	if err != nil {
		_ = a.Close()
		return nil, fault.New(fault.Unavailable, "read the engine's answer to", path, "%w", err)
	}
	return out, a.Close()
}

func (rq *request) json(in any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fault.New(fault.Internal, "encode request", rq.path, "%w", err)
	}
	rq.body, rq.contentType = body, "application/json"
	return nil
}

// decode reads the whole body as one JSON value.
func (a *answer) decode(out any) error {
	text, err := io.ReadAll(a)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fault.New(fault.Unavailable, "read the engine's answer to", a.exchange.request.path, "%w", err)
	}
	return nil
}

// segment escapes a name for use as one segment of a path; image names keep
// their slashes because engines route on the whole rest of the path.
func segment(name string) string {
	return strings.ReplaceAll(url.PathEscape(name), "%2F", "/")
}
