package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// happened is an event with what is the same on both sides: its attributes but for
// those that differ from run to run, whose values are left out.
func happened(line []byte) (string, error) {
	var e struct {
		Type, Action, Scope string
		Status, ID, From    string
		Actor               struct {
			ID         string
			Attributes map[string]string
		}
		Time, TimeNano int64
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return "", err
	}
	e.Action, e.Status = strings.TrimSpace(e.Action), strings.TrimSpace(e.Status) // of a command without arguments
	var attributes []string
	for _, k := range slices.Sorted(maps.Keys(e.Actor.Attributes)) {
		v := e.Actor.Attributes[k]
		switch {
		case k == "execDuration", k == "own", k == "tier" && e.Action == "delete":
			continue // later dockers have it; labels of what has gone
		case k == "execID", k == "container", k == "reclaimed", len(v) == 64, strings.HasPrefix(v, "sha256:"):
			v = fmt.Sprint(len(v) > 0)
		}
		attributes = append(attributes, k+"="+v)
	}
	legacy := ""
	if e.Status != "" {
		legacy = fmt.Sprintf(" status=%s id=%v from=%s", e.Status, e.ID == e.Actor.ID, e.From)
	}
	whole := e.TimeNano/int64(time.Second) == e.Time
	return fmt.Sprintf("%s %s %s {%s}%s %v", e.Type, e.Action, e.Scope, strings.Join(attributes, " "), legacy, whole), nil
}

// uncounted are events of which one side may have more: docker mounts volumes for
// archives, too.
var uncounted = []string{"volume mount", "volume unmount"}

// history asks both sides for what happened, as "what: how often".
func (b *beside) history(since time.Time, query string) (out [2]map[string]int) {
	b.t.Helper()
	until := time.Now()
	both := b.make(get(fmt.Sprintf("/events?since=%d.%09d&until=%d.%09d%s", since.Unix(), since.Nanosecond(), until.Unix(), until.Nanosecond(), query)))
	for side, a := range both {
		out[side] = map[string]int{}
		if len(a.body) == 0 {
			continue
		}
		for _, line := range bytes.Split(bytes.TrimSpace(a.body), []byte("\n")) {
			text, err := happened(line)
			if err != nil {
				b.t.Fatalf("%v in %q", err, line)
			}
			if strings.HasPrefix(text, "container exec_") && strings.Contains(text, "name=well") {
				continue // docker runs a health check as an exec
			}
			out[side][text]++
			if slices.ContainsFunc(uncounted, func(p string) bool { return strings.HasPrefix(text, p) }) {
				out[side][text] = 1
			}
		}
	}
	return out
}

// compareHistory reports what happened on one side only, or more often.
func (b *beside) compareHistory(t *testing.T, since time.Time, query string) {
	t.Helper()
	h := b.history(since, query)
	all := maps.Clone(h[0])
	maps.Copy(all, h[1])
	for _, what := range slices.Sorted(maps.Keys(all)) {
		if h[0][what] == h[1][what] {
			continue
		}
		if d := fmt.Sprintf("%s: docker %d times, berth %d", what, h[0][what], h[1][what]); !b.meant(get("/events"), d) {
			t.Error(d)
		}
	}
}

func TestEventsBesideDocker(t *testing.T) {
	t.Parallel()
	b := newBeside(t)
	b.allowed = []difference{
		{"GET /events", "image delete", "it has its labels still, and is found by them"},
		{"GET /events", "volume destroy", "each volume of a prune is told of, as later dockers do"},
	}
	archive := readFile(t, b.appArchive())
	tarball := map[string]string{"Content-Type": "application/x-tar"}
	since := time.Now()
	container := `{"Image":"beside/app:1","Cmd":["sh","-c","sleep 1000"],"StopTimeout":1,"Tty":true,"StopSignal":"KILL","Labels":{"own":"label"},"HostConfig":{"NetworkMode":"none","Binds":["named:/v"]}}`
	// Docker stops for good when a container is paused while its health is checked.
	well := `{"Image":"bare","Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"none"},"Healthcheck":{"Test":["CMD","true"],"Interval":100000000}}`
	for _, c := range []call{
		{method: "POST", path: "/images/load", body: archive, header: tarball},
		post("/images/bare/tag?repo=other&tag=1"), get("/images/bare/get"), get("/images/get?names=bare&names=beside/app:1"), del("/images/other:1"),
		{method: "POST", path: "/images/create?fromSrc=-&repo=imported&tag=1&message=x", body: readFile(t, b.path("top.tar")), header: tarball}, del("/images/imported:1"),
		send("/volumes/create", `{"Name":"alone"}`), del("/volumes/alone"),
		send("/containers/create?name=well", well), post("/containers/well/start"),
		send("/containers/create?name=one", container), post("/containers/one/start"), post("/containers/one/rename?name=uno"), post("/containers/uno/pause"), post("/containers/uno/unpause"),
		get("/containers/uno/top"), send("/containers/uno/update", `{"CpuShares":512}`), post("/containers/uno/resize?h=10&w=20"),
		get("/containers/uno/archive?path=/bin/sh"), {method: "HEAD", path: "/containers/uno/archive?path=/bin"}, {method: "PUT", path: "/containers/uno/archive?path=/", body: readFile(t, b.path("top.tar")), header: tarball},
		get("/containers/uno/export"), get("/containers/uno/changes"), get("/containers/uno/logs?stdout=1"), get("/containers/uno/stats?stream=0"),
	} {
		b.make(c)
	}
	b.know("exec", "Id", b.make(send("/containers/uno/exec", `{"Cmd":["true","x"],"AttachStdout":true}`)))
	b.make(send("/exec/$exec/start", `{"Detach":false,"Tty":false}`))
	b.know("exec", "Id", b.make(send("/containers/uno/exec", `{"Cmd":["false"]}`)))
	b.make(send("/exec/$exec/start", `{"Detach":true}`))
	b.eventually("both are healthy and the commands have ended", func() bool {
		for _, h := range b.history(since, `&filters={"event":["health_status","exec_die"]}`) {
			if len(h) < 3 {
				return false
			}
		}
		return true
	})
	for _, c := range []call{
		del("/containers/well?force=1"), post("/commit?container=uno&repo=made&tag=1"), post("/containers/uno/kill?signal=WINCH"), post("/containers/uno/restart?t=60"), post("/containers/uno/stop?t=60"),
		post("/containers/uno/start"), post("/containers/uno/kill"), post("/containers/uno/wait"), del("/containers/uno"), del("/images/made:1"),
		send("/containers/create?name=two", `{"Image":"bare","Cmd":["sh","-c","exit 3"],"HostConfig":{"NetworkMode":"none"}}`), post("/containers/two/start"), post("/containers/two/wait"),
		post("/containers/prune"), post("/volumes/prune"), post("/images/prune"), post("/networks/prune"),
		send("/containers/create?name=three", `{"Image":"bare","Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"none","AutoRemove":true}}`), post("/containers/three/start"), del("/containers/three?force=1"),
		del("/images/bare?force=1"), del("/images/beside/app:1"), del("/images/beside/app:2"),
	} {
		b.make(c)
	}
	for _, filters := range []string{``, `{"type":["image"]}`, `{"type":["container","volume"]}`, `{"type":["container"],"event":["start","stop"]}`, `{"event":["exec_create"]}`,
		`{"event":["health_status"]}`, `{"event":["health_status: healthy"]}`, `{"event":["prune"]}`, `{"container":["uno"]}`, `{"container":["one"]}`, `{"image":["bare"]}`,
		`{"image":["bare:latest"]}`, `{"image":["beside/app"]}`, `{"image":["beside/app:1"]}`, `{"volume":["named"]}`, `{"volume":["nam"]}`, `{"label":["own=label"]}`, `{"label":["own"]}`, `{"label":["tier=back"]}`,
		`{"label":["own","tier"]}`, `{"scope":["local"]}`, `{"scope":["swarm"]}`, `{"network":["none"]}`, `{"daemon":["x"]}`, `{"plugin":["x"]}`, `{"type":["bogus"]}`, `{"event":[]}`,
	} {
		t.Run(filters, func(t *testing.T) { b.compareHistory(t, since, "&filters="+url.QueryEscape(filters)) })
	}
	b.checkAllowed()
}
