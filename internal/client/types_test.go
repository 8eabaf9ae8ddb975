package client

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/common"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/volume"
)

// TestStructuresMatchThePublishedAPI holds every field that this package sends
// or reads against the API's own types: same JSON name, same kind of value.
func TestStructuresMatchThePublishedAPI(t *testing.T) {
	t.Parallel()
	for _, pair := range []struct{ ours, theirs any }{
		{CreateRequest{}, container.CreateRequest{}},
		{CreateResponse{}, container.CreateResponse{}},
		{WaitResponse{}, container.WaitResponse{}},
		{Summary{}, container.Summary{}},
		{ImageSummary{}, image.Summary{}},
		{DeleteResponse{}, image.DeleteResponse{}},
		{ContainerState{}, container.InspectResponse{}},
		{ExecRequest{}, container.ExecCreateRequest{}},
		{ExecStartRequest{}, container.ExecStartRequest{}},
		{ExecState{}, container.ExecInspectResponse{}},
		{EndpointSettings{}, network.EndpointSettings{}},
		{Progress{}, jsonstream.Message{}},
		{UpdateRequest{}, container.UpdateConfig{}},
		{TopResponse{}, container.TopResponse{}},
		{Change{}, container.FilesystemChange{}},
		{PathStat{}, container.PathStat{}},
		{Stats{}, container.StatsResponse{}},
		{HistoryItem{}, image.HistoryResponseItem{}},
		{SearchResult{}, registry.SearchResult{}},
		{Login{}, registry.AuthConfig{}},
		{LoginAnswer{}, registry.AuthResponse{}},
		{Distribution{}, registry.DistributionInspect{}},
		{NetworkSummary{}, network.Summary{}},
		{NetworkCreate{}, network.CreateRequest{}},
		{Volume{}, volume.Volume{}},
		{VolumeCreate{}, volume.CreateRequest{}},
		{struct {
			ID string `json:"Id"`
		}{}, common.IDResponse{}},
	} {
		compare(t, reflect.TypeOf(pair.ours).Name(), reflect.TypeOf(pair.ours), reflect.TypeOf(pair.theirs), 0)
	}
}

var textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()

func compare(t *testing.T, path string, ours, theirs reflect.Type, depth int) {
	for ours.Kind() == reflect.Pointer {
		ours = ours.Elem()
	}
	for theirs.Kind() == reflect.Pointer {
		theirs = theirs.Elem()
	}
	raw := reflect.TypeFor[json.RawMessage]()
	switch {
	case depth > 8 || ours == theirs || ours == raw || theirs == raw:
		return
	case ours.Kind() == reflect.String && (theirs.Implements(textMarshaler) || theirs.Kind() == reflect.String):
		return
	case ours.Kind() != theirs.Kind():
		if !numbers(ours.Kind()) || !numbers(theirs.Kind()) {
			t.Errorf("%s: ours is %v, the API's %v", path, ours, theirs)
		}
		return
	}
	switch ours.Kind() {
	case reflect.Struct:
		compareStruct(t, path, ours, theirs, depth)
	case reflect.Slice, reflect.Array:
		compare(t, path+"[]", ours.Elem(), theirs.Elem(), depth+1)
	case reflect.Map:
		compare(t, path+"{key}", ours.Key(), theirs.Key(), depth+1)
		compare(t, path+"{}", ours.Elem(), theirs.Elem(), depth+1)
	}
}

func numbers(k reflect.Kind) bool { return k >= reflect.Int && k <= reflect.Float64 }

func compareStruct(t *testing.T, path string, ours, theirs reflect.Type, depth int) {
	known := jsonFields(theirs)
	for name, field := range jsonFields(ours) {
		other, ok := known[name]
		if path == "Progress" && name == "error" { // sent by engines older than the types
			continue
		}
		if !ok {
			t.Errorf("%s: the API has no field %s", path, name)
			continue
		}
		compare(t, path+"."+name, field.Type, other.Type, depth+1)
	}
}

func jsonFields(t reflect.Type) map[string]reflect.StructField {
	out := map[string]reflect.StructField{}
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous || !f.IsExported() {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			name = f.Name
		}
		out[name] = f
	}
	return out
}

// TestRequestSurvivesTheAPI sends a full request through the API's own types.
func TestRequestSurvivesTheAPI(t *testing.T) {
	t.Parallel()
	yes, swappiness := true, int64(0)
	in := CreateRequest{
		Config: &Config{Image: "img", Cmd: []string{"a"}, Entrypoint: []string{""}, ExposedPorts: map[string]struct{}{"80/tcp": {}}},
		HostConfig: &HostConfig{PortBindings: map[string][]PortBinding{"80/tcp": {{HostIP: "127.0.0.1", HostPort: "8080"}}},
			DNS: []string{"10.0.0.1"}, MaskedPaths: []string{}, Init: &yes, ConsoleSize: [2]uint{24, 80},
			Resources: Resources{Memory: 1 << 30, MemorySwappiness: &swappiness, NanoCPUs: 5e8, Ulimits: []*Ulimit{{Name: "nofile", Soft: 1, Hard: 2}}}},
		NetworkingConfig: &NetworkingConfig{EndpointsConfig: map[string]*EndpointSettings{
			"net": {MacAddress: "02:42:ac:11:00:02", IPAMConfig: &IPAMConfig{IPv4Address: "10.1.2.3"}}}},
	}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out container.CreateRequest
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&out); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	h := out.HostConfig
	binding := h.PortBindings[network.MustParsePort("80/tcp")]
	if len(binding) != 1 || binding[0].HostPort != "8080" || binding[0].HostIP.String() != "127.0.0.1" ||
		h.Memory != 1<<30 || h.NanoCPUs != 5e8 || h.MemorySwappiness == nil || h.MaskedPaths == nil || h.ReadonlyPaths != nil ||
		h.ConsoleSize != [2]uint{24, 80} || h.Ulimits[0].Hard != 2 || out.Image != "img" ||
		out.NetworkingConfig.EndpointsConfig["net"].IPAMConfig.IPv4Address.String() != "10.1.2.3" {
		t.Errorf("got %+v\nfrom %s", h, text)
	}
}
