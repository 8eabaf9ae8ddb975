package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/crypto/bcrypt"

	"berth/internal/registry/store/local"
)

// harness is a registry behind a real server, and a client that knows nothing
// but HTTP.
type harness struct {
	t   *testing.T
	dir string
	cfg func(*Config)

	storage  *local.Store
	registry *Registry
	server   *httptest.Server
	user     string // sent with each request
}

func newHarness(t *testing.T, cfg func(*Config)) *harness {
	t.Helper()
	h := &harness{t: t, dir: t.TempDir(), cfg: cfg}
	h.start()
	t.Cleanup(h.stop)
	return h
}

func (h *harness) start() {
	h.t.Helper()
	var err error
	log := slog.New(slog.DiscardHandler)
	if h.storage, err = local.OpenDir(h.dir, log); err != nil {
		h.t.Fatal(err)
	}
	c := Config{Storage: h.storage, Log: log, Access: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if h.cfg != nil {
		h.cfg(&c)
	}
	if h.registry, err = New(c); err != nil {
		h.t.Fatal(err)
	}
	h.server = httptest.NewUnstartedServer(nil)
	h.server.Config = NewServer(h.registry, log)
	h.server.Start()
}

func (h *harness) stop() {
	h.server.Close()
	h.registry.Close()
	if err := h.storage.Close(); err != nil {
		h.t.Error(err)
	}
}

func (h *harness) restart() {
	h.stop()
	h.start()
}

// answer is a response that was read.
type answer struct {
	*http.Response
	body []byte
}

// code is the first error code of the answer.
func (a answer) code() string {
	var doc struct{ Errors []problem }
	_ = json.Unmarshal(a.body, &doc)
	if len(doc.Errors) == 0 {
		return ""
	}
	return doc.Errors[0].Code
}

// do sends a request; headers are "Name: value".
func (h *harness) do(method, path string, body any, headers ...string) answer {
	h.t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case string:
		r = strings.NewReader(b)
	case []byte:
		r = bytes.NewReader(b)
	case io.Reader:
		r = b
	}
	if strings.HasPrefix(path, "/") {
		path = h.server.URL + path
	}
	req, err := http.NewRequest(method, path, r)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, x := range headers {
		name, value, _ := strings.Cut(x, ": ")
		req.Header.Add(name, value)
	}
	if h.user != "" {
		req.SetBasicAuth(h.user, "pw-"+h.user)
	}
	resp, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return answer{resp, data}
}

// want sends a request and checks status and error code.
func (h *harness) want(status int, code, method, path string, body any, headers ...string) answer {
	h.t.Helper()
	a := h.do(method, path, body, headers...)
	if a.StatusCode != status || a.code() != code {
		h.t.Errorf("%s %.120s: %d %s, want %d %s: %.300s", method, path, a.StatusCode, a.code(), status, code, a.body)
	}
	return a
}

func (h *harness) pushBlob(repo, text string) ocispec.Descriptor {
	h.t.Helper()
	d := digest.FromString(text)
	h.want(201, "", "POST", "/v2/"+repo+"/blobs/uploads/?digest="+d.String(), text)
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(len(text))}
}

func manifestOf(config ocispec.Descriptor, layers []ocispec.Descriptor, change func(*ocispec.Manifest)) []byte {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers}
	m.SchemaVersion = 2
	if change != nil {
		change(&m)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return raw
}

// pushImage pushes a small image and returns its manifest.
func (h *harness) pushImage(repo, tag string) []byte {
	h.t.Helper()
	config := h.pushBlob(repo, `{"of":"`+repo+tag+`"}`)
	config.MediaType = ocispec.MediaTypeImageConfig
	layer := h.pushBlob(repo, "layer of "+repo+tag)
	raw := manifestOf(config, []ocispec.Descriptor{layer}, nil)
	h.putManifest(201, "", repo, tag, raw)
	return raw
}

func (h *harness) putManifest(status int, code, repo, ref string, raw []byte) answer {
	h.t.Helper()
	return h.want(status, code, "PUT", "/v2/"+repo+"/manifests/"+ref, raw, "Content-Type: "+ocispec.MediaTypeImageManifest)
}

// begin starts an upload and returns its address.
func (h *harness) begin(repo string) string {
	h.t.Helper()
	a := h.want(202, "", "POST", "/v2/"+repo+"/blobs/uploads/", nil)
	return a.Header.Get("Location")
}

// users writes an htpasswd file; NAME has the password pw-NAME.
func users(t *testing.T, names ...string) string {
	t.Helper()
	var text string
	for _, u := range names {
		hash, err := bcrypt.GenerateFromPassword([]byte("pw-"+u), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintf("%s:%s\n", u, hash)
	}
	path := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
