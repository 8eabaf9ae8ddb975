// Package dockerfile turns a Dockerfile into a graph of steps. It exists so that
// the language is in one place: BuildKit's own parser reads it, so nothing of it
// is missing, and what each instruction means is decided here, once, for the
// builder, for checks and for lists of targets.
//
// BuildKit's translation (dockerfile2llb) is not used: with it come its
// protocol, its session and its client, four times the packages of the parser.
package dockerfile

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/build/graph"
	"berth/internal/fault"
)

// MaxSize is how many bytes a Dockerfile may have.
const MaxSize = 4 << 20

// Images finds base images.
type Images interface {
	// Resolve returns the image that ref means for a platform, and fetches it
	// when that is needed. ref is a normalized name, an id or a short id.
	Resolve(ctx context.Context, ref string, platform ocispec.Platform) (Base, error)
}

// Base is an image to build on.
type Base struct {
	ID     digest.Digest
	Config v1.DockerOCIImage // with RootFS.DiffIDs
}

// ContextKind says what a named context is.
type ContextKind int

// The kinds of named contexts.
const (
	LocalContext ContextKind = iota // the caller's directory of that name
	ImageContext                    // Value is an image reference
	GitContext                      // Value is an address that gitref reads
	HTTPContext                     // Value is the URL of a file or archive
)

// NamedContext stands in for a stage or an image of its name.
type NamedContext struct {
	Kind  ContextKind
	Value string
}

// Options says how to translate. Platform is required.
type Options struct {
	File     string // name of the Dockerfile, for messages
	Target   string // stage; "" is the last
	Args     map[string]string
	Labels   map[string]string
	Platform ocispec.Platform // of the result
	// PlatformGiven tells that the user asked for Platform.
	PlatformGiven bool
	Build         ocispec.Platform // of this machine; zero is Platform
	MultiPlatform bool             // names of steps begin with the platform

	NoCache       bool
	NoCacheFilter []string // stages whose steps run although they are cached

	Network  string // of RUN without --network: "", "none", "host"
	Hosts    []string
	Hostname string
	Limits   graph.Limits

	// HostNetwork and Insecure allow RUN --network=host and --security=insecure.
	HostNetwork, Insecure bool

	Images   Images // nil: base images are taken as empty, for checks
	Contexts map[string]NamedContext
	// Ignored reports whether the context leaves a path out; nil: nothing.
	Ignored func(path string) bool
	// AllStages translates stages that the target does not need, for checks.
	AllStages bool
	// CheckRules takes the place of the file's check directive.
	CheckRules string
	// CacheNamespace keeps cache mounts apart from others of the same id.
	CacheNamespace string
	// Warn receives findings of the build checks. It may be nil.
	Warn func(Warning)
}

// Warning is a finding of the build checks.
type Warning struct {
	Rule        string // "JSONArgsRecommended"
	Description string
	URL         string
	Message     string // about this place
	Lines       graph.Lines
	Excerpt     string // these lines and their neighbours
}

// defaultPath is PATH where the image has none, as docker's builder sets it.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// translation is one run of Translate.
type translation struct {
	ctx    context.Context
	o      *Options
	source *Source
	lex    *shell.Lex
	lint   *linter.Linter
	global *env // arguments of the global scope
	// declared are the names of global arguments, with a value or without
	declared []string
	proxy    []string
	epoch    *time.Time
	stages   []*stage
	byName   map[string]*stage
	context  *graph.Node // the main context
	locals   map[string]*graph.Node

	mu sync.Mutex // held by whoever resolves a base image, but not while that is fetched
}

// Translate makes the graph of a Dockerfile's target. Errors in the text are
// *Error inside a fault.Invalid.
func Translate(ctx context.Context, text []byte, o Options) (*graph.Graph, error) {
	if o.Build.OS == "" {
		o.Build = o.Platform
	}
	if o.File == "" {
		o.File = "Dockerfile"
	}
	t := &translation{
		ctx: ctx, o: &o, source: NewSource(o.File, text),
		byName: map[string]*stage{}, locals: map[string]*graph.Node{},
	}
	t.context = &graph.Node{Op: &graph.Local{Name: "context"}, Name: "[internal] load build context", Platform: o.Build}
	target, err := t.run(text)
	if err != nil {
		return nil, t.source.explain(err)
	}
	return t.finish(target), nil
}

func (t *translation) run(text []byte) (*stage, error) {
	stages, meta, err := t.parse(text)
	if err != nil {
		return nil, err
	}
	if err := t.globals(stages, meta); err != nil {
		return nil, err
	}
	if err := t.addStages(stages); err != nil {
		return nil, err
	}
	target, err := t.target()
	if err != nil {
		return nil, err
	}
	if err := t.commands(); err != nil {
		return nil, err
	}
	needed, err := t.resolve(target)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(t.stages); i++ {
		s := t.stages[i]
		if s.dispatched || !needed[s] && !t.o.AllStages {
			continue
		}
		if err := t.dispatchStage(s); err != nil {
			return nil, err
		}
	}
	if err := t.lint.Error(); err != nil {
		return nil, err
	}
	return target, nil
}

// parse reads the text into stages.
func (t *translation) parse(text []byte) ([]instructions.Stage, []instructions.ArgCommand, error) {
	if len(text) > MaxSize {
		return nil, nil, fault.New(fault.Invalid, "read Dockerfile", t.o.File, "it is larger than %d bytes", MaxSize)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, nil, fault.New(fault.Invalid, "read Dockerfile", t.o.File, "the Dockerfile cannot be empty").
			WithHint("begin it with FROM and an image")
	}
	if err := t.checkSyntax(text); err != nil {
		return nil, nil, err
	}
	check, _, at, _ := parser.ParseDirective("check", text)
	if t.o.CheckRules != "" {
		check, at = t.o.CheckRules, nil
	}
	config, err := linter.ParseLintOptions(check)
	if err != nil {
		return nil, nil, parser.WithLocation(err, at)
	}
	config.Warn = t.warn
	t.lint = linter.New(config)
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		if _, _, at, ok := parser.ParseDirective("escape", text); ok && strings.Contains(err.Error(), "escape token") {
			err = parser.SetLocation(err, at)
		}
		return nil, nil, err
	}
	for _, w := range parsed.Warnings {
		if w.URL == linter.RuleNoEmptyContinuation.URL && w.Location != nil {
			t.lint.Run(&linter.RuleNoEmptyContinuation, []parser.Range{*w.Location}, linter.RuleNoEmptyContinuation.Format())
		}
	}
	t.lex = shell.NewLex(parsed.EscapeToken)
	stages, meta, err := instructions.Parse(parsed.AST, t.lint)
	if err != nil {
		return nil, nil, err
	}
	if len(stages) == 0 {
		return nil, nil, fault.New(fault.Invalid, "read Dockerfile", t.o.File, "it has no stage to build").
			WithHint("begin it with FROM and an image")
	}
	t.lintNames(stages)
	t.lintCasing(stages)
	return stages, meta, nil
}

// checkSyntax refuses front ends other than Dockerfile's own: this one has the
// features of all docker/dockerfile versions, and others are programs.
func (t *translation) checkSyntax(text []byte) error {
	ref, _, at, ok := parser.DetectSyntax(text)
	if v := t.o.Args["BUILDKIT_SYNTAX"]; v != "" {
		ref, ok = v, true
	}
	if !ok || ref == "" {
		return nil
	}
	name, _, _ := strings.Cut(ref, "@")
	for _, prefix := range []string{"docker.io/", "registry-1.docker.io/", "index.docker.io/"} {
		name = strings.TrimPrefix(name, prefix)
	}
	name, _, _ = strings.Cut(name, ":")
	if name == "docker/dockerfile" || name == "docker/dockerfile-upstream" {
		return nil
	}
	return parser.WithLocation(fault.New(fault.Unsupported, "use front end", strconv.Quote(ref), "this builder reads Dockerfiles by itself and runs no other front end").
		WithHint("remove the syntax line, or use docker/dockerfile:1"), at)
}

// finish makes the graph around the target's root.
func (t *translation) finish(target *stage) *graph.Graph {
	target.root = t.layers(target)
	for k, v := range t.o.Labels {
		if target.image.Config.Labels == nil {
			target.image.Config.Labels = map[string]string{}
		}
		target.image.Config.Labels[k] = v
	}
	if t.o.PlatformGiven && target.platform != nil {
		same := t.o.Platform.OS == target.image.OS && t.o.Platform.Architecture == target.image.Architecture
		target.image.OS, target.image.Architecture = t.o.Platform.OS, t.o.Platform.Architecture
		if t.o.Platform.Variant != "" || !same {
			target.image.Variant = t.o.Platform.Variant
		}
	}
	target.image.RootFS = ocispec.RootFS{Type: "layers"}
	target.image.History = nil
	target.image.Created = nil
	return &graph.Graph{
		Nodes: graph.Sort(target.root), Target: target.root,
		Image: graph.Image{Config: target.image, History: target.history, Base: target.baseID, Epoch: t.epoch},
	}
}

func (t *translation) warn(rule, description, url, message string, at []parser.Range) {
	if t.o.Warn != nil {
		l := lines(at)
		t.o.Warn(Warning{Rule: rule, Description: description, URL: url, Message: message, Lines: l, Excerpt: t.source.Excerpt(l, 0, 0, 0)})
	}
}

// lines joins the parser's ranges, which are one for each line.
func lines(ranges []parser.Range) graph.Lines {
	var l graph.Lines
	for _, r := range ranges {
		if l.Start == 0 || r.Start.Line < l.Start {
			l.Start = r.Start.Line
		}
		l.End = max(l.End, r.End.Line)
	}
	return l
}
