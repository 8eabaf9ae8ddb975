package dockerfile

import (
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// formatPlatform writes os/architecture[/variant].
func formatPlatform(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// other names of architectures that people write.
var architectures = map[string]string{
	"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "armel": "arm", "i386": "386", "i686": "386",
}

// parsePlatform reads os/architecture[/variant], an os, or an architecture.
func parsePlatform(s string) (*ocispec.Platform, error) {
	parts := strings.Split(strings.ToLower(s), "/")
	for _, p := range parts {
		if p == "" || strings.ContainsAny(p, " \t()") {
			return nil, fmt.Errorf("failed to parse platform %q: want os/architecture[/variant]", s)
		}
	}
	var p ocispec.Platform
	switch {
	case len(parts) > 3:
		return nil, fmt.Errorf("failed to parse platform %q: want os/architecture[/variant]", s)
	case len(parts) == 1 && (parts[0] == "linux" || parts[0] == "windows"):
		return nil, fmt.Errorf("failed to parse platform %q: it names no architecture", s)
	case len(parts) == 1:
		p.OS, p.Architecture = "linux", parts[0]
	default:
		p.OS, p.Architecture = parts[0], parts[1]
	}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	switch p.Architecture {
	case "armhf":
		p.Variant = "v7"
	case "armel":
		p.Variant = "v6"
	}
	if a, ok := architectures[p.Architecture]; ok {
		p.Architecture = a
	}
	switch {
	case p.Architecture == "arm64" && (p.Variant == "v8" || p.Variant == "8"), p.Architecture == "amd64" && p.Variant == "v1":
		p.Variant = ""
	case p.Architecture == "arm" && p.Variant == "":
		p.Variant = "v7"
	}
	return &p, nil
}

// crossing is what follows the platform in the name of a step that runs on one
// platform and asked, by the arguments about it, for which other: "->arm64".
func (s *stage) crossing() string {
	if s.env == nil {
		return ""
	}
	target := *s.platform
	if v, ok := s.env.Get("TARGETPLATFORM"); ok {
		if p, err := parsePlatform(v); err == nil {
			target = *p
		}
	}
	if v, ok := s.env.Get("TARGETARCH"); ok {
		target.Architecture, target.Variant = v, ""
	}
	if v, ok := s.env.Get("TARGETVARIANT"); ok {
		target.Variant = v
	}
	if target.Architecture == s.platform.Architecture {
		return ""
	}
	return "->" + strings.TrimPrefix(formatPlatform(target), target.OS+"/")
}
