package graph

import (
	"path"
	"strings"

	"berth/internal/fault"
)

// Validate refuses graphs that no front end should make: those with cycles, with
// inputs that are not there, or with paths that mean nothing. The solver calls it
// before anything else, because front ends may get their graphs from others.
func (g *Graph) Validate() error {
	seen := map[*Node]bool{}
	for i, n := range g.Nodes {
		if n == nil || n.Op == nil || seen[n] {
			return fault.New(fault.Invalid, "check graph", "", "step %d is none, or is there twice", i+1)
		}
		for _, in := range n.Inputs {
			if in != nil && !seen[in] {
				return invalid(n, "it comes before what it needs")
			}
		}
		if err := n.validate(); err != nil {
			return err
		}
		seen[n] = true
	}
	if g.Target != nil && !seen[g.Target] {
		return fault.New(fault.Invalid, "check graph", g.Target.Name, "the target is not among the steps")
	}
	if g.Target != nil {
		if _, local := g.Target.Op.(*Local); local {
			return invalid(g.Target, "a caller's directory cannot be the target")
		}
	}
	return nil
}

func invalid(n *Node, format string, args ...any) error {
	return fault.New(fault.Invalid, "check step", n.Name, format, args...)
}

func (n *Node) validate() error {
	switch op := n.Op.(type) {
	case *Exec:
		return n.validateExec(op)
	case *File:
		return n.validateFile(op)
	case *HTTP:
		if op.Filename == "" || op.Filename == "." || op.Filename == ".." || strings.ContainsAny(op.Filename, "/\x00") {
			return invalid(n, "%q cannot be a file's name", op.Filename)
		}
		if op.Checksum != "" && op.Checksum.Validate() != nil {
			return invalid(n, "%q is not a digest", op.Checksum)
		}
	case *Source:
		for _, d := range op.DiffIDs {
			if d.Validate() != nil {
				return invalid(n, "%q is not a digest", d)
			}
		}
	}
	return nil
}

// root checks that the first input can be changed.
func (n *Node) root() error {
	if len(n.Inputs) == 0 {
		return invalid(n, "it has no root")
	}
	if in := n.Inputs[0]; in != nil {
		if _, local := in.Op.(*Local); local {
			return invalid(n, "it would change a caller's directory")
		}
	}
	return nil
}

func (n *Node) validateExec(op *Exec) error {
	if err := n.root(); err != nil {
		return err
	}
	if len(op.Args) == 0 || op.Args[0] == "" {
		return invalid(n, "it names no program")
	}
	if !path.IsAbs(op.Dir) && op.Dir != "" {
		return invalid(n, "its directory %q is not absolute", op.Dir)
	}
	for _, s := range append(append([]string{op.Dir, op.User}, op.Args...), op.Env...) {
		if strings.ContainsRune(s, 0) {
			return invalid(n, "a zero byte is in %q", s)
		}
	}
	for _, m := range op.Mounts {
		if m.NoFile && m.Kind == Secret {
			continue
		}
		if !path.IsAbs(m.Target) || path.Clean(m.Target) != m.Target || m.Target == "/" {
			return invalid(n, "nothing can be mounted at %q", m.Target)
		}
		if m.Input >= len(n.Inputs) || m.Input == 0 || m.Kind == Bind && m.Input < 0 {
			return invalid(n, "the mount at %s has no source", m.Target)
		}
		if m.Input > 0 && n.Inputs[m.Input] != nil {
			if _, local := n.Inputs[m.Input].Op.(*Local); local {
				return invalid(n, "a caller's directory cannot be mounted as it is")
			}
		}
	}
	return nil
}

func (n *Node) validateFile(op *File) error {
	if err := n.root(); err != nil {
		return err
	}
	for _, a := range op.Actions {
		switch a := a.(type) {
		case *Copy:
			if a.Input < 0 || a.Input >= len(n.Inputs) {
				return invalid(n, "there is no input %d to copy from", a.Input)
			}
			if !path.IsAbs(a.Dest) {
				return invalid(n, "the destination %q is not absolute", a.Dest)
			}
		case *MakeFile:
			if !path.IsAbs(a.Path) {
				return invalid(n, "the path %q is not absolute", a.Path)
			}
		case *MakeDir:
			if !path.IsAbs(a.Path) {
				return invalid(n, "the path %q is not absolute", a.Path)
			}
		default:
			return invalid(n, "an action is of no known kind")
		}
	}
	return nil
}
