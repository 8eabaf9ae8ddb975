// Package networks holds the use cases of networks and says which containers are on
// which. It exists because most of that is about records, names and addresses, and
// nothing of it about how containers live: it works on the room that makes bridges
// and on what is known of networks and containers. Whoever starts a container asks
// it to attach the container and hands what comes back to the specification.
package networks

import (
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"berth/internal/container"
	"berth/internal/events"
	"berth/internal/fault"
	"berth/internal/metadata"
	netroom "berth/internal/network"

	"github.com/moby/moby/api/types/network"
)

// Stores are what the networks of an engine work on.
type Stores struct {
	Manager    *netroom.Manager
	DB         *metadata.DB
	Containers *container.Index
	Records    metadata.Bucket[container.Record]
	Bus        *events.Bus
	Log        *slog.Logger
	Dir        string // below it each container has a directory, named by its id
}

// Set is all networks and who is on them.
type Set struct {
	Stores
	opened  time.Time
	records metadata.Bucket[record]

	announced sync.Map // ids of the containers whose connects were told, and whose disconnects are to be

	links        atomic.Bool // some container has links on the default network
	lookForLinks sync.Once   // among the containers of engines before this one
	writing      sync.Mutex  // of files of running containers

	mu   sync.Mutex // guards the rest; nothing else is locked under it
	by   map[string]*record
	busy map[string]bool // names of networks being made
}

// record is what is written down of a user-defined network. Those that are always
// there are described by such records, too, which are not written.
type record struct {
	netroom.Definition
	Created    time.Time
	Labels     map[string]string    `json:",omitempty"`
	Options    map[string]string    `json:",omitempty"`
	Aux        [2]map[string]string `json:",omitzero"` // auxiliary addresses by name, IPv4 and IPv6
	Attachable bool                 `json:",omitempty"`
}

// Open makes the networks known that were created before.
func Open(stores Stores) (*Set, error) {
	s := &Set{Stores: stores, opened: time.Now(), records: metadata.NewBucket[record]("networks"),
		by: make(map[string]*record), busy: make(map[string]bool)}
	var bad []metadata.BadRecord
	err := s.DB.View(func(tx *metadata.Tx) (err error) {
		bad, err = s.records.ForEach(tx, func(id string, r record) error {
			if r.ID != id || r.Name == "" {
				s.Log.Error("a network's record is incomplete; it is left alone", "network", id)
				return nil
			}
			s.by[id] = &r
			s.Manager.Define(r.Definition)
			return nil
		})
		return err
	})
	for _, b := range bad {
		s.Log.Error("a network's record can't be read; it is left alone", "network", b.Key, "error", b.Err)
	}
	return s, fault.Wrap("read networks", "", err)
}

// bridge is the name of the default network.
const bridge = network.NetworkBridge

// userDefined tells whether a network's name is none of those that are always there.
func userDefined(name string) bool {
	return name != bridge && name != network.NetworkHost && name != network.NetworkNone && name != network.NetworkDefault
}

// driver names what makes the network.
func (r *record) driver() string {
	switch r.Name {
	case network.NetworkHost:
		return "host"
	case network.NetworkNone:
		return "null"
	}
	return "bridge"
}

// fixed are the networks that are always there.
func (s *Set) fixed() []*record {
	b := s.Manager.Bridge()
	return []*record{
		{
			Definition: netroom.Definition{ID: b.ID, Name: bridge, Subnet4: b.Subnet4, Gateway4: b.Gateway4, Subnet6: b.Subnet6, Gateway6: b.Gateway6},
			Created:    s.opened,
			Options: map[string]string{
				"com.docker.network.bridge.default_bridge":       "true",
				"com.docker.network.bridge.enable_icc":           strconv.FormatBool(!b.Isolated),
				"com.docker.network.bridge.enable_ip_masquerade": strconv.FormatBool(!b.NoMasq),
				"com.docker.network.bridge.host_binding_ipv4":    "0.0.0.0",
				"com.docker.network.bridge.name":                 b.Bridge,
				"com.docker.network.driver.mtu":                  strconv.Itoa(b.MTU),
			},
		},
		{Definition: netroom.Definition{ID: netroom.HostNetworkID, Name: network.NetworkHost}, Created: s.opened},
		{Definition: netroom.Definition{ID: netroom.NoneNetworkID, Name: network.NetworkNone}, Created: s.opened},
	}
}

// own returns the user-defined networks by name.
func (s *Set) own() []*record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.by), func(a, b *record) int { return strings.Compare(a.Name, b.Name) })
}

// Count returns how many user-defined networks there are.
func (s *Set) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.by)
}

func (s *Set) all() []*record { return append(s.fixed(), s.own()...) }

// find returns a network by its id, its name or a prefix of its id that no other has.
func (s *Set) find(ref string) (*record, error) {
	all := s.all()
	for _, same := range []func(r *record) bool{
		func(r *record) bool { return r.ID == ref },
		func(r *record) bool { return r.Name == ref },
	} {
		if at := slices.IndexFunc(all, same); at >= 0 {
			return all[at], nil
		}
	}
	var found []*record
	for _, r := range all {
		if ref != "" && strings.HasPrefix(r.ID, ref) {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 0:
		return nil, fault.New(fault.NotFound, "", "", "network %s not found", ref)
	case 1:
		return found[0], nil
	}
	return nil, fault.New(fault.Invalid, "", "", "network %s is ambiguous (%d matches found on ID prefix)", ref, len(found))
}

// ID returns the id of a network by its name, "" when there is none.
func (s *Set) ID(name string) string {
	switch name {
	case bridge, network.NetworkDefault:
		return s.Manager.Bridge().ID
	case network.NetworkHost:
		return netroom.HostNetworkID
	case network.NetworkNone:
		return netroom.NoneNetworkID
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, r := range s.by {
		if r.Name == name {
			return id
		}
	}
	return ""
}

// reserve takes a name.
func (s *Set) reserve(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.busy[name]
	for _, r := range s.by {
		taken = taken || r.Name == name
	}
	if taken {
		return fault.New(fault.Conflict, "", "", "network with name %s already exists", name)
	}
	s.busy[name] = true
	return nil
}

// settle gives a reserved name to its network, or back when r is nil.
func (s *Set) settle(name string, r *record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, name)
	if r != nil {
		s.by[r.ID] = r
	}
}

func (s *Set) drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.by, id)
}

// describe shows a network as docker does.
func (r *record) describe() network.Network {
	n := network.Network{
		Name: r.Name, ID: r.ID, Created: r.Created, Scope: "local", Driver: r.driver(), EnableIPv4: true, EnableIPv6: r.Subnet6.IsValid(),
		Internal: r.Internal, Attachable: r.Attachable, Options: r.Options, Labels: r.Labels,
		IPAM: network.IPAM{Driver: "default", Options: map[string]string{}, Config: []network.IPAMConfig{}},
	}
	if n.Options == nil {
		n.Options = map[string]string{}
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	for _, c := range []struct {
		config network.IPAMConfig
		aux    map[string]string
	}{
		{network.IPAMConfig{Subnet: r.Subnet4, IPRange: r.Range4, Gateway: r.Gateway4}, r.Aux[0]},
		{network.IPAMConfig{Subnet: r.Subnet6, IPRange: r.Range6, Gateway: r.Gateway6}, r.Aux[1]},
	} {
		if !c.config.Subnet.IsValid() {
			continue
		}
		for name, addr := range c.aux {
			if c.config.AuxAddress == nil {
				c.config.AuxAddress = make(map[string]netip.Addr)
			}
			c.config.AuxAddress[name], _ = netip.ParseAddr(addr) // written by us
		}
		n.IPAM.Config = append(n.IPAM.Config, c.config)
	}
	return n
}
