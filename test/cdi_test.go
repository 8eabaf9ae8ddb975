package test

import (
	"os"
	"testing"
)

func TestDevicesOfVendors(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	for _, dir := range []string{"etc", "etc.work"} {
		if err := os.Mkdir(h.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// An /etc of this host's own, where vendors put their files.
	if out, err := h.within("mount", "-t", "overlay", "overlay", "-o", "lowerdir=/etc,upperdir="+h.path("etc")+",workdir="+h.path("etc.work"), "/etc").CombinedOutput(); err != nil {
		t.Skipf("needs an overlay on /etc: %v %s", err, out)
	}
	h.write("etc/cdi/vendor.yaml", `cdiVersion: "0.6.0"
kind: vendor.com/thing
devices:
  - name: one
    containerEdits:
      env: ["THING=one"]
      deviceNodes: [{path: /dev/thing, hostPath: /dev/full}]
      mounts: [{hostPath: `+h.dir+`, containerPath: /driver, options: [ro]}]
`, 0o644)
	h.equal(h.ok("run", "--rm", "--device", "vendor.com/thing=one", busyboxImage, "sh", "-c",
		"echo $THING; test -c /dev/thing && head -c 1 /dev/thing | wc -c; test -e /driver/run && echo driver"), "one\n1\ndriver")
	h.refused("unresolvable CDI devices vendor.com/thing=two", "run", "--rm", "--device", "vendor.com/thing=two", busyboxImage, "true")
	if o := h.within("umount", "-l", "/etc"); o.Run() != nil {
		t.Error("the overlay stays")
	}
}
