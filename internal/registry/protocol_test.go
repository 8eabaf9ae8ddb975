package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestImageGoesInAndComesOut(t *testing.T) {
	h := newHarness(t, nil)
	raw := h.pushImage("team/app", "v1")
	d := digest.FromBytes(raw)
	a := h.want(200, "", "GET", "/v2/team/app/manifests/v1", nil)
	if !bytes.Equal(a.body, raw) || a.Header.Get("Content-Type") != ocispec.MediaTypeImageManifest || a.Header.Get("Docker-Content-Digest") != d.String() {
		t.Errorf("%v %s", a.Header, a.body)
	}
	a = h.want(200, "", "HEAD", "/v2/team/app/manifests/"+d.String(), nil)
	if a.ContentLength != int64(len(raw)) || a.Header.Get("ETag") != `"`+d.String()+`"` {
		t.Errorf("%v", a.Header)
	}
	blob := "/v2/team/app/blobs/" + digest.FromString("layer of team/appv1").String()
	if a := h.want(200, "", "GET", blob, nil); string(a.body) != "layer of team/appv1" || a.Header.Get("Accept-Ranges") != "bytes" {
		t.Errorf("%q %v", a.body, a.Header)
	}
	h.restart()
	h.want(200, "", "GET", "/v2/team/app/manifests/v1", nil)
	h.want(202, "", "DELETE", "/v2/team/app/manifests/v1", nil)
	h.want(404, codeManifestUnknown, "GET", "/v2/team/app/manifests/v1", nil)
	h.want(200, "", "GET", "/v2/team/app/manifests/"+d.String(), nil)
	h.want(202, "", "DELETE", "/v2/team/app/manifests/"+d.String(), nil)
	h.want(404, codeManifestUnknown, "DELETE", "/v2/team/app/manifests/"+d.String(), nil)
	h.want(202, "", "DELETE", blob, nil)
	h.want(404, codeBlobUnknown, "GET", blob, nil)
	h.want(404, "", "HEAD", blob, nil)
}

func TestRangesAndConditions(t *testing.T) {
	h := newHarness(t, nil)
	text := strings.Repeat("0123456789", 300_000) // more than one slice
	d := h.pushBlob("r", text).Digest
	path := "/v2/r/blobs/" + d.String()
	if a := h.want(200, "", "GET", path, nil); string(a.body) != text {
		t.Errorf("got %d bytes", len(a.body))
	}
	for _, c := range []struct {
		ranges string
		status int
		want   string
	}{
		{"bytes=0-0", 206, text[:1]}, {"bytes=1000000-2500000", 206, text[1_000_000:2_500_001]}, {"bytes=2999990-", 206, text[2_999_990:]}, {"bytes=-5", 206, text[len(text)-5:]},
		{"bytes=3000000-", 416, ""}, {"bytes=9-3", 416, ""}, {"bytes=x-y", 416, ""},
	} {
		a := h.do("GET", path, nil, "Range: "+c.ranges)
		if a.StatusCode != c.status || c.status == 206 && string(a.body) != c.want {
			t.Errorf("%s: %d, %d bytes", c.ranges, a.StatusCode, len(a.body))
		}
	}
	raw := h.pushImage("r", "t")
	m := digest.FromBytes(raw)
	for path, d := range map[string]digest.Digest{path: d, "/v2/r/manifests/t": m} {
		for _, tag := range []string{`"` + d.String() + `"`, d.String(), "*", `W/"` + d.String() + `"`, `"x", "` + d.String() + `"`} {
			for _, method := range []string{"GET", "HEAD"} {
				if a := h.want(304, "", method, path, nil, "If-None-Match: "+tag); len(a.body) > 0 || a.Header.Get("ETag") == "" {
					t.Errorf("%s %s: %v", method, tag, a.Header)
				}
			}
		}
		h.want(200, "", "GET", path, nil, `If-None-Match: "sha256:other"`)
	}
}

func TestUploadsInPieces(t *testing.T) {
	h := newHarness(t, nil)
	loc := h.begin("r")
	status := func(want string) {
		t.Helper()
		a := h.want(204, "", "GET", loc, nil)
		if a.Header.Get("Range") != want || a.Header.Get("Docker-Upload-UUID") == "" {
			t.Errorf("range %q, want %q", a.Header.Get("Range"), want)
		}
	}
	status("0-0")
	a := h.want(202, "", "PATCH", loc, "hello", "Content-Range: 0-4")
	loc = a.Header.Get("Location")
	if a.Header.Get("Range") != "0-4" {
		t.Errorf("%v", a.Header)
	}
	for _, c := range []struct {
		status     int
		code, rng  string
		body       any
		acceptable string
	}{
		{416, codeUploadInvalid, "0-4", "hello", "0-4"}, {416, codeUploadInvalid, "6-9", "xxxx", "0-4"}, {400, codeSizeInvalid, "5-9", "xx", "0-4"},
		{400, codeSizeInvalid, "5-5", "xxxx", "0-4"}, {400, codeUploadInvalid, "5", "x", "0-4"}, {400, codeUploadInvalid, "-5-9", "x", "0-4"}, {400, codeUploadInvalid, "9-5", "x", "0-4"},
		{400, codeUploadInvalid, "5-99999999999999999999", "x", "0-4"}, {400, codeUploadInvalid, "5-9223372036854775807", "x", "0-4"},
	} {
		h.want(c.status, c.code, "PATCH", loc, c.body, "Content-Range: "+c.rng)
		status(c.acceptable)
	}
	// A chunk of unknown length that lies: what it said is taken, no more.
	h.want(400, codeSizeInvalid, "PATCH", loc, struct{ *strings.Reader }{strings.NewReader(", you there")}, "Content-Range: 5-9")
	status("0-9")
	h.restart()
	status("0-9")
	h.want(202, "", "PATCH", loc, struct{ *strings.Reader }{strings.NewReader("there")}) // streamed
	d := digest.FromString("hello, youthere")
	h.want(404, "", "HEAD", "/v2/r/blobs/"+d.String(), nil)
	a = h.want(201, "", "PUT", loc+"?digest="+d.String(), nil)
	if a.Header.Get("Location") != "/v2/r/blobs/"+d.String() || a.Header.Get("Docker-Content-Digest") != d.String() {
		t.Errorf("%v", a.Header)
	}
	h.want(200, "", "GET", a.Header.Get("Location"), nil)
	for _, method := range []string{"GET", "PATCH", "PUT", "DELETE"} {
		h.want(404, codeUploadUnknown, method, loc+"?digest="+d.String(), nil)
	}
	loc = h.begin("r")
	h.want(202, "", "PATCH", loc, "x")
	h.want(204, "", "DELETE", loc, nil)
	h.want(404, codeUploadUnknown, "GET", loc, nil)
	loc = h.begin("r")
	h.want(201, "", "PUT", loc+"?digest="+digest.FromString("last").String(), "last", "Content-Range: 0-3")
}

func TestListsGoOnWhereTheyEnd(t *testing.T) {
	h := newHarness(t, nil)
	h.want(404, codeNameUnknown, "GET", "/v2/nothing/tags/list", nil)
	raw := h.pushImage("r", "t0")
	for i := range 7 {
		h.putManifest(201, "", "r", fmt.Sprint("t", i), raw)
	}
	for i := range 3 {
		h.pushImage(fmt.Sprint("x/", i), "t")
	}
	follow := func(path, field string) (all []string, pages int) {
		for path != "" {
			a := h.want(200, "", "GET", path, nil)
			var page map[string]json.RawMessage
			var names []string
			if json.Unmarshal(a.body, &page) != nil || json.Unmarshal(page[field], &names) != nil || names == nil {
				t.Fatalf("%s", a.body)
			}
			all = append(all, names...)
			pages++
			path = ""
			if link := a.Header.Get("Link"); link != "" {
				path = strings.TrimSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
			}
		}
		return all, pages
	}
	if all, pages := follow("/v2/r/tags/list?n=3", "tags"); !slices.Equal(all, []string{"t0", "t1", "t2", "t3", "t4", "t5", "t6"}) || pages != 3 {
		t.Errorf("%v in %d pages", all, pages)
	}
	if all, pages := follow("/v2/r/tags/list?last=t4", "tags"); !slices.Equal(all, []string{"t5", "t6"}) || pages != 1 {
		t.Errorf("%v in %d pages", all, pages)
	}
	if all, pages := follow("/v2/r/tags/list?n=0", "tags"); len(all) != 0 || pages != 1 {
		t.Errorf("n=0: %v in %d pages", all, pages)
	}
	if all, pages := follow("/v2/_catalog?n=2", "repositories"); !slices.Equal(all, []string{"r", "x/0", "x/1", "x/2"}) || pages != 2 {
		t.Errorf("%v in %d pages", all, pages)
	}
	for _, n := range []string{"-1", "x", "99999999999999999999"} {
		h.want(400, codePageInvalid, "GET", "/v2/r/tags/list?n="+n, nil)
	}
}

func TestReferrersAreFoundAndFiltered(t *testing.T) {
	h := newHarness(t, nil)
	config := h.pushBlob("r", "{}")
	subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("comes later"), Size: 3}
	config.MediaType = "application/vnd.example.config"
	for i, kind := range []string{"application/x.signature", "application/x.sbom", ""} {
		raw := manifestOf(config, nil, func(m *ocispec.Manifest) {
			m.Subject, m.ArtifactType, m.Annotations = &subject, kind, map[string]string{"n": fmt.Sprint(i)}
		})
		a := h.putManifest(201, "", "r", digest.FromBytes(raw).String(), raw)
		if a.Header.Get("OCI-Subject") != subject.Digest.String() {
			t.Errorf("%v", a.Header)
		}
	}
	list := func(query string) (ocispec.Index, http.Header) {
		a := h.want(200, "", "GET", "/v2/r/referrers/"+subject.Digest.String()+query, nil)
		var index ocispec.Index
		if err := json.Unmarshal(a.body, &index); err != nil || index.SchemaVersion != 2 || a.Header.Get("Content-Type") != ocispec.MediaTypeImageIndex || index.Manifests == nil {
			t.Fatalf("%s", a.body)
		}
		return index, a.Header
	}
	index, header := list("")
	if len(index.Manifests) != 3 || header.Get("OCI-Filters-Applied") != "" {
		t.Errorf("%+v %v", index, header)
	}
	index, header = list("?artifactType=application/x.sbom")
	if len(index.Manifests) != 1 || index.Manifests[0].Annotations["n"] != "1" || header.Get("OCI-Filters-Applied") != "artifactType" {
		t.Errorf("%+v %v", index, header)
	}
	if index, _ = list("?artifactType=application/vnd.example.config"); len(index.Manifests) != 1 || index.Manifests[0].ArtifactType != "application/vnd.example.config" {
		t.Errorf("a configuration's type stands for a missing artifactType: %+v", index)
	}
	index, header = list("?n=2")
	next := strings.TrimSuffix(strings.TrimPrefix(header.Get("Link"), "<"), `>; rel="next"`)
	if len(index.Manifests) != 2 || next == "" {
		t.Fatalf("%+v %v", index, header)
	}
	if a := h.want(200, "", "GET", next, nil); strings.Count(string(a.body), "sha256:") != 1 {
		t.Errorf("%s", a.body)
	}
	h.want(400, codeDigestInvalid, "GET", "/v2/r/referrers/latest", nil)
}

func TestDockerTypesAndTagParameters(t *testing.T) {
	h := newHarness(t, nil)
	config, layer := h.pushBlob("r", "{}"), h.pushBlob("r", "l")
	raw := manifestOf(config, []ocispec.Descriptor{layer}, func(m *ocispec.Manifest) { m.MediaType = dockerManifest })
	h.want(201, "", "PUT", "/v2/r/manifests/d", raw, "Content-Type: "+dockerManifest)
	list := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, dockerIndex, dockerManifest, digest.FromBytes(raw), len(raw))
	d := digest.FromString(list)
	a := h.want(201, "", "PUT", "/v2/r/manifests/"+d.String()+"?tag=a&tag=b", list, "Content-Type: "+dockerIndex)
	if got := a.Header.Values("OCI-Tag"); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("%v", got)
	}
	if a := h.want(200, "", "GET", "/v2/r/manifests/b", nil); a.Header.Get("Content-Type") != dockerIndex || string(a.body) != list {
		t.Errorf("%v %s", a.Header, a.body)
	}
	h.want(400, codeTagInvalid, "PUT", "/v2/r/manifests/"+d.String()+"?tag=../x", list, "Content-Type: "+dockerIndex)
	h.want(400, codeTagInvalid, "PUT", "/v2/r/manifests/x?tag=y", list, "Content-Type: "+dockerIndex)
}

func TestMethodsAndPathsThatAreNotOffered(t *testing.T) {
	h := newHarness(t, nil)
	if a := h.want(405, codeUnsupported, "POST", "/v2/r/manifests/x", nil); a.Header.Get("Allow") == "" {
		t.Error("no Allow header")
	}
	h.want(405, codeUnsupported, "DELETE", "/v2/", nil)
	h.want(404, codeUnsupported, "GET", "/v3/", nil)
	h.want(404, codeUnsupported, "GET", "/v2/x", nil)
	h.want(404, codeUnsupported, "GET", "/v2x/r/tags/list", nil)
	h.want(200, "", "GET", "/v2", nil)
	h.want(404, codeUnsupported, "GET", "/token", nil)
	h.want(400, codeUnsupported, "POST", "/v2/r/blobs/uploads/?digest-algorithm=md5", nil)
	// A repository may be called like a part of the protocol.
	h.pushImage("a/manifests/blobs", "uploads")
	h.want(200, "", "GET", "/v2/a/manifests/blobs/manifests/uploads", nil)
	h.want(200, "", "GET", "/v2/a/manifests/blobs/tags/list", nil)
}

func TestLinkingFromTheEngineCopiesNothingAndShowsAll(t *testing.T) {
	h := newHarness(t, nil)
	config, layer := h.pushBlob("other", "{}"), h.pushBlob("other", "layer")
	raw := manifestOf(config, []ocispec.Descriptor{layer}, nil)
	m := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(raw), Size: int64(len(raw)), Data: raw}
	if err := h.registry.Link(t.Context(), "mine/app", "v1", []ocispec.Descriptor{m}, []ocispec.Descriptor{config, layer}); err != nil {
		t.Fatal(err)
	}
	if a := h.want(200, "", "GET", "/v2/mine/app/manifests/v1", nil); !bytes.Equal(a.body, raw) {
		t.Errorf("%s", a.body)
	}
	h.want(200, "", "GET", "/v2/mine/app/blobs/"+layer.Digest.String(), nil)
	missing := ocispec.Descriptor{Digest: digest.FromString("missing"), Size: 7}
	if err := h.registry.Link(t.Context(), "mine/b", "v1", []ocispec.Descriptor{m}, []ocispec.Descriptor{missing}); err == nil {
		t.Error("a blob that is not there was linked")
	}
	if err := h.registry.Link(t.Context(), "Mine", "v1", []ocispec.Descriptor{m}, nil); err == nil {
		t.Error("a bad name was accepted")
	}
	h.want(404, codeNameUnknown, "GET", "/v2/mine/b/tags/list", nil)
}
