package engine

import (
	"slices"
	"strings"

	"berth/internal/container"
	"berth/internal/engine/vocabulary"
)

// Labels that name what a container depends on, in the order of a start: our own,
// by the names of containers, and compose's, by the services of its project, each
// with a condition after a colon.
const (
	labelDependsOn   = "berth.depends-on"
	composeDependsOn = "com.docker.compose.depends_on"
	composeService   = "com.docker.compose.service"
	composeProject   = "com.docker.compose.project"
)

// inOrder sorts containers that are to be started so that each comes after those
// it depends on; where they depend on one another in a circle, the oldest is first.
func inOrder(list []*container.Container) []*container.Container {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b *container.Container) int { return a.Record().Created.Compare(b.Record().Created) })
	out := make([]*container.Container, 0, len(list))
	const entered, left = 1, 2
	seen := make(map[string]int, len(list))
	var visit func(c *container.Container)
	visit = func(c *container.Container) {
		if seen[c.ID] != 0 {
			return
		}
		seen[c.ID] = entered
		for _, other := range list {
			if other.ID != c.ID && dependsOn(c.Record(), other.Record()) {
				visit(other)
			}
		}
		seen[c.ID] = left
		out = append(out, c)
	}
	for _, c := range list {
		visit(c)
	}
	return out
}

// dependsOn tells whether a container is to be started after another one: it says
// so in a label, or it shares a namespace of it or has a link to it.
func dependsOn(rec, other *container.Record) bool {
	named := func(ref string) bool {
		return ref != "" && (ref == other.Name || ref == other.ID || len(ref) >= 12 && strings.HasPrefix(other.ID, ref))
	}
	for ref := range strings.SplitSeq(rec.Config.Labels[labelDependsOn], ",") {
		if named(strings.TrimPrefix(strings.TrimSpace(ref), "/")) {
			return true
		}
	}
	if project := rec.Config.Labels[composeProject]; project != "" && project == other.Config.Labels[composeProject] {
		for ref := range strings.SplitSeq(rec.Config.Labels[composeDependsOn], ",") {
			service, _, _ := strings.Cut(ref, ":")
			if service != "" && service == other.Config.Labels[composeService] {
				return true
			}
		}
	}
	if slices.ContainsFunc(rec.HostConfig.Links, func(l string) bool { name, _ := vocabulary.Link(l); return named(name) }) {
		return true
	}
	return slices.ContainsFunc(joiningModes(rec.HostConfig), func(mode *string) bool { return named(vocabulary.Joined(*mode)) })
}
