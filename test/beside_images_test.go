package test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// appArchive writes an archive, as docker saves it, of one image with all that a
// configuration can hold, under two names, and one without names.
func (h *host) appArchive() string {
	h.t.Helper()
	base, err := os.ReadFile(h.busyboxTar())
	if err != nil {
		h.t.Fatal(err)
	}
	top := h.path("top.tar")
	if err := writeTar(top, []tarFile{{name: "data/", mode: 0o755}, {name: "data/file", mode: 0o644, body: "text\n"}}); err != nil {
		h.t.Fatal(err)
	}
	upper := readFile(h.t, top)
	config := func(layers []string, more map[string]any) string {
		full := map[string]any{"architecture": "amd64", "os": "linux", "created": "2024-05-06T07:08:09.123456789Z", "author": "somebody",
			"rootfs":  map[string]any{"type": "layers", "diff_ids": layers},
			"history": []map[string]any{{"created": "2024-05-06T07:08:08Z", "created_by": "base", "comment": "first"}, {"created": "2024-05-06T07:08:09Z", "created_by": "top"}, {"created": "2024-05-06T07:08:09Z", "created_by": "CMD", "empty_layer": true}}[:len(layers)]}
		for k, v := range more {
			full[k] = v
		}
		text, err := json.Marshal(full)
		if err != nil {
			h.t.Fatal(err)
		}
		return string(text)
	}
	app := config([]string{digestOf(base), digestOf([]byte(upper))}, map[string]any{"config": map[string]any{
		"Env": []string{"PATH=/bin"}, "Cmd": []string{"sleep", "1000"}, "Labels": map[string]string{"tier": "front"}, "User": "root", "WorkingDir": "/data",
		"ExposedPorts": map[string]any{"80/tcp": struct{}{}}, "Volumes": map[string]any{"/data": struct{}{}}, "StopSignal": "SIGTERM",
		"Healthcheck": map[string]any{"Test": []string{"CMD", "true"}, "Interval": 3600000000000}, "Entrypoint": nil, "OnBuild": nil}})
	bare := config([]string{digestOf(base)}, map[string]any{"config": map[string]any{"Cmd": []string{"sh"}}})
	manifest := `[{"Config":"app.json","RepoTags":["beside/app:1","beside/app:2"],"Layers":["base.tar","top.tar"]},{"Config":"bare.json","RepoTags":["bare:latest"],"Layers":["base.tar"]}]`
	path := h.path("app.tar")
	if err := writeTar(path, []tarFile{{name: "base.tar", mode: 0o644, body: string(base)}, {name: "top.tar", mode: 0o644, body: upper},
		{name: "app.json", mode: 0o644, body: app}, {name: "bare.json", mode: 0o644, body: bare}, {name: "manifest.json", mode: 0o644, body: manifest}}); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// stocked is both engines with the images of appArchive.
func stocked(t *testing.T) *beside {
	t.Helper()
	b := newBeside(t)
	archive := readFile(t, b.appArchive())
	b.make(call{method: "POST", path: "/images/load", body: archive, header: map[string]string{"Content-Type": "application/x-tar"}})
	return b
}

func TestImagesBesideDocker(t *testing.T) {
	t.Parallel()
	b := stocked(t)
	b.allowed = []difference{
		{`GET /images/json?filters={"reference":{"bare":false}}`, "", "what a filter says is false does not narrow"},
		{`GET /images/json?filters={"dangling":["true","false"]}`, "docker 200, berth 400", "later dockers refuse it, too"},
		{`GET /images/json?filters={"until":["1h"]}`, "docker 400, berth 200", "later dockers have it"},
		{"GET /images/", ".ContainerConfig.", "docker's are empty where an image was not built; docker-compose 1 looks there for volumes"},
		{"GET /images/", "Labels: docker object, berth null", "an image without labels, committed: docker has no word of its own for it either"},
		{"GET /images/get", "docker 200, berth 400", "an archive without images is of no use to anyone"},
		{"GET /images/", "type of [].RepoDigests: docker ", "later dockers have lists there, for old clients too"},
	}
	b.know("bareid", "Id", b.make(call{method: "GET", path: "/images/bare/json"}))
	bare, nothing := b.words["bareid"][0], strings.Repeat("ab", 32)
	b.compare([]call{
		get("/images/json", "[].Id", "[].RepoTags[]", "[].Created", "[].SharedSize", "[].Containers", "[].ParentId"),
		get("/images/json?all=1"), get("/images/json?digests=1"), get("/images/json?all=maybe"), get("/images/json?shared-size=1"),
		get("/images/json?filter=bare", "[].RepoTags[]"), get("/images/json?filter=beside/app:1", "[].RepoTags[]"),
		get(`/images/json?filters={"reference":["beside/*"]}`, "[].RepoTags[]"), get(`/images/json?filters={"reference":["*:1"]}`, "[].RepoTags[]"),
		get(`/images/json?filters={"reference":["*/*:2"]}`, "[].RepoTags[]"), get(`/images/json?filters={"reference":["bare"]}`, "[].RepoTags[]"),
		get(`/images/json?filters={"reference":["["]}`), get(`/images/json?filters={"reference":["docker.io/library/bare"]}`, "[].RepoTags[]"),
		get(`/images/json?filters={"reference":{"bare":true}}`, "[].RepoTags[]"), get(`/images/json?filters={"reference":{"bare":false}}`, "[].RepoTags[]"),
		get(`/images/json?filters={"dangling":["true"]}`), get(`/images/json?filters={"dangling":["false"]}`, "[].RepoTags[]"),
		get(`/images/json?filters={"dangling":["maybe"]}`), get(`/images/json?filters={"dangling":["1","0"]}`), get(`/images/json?filters={"dangling":["true","false"]}`),
		get(`/images/json?filters={"label":["tier=front"]}`, "[].RepoTags[]"), get(`/images/json?filters={"label":["tier"]}`, "[].RepoTags[]"),
		get(`/images/json?filters={"label":["tier=back"]}`), get(`/images/json?filters={"label!":["tier"]}`),
		get(`/images/json?filters={"before":["bare"]}`, "[].RepoTags[]"), get(`/images/json?filters={"since":["bare"]}`, "[].RepoTags[]"),
		get(`/images/json?filters={"before":["nosuch"]}`), get(`/images/json?filters={"since":["nosuch"]}`), get(`/images/json?filters={"before":["UPPER"]}`),
		get(`/images/json?filters={"before":["bare","beside/app:1"]}`),
		get(`/images/json?filters={"until":["1h"]}`), get(`/images/json?filters={"until":["never"]}`), get(`/images/json?filters={"bogus":["x"]}`),
		get(`/images/json?filters={`), get(`/images/json?filters=[]`), get(`/images/json?filters=null`), get(`/images/json?filters={}`), get(`/images/json?filters=""`),
		get(`/images/json?filters={"dangling":"true"}`), get(`/images/json?filters={"dangling":[true]}`), get(`/images/json?filters={"dangling":[]}`),
		get("/images/bare/json", ".Id", ".RepoTags[]", ".Created", ".Author", ".Comment", ".Architecture", ".Os", ".DockerVersion", ".Parent"),
		get("/images/beside/app:1/json", ".Id", ".RepoTags[]", ".Created", ".Author", ".Comment", ".RootFS.Layers[]", ".RootFS.Type", ".Config.Env[]",
			".Config.Cmd[]", ".Config.WorkingDir", ".Config.User", ".Config.StopSignal", ".Config.Image", ".Config.Hostname", ".Config.AttachStdin"),
		get("/images/beside/app/json"), get("/images/nosuch/json"), get("/images/UPPER/json"), get("/images/" + nothing + "/json"), get("/images/sha256:" + nothing + "/json"),
		get("/images/sha256:zz/json"), get("/images/" + bare + "/json"), get("/images/" + bare[7:] + "/json"), get("/images/" + bare[7:19] + "/json"), get("/images/" + bare[:19] + "/json"),
		get("/images/bare@sha256:" + nothing + "/json"), get("/images/bare@sha256:12/json"), get("/images/json/json"), get("/images//json"), get("/images/bare:/json"),
		get("/images/docker.io/library/bare:latest/json", ".RepoTags[]"), get("/images/docker.io/bare/json"), get("/images/a/b/c/d/json"),
		get("/images/bare/history", "[].Id", "[].Created", "[].CreatedBy", "[].Comment", "[].Tags[]"),
		get("/images/beside/app:2/history", "[].Created", "[].CreatedBy", "[].Comment", "[].Tags[]"), get("/images/nosuch/history"), get("/images/UPPER/history"),
		get("/images/nosuch/get"), get("/images/get"), get("/images/get?names=nosuch"), get("/images/get?names=UPPER"), get("/images/get?names=bare&names=nosuch"),
		get("/images/get?names="), get("/images/bare/nosuch"), get("/images/bare"), post("/images/bare"), call{method: "PUT", path: "/images/bare/json"}, post("/images/json"),
		post("/images/bare/tag"), post("/images/bare/tag?repo=x"), post("/images/bare/tag?repo=x&tag=2"), post("/images/bare/tag?repo=UPPER"), post("/images/bare/tag?repo=x&tag=.."),
		post("/images/bare/tag?repo=x:3"), post("/images/bare/tag?repo=x:3&tag=4"), post("/images/bare/tag?repo=x@sha256:" + nothing), post("/images/nosuch/tag?repo=x"),
		post("/images/bare/tag?repo=" + nothing), post("/images/bare/tag?repo=sha256"), post("/images/bare/tag?repo=sha256:12"), post("/images/bare/tag?repo=x&tag=2&force=1"),
		post("/images/bare/tag?tag=2"), post("/images/bare/tag?repo=localhost:5000/x"),
		get("/images/x:3/json", ".RepoTags[]"), del("/images/x:3"), del("/images/x:2"), del("/images/x"), del("/images/x:4"), del("/images/x:nosuch"),
		del("/images/nosuch"), del("/images/UPPER"), del("/images/sha256:" + nothing), del("/images/localhost:5000/x"), del("/images/sha256:12"),
		post("/images/prune"), post(`/images/prune?filters={"dangling":["maybe"]}`), post(`/images/prune?filters={"bogus":["x"]}`), post(`/images/prune?filters={"until":["never"]}`),
		post(`/images/prune?filters={"until":["1h","2h"]}`), post(`/images/prune?filters={"label":["a=b"]}`), post(`/images/prune?filters={`),
	})
	// An image made from another, and containers that use it.
	b.make(call{method: "POST", path: "/containers/create?name=one", body: `{"Image":"bare","Cmd":["true"]}`})
	b.know("child", "Id", b.make(call{method: "POST", path: "/commit?container=one&repo=child:3&tag=4&comment=said&author=me&changes=ENV+A=b"}))
	b.make(call{method: "POST", path: "/containers/create?name=two", body: `{"Image":"child:4","Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"none"}}`})
	b.make(call{method: "POST", path: "/containers/two/start"})
	b.compare([]call{
		get("/images/$child/json", ".RepoTags[]", ".Parent", ".Comment", ".Author", ".Config.Env[]"), get("/images/child:4/history", "[].Comment", "[].Tags[]"),
		get("/images/json?all=1", "[].RepoTags[]"), get(`/images/json?filters={"before":["child:4"]}`, "[].RepoTags[]"), get(`/images/json?filters={"since":["bare"]}`, "[].RepoTags[]"),
		del("/images/child:4"), del("/images/$child"), del("/images/child:4?force=1"), del("/images/$child?force=1"), del("/images/bare"), del("/images/" + bare),
		del("/images/" + bare + "?force=1"), get("/images/json", "[].RepoTags[]"), get("/images/json?all=1", "[].RepoTags[]"),
	})
	b.checkAllowed()
}
