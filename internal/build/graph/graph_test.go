package graph

import (
	"testing"

	"github.com/opencontainers/go-digest"

	"berth/internal/fault"
)

func TestMalformedGraphsAreRefused(t *testing.T) {
	root := &Node{Op: &File{}, Inputs: []*Node{nil}}
	local := &Node{Op: &Local{Name: "context"}}
	exec := func(e Exec, in ...*Node) *Node {
		if e.Args == nil {
			e.Args = []string{"x"}
		}
		return &Node{Op: &e, Inputs: in}
	}
	loop := &Node{Op: &File{}}
	loop.Inputs = []*Node{loop}
	for name, g := range map[string]*Graph{
		"nil node":           {Nodes: []*Node{nil}},
		"no kind":            {Nodes: []*Node{{}}},
		"twice":              {Nodes: []*Node{root, root}},
		"cycle":              {Nodes: []*Node{loop}},
		"wrong order":        {Nodes: []*Node{{Op: &File{}, Inputs: []*Node{root}}, root}},
		"foreign target":     {Nodes: []*Node{root}, Target: &Node{}},
		"local target":       {Nodes: []*Node{local}, Target: local},
		"no root":            {Nodes: []*Node{exec(Exec{})}},
		"file without root":  {Nodes: []*Node{{Op: &File{}}}},
		"local as root":      {Nodes: []*Node{local, exec(Exec{}, local)}},
		"local mounted":      {Nodes: []*Node{local, exec(Exec{Mounts: []Mount{{Kind: Bind, Target: "/x", Input: 1}}}, nil, local)}},
		"no program":         {Nodes: []*Node{exec(Exec{Args: []string{""}}, nil)}},
		"zero byte":          {Nodes: []*Node{exec(Exec{Env: []string{"a=\x00"}}, nil)}},
		"mount on root":      {Nodes: []*Node{exec(Exec{Mounts: []Mount{{Kind: Tmpfs, Target: "/", Input: -1}}}, nil)}},
		"mount up":           {Nodes: []*Node{exec(Exec{Mounts: []Mount{{Kind: Tmpfs, Target: "/x/../..", Input: -1}}}, nil)}},
		"mount of nothing":   {Nodes: []*Node{exec(Exec{Mounts: []Mount{{Kind: Bind, Target: "/x", Input: 7}}}, nil)}},
		"bind of no input":   {Nodes: []*Node{exec(Exec{Mounts: []Mount{{Kind: Bind, Target: "/x", Input: -1}}}, nil)}},
		"copy from nowhere":  {Nodes: []*Node{{Op: &File{Actions: []Action{&Copy{Input: 3, Dest: "/"}}}, Inputs: []*Node{nil}}}},
		"relative":           {Nodes: []*Node{{Op: &File{Actions: []Action{&MakeDir{Path: "x"}}}, Inputs: []*Node{nil}}}},
		"file name":          {Nodes: []*Node{{Op: &HTTP{Filename: "../x"}}}},
		"digest":             {Nodes: []*Node{{Op: &Source{DiffIDs: []digest.Digest{"sha256:../../x"}}}}},
		"unknown action":     {Nodes: []*Node{{Op: &File{Actions: []Action{nil}}, Inputs: []*Node{nil}}}},
		"relative directory": {Nodes: []*Node{exec(Exec{Dir: "x"}, nil)}},
	} {
		if err := g.Validate(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (&Graph{Nodes: []*Node{root, local, exec(Exec{}, root)}, Target: root}).Validate(); err != nil {
		t.Error(err)
	}
}
