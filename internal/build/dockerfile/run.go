package dockerfile

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"berth/internal/build/graph"
	"berth/internal/fault"
)

// inlineDir is where a script that is written into a RUN instruction is mounted.
const inlineDir = "/dev/pipes"

// run1 adds the step of a RUN instruction.
func (t *translation) run1(s *stage, c *instructions.RunCommand, sources []*stage) error {
	if s.platform.OS == "windows" {
		return fault.New(fault.Unsupported, "build", t.o.File, "RUN for windows needs a windows machine")
	}
	args, more, inline, err := s.commandLine(c)
	if err != nil {
		return err
	}
	e := &graph.Exec{
		Args: args, Env: s.env.list(), Dir: s.absolute("."), User: s.image.Config.User,
		Hosts: t.o.Hosts, Hostname: t.o.Hostname, Limits: t.o.Limits, Network: t.o.Network, Proxy: t.unsetProxy(s),
	}
	if err := t.isolation(c, e); err != nil {
		return err
	}
	var inputs []*graph.Node
	if inline != nil {
		inputs = append(inputs, inline)
		e.Mounts = append(e.Mounts, graph.Mount{Kind: graph.Bind, Target: inlineDir, Input: len(inputs), Source: "/", ReadOnly: true})
	}
	for i, m := range instructions.GetMounts(c) {
		mount, input, err := t.mount(s, c, m, sources[i])
		if err != nil {
			return err
		}
		if input != nil {
			inputs = append(inputs, input)
			mount.Input = len(inputs)
		} else {
			mount.Input = -1
		}
		e.Mounts = append(e.Mounts, mount)
	}
	s.root = t.node(s, c, e, more, inputs...)
	t.commit(s, "RUN "+s.runText(args), s.root)
	return nil
}

// commandLine makes the arguments of a RUN. more is what the step's name says
// about a text in the instruction; inline holds a script to be mounted.
func (s *stage) commandLine(c *instructions.RunCommand) (args []string, more string, inline *graph.Node, err error) {
	args = c.CmdLine
	if len(c.Files) > 0 {
		if len(args) != 1 || !c.PrependShell {
			return nil, "", nil, fmt.Errorf("parsing produced an invalid run command: %v", args)
		}
		first := c.Files[0]
		if parser.MustParseHeredoc(args[0]) != nil {
			data := first.Data
			if first.Chomp {
				data = parser.ChompHeredocContent(data)
			}
			more = fmt.Sprintf(" (%s)", summary(first.Data))
			if strings.HasPrefix(data, "#!") {
				name := path.Base(path.Clean("/" + first.Name))
				inline = &graph.Node{
					Op:   &graph.File{Actions: []graph.Action{&graph.MakeFile{Path: "/" + name, Data: []byte(data), Mode: 0o755}}},
					Name: "[internal] preparing inline document", Inputs: []*graph.Node{nil}, Stage: s.name,
					Lines: lines(c.Location()), Platform: *s.platform,
				}
				return []string{inlineDir + "/" + name}, more, inline, nil
			}
			args = []string{data}
		} else {
			var b strings.Builder
			b.WriteString(args[0])
			for _, f := range c.Files {
				b.WriteString("\n" + f.Data + f.Name)
			}
			args = []string{b.String()}
		}
	}
	if c.PrependShell {
		args = s.shell(args)
	}
	if len(args) == 0 || args[0] == "" {
		return nil, "", nil, errors.New("RUN names no program")
	}
	return args, more, nil, nil
}

func summary(text string) string {
	first, _, more := strings.Cut(strings.TrimSpace(strings.ReplaceAll(text, "\r\n", "\n")), "\n")
	if more {
		return first + "..."
	}
	return first
}

// runText is the command as the history has it, after the build arguments that
// were in effect.
func (s *stage) runText(args []string) string {
	var list []string
	at := map[string]int{}
	for _, a := range s.args {
		v, ok := s.env.Get(a.Key)
		if !ok {
			v = a.ValueString()
		}
		if i, ok := at[a.Key]; ok {
			list[i] = a.Key + "=" + v
			continue
		}
		at[a.Key] = len(list)
		list = append(list, a.Key+"="+v)
	}
	if len(list) > 0 {
		list = append([]string{fmt.Sprintf("|%d", len(list))}, list...)
	}
	return strings.Join(append(list, args...), " ")
}

// unsetProxy is the proxy settings that the Dockerfile did not declare itself.
func (t *translation) unsetProxy(s *stage) []string {
	var out []string
	for _, kv := range t.proxy {
		if k, _ := splitEnv(kv); k != "" {
			if _, ok := s.env.Get(k); !ok {
				out = append(out, kv)
			}
		}
	}
	return out
}

// isolation applies --network and --security, which need the user's consent
// where they weaken it.
func (t *translation) isolation(c *instructions.RunCommand, e *graph.Exec) error {
	switch instructions.GetNetwork(c) {
	case instructions.NetworkHost:
		if !t.o.HostNetwork && t.o.Network != "host" {
			return fault.New(fault.Forbidden, "build", t.o.File, "RUN --network=host is not allowed").
				WithHint("allow it with --allow network.host")
		}
		e.Network = "host"
	case instructions.NetworkNone:
		e.Network = "none"
	}
	if instructions.GetSecurity(c) == instructions.SecurityInsecure {
		if !t.o.Insecure {
			return fault.New(fault.Forbidden, "build", t.o.File, "RUN --security=insecure is not allowed").
				WithHint("allow it with --allow security.insecure")
		}
		e.Insecure = true
	}
	if len(instructions.GetDevices(c)) > 0 {
		return &marked{"--device", fault.New(fault.Unsupported, "build", t.o.File, "RUN --device is not supported by this builder").
			WithHint("run a container with --device and commit it")}
	}
	return nil
}

// mount makes one mount of a RUN and what it shows.
func (t *translation) mount(s *stage, c *instructions.RunCommand, m *instructions.Mount, from *stage) (graph.Mount, *graph.Node, error) {
	out := graph.Mount{Kind: graph.MountKind(m.Type), Source: path.Join("/", m.Source), ReadOnly: m.ReadOnly, Size: m.SizeLimit, Required: m.Required}
	switch m.Type {
	case instructions.MountTypeSecret:
		setOwner(&out, m, 0o400)
		return out, nil, t.secret(s, m, &out)
	case instructions.MountTypeSSH:
		if m.Source != "" {
			return out, nil, errors.New("ssh does not support source")
		}
		setOwner(&out, m, 0o600)
		if out.ID = m.CacheID; out.ID == "" {
			out.ID = "default"
		}
		if out.Target = m.Target; out.Target == "" {
			out.Target = "/run/buildkit/ssh_agent.0"
		}
		return out, nil, nil
	}
	if m.Target == "" {
		return out, nil, fmt.Errorf("a %s mount needs a target", m.Type)
	}
	if out.Target = s.absolute(m.Target); out.Target == "/" {
		return out, nil, fmt.Errorf("invalid mount target %q", m.Target)
	}
	if err := t.ready(from, m); err != nil {
		return out, nil, err
	}
	switch m.Type {
	case instructions.MountTypeTmpfs:
		return out, nil, nil
	case instructions.MountTypeCache:
		t.cache(&out, m)
		if from != nil {
			break
		}
		if out.Source != "/" {
			// Who can write to a cache can put a link where a part of it was (as in
			// CVE-2024-23651): nobody is shown less than all of it.
			return out, nil, errors.New("a source in a cache mount needs from: the source is what the cache begins with")
		}
		return out, nil, nil
	}
	if from == nil {
		return out, t.files(t.context, out.Source, lines(c.Location())), nil
	}
	return out, t.files(from.root, out.Source, lines(c.Location())), nil
}

// setOwner sets owner and mode of what a mount makes; mode is the default.
func setOwner(out *graph.Mount, m *instructions.Mount, mode uint32) {
	out.Mode = mode
	if m.Mode != nil {
		out.Mode = uint32(*m.Mode)
	}
	if m.UID != nil {
		out.UID = uint32(*m.UID)
	}
	if m.GID != nil {
		out.GID = uint32(*m.GID)
	}
}

// cache says which cache a mount is of.
func (t *translation) cache(out *graph.Mount, m *instructions.Mount) {
	setOwner(out, m, 0o755)
	if out.ID = m.CacheID; out.ID == "" {
		out.ID = path.Clean(m.Target)
	}
	if t.o.CacheNamespace != "" {
		out.ID = t.o.CacheNamespace + "/" + out.ID
	}
	if out.Sharing = graph.Sharing(m.CacheSharing); out.Sharing == "" {
		out.Sharing = graph.Shared
	}
}

// ready makes sure that what a mount is from has been translated.
func (t *translation) ready(from *stage, m *instructions.Mount) error {
	if from == nil || from.dispatched {
		return nil
	}
	if !from.external {
		return fmt.Errorf("cannot mount from stage %q to %q, stage needs to be defined before current command", m.From, m.Target)
	}
	return t.dispatchStage(from)
}

// files returns a node whose files can be mounted. Of a caller's directory the
// wanted part becomes a layer first: what is mounted must leave out what the
// context leaves out, and must not change while a step runs.
func (t *translation) files(n *graph.Node, source string, at graph.Lines) *graph.Node {
	if n == nil {
		return &graph.Node{Op: &graph.File{}, Inputs: []*graph.Node{nil}, Name: "[internal] empty directory", Lines: at}
	}
	local, ok := n.Op.(*graph.Local)
	if !ok {
		return n
	}
	cp := &graph.Copy{Input: 1, Src: "/", Dest: "/", Literal: true}
	if source != "/" {
		cp.Parents, cp.Pattern, cp.Required = true, strings.TrimPrefix(source, "/"), true
	}
	return &graph.Node{
		Op: &graph.File{Actions: []graph.Action{cp}}, Inputs: []*graph.Node{nil, n},
		Name: fmt.Sprintf("[internal] mount %s of %s", source, local.Name), Lines: at, Platform: n.Platform,
	}
}

func (t *translation) secret(s *stage, m *instructions.Mount, out *graph.Mount) error {
	if out.ID = m.CacheID; m.Source != "" {
		out.ID = m.Source
	}
	if out.ID == "" {
		if m.Target == "" {
			return errors.New("one of source, target required")
		}
		out.ID = path.Base(m.Target)
	}
	if m.Env != nil {
		if out.Env = *m.Env; out.Env == "" {
			out.Env = out.ID
		}
		if strings.ContainsAny(out.Env, "=\x00") {
			return fmt.Errorf("invalid name of a variable %q", out.Env)
		}
		out.NoFile = m.Target == ""
	}
	switch {
	case out.NoFile:
	case m.Target == "":
		out.Target = "/run/secrets/" + path.Base(out.ID)
	default:
		out.Target = s.absolute(m.Target)
	}
	if out.Target == "/" {
		return fmt.Errorf("invalid mount target %q", m.Target)
	}
	return nil
}
