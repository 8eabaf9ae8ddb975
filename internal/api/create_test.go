package api

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What clients send for `run alpine true`, recorded from their sources: fields
// that today's types lack are in all of them.
const (
	docker20 = `{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":true,"AttachStderr":true,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":["true"],"Image":"alpine","Volumes":{},"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":{},
"HostConfig":{"Binds":null,"ContainerIDFile":"","LogConfig":{"Type":"","Config":{}},"NetworkMode":"default","PortBindings":{},"RestartPolicy":{"Name":"no","MaximumRetryCount":0},"AutoRemove":false,"VolumeDriver":"","VolumesFrom":null,"CapAdd":null,"CapDrop":null,"CgroupnsMode":"","Dns":[],"DnsOptions":[],"DnsSearch":[],"ExtraHosts":null,"GroupAdd":null,"IpcMode":"","Cgroup":"","Links":null,"OomScoreAdj":0,"PidMode":"","Privileged":false,"PublishAllPorts":false,"ReadonlyRootfs":false,"SecurityOpt":null,"UTSMode":"","UsernsMode":"","ShmSize":0,"ConsoleSize":[0,0],"Isolation":"","CpuShares":0,"Memory":0,"NanoCpus":0,"CgroupParent":"","BlkioWeight":0,"BlkioWeightDevice":[],"BlkioDeviceReadBps":null,"BlkioDeviceWriteBps":null,"BlkioDeviceReadIOps":null,"BlkioDeviceWriteIOps":null,"CpuPeriod":0,"CpuQuota":0,"CpuRealtimePeriod":0,"CpuRealtimeRuntime":0,"CpusetCpus":"","CpusetMems":"","Devices":[],"DeviceCgroupRules":null,"DeviceRequests":null,"KernelMemory":0,"KernelMemoryTCP":0,"MemoryReservation":0,"MemorySwap":0,"MemorySwappiness":-1,"OomKillDisable":false,"PidsLimit":0,"Ulimits":null,"CpuCount":0,"CpuPercent":0,"IOMaximumIOps":0,"IOMaximumBandwidth":0,"MaskedPaths":null,"ReadonlyPaths":null},"NetworkingConfig":{"EndpointsConfig":{}}}`
	dockerPy5 = `{"Hostname":null,"Domainname":null,"ExposedPorts":null,"User":null,"Tty":false,"OpenStdin":false,"StdinOnce":false,"AttachStdin":false,"AttachStdout":true,"AttachStderr":true,"Env":null,"Cmd":["true"],"Image":"alpine","Volumes":null,"NetworkDisabled":false,"Entrypoint":null,"WorkingDir":null,"MacAddress":null,"Labels":null,"StopSignal":null,"Healthcheck":null,"StopTimeout":null,"Runtime":null,"HostConfig":{"NetworkMode":"default"},"NetworkingConfig":null}`
	ancient   = `{"Image":"alpine","Cmd":"true","Entrypoint":"/bin/sh","HostConfig":{"PublishAllPorts":true}}`
)

// created sends a create request and returns what the engine was asked.
func created(t *testing.T, path, body string) (container.CreateRequest, *ocispec.Platform) {
	t.Helper()
	var got container.CreateRequest
	var platform *ocispec.Platform
	e := &stub{create: func(_ string, req container.CreateRequest, p *ocispec.Platform) (container.CreateResponse, error) {
		got, platform = req, p
		return container.CreateResponse{ID: "abc"}, nil
	}}
	w := ask(t, e, "POST", path, body)
	if w.Code != http.StatusCreated {
		t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	if want := `{"Id":"abc","Warnings":[]}`; strings.TrimSpace(w.Body.String()) != want {
		t.Fatalf("%s: answer %s, want %s", path, w.Body, want)
	}
	return got, platform
}

func TestCreateUnderstandsClientsOfAllAges(t *testing.T) {
	for _, body := range []string{docker20, dockerPy5} {
		req, _ := created(t, "/v1.41/containers/create?name=x", body)
		if req.Image != "alpine" || len(req.Cmd) != 1 || req.Cmd[0] != "true" || req.HostConfig.NetworkMode != "default" {
			t.Errorf("got %+v", req)
		}
		if req.NetworkingConfig == nil || req.HostConfig.PidsLimit != nil {
			t.Errorf("got %+v, %+v", req.NetworkingConfig, req.HostConfig)
		}
	}
	req, _ := created(t, "/v1.24/containers/create", ancient)
	if len(req.Cmd) != 1 || req.Cmd[0] != "true" || req.Entrypoint[0] != "/bin/sh" {
		t.Errorf("words as one string: %q %q", req.Entrypoint, req.Cmd)
	}
	if req.HostConfig.IpcMode != container.IPCModeShareable {
		t.Errorf("before 1.40 the IPC namespace was shareable, got %q", req.HostConfig.IpcMode)
	}
}

func TestCreateRefusesByName(t *testing.T) {
	for _, c := range []struct{ version, body, want string }{
		{"1.56", `{"Image":"a","HostConfig":{"KernelMemory":5}}`, "HostConfig.KernelMemory"},
		{"1.40", `{"Image":"a","HostConfig":{"Capabilities":["CAP_CHOWN"]}}`, "HostConfig.Capabilities"},
		{"1.56", `{"Image":"a","MacAddress":"02:42:ac:11:00:02"}`, "container-wide MAC address"},
		{"1.56", `{"Image":"a","Runtime":"runc","HostConfig":{"Runtime":"crun"}}`, "conflicting fields"},
		{"1.43", `{"Image":"a","NetworkingConfig":{"EndpointsConfig":{"a":{},"b":{}}}}`, "multiple network endpoints: a, b"},
		{"1.47", `{"Image":"a","HostConfig":{"Mounts":[{"Type":"image"}]}}`, "needs API v1.48"},
		{"1.44", `{"Image":"a","HostConfig":{"Mounts":[{"Type":"volume","VolumeOptions":{"Subpath":"x"}}]}}`, "needs API v1.45"},
		{"1.56", `{"Image":"a","HostConfig":{"Mounts":[{"Type":"bind","TmpfsOptions":{"SizeBytes":1}}]}}`, "TmpfsOptions must not"},
		{"1.56", `{"Image":5}`, "invalid JSON"},
		{"1.56", `{"Image":"a"`, "invalid JSON"},
		{"1.56", `{"Image":"a"} x`, "unexpected content after JSON"},
		{"1.56", `{"Image":"a","HostConfig":{"Dns":["nowhere"]}}`, "nowhere"},
		{"1.56", `{"HostConfig":{}}`, "config cannot be empty"},
		{"1.56", ``, "config cannot be empty"},
		{"1.56", `null`, "config cannot be empty"},
	} {
		w := ask(t, &stub{}, "POST", "/v"+c.version+"/containers/create", c.body)
		if w.Code < 400 || w.Code >= 500 && w.Code != http.StatusNotImplemented || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %s: %d %s, want %q", c.version, c.body, w.Code, w.Body, c.want)
		}
		wantMessage(t, c.body, w.Header(), w.Body.Bytes())
	}
}

func TestUnknownFieldsThatAskForNothingAreIgnored(t *testing.T) {
	req, _ := created(t, "/containers/create", `{"Image":"a","Sparkle":false,"HostConfig":{"Warp":{"Factor":0,"Names":[""]},"Memory":7,"Flux":null}}`)
	if req.Image != "a" || req.HostConfig.Memory != 7 {
		t.Errorf("the known fields got lost: %+v %+v", req.Config, req.HostConfig)
	}
}

// dockerode sends all options of a create as parameters and in the body.
func TestUnknownFieldsWithAMeaningAreWarnedOf(t *testing.T) {
	for _, c := range []struct{ target, body, want string }{
		{"", `{"Image":"a","Sparkle":true}`, "Sparkle"},
		{"", `{"Image":"a","HostConfig":{"Warp":{"Factor":9}}}`, "HostConfig.Warp"},
		{"", `{"Image":"a","HostConfig":{"Mounts":[{"Type":"bind","Shiny":"yes"}]}}`, "HostConfig.Mounts.Shiny"},
		{"", `{"Image":"a","NetworkingConfig":{"EndpointsConfig":{"n":{"Hue":3}}}}`, "NetworkingConfig.EndpointsConfig.n.Hue"},
		{"?name=web", `{"Image":"a","name":"web"}`, ""},
		{"", `{"Image":"a","name":"web"}`, "name"},
	} {
		w := ask(t, &stub{}, "POST", "/containers/create"+c.target, c.body)
		var answer container.CreateResponse
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusCreated {
			t.Errorf("%s: %d %s", c.body, w.Code, w.Body)
			continue
		}
		want := []string{}
		if c.want != "" {
			want = append(want, "the API has no field "+c.want+": it was passed over and has no effect")
		}
		if !slices.Equal(answer.Warnings, want) {
			t.Errorf("%s: warnings %q, want %q", c.body, answer.Warnings, want)
		}
	}
}

func TestCreateKeepsTheMeaningOfTheClientsVersion(t *testing.T) {
	mounts := `"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true}]`
	for _, c := range []struct {
		version, body string
		check         func(container.CreateRequest) bool
	}{
		{"1.43", `{"Image":"a","HostConfig":{` + mounts + `}}`, func(r container.CreateRequest) bool {
			return r.HostConfig.Mounts[0].BindOptions.ReadOnlyNonRecursive
		}},
		{"1.44", `{"Image":"a","HostConfig":{` + mounts + `}}`, func(r container.CreateRequest) bool {
			return r.HostConfig.Mounts[0].BindOptions == nil
		}},
		{"1.41", `{"Image":"a","HostConfig":{"ConsoleSize":[5,6],"Annotations":{"a":"b"},"Umask":18}}`, func(r container.CreateRequest) bool {
			return r.HostConfig.ConsoleSize == [2]uint{} && r.HostConfig.Annotations == nil && r.HostConfig.Umask == nil
		}},
		{"1.56", `{"Image":"a","HostConfig":{"ConsoleSize":[5,6],"Annotations":{"a":"b"},"Umask":18}}`, func(r container.CreateRequest) bool {
			return r.HostConfig.ConsoleSize == [2]uint{5, 6} && r.HostConfig.Annotations["a"] == "b" && *r.HostConfig.Umask == 18
		}},
		{"1.41", `{"Image":"a","HostConfig":{"Mounts":[{"Type":"tmpfs","Target":"/t","VolumeOptions":{},"BindOptions":{}}]}}`, func(r container.CreateRequest) bool {
			return r.HostConfig.Mounts[0].Type == mount.TypeTmpfs && r.HostConfig.Mounts[0].VolumeOptions == nil
		}},
		{"1.41", `{"Image":"a","MacAddress":"02:42:ac:11:00:02"}`, func(r container.CreateRequest) bool {
			return r.NetworkingConfig.EndpointsConfig["default"].MacAddress.String() == "02:42:ac:11:00:02"
		}},
		{"1.41", `{"Image":"a","NetworkingConfig":{"EndpointsConfig":{"bridge":{"MacAddress":"02:42:ac:11:00:02"}}}}`, func(r container.CreateRequest) bool {
			return len(r.NetworkingConfig.EndpointsConfig["bridge"].MacAddress) == 0
		}},
		{"1.51", `{"Image":"a","HostConfig":{"PortBindings":{"80/tcp":[]}}}`, func(r container.CreateRequest) bool {
			for _, b := range r.HostConfig.PortBindings {
				return len(b) == 1
			}
			return false
		}},
		{"1.44", `{"Image":"a","Runtime":"crun","HostConfig":{"PidsLimit":-1}}`, func(r container.CreateRequest) bool {
			return r.HostConfig.Runtime == "crun" && r.HostConfig.PidsLimit == nil
		}},
	} {
		if req, _ := created(t, "/v"+c.version+"/containers/create", c.body); !c.check(req) {
			out, _ := json.Marshal(req)
			t.Errorf("%s %s: engine was asked %s", c.version, c.body, out)
		}
	}
}

func TestMovingTheMACAddressWarnsSince144(t *testing.T) {
	w := ask(t, &stub{}, "POST", "/v1.44/containers/create", `{"Image":"a","MacAddress":"02:42:ac:11:00:02"}`)
	if w.Code != http.StatusCreated || !strings.Contains(w.Body.String(), "deprecated") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestVolumeDriverThatMountsIgnoreIsNamedSince148(t *testing.T) {
	for _, c := range []struct {
		version, mount string
		warned         bool
	}{
		{"1.48", `{"Type":"volume","Target":"/v"}`, true},
		{"1.47", `{"Type":"volume","Target":"/v"}`, false},
		{"1.48", `{"Type":"volume","Target":"/v","VolumeOptions":{"DriverConfig":{"Name":"local"}}}`, false},
		{"1.48", `{"Type":"tmpfs","Target":"/v"}`, false},
	} {
		w := ask(t, &stub{}, "POST", "/v"+c.version+"/containers/create", `{"Image":"a","HostConfig":{"VolumeDriver":"local","Mounts":[`+c.mount+`]}}`)
		if w.Code != http.StatusCreated || strings.Contains(w.Body.String(), "VolumeDriver") != c.warned {
			t.Errorf("%s %s: %d %s", c.version, c.mount, w.Code, w.Body)
		}
	}
}

func TestBodiesAreCheckedBeforeTheyAreRead(t *testing.T) {
	big := `{"Image":"` + strings.Repeat("a", maxBody) + `"}`
	if w := ask(t, &stub{}, "POST", "/containers/create", big); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("large body: %d", w.Code)
	}
	for _, ct := range []string{"", "text/plain", "application/x-www-form-urlencoded"} {
		r := newRequest("POST", "/containers/create", `{"Image":"a"}`, ct)
		w := newRecorder()
		New(&stub{}, nil).ServeHTTP(w, r)
		// A page in a browser can send these without being asked whether it may.
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "Content-Type") {
			t.Errorf("content type %q: %d %s", ct, w.Code, w.Body)
		}
	}
}

func TestPlatformsAreReadLikeDockerReadsThem(t *testing.T) {
	for in, want := range map[string]string{
		"linux/arm64": "linux/arm64", "linux/arm64/v8": "linux/arm64", "linux/x86_64": "linux/amd64", "linux/arm/v6": "linux/arm/v6",
		"aarch64": "linux/arm64", "linux/armhf": "linux/arm/v7", "linux/386": "linux/386", "LINUX/AMD64": "linux/amd64",
		`{"os":"linux","architecture":"amd64"}`: "linux/amd64",
	} {
		p, err := parsePlatform(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		got := p.OS + "/" + p.Architecture
		if p.Variant != "" {
			got += "/" + p.Variant
		}
		if got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	for _, in := range []string{"/", "linux/", "a/b/c/d", "lin ux/amd64", "{", `{"os":"linux"}`} {
		if p, err := parsePlatform(in); err == nil {
			t.Errorf("%q was read as %+v", in, p)
		}
	}
	if _, p := created(t, "/v1.40/containers/create?platform=linux/arm64", `{"Image":"a"}`); p != nil {
		t.Error("the parameter did not exist in 1.40")
	}
	if _, p := created(t, "/v1.41/containers/create?platform=linux/arm64", `{"Image":"a"}`); p == nil || p.Architecture != "arm64" {
		t.Errorf("platform %+v", p)
	}
}

func FuzzCreateBody(f *testing.F) {
	for _, seed := range []string{docker20, dockerPy5, ancient, `{"HostConfig":{"Mounts":[{"X":[1,{"y":null}]}]}}`, `[]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var b createBody
		if _, err := decodeLoose(body, &b); err != nil {
			return
		}
		for _, v := range []apiVersion{oldest, 1040, 1044, newest} {
			again := b
			if req, err := again.request(); err == nil {
				_, _ = adaptCreate(v, &req, b.MacAddress)
			}
		}
	})
}
