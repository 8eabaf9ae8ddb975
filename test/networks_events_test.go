package test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Containers connect to their networks when they start and disconnect when they end,
// whichever networks these are.
func TestNetworksTellWhoComesAndGoes(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.ok("network", "create", "zone")
	for name, network := range map[string]string{"web": "bridge", "own": "zone", "onhost": "host", "bare": "none"} {
		h.ok("run", "-d", "--name", name, "--network", network, busyboxImage, "sleep", "1000")
	}
	h.ok("network", "connect", "zone", "web")
	h.killEngine() // what runs on is known to the next engine
	h.startEngine()
	h.ok("run", "-d", "--name", "guest", "--network", "container:web", busyboxImage, "sleep", "1000")
	if o := h.docker("run", "--name", "failed", busyboxImage, "nosuch"); o.code != 127 {
		t.Errorf("a program that is not there: code %d", o.code)
	}
	names := map[string]string{}
	for _, name := range []string{"web", "own", "onhost", "bare", "guest", "failed"} {
		names[h.ok("inspect", "--format", "{{.Id}}", name)] = name
	}
	h.ok("rm", "-f", "guest", "web", "own", "onhost", "bare", "failed")
	told := map[string][]string{}
	for _, line := range strings.Split(h.ok("events", "--since", "1h", "--until", fmt.Sprintf("%.9f", float64(time.Now().UnixNano())/1e9), "--filter", "type=network",
		"--format", "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.type}} {{.Actor.Attributes.container}}"), "\n") {
		if at := strings.LastIndexByte(line, ' '); names[line[at+1:]] != "" {
			told[names[line[at+1:]]] = append(told[names[line[at+1:]]], line[:at])
		}
	}
	for name, want := range map[string]string{
		"web":    "connect bridge bridge, connect zone bridge, disconnect bridge bridge, disconnect zone bridge",
		"own":    "connect zone bridge, disconnect zone bridge",
		"onhost": "connect host host, disconnect host host",
		"bare":   "connect none null, disconnect none null",
		"failed": "connect bridge bridge, disconnect bridge bridge",
		"guest":  "",
	} {
		if got := strings.Join(told[name], ", "); got != want {
			t.Errorf("%s: %s\nwant: %s", name, got, want)
		}
	}
}
