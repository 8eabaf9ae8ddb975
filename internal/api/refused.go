package api

import (
	"net/http"

	"berth/internal/engine/filter"
	"berth/internal/fault"
)

// refusal is an endpoint of the Docker API which this engine answers, by name,
// that it does not offer it.
type refusal struct {
	pattern string
	what    string // a noun phrase for "... is not offered by this engine yet"
	instead string // what to use now; may be empty
	swarm   string // docker's sentence for an engine outside of a swarm; answered with 503
}

// docker's own sentences: clients print them and some look for them.
const (
	notManager = `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`
	notMember  = "This node is not part of a swarm"
	noSwarm    = "swarm mode"
	useBuild   = "use berth build, or set DOCKER_BUILDKIT=0"
	builtIn    = "the drivers bridge (networks), local (volumes) and those for logs are built in"
	useNomad   = "this engine runs single-node workloads; use an orchestrator such as Nomad on top of it"
)

// refusals lists the rest of the Docker API.
var refusals = []refusal{
	{pattern: "GET /containers/{id}/checkpoints", what: "checkpoints", instead: "stop and start: a container's files stay"},
	{pattern: "POST /containers/{id}/checkpoints", what: "checkpoints", instead: "stop and start: a container's files stay"},
	{pattern: "DELETE /containers/{id}/checkpoints/{checkpoint}", what: "checkpoints", instead: "stop and start: a container's files stay"},

	{pattern: "POST /session", what: "build sessions", instead: useBuild},
	{pattern: "POST /grpc", what: "the BuildKit control interface", instead: useBuild},

	{pattern: "PUT /volumes/{name}", swarm: notManager},

	{pattern: "GET /plugins/{name...}", what: "plugins", instead: builtIn},
	{pattern: "POST /plugins/{name...}", what: "plugins", instead: builtIn},
	{pattern: "DELETE /plugins/{name...}", what: "plugins", instead: builtIn},

	{pattern: "POST /swarm/init", what: noSwarm, instead: useNomad},
	{pattern: "POST /swarm/join", what: noSwarm, instead: useNomad},
	{pattern: "POST /swarm/leave", swarm: notMember},
	{pattern: "/swarm", swarm: notManager},
	{pattern: "/swarm/{rest...}", swarm: notManager},
	{pattern: "/nodes", swarm: notManager},
	{pattern: "/nodes/{rest...}", swarm: notManager},
	{pattern: "/services", swarm: notManager},
	{pattern: "/services/{rest...}", swarm: notManager},
	{pattern: "/tasks", swarm: notManager},
	{pattern: "/tasks/{rest...}", swarm: notManager},
	{pattern: "/secrets", swarm: notManager},
	{pattern: "/secrets/{rest...}", swarm: notManager},
	{pattern: "/configs", swarm: notManager},
	{pattern: "/configs/{rest...}", swarm: notManager},
}

func (rf refusal) serve(*exchange) error {
	if rf.swarm != "" {
		return fault.New(fault.Unavailable, "", "", "%s", rf.swarm)
	}
	return notOffered(rf.what, rf.instead)
}

// notOffered says by name what this engine does not do yet.
func notOffered(what, instead string) error {
	err := fault.New(fault.Unsupported, "", "", "%s: not offered by this engine yet", what)
	if instead != "" {
		return err.WithHint("%s", instead)
	}
	return err
}

// listPlugins answers that there are none: clients list them to find out what
// they can use.
func listPlugins(x *exchange) error {
	f, err := filter.Parse(x.query("filters"))
	if err != nil {
		return err
	}
	if err := f.Check("capability", "enabled"); err != nil {
		return err
	}
	if _, err := f.Bool("enabled", false); err != nil {
		return err
	}
	return x.reply(http.StatusOK, []struct{}{})
}
