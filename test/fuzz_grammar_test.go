package test

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// apiRoutes reads the "METHOD /path" patterns of all routing tables of the API
// out of its source, so that a new endpoint is fuzzed as soon as it exists.
func apiRoutes(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../internal/api/*.go")
	if err != nil {
		t.Fatal(err)
	}
	entry := regexp.MustCompile(`(?m)^\t\{(?:pattern: )?"([A-Z]+ )?(/[^"]*)", `)
	var routes []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range entry.FindAllStringSubmatch(string(text), -1) {
			method := strings.TrimSpace(m[1])
			if method == "" {
				method = "POST"
			}
			routes = append(routes, method+" "+m[2])
		}
	}
	if len(routes) < 90 {
		t.Fatalf("only %d routes found in the source: %q", len(routes), routes)
	}
	return routes
}

// grammar makes requests out of the API's vocabulary: mostly ones that mean
// something, some that are wrong in one place, and a few that are noise.
type grammar struct {
	r   *rand.Rand
	dir string // a directory of the host that binds may name
	ids *idPool
}

// fuzzRequest is one request; a body of nil is none.
type fuzzRequest struct {
	method, path, contentType string
	header                    map[string]string
	body                      []byte
	chunked                   bool
}

func (g *grammar) pick(words ...string) string { return words[g.r.IntN(len(words))] }
func (g *grammar) chance(percent int) bool     { return g.r.IntN(100) < percent }

// text is a string that nobody expects.
func (g *grammar) text() string {
	return g.pick("", " ", ".", "..", "/", "../../etc/passwd", "%2e%2e", "\x00", "\n", "a b", "ä€😀", "\xff\xfe", strings.Repeat("x", 300), "-1", "0", "1e99",
		"9223372036854775808", "true", "null", "{}", "[]", "$(id)", "'", `"`, "sha256:", "sha256:"+strings.Repeat("0", 64), "host", "container:", "none", "-", "latest", "a:b:c", "@", "0x10")
}

func (g *grammar) name() string { return fmt.Sprintf("fz%d", g.r.IntN(12)) }

// container is mostly the name or id of one that may exist.
func (g *grammar) container() string {
	switch {
	case g.chance(70):
		return g.name()
	case g.chance(70):
		return g.ids.any(g.r)
	}
	return g.text()
}

func (g *grammar) image() string {
	if g.chance(94) {
		return g.pick(busyboxImage, busyboxImage, busyboxImage, busyboxImage, busyboxImage, busyboxImage, busyboxImage, "test/busybox", "made:1", "made:2", "committed:x", "built:1", "nosuch:1", "127.0.0.1:9/x:1")
	}
	return g.text()
}

func (g *grammar) number() string {
	if g.chance(70) {
		return g.pick("0", "1", "2", "3", "10", "100")
	}
	return g.pick("-1", "0.5", "99999999999", "9223372036854775807", "18446744073709551616", "abc", "")
}

// keys are the query parameters of the whole API with what makes values.
func (g *grammar) value(key string) string {
	if g.chance(8) {
		return g.text()
	}
	switch key {
	case "name":
		return g.name()
	case "container", "repo":
		return g.pick(g.name(), g.container(), "committed", "made")
	case "tag", "t":
		return g.pick("1", "2", "x", "built:1", "latest")
	case "fromImage":
		return g.image()
	case "fromSrc":
		return g.pick("-", "http://127.0.0.1:9/x.tar", "file:///etc/passwd")
	case "path":
		return g.pick("/", "/etc", "/bin/busybox", "/www/index.html", "/data", "/proc", "/dev", "/none/x", "../..", "/www/../etc")
	case "signal":
		return g.pick("TERM", "SIGKILL", "KILL", "9", "15", "0", "HUP", "WINCH", "SIGRTMIN+3", "64", "65", "-9", "STOP", "CONT")
	case "since", "until":
		return g.pick("0", "1", "1700000000", "1700000000.123456789", "2026-01-01T00:00:00Z", "99999999999", "-5", "1.5.5")
	case "tail":
		return g.pick("all", "0", "1", "10", "-1", "x")
	case "condition":
		return g.pick("not-running", "next-exit", "removed", "later")
	case "filters":
		return g.filters()
	case "h", "w", "limit", "keep-storage":
		return g.number()
	case "detachKeys":
		return g.pick("ctrl-p,ctrl-q", "a", "ctrl-@", "ctrl-", ",,")
	case "platform":
		return g.pick("linux/amd64", "linux/arm64/v8", "windows", `{"os":"linux","architecture":"amd64"}`, "{", "a/b/c/d")
	case "changes":
		return g.pick("CMD true", "ENV a=b", "EXPOSE 80", "VOLUME /x", "FROM x", "USER 1", "RUN true", "LABEL a=b", "CMD [")
	case "ps_args":
		return g.pick("-ef", "aux", "-o pid,comm", "-o comm", "; id")
	case "remote":
		return g.pick("", "", "http://127.0.0.1:9/x.tar", "client-session", "git://127.0.0.1:9/x")
	case "dockerfile":
		return g.pick("Dockerfile", "other", "../Dockerfile", "")
	case "buildargs", "labels":
		return g.pick(`{"a":"b"}`, `{"a":null}`, "[]", "{")
	case "format":
		return g.pick("", "json", "x")
	case "t0":
		return g.pick("0", "1", "-1")
	}
	return g.pick("0", "1", "true", "false", "yes")
}

var queryKeys = strings.Fields("all size limit filters name force v link noprune signal t0 condition stdout stderr follow timestamps tail since until details " +
	"stream one-shot stdin logs detachKeys path noOverwriteDirNonDir copyUIDGID h w ps_args fromImage fromSrc repo tag message platform changes container comment author pause " +
	"term names quiet dockerfile t remote q nocache pull rm forcerm buildargs labels networkmode target version type verbose manifests shared-size identity dangling id digests " +
	"allPlatforms dryRun dry-run explain buildid keep-storage format artifactType")

// usual are the parameters without which some routes only refuse.
var usual = map[string][]string{
	"logs": {"stdout", "stderr", "follow", "tail"}, "attach": {"stream", "stdin", "stdout"}, "archive": {"path"}, "create": {"name", "fromImage", "fromSrc", "repo"},
	"commit": {"container", "repo", "tag"}, "rename": {"name"}, "kill": {"signal"}, "build": {"t", "q"}, "resize": {"h", "w"}, "wait": {"condition"}, "stats": {"stream", "one-shot"},
	"tag": {"repo", "tag"}, "prune": {"filters"}, "json": {"all", "filters"}, "events": {"since", "until", "filters"}, "get": {"names"}, "search": {"term"},
}

func (g *grammar) query(path string) string {
	q := url.Values{}
	last := path[strings.LastIndexByte(path, '/')+1:]
	for _, key := range usual[last] {
		if g.chance(75) {
			q.Add(key, g.value(key))
		}
	}
	for range g.r.IntN(3) {
		key := queryKeys[g.r.IntN(len(queryKeys))]
		q.Add(key, g.value(key))
	}
	if strings.HasSuffix(path, "/stop") || strings.HasSuffix(path, "/restart") {
		q.Set("t", g.pick("0", "0", "1", "-7", "x"))
	}
	text := q.Encode()
	if g.chance(2) {
		text += "&%zz;=&&" + g.text()
	}
	return text
}

func (g *grammar) filters() string {
	key := func() string {
		return g.pick("id", "name", "label", "status", "ancestor", "network", "volume", "exited", "health", "is-task", "publish", "expose", "before", "since", "until", "dangling",
			"reference", "driver", "type", "scope", "event", "container", "image", "daemon", "label!", "bogus")
	}
	value := func() string {
		return g.pick("running", "exited", "created", "paused", "a=b", "fz", "fz1", "1h", "0", "true", "false", "bridge", "local", "container", "start", "80/tcp", "healthy", "*", "(", "sha256:00", g.text())
	}
	var doc any
	switch g.r.IntN(6) {
	case 0:
		return g.pick("{", "[]", `{"a":1}`, `{"a":{"b":3}}`, "null", "")
	case 1, 2:
		doc = map[string][]string{key(): {value()}}
	default:
		doc = map[string]map[string]bool{key(): {value(): true, value(): g.chance(80)}}
	}
	text, _ := json.Marshal(doc)
	return string(text)
}

// request fills a route's pattern with words.
func (g *grammar) request(route string) fuzzRequest {
	method, pattern, _ := strings.Cut(route, " ")
	path := regexp.MustCompile(`\{[^}]*\}`).ReplaceAllStringFunc(pattern, func(hole string) string {
		escape := url.PathEscape
		if g.chance(3) {
			escape = func(s string) string {
				return strings.NewReplacer("\x00", "%00", " ", "%20", "\n", "%0a", "\xff", "%ff").Replace(s)
			}
		}
		switch {
		case hole == "{name...}":
			return g.image() + g.pick("/json", "/history", "/get", "/tag", "/push", "/verify", "/tree", "/attach", "/referrers", "", "/nothing")
		case strings.Contains(pattern, "/exec/"):
			return escape(g.ids.exec(g.r))
		case strings.Contains(pattern, "/images") || strings.Contains(pattern, "/distribution"):
			return g.image()
		case strings.Contains(pattern, "/networks"):
			return escape(g.pick("fznet1", "fznet2", "bridge", "host", "none", g.text()))
		case strings.Contains(pattern, "/volumes"):
			return escape(g.pick("fzvol1", "fzvol2", g.text()))
		}
		return escape(g.container())
	})
	if g.chance(4) {
		method = g.pick("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "BREW")
	}
	req := fuzzRequest{method: method, header: map[string]string{}, chunked: g.chance(10)}
	req.contentType, req.body = g.bodyOf(method, pattern)
	if q := g.query(path); q != "" {
		path += "?" + q
	}
	if g.chance(60) {
		path = g.pick("/v1.24", "/v1.30", "/v1.41", "/v1.44", "/v1.47", "/v1.56", "/v1.56", "/v1.23", "/v9.9") + path
	}
	req.path = path
	if g.chance(5) {
		req.contentType = g.pick("", "text/plain", "application/json; charset=utf-8", ";;", "application/x-tar")
	}
	if g.chance(5) {
		auth := g.pick("{}", `{"username":"u","password":"p"}`, "[", `{"identitytoken":"t"}`)
		req.header["X-Registry-Auth"] = g.pick(base64.URLEncoding.EncodeToString([]byte(auth)), auth, g.pick("*", "===="))
	}
	if strings.Contains(path, "/attach") || strings.Contains(path, "/exec/") && g.chance(50) {
		req.header["Connection"], req.header["Upgrade"] = "Upgrade", "tcp"
	}
	if strings.Contains(path, "/ws") {
		req.header["Connection"], req.header["Upgrade"] = "Upgrade", "websocket"
		req.header["Sec-WebSocket-Key"], req.header["Sec-WebSocket-Version"] = "dGhlIHNhbXBsZSBub25jZQ==", g.pick("13", "8")
	}
	return req
}

// bodyOf makes a body of the kind that a route wants, or nearly so.
func (g *grammar) bodyOf(method, pattern string) (contentType string, body []byte) {
	if method == "GET" || method == "HEAD" || method == "DELETE" {
		if g.chance(95) {
			return "", nil
		}
	}
	last := pattern[strings.LastIndexByte(pattern, '/')+1:]
	switch last {
	case "start", "stop", "restart", "kill", "pause", "unpause", "rename", "resize", "attach", "wait", "prune":
		if !strings.Contains(pattern, "/exec/") && g.chance(95) {
			return "", nil
		}
	}
	switch {
	case strings.HasSuffix(pattern, "/archive"), strings.HasSuffix(pattern, "/load"), pattern == "/build", pattern == "/images/create":
		return "application/x-tar", g.archive()
	}
	doc := g.document(pattern)
	body, _ = json.Marshal(doc)
	switch g.r.IntN(40) {
	case 0:
		body = body[:g.r.IntN(len(body)+1)]
	case 1:
		body = append(body, "garbage"...)
	case 2:
		body = []byte(strings.Repeat(`{"HostConfig":`, 20000))
	case 3:
		body = []byte(g.pick("null", "[]", `"x"`, "0", "{", `{"Cmd":{}}`, `{"HostConfig":[]}`, "\x00\x01", `{"a":1,"a":2}`))
	case 4:
		if g.chance(10) {
			body = append([]byte(`{"Image":"`), append(bytes.Repeat([]byte("x"), 5<<20), `"}`...)...)
		}
	case 5:
		for range 3 {
			if len(body) > 0 {
				body[g.r.IntN(len(body))] = byte(g.r.IntN(256))
			}
		}
	}
	if pattern == "/berth/build" {
		return "application/octet-stream", append(append(body, '\n'), g.archive()...)
	}
	return "application/json", body
}

// archive is a small tar with a Dockerfile, hostile entries now and then, or a
// part of one.
func (g *grammar) archive() []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	file := g.pick("FROM "+busyboxImage+"\nRUN echo x >/y\n", "FROM "+busyboxImage+"\nCOPY . /z\n", "FROM scratch\nCOPY f /f\n", "FROM nosuch:1\n", "RUN x\n", "FROM "+busyboxImage+"\nRUN sleep 3\n", "")
	entries := []*tar.Header{{Name: "Dockerfile", Uname: file}, {Name: "f", Uname: "content"}, {Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}}
	if g.chance(20) {
		entries = append(entries, &tar.Header{Name: g.pick("../up", "/abs", "d", "f/below", ".wh.f", ".wh..wh..opq", "manifest.json"), Typeflag: tar.TypeReg, Uname: g.text()})
	}
	if g.chance(20) {
		entries = append(entries, &tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: g.pick("/etc", "..", "f", "l")})
	}
	if g.chance(10) {
		entries = append(entries, &tar.Header{Name: "dev", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3})
	}
	for _, h := range entries {
		text := h.Uname
		h.Uname, h.Size = "", int64(len(text))
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if w.WriteHeader(h) == nil {
			_, _ = w.Write([]byte(text))
		}
	}
	_ = w.Close()
	out := b.Bytes()
	switch g.r.IntN(10) {
	case 0:
		return out[:g.r.IntN(len(out))]
	case 1:
		out[g.r.IntN(len(out))] ^= 0xff
	case 2:
		return []byte(g.text())
	}
	return out
}
