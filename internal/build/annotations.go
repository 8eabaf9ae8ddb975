package build

import (
	"regexp"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
	"berth/internal/image"
)

// annotation is one annotation of the result's documents.
type annotation struct {
	level      string // one of the levels below
	platform   string // of manifests and their descriptors; "" is all
	key, value string
}

// The documents that annotations may be of, as buildx calls them.
const (
	onManifest           = "manifest"
	onManifestDescriptor = "manifest-descriptor"
	onIndex              = "index"
	onIndexDescriptor    = "index-descriptor"
)

type annotations []annotation

var annotationLevel = regexp.MustCompile(`^([a-z-]+)(?:\[([A-Za-z0-9_/-]+)\])?$`)

// parseAnnotations reads [LEVEL[PLATFORM],...:]KEY=VALUE, as buildx has it.
func parseAnnotations(list []string) (annotations, error) {
	bad := func(text, format string, args ...any) error {
		return fault.New(fault.Invalid, "read annotation", text, format, args...).
			WithHint("write KEY=VALUE, or for example manifest[linux/amd64],index:KEY=VALUE")
	}
	var out annotations
	for _, text := range list {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, bad(text, "it has no value")
		}
		levels, name, ok := strings.Cut(key, ":")
		if !ok {
			levels, name = onManifest, key
		}
		if name == "" || strings.ContainsAny(name, " \t\n") {
			return nil, bad(text, "it has no key, or one with spaces")
		}
		for level := range strings.SplitSeq(levels, ",") {
			parts := annotationLevel.FindStringSubmatch(level)
			if parts == nil {
				return nil, bad(text, "%q is not a level with, or without, a platform in brackets", level)
			}
			a := annotation{level: parts[1], key: name, value: value}
			switch a.level {
			case onManifest, onManifestDescriptor:
			case onIndex, onIndexDescriptor:
				if parts[2] != "" {
					return nil, bad(text, "an index is not for one platform")
				}
			default:
				return nil, bad(text, "%q is none of manifest, manifest-descriptor, index, index-descriptor", a.level)
			}
			if parts[2] != "" {
				p, err := image.ParsePlatform(parts[2])
				if err != nil {
					return nil, err
				}
				a.platform = image.FormatPlatform(*p)
			}
			out = append(out, a)
		}
	}
	return out, nil
}

// check refuses annotations that nothing of the result can have.
func (a annotations) check(platforms []ocispec.Platform, index bool) error {
	have := platformNames(platforms)
	for _, one := range a {
		switch {
		case one.platform != "" && !slices.Contains(have, one.platform):
			return fault.New(fault.Invalid, "annotate", one.key, "the build is not for %s but for %s", one.platform, strings.Join(have, ", "))
		case !index && (one.level == onIndex || one.level == onIndexDescriptor):
			return fault.New(fault.Invalid, "annotate", one.key, "an image for a single platform without attestations has no index").
				WithHint("annotate its manifest: --annotation manifest:%s=%s", one.key, one.value)
		}
	}
	return nil
}

// of returns the annotations of a document; platform counts for manifests and
// their descriptors.
func (a annotations) of(level string, platform ocispec.Platform) map[string]string {
	out := map[string]string{}
	for _, whose := range []string{"", image.FormatPlatform(platform)} { // what is said of one goes before what is said of all
		for _, one := range a {
			if one.level == level && one.platform == whose {
				out[one.key] = one.value
			}
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
