package image

import (
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/cpu"

	"berth/internal/fault"
)

// HostPlatform is what images for this machine say.
func HostPlatform() ocispec.Platform {
	p := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	switch runtime.GOARCH {
	case "arm64":
		p.Variant = "v8"
	case "arm":
		p.Variant = "v7"
	}
	return p
}

// amd64Level returns how many of the x86-64 micro-architecture levels this
// machine has, so that an image for v3 is not taken where it would crash.
func amd64Level() int {
	x := cpu.X86
	switch {
	case !(x.HasSSE3 && x.HasSSSE3 && x.HasSSE41 && x.HasSSE42 && x.HasPOPCNT && x.HasCX16):
		return 1
	case !(x.HasAVX && x.HasAVX2 && x.HasBMI1 && x.HasBMI2 && x.HasFMA && x.HasOSXSAVE):
		return 2
	case !(x.HasAVX512F && x.HasAVX512BW && x.HasAVX512CD && x.HasAVX512DQ && x.HasAVX512VL):
		return 3
	}
	return 4
}

// ParsePlatform reads os[/arch[/variant]], or an architecture alone.
func ParsePlatform(s string) (*ocispec.Platform, error) {
	parts := strings.Split(strings.ToLower(s), "/")
	host := HostPlatform()
	p := &ocispec.Platform{}
	switch {
	case s == "" || len(parts) > 3 || slices.Contains(parts, ""):
		return nil, fault.New(fault.Invalid, "parse platform", quoteShort(s), "want os/architecture[/variant], such as linux/arm64")
	case len(parts) == 1 && parts[0] == "linux":
		p = &host
	case len(parts) == 1:
		p.OS, p.Architecture = host.OS, parts[0]
	default:
		p.OS, p.Architecture = parts[0], parts[1]
		if len(parts) == 3 {
			p.Variant = parts[2]
		}
	}
	p.Architecture, p.Variant = normalArch(p.Architecture, p.Variant)
	return p, nil
}

// normalArch replaces the names that other systems use.
func normalArch(arch, variant string) (string, string) {
	switch arch {
	case "x86_64", "x86-64":
		arch = "amd64"
	case "aarch64":
		arch = "arm64"
	case "armhf":
		arch, variant = "arm", "v7"
	case "armel":
		arch, variant = "arm", "v6"
	case "i386", "i686":
		arch = "386"
	}
	if arch == "amd64" && variant == "v1" || arch == "arm64" && (variant == "v8" || variant == "8") {
		variant = ""
	}
	if arch == "arm" && variant == "" {
		variant = "v7"
	}
	return arch, variant
}

// FormatPlatform is the inverse of ParsePlatform.
func FormatPlatform(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// rank says how well an image for have runs where want is wanted: 0 not at all,
// more is better.
func rank(want, have ocispec.Platform) int {
	wa, wv := normalArch(want.Architecture, want.Variant)
	ha, hv := normalArch(have.Architecture, have.Variant)
	if want.OS != have.OS || wa != ha {
		return 0
	}
	if wv == hv {
		return 100
	}
	level := func(v string) int {
		if len(v) == 2 && v[0] == 'v' && v[1] >= '1' && v[1] <= '9' {
			return int(v[1] - '0')
		}
		return 0
	}
	switch w, h := level(wv), level(hv); {
	case wa == "amd64" && wv == "": // whatever this machine can do
		if h > amd64Level() {
			return 0
		}
		return 100 - h
	case h < w && (wa == "arm" || wa == "amd64"):
		return 50 + h
	}
	return 0
}

// Matches reports whether an image for have runs where want is wanted. Many
// images do not say their variant; those are taken at their architecture.
func Matches(want, have ocispec.Platform) bool {
	if have.Variant == "" {
		have.Variant = want.Variant
	}
	return rank(want, have) > 0
}

// attestationType marks entries of an index that are about an image and are
// none themselves.
const attestationType = "vnd.docker.reference.type"

// Select picks the manifest for a platform from an index; nil means this
// machine's. ErrPlatform names the platforms that are there.
func Select(x *ocispec.Index, want *ocispec.Platform) (ocispec.Descriptor, error) {
	host := HostPlatform()
	if want == nil {
		want = &host
	}
	best, bestRank := -1, 0
	var have []string
	for i, d := range x.Manifests {
		if !isImage(&d) {
			continue
		}
		r := 1 // says nothing: better than nothing
		if d.Platform != nil {
			r = rank(*want, *d.Platform)
			have = append(have, FormatPlatform(*d.Platform))
		}
		if r > bestRank {
			best, bestRank = i, r
		}
	}
	if best < 0 {
		return ocispec.Descriptor{}, fault.New(fault.NotFound, "select platform", FormatPlatform(*want), "%w among %s", ErrPlatform, listOr(have, "no images at all")).
			WithHint("choose one with --platform")
	}
	return x.Manifests[best], nil
}

// isImage reports whether an entry of an index can be an image.
func isImage(d *ocispec.Descriptor) bool {
	if d.Annotations[attestationType] != "" || d.Platform != nil && d.Platform.OS == "unknown" {
		return false
	}
	return d.MediaType == "" || IsIndex(d.MediaType) || IsManifest(d.MediaType)
}

func listOr(items []string, none string) string {
	if len(items) == 0 {
		return none
	}
	slices.Sort(items)
	return strings.Join(slices.Compact(items), ", ")
}
