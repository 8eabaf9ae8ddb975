package cdi

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/internal/fault"

	"github.com/opencontainers/runtime-spec/specs-go"
)

const vendorFile = `cdiVersion: "0.6.0"
kind: vendor.com/gpu
containerEdits:
  env: ["DRIVER=1"]
  mounts:
    - {hostPath: /usr/lib/driver.so, containerPath: /usr/lib/driver.so, options: [ro, nosuid]}
devices:
  - name: "0"
    containerEdits:
      env: ["PATH=/vendor"]
      deviceNodes:
        - {path: /dev/gpu0, hostPath: /dev/null, permissions: rw}
      hooks:
        - {hookName: createContainer, path: /bin/true, args: ["true"]}
      additionalGids: [44]
  - name: broken
    containerEdits:
      deviceNodes: [{path: /dev/none, hostPath: /none}]
`

func newSpec() *specs.Spec {
	return &specs.Spec{Process: &specs.Process{Env: []string{"PATH=/bin", "A=b"}}, Linux: &specs.Linux{Resources: &specs.LinuxResources{}}}
}

func TestDevicesBringWhatTheirVendorSays(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("vendor.yaml", vendorFile)
	write("other.json", `{"cdiVersion": "0.5.0", "kind": "vendor.com/nic", "devices": [{"name": "a", "containerEdits": {"env": ["NIC=a"]}}], "containerEdits": {}}`)
	write("notes.txt", "no specification")
	s := newSpec()
	if err := Apply(s, []string{"/none", dir}, []string{"vendor.com/gpu=0", "vendor.com/nic=a"}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(s.Process.Env, " "); got != "A=b DRIVER=1 PATH=/vendor NIC=a" {
		t.Errorf("environment: %s", got)
	}
	if len(s.Linux.Devices) != 1 || s.Linux.Devices[0].Path != "/dev/gpu0" || s.Linux.Devices[0].Major != 1 || s.Linux.Devices[0].Minor != 3 {
		t.Errorf("devices: %+v", s.Linux.Devices)
	}
	if r := s.Linux.Resources.Devices; len(r) != 1 || !r[0].Allow || r[0].Access != "rw" {
		t.Errorf("rules: %+v", r)
	}
	if len(s.Mounts) != 1 || !slices.Equal(s.Mounts[0].Options, []string{"rbind", "ro", "nosuid"}) {
		t.Errorf("mounts: %+v", s.Mounts)
	}
	if s.Hooks == nil || len(s.Hooks.CreateContainer) != 1 || !slices.Equal(s.Process.User.AdditionalGids, []uint32{44}) {
		t.Errorf("hooks and groups: %+v %v", s.Hooks, s.Process.User.AdditionalGids)
	}
	if err := Apply(newSpec(), []string{dir}, []string{"vendor.com/gpu=7"}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "vendor.com/gpu=7") {
		t.Errorf("a device that there is not: %v", err)
	}
	if err := Apply(newSpec(), []string{dir}, []string{"vendor.com/gpu=broken"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a node that there is not: %v", err)
	}
	write("bad.json", `{"kind": "bad.com/x", "devices": [], "containerEdits": {"intelRdt": {}}}`)
	if err := Apply(newSpec(), []string{dir}, []string{"bad.com/x=1"}); err == nil || !strings.Contains(err.Error(), "intelRdt") {
		t.Errorf("an edit that is not known: %v", err)
	}
}

func TestQualified(t *testing.T) {
	for name, want := range map[string]bool{"vendor.com/gpu=0": true, "/dev/null": false, "vendor.com=0": false, "a/b=": false, "/a/b=c": false, "a/b=c d": false} {
		if Qualified(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}
