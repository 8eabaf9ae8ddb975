package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"berth/internal/build"
	"berth/internal/build/solve"
	"berth/internal/engine/builds"
	"berth/internal/fault"
	"berth/internal/wire"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// routesBuild are the endpoints for builds.
var routesBuild = []route{
	{"POST /build", buildImage},
	{"POST /build/cancel", cancelBuild},
	{"POST /build/prune", pruneBuilds},
	{"POST /berth/build", startBuild},
	{"POST /berth/build/context", buildContext},
	{"POST /berth/build/blob", supplyBlob},
	{"POST /berth/build/agent", buildAgent},
	{"POST /berth/build/shell", buildShell},
	{"POST /berth/build/shell/resize", resizeBuildShell},
	{"GET /berth/build/cache", buildCache},
	{"GET /berth/builds", listBuilds},
	{"GET /berth/builds/{id}", inspectBuild},
	{"DELETE /berth/builds/{id}", removeBuild},
	{"GET /berth/builds/{id}/logs", buildLogs},
	{"GET /berth/builds/{id}/trace", buildTrace},
}

// buildImage is docker's build: the context is the body, or what remote names,
// and everything else is in the query.
func buildImage(x *exchange) error {
	req, err := x.classicRequest()
	if err != nil {
		return err
	}
	from, err := x.classicCaches()
	if err != nil {
		return err
	}
	all, err := x.registryConfig()
	if err != nil {
		return err
	}
	if err := http.NewResponseController(x.ResponseWriter).EnableFullDuplex(); err != nil {
		x.api.log.Debug("no full duplex", "error", err)
	}
	ctx, cancel := context.WithCancelCause(x.ctx())
	defer cancel(nil)
	if id := x.query("buildid"); id != "" {
		if !x.api.builds.add(id, cancel) {
			return fault.New(fault.Conflict, "", "", "a build %q is running", id)
		}
		defer x.api.builds.remove(id)
	}
	return x.report(func(out io.Writer) error {
		c := &classic{out: out, quiet: x.flag("q"), by: map[int]*section{}}
		req.Progress = c.event
		res, err := x.api.engine.Build(ctx, *req, builds.Options{
			Auth: func(ref string) registry.AuthConfig { return authFor(all, ref) }, CacheFrom: from,
		})
		defer res.Release()
		c.rest()
		if f := (*build.Failure)(nil); errors.As(err, &f) {
			c.failed(f)
			return nil
		}
		if err == nil {
			c.result(res, req.Tags)
		}
		return err
	})
}

// classicRequest reads docker's query. What has no meaning here is refused by
// name; rm and forcerm hold anyway, since a step leaves no container.
func (x *exchange) classicRequest() (*build.Request, error) {
	switch v := x.query("version"); v {
	case "", "1":
	default:
		return nil, fault.New(fault.Unsupported, "", "", "BuildKit's session protocol is not offered by this engine").
			WithHint("use berth build, or set DOCKER_BUILDKIT=0")
	}
	for _, key := range []string{"squash", "outputs", "securityopt"} {
		if v := x.query(key); v != "" && v != "[]" && v != "null" && (key != "squash" || x.flag(key)) {
			return nil, fault.New(fault.Unsupported, "", "", "the build option %q is not offered by this engine", key)
		}
	}
	if v := x.query("isolation"); v != "" && v != "default" {
		return nil, fault.New(fault.Unsupported, "", "", "isolation %q is not offered by this engine", v)
	}
	req := &build.Request{
		Dockerfile: x.query("dockerfile"), Tags: x.queries("t"), Target: x.query("target"), NoCache: x.flag("nocache"), Pull: x.flag("pull"),
		Network: x.query("networkmode"), Version: "docker",
	}
	if remote := x.query("remote"); remote == "client-session" {
		return nil, fault.New(fault.Unsupported, "", "", "build sessions are not offered by this engine")
	} else if remote != "" {
		req.Remote = remote
	} else {
		req.Archive = x.r.Body
	}
	for _, h := range strings.Split(x.query("extrahosts"), ",") {
		if h != "" {
			req.Hosts = append(req.Hosts, h)
		}
	}
	if req.Network == "bridge" {
		req.Network = "default"
	}
	if req.Network == "host" {
		req.Allow = []string{"network.host"} // docker's own builder asks nobody
	}
	platform, err := x.platform(32)
	if err != nil {
		return nil, err
	}
	if platform != nil {
		req.Platforms = []ocispec.Platform{*platform}
	}
	return req, x.classicMaps(req)
}

// classicMaps reads the parameters that are JSON or numbers.
func (x *exchange) classicMaps(req *build.Request) error {
	var args map[string]*string
	var ulimits []*container.Ulimit
	for _, p := range []struct {
		key string
		to  any
	}{{"buildargs", &args}, {"labels", &req.Labels}, {"ulimits", &ulimits}} {
		if v := x.query(p.key); v != "" {
			if err := json.Unmarshal([]byte(v), p.to); err != nil {
				return badQuery(p.key, v, "is not JSON of the right form")
			}
		}
	}
	req.Args = map[string]string{}
	for k, v := range args {
		if v != nil {
			req.Args[k] = *v
		}
	}
	var r container.Resources
	var shm int64
	for _, p := range []struct {
		key string
		to  *int64
	}{{"memory", &r.Memory}, {"memswap", &r.MemorySwap}, {"cpushares", &r.CPUShares}, {"cpuperiod", &r.CPUPeriod}, {"cpuquota", &r.CPUQuota}, {"shmsize", &shm}} {
		if v := x.query(p.key); v != "" {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return badQuery(p.key, v, "is not a whole number")
			}
			*p.to = n
		}
	}
	r.CpusetCpus, r.CpusetMems, r.CgroupParent, r.Ulimits = x.query("cpusetcpus"), x.query("cpusetmems"), x.query("cgroupparent"), ulimits
	req.Limits = builds.Limits(r, shm)
	return nil
}

// classicCaches reads cachefrom: names of images, as JSON.
func (x *exchange) classicCaches() ([]wire.BuildCacheFrom, error) {
	v := x.query("cachefrom")
	if v == "" {
		return nil, nil
	}
	var names []string
	if err := json.Unmarshal([]byte(v), &names); err != nil {
		return nil, badQuery("cachefrom", v, "is not JSON of the right form")
	}
	var out []wire.BuildCacheFrom
	for _, name := range names {
		out = append(out, wire.BuildCacheFrom{Ref: name, Here: true, Only: true})
	}
	return out, nil
}

// running are the builds that a client may cancel by the name it gave them.
type running struct {
	mu sync.Mutex // guards by
	by map[string]context.CancelCauseFunc
}

func (r *running) add(id string, cancel context.CancelCauseFunc) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by == nil {
		r.by = map[string]context.CancelCauseFunc{}
	}
	if r.by[id] != nil {
		return false
	}
	r.by[id] = cancel
	return true
}

func (r *running) remove(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.by, id)
}

// cancelBuild ends a build; one that is over is no error, as in docker.
func cancelBuild(x *exchange) error {
	id := x.query("id")
	if id == "" {
		return fault.New(fault.Invalid, "", "", "the parameter id is missing")
	}
	x.api.builds.mu.Lock()
	cancel := x.api.builds.by[id]
	x.api.builds.mu.Unlock()
	if cancel != nil {
		cancel(fault.New(fault.Canceled, "build", id, "canceled"))
	}
	return x.done(http.StatusOK)
}

// classic tells a build the way docker's first builder does, step after step in
// the order of the Dockerfile. Ours runs steps at the same time: what a later one
// writes is held back until those before it are over.
type classic struct {
	out   io.Writer
	quiet bool
	by    map[int]*section
	order []*section // those of the Dockerfile, by their lines
	told  int        // how many of order are over
}

// section is what is told about one step.
type section struct {
	title  string
	line   int
	inputs []int
	held   strings.Builder
	state  sectionState
	shown  bool // the title was told
}

type sectionState int

const (
	sectionWaits sectionState = iota
	sectionRuns
	sectionOver
)

func (c *classic) stream(text string) {
	if !c.quiet {
		c.line(jsonstream.Message{Stream: text})
	}
}

func (c *classic) line(m jsonstream.Message) {
	if line, err := json.Marshal(m); err == nil {
		_, _ = c.out.Write(append(line, '\r', '\n'))
	}
}

// event implements build.Request.Progress.
func (c *classic) event(e build.Event) {
	switch e.Kind {
	case solve.Planned:
		c.plan(e)
		return
	case solve.Warned:
		c.stream("[Warning] " + e.Message + "\n")
		return
	case solve.Progress:
		if e.Vertex == 0 && e.Total == 0 && e.Message == "" {
			c.stream("Pulling " + e.Name + "\n")
		}
		return
	}
	s := c.by[e.Vertex]
	if s == nil {
		return
	}
	switch e.Kind {
	case solve.Started:
		s.state = sectionRuns
		c.notNeeded(s)
	case solve.Cached:
		s.state = sectionOver
		s.held.WriteString(" ---> Using cache\n")
		c.notNeeded(s)
	case solve.Output:
		s.held.Write(e.Data)
	case solve.Done, solve.Errored:
		s.state = sectionOver
	}
	c.flush()
}

func (c *classic) plan(e build.Event) {
	s := &section{title: e.Name, line: e.Lines.Start, inputs: e.Inputs}
	if _, text, ok := strings.Cut(e.Name, "] "); ok {
		s.title = text
	}
	c.by[e.Vertex] = s
	if !strings.HasPrefix(e.Name, "[internal]") {
		c.order = append(c.order, s)
		slices.SortStableFunc(c.order, func(a, b *section) int { return a.line - b.line })
	}
}

// notNeeded ends the steps before s that never ran: s goes on without them.
func (c *classic) notNeeded(s *section) {
	for _, id := range s.inputs {
		if in := c.by[id]; in != nil && in.state == sectionWaits {
			in.state = sectionOver
			c.notNeeded(in)
		}
	}
}

// flush tells what can be told.
func (c *classic) flush() {
	for ; c.told < len(c.order); c.told++ {
		s := c.order[c.told]
		if s.state == sectionWaits {
			return
		}
		c.section(c.told, s)
		if s.state != sectionOver {
			return
		}
	}
}

func (c *classic) section(i int, s *section) {
	if !s.shown {
		s.shown = true
		c.stream(fmt.Sprintf("Step %d/%d : %s\n", i+1, len(c.order), s.title))
	}
	if text := s.held.String(); text != "" {
		c.stream(text)
		s.held.Reset()
	}
}

// rest tells what was held back when a build is over.
func (c *classic) rest() {
	for i := c.told; i < len(c.order); i++ {
		if s := c.order[i]; s.state != sectionWaits {
			c.section(i, s)
		}
	}
	c.told = len(c.order)
}

// failed tells of a step whose program failed. docker's clients end with its code.
func (c *classic) failed(f *build.Failure) {
	text := fmt.Sprintf("The command '%s' returned a non-zero code: %d", strings.Join(f.Args, " "), f.Exit.Code)
	if f.Exit.OOMKilled {
		text += " (it used more memory than it may)"
	}
	line, err := json.Marshal(map[string]any{"errorDetail": jsonstream.Error{Code: f.Exit.Code, Message: text}, "error": text})
	if err == nil {
		_, _ = c.out.Write(append(line, '\r', '\n'))
	}
}

// result tells what was built.
func (c *classic) result(res *build.Result, tags []string) {
	id := res.Image.ID.String()
	if c.quiet {
		c.line(jsonstream.Message{Stream: id + "\n"})
		return
	}
	aux, _ := json.Marshal(map[string]string{"ID": id})
	c.line(jsonstream.Message{Aux: (*json.RawMessage)(&aux)})
	c.stream("Successfully built " + res.Image.ID.Encoded()[:12] + "\n")
	for _, t := range tags {
		if !strings.Contains(t[strings.LastIndexByte(t, '/')+1:], ":") {
			t += ":latest"
		}
		c.stream("Successfully tagged " + t + "\n")
	}
}
