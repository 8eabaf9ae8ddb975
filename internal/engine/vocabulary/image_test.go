package vocabulary

import (
	"strings"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// dockerConfig is an image's config with everything that containers inherit.
func dockerConfig() *dockerspec.DockerOCIImageConfig {
	return &dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{
		User: "image", WorkingDir: "/w", Entrypoint: []string{"/entry"}, Cmd: []string{"serve"},
		Env: []string{"A=image", "B=image", "GONE=x"}, Labels: map[string]string{"l": "image", "m": "image"},
		ExposedPorts: map[string]struct{}{"80-82/tcp": {}, "nonsense": {}},
	}}
}

func FuzzParse(f *testing.F) {
	f.Add("0-3,7", "c 1:3 rwm", "x:1.2.3.4", "no-new-privileges=true", "8000-8010")
	f.Add("", "", "", "", "")
	f.Fuzz(func(t *testing.T, set, rule, host, opt, ports string) {
		if top, err := cpusetTop(set); err == nil && (top < -1 || top > 65535) {
			t.Errorf("cpuset %q: %d", set, top)
		}
		if r, err := ParseDeviceRule(rule); err == nil && !strings.Contains("abc", r.Kind) {
			t.Errorf("rule %q: %+v", rule, r)
		}
		if name, addr, err := ExtraHost(host); err == nil && (name == "" || addr == "" || strings.ContainsAny(name+addr, "\n\t ")) {
			t.Errorf("host %q: %q %q", host, name, addr)
		}
		_, _ = ParseSecurity([]string{opt}, Host{})
		if from, to, err := hostPorts(ports); err == nil && from > to {
			t.Errorf("ports %q: %d-%d", ports, from, to)
		}
	})
}
