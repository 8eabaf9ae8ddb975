package api

import (
	"encoding/json"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"time"

	"berth/internal/fault"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// time reads a Unix time in seconds with an optional fraction; missing and "0"
// mean no bound.
func (x *exchange) time(key string) (time.Time, error) {
	s := x.query(key)
	if s == "" {
		return time.Time{}, nil
	}
	t, err := parseTime(s)
	if err != nil {
		return time.Time{}, badQuery(key, s, err.Error())
	}
	return t, nil
}

// parseTime reads "1136073600", "1136073600.000000001" or an RFC 3339 time.
// Zero stands for no time at all.
func parseTime(s string) (time.Time, error) {
	if strings.Contains(s, "T") {
		return time.Parse(time.RFC3339Nano, s)
	}
	whole, frac, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, fault.New(fault.Invalid, "", "", "is not a time in seconds since 1970")
	}
	if len(frac) > 9 {
		frac = frac[:9]
	}
	nsec := uint64(0)
	if frac != "" {
		if nsec, err = strconv.ParseUint(frac+strings.Repeat("0", 9-len(frac)), 10, 32); err != nil {
			return time.Time{}, fault.New(fault.Invalid, "", "", "has a fraction that is not a number")
		}
	}
	if sec == 0 && nsec == 0 {
		return time.Time{}, nil
	}
	if sec < 0 || strings.HasPrefix(whole, "-") {
		nsec = 0
	}
	return time.Unix(sec, int64(nsec)), nil
}

// platform reads the platform parameter, which exists since 1.minor; older
// clients' values are ignored. nil means the host's own.
func (x *exchange) platform(minor int) (*ocispec.Platform, error) {
	s := x.query("platform")
	if s == "" || x.version.before(minor) {
		return nil, nil
	}
	return parsePlatform(s)
}

// parsePlatform reads "os[/arch[/variant]]", "arch" or an OCI platform as JSON.
func parsePlatform(s string) (*ocispec.Platform, error) {
	p := &ocispec.Platform{}
	if strings.HasPrefix(s, "{") {
		if err := json.Unmarshal([]byte(s), p); err != nil {
			return nil, fault.New(fault.Invalid, "", "", "failed to parse platform: %w", err)
		}
		if p.OS == "" || p.Architecture == "" {
			return nil, fault.New(fault.Invalid, "", "", "both OS and Architecture must be provided")
		}
		return p, nil
	}
	parts := strings.Split(strings.ToLower(s), "/")
	for _, part := range parts {
		if part == "" || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789_-.") != "" || len(parts) > 3 {
			return nil, fault.New(fault.Invalid, "", "", "invalid platform %q", s).WithHint("write it as os/arch or os/arch/variant, for example linux/arm64")
		}
	}
	switch {
	case len(parts) > 1:
		p.OS, p.Architecture = parts[0], parts[1]
	case knownOS(parts[0]):
		p.OS, p.Architecture = parts[0], runtime.GOARCH
	default:
		p.OS, p.Architecture = "linux", parts[0]
	}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	normalize(p)
	return p, nil
}

func knownOS(s string) bool {
	switch s {
	case "linux", "windows", "darwin", "freebsd":
		return true
	}
	return false
}

// normalize replaces the kernel's names of architectures by Go's.
func normalize(p *ocispec.Platform) {
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	case "i386", "i486", "i586", "i686":
		p.Architecture = "386"
	}
	if p.Architecture == "arm64" && (p.Variant == "v8" || p.Variant == "8") {
		p.Variant = ""
	}
	if p.Architecture == "arm" && p.Variant == "" {
		p.Variant = "v7"
	}
}

// addrText writes an address, and nothing for none.
func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
