package test

import (
	"strings"
	"testing"
)

func get(path string, values ...string) call { return call{method: "GET", path: path, values: values} }
func post(path string) call                  { return call{method: "POST", path: path} }
func del(path string) call                   { return call{method: "DELETE", path: path} }

// send is a request with a body.
func send(path, body string, values ...string) call {
	return call{method: "POST", path: path, body: body, values: values}
}

func TestSystemBesideDocker(t *testing.T) {
	t.Parallel()
	b := stocked(t)
	b.allowed = []difference{
		{"GET /version", "missing .GitCommit", "known of builds from a repository"},
		{"GET /version", "missing .BuildTime", "known of builds from a repository"},
		{"GET /info", "additional .CDISpecDirs", "later dockers have it, for old clients too"},
		{"GET /info", "type of .Warnings: docker null, berth list", "later dockers have a list"},
		{"GET /info", "value of .SecurityOptions[]", "later dockers say builtin"},
		{"GET /info", "missing .ExecutionDriver", "docker says <not supported>"},
		{"GET /system/df", "NetworkSettings.Networks.*.", "later dockers have it, for old clients too"},
		{"GET /system/df", "docker null, berth list", "later dockers have a list"},
		{"GET /system/df", "type of .Volumes[].Labels: docker null", "volumes without a name are marked, as later dockers do"},
		{"HEAD /", "docker 404, berth 200", "where there is GET there is HEAD"},
		{"POST /swarm/", "docker 400, berth 501", "refused whatever is asked"},
		{"GET /swarm/nosuch", "docker 404, berth 503", "refused whatever is asked"}, {"DELETE /swarm", "docker 404, berth 503", "refused whatever is asked"},
		{"GET /nodes/x/nosuch", "docker 404, berth 503", "refused whatever is asked"}, {"GET /secrets/x/update", "docker 404, berth 503", "refused whatever is asked"},
		{"GET /plugins/", "berth 501", "refused whatever is asked, with what there is instead"}, {"DELETE /plugins/", "berth 501", "refused whatever is asked"}, {"POST /plugins/", "berth 501", "refused whatever is asked"},
		{"GET /events", "docker 200, berth 400", "a filter that does not exist narrows nothing: it is named"},
		{"GET /events", "docker 500, berth 200", "docker's own client may send what it was given"},
		{"POST /session", "berth 501", "refused whatever is asked"}, {"POST /grpc", "berth 501", "refused whatever is asked"},
	}

	b.make(send("/containers/create?name=one", `{"Image":"beside/app:1","Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"none","Binds":["named:/v"]}}`))
	b.make(post("/containers/one/start"))
	b.make(send("/containers/create?name=two", `{"Image":"bare"}`))
	b.compare([]call{
		get("/_ping"), {method: "HEAD", path: "/_ping"}, post("/_ping"), get("/version", ".Os", ".Arch", ".KernelVersion"), post("/version"),
		get("/info", ".Containers", ".ContainersRunning", ".ContainersStopped", ".Images", ".NCPU", ".MemTotal", ".KernelVersion", ".OSType", ".Architecture",
			".OperatingSystem", ".CgroupVersion", ".Name", ".IPv4Forwarding", ".MemoryLimit", ".SwapLimit", ".PidsLimit", ".OomKillDisable", ".CPUShares", ".CPUSet",
			".CpuCfsPeriod", ".CpuCfsQuota", ".DefaultRuntime", ".LoggingDriver", ".IndexServerAddress", ".Swarm.LocalNodeState", ".SecurityOptions[]", ".CgroupDriver",
			".ExperimentalBuild", ".OSVersion", ".BridgeNfIptables", ".InitBinary", ".Isolation"),
		get("/system/df", ".Images[].RepoTags[]", ".Images[].Containers", ".Volumes[].UsageData.RefCount", ".Containers[].Image", ".Containers[].Names[]"), post("/system/df"),
		get("/nosuch"), get("/"), get(""), {method: "PUT", path: "/info"}, {method: "DELETE", path: "/version"}, {method: "PATCH", path: "/containers/json"}, {method: "OPTIONS", path: "/info"},
		{method: "OPTIONS", path: "/"}, {method: "HEAD", path: "/info"}, {method: "HEAD", path: "/version"}, get("/containers/json/"), get("/info/"), get("/images"), get("/volumes/"), get("/v1.24/info"),
		get("/swarm"), post("/swarm/init"), send("/swarm/join", "{}"), post("/swarm/leave"), send("/swarm/update?version=1", "{}"), get("/swarm/unlockkey"), send("/swarm/unlock", "{}"), get("/swarm/nosuch"),
		get("/nodes"), get("/nodes/x"), del("/nodes/x"), send("/nodes/x/update?version=1", "{}"), get("/services"), send("/services/create", "{}"), get("/services/x"), get("/services/x/logs?stdout=1"),
		get("/tasks"), get("/tasks/x"), get("/tasks/x/logs?stdout=1"), get("/secrets"), send("/secrets/create", "{}"), get("/configs"), send("/configs/create", "{}"), get("/configs/x"), del("/secrets/x"),
		get("/nodes/x/nosuch"), del("/swarm"), get("/secrets/x/update"),
		get("/plugins"), get("/plugins/x/json"), get("/plugins/privileges?remote=x"), del("/plugins/x"), post("/plugins/x/enable"), post("/plugins/x/disable"), get(`/plugins?filters={"enabled":["maybe"]}`), get(`/plugins?filters={"bogus":["x"]}`),
		get("/distribution/127.0.0.1:1/x/json"), get("/distribution/UPPER/json"), get("/distribution/x"), post("/distribution/x/json"), get("/distribution/" + strings.Repeat("ab", 32) + "/json"),
		send("/auth", `{`), send("/auth", `[]`), send("/auth", `{"username":1}`), send("/auth", `{"username":"a","password":"b","serveraddress":"127.0.0.1:1"}`),
		{method: "POST", path: "/auth", body: `{"username":"a"}`, header: map[string]string{"Content-Type": "text/plain"}}, send("/auth", `{"username":"a","password":"b","serveraddress":"::://"}`),
		get("/images/search"), get("/images/search?term="), get("/images/search?term=x&limit=101"), get("/images/search?term=x&limit=-1"), get("/images/search?term=x&limit=no"),
		get(`/images/search?term=x&filters={"bogus":["x"]}`), get(`/images/search?term=x&filters={"stars":["x"]}`), get(`/images/search?term=x&filters={"is-official":["x"]}`), get(`/images/search?term=x&filters={`),
		get("/images/search?term=127.0.0.1:1/x"), get("/images/search?term=https://x/y"),
		get("/events?since=x"), get("/events?until=x"), get("/events?since=2&until=1"), get("/events?since=1&until=1.5"), get(`/events?until=1&filters={`), get(`/events?until=1&filters={"bogus":["x"]}`),
		get(`/events?until=1&filters={"type":["bogus"]}`), get(`/events?until=1&filters={"event":["bogus"]}`), get("/events?since=1h&until=1"), get("/events?until=1.x"), get("/events?until=2020-01-01T00:00:00Z"),
		get("/events?since=&until=1"), get("/events?until=2020-01-01"), get("/events?since=0&until=1"), get("/events?until=1.1234567899"),
		post("/session"), post("/grpc"), post("/build/prune"), post("/build/cancel"),
	})
	b.checkAllowed()
}

func TestVolumesBesideDocker(t *testing.T) {
	t.Parallel()
	b := stocked(t)
	b.allowed = []difference{
		{"GET /volumes", ".Warnings: docker null, berth list", "an empty list is easier to read"},
		{`POST /volumes/create`, "docker 201, berth 409", "options that would have no effect are refused"},
		{"POST /volumes/create", "type of .Labels: docker null, berth object", "volumes without a name are marked, as later dockers do"},
		{"POST /volumes/create", "docker 400, berth 201", "later dockers take nothing for {}, too"},
		{`GET /volumes?filters={"dangling":["true","false"]}`, "docker 200, berth 400", "later dockers refuse it, too"},
		{"PUT /volumes/used", "docker 404, berth 503", "later dockers have it"},
	}

	nothing := strings.Repeat("ab", 32)
	b.make(send("/containers/create?name=one", `{"Image":"bare","HostConfig":{"NetworkMode":"none","Binds":["used:/v"]}}`))
	b.compare([]call{
		get("/volumes"), send("/volumes/create", `{"Name":"va","Labels":{"tier":"front"}}`, ".Name", ".Driver", ".Scope", ".Labels.*"), send("/volumes/create", `{"Name":"va"}`, ".Labels.*"), send("/volumes/create", `{}`),
		send("/volumes/create", `{"Name":"va","DriverOpts":{"type":"tmpfs","device":"tmpfs"}}`),
		post("/volumes/create"), send("/volumes/create", `{`), send("/volumes/create", `[]`), send("/volumes/create", `{"Name":1}`), send("/volumes/create", `{"Name":"va","Labels":["x"]}`), send("/volumes/create", `null`),
		send("/volumes/create", `{"Name":"x"} trailing`), send("/volumes/create", `{"Name":"../x"}`), send("/volumes/create", `{"Name":"x"}`), send("/volumes/create", `{"Name":"-x"}`), send("/volumes/create", `{"Name":"a b"}`),
		send("/volumes/create", `{"Name":"y"}`), send("/volumes/create", `{"Name":"b","Driver":"local","DriverOpts":{"bogus":"x"}}`), send("/volumes/create", `{"Name":"`+nothing+nothing+nothing+nothing+`"}`),
		send("/volumes/create", `{"Name":"t","DriverOpts":{"type":"tmpfs","device":"tmpfs","o":"size=1m"}}`, ".Options.*"), send("/volumes/create", `{"Name":"n","DriverOpts":{"type":"tmpfs"}}`), send("/volumes/create", `{"Name":"s","DriverOpts":{"size":"1m"}}`),
		{method: "POST", path: "/volumes/create", body: `{"Name":"ct"}`, header: map[string]string{"Content-Type": "text/plain"}},
		get("/volumes/va", ".Name", ".Driver", ".Scope", ".Labels.*"), get("/volumes/nosuch"), get("/volumes/.."), get("/volumes/va/b"), get("/volumes/t"),
		get("/volumes?filters="), get(`/volumes?filters={`), get(`/volumes?filters={"bogus":["x"]}`), get(`/volumes?filters={"dangling":["maybe"]}`), get(`/volumes?filters={"dangling":["true","false"]}`),
		get(`/volumes?filters={"dangling":["true"],"name":["va"]}`, ".Volumes[].Name"), get(`/volumes?filters={"dangling":["false"]}`, ".Volumes[].Name"), get(`/volumes?filters={"name":["us","t"]}`, ".Volumes[].Name"),
		get(`/volumes?filters={"name":["^va$"]}`, ".Volumes[].Name"), get(`/volumes?filters={"name":["["]}`), get(`/volumes?filters={"label":["tier=front"]}`, ".Volumes[].Name"), get(`/volumes?filters={"label":["tier","x"]}`),
		get(`/volumes?filters={"driver":["local"],"name":["used"]}`, ".Volumes[].Name"), get(`/volumes?filters={"driver":["nosuch"]}`), get(`/volumes?filters={"name":["nosuch"]}`),
		del("/volumes/used"), del("/volumes/used?force=1"), del("/volumes/nosuch"), del("/volumes/nosuch?force=1"), del("/volumes/x"), del("/volumes/y?force=true"), del("/volumes/t"), del("/volumes/n"), del("/volumes/s"), del("/volumes/ct"),
		post(`/volumes/prune?filters={"bogus":["x"]}`), post(`/volumes/prune?filters={"label":["nosuch"]}`), post(`/volumes/prune?filters={`), post(`/volumes/prune?filters={"label!":["tier"]}`), post("/volumes/prune"), get("/volumes", ".Volumes[].Name"), {method: "PUT", path: "/volumes/used?version=1", body: "{}"},
	})
	b.checkAllowed()
}
