package dockerfile

import (
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"berth/internal/build/graph"
)

// historyComment marks history entries as docker's builder marks them. Their
// text, too, is in its present form ("RUN /bin/sh -c make # buildkit") and not
// in the one before it ("/bin/sh -c #(nop) COPY ..."): the tools that read
// histories today, to show them or to guess a Dockerfile from them, know it, and
// it tells steps apart that changed files from those that did not.
const historyComment = "buildkit.dockerfile.v0"

func (t *translation) dispatchStage(s *stage) error {
	s.dispatched = true
	if s.platform == nil && s.base == nil {
		s.platform = &t.o.Platform
	}
	s.begin()
	if s.external || s.standIn != nil {
		return nil
	}
	s.root = t.layers(s)
	for _, c := range s.commands {
		if err := t.dispatch(s, c); err != nil {
			return parser.WithLocation(err, c.Location())
		}
	}
	return nil
}

// layers returns the stage's root with a caller's directory made a layer: what
// is changed or becomes an image cannot be that directory itself.
func (t *translation) layers(s *stage) *graph.Node {
	if _, ok := rootOp(s).(*graph.Local); !ok {
		return s.root
	}
	n := t.files(s.root, "/", lines(s.inst.Location))
	s.history = append(s.history, graph.History{History: ocispec.History{CreatedBy: "COPY . / # buildkit", Comment: historyComment}, Node: n})
	return n
}

// expander replaces variables and reports those that nobody defined.
func (t *translation) expander(s *stage, c instructions.Command, lex *shell.Lex, lint *linter.Linter) instructions.SingleWordExpander {
	return func(word string) (string, error) {
		out, unmatched, err := lex.ProcessWord(word, s.env)
		t.lintUndefined(s, c, unmatched, lint)
		return out, err
	}
}

func (t *translation) dispatch(s *stage, cmd command) error {
	s.onBuild = cmd.onBuild
	lint := t.lint.WithMergedConfigFromComments(cmd.Comments())
	_, isArg := cmd.Command.(*instructions.ArgCommand) // a default may not count, and neither may its mistakes
	if e, ok := cmd.Command.(instructions.SupportsSingleWordExpansion); ok && !isArg {
		if err := e.Expand(t.expander(s, cmd, t.lex, lint)); err != nil {
			return err
		}
	}
	if e, ok := cmd.Command.(instructions.SupportsSingleWordExpansionRaw); ok {
		lex := shell.NewLex('\\')
		lex.SkipProcessQuotes = true
		if err := e.ExpandRaw(t.expander(s, cmd, lex, lint)); err != nil {
			return err
		}
	}
	switch c := cmd.Command.(type) {
	case *instructions.RunCommand:
		return t.run1(s, c, cmd.sources)
	case *instructions.CopyCommand:
		return t.copy(s, cmd, lint)
	case *instructions.AddCommand:
		return t.addFiles(s, c, lint)
	case *instructions.WorkdirCommand:
		return t.workdir(s, c, lint)
	case *instructions.ArgCommand:
		return t.arg(s, c, lint)
	}
	return t.configure(s, cmd.Command, lint)
}

// configure applies the instructions that change nothing but the config.
func (t *translation) configure(s *stage, cmd instructions.Command, lint *linter.Linter) error {
	config := &s.image.Config
	switch c := cmd.(type) {
	case *instructions.MaintainerCommand:
		s.image.Author = c.Maintainer
		t.commit(s, "MAINTAINER "+c.Maintainer, nil)
	case *instructions.EnvCommand:
		t.setEnv(s, c, lint)
	case *instructions.LabelCommand:
		text := "LABEL"
		if config.Labels == nil {
			config.Labels = map[string]string{}
		}
		for _, l := range c.Labels {
			t.lintLegacy(c.Name(), l.NoDelim, c.Location(), lint)
			config.Labels[l.Key] = l.Value
			text += " " + l.String()
		}
		t.commit(s, text, nil)
	case *instructions.OnbuildCommand:
		config.OnBuild = append(config.OnBuild, c.Expression)
	case *instructions.CmdCommand, *instructions.EntrypointCommand, *instructions.HealthCheckCommand, *instructions.ShellCommand:
		t.configureProcess(s, cmd, lint)
	case *instructions.ExposeCommand:
		return t.expose(s, c, lint)
	case *instructions.UserCommand:
		config.User = c.User
		t.commit(s, "USER "+c.User, nil)
	case *instructions.VolumeCommand:
		if config.Volumes == nil {
			config.Volumes = map[string]struct{}{}
		}
		for _, v := range c.Volumes {
			if v == "" {
				return fmt.Errorf("VOLUME specified can not be an empty string")
			}
			config.Volumes[v] = struct{}{}
		}
		t.commit(s, fmt.Sprintf("VOLUME %v", c.Volumes), nil)
	case *instructions.StopSignalCommand:
		if !validSignal(c.Signal) {
			return fmt.Errorf("invalid signal: %q", c.Signal)
		}
		config.StopSignal = c.Signal
		t.commit(s, "STOPSIGNAL "+c.Signal, nil)
	default:
		return fmt.Errorf("the instruction %s is not known to this builder", strings.ToUpper(cmd.Name()))
	}
	return nil
}

// configureProcess applies those that say what runs in a container.
func (t *translation) configureProcess(s *stage, cmd instructions.Command, lint *linter.Linter) {
	config := &s.image.Config
	switch c := cmd.(type) {
	case *instructions.CmdCommand:
		t.lintOnce(c, &s.cmd, lint)
		config.Cmd = s.withShell(c.ShellDependantCmdLine, c, lint)
		//nolint:staticcheck // deprecated, and what docker writes
		config.ArgsEscaped = true
		t.commit(s, fmt.Sprintf("CMD %q", config.Cmd), nil)
	case *instructions.EntrypointCommand:
		t.lintOnce(c, &s.entrypoint, lint)
		config.Entrypoint = s.withShell(c.ShellDependantCmdLine, c, lint)
		if s.cmd == nil {
			config.Cmd = nil
		}
		t.commit(s, fmt.Sprintf("ENTRYPOINT %q", config.Entrypoint), nil)
	case *instructions.HealthCheckCommand:
		t.lintOnce(c, &s.healthy, lint)
		h := v1.HealthcheckConfig(*c.Health)
		config.Healthcheck = &h
		t.commit(s, fmt.Sprintf("HEALTHCHECK %+v", h), nil)
	case *instructions.ShellCommand:
		config.Shell = c.Shell
		t.commit(s, fmt.Sprintf("SHELL %v", c.Shell), nil)
	}
}

func validSignal(s string) bool {
	if n, err := strconv.Atoi(s); err == nil {
		return n > 0 && n <= 64
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if rest, ok := strings.CutPrefix(name, "SIGRTMIN"); ok {
		n, err := strconv.Atoi(strings.TrimPrefix(rest, "+"))
		return rest == "" || err == nil && n >= 0 && n <= 15
	}
	if rest, ok := strings.CutPrefix(name, "SIGRTMAX"); ok {
		n, err := strconv.Atoi(strings.TrimPrefix(rest, "-"))
		return rest == "" || err == nil && n >= 0 && n <= 14
	}
	return unix.SignalNum(name) != syscall.Signal(0)
}

func (t *translation) setEnv(s *stage, c *instructions.EnvCommand, lint *linter.Linter) {
	text := "ENV"
	for _, e := range c.Env {
		t.lintLegacy(c.Name(), e.NoDelim, c.Location(), lint)
		t.lintSecret("ENV", e.Key, c.Location(), lint)
		s.env.set(e.Key, e.Value)
		s.image.Config.Env = setEnv(s.image.Config.Env, e.Key, e.Value)
		text += " " + e.String()
	}
	t.commit(s, text, nil)
}

func (t *translation) arg(s *stage, c *instructions.ArgCommand, lint *linter.Linter) error {
	var text []string
	for _, a := range c.Args {
		t.lintSecret("ARG", a.Key, c.Location(), lint)
		given, ok := t.o.Args[a.Key]
		global, declared := t.global.Get(a.Key)
		switch {
		case ok:
			a.Value = &given
		case a.Value != nil:
			v, err := t.expander(s, c, t.lex, lint)(*a.Value)
			if err != nil {
				return err
			}
			a.Value = &v
		case declared:
			a.Value = &global
		}
		if a.Value != nil {
			s.env.set(a.Key, *a.Value)
		}
		s.args = append(s.args, a)
		if a.Value != nil {
			text = append(text, a.Key+"="+*a.Value)
		} else {
			text = append(text, a.Key)
		}
	}
	t.commit(s, "ARG "+strings.Join(text, " "), nil)
	return nil
}

func (t *translation) workdir(s *stage, c *instructions.WorkdirCommand, lint *linter.Linter) error {
	if !s.workdirSet && !path.IsAbs(c.Path) {
		lint.Run(&linter.RuleWorkdirRelativePath, c.Location(), linter.RuleWorkdirRelativePath.Format(c.Path))
	}
	s.workdirSet = true
	if c.Path == "" {
		return fmt.Errorf("WORKDIR needs a directory, and %q is empty", c.String())
	}
	dir := s.absolute(c.Path)
	s.image.Config.WorkingDir = dir
	if dir == "/" {
		t.commit(s, "WORKDIR "+dir, nil)
		return nil
	}
	n := t.node(s, c, &graph.File{Actions: []graph.Action{&graph.MakeDir{Path: dir, Mode: 0o755, Owner: graph.Owner{Spec: s.image.Config.User}}}}, "")
	s.root = n
	s.record("WORKDIR "+dir, n)
	return nil
}

// absolute joins a path to the working directory.
func (s *stage) absolute(p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join("/", s.image.Config.WorkingDir, p)
}

// commit adds a history entry. A node means that it made a layer.
func (t *translation) commit(s *stage, text string, n *graph.Node) {
	if n != nil {
		text += " # buildkit"
	}
	s.record(text, n)
}

func (s *stage) record(text string, n *graph.Node) {
	s.history = append(s.history, graph.History{
		History: ocispec.History{CreatedBy: text, Comment: historyComment, EmptyLayer: n == nil}, Node: n,
	})
}

// withShell returns a command line with the shell in front if it needs one.
func (s *stage) withShell(l instructions.ShellDependantCmdLine, c instructions.Command, lint *linter.Linter) []string {
	if !l.PrependShell {
		return l.CmdLine
	}
	if len(s.image.Config.Shell) == 0 {
		lint.Run(&linter.RuleJSONArgsRecommended, c.Location(), linter.RuleJSONArgsRecommended.Format(c.Name()))
	}
	return s.shell(l.CmdLine)
}

func (s *stage) shell(args []string) []string {
	sh := s.image.Config.Shell
	if len(sh) == 0 {
		sh = []string{"/bin/sh", "-c"}
	}
	return append(append([]string(nil), sh...), strings.Join(args, " "))
}

// node makes a step on top of the stage's root. more is what the name says
// beyond the instruction.
func (t *translation) node(s *stage, c instructions.Command, op graph.Op, more string, inputs ...*graph.Node) *graph.Node {
	text := ""
	if str, ok := c.(fmt.Stringer); ok {
		text = str.String()
	}
	text = upper(text)
	return &graph.Node{
		Op: op, Inputs: append([]*graph.Node{s.root}, inputs...),
		Name: s.stepName(t, t.shown(s, c, text)+more), Text: text, Stage: s.name, Index: s.index,
		Lines: lines(c.Location()), Platform: *s.platform, NoCache: s.noCache, Args: s.argList(),
	}
}

// shown is an instruction with its variables replaced, as far as they are known
// and no secrets.
func (t *translation) shown(s *stage, c instructions.Command, text string) string {
	lex := *t.lex
	var e shell.EnvGetter = s.env
	if r, ok := c.(*instructions.RunCommand); ok {
		lex.RawQuotes, lex.RawEscapes, lex.SkipUnsetEnv = true, true, true
		hidden := map[string]bool{}
		for _, m := range instructions.GetMounts(r) {
			if m.Type == instructions.MountTypeSecret && m.Env != nil {
				hidden[*m.Env] = true
			}
		}
		e = masked{s.env, hidden}
	}
	if out, _, err := lex.ProcessWord(text, e); err == nil {
		return out
	}
	return text
}

func (s *stage) argList() []string {
	var out []string
	for _, a := range s.args {
		if v, ok := s.env.Get(a.Key); ok {
			out = append(out, a.Key+"="+v)
		}
	}
	return out
}

func upper(text string) string {
	word, rest, found := strings.Cut(text, " ")
	if !found {
		return strings.ToUpper(text)
	}
	return strings.ToUpper(word) + " " + rest
}

// stepName is what progress shows: "[builder 2/5] RUN make".
func (s *stage) stepName(t *translation, text string) string {
	if s.total == 0 {
		return text
	}
	out := "["
	if t.o.MultiPlatform && s.platform != nil {
		out += formatPlatform(*s.platform) + s.crossing() + " "
	}
	if s.name != "" {
		out += s.name + " "
	}
	s.index++
	out += fmt.Sprintf("%*d/%d] ", int(1+math.Log10(float64(s.total))), s.index, s.total)
	if s.onBuild {
		out += "ONBUILD "
	}
	return out + text
}
