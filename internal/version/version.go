// Package version holds what this build calls itself. It is a room of its own so
// that client, engine and runtime agree without importing one another.
package version

import "runtime/debug"

// version is set by the linker (-X berth/internal/version.version=...).
var version string

// String returns the release or the source revision this program was built
// from, "dev" when neither is known.
func String() string {
	if version != "" {
		return version
	}
	return "dev"
}

// Revision returns the version-control revision recorded by the Go tool, or "".
func Revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}
