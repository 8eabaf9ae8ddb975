package nameserver

import (
	"net/netip"
	"strings"
	"sync"
)

// Entry is what there is to know about one container.
type Entry struct {
	Container string
	// Upstream are the servers for all names that are not found here, IP addresses;
	// none keeps every query inside.
	Upstream []string `json:",omitempty"`
	On       []End    `json:",omitempty"`
}

// End is a container's place on one network.
type End struct {
	Network    string // id
	Name       string // of the network
	IPv4, IPv6 netip.Addr
	Names      []string // by which others on the network find the container
	// Links are names by which this container alone finds others, by their ids.
	Links map[string]string `json:",omitempty"`
}

// zone answers what a name means to a container.
type zone struct {
	mu   sync.RWMutex // guards the rest
	by   map[string]*Entry
	nets map[string]map[string]*End // by network and container
}

func newZone() *zone {
	return &zone{by: make(map[string]*Entry), nets: make(map[string]map[string]*End)}
}

// put replaces what is known about a container.
func (z *zone) put(e *Entry) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.remove(e.Container)
	z.by[e.Container] = e
	for i := range e.On {
		end := &e.On[i]
		if z.nets[end.Network] == nil {
			z.nets[end.Network] = make(map[string]*End)
		}
		z.nets[end.Network][e.Container] = end
	}
}

func (z *zone) drop(id string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.remove(id)
}

// remove wants the lock held.
func (z *zone) remove(id string) {
	e := z.by[id]
	if e == nil {
		return
	}
	delete(z.by, id)
	for _, end := range e.On {
		delete(z.nets[end.Network], id)
		if len(z.nets[end.Network]) == 0 {
			delete(z.nets, end.Network)
		}
	}
}

// upstream returns the servers that a container's queries may go to.
func (z *zone) upstream(id string) []netip.AddrPort {
	z.mu.RLock()
	defer z.mu.RUnlock()
	var out []netip.AddrPort
	if e := z.by[id]; e != nil {
		for _, s := range e.Upstream {
			if a, err := netip.ParseAddr(s); err == nil {
				out = append(out, netip.AddrPortFrom(a, 53))
			}
		}
	}
	return out
}

// lookup finds the addresses that a name has for a container: those of everybody
// with that name on the networks that both are on.
func (z *zone) lookup(id, name string) (ip4, ip6 []netip.Addr, known bool) {
	z.mu.RLock()
	defer z.mu.RUnlock()
	e := z.by[id]
	if e == nil {
		return nil, nil, false
	}
	for _, own := range e.On {
		short, within := strings.CutSuffix(name, "."+strings.ToLower(own.Name))
		linked := ""
		for alias, target := range own.Links {
			if strings.EqualFold(alias, name) {
				linked = target
			}
		}
		for other, end := range z.nets[own.Network] {
			if !(linked != "" && other == linked) && !end.answersTo(name) && !(within && end.answersTo(short)) {
				continue
			}
			known = true
			ip4 = append(ip4, end.IPv4)
			if end.IPv6.IsValid() {
				ip6 = append(ip6, end.IPv6)
			}
		}
	}
	return ip4, ip6, known
}

func (e *End) answersTo(name string) bool {
	for _, have := range e.Names {
		if strings.EqualFold(have, name) {
			return true
		}
	}
	return false
}

// reverse finds the name of an address on a container's networks.
func (z *zone) reverse(id string, addr netip.Addr) (string, bool) {
	z.mu.RLock()
	defer z.mu.RUnlock()
	e := z.by[id]
	if e == nil {
		return "", false
	}
	for _, own := range e.On {
		for _, end := range z.nets[own.Network] {
			if (end.IPv4 == addr || end.IPv6 == addr) && len(end.Names) > 0 {
				return end.Names[0] + "." + own.Name, true
			}
		}
	}
	return "", false
}

// reverseAddr reads "4.3.2.1.in-addr.arpa" and its IPv6 form.
func reverseAddr(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(rest, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
		return a, err == nil
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	parts := strings.Split(rest, ".")
	if !ok || len(parts) != 32 {
		return netip.Addr{}, false
	}
	var text strings.Builder
	for i := 31; i >= 0; i-- {
		text.WriteString(parts[i])
		if i%4 == 0 && i > 0 {
			text.WriteByte(':')
		}
	}
	a, err := netip.ParseAddr(text.String())
	return a, err == nil
}
