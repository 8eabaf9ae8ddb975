package client

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/url"
	"strconv"
	"time"

	"berth/internal/fault"
	"berth/internal/wire"
	"berth/internal/wire/manifest"
)

// Build has the engine build what rq describes. archive is the build context
// when rq.Archive is set. event receives everything that happens, in order; its
// error ends the build. A build that fails does so in its last event: the error
// of Build itself is one of talking to the engine.
func (c *Client) Build(ctx context.Context, rq *wire.BuildRequest, archive io.Reader, event func(*wire.BuildEvent) error) error {
	head, err := json.Marshal(rq)
	if err != nil {
		return fault.New(fault.Internal, "encode build request", "", "%w", err)
	}
	head = append(head, '\n')
	send := &request{method: "POST", path: "/berth/build", contentType: "application/vnd.berth.build"}
	if archive != nil {
		send.stream = io.MultiReader(bytes.NewReader(head), archive)
	} else {
		send.body = head
	}
	a, err := c.do(ctx, send)
	if err != nil {
		return err
	}
	in := json.NewDecoder(a)
	over := false
	for {
		var e wire.BuildEvent
		err := in.Decode(&e)
		if err == io.EOF && over {
			_ = a.Close() // also when not all of the archive was wanted
			return nil
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err == nil {
			over = over || e.Kind == wire.BuildResult || e.Kind == wire.BuildFailed
			err = event(&e)
		} else if ctx.Err() != nil {
			err = ctx.Err()
		} else {
			err = transferFailed(send, a.exchange.streamFailure(err))
		}
		if err != nil {
			a.exchange.abandon()
			return err
		}
	}
}

// BuildContext tells the engine what is in a directory that it cannot read: see
// wire.BuildContext.
func (c *Client) BuildContext(ctx context.Context, head *wire.BuildContext, list []manifest.Entry) (wire.BuildContextAnswer, error) {
	var answer wire.BuildContextAnswer
	body, err := json.Marshal(head)
	if err != nil {
		return answer, fault.New(fault.Internal, "encode build context", "", "%w", err)
	}
	body = append(body, '\n')
	for i := range list {
		body = list[i].Append(body)
	}
	rq := &request{method: "POST", path: "/berth/build/context", contentType: "application/vnd.berth.context", body: body}
	return answer, c.callAs(ctx, rq, nil, &answer)
}

// BuildBlob sends a blob that a build asked for with BuildWanted, by the id of that
// event; nil says that there is none.
func (c *Client) BuildBlob(ctx context.Context, id string, blob io.Reader) error {
	q := url.Values{"id": {id}}
	setFlag(q, "missing", blob == nil)
	return c.callAs(ctx, &request{method: "POST", path: "/berth/build/blob", query: q.Encode(), stream: blob, contentType: "application/octet-stream"}, nil, nil)
}

// streamFailure prefers the reason why a streamed body could not be read over
// the broken answer that follows from it, if it is known by now.
func (x *exchange) streamFailure(err error) error {
	if x.sent != nil {
		select {
		case sent := <-x.sent:
			if sent != nil && !Broken(sent) {
				return sent
			}
		default:
		}
	}
	return err
}

// BuildShell opens a terminal in the root of a failed step. shell is from the event
// that told of the failure, while which Build waits.
func (c *Client) BuildShell(ctx context.Context, shell string, height, width uint) (*Stream, error) {
	q := size(height, width)
	q.Set("id", shell)
	p, err := c.beginStream(ctx, &request{method: "POST", path: "/berth/build/shell", query: q.Encode()})
	if err != nil {
		return nil, err
	}
	return p.Stream()
}

// BuildAgent turns a connection to the engine into one to an ssh agent, which
// whoever calls this connects. id is from the event that asked for it.
func (c *Client) BuildAgent(ctx context.Context, id string) (*Stream, error) {
	p, err := c.beginStream(ctx, &request{method: "POST", path: "/berth/build/agent", query: url.Values{"id": {id}}.Encode()})
	if err != nil {
		return nil, err
	}
	return p.Stream()
}

// BuildShellResize sets the size of such a terminal.
func (c *Client) BuildShellResize(ctx context.Context, shell string, height, width uint) error {
	q := size(height, width)
	q.Set("id", shell)
	return c.call(ctx, "POST", "/berth/build/shell/resize", q, nil, nil)
}

// BuildStep is a step of a build in the history.
type BuildStep struct {
	ID                int
	Name, Stage       string
	Lines             struct{ Start, End int }
	Key               string
	Cached, Shared    bool
	Why               string
	Started, Finished time.Time
	Size              int64 // bytes
	Error             string
	Skipped           bool
}

// BuildRecord is a build in the history.
type BuildRecord struct {
	ID, Name, Dockerfile, Context string
	Target, Platform              string
	Tags, Args                    []string
	Status, Error, Image          string
	Started, Finished             time.Time
	Steps                         []BuildStep
	Warnings                      []string
}

// Builds lists what was built, newest first.
func (c *Client) Builds(ctx context.Context) ([]BuildRecord, error) {
	return fetch[[]BuildRecord](ctx, c, "GET", "/berth/builds", nil, nil)
}

// BuildInspect returns all about one build, named by its id, the beginning of
// it, or "" for the newest.
func (c *Client) BuildInspect(ctx context.Context, id string) (json.RawMessage, error) {
	return fetch[json.RawMessage](ctx, c, "GET", "/berth/builds/"+url.PathEscape(orNewest(id)), nil, nil)
}

// NewestBuild names the newest build in paths of the API.
const NewestBuild = "newest"

func orNewest(id string) string {
	if id == "" {
		return NewestBuild
	}
	return id
}

// BuildRemove forgets a build.
func (c *Client) BuildRemove(ctx context.Context, id string) error {
	return c.call(ctx, "DELETE", "/berth/builds/"+url.PathEscape(id), nil, nil, nil)
}

// BuildLogs writes what the steps of a build wrote, each line after the number of
// its step.
func (c *Client) BuildLogs(ctx context.Context, id string, w io.Writer) error {
	return c.download(ctx, &request{method: "GET", path: "/berth/builds/" + url.PathEscape(orNewest(id)) + "/logs"}, w)
}

// BuildTrace writes the timeline of a build: form is "chrome" or "svg".
func (c *Client) BuildTrace(ctx context.Context, id, form string, w io.Writer) error {
	q := url.Values{"form": {form}}
	return c.download(ctx, &request{method: "GET", path: "/berth/builds/" + url.PathEscape(orNewest(id)) + "/trace", query: q.Encode()}, w)
}

// CacheRecord is one thing that the cache of builds keeps.
type CacheRecord struct {
	ID, Type, Description string
	InUse, Shared         bool
	Size                  int64 // bytes
	CreatedAt             time.Time
	LastUsedAt            *time.Time
	UsageCount            int
}

// BuildCache lists what the cache of builds keeps, the least recently used first.
func (c *Client) BuildCache(ctx context.Context, filters Filters) ([]CacheRecord, error) {
	q := url.Values{}
	filters.query(q)
	return fetch[[]CacheRecord](ctx, c, "GET", "/berth/build/cache", q, nil)
}

// CachePrune says what of the build cache goes.
type CachePrune struct {
	All bool // also what images have in common with it
	// Bytes; with none of them, everything goes. MaxUsed is what the cache may
	// take, MinFree what is to be free on its file system, and Reserved what the
	// cache may take whatever the others say.
	MaxUsed, MinFree, Reserved int64
	Filters                    Filters
}

// BuildPrune removes from the cache of builds.
func (c *Client) BuildPrune(ctx context.Context, o CachePrune) (PruneReport, error) {
	q := url.Values{}
	o.Filters.query(q)
	setFlag(q, "all", o.All)
	for key, n := range map[string]int64{"max-used-space": o.MaxUsed, "min-free-space": o.MinFree, "reserved-space": o.Reserved} {
		if n > 0 {
			q.Set(key, strconv.FormatInt(n, 10))
		}
	}
	return fetch[PruneReport](ctx, c, "POST", "/build/prune", q, nil)
}
