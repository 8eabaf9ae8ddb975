package dockerfile

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/util/suggest"
	"github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/internal/build/gitref"
	"berth/internal/build/graph"
	"berth/internal/fault"
)

// resolve finds the images that target needs, all at once, and what their
// triggers need in turn.
func (t *translation) resolve(target *stage) (map[*stage]bool, error) {
	for {
		needed := reachable(target)
		g, ctx := errgroup.WithContext(t.ctx)
		for _, s := range t.stages {
			if s.base != nil || s.resolved || !needed[s] && !t.o.AllStages {
				continue
			}
			s.resolved = true
			g.Go(func() error { return parser.WithLocation(t.resolveBase(ctx, s), s.inst.Location) })
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
		again, err := t.triggers(needed)
		if err != nil {
			return nil, err
		}
		if !again {
			return needed, nil
		}
	}
}

// triggers puts ONBUILD instructions in front of the stages they are for, and
// reports whether they need stages or images that were not needed before.
func (t *translation) triggers(needed map[*stage]bool) (again bool, err error) {
	for _, s := range slices.Clone(t.stages) {
		if !needed[s] && !t.o.AllStages || s.triggered || s.external || s.standIn != nil {
			continue
		}
		s.triggered = true
		list := s.image.Config.OnBuild
		s.image.Config.OnBuild = nil
		if s.base != nil {
			list = nil
			for _, c := range s.base.commands {
				if o, ok := c.Command.(*instructions.OnbuildCommand); ok {
					list = append(list, o.Expression)
				}
			}
		}
		var commands []command
		for _, text := range list {
			cmd, err := t.trigger(s, text)
			if err != nil {
				return false, parser.SetLocation(fmt.Errorf("ONBUILD %s of the base image: %w", text, err), s.inst.Location)
			}
			again = again || len(cmd.sources) > 0
			commands = append(commands, cmd)
			switch cmd.Command.(type) {
			case *instructions.AddCommand, *instructions.CopyCommand, *instructions.RunCommand, *instructions.WorkdirCommand:
				s.total++
			}
		}
		s.commands = append(commands, s.commands...)
		if src, ok := rootOp(s).(*graph.Source); ok && len(commands) > 0 && s.base == nil {
			s.index = 0
			s.root.Name = s.stepName(t, "FROM "+src.Ref) // the number of steps is another now
		}
	}
	if again {
		err = t.checkCycles()
	}
	return again, err
}

func rootOp(s *stage) graph.Op {
	if s.root == nil {
		return nil
	}
	return s.root.Op
}

func (t *translation) trigger(s *stage, text string) (command, error) {
	parsed, err := parser.Parse(strings.NewReader(text))
	if err != nil {
		return command{}, err
	}
	if len(parsed.AST.Children) != 1 {
		return command{}, fmt.Errorf("it should be a single instruction")
	}
	node := parsed.AST.Children[0]
	at := lines(s.inst.Location)
	node.StartLine, node.EndLine = at.Start, at.End
	switch strings.ToLower(node.Value) {
	case "from", "onbuild", "maintainer":
		return command{}, fmt.Errorf("%s isn't allowed as an ONBUILD trigger", strings.ToUpper(node.Value))
	}
	c, err := instructions.ParseCommand(node)
	if err != nil {
		return command{}, err
	}
	cmd, err := t.command(s, c)
	cmd.onBuild = true
	return cmd, err
}

// emptyImage is what FROM scratch begins with.
func emptyImage(p ocispec.Platform) v1.DockerOCIImage {
	var i v1.DockerOCIImage
	i.Platform = p
	i.RootFS.Type = "layers"
	i.Config.WorkingDir = "/"
	i.Config.Env = []string{"PATH=" + defaultPath}
	return i
}

// resolveBase gives a stage without a base stage its image.
func (t *translation) resolveBase(ctx context.Context, s *stage) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	platform := s.platform
	if platform == nil {
		platform = &t.o.Platform
	}
	s.platform = platform
	if s.inst.BaseName == scratch && s.standIn == nil {
		s.image = emptyImage(*platform)
		return nil
	}
	standIn := s.standIn
	if standIn == nil {
		standIn = t.namedContext(s.inst.BaseName)
	}
	if standIn != nil && standIn.Kind != ImageContext {
		s.image = emptyImage(*platform)
		return t.standIn(s, standIn)
	}
	name := s.inst.BaseName
	if standIn != nil {
		name = standIn.Value
	}
	ref, err := reference.ParseAnyReference(name)
	if err != nil {
		return fmt.Errorf("failed to parse stage name %q: %w", name, err)
	}
	if named, ok := ref.(reference.Named); ok {
		ref = reference.TagNameOnly(named)
	}
	if t.o.Images == nil {
		s.image = emptyImage(*platform)
		return nil
	}
	t.mu.Unlock()
	base, err := t.o.Images.Resolve(ctx, ref.String(), *platform)
	t.mu.Lock()
	if err != nil {
		if fault.Is(err, fault.NotFound) {
			err = suggest.WrapError(err, name, t.names(), true)
		}
		return &marked{name, fault.Wrap("find base image", name, err)}
	}
	t.useImage(s, base, name, *platform)
	return nil
}

// useImage makes an image the beginning of a stage.
func (t *translation) useImage(s *stage, base Base, name string, wanted ocispec.Platform) {
	s.image = cloneImage(base.Config)
	s.baseID = base.ID
	t.lintBasePlatform(name, wanted, base.Config.Platform, s.inst.Location)
	for _, h := range base.Config.History {
		s.history = append(s.history, graph.History{History: h})
	}
	if len(base.Config.RootFS.DiffIDs) == 0 {
		return
	}
	s.root = &graph.Node{
		Op:       &graph.Source{Ref: name, ID: base.ID, DiffIDs: base.Config.RootFS.DiffIDs},
		Name:     s.stepName(t, "FROM "+name),
		Text:     s.inst.SourceCode,
		Stage:    s.name,
		Lines:    lines(s.inst.Location),
		Platform: wanted,
	}
}

// standIn makes a directory, repository or archive the beginning of a stage.
func (t *translation) standIn(s *stage, c *NamedContext) error {
	node := &graph.Node{Stage: s.name, Lines: lines(s.inst.Location), Platform: *s.platform}
	switch c.Kind {
	case LocalContext:
		if n := t.locals[c.Value]; n != nil {
			s.root = n
			return nil
		}
		node.Op = &graph.Local{Name: c.Value}
		node.Name = "[context " + c.Value + "] load from client"
		t.locals[c.Value] = node
	case GitContext:
		ref, ok, err := gitref.Parse(c.Value)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("named context %q is not the address of a git repository", c.Value)
		}
		node.Op = gitOp(ref)
		node.Name = "[context] git source " + c.Value
	case HTTPContext:
		node.Op = &graph.HTTP{URL: c.Value, Filename: "context"}
		node.Name = "[context] http source " + c.Value
		s.root = node
		copyNode := &graph.Node{Inputs: []*graph.Node{nil, node}, Name: node.Name, Stage: s.name, Platform: *s.platform, Lines: node.Lines}
		copyNode.Op = &graph.File{Actions: []graph.Action{&graph.Copy{Input: 1, Src: "/context", Dest: "/", Unpack: true, Literal: true}}}
		node = copyNode
	}
	s.root = node
	return nil
}

func cloneImage(src v1.DockerOCIImage) v1.DockerOCIImage {
	i := src
	c, o := &i.Config, &src.Config
	c.Env, c.Cmd, c.Entrypoint = slices.Clone(o.Env), slices.Clone(o.Cmd), slices.Clone(o.Entrypoint)
	c.OnBuild, c.Shell = slices.Clone(o.OnBuild), slices.Clone(o.Shell)
	c.ExposedPorts, c.Volumes, c.Labels = maps.Clone(o.ExposedPorts), maps.Clone(o.Volumes), maps.Clone(o.Labels)
	if o.Healthcheck != nil {
		h := *o.Healthcheck
		h.Test = slices.Clone(h.Test)
		c.Healthcheck = &h
	}
	return i
}

// begin takes over what the base stage ended with.
func (s *stage) begin() {
	if s.base != nil {
		s.platform, s.root, s.baseID = s.base.platform, s.base.root, s.base.baseID
		s.image = cloneImage(s.base.image)
		s.image.Config.OnBuild = nil
		s.history = slices.Clone(s.base.history)
		s.workdirSet = s.base.workdirSet
		s.args = slices.Clone(s.base.args)
	}
	e := envOf(s.image.Config.Env)
	if _, ok := e.Get("PATH"); !ok && s.platform.OS != "windows" {
		s.image.Config.Env = append(s.image.Config.Env, "PATH="+defaultPath)
		e.set("PATH", defaultPath)
	}
	s.env = e
	if s.base != nil { // arguments of the base stage stay in effect
		for _, k := range s.base.env.keys {
			if _, ok := e.Get(k); !ok {
				v, _ := s.base.env.Get(k)
				e.set(k, v)
			}
		}
	}
}
