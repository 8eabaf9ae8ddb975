package client

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
	"strconv"
	"strings"
)

// Filters is the wire form of --filter: name to the set of wanted values.
type Filters map[string]map[string]bool

// Add adds a wanted value.
func (f Filters) Add(name, value string) {
	if f[name] == nil {
		f[name] = map[string]bool{}
	}
	f[name][value] = true
}

func (f Filters) query(q url.Values) {
	if len(f) > 0 {
		text, _ := json.Marshal(f) // maps of strings always encode
		q.Set("filters", string(text))
	}
}

// BeginContainerCreate puts a creation on the wire. platform is "" or
// OS[/ARCH[/VARIANT]].
func (c *Client) BeginContainerCreate(ctx context.Context, name, platform string, req *CreateRequest) (*PendingCreate, error) {
	q := url.Values{}
	if name != "" {
		q.Set("name", name)
	}
	if platform != "" {
		q.Set("platform", platform)
	}
	rq := &request{method: "POST", path: "/containers/create", query: q.Encode()}
	if err := rq.json(req); err != nil {
		return nil, err
	}
	x, err := c.begin(ctx, rq)
	if err != nil {
		return nil, err
	}
	return &PendingCreate{x}, nil
}

// PendingCreate is a creation that has not been answered yet.
type PendingCreate struct{ x *exchange }

// Finish waits for the answer.
func (p *PendingCreate) Finish() (CreateResponse, error) {
	var out CreateResponse
	a, err := p.x.finish()
	if err != nil {
		return out, err
	}
	if err := a.decode(&out); err != nil {
		_ = a.Close()
		return out, err
	}
	return out, a.Close()
}

// ContainerStart starts a container. detachKeys may be "".
func (c *Client) ContainerStart(ctx context.Context, ref, detachKeys string) error {
	q := url.Values{}
	if detachKeys != "" {
		q.Set("detachKeys", detachKeys)
	}
	return c.call(ctx, "POST", "/containers/"+segment(ref)+"/start", q, nil, nil)
}

// StopOptions say how to stop; nil Timeout and "" Signal mean the container's own.
type StopOptions struct {
	Signal  string
	Timeout *int // seconds, -1 means for ever
}

func (o StopOptions) query() url.Values {
	q := url.Values{}
	if o.Signal != "" {
		q.Set("signal", o.Signal)
	}
	if o.Timeout != nil {
		q.Set("t", strconv.Itoa(*o.Timeout))
	}
	return q
}

// ContainerStop stops a container.
func (c *Client) ContainerStop(ctx context.Context, ref string, o StopOptions) error {
	return c.call(ctx, "POST", "/containers/"+segment(ref)+"/stop", o.query(), nil, nil)
}

// ContainerRestart stops a container and starts it again.
func (c *Client) ContainerRestart(ctx context.Context, ref string, o StopOptions) error {
	return c.call(ctx, "POST", "/containers/"+segment(ref)+"/restart", o.query(), nil, nil)
}

// ContainerKill sends a signal, SIGKILL when signal is "".
func (c *Client) ContainerKill(ctx context.Context, ref, signal string) error {
	q := url.Values{}
	if signal != "" {
		q.Set("signal", signal)
	}
	return c.call(ctx, "POST", "/containers/"+segment(ref)+"/kill", q, nil, nil)
}

// RemoveOptions say what else goes with a container.
type RemoveOptions struct{ Force, Volumes, Link bool }

// ContainerRemove removes a container.
func (c *Client) ContainerRemove(ctx context.Context, ref string, o RemoveOptions) error {
	q := url.Values{}
	setFlag(q, "force", o.Force)
	setFlag(q, "v", o.Volumes)
	setFlag(q, "link", o.Link)
	return c.call(ctx, "DELETE", "/containers/"+segment(ref), q, nil, nil)
}

// ListOptions select containers.
type ListOptions struct {
	All     bool
	Size    bool
	Brief   bool // only what SummaryHead has
	Limit   int  // 0 means no limit
	Filters Filters
}

// ContainerList lists containers, newest first.
func (c *Client) ContainerList(ctx context.Context, o ListOptions) ([]Summary, error) {
	q := url.Values{}
	setFlag(q, "all", o.All)
	setFlag(q, "size", o.Size)
	if o.Limit > 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	o.Filters.query(q)
	if !o.Brief {
		return fetchList[Summary](ctx, c, "/containers/json", q)
	}
	q.Set("brief", "1") // our engine sends nothing else then
	heads, err := fetchList[SummaryHead](ctx, c, "/containers/json", q)
	list := make([]Summary, len(heads))
	for i := range heads {
		list[i].SummaryHead = heads[i]
	}
	return list, err
}

// ContainerInspect returns everything about a container as the engine wrote it.
func (c *Client) ContainerInspect(ctx context.Context, ref string, size bool) (json.RawMessage, error) {
	q := url.Values{}
	setFlag(q, "size", size)
	return fetch[json.RawMessage](ctx, c, "GET", "/containers/"+segment(ref)+"/json", q, nil)
}

// ContainerState returns what commands need to know of a container.
func (c *Client) ContainerState(ctx context.Context, ref string) (ContainerState, error) {
	return fetch[ContainerState](ctx, c, "GET", "/containers/"+segment(ref)+"/json", nil, nil)
}

// ContainerResize sets the size of a container's terminal.
func (c *Client) ContainerResize(ctx context.Context, ref string, height, width uint) error {
	return c.call(ctx, "POST", "/containers/"+segment(ref)+"/resize", size(height, width), nil, nil)
}

func size(height, width uint) url.Values {
	return url.Values{"h": {strconv.FormatUint(uint64(height), 10)}, "w": {strconv.FormatUint(uint64(width), 10)}}
}

// AttachOptions select what is attached.
type AttachOptions struct {
	Stdin, Stdout, Stderr, Logs bool
	DetachKeys                  string
}

// BeginAttach asks for a stream to a container's standard streams.
func (c *Client) BeginAttach(ctx context.Context, ref string, o AttachOptions) (*Pending, error) {
	q := url.Values{"stream": {"1"}}
	setFlag(q, "stdin", o.Stdin)
	setFlag(q, "stdout", o.Stdout)
	setFlag(q, "stderr", o.Stderr)
	setFlag(q, "logs", o.Logs)
	if o.DetachKeys != "" {
		q.Set("detachKeys", o.DetachKeys)
	}
	return c.beginStream(ctx, &request{method: "POST", path: "/containers/" + segment(ref) + "/attach", query: q.Encode()})
}

// Conditions of BeginWait.
const (
	WaitNotRunning = "not-running"
	WaitNextExit   = "next-exit"
	WaitRemoved    = "removed"
)

// BeginWait asks for the exit status of a container.
func (c *Client) BeginWait(ctx context.Context, ref, condition string) (*Waiting, error) {
	q := url.Values{"condition": {condition}}
	x, err := c.begin(ctx, &request{method: "POST", path: "/containers/" + segment(ref) + "/wait", query: q.Encode()})
	if err != nil {
		return nil, err
	}
	return &Waiting{x: x}, nil
}

// Waiting is a wait that the engine has been asked for.
type Waiting struct {
	x *exchange
	a *answer
}

// Registered returns when the engine watches the container, so that an exit
// after it cannot be missed.
func (w *Waiting) Registered() error {
	if w.a != nil {
		return nil
	}
	a, err := w.x.finish()
	w.a = a
	return err
}

// Result returns how the container ended, once it has.
func (w *Waiting) Result() (WaitResponse, error) {
	var out WaitResponse
	if err := w.Registered(); err != nil {
		return out, err
	}
	text, err := io.ReadAll(w.a)
	if err != nil {
		_ = w.a.Close()
		return out, err
	}
	_ = w.a.Close()
	if json.Unmarshal(text, &out) != nil { // cut short: the engine died while it wrote
		return out, broken(nil)
	}
	if out.Error != nil && strings.Contains(out.Error.Message, "wait again") { // an engine that ends in good order
		return out, broken(nil)
	}
	return out, nil
}

// Abandon drops a wait that is no longer wanted.
func (w *Waiting) Abandon() { w.x.abandon() }

// LogsOptions select log entries. Since and Until are "" or Unix times with
// optional nanoseconds; Tail is "all" or a number.
type LogsOptions struct {
	Follow, Timestamps, Details bool
	Since, Until, Tail          string
}

// ContainerLogs copies a container's log to stdout and stderr.
func (c *Client) ContainerLogs(ctx context.Context, ref string, o LogsOptions, stdout, stderr io.Writer) error {
	q := url.Values{"stdout": {"1"}, "stderr": {"1"}}
	setFlag(q, "follow", o.Follow)
	setFlag(q, "timestamps", o.Timestamps)
	setFlag(q, "details", o.Details)
	for name, value := range map[string]string{"since": o.Since, "until": o.Until, "tail": o.Tail} {
		if value != "" {
			q.Set(name, value)
		}
	}
	a, err := c.do(ctx, &request{method: "GET", path: "/containers/" + segment(ref) + "/logs", query: q.Encode()})
	if err != nil {
		return err
	}
	defer a.Close()
	framed, known := multiplexed(a.header.Get("content-type"))
	if !known {
		state, err := c.ContainerState(ctx, ref)
		if err != nil {
			return err
		}
		framed = !state.Config.Tty
	}
	if framed {
		return Demultiplex(stdout, stderr, a)
	}
	_, err = io.Copy(stdout, struct{ io.Reader }{a})
	return err
}

// ExecCreate prepares a process in a running container and returns its id.
func (c *Client) ExecCreate(ctx context.Context, ref string, req *ExecRequest) (string, error) {
	out, err := fetch[struct {
		ID string `json:"Id"`
	}](ctx, c, "POST", "/containers/"+segment(ref)+"/exec", nil, req)
	return out.ID, err
}

// ExecStart starts a prepared process and returns its streams.
func (c *Client) ExecStart(ctx context.Context, id string, req ExecStartRequest) (*Stream, error) {
	rq := &request{method: "POST", path: "/exec/" + segment(id) + "/start"}
	if err := rq.json(req); err != nil {
		return nil, err
	}
	p, err := c.beginStream(ctx, rq)
	if err != nil {
		return nil, err
	}
	return p.Stream()
}

// ExecStartDetached starts a prepared process and leaves it alone.
func (c *Client) ExecStartDetached(ctx context.Context, id string, req ExecStartRequest) error {
	req.Detach = true
	return c.call(ctx, "POST", "/exec/"+segment(id)+"/start", nil, req, nil)
}

// ExecState returns whether a process still runs, and how it ended.
func (c *Client) ExecState(ctx context.Context, id string) (ExecState, error) {
	return fetch[ExecState](ctx, c, "GET", "/exec/"+segment(id)+"/json", nil, nil)
}

// ExecResize sets the size of a process's terminal.
func (c *Client) ExecResize(ctx context.Context, id string, height, width uint) error {
	return c.call(ctx, "POST", "/exec/"+segment(id)+"/resize", size(height, width), nil, nil)
}

func setFlag(q url.Values, name string, on bool) {
	if on {
		q.Set(name, "1")
	}
}
