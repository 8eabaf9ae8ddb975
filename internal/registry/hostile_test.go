package registry

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/registry/auth"
)

// raw sends bytes as they are and returns the status line's code.
func (h *harness) raw(text string) string {
	h.t.Helper()
	conn, err := net.Dial("tcp", h.server.Listener.Addr().String())
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	go func() {
		_, _ = io.WriteString(conn, text)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err.Error()
	}
	_, code, _ := strings.Cut(strings.TrimSpace(line), " ")
	return code
}

// tree lists what is below a directory.
func tree(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestRepositoryNamesNeverBecomePaths(t *testing.T) {
	h := newHarness(t, nil)
	before := tree(t, filepath.Dir(h.dir))
	for _, name := range []string{
		"../../etc", "..", "a/../b", "a/./b", "/etc/passwd", "a//b", "a/", "A", "a b", "a\x00b", "a%00b", "..%2f..%2fetc", "%2e%2e/%2e%2e/etc", "a/%2e%2e/b", ".a", "a.", "a..b", "-a", "a___b",
		"a_-b", "_a", "a\\..\\b", "ä", "a\nb", strings.Repeat("a", 256), strings.Repeat("a/", 200) + "a", "_catalog/x", "",
	} {
		path := "/v2/" + strings.NewReplacer(" ", "%20", "\x00", "%00", "\n", "%0a").Replace(name)
		for _, rest := range []string{"/manifests/x", "/blobs/uploads/", "/tags/list"} {
			method := map[string]string{"/manifests/x": "PUT", "/blobs/uploads/": "POST", "/tags/list": "GET"}[rest]
			status := h.raw(method + " " + path + rest + " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			if !strings.HasPrefix(status, "400") && !strings.HasPrefix(status, "404") && !strings.HasPrefix(status, "405") {
				t.Errorf("%s %q%s: %s", method, name, rest, status)
			}
		}
	}
	for _, ref := range []string{"../x", "a%2f..%2fb", ".", "..", "-x", strings.Repeat("t", 129), "sha256:../../../etc/passwd", "sha256:" + strings.Repeat("A", 64), "sha256:" + strings.Repeat("a", 63), "md5:" + strings.Repeat("a", 32)} {
		for _, kind := range []string{"manifests", "blobs", "referrers", "blobs/uploads"} {
			status := h.raw("GET /v2/r/" + kind + "/" + ref + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			if !strings.HasPrefix(status, "400") && !strings.HasPrefix(status, "404") && !strings.HasPrefix(status, "405") {
				t.Errorf("%s/%q: %s", kind, ref, status)
			}
		}
	}
	if after := tree(t, filepath.Dir(h.dir)); len(after) != len(before) {
		t.Errorf("files appeared: %v", after)
	}
}

func rules(t *testing.T, rules ...auth.Rule) func(*Config) {
	return func(c *Config) {
		c.Auth.Htpasswd = users(t, "ann", "bob", "eve")
		c.Auth.Rules = rules
	}
}

func TestNobodyGetsMoreThanTheRulesGive(t *testing.T) {
	h := newHarness(t, rules(t,
		auth.Rule{Who: []string{"user:ann"}, Repositories: []string{"ann/**", "shared"}, Allow: auth.All},
		auth.Rule{Who: []string{"user:bob"}, Repositories: []string{"bob/**"}, Allow: auth.Pull | auth.Push},
		auth.Rule{Who: []string{"users"}, Repositories: []string{"shared"}, Allow: auth.Pull},
		auth.Rule{Who: []string{"anonymous"}, Repositories: []string{"public/*"}, Allow: auth.Pull},
	))
	h.user = "ann"
	secret := h.pushBlob("ann/secret", "a secret layer")
	raw := h.pushImage("ann/secret", "t")
	shared := h.pushBlob("shared", "everybody's")

	h.user = "bob"
	h.want(200, "", "GET", "/v2/", nil)
	for _, path := range []string{"/v2/ann/secret/manifests/t", "/v2/ann/secret/blobs/" + secret.Digest.String(), "/v2/ann/secret/tags/list", "/v2/ann/secret/referrers/" + secret.Digest.String(), "/v2/ann/nothing/tags/list"} {
		h.want(403, codeDenied, "GET", path, nil)
	}
	h.want(403, codeDenied, "POST", "/v2/shared/blobs/uploads/", nil)
	h.want(403, codeDenied, "DELETE", "/v2/bob/x/manifests/t", nil)
	// Mounting is reading: not from where one may not pull, named or found.
	for _, query := range []string{"mount=" + secret.Digest.String() + "&from=ann/secret", "mount=" + secret.Digest.String(), "mount=" + secret.Digest.String() + "&from=..%2fann%2fsecret"} {
		h.want(202, "", "POST", "/v2/bob/loot/blobs/uploads/?"+query, nil)
	}
	h.want(404, "", "HEAD", "/v2/bob/loot/blobs/"+secret.Digest.String(), nil)
	h.want(201, "", "POST", "/v2/bob/app/blobs/uploads/?mount="+shared.Digest.String()+"&from=shared", nil)
	h.want(201, "", "POST", "/v2/bob/app2/blobs/uploads/?mount="+shared.Digest.String(), nil)
	// Nor by naming it in a manifest of one's own.
	h.putManifest(400, codeManifestBlobUnknown, "bob/app", "t", raw)
	if a := h.want(200, "", "GET", "/v2/_catalog", nil); strings.Contains(string(a.body), "ann") || !strings.Contains(string(a.body), "bob/app") {
		t.Errorf("%s", a.body)
	}
	if a := h.want(200, "", "GET", "/", nil); strings.Contains(string(a.body), "ann/") || !strings.Contains(string(a.body), "bob/app") {
		t.Errorf("%s", a.body)
	}
	h.want(404, codeNameUnknown, "GET", "/?repository=ann/secret", nil)

	h.user = ""
	for path, want := range map[string]string{"/v2/": "Bearer realm=", "/v2/ann/secret/manifests/t": "Bearer realm=", "/metrics": "Basic realm="} {
		if a := h.want(401, codeUnauthorized, "GET", path, nil); !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), want) {
			t.Errorf("%s: %v", path, a.Header)
		}
	}
	h.want(404, codeNameUnknown, "GET", "/v2/public/x/tags/list", nil)
	h.want(401, codeUnauthorized, "GET", "/v2/", nil, "Authorization: Basic bm86cGU=")
	h.want(401, codeUnauthorized, "GET", "/v2/public/x/tags/list", nil, "Authorization: Basic !!")
	h.want(401, codeUnauthorized, "GET", "/v2/public/x/tags/list", nil, "Authorization: Negotiate x")
}

func TestAnonymousAndUsersSideBySide(t *testing.T) {
	h := newHarness(t, rules(t,
		auth.Rule{Who: []string{"user:ann"}, Repositories: []string{"**"}, Allow: auth.All},
		auth.Rule{Who: []string{"anonymous"}, Repositories: []string{"public/*"}, Allow: auth.Pull},
	))
	h.user = "ann"
	h.pushImage("public/app", "t")
	h.pushImage("private/app", "t")
	h.user = ""
	// What docker does: it asks how to log in, and gets a token without a name.
	if a := h.want(401, codeUnauthorized, "GET", "/v2/", nil); !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), "Bearer realm=\""+h.server.URL+"/token\"") {
		t.Fatalf("%v", a.Header)
	}
	var answer struct{ Token string }
	a := h.want(200, "", "GET", "/token?service=berth&scope=repository:public/app:pull&scope=repository:private/app:pull", nil)
	if err := json.Unmarshal(a.body, &answer); err != nil {
		t.Fatal(err)
	}
	h.want(200, "", "GET", "/v2/public/app/manifests/t", nil, "Authorization: Bearer "+answer.Token)
	h.want(401, codeUnauthorized, "GET", "/v2/private/app/manifests/t", nil, "Authorization: Bearer "+answer.Token)

	// Where nobody can log in there is no use in asking for it.
	open := newHarness(t, func(c *Config) {
		c.Auth.Rules = []auth.Rule{{Who: []string{"anonymous"}, Repositories: []string{"public/*"}, Allow: auth.Pull | auth.Push}}
	})
	open.want(200, "", "GET", "/v2/", nil)
	open.pushImage("public/app", "t")
	open.want(403, codeDenied, "POST", "/v2/private/app/blobs/uploads/", nil)
	open.want(403, codeDenied, "DELETE", "/v2/public/app/manifests/t", nil)
}

func TestUploadsBelongToWhoBeganThem(t *testing.T) {
	h := newHarness(t, rules(t, auth.Rule{Who: []string{"users"}, Repositories: []string{"**"}, Allow: auth.All}))
	h.user = "ann"
	loc := h.begin("team/app")
	h.want(202, "", "PATCH", loc, "ann's")
	id := loc[strings.LastIndexByte(loc, '/')+1:]
	flipped := []byte(id)
	flipped[3] ^= 1
	guesses := map[string]string{
		"another repository": "/v2/team/other/blobs/uploads/" + id, "another id": "/v2/team/app/blobs/uploads/" + string(flipped), "upper case": "/v2/team/app/blobs/uploads/" + strings.ToUpper(id),
		"cut": "/v2/team/app/blobs/uploads/" + id[:40], "long": "/v2/team/app/blobs/uploads/" + id + "00", "uuid": "/v2/team/app/blobs/uploads/00000000-0000-0000-0000-000000000000",
	}
	try := func(who, path string) {
		t.Helper()
		for _, method := range []string{"GET", "PATCH", "PUT", "DELETE"} {
			if a := h.do(method, path+"?digest="+digest.FromString("evil").String(), "evil"); a.StatusCode != 404 || a.code() != codeUploadUnknown {
				t.Errorf("%s: %s: %d %s", who, method, a.StatusCode, a.body)
			}
		}
	}
	for name, path := range guesses {
		try(name, path)
	}
	h.user = "eve"
	try("another user", loc)
	h.restart()
	try("another user after a restart", loc)
	h.user = "ann"
	if a := h.want(204, "", "GET", loc, nil); a.Header.Get("Range") != "0-4" {
		t.Errorf("%v", a.Header)
	}
	h.want(201, "", "PUT", loc+"?digest="+digest.FromString("ann's").String(), nil)
}

func TestWrongBytesNeverReplaceOrBecomeABlob(t *testing.T) {
	h := newHarness(t, nil)
	good := h.pushBlob("r", "good")
	path := "/v2/r/blobs/" + good.Digest.String()
	h.want(400, codeDigestInvalid, "POST", "/v2/r/blobs/uploads/?digest="+good.Digest.String(), "evil")
	loc := h.begin("r")
	h.want(202, "", "PATCH", loc, "evil")
	h.want(400, codeDigestInvalid, "PUT", loc+"?digest="+good.Digest.String(), nil)
	h.want(404, codeUploadUnknown, "GET", loc, nil)
	loc = h.begin("r")
	h.want(400, codeDigestInvalid, "PUT", loc+"?digest=sha256:..%2f..%2fx", "evil")
	h.want(400, codeDigestInvalid, "PUT", loc, "evil")
	h.want(204, "", "GET", loc, nil)
	if a := h.want(200, "", "GET", path, nil); string(a.body) != "good" {
		t.Errorf("the blob became %q", a.body)
	}
	raw := h.pushImage("r", "t")
	h.putManifest(400, codeDigestInvalid, "r", good.Digest.String(), raw)
	// A body that is cut off becomes nothing, and what came of an upload stays.
	d := digest.FromString("0123456789")
	if status := h.raw("POST /v2/r/blobs/uploads/?digest=" + d.String() + " HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nConnection: close\r\n\r\n01234"); strings.HasPrefix(status, "20") {
		t.Error(status)
	}
	h.want(404, "", "HEAD", "/v2/r/blobs/"+d.String(), nil)
}

func TestManifestsThatMeanTwoThingsAreRefused(t *testing.T) {
	h := newHarness(t, nil)
	config := h.pushBlob("r", "{}")
	c, _ := json.Marshal(config)
	desc := func(d string, size int) string {
		return fmt.Sprintf(`{"mediaType":"application/x","digest":%q,"size":%d}`, d, size)
	}
	conf := string(c)
	for name, text := range map[string]string{
		"not JSON": `{`, "a list": `[]`, "two documents": `{"schemaVersion":2,"config":` + conf + `,"layers":[]}{}`, "empty": ``, "schema 1": `{"schemaVersion":1,"fsLayers":[]}`,
		"no version": `{"config":` + conf + `,"layers":[]}`, "layers and manifests (CVE-2021-41190)": `{"schemaVersion":2,"config":` + conf + `,"layers":[],"manifests":[]}`,
		"another type inside":     `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[]}`,
		"layers twice":            `{"schemaVersion":2,"config":` + conf + `,"layers":[],"layers":[` + conf + `]}`,
		"Layers and layers":       `{"schemaVersion":2,"config":` + conf + `,"layers":[],"Layers":[` + conf + `]}`,
		"digest with a path":      `{"schemaVersion":2,"config":` + desc("sha256:../../../etc/passwd", 1) + `,"layers":[]}`,
		"negative size":           `{"schemaVersion":2,"config":` + desc(config.Digest.String(), -1) + `,"layers":[]}`,
		"sizes beyond all bounds": `{"schemaVersion":2,"config":` + conf + `,"layers":[` + desc(config.Digest.String(), 1<<62) + `,` + desc(config.Digest.String(), 1<<62) + `]}`,
		"no config":               `{"schemaVersion":2,"layers":[]}`, "deep": `{"schemaVersion":2,"x":` + strings.Repeat("[", 100000) + strings.Repeat("]", 100000) + `}`,
		"subject with a path": `{"schemaVersion":2,"config":` + conf + `,"layers":[],"subject":` + desc("sha256:x/../y", 1) + `}`,
	} {
		if a := h.putManifest(400, codeManifestInvalid, "r", "t", []byte(text)); t.Failed() {
			t.Fatalf("%s: %s", name, a.body)
		}
	}
	h.want(400, codeManifestInvalid, "PUT", "/v2/r/manifests/t", `{"schemaVersion":2,"config":`+conf+`,"layers":[]}`, "Content-Type: text/html")
	h.putManifest(400, codeSizeInvalid, "r", "t", []byte(`{"schemaVersion":2,"config":`+desc(config.Digest.String(), 999)+`,"layers":[]}`))
	h.putManifest(400, codeManifestBlobUnknown, "r", "t", []byte(`{"schemaVersion":2,"config":`+conf+`,"layers":[`+desc(digest.FromString("none").String(), 4)+`]}`))
	h.want(404, codeManifestUnknown, "GET", "/v2/r/manifests/t", nil)
}

func TestWhatIsTooLargeIsRefusedEarly(t *testing.T) {
	h := newHarness(t, nil)
	config := h.pushBlob("r", "{}")
	raw := manifestOf(config, nil, func(m *ocispec.Manifest) {
		m.Annotations = map[string]string{"x": strings.Repeat("x", limitManifest-600)}
	})
	h.putManifest(201, "", "r", "large", raw)
	big := bytes.Repeat([]byte(" "), limitManifest+1)
	h.putManifest(413, codeManifestInvalid, "r", "t", big)
	h.want(413, codeManifestInvalid, "PUT", "/v2/r/manifests/t", struct{ io.Reader }{bytes.NewReader(big)}, "Content-Type: "+ocispec.MediaTypeImageManifest)
	for name, text := range map[string]string{
		"one header":   "GET /v2/ HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 200<<10) + "\r\n\r\n",
		"many headers": "GET /v2/ HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: y\r\n", 40<<10) + "\r\n",
		"a long path":  "GET /v2/" + strings.Repeat("a/", 100<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		if status := h.raw(text); !strings.HasPrefix(status, "431") && !strings.HasPrefix(status, "414") && !strings.Contains(status, "reset") && !strings.Contains(status, "EOF") {
			t.Errorf("%s: %s", name, status)
		}
	}
	// The server is none the worse for it.
	h.want(200, "", "GET", "/v2/", nil)
}

func TestReadOnlyAndOrigins(t *testing.T) {
	readOnly := false
	h := newHarness(t, func(c *Config) { c.ReadOnly = readOnly; c.Origins = []string{"https://ui.example"} })
	raw := h.pushImage("r", "t")
	readOnly = true
	h.restart()
	h.want(200, "", "GET", "/v2/r/manifests/t", nil)
	h.want(405, codeUnsupported, "POST", "/v2/r/blobs/uploads/", nil)
	h.putManifest(405, codeUnsupported, "r", "t", raw)
	h.want(405, codeUnsupported, "DELETE", "/v2/r/manifests/t", nil)
	if a := h.want(204, "", "OPTIONS", "/v2/", nil, "Origin: https://ui.example"); a.Header.Get("Access-Control-Allow-Origin") != "https://ui.example" {
		t.Errorf("%v", a.Header)
	}
	if a := h.want(200, "", "GET", "/v2/", nil, "Origin: https://evil.example"); a.Header.Get("Access-Control-Allow-Origin") != "" || a.Header.Get("Vary") != "Origin" {
		t.Errorf("%v", a.Header)
	}
	h.want(405, codeUnsupported, "OPTIONS", "/v2/", nil)
}

func TestPageShowsNamesAsTextOnly(t *testing.T) {
	h := newHarness(t, nil)
	if a := h.want(200, "", "GET", "/", nil); !strings.Contains(string(a.body), "docker push") {
		t.Errorf("%s", a.body)
	}
	config, layer := h.pushBlob("app", "{}"), h.pushBlob("app", "layer")
	layer.MediaType = `<script>alert("x")</script>`
	raw := manifestOf(config, []ocispec.Descriptor{layer}, nil)
	h.putManifest(201, "", "app", "v1", raw)
	for i := range 120 {
		h.putManifest(201, "", "app", fmt.Sprintf("tag-%03d", i), raw)
	}
	a := h.want(200, "", "GET", "/?repository=app&tag=v1", nil)
	text := string(a.body)
	if strings.Contains(text, "<script") || !strings.Contains(text, "&lt;script") || !strings.Contains(text, layer.Digest.String()) || !strings.Contains(text, "docker pull") {
		t.Errorf("%s", text)
	}
	_, style, _ := strings.Cut(text, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	if csp := a.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; style-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'") {
		t.Error(csp)
	}
	a = h.want(200, "", "GET", "/?repository=app", nil)
	if !strings.Contains(string(a.body), "tag-049") || strings.Contains(string(a.body), "tag-060") || !strings.Contains(string(a.body), "/?after=tag-049&amp;repository=app") {
		t.Errorf("%s", a.body)
	}
	h.want(200, "", "GET", "/?repository=app&after=tag-100", nil)
	h.want(404, codeNameUnknown, "GET", "/?repository=../x", nil)
	h.want(404, codeNameUnknown, "GET", "/?repository=app&tag=none", nil)
}

func TestMetricsCount(t *testing.T) {
	h := newHarness(t, nil)
	h.pushImage("r", "t")
	h.do("BREW", "/v2/", nil)
	a := h.want(200, "", "GET", "/metrics", nil)
	for _, want := range []string{"berth_registry_blobs_pushed_total 2\n", "berth_registry_manifests_pushed_total 1\n", `berth_registry_request_duration_seconds_count{route="uploads",method="POST",code="201"} 2`,
		`le="+Inf"`, "berth_registry_requests_in_flight 1\n", `method="other"`, "# TYPE process_resident_memory_bytes gauge\n"} {
		if !strings.Contains(string(a.body), want) {
			t.Errorf("no %q in\n%s", want, a.body)
		}
	}
	if a.Header.Get("Content-Type") != "text/plain; version=0.0.4; charset=utf-8" {
		t.Errorf("%v", a.Header)
	}
}

func TestGarbageGoesBesideTheServer(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.GC = GC{Grace: time.Nanosecond, Untagged: true} })
	raw := h.pushImage("r", "t")
	loose := h.pushBlob("r", "loose")
	dry, err := h.registry.GC(t.Context(), true)
	if err != nil || dry.Blobs != 1 {
		t.Errorf("%+v, %v", dry, err)
	}
	swept, err := h.registry.GC(t.Context(), false)
	if err != nil || swept.Blobs != 1 || swept.Manifests != 0 || swept.Freed != loose.Size {
		t.Errorf("%+v, %v", swept, err)
	}
	h.want(404, "", "HEAD", "/v2/r/blobs/"+loose.Digest.String(), nil)
	if a := h.want(200, "", "GET", "/v2/r/manifests/t", nil); !bytes.Equal(a.body, raw) {
		t.Errorf("%s", a.body)
	}
	graceful := newHarness(t, func(c *Config) { c.GC = GC{Grace: time.Hour, Untagged: true} })
	loose = graceful.pushBlob("r", "loose")
	if swept, err := graceful.registry.GC(t.Context(), false); err != nil || swept.Blobs != 0 {
		t.Errorf("%+v, %v", swept, err)
	}
}

var _ http.Handler = (*Registry)(nil)
