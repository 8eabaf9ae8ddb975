package api

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// swagger returns the path of the description of the API that go.mod names.
func swagger(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/moby/moby/api").Output()
	if err != nil {
		t.Skipf("the moby/api module is not at hand: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "swagger.yaml")
}

// endpoints reads "METHOD path" pairs from the paths section.
func endpoints(t *testing.T, file string) (list [][2]string, version string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pathLine := regexp.MustCompile(`^  (/\S*):`)
	methodLine := regexp.MustCompile(`^    (get|post|put|delete|head):`)
	inPaths, path := false, ""
	for s := bufio.NewScanner(f); s.Scan(); {
		line := s.Text()
		if v, ok := strings.CutPrefix(line, `  version: "`); ok {
			version = strings.TrimSuffix(v, `"`)
		}
		inPaths = inPaths || strings.HasPrefix(line, "paths:")
		if !inPaths {
			continue
		}
		if m := pathLine.FindStringSubmatch(line); m != nil {
			path = m[1]
		}
		if m := methodLine.FindStringSubmatch(line); m != nil {
			list = append(list, [2]string{strings.ToUpper(m[1]), path})
		}
	}
	return list, version
}

func TestEveryEndpointOfTheDockerAPIIsAnswered(t *testing.T) {
	list, version := endpoints(t, swagger(t))
	if len(list) < 100 {
		t.Fatalf("found only %d endpoints", len(list))
	}
	if version != newest.String() {
		t.Errorf("newest version served is %s, the API module describes %s", newest, version)
	}
	names := strings.NewReplacer("/volumes/{name}", "/volumes/data", "{id}", "abc", "{name}", "some/name")
	for _, e := range list {
		for _, prefix := range []string{"", "/v1.24", "/v" + newest.String()} {
			w := ask(t, &stub{}, e[0], prefix+names.Replace(e[1]), "")
			if w.Code == http.StatusNotFound && strings.Contains(w.Body.String(), "page not found") {
				t.Errorf("%s %s%s is not answered", e[0], prefix, e[1])
			}
			if w.Code >= 400 && e[0] != http.MethodHead {
				wantMessage(t, e[0]+" "+prefix+e[1], w.Header(), w.Body.Bytes())
			}
		}
	}
}

// wantMessage checks the form of an error that all clients rely on.
func wantMessage(t *testing.T, what string, h http.Header, body []byte) {
	t.Helper()
	var msg struct{ Message string }
	if err := json.Unmarshal(body, &msg); err != nil || msg.Message == "" {
		t.Errorf("%s: error body %q holds no message", what, body)
	}
	if ct := h.Get("Content-Type"); ct != "application/json" {
		t.Errorf("%s: error has content type %q", what, ct)
	}
}

func TestUnknownPathsAndMethodsGetDockersAnswer(t *testing.T) {
	for _, c := range [][2]string{
		{"GET", "/nothing"}, {"GET", "/v1.44/nothing"}, {"GET", "/"}, {"GET", "/v1.44"}, {"GET", "/v1.44/"},
		{"PUT", "/containers/create"},
		{"GET", "/images/x/nothing"}, {"POST", "/images/x/json"}, {"GET", "/version1/info"}, {"DELETE", "/v1.44/info"},
	} {
		w := ask(t, &stub{}, c[0], c[1], "")
		if w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "page not found") {
			t.Errorf("%s %s: %d %s", c[0], c[1], w.Code, w.Body)
		}
	}
}

func TestUncleanPathsAreRedirected(t *testing.T) {
	for from, to := range map[string]string{
		"/v1.41//containers/json?all=1": "/v1.41/containers/json?all=1", "/containers//json": "/containers/json",
		"/v1.40/../etc/passwd": "/v1.40/etc/passwd", "/images/./json": "/images/json", "//evil.example/x": "/evil.example/x",
	} {
		w := ask(t, &stub{}, "GET", from, "")
		if w.Code != http.StatusMovedPermanently || w.Header().Get("Location") != to {
			t.Errorf("%s: %d %s, want %s", from, w.Code, w.Header().Get("Location"), to)
		}
	}
}

func TestSwarmAndPluginsAnswerInDockersWords(t *testing.T) {
	for path, want := range map[string]string{
		"GET /swarm": notManager, "GET /nodes": notManager, "POST /services/create": notManager, "GET /tasks/x/logs": notManager,
		"GET /secrets": notManager, "GET /configs/x": notManager, "POST /swarm/leave": notMember, "POST /swarm/unlock": notManager,
	} {
		method, p, _ := strings.Cut(path, " ")
		w := ask(t, &stub{}, method, p, "")
		var msg struct{ Message string }
		if err := json.Unmarshal(w.Body.Bytes(), &msg); err != nil || msg.Message != want || w.Code != http.StatusServiceUnavailable {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if w := ask(t, &stub{}, "GET", "/v1.41/plugins", ""); w.Code != http.StatusOK || strings.TrimSpace(w.Body.String()) != "[]" {
		t.Errorf("plugins: %d %s", w.Code, w.Body)
	}
	for path, want := range map[string]int{`/plugins?filters={"enabled":["true"]}`: 200, `/plugins?filters={"enabled":["x"]}`: 400, `/plugins?filters={"x":["y"]}`: 400, `/plugins?filters={`: 400} {
		if w := ask(t, &stub{}, "GET", path, ""); w.Code != want {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if w := ask(t, &stub{}, "OPTIONS", "/v1.41/images/json", ""); w.Code != http.StatusOK || w.Body.Len() > 0 {
		t.Errorf("OPTIONS: %d %s", w.Code, w.Body)
	}
	w := ask(t, &stub{}, "GET", "/containers/x/checkpoints", "")
	if w.Code != http.StatusNotImplemented || !strings.Contains(w.Body.String(), "checkpoints") {
		t.Errorf("checkpoints: %d %s", w.Code, w.Body)
	}
}

func TestVersionsOutsideOfTheRangeAreRefusedInDockersWords(t *testing.T) {
	for _, c := range []struct {
		path string
		code int
		want string
	}{
		{"/v1.23/info", 400, "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"},
		{"/v1/info", 400, "client version 1.0 is too old"},
		{"/v1.57/info", 400, "client version 1.57 is too new. Maximum supported API version is 1.56"},
		{"/v2.0/info", 400, "is too new"},
		{"/v1.24/info", 200, ""}, {"/v1.56/info", 200, ""}, {"/info", 200, ""}, {"/v1.44.1/info", 200, ""},
		{"/v1.x/info", 404, "page not found"}, {"/v1.99999999999999999999/info", 404, "page not found"},
	} {
		w := ask(t, &stub{}, "GET", c.path, "")
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d %s", c.path, w.Code, w.Body)
		}
		if w.Header().Get("Api-Version") != newest.String() {
			t.Errorf("%s: no Api-Version header, clients cannot negotiate", c.path)
		}
	}
}

func TestPingHasTheHeadersClientsNegotiateBy(t *testing.T) {
	for _, method := range []string{"GET", "HEAD"} {
		for _, path := range []string{"/_ping", "/v1.30/_ping"} {
			w := ask(t, &stub{}, method, path, "")
			for name, want := range map[string]string{
				"Api-Version": newest.String(), "Builder-Version": "1", "Docker-Experimental": "false",
				"Ostype": "linux", "Swarm": "inactive", "Pragma": "no-cache",
			} {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s %s: %s is %q, want %q", method, path, name, got, want)
				}
			}
			if want := map[string]string{"GET": "OK", "HEAD": ""}[method]; w.Body.String() != want || w.Code != 200 {
				t.Errorf("%s %s: %d %q", method, path, w.Code, w.Body)
			}
		}
	}
}
