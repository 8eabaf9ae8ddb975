package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// crossFile is how programs are built for several platforms without emulation:
// one stage runs on the builder's machine, the last only copies.
const crossFile = `FROM --platform=$BUILDPLATFORM ` + busyboxImage + ` AS tools
RUN echo tool > /tool && echo ran''once
FROM tools AS compile
ARG TARGETPLATFORM TARGETARCH BUILDPLATFORM
RUN echo "$TARGETPLATFORM $TARGETARCH on $BUILDPLATFORM by $(cat /tool)" > /program
FROM scratch
COPY --from=compile /program /program
COPY common /
`

// newPlatforms makes a host with two registries: the engine's own, which shares
// its store, and one that knows nothing of it.
func newPlatforms(t *testing.T) (h *host, registries []string) {
	t.Helper()
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("needs skopeo")
	}
	const own = "127.0.0.1:5000"
	h = newEngine(t, "--registry-listen", own)
	return h, []string{own, h.registryFor()}
}

// atRegistry returns the document that a registry has under a name.
func (h *host) atRegistry(name string, into any) digest.Digest {
	h.t.Helper()
	o := execute(h.t, h.within("skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+name))
	if o.code != 0 {
		h.t.Fatalf("skopeo inspect %s: %s", name, o.stderr)
	}
	if err := json.Unmarshal([]byte(o.stdout), into); err != nil {
		h.t.Fatal(err)
	}
	return digest.FromString(o.stdout)
}

// metadata reads what --metadata-file wrote.
func (h *host) metadata(name string) (m struct {
	Digest     string             `json:"containerimage.digest"`
	Descriptor ocispec.Descriptor `json:"containerimage.descriptor"`
	Ref        string             `json:"buildx.build.ref"`
}) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(readFile(h.t, h.path(name))), &m); err != nil {
		h.t.Fatal(err)
	}
	return m
}

func TestBuildForSeveralPlatforms(t *testing.T) {
	t.Parallel()
	h, registries := newPlatforms(t)
	dir := h.context("cross", map[string]string{"Dockerfile": crossFile, "common": "same\n"})
	for _, registry := range registries {
		name := registry + "/team/cross:1"
		shown := h.build("--platform", "linux/amd64,linux/arm64", "--platform", "linux/s390x", "-t", name, "--push", "--progress", "plain",
			"--metadata-file", h.path("metadata"), "--iidfile", h.path("iid"), dir)
		contains(t, shown, "[linux/amd64 tools 2/2] RUN echo tool", "[linux/amd64->arm64 compile 1/1] RUN", "[linux/arm64 stage-2 1/2] COPY", "[linux/s390x stage-2 2/2] COPY common /")
		if registry == registries[0] && strings.Count(shown, " ranonce\n") != 1 {
			t.Errorf("the shared stage did not run once:\n%s", shown)
		}
		var x ocispec.Index
		d := h.atRegistry(name, &x)
		m := h.metadata("metadata")
		if m.Digest != d.String() || m.Descriptor.Digest != d || m.Descriptor.MediaType != ocispec.MediaTypeImageIndex || m.Ref == "" {
			t.Errorf("at %s it is %s, the metadata says %+v", registry, d, m)
		}
		if iid := readFile(t, h.path("iid")); h.berth("image", "inspect", "-f", "{{.Id}}", iid) != h.berth("image", "inspect", "-f", "{{.Id}}", name) {
			t.Errorf("--iidfile has %s", iid)
		}
		var have []string
		for _, one := range x.Manifests {
			have = append(have, one.Platform.OS+"/"+one.Platform.Architecture)
		}
		if x.MediaType != ocispec.MediaTypeImageIndex || !slices.Equal(have, []string{"linux/amd64", "linux/arm64", "linux/s390x"}) {
			t.Errorf("%s has %s %v", registry, x.MediaType, have)
		}
		// Another tool unpacks what is for the other machine.
		execute(t, h.within("rm", "-rf", h.path("oci")))
		if o := execute(t, h.within("skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", "--all", "docker://"+name, "oci:"+h.path("oci")+":1")); o.code != 0 {
			t.Errorf("skopeo: %s", o.stderr)
		}
		// A second push finds everything, and gives it the same name.
		h.berth("push", name)
		if again := h.atRegistry(name, &x); again != d {
			t.Errorf("pushed again it is %s, was %s", again, d)
		}
	}
	h.berth("tag", registries[1]+"/team/cross:1", "cross")
	for platform, want := range map[string]string{"linux/amd64": "linux/amd64 amd64 on linux/amd64 by tool", "linux/arm64": "linux/arm64 arm64 on linux/amd64 by tool"} {
		id := h.berth("create", "--platform", platform, "cross", "/program")
		if got := h.fileOf(id, "/program"); got != want+"\n" {
			t.Errorf("for %s the program is %q", platform, got)
		}
	}
	contains(t, h.berth("build", "history", "inspect"), "linux/amd64,linux/arm64,linux/s390x")
}

// fileOf returns a file of a container.
func (h *host) fileOf(container, path string) string {
	h.t.Helper()
	to := h.path("copied")
	h.berth("cp", container+":"+path, to)
	return readFile(h.t, to)
}

// Files go out by platform, and together where they do not get in each other's
// way.
func TestFilesOfSeveralPlatforms(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	dir := h.context("files", map[string]string{"Dockerfile": crossFile, "common": "same\n"})
	both := "linux/amd64,linux/arm64"
	h.build("--platform", both, "-o", h.path("out"), dir)
	contains(t, readFile(t, h.path("out", "linux_amd64", "program")), "linux/amd64 amd64")
	contains(t, readFile(t, h.path("out", "linux_arm64", "program")), "linux/arm64 arm64")
	h.build("--platform", "linux/arm64", "-o", "type=local,platform-split=true,dest="+h.path("one"), dir)
	contains(t, readFile(t, h.path("one", "linux_arm64", "program")), "linux/arm64 arm64")

	h.build("--platform", both, "-o", "type=tar,dest="+h.path("out.tar"), dir)
	names := execute(t, h.within("tar", "tf", h.path("out.tar"))).stdout
	contains(t, names, "linux_amd64/program\n", "linux_arm64/common\n")
	if o := h.run("build", "--platform", both, "-o", "type=tar,platform-split=false,dest="+h.path("x.tar"), dir); o.code == 0 ||
		!strings.Contains(o.stderr, "common") || !strings.Contains(o.stderr, "linux/arm64") {
		t.Errorf("files in each other's way: code %d %s", o.code, o.stderr)
	}
	apart := h.context("apart", map[string]string{"Dockerfile": "FROM --platform=$BUILDPLATFORM " + busyboxImage +
		" AS b\nARG TARGETARCH\nRUN mkdir -p /o/d && echo $TARGETARCH > /o/d/$TARGETARCH\nFROM scratch\nCOPY --from=b /o /\n"})
	h.build("--platform", both, "-o", "type=local,platform-split=false,dest="+h.path("flat"), apart)
	for _, arch := range []string{"amd64", "arm64"} {
		if got := readFile(t, h.path("flat", "d", arch)); got != arch+"\n" {
			t.Errorf("%s has %q", arch, got)
		}
	}
	if o := h.run("build", "-o", "type=image,platform-split=false", dir); o.code == 0 || !strings.Contains(o.stderr, "platform-split") {
		t.Errorf("an image that is split: code %d %s", o.code, o.stderr)
	}
}

// Archives of several platforms have the digest that the metadata tells, come
// back whole, and other tools read them.
func TestArchivesOfSeveralPlatforms(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	dir := h.context("cross", map[string]string{"Dockerfile": crossFile, "common": "same\n"})
	for _, kind := range []string{"oci", "docker"} {
		h.build("--platform", "linux/amd64,linux/arm64", "-t", "arch:"+kind, "-o", "type="+kind+",dest="+h.path(kind+".tar"), "--metadata-file", h.path("m"), dir)
		execute(t, h.within("mkdir", h.path(kind)))
		execute(t, h.within("tar", "xf", h.path(kind+".tar"), "-C", h.path(kind)))
		var top ocispec.Index
		if err := json.Unmarshal([]byte(readFile(t, h.path(kind, "index.json"))), &top); err != nil {
			t.Fatal(err)
		}
		if m := h.metadata("m"); len(top.Manifests) != 1 || top.Manifests[0].Digest.String() != m.Digest {
			t.Errorf("type=%s: the archive has %+v, the metadata %s", kind, top.Manifests, m.Digest)
		}
		h.berth("rmi", "arch:"+kind)
		h.berth("load", "-i", h.path(kind+".tar"))
		h.berth("save", "-o", h.path("again.tar"), "arch:"+kind)
		if execute(t, h.within("cmp", h.path("again.tar"), h.path(kind+".tar"))).code != 0 {
			t.Errorf("type=%s: loaded and saved again, the archive is another", kind)
		}
	}
}

// What a base image does not have, and what this machine cannot run, is said by
// name.
func TestPlatformsThatAreMissing(t *testing.T) {
	t.Parallel()
	h, registries := newPlatforms(t)
	dir := h.context("cross", map[string]string{"Dockerfile": crossFile, "common": "same\n", "derived": "FROM " + registries[1] + "/base:1\nCOPY common /two\n",
		"foreign": "FROM scratch\nCOPY common /\nRUN [\"/x\"]\n", "wrong": "FROM --platform=linux/riscv64 " + registries[1] + "/base:1\nCOPY common /\n"})
	base := registries[1] + "/base:1"
	h.build("--platform", "linux/amd64,linux/arm64", "-t", base, "--push", dir)
	h.berth("rmi", "-f", base)
	h.build("--platform", "linux/arm64,linux/amd64", "-t", "derived", "-f", dir+"/derived", dir)
	if id := h.berth("create", "--platform", "linux/arm64", "derived", "/x"); !strings.Contains(h.fileOf(id, "/program"), "arm64") {
		t.Error("the base is not that of the platform")
	}
	if got := h.berth("image", "inspect", "-f", "{{.Architecture}}", base); got != "amd64" {
		t.Errorf("the base image's name means %s now", got)
	}
	for name, want := range map[string][]string{
		"derived": {"linux/riscv64", "linux/amd64", "linux/arm64"}, "wrong": {"linux/riscv64", "linux/amd64", "linux/arm64"},
	} {
		o := h.run("build", "--platform", "linux/amd64,linux/riscv64", "-f", dir+"/"+name, dir)
		if o.code == 0 {
			t.Errorf("%s: there is no base for riscv64, yet it was built", name)
		}
		contains(t, o.stderr, want...)
	}
	o := h.run("build", "--platform", "linux/amd64,linux/mips64le", "-f", dir+"/foreign", dir)
	if o.code == 0 || !strings.Contains(o.stderr, "linux/mips64le") || !strings.Contains(o.stderr, "binfmt") {
		t.Errorf("a program for another machine: code %d %s", o.code, o.stderr)
	}
	if o := h.run("build", "--platform", "linux/amd64,no such", dir); o.code == 0 || !strings.Contains(o.stderr, "no such") {
		t.Errorf("a platform that is none: code %d %s", o.code, o.stderr)
	}
	left, _ := os.ReadDir(h.path("data", "build", "tmp"))
	if len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}
