package dockerfile

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/opencontainers/go-digest"

	"berth/internal/build/gitref"
	"berth/internal/build/graph"
	"berth/internal/build/tree"
)

// transfer is what COPY and ADD have in common.
type transfer struct {
	cmd      instructions.Command
	params   *instructions.SourcesAndDest
	chown    string
	chmod    string
	link     bool
	parents  bool
	exclude  []string
	checksum string
	keepGit  *bool
	unpack   *bool
	add      bool
	from     *graph.Node
	fromName string
	main     bool // from is the main context
}

func (t *translation) copy(s *stage, cmd command, lint *linter.Linter) error {
	c := cmd.Command.(*instructions.CopyCommand)
	tr := &transfer{
		cmd: c, params: &c.SourcesAndDest, chown: c.Chown, chmod: c.Chmod, link: c.Link, parents: c.Parents,
		exclude: c.ExcludePatterns, from: t.context, main: true,
	}
	if len(cmd.sources) > 0 {
		src := cmd.sources[0]
		if !src.dispatched {
			if !src.external {
				return fmt.Errorf("cannot copy from stage %q, it needs to be defined before current stage %q", c.From, s.name)
			}
			if err := t.dispatchStage(src); err != nil {
				return err
			}
		}
		tr.from, tr.fromName, tr.main = src.root, c.From, false
	}
	return t.transfer(s, tr, lint)
}

func (t *translation) addFiles(s *stage, c *instructions.AddCommand, lint *linter.Linter) error {
	return t.transfer(s, &transfer{
		cmd: c, params: &c.SourcesAndDest, chown: c.Chown, chmod: c.Chmod, link: c.Link, exclude: c.ExcludePatterns,
		checksum: c.Checksum, keepGit: c.KeepGitDir, unpack: c.Unpack, add: true, from: t.context, main: true,
	}, lint)
}

func (t *translation) transfer(s *stage, tr *transfer, lint *linter.Linter) error {
	if err := tr.check(); err != nil {
		return err
	}
	dest := s.absolute(tr.params.DestPath)
	if d := tr.params.DestPath; dest != "/" && (d == "" || d == "." || strings.HasSuffix(d, "/") || strings.HasSuffix(d, "/.")) {
		dest += "/"
	}
	text := tr.history()
	file := &graph.File{Link: tr.link}
	var inputs []*graph.Node
	input := func(n *graph.Node) int {
		for i, have := range inputs {
			if have == n {
				return i + 1
			}
		}
		inputs = append(inputs, n)
		return len(inputs)
	}
	base := graph.Copy{Dest: dest, Owner: graph.Owner{Spec: tr.chown}, Mode: tr.chmod, Exclude: tr.exclude}
	for _, src := range tr.params.SourcePaths {
		text += " " + src
		cp := base
		remote, err := t.remote(s, tr, src, &cp)
		if err != nil {
			return err
		}
		if remote != nil {
			cp.Input = input(remote)
			file.Actions = append(file.Actions, &cp)
			continue
		}
		if tr.main {
			t.lintIgnored(tr.add, src, tr.cmd.Location(), lint)
		}
		tr.local(src, &cp)
		cp.Input = input(tr.from)
		file.Actions = append(file.Actions, &cp)
	}
	for _, doc := range tr.params.SourceContents {
		text += " <<" + doc.Path
		name := path.Base(path.Clean("/" + doc.Path))
		if name == "/" || name == "." {
			return fmt.Errorf("invalid name of a file %q", doc.Path)
		}
		n := &graph.Node{
			Op:   &graph.File{Actions: []graph.Action{&graph.MakeFile{Path: "/" + name, Data: []byte(doc.Data), Mode: 0o644}}},
			Name: "[internal] preparing inline document", Inputs: []*graph.Node{nil}, Stage: s.name,
			Lines: lines(tr.cmd.Location()), Platform: *s.platform,
		}
		cp := base
		cp.Exclude, cp.Src, cp.Literal, cp.Input = nil, "/"+name, true, input(n)
		file.Actions = append(file.Actions, &cp)
	}
	text += " " + tr.params.DestPath
	s.root = t.node(s, tr.cmd, file, "", inputs...)
	t.commit(s, text, s.root)
	return nil
}

// check refuses flags that contradict each other.
func (tr *transfer) check() error {
	if tr.chown != "" && tr.link {
		for part := range strings.SplitSeq(tr.chown, ":") {
			if _, err := strconv.ParseUint(part, 10, 32); err != nil && part != "" {
				return &marked{"--chown=" + tr.chown, fmt.Errorf("--chown=%s: user and group names can't be resolved when used with --link, use numeric uid[:gid] instead", tr.chown)}
			}
		}
	}
	if tr.chmod != "" {
		if _, err := tree.ParseMode(tr.chmod); err != nil {
			return err
		}
	}
	if tr.checksum == "" {
		return nil
	}
	if len(tr.params.SourcePaths) != 1 {
		return errors.New("checksum can't be specified for multiple sources")
	}
	src := tr.params.SourcePaths[0]
	if _, git, _ := gitref.Parse(src); !git && !isURL(src) {
		return errors.New("checksum requires HTTP(S) or Git sources")
	}
	return nil
}

func (tr *transfer) history() string {
	text := "COPY"
	if tr.add {
		text = "ADD"
	}
	if tr.parents {
		text += " --parents"
	}
	if tr.chown != "" {
		text += " --chown=" + tr.chown
	}
	if tr.chmod != "" {
		text += " --chmod=" + tr.chmod
	}
	return text
}

// local fills in how files of the context or a stage are copied.
func (tr *transfer) local(src string, cp *graph.Copy) {
	cp.Unpack = tr.add
	if tr.unpack != nil {
		cp.Unpack = *tr.unpack
	}
	if tr.parents {
		parent, pattern, pivot := strings.Cut(src, "/./")
		if !pivot {
			parent, pattern = "/", src
		}
		cp.Parents, cp.Pattern = true, strings.TrimPrefix(path.Clean("/"+pattern), "/")
		cp.Required = !wildcards(parent) && !wildcards(pattern)
		src = parent
	}
	trailing := strings.HasSuffix(src, "/")
	cp.Src = path.Clean("/" + src)
	if trailing && cp.Src != "/" {
		cp.Src += "/"
	}
}

func wildcards(s string) bool {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '*', '?', '[':
			return true
		case '\\':
			i++
		}
	}
	return false
}

func isURL(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
}

// remote returns the node of a source that is not a local path, or nil.
func (t *translation) remote(s *stage, tr *transfer, src string, cp *graph.Copy) (*graph.Node, error) {
	node := func(op graph.Op) *graph.Node {
		return &graph.Node{Op: op, Name: "[" + s.name + "] " + src, Text: src, Stage: s.name, Lines: lines(tr.cmd.Location()), Platform: *s.platform, NoCache: s.noCache}
	}
	ref, git, err := gitref.Parse(src)
	if err != nil {
		return nil, err
	}
	if git {
		if !tr.add {
			return nil, errors.New("source can't be a git ref for COPY")
		}
		if tr.keepGit != nil && ref.KeepDir != nil && *tr.keepGit != *ref.KeepDir {
			return nil, errors.New("inconsistent keep-git-dir configuration")
		}
		if tr.checksum != "" && ref.Checksum != "" && tr.checksum != ref.Checksum {
			return nil, fmt.Errorf("checksum mismatch %q != %q", tr.checksum, ref.Checksum)
		}
		if tr.keepGit != nil {
			ref.KeepDir = tr.keepGit
		}
		if tr.checksum != "" {
			ref.Checksum = tr.checksum
		}
		cp.Src, cp.Literal = "/", true
		return node(gitOp(ref)), nil
	}
	if !isURL(src) {
		if strings.HasPrefix(strings.ToLower(src), "file://") {
			return nil, fmt.Errorf("%q is not a source: files come from the build context by their relative path", src)
		}
		return nil, nil
	}
	if !tr.add {
		return nil, errors.New("source can't be a URL for COPY")
	}
	op := &graph.HTTP{URL: src, Filename: "__unnamed__"}
	u, err := url.Parse(src)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%q is not a URL", src)
	}
	if base := path.Base(u.Path); base != "." && base != "/" && base != ".." {
		op.Filename = base
	}
	if tr.checksum != "" {
		if op.Checksum, err = digest.Parse(tr.checksum); err != nil {
			return nil, fmt.Errorf("checksum %q: %w", tr.checksum, err)
		}
	}
	cp.Src, cp.Literal = "/"+op.Filename, true
	cp.Unpack = tr.unpack != nil && *tr.unpack
	return node(op), nil
}

func gitOp(ref gitref.Ref) *graph.Git {
	return &graph.Git{
		Remote: ref.Remote, Ref: ref.Ref, Subdir: ref.Subdir, Checksum: ref.Checksum,
		KeepDir: ref.KeepDir != nil && *ref.KeepDir, Submodules: ref.Submodules == nil || *ref.Submodules,
	}
}
