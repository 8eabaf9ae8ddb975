package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// descriptions reads every version from 1.42 on that comes with the types of the
// API. Those before are compared with a dockerd that speaks them.
func descriptions(t *testing.T) map[string]*description {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/moby/moby/api").Output()
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "docs", "v1.[4-9]?.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*description{}
	for _, path := range paths {
		version := strings.TrimPrefix(strings.TrimSuffix(filepath.Base(path), ".yaml"), "v")
		if older(version, "1.42") {
			continue
		}
		if out[version], err = readDescription(path); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	return out
}

// asker sends requests to an engine and collects what of the answers is not as
// the description of their version says.
type asker struct {
	*host
	version string
	api     *description
	found   map[string][]string // fault: versions that have it
	used    map[int]bool        // of undescribed
}

// ask makes a request and returns the last document of its answer.
func (a *asker) ask(method, path, body string) map[string]any {
	a.t.Helper()
	req, err := http.NewRequest(method, "http://engine/v"+a.version+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.client().Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatalf("%s %s %s: %v", a.version, method, path, err)
	}
	s, described, ok := a.api.answerTo(method, path, resp.StatusCode)
	if !ok {
		a.note(method, described, fmt.Sprintf("status %d", resp.StatusCode))
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	for last := map[string]any(nil); ; {
		var v any
		if err := dec.Decode(&v); errors.Is(err, io.EOF) {
			return last
		} else if err != nil {
			a.t.Fatalf("%s %s %s: %v in %s", a.version, method, path, err, text)
		}
		if s == nil {
			a.note(method, described, "a body where none is described")
			return nil
		}
		for _, f := range a.api.faults(s, "", v) {
			a.note(method, described, f)
		}
		last, _ = v.(map[string]any)
	}
}

func (a *asker) note(method, described, fault string) {
	key := fmt.Sprintf("%s %s %s", method, described, fault)
	if i := meant(key, a.version); i >= 0 {
		a.used[i] = true
	} else if !slices.Contains(a.found[key], a.version) {
		a.found[key] = append(a.found[key], a.version)
	}
}

// undescribed is what an answer may have although its description does not say so:
// the fault, the versions that may have it ("" is no bound), and why.
var undescribed = []struct{ fault, from, before, reason string }{
	{`GET /(containers/.*|system/df) .*\.DNSNames: unknown`, "", "1.44", "docker does not hide it from older clients"},
	{`GET /(containers/.*|system/df) .*\.GwPriority: unknown`, "", "1.48", "docker does not hide it from older clients"},
	{`GET /containers/{id}/json .Config.Healthcheck.StartInterval: unknown`, "", "1.44", "docker drops it when such a client creates, not when it inspects"},
	{`GET /containers/{id}/json .HostConfig.Annotations: unknown`, "", "1.43", "docker drops it when such a client creates, not when it inspects"},
	{`GET /containers/{id}/json .HostConfig.MemorySwappiness: null for integer`, "", "", "docker's null means the kernel's default"},
	{`GET /exec/{id}/json .ExitCode: null for integer`, "", "", "docker's null means that there is none yet"},
	{`GET /containers/{id}/stats .os_type: unknown`, "", "1.52", "docker does not hide it from older clients"},
	{`GET /events \.(id|from|status): unknown`, "", "1.52", "docker dropped them in 1.52, their description left them out sooner"},
	{`GET /images/json .*\.Descriptor.platform: unknown`, "1.47", "1.48", "docker writes the whole descriptor, its description follows later"},
	{`GET /images/{name}/json .ContainerConfig: unknown`, "1.45", "", "docker-compose 1.29 does not work without it and asks in the newest version"},
	{`GET /info .CDISpecDirs: unknown`, "", "1.44", "docker does not hide it from older clients"},
	{`GET /networks.* .*\.EnableIPv4: unknown`, "", "1.47", "docker does not hide it from older clients"},
	{`GET /system/df \.(LayersSize|Images|Containers|Volumes|BuildCache): unknown`, "1.52", "1.53", "docker's 1.52 answers in both forms"},
}

// meant returns which row of undescribed allows a fault, -1 if none does.
func meant(fault, version string) int {
	return slices.IndexFunc(undescribed, func(u struct{ fault, from, before, reason string }) bool {
		return (u.from == "" || !older(version, u.from)) && (u.before == "" || older(version, u.before)) && regexp.MustCompile("^"+u.fault+"$").MatchString(fault)
	})
}

// Versions of the API that no dockerd at hand speaks are held against their
// descriptions: what must be there, of which type it is, and what clients of that
// version do not know.
func TestAnswersAreAsDescribed(t *testing.T) {
	t.Parallel()
	api := descriptions(t)
	versions := slices.SortedFunc(maps.Keys(api), func(a, b string) int {
		if older(a, b) {
			return -1
		}
		return 1
	})
	if len(versions) < 15 {
		t.Fatalf("there are descriptions of %q only", versions)
	}
	a := &asker{host: newEngine(t), found: map[string][]string{}, used: map[int]bool{}}
	image := a.registryFor() + "/app:1"
	a.berth("tag", busyboxImage, image)
	a.berth("push", image)
	a.version = versions[len(versions)-1]
	a.api = api[a.version]
	a.stock(image)
	for _, a.version = range versions {
		a.api = api[a.version]
		a.askAll(image)
	}
	for _, fault := range slices.Sorted(maps.Keys(a.found)) {
		t.Errorf("%s (%s)", fault, strings.Join(a.found[fault], " "))
	}
	for i, u := range undescribed {
		if !a.used[i] {
			t.Errorf("no answer has it any more: %s", u.fault)
		}
	}
}

// stock makes one of everything.
func (a *asker) stock(image string) {
	a.t.Helper()
	a.ask("POST", "/networks/create", `{"Name":"net","Labels":{"a":"b"},"IPAM":{"Config":[{"Subnet":"10.77.0.0/24","Gateway":"10.77.0.1"}]},"Options":{"com.docker.network.bridge.name":"brdesc"}}`)
	a.ask("POST", "/volumes/create", `{"Name":"vol","Labels":{"a":"b"}}`)
	a.ask("POST", "/containers/create?name=one", `{"Image":"`+image+`","Cmd":["sleep","1000"],"Tty":false,"Env":["A=b"],"Labels":{"a":"b"},"ExposedPorts":{"80/tcp":{},"90/udp":{}},"Volumes":{"/anonymous":{}},
		"StopSignal":"SIGTERM","StopTimeout":1,"Healthcheck":{"Test":["CMD","true"],"Interval":3600000000000,"StartInterval":50000000,"StartPeriod":3600000000000},
		"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":""}]},"NetworkMode":"net","Annotations":{"x":"y"},"Memory":67108864,"PidsLimit":50,"Ulimits":[{"Name":"nofile","Soft":100,"Hard":100}],
			"LogConfig":{"Type":"json-file","Config":{"max-size":"1m"}},"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":2},"Tmpfs":{"/tmp2":"size=1m"},"Devices":[{"PathOnHost":"/dev/null","PathInContainer":"/dev/x","CgroupPermissions":"r"}],
			"Binds":["/tmp:/host:ro"],"Mounts":[{"Type":"volume","Source":"vol","Target":"/vol"},{"Type":"tmpfs","Target":"/mem","TmpfsOptions":{"SizeBytes":1048576}}]},
		"NetworkingConfig":{"EndpointsConfig":{"net":{"Aliases":["alias"],"IPAMConfig":{"IPv4Address":"10.77.0.9"}}}}}`)
	a.ask("POST", "/containers/one/start", "")
	a.ask("POST", "/containers/create?name=two", `{"Image":"`+busyboxImage+`","Cmd":["true"],"Tty":true}`)
	a.eventually("the container is healthy", func() bool {
		state, _ := a.ask("GET", "/containers/one/json", "")["State"].(map[string]any)
		health, _ := state["Health"].(map[string]any)
		return health["Status"] == "healthy"
	})
}

// askAll asks for everything there is, and makes and removes what is made at once.
func (a *asker) askAll(image string) {
	a.t.Helper()
	exec := fmt.Sprint(a.ask("POST", "/containers/one/exec", `{"Cmd":["true"],"AttachStdout":true}`)["Id"])
	now := fmt.Sprint(a.ask("GET", "/info", "")["SystemTime"])
	for _, path := range []string{
		"/containers/json?all=1&size=1", "/containers/one/json?size=1", "/containers/two/json", "/containers/one/top", "/containers/one/changes",
		"/containers/one/stats?stream=0&one-shot=1", "/containers/two/stats?stream=0&one-shot=1", "/exec/" + exec + "/json",
		"/images/json?all=1&shared-size=1&digests=1&manifests=1", "/images/" + image + "/json", "/images/" + busyboxImage + "/history", "/distribution/" + image + "/json",
		"/networks", "/networks/net", "/networks/bridge", "/networks/host", "/networks/net?verbose=1", "/volumes", "/volumes/vol",
		"/version", "/system/df", "/system/df?verbose=1", "/events?since=1&until=" + now,
		"/containers/nosuch/json", "/images/nosuch/json", "/networks/nosuch", "/volumes/nosuch", "/exec/nosuch/json",
	} {
		a.ask("GET", path, "")
	}
	a.ask("POST", "/networks/create", `{"Name":"short"}`)
	a.ask("POST", "/volumes/create", `{"Name":"short"}`)
	a.ask("POST", "/containers/create?name=short", `{"Image":"`+busyboxImage+`","HostConfig":{"NetworkMode":"none"}}`)
	a.ask("POST", "/commit?container=short&repo=short", "")
	a.ask("POST", "/containers/short/update", `{"RestartPolicy":{"Name":"no"}}`)
	a.ask("POST", "/containers/short/wait?condition=not-running", "")
	a.ask("DELETE", "/containers/short", "")
	a.ask("DELETE", "/images/short", "")
	for _, kind := range []string{"volumes", "networks", "images"} {
		a.ask("POST", "/"+kind+"/prune", "")
	}
}
