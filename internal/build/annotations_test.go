package build

import (
	"maps"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestAnnotationsAreReadAsBuildxDoes(t *testing.T) {
	amd, arm := ocispec.Platform{OS: "linux", Architecture: "amd64"}, ocispec.Platform{OS: "linux", Architecture: "arm64"}
	list := []string{"a=1", "manifest:b=2=3", "manifest[linux/arm64]:b=own", "index,manifest-descriptor[linux/arm64/v8]:c=", "index-descriptor:d=x:y"}
	notes, err := parseAnnotations(list)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range []struct {
		level    string
		platform ocispec.Platform
		want     map[string]string
	}{
		{onManifest, amd, map[string]string{"a": "1", "b": "2=3"}},
		{onManifest, arm, map[string]string{"a": "1", "b": "own"}},
		{onManifestDescriptor, amd, nil},
		{onManifestDescriptor, arm, map[string]string{"c": ""}},
		{onIndex, ocispec.Platform{}, map[string]string{"c": ""}},
		{onIndexDescriptor, ocispec.Platform{}, map[string]string{"d": "x:y"}},
	} {
		if got := notes.of(one.level, one.platform); !maps.Equal(got, one.want) || (got == nil) != (one.want == nil) {
			t.Errorf("%s of %v: %v, want %v", one.level, one.platform, got, one.want)
		}
	}
	if err := notes.check([]ocispec.Platform{amd, arm}, true); err != nil {
		t.Error(err)
	}
}

func TestAnnotationsThatMeanNothingAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"a": "no value", "=b": "no key", "manifest:=b": "no key", "layer:a=b": "layer", "index[linux/amd64]:a=b": "one platform",
		"manifest[linux/amd64:a=b": "level", "manifest[x/y/z/w]:a=b": "x/y/z/w", "a b=c": "spaces", ",:a=b": "level", "": "no value",
	} {
		if _, err := parseAnnotations([]string{text}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want something about %q", text, err, want)
		}
	}
	one := []ocispec.Platform{{OS: "linux", Architecture: "amd64"}}
	for text, want := range map[string]string{"index:a=b": "no index", "index-descriptor:a=b": "no index", "manifest[linux/arm64]:a=b": "linux/arm64"} {
		notes, err := parseAnnotations([]string{text})
		if err != nil {
			t.Fatal(err)
		}
		if err := notes.check(one, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want something about %q", text, err, want)
		}
	}
}
