package graph

import (
	"reflect"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Share lets graphs that were made of one source for several platforms have in
// common what is the same for all of them, such as the stages that run on the
// machine's own platform: a step that two graphs need becomes one node. It must
// be called before anybody else has the graphs.
func Share(graphs []*Graph) {
	type place struct {
		stage string
		index int
	}
	known := map[place][]*Node{}
	for _, g := range graphs {
		same := map[*Node]*Node{} // of this graph -> of an earlier one, or itself
		var fresh []*Node
		for i, n := range g.Nodes {
			for j, in := range n.Inputs {
				if in != nil {
					n.Inputs[j] = same[in]
				}
			}
			at := place{n.Stage, n.Index}
			same[n] = n
			if k := slices.IndexFunc(known[at], func(other *Node) bool { return equal(n, other) }); k >= 0 {
				same[n] = known[at][k]
			} else {
				fresh = append(fresh, n)
			}
			g.Nodes[i] = same[n]
		}
		for _, n := range fresh { // steps of one graph are never put together
			at := place{n.Stage, n.Index}
			known[at] = append(known[at], n)
		}
		if g.Target != nil {
			g.Target = same[g.Target]
		}
		for i, h := range g.Image.History {
			if h.Node != nil && same[h.Node] != nil {
				g.Image.History[i].Node = same[h.Node]
			}
		}
		g.Nodes = unique(g.Nodes)
	}
}

// equal reports whether two nodes, whose inputs are shared already, do the same.
// How they are called, and the arguments that are in sight but not used, do not
// count.
func equal(a, b *Node) bool {
	return a.NoCache == b.NoCache && slices.Equal(a.Inputs, b.Inputs) && reflect.DeepEqual(a.platform(), b.platform()) &&
		reflect.DeepEqual(a.Op, b.Op)
}

// platform is what a node depends on: what comes from elsewhere and is no image
// is the same for all platforms.
func (n *Node) platform() ocispec.Platform {
	switch n.Op.(type) {
	case *Local, *HTTP, *Git:
		return ocispec.Platform{}
	}
	return n.Platform
}

// Union returns the nodes of all graphs, each once and after its inputs.
func Union(graphs []*Graph) []*Node {
	var all []*Node
	for _, g := range graphs {
		all = append(all, g.Nodes...)
	}
	return unique(all)
}

// unique drops all but the first of each node.
func unique(nodes []*Node) []*Node {
	seen := map[*Node]bool{}
	return slices.DeleteFunc(slices.Clone(nodes), func(n *Node) bool {
		if n == nil {
			return false // whoever checks the graph says so
		}
		again := seen[n]
		seen[n] = true
		return again
	})
}
