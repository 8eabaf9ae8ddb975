package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"

	"berth/internal/build"
	"berth/internal/build/dockerfile"
	"berth/internal/build/graph"
	"berth/internal/build/solve"
	"berth/internal/build/source"
	"berth/internal/build/tree"
	"berth/internal/engine/builds"
	"berth/internal/engine/filter"
	"berth/internal/fault"
	"berth/internal/wire"

	api "github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// buildEngine is what the endpoints about builds call.
type buildEngine interface {
	Build(ctx context.Context, req build.Request, o builds.Options) (*build.Result, error)
	BuildReceive(ctx context.Context, sent source.Sent) (*source.Incoming, error)
	BuildFiles(ctx context.Context, res *build.Result, split bool, w io.Writer) error
	BuildShell(ctx context.Context, failed solve.Step, o builds.ShellOptions, conn *os.File) error
	BuildShellResize(ctx context.Context, failed solve.Step, height, width uint16) error
	BuildHistory() *build.History
	BuildCache(ctx context.Context, f filter.Set) ([]api.CacheRecord, error)
	BuildPrune(ctx context.Context, o builds.PruneOptions) (*api.CachePruneReport, error)
}

type connKey struct{}

// ConnContext lets handlers know who is at the other end; servers of an API have
// it as their ConnContext.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// caller returns whose rights apply to files that the client names, nil for
// root's (SO_PEERCRED and SO_PEERGROUPS, unix(7)). Only who shares the machine
// can name files: others get an error.
func (x *exchange) caller() (*tree.Credentials, error) {
	conn := x.r.Context().Value(connKey{})
	if w, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = w.NetConn()
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, fault.New(fault.Forbidden, "", "", "only clients on a unix socket may name files of the engine's machine").
			WithHint("send the build context as an archive")
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return nil, fault.New(fault.Internal, "ask who the client is", "", "%w", err)
	}
	var cred *unix.Ucred
	var groups []uint32
	cerr := raw.Control(func(fd uintptr) {
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			groups, err = peerGroups(int(fd))
		}
	})
	if err = errors.Join(cerr, err); err != nil {
		return nil, fault.New(fault.Internal, "ask who the client is", "", "%w", err)
	}
	if cred.Uid == 0 {
		return nil, nil
	}
	return &tree.Credentials{UID: cred.Uid, GID: cred.Gid, Groups: groups}, nil
}

// startBuild is POST /berth/build; see wire.BuildRequest.
func startBuild(x *exchange) error {
	// Events are told while the archive still comes.
	if err := http.NewResponseController(x.ResponseWriter).EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fault.Wrap("build", "", err)
	}
	body := bufio.NewReaderSize(x.r.Body, 64<<10)
	doc, err := readLine(body, wire.MaxBuildRequest)
	if err != nil {
		return err
	}
	var w wire.BuildRequest
	if err := decodeStrict(doc, &w); err != nil {
		return err
	}
	req, err := x.buildRequest(&w)
	if err != nil {
		return err
	}
	if req.Contents = body; w.Archive {
		req.Archive = body
	}
	x.Header()["Content-Type"] = jsonType
	s := newStream(x, true)
	t := &buildTeller{out: s}
	req.Progress = t.event
	req.Secrets = &secrets{values: w.Secrets, ssh: w.SSH, agents: &x.api.agents, tell: t.tell}
	auths := map[string]registry.AuthConfig{}
	for key, a := range w.Auths {
		auths[key] = registry.AuthConfig(a)
	}
	res, err := x.api.engine.Build(x.ctx(), *req, builds.Options{
		Auth: func(ref string) registry.AuthConfig { return authFor(auths, ref) }, CacheFrom: w.CacheFrom, CacheTo: w.CacheTo,
		Blob: func(ctx context.Context, entry int, d digest.Digest) (io.ReadCloser, error) {
			return x.api.blobs.ask(ctx, func(id string) error {
				return t.tell(wire.BuildEvent{Kind: wire.BuildWanted, Entry: entry, Name: d.String(), Shell: id})
			})
		},
		CacheData: func(entry int) io.Writer {
			return dataWriter{t, wire.BuildEvent{Kind: wire.BuildCacheData, Entry: entry}}
		},
	})
	defer res.Release()
	if err == nil && w.Files {
		err = x.api.engine.BuildFiles(x.ctx(), res, w.SplitFiles, dataWriter{t, wire.BuildEvent{Kind: wire.BuildFiles}})
	}
	if failed := failedStep(err); failed != nil {
		x.api.shells.offer(x.ctx(), failed, func(id string) {
			e := failedBuild(err)
			e.Shell = id
			_ = t.tell(e)
		})
	} else {
		t.end(res, err)
	}
	_ = s.finish() // a client that is gone does not hear the end
	return nil
}

// readLine reads up to a newline.
func readLine(r *bufio.Reader, most int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > most:
			return nil, fault.New(fault.Invalid, "", "", "the build request is larger than %d MiB", most>>20)
		case err == nil, err == io.EOF && len(line) > 0:
			return bytes.TrimSpace(line), nil
		case err != bufio.ErrBufferFull:
			return nil, fault.New(fault.Invalid, "read build request", "", "%w", err)
		}
	}
}

func (x *exchange) buildRequest(w *wire.BuildRequest) (*build.Request, error) {
	req := &build.Request{
		ContextDir: w.ContextDir, Remote: w.Remote, Sent: w.Sent, ContextName: w.ContextName, Dockerfile: w.Dockerfile, Text: w.Text, Tags: w.Tags, Target: w.Target,
		Args: w.Args, Labels: w.Labels, Annotations: w.Annotations, Attests: w.Attests, Contexts: w.Contexts, Allow: w.Allow, Network: w.Network, Hosts: w.Hosts,
		Limits: limits(w.Limits), Pull: w.Pull, NoCache: w.NoCache, NoCacheOnly: w.NoCacheOnly,
		InlineCache: w.InlineCache, Reproducible: w.Reproducible, Check: w.Check, KeepFailed: w.DebugShell, FilesOnly: w.Files, Version: "berth",
	}
	for _, text := range w.Platforms {
		if text == "local" { // this machine's, as the builder fills it in
			req.Platforms = append(req.Platforms, ocispec.Platform{})
			continue
		}
		p, err := parsePlatform(text)
		if err != nil {
			return nil, err
		}
		req.Platforms = append(req.Platforms, *p)
	}
	if w.ContextDir != "" || namesDirectories(w.Contexts) {
		var err error
		if req.Credentials, err = x.caller(); err != nil {
			return nil, err
		}
		if err := sameFiles(w.Seen); err != nil {
			return nil, err
		}
	}
	return req, nil
}

// limits turns limits into the builder's words.
func limits(l wire.BuildLimits) graph.Limits {
	out := graph.Limits{
		Memory: l.Memory, MemorySwap: l.MemorySwap, ShmSize: l.ShmSize, CPUShares: l.CPUShares, CPUPeriod: l.CPUPeriod, CPUQuota: l.CPUQuota,
		CPUSetCPUs: l.CpusetCpus, CPUSetMs: l.CpusetMems, CgroupParent: l.CgroupParent,
	}
	for _, u := range l.Ulimits {
		out.Ulimits = append(out.Ulimits, graph.Ulimit(u))
	}
	return out
}

// sameFiles reports whether engine and client see the same directories.
func sameFiles(seen map[string]string) error {
	for path, id := range seen {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || wire.FileID(st.Dev, st.Ino) != id {
			return fault.New(fault.Conflict, "find", path, "the engine sees another directory there than the client").
				WithHint("send the files: one of both is in a container, or the connection is forwarded")
		}
	}
	return nil
}

// namesDirectories reports whether one of the named contexts is a directory, or is
// in one.
func namesDirectories(contexts map[string]string) bool {
	for _, value := range contexts {
		if strings.HasPrefix(strings.TrimPrefix(value, "oci-layout://"), "/") {
			return true
		}
	}
	return false
}

// buildTeller writes the events of a build.
type buildTeller struct {
	mu  sync.Mutex // guards out
	out io.Writer
}

func (t *buildTeller) tell(e wire.BuildEvent) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	_, err = t.out.Write(append(line, '\n'))
	return err
}

var buildKinds = map[solve.EventKind]string{
	solve.Planned: wire.BuildPlanned, solve.Started: wire.BuildStarted, solve.Cached: wire.BuildCached, solve.Done: wire.BuildDone,
	solve.Errored: wire.BuildErrored, solve.Output: wire.BuildOutput, solve.Progress: wire.BuildProgress, solve.Warned: wire.BuildWarning,
}

func (t *buildTeller) event(e build.Event) {
	w := wire.BuildEvent{
		Kind: buildKinds[e.Kind], Time: e.Time, Step: e.Vertex, Name: e.Name, Stage: e.Stage, Inputs: e.Inputs, Line: e.Lines.Start,
		Stream: e.Stream, Data: e.Data, Why: e.Why, Current: e.Current, Total: e.Total, Send: e.Send, Message: e.Message,
	}
	if e.Err != nil {
		w.Message = e.Err.Error()
	}
	if e.Warning != nil {
		w.Rule, w.URL, w.Detail, w.Excerpt = e.Warning.Rule, e.Warning.URL, e.Warning.Description, e.Warning.Excerpt
	}
	_ = t.tell(w) // a client that is gone ends the build by its context
}

// end tells how the build ended.
func (t *buildTeller) end(res *build.Result, err error) {
	if err != nil {
		_ = t.tell(failedBuild(err))
		return
	}
	b := &wire.Build{ID: res.ID, Config: res.Config, Platforms: res.Platforms()}
	if res.Image != nil {
		b.ImageID = res.Name().String()
	}
	if res.Top != nil {
		b.Top = &wire.BuildDocument{MediaType: res.Top.MediaType, Digest: res.Top.Digest.String(), Size: res.Top.Size, Annotations: res.Top.Annotations}
	}
	_ = t.tell(wire.BuildEvent{Kind: wire.BuildResult, Result: b})
}

func failedBuild(err error) wire.BuildEvent {
	e := wire.BuildEvent{Kind: wire.BuildFailed, Message: err.Error()}
	if f := (*fault.Error)(nil); errors.As(err, &f) && f.Hint != "" {
		plain := *f
		plain.Hint = ""
		e.Message, e.Hint = strings.Replace(e.Message, f.Error(), plain.Error(), 1), f.Hint
	}
	if mistake := (*dockerfile.Error)(nil); errors.As(err, &mistake) {
		e.Excerpt, e.Line = mistake.Excerpt(), mistake.Line
	}
	if f := (*build.Failure)(nil); errors.As(err, &f) {
		e.Excerpt, e.Line = f.Excerpt, f.Lines.Start
		e.Failure = &wire.BuildFailure{
			Step: f.Name, Args: f.Args, Env: f.Env, Dir: f.Dir, User: f.User, Code: f.Exit.Code, OOM: f.Exit.OOMKilled, Tail: f.Tail,
		}
	}
	return e
}

// dataWriter sends an archive as events.
type dataWriter struct {
	t *buildTeller
	e wire.BuildEvent
}

func (w dataWriter) Write(p []byte) (int, error) {
	w.e.Data = p
	if err := w.t.tell(w.e); err != nil {
		return 0, err
	}
	return len(p), nil
}
