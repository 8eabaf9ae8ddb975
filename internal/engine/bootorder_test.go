package engine

import (
	"strings"
	"testing"
	"time"

	"berth/internal/container"

	api "github.com/moby/moby/api/types/container"
)

func TestContainersStartAfterWhatTheyDependOn(t *testing.T) {
	at := time.Unix(1000, 0)
	make1 := func(name string, labels map[string]string, mode string) *container.Container {
		at = at.Add(time.Second)
		return container.New(&container.Record{ID: strings.Repeat(name, 64)[:64], Name: name, Created: at,
			Config: &api.Config{Labels: labels}, HostConfig: &api.HostConfig{NetworkMode: api.NetworkMode(mode)}})
	}
	compose := func(service, depends string) map[string]string {
		return map[string]string{composeProject: "p", composeService: service, composeDependsOn: depends}
	}
	list := []*container.Container{
		make1("web", map[string]string{labelDependsOn: "db, cache"}, "bridge"),
		make1("side", nil, "container:"+strings.Repeat("web", 64)[:64]),
		make1("db", nil, "bridge"),
		make1("front", compose("front", "back:service_started:true"), "bridge"),
		make1("back", compose("back", ""), "bridge"),
		make1("one", map[string]string{labelDependsOn: "two"}, "bridge"),
		make1("two", map[string]string{labelDependsOn: "one"}, "bridge"),
		make1("cache", nil, "bridge"),
	}
	var names []string
	for _, c := range inOrder(list) {
		names = append(names, c.Record().Name)
	}
	if got := strings.Join(names, " "); got != "db cache web side back front two one" {
		t.Errorf("order: %s", got)
	}
}
