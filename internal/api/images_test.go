package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"berth/internal/engine/images"
	"berth/internal/fault"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestImageNamesMayHoldSlashes(t *testing.T) {
	seen := ""
	e := &stub{img: imageStub{
		inspect: func(ref string, _ images.InspectOptions) (image.InspectResponse, error) {
			seen = "inspect " + ref
			return image.InspectResponse{}, nil
		},
		history: func(ref string, _ *ocispec.Platform) ([]image.HistoryResponseItem, error) {
			seen = "history " + ref
			return nil, nil
		},
		save: func(refs []string, _ []*ocispec.Platform, _ io.Writer) error {
			seen = "save " + strings.Join(refs, " ")
			return nil
		},
		tag: func(src, target string) error { seen = "tag " + src + " " + target; return nil },
		remote: func(ref string, _ registry.AuthConfig) (registry.DistributionInspect, error) {
			seen = "remote " + ref
			return registry.DistributionInspect{}, nil
		},
	}}
	for path, want := range map[string]string{
		"GET /v1.44/images/reg.io:5000/a/b:1/json":               "inspect reg.io:5000/a/b:1",
		"GET /images/busybox/json":                               "inspect busybox",
		"GET /images/json/json":                                  "inspect json",
		"GET /images/reg.io%2Fa/json":                            "inspect reg.io/a",
		"GET /images/reg.io/a/b:1/history":                       "history reg.io/a/b:1",
		"GET /images/reg.io/a/b:1/get":                           "save reg.io/a/b:1",
		"GET /images/get?names=a/b:1&names=c":                    "save a/b:1 c",
		"GET /distribution/reg.io/a/b/json":                      "remote reg.io/a/b",
		"POST /images/reg.io/a/b/tag?repo=c/d&tag=2":             "tag reg.io/a/b c/d:2",
		"POST /v1.24/images/sha256:0123456789/tag?repo=new&tag=": "tag sha256:0123456789 new",
	} {
		method, p, _ := strings.Cut(path, " ")
		if w := ask(t, e, method, p, ""); w.Code >= 300 || seen != want {
			t.Errorf("%s: %d, engine saw %q, want %q", path, w.Code, seen, want)
		}
	}
}

func TestPullNamesItsImageWhole(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for query, want := range map[string]string{
		"fromImage=alpine&tag=3":                         "alpine:3",
		"fromImage=alpine:2":                             "alpine:2",
		"fromImage=alpine:2&tag=3":                       "alpine:3",
		"fromImage=alpine":                               "alpine all",
		"fromImage=alpine:":                              "alpine all",
		"fromImage=reg.io:5000/a":                        "reg.io:5000/a all",
		"fromImage=alpine&tag=3&all=1":                   "alpine:3 all",
		"fromImage=alpine&tag=3&allPlatforms=1":          "alpine:3 everywhere",
		"fromImage=reg.io:5000/a&tag=" + digest:          "reg.io:5000/a@" + digest,
		"fromImage=a&tag=latest&platform=linux%2Farm64":  "a:latest linux/arm64",
		"fromImage=docker.io/library/a%40" + digest + "": "docker.io/library/a@" + digest,
	} {
		got := ""
		e := &stub{img: imageStub{pull: func(_ context.Context, ref string, o images.PullOptions, out io.Writer) error {
			got = ref
			if o.AllTags {
				got += " all"
			}
			if o.AllPlatforms {
				got += " everywhere"
			}
			if p := o.Platform; p != nil {
				got += " " + p.OS + "/" + p.Architecture
			}
			fmt.Fprint(out, "{\"status\":\"done\"}\r\n")
			return nil
		}}}
		w := ask(t, e, "POST", "/v1.44/images/create?"+query, "")
		if w.Code != 200 || got != want || !strings.Contains(w.Body.String(), "done") {
			t.Errorf("%s: %d %s; engine saw %q, want %q", query, w.Code, w.Body, got, want)
		}
	}
}

func TestPullErrorsBeforeAndAfterTheFirstLine(t *testing.T) {
	unknown := fault.New(fault.NotFound, "", "", "manifest unknown")
	early := &stub{img: imageStub{pull: func(context.Context, string, images.PullOptions, io.Writer) error { return unknown }}}
	if w := ask(t, early, "POST", "/images/create?fromImage=a", ""); w.Code != http.StatusNotFound {
		t.Errorf("early: %d %s", w.Code, w.Body)
	}
	late := &stub{img: imageStub{pull: func(_ context.Context, _ string, _ images.PullOptions, out io.Writer) error {
		fmt.Fprint(out, "{\"status\":\"pulling\"}\r\n")
		return unknown
	}}}
	w := ask(t, late, "POST", "/images/create?fromImage=a", "")
	lines := strings.Split(strings.TrimSpace(w.Body.String()), "\r\n")
	if w.Code != 200 || len(lines) != 2 || lines[1] != `{"errorDetail":{"message":"manifest unknown"},"error":"manifest unknown"}` {
		t.Errorf("late: %d %q", w.Code, lines)
	}
}

// zeros is an endless archive of nothing.
type zeros struct{ left int }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left <= 0 {
		return 0, io.EOF
	}
	n := min(len(p), z.left)
	z.left -= n
	return n, nil
}

func TestLoadReportsWhileItReadsAndAfterAFailure(t *testing.T) {
	const size = 8 << 20
	fail := false
	s := serve(t, &stub{img: imageStub{load: func(r io.Reader, o images.LoadOptions, out io.Writer) error {
		if o.Quiet {
			return errors.New("not quiet")
		}
		if fail {
			io.CopyN(io.Discard, r, 1000)
			return fault.New(fault.Invalid, "", "", "entry x: digest does not match")
		}
		fmt.Fprint(out, "{\"status\":\"loading\"}\r\n") // must not cost the rest of the body
		n, err := io.Copy(io.Discard, r)
		fmt.Fprintf(out, "{\"stream\":\"%d\"}\r\n", n)
		return err
	}}})
	for _, f := range []bool{false, true, false} {
		fail = f
		resp, err := s.client.Post("http://d/v1.44/images/load?quiet=0", "application/x-tar", &zeros{size})
		if err != nil {
			t.Fatalf("fail %v: %v", f, err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if f && (resp.StatusCode != 400 || !strings.Contains(string(body), "digest does not match")) {
			t.Errorf("failed load: %d %s", resp.StatusCode, body)
		}
		if !f && !strings.Contains(string(body), fmt.Sprint(size)) {
			t.Errorf("load: %d %s", resp.StatusCode, body)
		}
	}
}

func TestImportTakesItsParameters(t *testing.T) {
	var got images.ImportOptions
	e := &stub{img: imageStub{imports: func(o images.ImportOptions, r io.Reader, out io.Writer) error {
		got = o
		_, err := io.Copy(io.Discard, r)
		return err
	}}}
	w := ask(t, e, "POST", "/images/create?fromSrc=-&repo=a/b&tag=1&changes=CMD+x&changes=ENV+a%3Db", "body")
	if w.Code != 200 || got.Ref != "a/b:1" || len(got.Changes) != 2 || got.Message != "Imported from -" {
		t.Errorf("%d, engine saw %+v", w.Code, got)
	}
	if w := ask(t, e, "POST", "/images/create", ""); w.Code != http.StatusBadRequest {
		t.Errorf("neither source: %d %s", w.Code, w.Body)
	}
}

func TestImagesInTheShapesOfOldVersions(t *testing.T) {
	e := &stub{img: imageStub{
		list: func(images.ListOptions) ([]image.Summary, error) {
			return []image.Summary{{ID: "i", Size: 5}}, nil
		},
		inspect: func(string, images.InspectOptions) (image.InspectResponse, error) {
			cfg := &dockerspec.DockerOCIImageConfig{}
			cfg.Volumes = map[string]struct{}{"/data": {}}
			cfg.ExposedPorts = map[string]struct{}{"80/tcp": {}}
			return image.InspectResponse{ID: "i", Size: 5, Config: cfg}, nil
		},
	}}
	for _, c := range []struct{ path, has, hasNot string }{
		{"/v1.42/images/json", `"RepoTags":["<none>:<none>"]`, ""},
		{"/v1.43/images/json", `"VirtualSize":5`, "<none>"},
		{"/v1.44/images/json", `"RepoTags":[]`, "VirtualSize"},
		{"/v1.50/images/json", `"Containers":-1`, ""},
		{"/v1.51/images/json", `"Containers":0`, ""},
		{"/v1.24/images/i/json", `"ContainerConfig":{"Hostname"`, ""},
		{"/v1.24/images/i/json", `"Volumes":{"/data":{}}`, ""},
		{"/v1.24/images/i/json", `"Created":"0001-01-01T00:00:00Z"`, ""},
		{"/v1.45/images/i/json", `"OnBuild":null`, `"Container":`},
		{"/v1.56/images/i/json", `"ContainerConfig":{"Hostname"`, ""},
		{"/v1.45/images/i/json", `"ExposedPorts":{"80/tcp":{}}`, "VirtualSize"},
		{"/v1.52/images/i/json", `"RepoTags":[]`, `"Parent"`},
	} {
		w := ask(t, e, "GET", c.path, "")
		if b := w.Body.String(); w.Code != 200 || !strings.Contains(b, c.has) || c.hasNot != "" && strings.Contains(b, c.hasNot) || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s: %d %s; want %q, not %q", c.path, w.Code, b, c.has, c.hasNot)
		}
	}
}
