package solve

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"berth/internal/build/graph"
	"berth/internal/build/tree"
	"berth/internal/fault"
	"berth/internal/overlay"
)

// stepIdentity is what makes a step what it is.
type stepIdentity struct {
	key   string
	parts []Part
	slot  string
	name  string
	text  string
	kind  string
	// own tells that the step uses what only its build has: a directory of the
	// caller, a secret. It ends with that build; others that wait for it then
	// run it themselves.
	own bool
	// matches are the files that the actions of a File copy.
	matches map[int][]tree.Match
	commit  string          // of a Git
	args    map[string]bool // which of the variables are build arguments
	base    string          // the base image that is right below, as in Record
}

func (id *stepIdentity) part(name, format string, args ...any) {
	id.parts = append(id.parts, Part{name, fmt.Sprintf(format, args...)})
}

// identify computes the identity of a step from that of its inputs. What a
// caller's directory holds is looked at each time; what a stack of layers holds
// may be what one of believed says.
func (r *run) identify(ctx context.Context, n *graph.Node, inputs []Result, believed []*Import) (*stepIdentity, error) {
	id := &stepIdentity{name: n.Name, text: n.Text, matches: map[int][]tree.Match{}}
	id.slot = r.j.Project + "\x00" + n.Stage + "\x00" + strconv.Itoa(n.Index)
	id.args = map[string]bool{}
	for _, kv := range n.Args {
		k, _, _ := strings.Cut(kv, "=")
		id.args[k] = true
	}
	if len(n.Inputs) > 0 && n.Inputs[0] != nil {
		if src, ok := n.Inputs[0].Op.(*graph.Source); ok {
			id.base = src.Ref + " " + src.ID.String()
		}
	}
	var err error
	switch op := n.Op.(type) {
	case *graph.Exec:
		id.kind = "exec"
		err = r.identifyExec(id, n, op, inputs)
	case *graph.File:
		id.kind = "file"
		err = r.identifyFile(ctx, id, n, op, inputs, believed)
	case *graph.HTTP:
		id.kind = "http"
		id.part("address", "%s", op.URL)
		id.part("file", "%s %d:%d %o", op.Filename, op.UID, op.GID, op.Mode)
		id.part("checksum", "%s", op.Checksum)
	case *graph.Git:
		id.kind = "git"
		id.part("repository", "%s", op.Remote)
		id.part("reference", "%s", op.Ref)
		id.part("what of it", "%q %v %v %s", op.Subdir, op.KeepDir, op.Submodules, op.Checksum)
	default:
		return nil, fault.New(fault.Internal, "identify step", n.Name, "it has no known kind")
	}
	if err != nil {
		return nil, err
	}
	if at := r.j.epoch(); at != nil {
		id.part("SOURCE_DATE_EPOCH", "%d", at.Unix())
	}
	id.seal()
	return id, nil
}

// seal computes the key from the parts.
func (id *stepIdentity) seal() {
	h := sha256.New()
	fmt.Fprintf(h, "1 %s\n", id.kind)
	for _, p := range id.parts {
		fmt.Fprintf(h, "%q %q\n", p.Name, p.Value)
	}
	id.key = hex.EncodeToString(h.Sum(nil))
}

// identifyExec: the command, the environment, what is below and what is mounted.
// What bounds a step (memory, limits) and where its proxy is do not count: they
// decide whether it ends well, not what comes out.
func (r *run) identifyExec(id *stepIdentity, n *graph.Node, op *graph.Exec, inputs []Result) error {
	id.part("command", "%q", op.Args)
	id.part("base", "%s", chain(inputs[0].Layers))
	for _, kv := range op.Env {
		k, v, _ := strings.Cut(kv, "=")
		id.part("variable "+k, "%s", v)
	}
	id.part("user", "%s", op.User)
	id.part("directory", "%s", op.Dir)
	id.part("network", "%s", op.Network)
	id.part("security", "%v", op.Insecure)
	id.part("hosts", "%q %q", op.Hostname, op.Hosts)
	id.part("platform", "%s/%s/%s", n.Platform.OS, n.Platform.Architecture, n.Platform.Variant)
	for i, m := range op.Mounts {
		if m.Kind == graph.Secret || m.Kind == graph.SSH {
			id.own = true
		}
		what := m
		what.Input = 0
		id.part(fmt.Sprintf("mount %d", i+1), "%+v", what)
		if m.Input < 0 || m.Kind == graph.Cache {
			continue
		}
		if m.Input >= len(inputs) {
			return fault.New(fault.Invalid, "identify step", n.Name, "mount %s has no input %d", m.Target, m.Input)
		}
		id.part(fmt.Sprintf("files of mount %d", i+1), "%s", chain(inputs[m.Input].Layers))
	}
	return nil
}

// identifyFile: the actions, what is below unless that does not matter, and the
// content of what is copied.
func (r *run) identifyFile(ctx context.Context, id *stepIdentity, n *graph.Node, op *graph.File, inputs []Result, believed []*Import) error {
	for i, a := range op.Actions {
		var err error
		switch a := a.(type) {
		case *graph.Copy:
			what := *a
			what.Input = 0
			id.part(fmt.Sprintf("copy %d", i+1), "%+v", what)
			err = r.identifyCopy(ctx, id, n, i, a, inputs, believed)
		case *graph.MakeFile:
			id.part(fmt.Sprintf("file %d", i+1), "%q %s %o %+v", a.Path, digest.FromBytes(a.Data), a.Mode, a.Owner)
		case *graph.MakeDir:
			id.part(fmt.Sprintf("directory %d", i+1), "%q %o %+v", a.Path, a.Mode, a.Owner)
		}
		if err != nil {
			return err
		}
	}
	if op.Link || len(inputs) == 0 {
		id.part("base", "any")
	} else {
		id.part("base", "%s", chain(inputs[0].Layers))
	}
	return nil
}

func (r *run) identifyCopy(ctx context.Context, id *stepIdentity, n *graph.Node, i int, a *graph.Copy, inputs []Result, believed []*Import) error {
	if a.Input < 0 || a.Input >= len(n.Inputs) {
		return fault.New(fault.Invalid, "identify step", n.Name, "there is no input %d to copy from", a.Input)
	}
	name := fmt.Sprintf("files %d", i+1)
	sel := selection(a)
	in := n.Inputs[a.Input]
	local, ok := (*graph.Local)(nil), false
	if in != nil {
		local, ok = in.Op.(*graph.Local)
	}
	if ok {
		id.own = true
		c := r.j.Contexts[local.Name]
		if c == nil {
			return fault.New(fault.Invalid, "read build context", local.Name, "no such context was given").
				WithHint("give it with --build-context %s=DIRECTORY", local.Name)
		}
		d, list, m, err := r.look(ctx, in, c.Dir, sel)
		if err != nil {
			return err
		}
		id.matches[i] = m
		id.part(name, "%s", d)
		r.s.keepListing(d, list)
		return nil
	}
	d, err := r.stackDigest(ctx, in, inputs[a.Input], sel, believed)
	if err != nil {
		return err
	}
	id.part(name, "%s", d)
	return nil
}

// look selects from a caller's directory and shows that as the step that loads
// the context.
func (r *run) look(ctx context.Context, in *graph.Node, d *tree.Dir, sel tree.Selection) (digest.Digest, *tree.Contents, []tree.Match, error) {
	t := r.tasks[in]
	t.mu.Lock()
	first := !t.shown
	if first {
		t.begin(r, "")
	}
	t.mu.Unlock()
	dg, list, m, err := selected(ctx, d, sel)
	t.mu.Lock()
	defer t.mu.Unlock()
	if first {
		_ = t.end(r, err)
	} else if err == nil {
		t.info.Finished = time.Now()
	}
	return dg, list, m, err
}

func selection(a *graph.Copy) tree.Selection {
	return tree.Selection{Src: a.Src, Literal: a.Literal, Parents: a.Parents, Pattern: a.Pattern, Exclude: a.Exclude, Required: a.Required}
}

func selected(ctx context.Context, d *tree.Dir, sel tree.Selection) (digest.Digest, *tree.Contents, []tree.Match, error) {
	m, err := d.Select(ctx, sel)
	if err != nil {
		return "", nil, nil, err
	}
	dg, list, err := d.Digest(ctx, m)
	return dg, list, m, err
}

// stackDigest identifies what a selection from a stack of layers copies. The
// layers are brought into place only if that is not known yet.
func (r *run) stackDigest(ctx context.Context, n *graph.Node, res Result, sel tree.Selection, believed []*Import) (digest.Digest, error) {
	what, err := json.Marshal(sel)
	if err != nil {
		return "", err
	}
	key := digest.FromString(string(chain(res.Layers)) + string(what)).Encoded()
	if d, ok := r.s.remembered(key); ok {
		return d, nil
	}
	for _, m := range believed {
		if d, ok := m.digests[key]; ok {
			return d, nil
		}
	}
	now, err := r.present(ctx, n)
	if err != nil {
		return "", err
	}
	if chain(now.Layers) != chain(res.Layers) {
		return r.stackDigest(ctx, n, now, sel, believed) // it was made anew
	}
	t, err := r.tree(res.Layers)
	if err != nil {
		return "", err
	}
	d, list, _, err := selected(ctx, t, sel)
	if err != nil {
		return "", err
	}
	r.s.keepListing(d, list)
	r.s.remember(key, d)
	return d, nil
}

// tree opens a stack of layers for reading, for as long as the run lasts.
func (r *run) tree(layers []digest.Digest) (*tree.Dir, error) {
	id := chain(layers)
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.trees[id]; t != nil {
		return t, nil
	}
	if r.spent {
		return nil, fault.New(fault.Canceled, "read layers", "", "the build is over")
	}
	d, err := r.s.openStack(layers)
	if err != nil {
		return nil, err
	}
	r.trees[id] = d
	return d, nil
}

// openStack mounts layers, attached nowhere, for reading.
func (s *Solver) openStack(layers []digest.Digest) (*tree.Dir, error) {
	lower, err := s.stackOf(layers)
	if err != nil {
		return nil, err
	}
	if len(lower) == 1 { // the kernel wants two, or an upper one
		empty, err := s.stackOf(nil)
		if err != nil {
			return nil, err
		}
		if empty[0] != lower[0] {
			lower = append(lower, empty[0])
		} else {
			return tree.Open(lower[0], tree.Options{})
		}
	}
	fd, err := overlay.Mount(overlay.Stack{Lower: lower}, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return nil, err
	}
	return tree.At(fd, path.Base(lower[0]), tree.Options{}), nil
}
