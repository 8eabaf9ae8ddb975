package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"berth/internal/cli/buildview"
	"berth/internal/cli/spec"
	"berth/internal/cli/terminal"
	"berth/internal/client"
	"berth/internal/fault"
	"berth/internal/wire"
)

const buildExample = `  berth build -t app:1 .
  berth build --target test --build-arg VERSION=2 --why .
  berth build -o out https://github.com/owner/app.git#v1
  berth build history ls        berth build cache du`

// buildFlags are the flags of build.
type buildFlags struct {
	set *pflag.FlagSet

	tags, args, labels, annotations  []string
	file, target                     string
	platforms                        []string
	secrets, ssh, allow, hosts       []string
	contexts, cacheFrom, cacheTo     []string
	outputs                          []string
	noCache, pull, push, load, quiet bool
	noCacheFilter                    []string
	network, progress, call          string
	iidFile, metadataFile            string
	check, why, reproducible         bool
	debugShell                       bool
	limits                           spec.BuildLimits

	securityOpt, attest                  []string
	squash, compress, rm, forceRm, trust bool
	isolation, provenance, sbom, builder string
}

func buildBuild(a *app, cmd *cobra.Command) {
	f := &buildFlags{set: cmd.Flags()}
	f.register(cmd.Flags())
	cmd.Args = exactly(1, "a directory with a Dockerfile, an address, or - for standard input")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, stop := interruptible(cmd.Context())
		defer stop()
		err := a.runBuild(ctx, f, args[0])
		if err != nil && ctx.Err() != nil {
			return &exit{codeInterrupted, fault.New(fault.Canceled, "", "", "the build was cancelled")}
		}
		return err
	}
	for _, name := range []string{"history", "cache"} {
		cmd.AddCommand(a.command(lookUp("build "+name), name))
	}
}

// codeInterrupted is what shells report for a program that SIGINT ended.
const codeInterrupted = 130

// interruptible returns a context that ends with the first SIGINT or SIGTERM; the
// second one ends the program.
func interruptible(parent context.Context) (context.Context, context.CancelFunc) {
	if parent == nil {
		parent = context.Background()
	}
	ctx, stop := signal.NotifyContext(parent, syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

func (f *buildFlags) register(fs *pflag.FlagSet) {
	spec.List(fs, &f.tags, "tag", "t", "`NAME` name the image: app, app:1, registry/team/app:1")
	fs.StringVarP(&f.file, "file", "f", "", "`FILE` the Dockerfile (DIR/Dockerfile); - reads it from standard input")
	spec.List(fs, &f.args, "build-arg", "", "`NAME[=VALUE]` set an ARG, or pass the caller's variable on")
	fs.StringVar(&f.target, "target", "", "`STAGE` build up to this stage")
	spec.List(fs, &f.platforms, "platform", "", "`OS/ARCH[,...]` build for it; several give one image for all of them")
	fs.BoolVar(&f.noCache, "no-cache", false, "run every step again")
	spec.List(fs, &f.noCacheFilter, "no-cache-filter", "", "`STAGE` run the steps of this stage again")
	fs.BoolVar(&f.pull, "pull", false, "ask registries for newer base images")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "print the image's id alone")
	fs.StringVar(&f.progress, "progress", "", "`HOW` auto, tty, plain, rawjson or quiet (auto; BUILDKIT_PROGRESS)")
	fs.BoolVar(&f.why, "why", false, "say of each step why it was run, or that it was found")
	fs.BoolVar(&f.check, "check", false, "look for mistakes in the Dockerfile and build nothing")
	fs.BoolVar(&f.debugShell, "debug-shell", false, "when a step fails, open a shell in its root, with its mounts and variables")
	fs.StringVar(&f.call, "call", "", "`METHOD` build or check")
	spec.List(fs, &f.contexts, "build-context", "", "`NAME=WHERE` another directory, docker-image://NAME, oci-layout://DIR[:TAG|@DIGEST], or address")
	spec.List(fs, &f.secrets, "secret", "", "`SECRET` id=NAME[,src=FILE|env=VARIABLE] for RUN --mount=type=secret")
	spec.List(fs, &f.ssh, "ssh", "", "`AGENT` default, NAME=SOCKET or NAME=KEYFILE for RUN --mount=type=ssh")
	spec.List(fs, &f.allow, "allow", "", "`RIGHT` let steps have network.host or security.insecure")
	fs.StringVar(&f.network, "network", "", "`MODE` network of RUN: default, none or host")
	spec.List(fs, &f.hosts, "add-host", "", "`NAME:ADDRESS` make it known to steps")

	spec.List(fs, &f.outputs, "output", "o", "`WHERE` a directory, -, or type=image|local|tar|oci|docker|registry,dest=..")
	fs.BoolVar(&f.push, "push", false, "push the image when it is built")
	fs.BoolVar(&f.load, "load", false, "keep the image in the engine; it always is kept there")
	fs.StringVar(&f.iidFile, "iidfile", "", "`FILE` write the image's id to it")
	fs.StringVar(&f.metadataFile, "metadata-file", "", "`FILE` write what was built to it, as JSON")
	spec.List(fs, &f.labels, "label", "", "`NAME=VALUE` label the image")
	spec.List(fs, &f.annotations, "annotation", "", "`[LEVEL:]NAME=VALUE` annotate its manifest, or manifest[OS/ARCH],index,..")
	fs.StringVar(&f.provenance, "provenance", "", "`HOW` attach what the image was made of: true, mode=min, mode=max or false (false)")
	spec.List(fs, &f.attest, "attest", "", "`WHAT` attach it: type=provenance[,mode=min|max,version=v1|v0.2,builder-id=..]")
	fs.BoolVar(&f.reproducible, "reproducible", false, "set all times to SOURCE_DATE_EPOCH, or 0: the same digest everywhere")
	spec.List(fs, &f.cacheFrom, "cache-from", "", "`CACHE` take steps from elsewhere: NAME, type=registry,ref=NAME or type=local,src=DIR")
	spec.List(fs, &f.cacheTo, "cache-to", "", "`CACHE` give steps away: type=inline, type=registry,ref=NAME or type=local,dest=DIR; mode=max, mounts=true")

	f.limits.Register(fs)
	f.registerForDocker(fs)
}

// registerForDocker adds flags that docker's users may have in their scripts: what
// has no effect here because there is nothing to be had, and what is refused.
func (f *buildFlags) registerForDocker(fs *pflag.FlagSet) {
	fs.BoolVar(&f.compress, "compress", false, "")
	fs.BoolVar(&f.rm, "rm", true, "")
	fs.BoolVar(&f.forceRm, "force-rm", false, "")
	fs.BoolVar(&f.trust, "disable-content-trust", true, "")
	fs.StringVar(&f.builder, "builder", "", "")
	fs.StringVar(&f.isolation, "isolation", "", "")
	fs.BoolVar(&f.squash, "squash", false, "")
	fs.StringVar(&f.sbom, "sbom", "", "")
	spec.List(fs, &f.securityOpt, "security-opt", "", "")
	for _, name := range []string{"compress", "rm", "force-rm", "disable-content-trust", "builder", "isolation", "squash",
		"sbom", "security-opt", "call"} {
		_ = fs.MarkHidden(name)
	}
}

// runBuild builds what the flags say, from the context that source names.
func (a *app) runBuild(ctx context.Context, f *buildFlags, source string) error {
	outputs, err := f.exporters()
	if err != nil {
		return err
	}
	rq, err := f.request()
	if err != nil {
		return err
	}
	c, err := a.engine()
	if err != nil {
		return err
	}
	if rq.DebugShell = f.debugShell; f.debugShell && (!terminal.Is(a.in) || terminalOf(a.out) == nil) {
		return wrong("--debug-shell needs a terminal")
	}
	from, err := a.openContext(f, source, rq, c)
	if err != nil {
		return err
	}
	defer from.close()
	places, err := a.caches(f, rq)
	if err != nil {
		return err
	}
	defer places.close()
	agents, err := openAgents(f.ssh)
	if err != nil {
		return err
	}
	defer agents.close()
	rq.SSH = agents.ids()
	rq.Auths = a.allAuths(ctx)
	mode, err := f.mode()
	if err != nil {
		return err
	}
	b := &building{app: a, flags: f, client: c, request: rq, from: from, agents: agents, caches: places, started: time.Now()}
	return b.run(ctx, mode, outputs)
}

func (f *buildFlags) mode() (buildview.Mode, error) {
	how := f.progress
	if how == "" {
		how = os.Getenv("BUILDKIT_PROGRESS")
	}
	if f.quiet {
		how = "quiet"
	}
	switch how {
	case "", "auto":
		return buildview.Auto, nil
	case "plain", "tty", "rawjson", "quiet", "none":
		return buildview.Mode(how), nil
	}
	return "", wrong("--progress %q: use auto, tty, plain, rawjson or quiet", how)
}

// viewOptions describes where and how a build is shown.
func (a *app) viewOptions(mode buildview.Mode, b *building) buildview.Options {
	o := buildview.Options{
		Mode: mode, Out: a.err, Why: b.flags.why, Check: b.request.Check, File: b.from.file, Unicode: terminal.Unicode(),
	}
	if o.File == "" {
		o.File = "Dockerfile"
	}
	switch {
	case len(b.request.Tags) > 0:
		o.Title = b.request.Tags[0]
	case b.from.dir != "":
		o.Title = filepath.Base(b.from.dir)
	default:
		o.Title = b.request.Remote
	}
	if t := a.errTerminal(); t != nil {
		o.Terminal, o.Colour = true, terminal.Colours(t)
		o.Size = func() (int, int) {
			rows, columns, _ := terminal.Size(t)
			return int(rows), int(columns)
		}
	}
	return o
}

// building is one build.
type building struct {
	app     *app
	flags   *buildFlags
	client  *client.Client
	request *wire.BuildRequest
	from    *buildContext
	caches  *cachePlaces
	agents  *agents
	view    buildview.View
	started time.Time

	supplies sync.WaitGroup // of blobs to the engine

	result  *wire.Build
	pushed  *wire.BuildDocument // what the registry has, when it was pushed
	failure *wire.BuildEvent
	told    bool // all about the failure
	shown   bool // a first request for the same steps was
}

func (b *building) run(ctx context.Context, mode buildview.Mode, outputs []exporter) error {
	b.view = buildview.New(b.app.viewOptions(mode, b))
	images, files := split(outputs)
	if len(files) == 0 || len(images) > 0 || b.request.Check {
		if err := b.build(ctx, b.request, nil); err != nil {
			return b.close(err)
		}
	}
	for _, out := range files {
		if err := b.files(ctx, out); err != nil {
			return b.close(err)
		}
	}
	if err := b.close(nil); err != nil {
		return err
	}
	return b.deliver(ctx, images)
}

// build sends one request; files receives the archive that it may ask for.
func (b *building) build(ctx context.Context, rq *wire.BuildRequest, files func([]byte) error) error {
	event := func(e *wire.BuildEvent) error {
		switch e.Kind {
		case wire.BuildFiles:
			if files == nil {
				return nil
			}
			return files(e.Data)
		case wire.BuildCacheData:
			x := b.caches.to[e.Entry]
			if x == nil {
				return fault.New(fault.Invalid, "", "", "the engine sends a cache that nobody asked for")
			}
			_, err := x.Write(e.Data)
			return err
		case wire.BuildWanted:
			b.supply(ctx, e)
			return nil
		case wire.BuildAgent:
			go b.connect(ctx, e)
			return nil
		case wire.BuildResult:
			if b.result == nil || e.Result.ImageID != "" {
				b.result = e.Result
			}
		case wire.BuildFailed:
			b.failure = e
			if e.Shell != "" {
				return b.shell(ctx, e)
			}
		}
		if !b.shown || e.Kind == wire.BuildFailed {
			b.view.Event(e)
		}
		return nil
	}
	defer b.supplies.Wait()
	defer func() { b.shown = true }()
	if b.shown || rq.Check { // the first request sees to it
		rq.CacheTo = nil
	}
	err := b.send(ctx, rq, event)
	if conflict := (*client.Refusal)(nil); errors.As(err, &conflict) && conflict.Status == 409 && len(rq.Seen) > 0 {
		// The engine does not see our files.
		b.from.sendInstead(rq)
		err = b.send(ctx, rq, event)
	}
	switch {
	case err != nil && isMissing(err):
		return fault.New(fault.Unsupported, "", "", "the engine at %s does not know berth's builds", b.client.Endpoint()).
			WithHint("it is another engine: build with docker build")
	case err != nil:
		return err
	case b.failure != nil:
		return errBuildFailed
	case len(rq.CacheTo) > 0:
		return b.keepCaches()
	}
	return nil
}

// send sends the request with what follows it.
func (b *building) send(ctx context.Context, rq *wire.BuildRequest, event func(*wire.BuildEvent) error) error {
	body, err := b.from.body(ctx, b.client, rq, b.view)
	if err != nil {
		return err
	}
	return b.client.Build(ctx, rq, body, event)
}

// errBuildFailed stands for a failure of which the engine told all.
var errBuildFailed = errors.New("the build failed")

// close shows how the build ended.
func (b *building) close(err error) error {
	if b.told {
		return &exit{codeFailed, nil}
	}
	b.view.Close()
	if !errors.Is(err, errBuildFailed) {
		return err
	}
	return &exit{codeFailed, b.tell()}
}

// tell prints all about a failure, and returns the error that sums it up.
func (b *building) tell() error {
	if text := b.view.Failure(b.failure); text != "" {
		fmt.Fprint(b.app.err, text)
	}
	e := fault.New(fault.Invalid, "", "", "%s", b.failure.Message)
	if b.failure.Hint != "" {
		e = e.WithHint("%s", b.failure.Hint)
	}
	return withLoginHint("", e)
}

// shell tells of a failure and then gives the person a shell in the failed step.
func (b *building) shell(ctx context.Context, e *wire.BuildEvent) error {
	b.view.Close()
	b.app.complain(b.tell())
	b.told = true
	fmt.Fprintln(b.app.err, "This is the failed step; leave it with exit.")
	console := b.app.consoleSize()
	stream, err := b.client.BuildShell(ctx, e.Shell, console[0], console[1])
	if err != nil {
		return err
	}
	defer stream.Close()
	s := &session{app: b.app, stream: stream, tty: true, in: b.app.in, out: b.app.out, err: b.app.err, restore: func() {}}
	s.resize = func(rows, columns uint) { _ = b.client.BuildShellResize(ctx, e.Shell, rows, columns) }
	if err := s.copy(); err != nil && !client.Broken(err) && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
