package networks

import (
	"encoding/json"
	"strings"
	"testing"

	"berth/internal/fault"

	"github.com/moby/moby/api/types/network"
)

// TestWhatACreateMayAsk has requests as clients write them and what comes of them,
// where docker has words for it in docker's.
func TestWhatACreateMayAsk(t *testing.T) {
	const fine = fault.NotModified // no error at all
	ipam := func(configs string) string {
		return `{"Name":"n","IPAM":{"Driver":"default","Config":[` + configs + `]}}`
	}
	option := func(key, value string) string {
		text, _ := json.Marshal(map[string]any{"Name": "n", "Options": map[string]string{key: value}})
		return string(text)
	}
	for _, test := range []struct {
		request string
		kind    fault.Kind // of the error
		words   string
	}{
		{`{"Name":"n"}`, fine, ""},
		{`{"Name":"n","Driver":"bridge","Scope":"local","CheckDuplicate":true}`, fine, ""},
		{`{"Name":""}`, fault.Invalid, "invalid network name"},
		{`{"Name":"a b"}`, fault.Invalid, "invalid network name"},
		{`{"Name":"bridge"}`, fault.Forbidden, "operation is not permitted on predefined bridge network"},
		{`{"Name":"none"}`, fault.Forbidden, "operation is not permitted on predefined none network"},
		{`{"Name":"n","Driver":"host"}`, fault.Forbidden, `only one instance of "host" network is allowed`},
		{`{"Name":"n","Driver":"foo"}`, fault.NotFound, `plugin "foo" not found`},
		{`{"Name":"n","Driver":"macvlan"}`, fault.Unsupported, "macvlan"},
		{`{"Name":"n","Scope":"swarm"}`, fault.Unavailable, "not a swarm manager"},
		{`{"Name":"n","Scope":"far"}`, fault.Invalid, `invalid scope "far"`},
		{`{"Name":"n","ConfigOnly":true}`, fault.Unsupported, "hold a configuration"},
		{`{"Name":"n","EnableIPv4":false}`, fault.Unsupported, "networks without IPv4"},
		{`{"Name":"n","IPAM":{"Driver":"foo"}}`, fault.NotFound, `plugin "foo" not found`},
		{`{"Name":"n","IPAM":{"Options":{"a":"b"}}}`, fault.Unsupported, `IPAM option "a"`},

		{ipam(`{}`), fine, ""},
		{ipam(`{"Subnet":"10.1.0.0/24","IPRange":"10.1.0.128/25","Gateway":"10.1.0.9","AuxiliaryAddresses":{"a":"10.1.0.2"}},{"Subnet":"fd00::/64","IPRange":"fd00::100/120"}`), fine, ""},
		{ipam(`{"Subnet":"10.1.0.0/24"},{"Subnet":"10.2.0.0/24"}`), fault.Forbidden, "bridge driver doesn't support multiple subnets"},
		{ipam(`{"Subnet":"fd00::/64"},{"Subnet":"fd01::/64"}`), fault.Forbidden, "bridge driver doesn't support multiple subnets"},
		{ipam(`{"Gateway":"10.1.0.1"}`), fault.Invalid, "a gateway, range or auxiliary address needs one"},
		{ipam(`{"Subnet":"10.1.0.5/24"}`), fault.Invalid, "invalid subnet 10.1.0.5/24: it should be 10.1.0.0/24"},
		{ipam(`{"Subnet":"10.1.0.0/24","Gateway":"10.2.0.1"}`), fault.Invalid, "invalid gateway 10.2.0.1: parent subnet 10.1.0.0/24 doesn't contain this address"},
		{ipam(`{"Subnet":"10.1.0.0/24","Gateway":"fd00::1"}`), fault.Invalid, "invalid gateway fd00::1: parent subnet is an IPv4 block"},
		{ipam(`{"Subnet":"10.1.0.0/24","IPRange":"10.2.0.0/25"}`), fault.Invalid, "invalid ip-range 10.2.0.0/25: parent subnet 10.1.0.0/24 doesn't contain ip-range"},
		{ipam(`{"Subnet":"10.1.0.0/24","IPRange":"10.1.0.0/16"}`), fault.Invalid, "invalid ip-range 10.1.0.0/16: CIDR block is bigger than its parent subnet 10.1.0.0/24"},
		{ipam(`{"Subnet":"10.1.0.0/24","IPRange":"10.1.0.9/25"}`), fault.Invalid, "invalid ip-range 10.1.0.9/25: it should be 10.1.0.0/25"},
		{ipam(`{"Subnet":"10.1.0.0/24","IPRange":"fd00::/80"}`), fault.Invalid, "invalid ip-range fd00::/80: parent subnet is an IPv4 block"},
		{ipam(`{"Subnet":"10.1.0.0/24","AuxiliaryAddresses":{"a":"10.2.0.1"}}`), fault.Invalid, "invalid auxiliary address a: parent subnet 10.1.0.0/24 doesn't contain this address"},
		{ipam(`{"Subnet":"10.1.0.0/24","AuxiliaryAddresses":{"a":"10.1.0.2","b":"10.1.0.2"}}`), fault.Invalid, "invalid auxiliary address b: 10.1.0.2 is in use already"},
		{ipam(`{"Subnet":"10.1.0.0/24","Gateway":"10.1.0.2","AuxiliaryAddresses":{"a":"10.1.0.2"}}`), fault.Invalid, "10.1.0.2 is in use already"},
		{ipam(`{"Subnet":"10.1.0.5/24","Gateway":"10.2.0.1"}`), fault.Invalid, "it should be 10.1.0.0/24\ninvalid gateway 10.2.0.1"},

		{option("com.docker.network.bridge.name", "br7"), fine, ""},
		{option("com.docker.network.container_iface_prefix", "net"), fine, ""},
		{option("com.docker.network.enable_ipv6", "true"), fine, ""},
		{option("com.docker.network.driver.mtu", "1400"), fine, ""},
		{option("com.docker.network.driver.mtu", "abc"), fault.Invalid, "failed to parse com.docker.network.driver.mtu value: abc"},
		{option("com.docker.network.driver.mtu", "-5"), fault.Invalid, "failed to parse com.docker.network.driver.mtu value: -5"},
		{option("com.docker.network.bridge.enable_icc", "maybe"), fault.Invalid, "failed to parse com.docker.network.bridge.enable_icc value: maybe"},
		{option("com.docker.network.bridge.host_binding_ipv4", "x"), fault.Invalid, "failed to parse com.docker.network.bridge.host_binding_ipv4 value: x"},
		{option("foo", "bar"), fault.Unsupported, "network option foo"},
	} {
		var req network.CreateRequest
		if err := json.Unmarshal([]byte(test.request), &req); err != nil {
			t.Fatalf("%s: %v", test.request, err)
		}
		_, err := newRecord(req)
		switch {
		case test.kind == fine && err != nil:
			t.Errorf("%s: %v", test.request, err)
		case test.kind != fine && (!fault.Is(err, test.kind) || !strings.Contains(err.Error(), test.words)):
			t.Errorf("%s: %v, want %v: %s", test.request, err, test.kind, test.words)
		}
	}
}
