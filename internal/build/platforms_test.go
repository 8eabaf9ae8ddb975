package build

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/build/dockerfile"
	"berth/internal/image"
)

func platforms(names ...string) func(*Request) {
	return func(r *Request) {
		for _, name := range names {
			p, err := image.ParsePlatform(name)
			if err != nil {
				panic(err)
			}
			r.Platforms = append(r.Platforms, *p)
		}
	}
}

const crossed = `FROM --platform=$BUILDPLATFORM busybox AS tools
RUN echo tool > /tool
FROM tools AS compile
ARG TARGETOS TARGETARCH TARGETVARIANT TARGETPLATFORM BUILDPLATFORM BUILDARCH
RUN echo "$TARGETOS $TARGETARCH $TARGETVARIANT $TARGETPLATFORM from $BUILDPLATFORM $BUILDARCH" > /out
FROM scratch
COPY --from=compile /out /out
LABEL for=$TARGETARCH
`

func TestSeveralPlatformsAreOneBuild(t *testing.T) {
	h := newHouse(t)
	host := image.HostPlatform()
	machine := image.FormatPlatform(host) + " " + host.Architecture
	req := Request{Text: []byte(crossed), Tags: []string{"many"}, Annotations: []string{"manifest[linux/arm64]:a=b"}}
	platforms("linux/amd64", "linux/arm64/v8", "linux/arm/v7", "linux/arm64", "arm")(&req)
	o := h.try(req)
	if o.err != nil {
		t.Fatal(o.err, o.output)
	}
	if n := h.exec.runs.Load(); n != 4 {
		t.Errorf("%d programs ran, want one for all and one for each of three platforms", n)
	}
	want := map[string]string{"linux/amd64": "linux amd64  linux/amd64", "linux/arm64": "linux arm64  linux/arm64", "linux/arm/v7": "linux arm v7 linux/arm/v7"}
	if len(o.Outputs) != len(want) {
		t.Fatalf("it was built for %v", o.Platforms())
	}
	for _, out := range o.Outputs {
		name := image.FormatPlatform(out.Platform)
		one := &outcome{Result: &Result{Output: out}}
		h.want(one, map[string]string{"out": "644 0:0 " + want[name] + " from " + machine + "\n"})
		c := one.config()
		if c.Architecture != out.Platform.Architecture || c.Variant != out.Platform.Variant || out.Image == nil || out.Image.Index != o.Top.Digest {
			t.Errorf("%s: the image is %s %s in %s", name, c.Architecture, c.Variant, out.Image.Index)
		}
		img, err := h.images.GetPlatform(context.Background(), "many", &out.Platform)
		if err != nil || img.ID != out.Image.ID {
			t.Errorf("by name and platform %s there is %v, %v", name, img, err)
		}
	}
	_, raw, err := h.images.Members(context.Background(), "many")
	if err != nil || o.Name() != o.Top.Digest || o.Top.MediaType != ocispec.MediaTypeImageIndex || int64(len(raw)) != o.Top.Size {
		t.Errorf("the name means %s, %v; the result is %+v", raw, err, o.Top)
	}
	again := h.try(req)
	if again.err != nil || again.ran() != "" || again.Top.Digest != o.Top.Digest {
		t.Errorf("again: %v, it ran %q and gave %v", again.err, again.ran(), again.Top)
	}
	if b, err := h.b.History().Get(""); err != nil || b.Platform != "linux/amd64,linux/arm64,linux/arm/v7" || b.Image != o.Top.Digest.String() {
		t.Errorf("the history has %+v, %v", b, err)
	}
	for _, notes := range [][]string{{"a=b"}, nil} {
		one := h.try(Request{Text: req.Text, Tags: req.Tags, Annotations: notes})
		if _, raw, err := h.images.Members(context.Background(), "many"); one.err != nil || err != nil || (raw == nil) != (notes == nil) {
			t.Errorf("with the annotations %v the name means %s: %v, %v", notes, raw, one.err, err)
		}
	}
	req.Tags, req.Annotations = nil, []string{"index:c=d"}
	if nameless := h.try(req); nameless.err != nil {
		t.Error(nameless.err)
	} else if _, raw, err := h.images.Members(context.Background(), nameless.Name().String()); err != nil || nameless.Top.Digest == o.Top.Digest || raw == nil {
		t.Errorf("without a name, of images that have one: %s, %v", raw, err)
	}
	h.clean()
}

func TestWarningsOfSeveralPlatformsAreSaidOnce(t *testing.T) {
	h := newHouse(t)
	told := 0
	o := h.try(Request{Text: []byte("FROM scratch\nMAINTAINER x\nCOPY <<a /a\na\n"), Platforms: []ocispec.Platform{
		{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "s390x"}}, Progress: func(e Event) {
		if e.Warning != nil {
			told++
		}
	}})
	rules := func(w dockerfile.Warning) bool { return w.Rule == "MaintainerDeprecated" }
	if o.err != nil || told != 1 || len(o.Warnings) != 1 || !slices.ContainsFunc(o.Warnings, rules) {
		t.Errorf("%v: %d were told, %+v", o.err, told, o.Warnings)
	}
}

// A platform's files are below its name; put together, no file takes another's
// place, nor a directory's.
func TestFilesOfPlatformsAreKeptApart(t *testing.T) {
	h := newHouse(t)
	for name, one := range map[string]struct {
		make  string // what each platform has
		split bool
		want  string
		fails string
	}{
		"split": {"mkdir /o/d && echo $TARGETARCH > /o/d/f && ln /o/d/f /o/hard", true,
			"linux_amd64/ linux_amd64/d/ linux_amd64/d/f linux_amd64/hard>linux_amd64/d/f linux_arm64/ linux_arm64/d/ linux_arm64/d/f linux_arm64/hard>linux_arm64/d/f", ""},
		"together":                  {"mkdir /o/d && echo x > /o/d/$TARGETARCH", false, "d/ d/amd64 d/arm64", ""},
		"a file twice":              {"echo x > /o/f", false, "", "f"},
		"a directory over a file":   {"if [ $TARGETARCH = amd64 ]; then echo > /o/x; else mkdir /o/x; fi", false, "", "x"},
		"a file over a directory":   {"if [ $TARGETARCH = arm64 ]; then echo > /o/x; else mkdir /o/x; fi", false, "", "x"},
		"one platform, and nothing": {"true", true, "linux_amd64/ linux_arm64/", ""},
	} {
		text := fmt.Sprintf("FROM --platform=$BUILDPLATFORM busybox AS b\nARG TARGETARCH\nRUN mkdir /o && %s\nFROM scratch\nCOPY --from=b /o /\n", one.make)
		o := h.build(text, nil, platforms("linux/amd64", "linux/arm64"), func(r *Request) { r.FilesOnly = true })
		var b bytes.Buffer
		err := h.b.ExportTar(context.Background(), o.Outputs, one.split, &b)
		o.Release()
		if one.fails != "" {
			if err == nil || !strings.Contains(err.Error(), one.fails) || !strings.Contains(err.Error(), "linux/amd64") {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for r := tar.NewReader(&b); ; {
			e, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			entry := e.Name
			if e.Typeflag == tar.TypeLink {
				entry += ">" + e.Linkname
			}
			got = append(got, entry)
		}
		if strings.Join(got, " ") != one.want {
			t.Errorf("%s: the archive has %q, want %q", name, got, one.want)
		}
	}
}

func TestAttestationsThatMeanNothingAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"type=sbom": "scanner", "type=vsa": "vsa", "mode=min": "type", "type=provenance,mode=all": "all", "type=provenance,version=v3": "v3",
		"type=provenance,x=y": "x", "type=provenance,disabled=perhaps": "perhaps", "type": "value", "\"": "NAME=VALUE",
	} {
		if _, err := parseAttests([]string{text}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want something about %q", text, err, want)
		}
	}
	for _, none := range [][]string{nil, {"type=sbom,disabled=true"}, {"type=provenance", "type=provenance,disabled=true"}} {
		if o, err := parseAttests(none); o != nil || err != nil {
			t.Errorf("%q: %v, %v", none, o, err)
		}
	}
}
