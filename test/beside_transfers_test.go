package test

import (
	"encoding/base64"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// registries starts two of Debian's registries: one for everybody on port 5000 and
// one for ann, whose password is secret, on port 5001.
func (h *host) registries() {
	h.t.Helper()
	if _, err := exec.LookPath("docker-registry"); err != nil {
		h.t.Skip("needs docker-registry")
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		h.t.Fatal(err)
	}
	users := h.write("users", "ann:"+string(hash)+"\n", 0o600)
	for port, access := range map[string]string{"5000": "", "5001": fmt.Sprintf("auth: {htpasswd: {realm: here, path: %s}}\n", users)} {
		config := h.write("registry"+port+".yml", fmt.Sprintf("version: 0.1\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: 127.0.0.1:%s}\n%s", h.path("registry"+port), port, access), 0o600)
		h.background("docker-registry", "serve", config)
		h.eventually("the registry answers", func() bool {
			return h.within("busybox", "nc", "-w", "1", "127.0.0.1", port, "-e", "true").Run() == nil
		})
	}
}

func TestTransfersBesideDocker(t *testing.T) {
	t.Parallel()
	b := stocked(t)
	b.registries()
	b.allowed = []difference{
		{"POST /images/127.0.0.1:5000/team/bare/push", "docker 400, berth 200", "later dockers take no credentials for none, too"},
		{"POST /images/", "missing .progress (string)", "later dockers send numbers only"},
		{"POST /images/create?fromImage=127.0.0.1:5000/team/bare&tag=1&platform=linux/s390x", "additional .error", "later dockers fail, too, when an image is for another platform than the one asked for"},
		{"POST /images/", "status: docker 200, berth 404", "what is known before anything was sent has a status"},
		{"POST /images/127.0.0.1:5000/team/bare@", "status: docker 200, berth 400", "what is known before anything was sent has a status"},
		{"POST /images/127.0.0.1:5001/", "additional .errorDetail.code", "newer command lines ask for a login by it"},
		{"GET /images/", ".ContainerConfig.", "docker's are empty where an image was not built; docker-compose 1 looks there for volumes"},
		{"GET /images/", "type of [].RepoDigests: docker ", "later dockers have lists there, for old clients too"},
		{"GET /images/x/json", "value of .Architecture", "docker 20.10 takes no platform for an import"},
		{"GET /distribution/", ".Platforms", "docker 20.10 does not look into OCI manifests"},
		{"GET /distribution/", "docker 500, berth 401", "credentials that are not good are no defect of the engine"},
		{"POST /auth", "docker 500, berth 401", "credentials that are not good are no defect of the engine"},
		{"POST /images/create", "docker 500, berth 403", "credentials that are not good are no defect of the engine"},
		{"POST /auth", "missing .IdentityToken", "later dockers leave an empty one out"},
		{"POST /images/load", "additional ", "docker shows progress of layers only that it does not have"},
		{"POST /images/load", "status: docker 200, berth 400", "what is known before anything was sent has a status"},
		{"POST /images/create?fromSrc=-", "docker 200, berth 400", "nothing at all is no archive; an archive of nothing is"},
	}
	tarball := map[string]string{"Content-Type": "application/x-tar"}
	body := func(path, body string) call { return call{method: "POST", path: path, body: body, header: tarball} }
	as := func(method, path, header string) call {
		return call{method: method, path: path, header: map[string]string{"X-Registry-Auth": header}}
	}
	encoded := func(s string) string { return base64.URLEncoding.EncodeToString([]byte(s)) }
	ann := encoded(`{"username":"ann","password":"secret","serveraddress":"127.0.0.1:5001"}`)
	bob := encoded(`{"username":"bob","password":"wrong","serveraddress":"127.0.0.1:5001"}`)
	none := encoded(`{}`)
	archive, top := readFile(t, b.path("app.tar")), readFile(t, b.path("top.tar"))
	b.make(post("/images/bare/tag?repo=127.0.0.1:5000/team/bare&tag=1"))
	b.make(post("/images/bare/tag?repo=127.0.0.1:5000/team/bare&tag=2"))
	b.make(post("/images/bare/tag?repo=127.0.0.1:5001/team/bare&tag=1"))
	b.compare([]call{
		as("POST", "/images/127.0.0.1:5000/team/bare/push?tag=1", none), as("POST", "/images/127.0.0.1:5000/team/bare/push?tag=1", ""), as("POST", "/images/127.0.0.1:5000/team/bare/push", none),
		as("POST", "/images/127.0.0.1:5000/team/bare:1/push", none), as("POST", "/images/127.0.0.1:5000/team/bare/push?tag=nosuch", none), as("POST", "/images/nosuch/push?tag=1", none),
		as("POST", "/images/127.0.0.1:5000/nosuch/push", none), as("POST", "/images/UPPER/push?tag=1", none), as("POST", "/images/127.0.0.1:5000/team/bare/push?tag=..", none),
		as("POST", "/images/127.0.0.1:5000/team/bare/push?tag=1", "%%%"), as("POST", "/images/127.0.0.1:5000/team/bare/push?tag=1", encoded("[")), post("/images/127.0.0.1:5000/team/bare/push?tag=1"),
		as("POST", "/images/127.0.0.1:5000/team/bare/push?tag=sha256:"+strings.Repeat("ab", 32), none), as("POST", "/images/127.0.0.1:5000/team/bare@sha256:"+strings.Repeat("ab", 32)+"/push", none),
		as("POST", "/images/127.0.0.1:5001/team/bare/push?tag=1", none), as("POST", "/images/127.0.0.1:5001/team/bare/push?tag=1", bob), as("POST", "/images/127.0.0.1:5001/team/bare/push?tag=1", ann),
		as("POST", "/images/create?fromImage=127.0.0.1:5000/team/bare&tag=1", none), post("/images/create?fromImage=127.0.0.1:5000/team/bare&tag=1"), post("/images/create?fromImage=127.0.0.1:5000/team/bare:1"),
		post("/images/create?fromImage=127.0.0.1:5000/team/bare:"), post("/images/create?fromImage=127.0.0.1:5000/team/bare&tag=nosuch"), post("/images/create?fromImage=127.0.0.1:5000/nosuch&tag=1"),
		post("/images/create?fromImage=UPPER"), post("/images/create?fromImage=x&tag=.."), post("/images/create?fromImage=scratch"), post("/images/create"), post("/images/create?tag=1"), post("/images/create?fromImage=127.0.0.1:1/x&tag=1"),
		post("/images/create?fromImage=127.0.0.1:5000/team/bare&tag=sha256:" + strings.Repeat("ab", 32)), post("/images/create?fromImage=127.0.0.1:5000/team/bare@sha256:12"),
		post("/images/create?fromImage=127.0.0.1:5000/team/bare&tag=1&platform=linux/s390x"), post("/images/create?fromImage=127.0.0.1:5000/team/bare&tag=1&platform=a/b/c/d"), post("/images/create?fromImage=127.0.0.1:5000/team/bare&tag=1&platform=linux/amd64"),
		as("POST", "/images/create?fromImage=127.0.0.1:5001/team/bare&tag=1", none), as("POST", "/images/create?fromImage=127.0.0.1:5001/team/bare&tag=1", bob), as("POST", "/images/create?fromImage=127.0.0.1:5001/team/bare&tag=1", ann),
		as("POST", "/images/create?fromImage=127.0.0.1:5000/team/bare&tag=1", "%%%"), as("POST", "/images/create?fromImage=127.0.0.1:5000/team/bare&tag=1", encoded("[")),
		get("/images/127.0.0.1:5000/team/bare:1/json", ".RepoTags[]"), get("/images/json?digests=1"), get("/images/127.0.0.1:5000/team/bare:1/history"),
		get("/distribution/127.0.0.1:5000/team/bare:1/json", ".Descriptor.mediaType", ".Descriptor.digest", ".Descriptor.size"), get("/distribution/127.0.0.1:5000/team/bare/json"),
		get("/distribution/127.0.0.1:5000/team/bare:nosuch/json"), get("/distribution/127.0.0.1:5000/nosuch:1/json"), as("GET", "/distribution/127.0.0.1:5001/team/bare:1/json", ann), as("GET", "/distribution/127.0.0.1:5001/team/bare:1/json", bob),
		as("GET", "/distribution/127.0.0.1:5001/team/bare:1/json", none), as("GET", "/distribution/127.0.0.1:5000/team/bare:1/json", "%%%"),
		send("/auth", `{"username":"ann","password":"secret","serveraddress":"127.0.0.1:5001"}`, ".Status"), send("/auth", `{"username":"ann","password":"wrong","serveraddress":"127.0.0.1:5001"}`),
		send("/auth", `{"serveraddress":"127.0.0.1:5001"}`), send("/auth", `{"username":"ann","password":"x","serveraddress":"127.0.0.1:5000"}`), send("/auth", `{"username":"ann","password":"secret","serveraddress":"http://127.0.0.1:5001/v2/"}`),
		body("/images/load", archive), body("/images/load?quiet=0", archive), body("/images/load?quiet=1", archive), body("/images/load", top), body("/images/load", "no archive"), post("/images/load"), body("/images/load", archive[:len(archive)/2]),
		body("/images/create?fromSrc=-&repo=imported&tag=1&message=said&changes=ENV+A=b&changes=CMD+sh", top), get("/images/imported:1/json", ".Comment", ".Config.Env[]", ".Config.Cmd[]", ".Os", ".Architecture", ".RootFS.Type", ".RootFS.Layers[]"),
		get("/images/imported:1/history", "[].Comment", "[].CreatedBy"), body("/images/create?fromSrc=-", top), body("/images/create?fromSrc=-&repo=empty", strings.Repeat("\x00", 10240)), get("/images/empty/json", ".RootFS.Layers[]", ".Size"), body("/images/create?fromSrc=-&repo=UPPER", top), body("/images/create?fromSrc=-&repo=x&tag=..", top), body("/images/create?fromSrc=-&repo=x&changes=BOGUS", top),
		body("/images/create?fromSrc=-&repo=x&changes=RUN+true", top), body("/images/create?fromSrc=-&repo=x&platform=linux/arm64", top), get("/images/x/json", ".Os", ".Architecture", ".Variant"), body("/images/create?fromSrc=-&repo=x&platform=a/b/c/d", top),
		body("/images/create?fromSrc=-&repo=x", "no archive"), post("/images/create?fromSrc=-&repo=x"), post("/images/create?fromSrc=http://127.0.0.1:1/x&repo=x"), post("/images/create?fromSrc=ftp://x/y&repo=x"), body("/images/create?fromSrc=-&repo=x@sha256:"+strings.Repeat("ab", 32), top),
		del("/images/127.0.0.1:5000/team/bare:2"), as("POST", "/images/create?fromImage=127.0.0.1:5000/team/bare", none), del("/images/imported:1"),
		send("/commit?container=nosuch", ``), send("/commit", ``),
	})
	b.checkAllowed()
}
