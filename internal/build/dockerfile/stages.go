package dockerfile

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/util/suggest"
	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/build/graph"
	"berth/internal/fault"
)

const scratch = "scratch"

// stage is one FROM with what follows, or an image that COPY --from or a mount
// names.
type stage struct {
	inst     instructions.Stage
	name     string // of the stage, or its number
	base     *stage // the stage it begins from; nil for images
	external bool   // no FROM of its own
	standIn  *NamedContext
	platform *ocispec.Platform
	deps     []dependency
	commands []command
	env      *env
	args     []instructions.KeyValuePairOptional // ARGs so far
	image    v1.DockerOCIImage
	history  []graph.History
	root     *graph.Node
	baseID   digest.Digest
	noCache  bool

	resolved, dispatched, triggered bool

	total, index             int // of steps, for their names
	onBuild                  bool
	workdirSet               bool
	cmd, entrypoint, healthy *[]parser.Range // where they were set
}

type dependency struct {
	on *stage
	by instructions.Command
}

type command struct {
	instructions.Command
	sources []*stage // for COPY one, for RUN one for each mount; entries may be nil
	onBuild bool
}

// globals evaluates the arguments before the first FROM.
func (t *translation) globals(stages []instructions.Stage, meta []instructions.ArgCommand) error {
	target := t.o.Target
	if target == "" {
		if target = stages[len(stages)-1].Name; target == "" {
			target = "default"
		}
	}
	predefined := newEnv()
	b, p := t.o.Build, t.o.Platform
	for _, kv := range [][2]string{
		{"BUILDPLATFORM", formatPlatform(b)}, {"BUILDOS", b.OS}, {"BUILDOSVERSION", b.OSVersion},
		{"BUILDARCH", b.Architecture}, {"BUILDVARIANT", b.Variant},
		{"TARGETPLATFORM", formatPlatform(p)}, {"TARGETOS", p.OS}, {"TARGETOSVERSION", p.OSVersion},
		{"TARGETARCH", p.Architecture}, {"TARGETVARIANT", p.Variant}, {"TARGETSTAGE", target},
	} {
		v := kv[1]
		if o, ok := t.o.Args[kv[0]]; ok {
			v = o
		}
		predefined.set(kv[0], v)
	}
	for _, cmd := range meta {
		for _, arg := range cmd.Args {
			t.declared = append(t.declared, arg.Key)
		}
	}
	t.lintDefaultArgs(stages, predefined, meta)
	t.global = predefined.clone()
	if err := t.metaArgs(t.global, meta, t.o.Args); err != nil {
		return err
	}
	t.setProxy()
	epoch, ok := t.o.Args["SOURCE_DATE_EPOCH"]
	if !ok {
		epoch, _ = t.global.Get("SOURCE_DATE_EPOCH")
	}
	if epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return fault.New(fault.Invalid, "read build argument", "SOURCE_DATE_EPOCH", "%q is not a number of seconds", epoch).
				WithHint("give the seconds since 1970, as git log -1 --format=%%ct prints them")
		}
		at := time.Unix(seconds, 0).UTC()
		t.epoch = &at
	}
	return nil
}

// setProxy takes over what build arguments say about proxies. Programs do not agree
// on the spelling, so a setting has both, as in docker's builder.
func (t *translation) setProxy() {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"} {
		lower := strings.ToLower(name)
		big, isBig := t.o.Args[name]
		small, isSmall := t.o.Args[lower]
		if !isBig {
			big = small
		}
		if !isSmall {
			small = big
		}
		if isBig || isSmall {
			t.proxy = append(t.proxy, name+"="+big, lower+"="+small)
		}
	}
}

// metaArgs adds global ARGs to e; given ones take the place of defaults.
func (t *translation) metaArgs(e *env, meta []instructions.ArgCommand, given map[string]string) error {
	for _, cmd := range meta {
		for _, arg := range cmd.Args {
			v, ok := given[arg.Key]
			if !ok && arg.Value != nil {
				r, err := t.lex.ProcessWordWithMatches(*arg.Value, e)
				if err != nil {
					return parser.WithLocation(err, cmd.Location())
				}
				v, ok = r.Result, true
			}
			if ok {
				e.set(arg.Key, v)
			}
		}
	}
	return nil
}

// addStages makes the stages of the file and finds which begins from which.
func (t *translation) addStages(list []instructions.Stage) error {
	for i, inst := range list {
		lint := t.lint.WithMergedConfigFromComments(inst.Comments)
		r, err := t.lex.ProcessWordWithMatches(inst.BaseName, t.global)
		if err != nil {
			return parser.WithLocation(err, inst.Location)
		}
		t.lintFromArgs(r.Unmatched, inst.Location, lint)
		if r.Result == "" {
			return parser.WithLocation(&marked{inst.BaseName, fmt.Errorf("base name (%s) should not be blank", inst.BaseName)}, inst.Location)
		}
		s := &stage{inst: inst, name: inst.Name}
		s.inst.BaseName = r.Result
		if s.name == "" {
			s.name = "stage-" + strconv.Itoa(i)
		}
		if inst.Platform != "" {
			if s.platform, err = t.stagePlatform(inst, lint); err != nil {
				return parser.WithLocation(err, inst.Location)
			}
		}
		s.noCache = t.o.NoCache || slices.ContainsFunc(t.o.NoCacheFilter, func(n string) bool {
			return strings.EqualFold(n, inst.Name) || n == strconv.Itoa(i)
		})
		if inst.Name != "" {
			s.standIn = t.namedContext(inst.Name)
		}
		t.add(s)
		if s.standIn != nil {
			s.base = nil
			s.inst.Commands = nil
		}
		s.count()
	}
	if len(list) == 1 && list[0].Name == "" {
		t.stages[0].name = ""
	}
	return nil
}

// count counts the steps that are shown.
func (s *stage) count() {
	if s.inst.BaseName != scratch && s.base == nil {
		s.total = 1
	}
	for _, c := range s.inst.Commands {
		switch c.(type) {
		case *instructions.AddCommand, *instructions.CopyCommand, *instructions.RunCommand, *instructions.WorkdirCommand:
			s.total++
		}
	}
}

func (t *translation) stagePlatform(inst instructions.Stage, lint *linter.Linter) (*ocispec.Platform, error) {
	r, err := t.lex.ProcessWordWithMatches(inst.Platform, t.global)
	if err != nil {
		return nil, err
	}
	t.lintFromArgs(r.Unmatched, inst.Location, lint)
	t.lintPlatform(inst, r, lint)
	if r.Result == "" {
		err = fmt.Errorf("empty platform value from expression %q", inst.Platform)
		return nil, &marked{inst.Platform, t.guess(err, r.Unmatched)}
	}
	p, err := parsePlatform(r.Result)
	return p, t.guess(err, r.Unmatched)
}

// guess adds to an error the global arguments that may have been meant.
func (t *translation) guess(err error, unmatched map[string]struct{}) error {
	for _, name := range sorted(unmatched) {
		err = suggest.WrapError(err, name, t.globalNames(), true)
	}
	return err
}

// globalNames lists the arguments of the global scope.
func (t *translation) globalNames() []string {
	return append(slices.Clone(t.global.keys), t.declared...)
}

// add takes a stage into the list and finds its base among the earlier ones.
func (t *translation) add(s *stage) {
	t.stages = append(t.stages, s)
	if b, ok := t.byName[strings.ToLower(s.inst.BaseName)]; ok {
		s.base = b
	}
	if s.inst.Name != "" {
		t.byName[strings.ToLower(s.inst.Name)] = s
	}
}

func (t *translation) names() []string {
	var names []string
	for _, s := range t.stages {
		if s.inst.Name != "" {
			names = append(names, s.inst.Name)
		}
	}
	return names
}

func (t *translation) target() (*stage, error) {
	if t.o.Target == "" {
		return t.stages[len(t.stages)-1], nil
	}
	if s, ok := t.byName[strings.ToLower(t.o.Target)]; ok {
		return s, nil
	}
	if i, err := strconv.Atoi(t.o.Target); err == nil && i >= 0 && i < len(t.stages) {
		return t.stages[i], nil
	}
	err := suggest.WrapError(fmt.Errorf("target stage %q could not be found", t.o.Target), t.o.Target, t.names(), true)
	hint := "the file names no stages; name one with FROM image AS name"
	if names := t.names(); len(names) > 0 {
		hint = "the stages are " + strings.Join(names, ", ")
	}
	return nil, fault.New(fault.Invalid, "build", t.o.File, "%w", err).WithHint("%s", hint)
}

// commands finds what each instruction takes from other stages and images.
func (t *translation) commands() error {
	own := len(t.stages)
	for i := range own {
		s := t.stages[i]
		for _, c := range s.inst.Commands {
			cmd, err := t.command(s, c)
			if err != nil {
				return parser.WithLocation(err, c.Location())
			}
			s.commands = append(s.commands, cmd)
		}
	}
	return t.checkCycles()
}

func (t *translation) command(s *stage, c instructions.Command) (command, error) {
	cmd := command{Command: c}
	switch c := c.(type) {
	case *instructions.CopyCommand:
		if c.From == "" {
			break
		}
		r, err := t.lex.ProcessWordWithMatches(c.From, newEnv())
		if err != nil {
			return cmd, err
		}
		if r.Result != c.From {
			return cmd, errors.New("variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround")
		}
		from, err := t.find(c.From, true, c.Location())
		if err != nil {
			return cmd, err
		}
		cmd.sources = []*stage{from}
	case *instructions.RunCommand:
		for _, m := range instructions.GetMounts(c) {
			var from *stage
			if m.From != "" {
				var err error
				if from, err = t.find(m.From, false, c.Location()); err != nil {
					return cmd, err
				}
			}
			cmd.sources = append(cmd.sources, from)
		}
	}
	for _, from := range cmd.sources {
		if from != nil {
			s.deps = append(s.deps, dependency{from, c})
		}
	}
	return cmd, nil
}

// find returns the stage called name, by number if that is allowed, or makes
// one for the image or named context of that name.
func (t *translation) find(name string, numbers bool, at []parser.Range) (*stage, error) {
	if s, ok := t.byName[strings.ToLower(name)]; ok {
		return s, nil
	}
	if numbers {
		if i, err := strconv.Atoi(name); err == nil {
			if i < 0 || i >= len(t.stages) {
				return nil, fmt.Errorf("invalid stage index %d", i)
			}
			return t.stages[i], nil
		}
	}
	for _, s := range t.stages {
		if s.external && s.inst.BaseName == name {
			return s, nil
		}
	}
	s := &stage{inst: instructions.Stage{BaseName: name, Location: at}, external: true, name: name}
	t.add(s)
	return s, nil
}

func (t *translation) checkCycles() error {
	const entered, left = 1, 2
	state := map[*stage]int{}
	var visit func(*stage) error
	visit = func(s *stage) error {
		state[s] = entered
		for _, d := range s.needs() {
			switch state[d.on] {
			case entered:
				err := fmt.Errorf("circular dependency detected on stage: %s", d.on.name)
				if d.by == nil {
					return parser.WithLocation(err, s.inst.Location)
				}
				return parser.WithLocation(err, d.by.Location())
			case 0:
				if err := visit(d.on); err != nil {
					return err
				}
			}
		}
		state[s] = left
		return nil
	}
	for _, s := range t.stages {
		if state[s] == 0 {
			if err := visit(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// needs returns what the stage depends on, its base included.
func (s *stage) needs() []dependency {
	if s.base == nil {
		return s.deps
	}
	return append([]dependency{{on: s.base}}, s.deps...)
}

// reachable returns what target needs, itself included.
func reachable(target *stage) map[*stage]bool {
	seen := map[*stage]bool{}
	var visit func(*stage)
	visit = func(s *stage) {
		if seen[s] {
			return
		}
		seen[s] = true
		for _, d := range s.needs() {
			visit(d.on)
		}
	}
	visit(target)
	return seen
}

// namedContext returns the named context that stands in for name, or nil.
func (t *translation) namedContext(name string) *NamedContext {
	if len(t.o.Contexts) == 0 || strings.EqualFold(name, scratch) || strings.EqualFold(name, "context") {
		return nil
	}
	try := []string{name, strings.ToLower(name)}
	if ref, err := reference.ParseNormalizedNamed(name); err == nil {
		familiar := reference.FamiliarString(reference.TagNameOnly(ref))
		try = append(try, reference.FamiliarString(ref), reference.TagNameOnly(ref).String(), familiar, strings.TrimSuffix(familiar, ":latest"))
	}
	for _, n := range try {
		if c, ok := t.o.Contexts[n]; ok {
			return &c
		}
	}
	return nil
}

// envOf returns a config's environment.
func envOf(list []string) *env {
	e := newEnv()
	for _, s := range list {
		e.set(splitEnv(s))
	}
	return e
}

var _ shell.EnvGetter = (*env)(nil)
