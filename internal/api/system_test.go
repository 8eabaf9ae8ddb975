package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"berth/internal/engine"
	"berth/internal/engine/filter"
	"berth/internal/fault"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
)

func TestKindsOfErrorsHaveDockersStatus(t *testing.T) {
	for kind, want := range map[fault.Kind]int{
		fault.Internal: 500, fault.Invalid: 400, fault.NotFound: 404, fault.Conflict: 409, fault.Unsupported: 501, fault.Forbidden: 403,
		fault.Unauthorized: 401, fault.Unavailable: 503, fault.Exhausted: 507, fault.NotModified: 304, fault.Canceled: 504,
	} {
		e := &stub{stop: func(engine.StopOptions) error { return fault.New(kind, "stop container", "x", "because") }}
		w := ask(t, e, "POST", "/v1.44/containers/x/stop", "")
		if w.Code != want {
			t.Errorf("%v: %d, want %d", kind, w.Code, want)
		}
		if want == http.StatusNotModified {
			if w.Body.Len() > 0 {
				t.Errorf("304 with a body: %q", w.Body)
			}
			continue
		}
		wantMessage(t, kind.String(), w.Header(), w.Body.Bytes())
	}
	if w := ask(t, &stub{stop: func(engine.StopOptions) error { return errors.New("x") }}, "POST", "/containers/x/stop", ""); w.Code != 500 {
		t.Errorf("unclassified: %d", w.Code)
	}
}

func TestADefectInOneRequestIsAnAnswer(t *testing.T) {
	e := &stub{stop: func(engine.StopOptions) error { panic("defect") }}
	w := ask(t, e, "POST", "/containers/x/stop", "")
	if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "defect\n") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	wantMessage(t, "panic", w.Header(), w.Body.Bytes())
}

func TestStopOptionsOfVersions(t *testing.T) {
	var got engine.StopOptions
	e := &stub{stop: func(o engine.StopOptions) error { got = o; return nil }}
	for path, want := range map[string]string{
		"/v1.41/containers/x/stop?signal=INT&t=5": " 5", "/v1.42/containers/x/stop?signal=INT&t=-1": "INT -1",
		"/containers/x/restart": " nil", "/containers/x/stop?t=0": " 0",
	} {
		w := ask(t, e, "POST", path, "")
		text := got.Signal + " nil"
		if got.Timeout != nil {
			text = fmt.Sprintf("%s %d", got.Signal, *got.Timeout)
		}
		if w.Code != http.StatusNoContent || text != want {
			t.Errorf("%s: %d %q, want %q", path, w.Code, text, want)
		}
	}
	e.stop = func(o engine.StopOptions) error { o.Note("killed: no handler"); return nil }
	if w := ask(t, e, "POST", "/containers/x/stop", ""); w.Header().Get("Berth-Notice") != "killed: no handler" {
		t.Errorf("why it was killed is not told: %v", w.Header())
	}
	if w := ask(t, e, "POST", "/containers/x/stop?t=soon", ""); w.Code != 400 {
		t.Errorf("t=soon: %d", w.Code)
	}
}

func TestListOptions(t *testing.T) {
	var got engine.ListOptions
	e := &stub{list: func(o engine.ListOptions) ([]container.Summary, error) {
		got = o
		return []container.Summary{{ID: "a", Health: &container.HealthSummary{}}}, nil
	}}
	// docker-py's parameters, with filters in their old form.
	w := ask(t, e, "GET", `/v1.41/containers/json?limit=-1&all=1&size=0&trunc_cmd=0&filters=%7B%22label%22%3A%5B%22a%3Db%22%5D%7D`, "")
	if w.Code != 200 || !got.All || got.Size || got.Limit != 0 || !got.Filters["label"]["a=b"] {
		t.Errorf("%d, engine was asked %+v", w.Code, got)
	}
	if strings.Contains(w.Body.String(), "Health") {
		t.Errorf("1.41 has no Health in the list: %s", w.Body)
	}
	for _, q := range []string{"filters={", "filters=5", "limit=many"} {
		if w := ask(t, e, "GET", "/containers/json?"+q, ""); w.Code != 400 {
			t.Errorf("%s: %d %s", q, w.Code, w.Body)
		}
	}
	if w := ask(t, &stub{}, "GET", "/containers/json", ""); strings.TrimSpace(w.Body.String()) != "[]" {
		t.Errorf("empty list is %s", w.Body)
	}
}

func TestInspectBefore152RepeatsTheBridge(t *testing.T) {
	umask := uint32(18)
	e := &stub{inspect: func() (container.InspectResponse, error) {
		return container.InspectResponse{ID: "c", Config: &container.Config{Image: "i"}, HostConfig: &container.HostConfig{Umask: &umask}, NetworkSettings: &container.NetworkSettings{
			SandboxKey: "/run/berth/netns/c",
			Networks: map[string]*network.EndpointSettings{"bridge": {
				IPAddress: netip.MustParseAddr("172.17.0.2"), IPPrefixLen: 16, Gateway: netip.MustParseAddr("172.17.0.1"),
			}},
		}}, nil
	}}
	var old struct {
		ID              string `json:"Id"`
		HostConfig      map[string]any
		NetworkSettings struct {
			IPAddress, Gateway, SandboxKey string
			IPPrefixLen                    int
			Networks                       map[string]struct{ IPAddress string }
		}
	}
	w := ask(t, e, "GET", "/v1.44/containers/c/json", "")
	if err := json.Unmarshal(w.Body.Bytes(), &old); err != nil {
		t.Fatal(err)
	}
	n := old.NetworkSettings
	if n.IPAddress != "172.17.0.2" || n.Gateway != "172.17.0.1" || n.IPPrefixLen != 16 || n.SandboxKey == "" || n.Networks["bridge"].IPAddress != "172.17.0.2" {
		t.Errorf("%s", w.Body)
	}
	if _, has := old.HostConfig["Umask"]; has || old.ID != "c" {
		t.Errorf("%s", w.Body)
	}
	w = ask(t, e, "GET", "/v1.56/containers/c/json", "")
	if !strings.Contains(w.Body.String(), `"Umask":18`) || strings.Contains(w.Body.String(), "SecondaryIPAddresses") {
		t.Errorf("1.56: %s", w.Body)
	}
}

func TestInfoOfVersions(t *testing.T) {
	e := &stub{info: func() (system.Info, error) {
		return system.Info{ID: "me", RuncCommit: system.Commit{ID: "abc"}, Containerd: &system.ContainerdInfo{}, Runtimes: map[string]system.RuntimeWithStatus{
			"runc": {Status: map[string]string{"a": "b"}},
		}}, nil
	}}
	old := ask(t, e, "GET", "/v1.43/info", "").Body.String()
	for _, want := range []string{`"BridgeNfIptables":false`, `"Expected":"abc"`, `"ID":"me"`} {
		if !strings.Contains(old, want) {
			t.Errorf("1.43 lacks %s: %s", want, old)
		}
	}
	if strings.Contains(old, `"Containerd":{`) || strings.Contains(old, `"status"`) {
		t.Errorf("1.43 has newer fields: %s", old)
	}
	if now := ask(t, e, "GET", "/v1.56/info", "").Body.String(); strings.Contains(now, "BridgeNf") || !strings.Contains(now, `"Containerd":{`) {
		t.Errorf("1.56: %s", now)
	}
}

func TestVersionSaysWhatIsServed(t *testing.T) {
	w := ask(t, &stub{}, "GET", "/version", "")
	for _, want := range []string{`"ApiVersion":"1.56"`, `"MinAPIVersion":"1.24"`, `"Version":"test"`, `"Details":{"ApiVersion":"1.56","MinAPIVersion":"1.24"}`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s lacks %s", w.Body, want)
		}
	}
}

func TestEventsArriveAsTheyHappen(t *testing.T) {
	asked := make(chan filter.Set, 1)
	subscribed := make(chan chan events.Message, 1)
	s := serve(t, &stub{events: func(_ context.Context, f filter.Set) (<-chan events.Message, error) {
		ch := make(chan events.Message, 1) // each client has its own
		asked <- f
		subscribed <- ch
		return ch, nil
	}})
	for version, want := range map[string]string{
		"1.44": `{"status":"start","id":"c","from":"img","Type":"container","Action":"start","Actor":{"ID":"c","Attributes":{"image":"img"}},"time":5}`,
		"1.56": `{"Type":"container","Action":"start","Actor":{"ID":"c","Attributes":{"image":"img"}},"time":5}`,
	} {
		resp, err := s.client.Get("http://d/v" + version + `/events?filters={"type":{"container":true}}`)
		if err != nil {
			t.Fatal(err)
		}
		if filters := <-asked; !filters["type"]["container"] {
			t.Errorf("filters %v", filters)
		}
		<-subscribed <- events.Message{Type: "container", Action: "start", Time: 5, Actor: events.Actor{ID: "c", Attributes: map[string]string{"image": "img"}}}
		line, err := bufio.NewReader(resp.Body).ReadString('\n')
		if strings.TrimSpace(line) != want {
			t.Errorf("%s: %q, %v", version, line, err)
		}
		resp.Body.Close()
	}
	for _, q := range []string{"since=x", "until=1&since=2", "filters=x"} {
		if w := ask(t, &stub{}, "GET", "/events?"+q, ""); w.Code != 400 {
			t.Errorf("%s: %d", q, w.Code)
		}
	}
}

func TestTimes(t *testing.T) {
	for in, want := range map[string]int64{
		"1": 1e9, "1.5": 15e8, "1.000000001": 1e9 + 1, "1.0000000019": 1e9 + 1, "2026-01-01T00:00:00Z": 1767225600e9,
	} {
		if got, err := parseTime(in); err != nil || got.UnixNano() != want {
			t.Errorf("%s: %v %v", in, got, err)
		}
	}
	if got, err := parseTime("0"); err != nil || !got.IsZero() {
		t.Errorf("0 means no bound, got %v %v", got, err)
	}
	for _, in := range []string{"x", "1.-5", "1.x", "T", "1e5", "99999999999999999999"} {
		if got, err := parseTime(in); err == nil {
			t.Errorf("%s was read as %v", in, got)
		}
	}
}

// FuzzRequest feeds raw bytes to the whole path from a parsed request to the
// engine: no panic, and every error is one that clients can read.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		"GET /v1.44/containers/json?all=1&filters={} HTTP/1.1\r\nHost: d\r\n\r\n",
		"POST /containers/create?name=x&platform=linux HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"Image\":\"a\"}",
		"POST /v1.30/containers/x/wait?condition=removed HTTP/1.1\r\nHost: d\r\n\r\n",
		"GET /containers/x/logs?stdout=1&since=1.5&tail=3&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n",
		"DELETE /v1.24/images/a/b%2Fc?force=1 HTTP/1.1\r\nHost: d\r\n\r\n",
		"POST /exec/e/resize?h=24&w=80 HTTP/1.1\r\nHost: d\r\n\r\n",
		"POST /images/create?fromImage=a&tag=b HTTP/1.1\r\nHost: d\r\nX-Registry-Auth: e30=\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	a := New(&stub{}, nil)
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil || bytes.Contains(raw, []byte("fromSrc")) {
			return // fromSrc=URL would reach out to the network
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		w := newRecorder()
		a.ServeHTTP(w, r.WithContext(ctx))
		if w.Code == http.StatusInternalServerError {
			t.Errorf("%q: %s", raw, w.Body)
		}
		if w.Code >= 400 && w.Code != http.StatusNotFound && !json.Valid(w.Body.Bytes()) && !strings.HasPrefix(w.Body.String(), "client version") {
			t.Errorf("%q: %d %q", raw, w.Code, w.Body)
		}
	})
}

// lost is an error of a program that could not be executed.
type lost struct{ error }

func (lost) ExitCode() int { return 127 }

func TestErrorsOfUnstartableProgramsSayTheirExitCode(t *testing.T) {
	err := fault.Wrap("start container", "x", &fault.Error{Kind: fault.Invalid, Err: lost{errors.New("not found in PATH")}})
	w := ask(t, &stub{stop: func(engine.StopOptions) error { return err }}, "POST", "/containers/x/restart", "")
	if w.Code != 400 || w.Header().Get("Berth-Exit-Code") != "127" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

func TestEventsAreWrittenAsTheClientAccepts(t *testing.T) {
	e := &stub{events: func(context.Context, filter.Set) (<-chan events.Message, error) {
		ch := make(chan events.Message, 2)
		ch <- events.Message{Type: events.ImageEventType, Action: events.ActionCreate}
		ch <- events.Message{Type: events.ImageEventType, Action: events.ActionTag}
		close(ch)
		return ch, nil
	}}
	for _, c := range []struct{ version, accept, want, begins string }{
		{"1.41", "", "application/json", "{"}, {"1.51", "", "application/json", "{"}, {"1.52", "", "application/jsonl", "{"}, {"1.56", "*/*", "application/jsonl", "{"},
		{"1.41", "application/x-ndjson", "application/x-ndjson", "{"}, {"1.56", "text/plain, application/json-seq;q=0.5", "application/json-seq", "\x1e{"},
		{"1.56", "application/json-seq, application/jsonl", "application/jsonl", "{"}, {"1.56", "application/jsonl;q=0.1,application/x-ndjson;q=0.9", "application/x-ndjson", "{"},
		{"1.56", "application/json-seq;q=0", "application/jsonl", "{"}, {"1.56", ";;,application/json-seq;q=x", "application/jsonl", "{"},
	} {
		req := httptest.NewRequest("GET", "/v"+c.version+"/events", nil)
		req.Header.Set("Accept", c.accept)
		w := httptest.NewRecorder()
		New(e, nil).ServeHTTP(w, req)
		if got := w.Header().Get("Content-Type"); got != c.want || !strings.HasPrefix(w.Body.String(), c.begins) {
			t.Errorf("%s %q: %s, %q", c.version, c.accept, got, w.Body)
		}
		if lines := strings.Count(w.Body.String(), "\n"); (lines == 1) != (c.version == "1.41") {
			t.Errorf("%s: %d events", c.version, lines)
		}
	}
}
