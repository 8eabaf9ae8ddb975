package solve

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
)

// qemuNames are the emulators' names where they differ from ours.
var qemuNames = map[string]string{
	"amd64": "x86_64", "arm64": "aarch64", "386": "i386", "mips64le": "mips64el", "loong64": "loongarch64",
}

// checkPlatform refuses programs that this machine cannot run.
func (s *Solver) checkPlatform(p ocispec.Platform) error {
	arch := p.Architecture
	switch {
	case p.OS != "" && p.OS != "linux":
		return fault.New(fault.Unsupported, "run program", "for "+p.OS, "this machine runs linux")
	case arch == "" || arch == runtime.GOARCH, runtime.GOARCH == "amd64" && arch == "386", runtime.GOARCH == "arm64" && arch == "arm":
		return nil
	case s.o.Platforms != nil:
		if s.o.Platforms("linux/" + arch) {
			return nil
		}
	case emulated("/proc/sys/fs/binfmt_misc", arch):
		return nil
	}
	return fault.New(fault.Unsupported, "run program", "for linux/"+arch, "this machine is %s and has no emulator for it", runtime.GOARCH).
		WithHint("install one: apt-get install qemu-user-static binfmt-support, or berth run --privileged --rm tonistiigi/binfmt --install %s", arch)
}

// emulated reports whether the kernel hands programs of an architecture to an
// emulator.
func emulated(dir, arch string) bool {
	name := qemuNames[arch]
	if name == "" {
		name = arch
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if e.Name() == "status" || e.Name() == "register" || !strings.HasSuffix(e.Name(), "-"+name) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err == nil && strings.HasPrefix(string(data), "enabled") {
			return true
		}
	}
	return false
}
