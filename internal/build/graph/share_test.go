package graph

import (
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What runs on the builder's machine is there once, what is for one platform stays
// its own, and the same step twice in one file is done twice.
func TestWhatIsTheSameIsShared(t *testing.T) {
	host := ocispec.Platform{OS: "linux", Architecture: "amd64"}
	make := func(arch string) *Graph {
		local := &Node{Op: &Local{Name: "context"}}
		base := &Node{Op: &Source{Ref: "b"}, Stage: "build", Platform: host}
		tool := &Node{Op: &Exec{Args: []string{"tool"}}, Inputs: []*Node{base}, Stage: "build", Index: 1, Platform: host, Args: []string{"TARGETARCH=" + arch}}
		own := &Node{Op: &Exec{Args: []string{"make"}, Env: []string{"TARGETARCH=" + arch}}, Inputs: []*Node{tool}, Stage: "build", Index: 2, Platform: host}
		file := &Node{Op: &File{Actions: []Action{&Copy{Input: 1, Src: "x", Dest: "/"}, &MakeDir{Path: "/d"}}}, Inputs: []*Node{nil, own, local}, Platform: ocispec.Platform{OS: "linux", Architecture: arch}}
		return &Graph{Nodes: []*Node{local, base, tool, own, file}, Target: file, Image: Image{History: []History{{Node: tool}, {Node: file}}}}
	}
	graphs := []*Graph{make("amd64"), make("arm64"), make("arm64")}
	Share(graphs)
	for i, g := range graphs {
		if err := g.Validate(); err != nil {
			t.Fatalf("graph %d: %v", i, err)
		}
	}
	a, b, c := graphs[0], graphs[1], graphs[2]
	for i, same := range []bool{true, true, true, false, false} {
		if (a.Nodes[i] == b.Nodes[i]) != same {
			t.Errorf("step %d is shared: %v, want %v", i, !same, same)
		}
	}
	if b.Target != c.Target || b.Target == a.Target || b.Image.History[0].Node != a.Nodes[2] || b.Image.History[1].Node != b.Target {
		t.Error("targets and histories do not follow")
	}
	if n := len(Union(graphs)); n != 7 {
		t.Errorf("there are %d steps in all, want 7", n)
	}

	twice := &Graph{Nodes: []*Node{{Op: &Local{Name: "x"}}, {Op: &Local{Name: "x"}}}}
	Share([]*Graph{twice})
	if len(twice.Nodes) != 2 {
		t.Error("steps of one graph were put together")
	}
}
