package container

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"berth/internal/volume"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
)

// TestRecordsSurviveTheDatabase: what is read back after a restart is what was
// saved, down to the difference between an empty list and none.
func TestRecordsSurviveTheDatabase(t *testing.T) {
	port := network.MustParsePort("53/udp")
	limit, stop, on := int64(7), 3, true
	at := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	r := &Record{
		ID: "abc", Name: "web", Created: at, ImageRef: "img:1", ImageID: digest.FromString("x"), Layers: []digest.Digest{digest.FromString("y")},
		Path: "sh", Args: []string{"-c", "true"},
		Config: &container.Config{
			Hostname: "h", Env: []string{"A=1"}, ExposedPorts: network.PortSet{port: {}}, StopTimeout: &stop, Labels: map[string]string{"k": "v"},
			Healthcheck: &container.HealthConfig{Test: []string{"CMD", "x"}, Interval: time.Second},
		},
		HostConfig: &container.HostConfig{
			PortBindings: network.PortMap{port: {{HostIP: netip.MustParseAddr("::1"), HostPort: "5300"}, {HostPort: "1-9"}}},
			DNS:          []netip.Addr{netip.MustParseAddr("10.0.0.1")}, MaskedPaths: []string{}, Init: &on,
			Resources: container.Resources{PidsLimit: &limit, Ulimits: []*container.Ulimit{{Name: "core", Soft: -1, Hard: -1}}},
		},
		Networks: map[string]*network.EndpointSettings{"bridge": {
			IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("10.1.2.3")}, MacAddress: network.HardwareAddr{2, 1, 2, 3, 4, 5},
		}},
		Mounts: []volume.Mount{{Type: "bind", Source: "/a", Destination: "/b", ReadOnly: true, Propagation: "rslave"}},
		Log:    LogConfig{Driver: "json-file", MaxSize: -1, Attrs: map[string]string{"a": "b"}},
		State:  State{Status: "exited", ExitCode: 9, StartedAt: at, FinishedAt: at.Add(time.Second), StoppedByHand: true, Note: "why"},
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Record
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(r, &back) {
		again, _ := json.Marshal(back)
		t.Errorf("saved\n%s\nread\n%s", text, again)
	}
}
