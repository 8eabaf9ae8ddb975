package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"berth/internal/engine/filter"
	"berth/internal/engine/images"
	"berth/internal/engine/reclaim"
	"berth/internal/fault"
	"berth/internal/wire"

	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// askWith is ask with headers.
func askWith(e Engine, method, path, body string, headers map[string]string) *httptest.ResponseRecorder {
	r := newRequest(method, path, body, "application/json")
	for k, v := range headers {
		r.Header.Set(k, v)
	}
	w := newRecorder()
	New(e, nil).ServeHTTP(w, r)
	return w
}

func encoded(text string) string { return base64.URLEncoding.EncodeToString([]byte(text)) }

func TestCredentialsReachTheEngineInEveryFormThatClientsSend(t *testing.T) {
	full := `{"username":"me","password":"a>b?~","serveraddress":"reg.io"}`
	several := encoded(`{"reg.io":{"username":"other","password":"p"},"https://index.docker.io/v1/":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("hub:secret")) + `"}}`)
	for name, c := range map[string]struct{ header, value, ref, want string }{
		"url alphabet":      {"X-Registry-Auth", encoded(full), "reg.io/a:1", "me:a>b?~"},
		"standard alphabet": {"X-Registry-Auth", base64.StdEncoding.EncodeToString([]byte(full)), "reg.io/a:1", "me:a>b?~"},
		"no padding":        {"X-Registry-Auth", base64.RawURLEncoding.EncodeToString([]byte(full)), "reg.io/a:1", "me:a>b?~"},
		"both in one":       {"X-Registry-Auth", encoded(`{"auth":"` + base64.StdEncoding.EncodeToString([]byte("u:p:q")) + `"}`), "reg.io/a:1", "u:p:q"},
		"empty":             {"X-Registry-Auth", encoded(`{}`), "reg.io/a:1", ":"},
		"none":              {"X-Other", "", "reg.io/a:1", ":"},
		"by host":           {"X-Registry-Config", several, "reg.io/a:1", "other:p"},
		"the hub's":         {"X-Registry-Config", several, "library/a:1", "hub:secret"},
		"another host":      {"X-Registry-Config", several, "evil.io/a:1", ":"},
	} {
		got := "not called"
		take := func(a registry.AuthConfig) { got = a.Username + ":" + a.Password }
		e := &stub{img: imageStub{
			pull: func(_ context.Context, _ string, o images.PullOptions, _ io.Writer) error {
				take(o.Auth)
				return nil
			},
			push: func(_ string, o images.PushOptions, _ io.Writer) error { take(o.Auth); return nil },
			remote: func(_ string, a registry.AuthConfig) (d registry.DistributionInspect, _ error) {
				take(a)
				return d, nil
			},
			attach: func(_ string, _ images.Artifact, a registry.AuthConfig) error { take(a); return nil },
		}}
		body := ""
		for _, path := range []string{"POST /images/create?fromImage=" + c.ref, "POST /images/" + c.ref + "/push", "GET /distribution/" + c.ref + "/json", "POST /berth/images/" + c.ref + "/attach"} {
			method, p, _ := strings.Cut(path, " ")
			if body = ""; strings.HasSuffix(p, "attach") {
				body = `{"manifest":"e30="}`
			}
			got = "not called"
			if w := askWith(e, method, p, body, map[string]string{c.header: c.value}); w.Code >= 300 || got != c.want {
				t.Errorf("%s: %s: %d %s; engine saw %q, want %q", name, path, w.Code, w.Body, got, c.want)
			}
		}
	}
}

func TestUnreadableCredentialsAreExplainedAndNeverShown(t *testing.T) {
	denied := &stub{img: imageStub{pull: func(_ context.Context, _ string, o images.PullOptions, _ io.Writer) error {
		if o.Auth != (registry.AuthConfig{}) {
			t.Errorf("engine saw %+v", o.Auth)
		}
		return fault.New(fault.Unauthorized, "", "", "access denied")
	}}}
	for _, header := range []map[string]string{
		{"X-Registry-Auth": "hunter2 is the password"}, {"X-Registry-Auth": encoded(`["hunter2"]`)}, {"X-Registry-Auth": encoded(`{"auth":"hunter2"}`)},
		{"X-Registry-Config": encoded(`{"r.io":"hunter2"}`)}, {"X-Registry-Auth": strings.Repeat("hunter2", 50000)},
	} {
		w := askWith(denied, "POST", "/images/create?fromImage=a&tag=1", "", header)
		if b := w.Body.String(); w.Code != 403 || !strings.Contains(b, "anonymously") || strings.Contains(b, "hunter2") {
			t.Errorf("%.60v: %d %s", header, w.Code, w.Body)
		}
	}
	if w := askWith(denied, "POST", "/images/create?fromImage=a&tag=1", "", nil); w.Code != 403 || strings.Contains(w.Body.String(), "anonymously") {
		t.Errorf("without a header: %d %s", w.Code, w.Body)
	}
}

func TestPushNamesItsImageWhole(t *testing.T) {
	for path, want := range map[string]string{
		"/images/reg.io:5000/a/b/push?tag=1": "reg.io:5000/a/b:1", "/images/reg.io:5000/a/b:2/push": "reg.io:5000/a/b:2", "/images/a:2/push?tag=1": "a:1",
		"/images/reg.io:5000/a/push": "reg.io:5000/a all", "/v1.46/images/a/push?tag=1&platform=%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22arm64%22%7D": "a:1 linux/arm64",
		"/v1.45/images/a/push?tag=1&platform=linux%2Farm64": "a:1",
	} {
		got := ""
		e := &stub{img: imageStub{push: func(ref string, o images.PushOptions, _ io.Writer) error {
			if got = ref; o.AllTags {
				got += " all"
			}
			if o.Platform != nil {
				got += " " + o.Platform.OS + "/" + o.Platform.Architecture
			}
			return nil
		}}}
		if w := ask(t, e, "POST", path, ""); w.Code != 200 || got != want {
			t.Errorf("%s: %d %s; engine saw %q, want %q", path, w.Code, w.Body, got, want)
		}
	}
	digest := "sha256:" + strings.Repeat("a", 64)
	for _, path := range []string{"/images/a@" + digest + "/push", "/images/a/push?tag=" + digest} {
		if w := ask(t, &stub{}, "POST", path, ""); w.Code != 400 || !strings.Contains(w.Body.String(), "cannot push a digest reference") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestARefusedLoginWithinAStreamHasItsCode(t *testing.T) {
	e := &stub{img: imageStub{push: func(_ string, _ images.PushOptions, out io.Writer) error {
		io.WriteString(out, "{}\r\n")
		return fault.New(fault.Unauthorized, "", "", "no basic auth credentials")
	}}}
	w := ask(t, e, "POST", "/images/a:1/push", "")
	if !strings.Contains(w.Body.String(), `"errorDetail":{"code":401,"message":"no basic auth credentials"}`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestLoginAnswersAsDockerDoes(t *testing.T) {
	e := &stub{img: imageStub{login: func(a registry.AuthConfig) (registry.AuthResponse, error) {
		if a.Username != "me" || a.Password != "pw" || a.ServerAddress != "reg.io" {
			return registry.AuthResponse{}, fault.New(fault.Unauthorized, "", "", "incorrect username or password")
		}
		return registry.AuthResponse{Status: "Login Succeeded", IdentityToken: "t"}, nil
	}}}
	for body, want := range map[string]string{
		`{"username":"me","password":"pw","serveraddress":"reg.io","email":"me@home"}`: `200 {"IdentityToken":"t","Status":"Login Succeeded"}`,
		`{"username":"me","password":"no","serveraddress":"reg.io"}`:                   `401 {"message":"incorrect username or password"}`,
		`{"auth":"bWU6cHc=","serveraddress":"reg.io"}`:                                 `200 {"IdentityToken":"t","Status":"Login Succeeded"}`,
		`{"auth":"%%%"}`: `400 {"message":"the field auth is not user:password in base64"}`,
		`{`:              `400 {"message":"invalid JSON: the request body ends early"}`,
	} {
		w := ask(t, e, "POST", "/v1.44/auth", body)
		if got := strings.TrimSpace(w.Body.String()); got != want[4:] || want[:3] != statusText(w.Code) {
			t.Errorf("%s: %d %s, want %s", body, w.Code, got, want)
		}
	}
}

func statusText(code int) string { b, _ := json.Marshal(code); return string(b) }

func TestBadParametersOfImageEndpointsAreRefusedByName(t *testing.T) {
	for path, want := range map[string]string{
		"GET /images/search":                                        "term",
		"GET /images/search?term=a&limit=x":                         "limit",
		"GET /images/search?term=a&limit=101":                       "limit",
		"GET /images/search?term=a&filters=x":                       "filter",
		"GET /images/get":                                           "names",
		"GET /v1.48/images/get?names=a&platform=x&platform=y":       "multiple platform",
		"GET /v1.48/images/a/history?platform=a%20b":                "platform",
		"GET /v1.52/images/a/get?platform=%7B%22os%22%3A1%7D":       "platform",
		"GET /v1.49/images/a/json?platform=linux%2F%2F":             "platform",
		"GET /v1.49/images/a/json?platform=arm64&manifests=1":       "manifests",
		"POST /v1.48/images/load?platform=%7B":                      "platform",
		"POST /images/prune?filters=%7B":                            "filter",
		"POST /images/create?fromImage=a&platform=x&allPlatforms=1": "allPlatforms",
		"POST /commit":                                    "container",
		"POST /images/create?fromSrc=ftp://x/y":           "http",
		"POST /berth/images/a/attach":                     "manifest",
		"POST /images/create?fromSrc=http://127.0.0.1:1/": "127.0.0.1:1",
	} {
		method, p, _ := strings.Cut(path, " ")
		w := ask(t, &stub{}, method, p, "")
		if w.Code < 400 || w.Code == 500 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s, want %q", path, w.Code, w.Body, want)
		}
	}
}

func TestPlatformsOfSaveLoadAndHistory(t *testing.T) {
	var got []*ocispec.Platform
	e := &stub{img: imageStub{
		save: func(_ []string, p []*ocispec.Platform, _ io.Writer) error { got = p; return nil },
		load: func(_ io.Reader, o images.LoadOptions, _ io.Writer) error { got = o.Platforms; return nil },
		history: func(_ string, p *ocispec.Platform) ([]image.HistoryResponseItem, error) {
			if got = nil; p != nil {
				got = []*ocispec.Platform{p}
			}
			return nil, nil
		},
	}}
	for path, n := range map[string]int{
		"GET /v1.47/images/a/get?platform=linux%2Farm64": 0, "GET /v1.48/images/a/get?platform=linux%2Farm64": 1, "GET /v1.52/images/a/get?platform=arm64&platform=amd64": 2,
		"POST /v1.48/images/load?platform=arm64": 1, "POST /v1.47/images/load?platform=arm64": 0, "GET /v1.48/images/a/history?platform=arm64": 1, "GET /v1.47/images/a/history?platform=arm64": 0,
	} {
		method, p, _ := strings.Cut(path, " ")
		if w := ask(t, e, method, p, ""); w.Code != 200 || len(got) != n {
			t.Errorf("%s: %d %s; %d platforms, want %d", path, w.Code, w.Body, len(got), n)
		}
	}
}

func TestSaveSendsAnArchiveOrAStatus(t *testing.T) {
	good := &stub{img: imageStub{save: func(_ []string, _ []*ocispec.Platform, out io.Writer) error {
		_, err := io.WriteString(out, "archive")
		return err
	}}}
	w := ask(t, good, "GET", "/images/get?names=a&names=b", "")
	if w.Code != 200 || w.Body.String() != "archive" || w.Header().Get("Content-Type") != "application/x-tar" {
		t.Errorf("%d %s %v", w.Code, w.Body, w.Header())
	}
	w = ask(t, &stub{}, "GET", "/images/nosuch/get", "")
	if w.Code != 404 || w.Header().Get("Content-Type") != "application/json" || !strings.Contains(w.Body.String(), "No such image: nosuch") {
		t.Errorf("%d %s %v", w.Code, w.Body, w.Header())
	}
	// A failure in the middle must not look like the end of the archive.
	s := serve(t, &stub{img: imageStub{save: func(_ []string, _ []*ocispec.Platform, out io.Writer) error {
		io.CopyN(out, &zeros{1 << 20}, 1<<20)
		return fault.New(fault.Internal, "", "", "the disk broke")
	}}})
	resp, err := s.client.Get("http://d/images/a/get")
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("a broken archive ended as a whole one does")
	}
}

func TestCommitTakesItsParameters(t *testing.T) {
	var got images.CommitOptions
	e := &stub{img: imageStub{commit: func(o images.CommitOptions) (string, error) { got = o; return "sha256:1", nil }}}
	path := "/v1.44/commit?container=web&repo=a/b&tag=1&comment=c&author=me&changes=CMD+x&changes=ENV+a%3Db"
	for _, c := range []struct {
		query, body string
		check       func() bool
	}{
		{"", "", func() bool {
			return got.Pause && got.Config == nil && len(got.Changes) == 2 && got.Comment == "c" && got.Author == "me"
		}},
		{"", "null", func() bool { return got.Config == nil }},
		{"", "{}", func() bool { return got.Config == nil }},
		{"&pause=0", `{"Cmd":"sleep","Env":["A=1"]}`, func() bool { return !got.Pause && got.Config.Cmd[0] == "sleep" && got.Config.Env[0] == "A=1" }},
		{"&pause=", `{"User":"www"}`, func() bool { return got.Pause && got.Config.User == "www" && got.Config.Cmd == nil }},
		{"&pause=1", `{"Entrypoint":["a","b"]}`, func() bool { return got.Pause && len(got.Config.Entrypoint) == 2 }},
	} {
		w := ask(t, e, "POST", path+c.query, c.body)
		if w.Code != 201 || strings.TrimSpace(w.Body.String()) != `{"Id":"sha256:1"}` || got.Container != "web" || got.Ref != "a/b:1" || !c.check() {
			t.Errorf("%q %s: %d %s; engine saw %+v", c.query, c.body, w.Code, w.Body, got)
		}
	}
	for body, want := range map[string]string{`{`: "ends early", `{"Cmd":5}`: "invalid JSON"} {
		if w := ask(t, e, "POST", path, body); w.Code < 400 || w.Code >= 500 && w.Code != 501 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s, want %q", body, w.Code, w.Body, want)
		}
	}
}

func TestPruneAnswersInDockersForm(t *testing.T) {
	var got filter.Set
	e := &stub{img: imageStub{prune: func(f filter.Set) (reclaim.ImageReport, error) {
		got = f
		return reclaim.ImageReport{SpaceReclaimed: 7, ImagesDeleted: []image.DeleteResponse{{Deleted: "sha256:1"}}}, nil
	}}}
	w := ask(t, e, "POST", `/images/prune?filters={"dangling":{"false":true}}`, "")
	if want := `{"ImagesDeleted":[{"Deleted":"sha256:1"}],"SpaceReclaimed":7}`; w.Code != 200 || strings.TrimSpace(w.Body.String()) != want || !got["dangling"]["false"] {
		t.Errorf("%d %s, want %s; engine saw %+v", w.Code, w.Body, want, got)
	}
}

func TestAPruneThatIsAskedForADryRunDoesNothing(t *testing.T) {
	e := &stub{img: imageStub{prune: func(filter.Set) (r reclaim.ImageReport, _ error) {
		t.Error("it pruned")
		return r, nil
	}}}
	for _, kind := range []string{"containers", "images", "networks", "volumes", "build"} {
		if w := ask(t, e, "POST", "/"+kind+"/prune?dryRun=1", ""); w.Code != 400 || !strings.Contains(w.Body.String(), "/berth/plan") {
			t.Errorf("%s: %d %s", kind, w.Code, w.Body)
		}
	}
}

func TestPlansOfRemovals(t *testing.T) {
	var got wire.PlanRequest
	e := &stub{}
	e.plan = func(req wire.PlanRequest) (*reclaim.Ahead, error) {
		got = req
		a := &reclaim.Ahead{Freed: 7, Plan: reclaim.Plan{Keep: []reclaim.Item{{Kind: "image", ID: "sha256:2", Reason: "used by container x"}}}}
		a.Refuse("gone", reclaim.Item{}, fault.New(fault.NotFound, "", "", "No such image"))
		return a, nil
	}
	w := ask(t, e, "POST", "/berth/plan", `{"Prunes":[{"Kind":"image","Filters":{"dangling":{"false":true}}}],"Remove":{"Kind":"image","Refs":["gone"]}}`)
	if w.Code != 200 || len(got.Prunes) != 1 || !got.Prunes[0].Filters["dangling"]["false"] || got.Remove == nil || strings.TrimSpace(w.Body.String()) !=
		`{"Keep":[{"Kind":"image","ID":"sha256:2","Size":0,"Reason":"used by container x"}],"Refused":[{"Ref":"gone","Status":404,"Message":"No such image"}],"SpaceReclaimed":7}` {
		t.Errorf("%d %s; engine saw %+v", w.Code, w.Body, got)
	}
}

func TestWhatRefersToAnImage(t *testing.T) {
	var got images.Artifact
	e := &stub{img: imageStub{attach: func(ref string, a images.Artifact, _ registry.AuthConfig) error {
		got = a
		return nil
	}}}
	if w := ask(t, e, "POST", "/berth/images/reg.io/a:1/attach", `{"manifest":"aGk=","blobs":["eQ==","eg=="]}`); w.Code != 201 || string(got.Manifest) != "hi" || len(got.Blobs) != 2 || string(got.Blobs[1]) != "z" {
		t.Errorf("%d %s; engine saw %q", w.Code, w.Body, got)
	}
	if w := ask(t, e, "GET", "/berth/images/reg.io/a:1/referrers?artifactType=x/y", ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"artifactType":"x/y"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(t, e, "GET", "/berth/images/none/referrers", ""); strings.TrimSpace(w.Body.String()) != "[]" {
		t.Errorf("none: %d %s", w.Code, w.Body)
	}
	for _, path := range []string{"GET /berth/images/a/nothing", "POST /berth/images/a/referrers", "GET /berth/images/tree/x", "GET /berth/nothing"} {
		method, p, _ := strings.Cut(path, " ")
		if w := ask(t, e, method, p, ""); w.Code != 404 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestAClientThatGoesAwayEndsAPull(t *testing.T) {
	ended := make(chan error, 1)
	begun := make(chan struct{})
	s := serve(t, &stub{img: imageStub{pull: func(ctx context.Context, _ string, _ images.PullOptions, out io.Writer) error {
		io.WriteString(out, "{\"status\":\"pulling\"}\r\n")
		close(begun)
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}}})
	c := s.dial(t)
	io.WriteString(c, "POST /images/create?fromImage=a&tag=1 HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
	<-begun
	c.Close()
	if err := <-ended; err != context.Canceled {
		t.Error(err)
	}
}

func FuzzRegistryAuth(f *testing.F) {
	for _, seed := range []string{"", "e30=", encoded(`{"username":"a","password":"b"}`), encoded(`{"auth":"YTpi"}`), encoded(`[]`), "%%%", encoded(`{"r.io":{"auth":"YTpi"}}`)} {
		f.Add(seed, "r.io/a:1")
	}
	f.Fuzz(func(t *testing.T, header, ref string) {
		for _, name := range []string{"X-Registry-Auth", "X-Registry-Config"} {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header[name] = []string{header}
			a := (&exchange{r: r}).registryAuth(ref)
			if a.err != nil && (a.config != registry.AuthConfig{} || !fault.Is(a.explain(fault.New(fault.Unauthorized, "", "", "no")), fault.Unauthorized)) {
				t.Errorf("%q: %+v", header, a)
			}
			if a.config.Auth != "" && a.config.Username+a.config.Password == "" {
				t.Errorf("%q: credentials are left unread: %+v", header, a.config)
			}
		}
	})
}
