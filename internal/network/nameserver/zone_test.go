package nameserver

import (
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func testZone() *zone {
	z := newZone()
	ip := netip.MustParseAddr
	z.put(&Entry{Container: "a", Upstream: []string{"192.0.2.1", "rubbish"}, On: []End{
		{Network: "n1", Name: "front", IPv4: ip("10.0.0.2"), IPv6: ip("fd00::2"), Names: []string{"web", "www"}},
		{Network: "n2", Name: "back", IPv4: ip("10.1.0.2"), Names: []string{"web"}, Links: map[string]string{"Base": "c"}}}})
	z.put(&Entry{Container: "b", On: []End{{Network: "n1", Name: "front", IPv4: ip("10.0.0.3"), Names: []string{"www"}}}})
	z.put(&Entry{Container: "c", On: []End{{Network: "n2", Name: "back", IPv4: ip("10.1.0.3"), Names: []string{"db"}}}})
	return z
}

func TestZone(t *testing.T) {
	z := testZone()
	for _, c := range []struct {
		asker, name string
		want4       []string
		want6       int
	}{
		{"a", "www", []string{"10.0.0.2", "10.0.0.3"}, 1},
		{"a", "www.front", []string{"10.0.0.2", "10.0.0.3"}, 1},
		{"a", "web", []string{"10.0.0.2", "10.1.0.2"}, 1},
		{"b", "web", []string{"10.0.0.2"}, 1},
		{"a", "base", []string{"10.1.0.3"}, 0}, // a link, of a's alone
		{"c", "base", nil, 0},
		{"b", "db", nil, 0}, // on another network
		{"nobody", "web", nil, 0},
	} {
		ip4, ip6, known := z.lookup(c.asker, c.name)
		var got []string
		for _, a := range ip4 {
			got = append(got, a.String())
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want4) || len(ip6) != c.want6 || known != (len(c.want4) > 0) {
			t.Errorf("%s asks for %s: %v %v %v, want %v", c.asker, c.name, got, ip6, known, c.want4)
		}
	}
	if name, ok := z.reverse("b", netip.MustParseAddr("fd00::2")); !ok || name != "web.front" {
		t.Errorf("reverse: %q %v", name, ok)
	}
	if _, ok := z.reverse("c", netip.MustParseAddr("10.0.0.2")); ok {
		t.Error("an address of another network has a name")
	}
	if up := z.upstream("a"); len(up) != 1 || len(z.upstream("b")) != 0 {
		t.Errorf("upstream: %v", up)
	}
	z.put(&Entry{Container: "a"})
	z.drop("c")
	if _, _, known := z.lookup("b", "web"); known || len(z.nets) != 1 {
		t.Errorf("what was replaced is still known: %v", z.nets)
	}
}

// Containers may send anything.
func FuzzQuery(f *testing.F) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 7, RecursionDesired: true})
	_ = b.StartQuestions()
	_ = b.Question(dnsmessage.Question{Name: dnsmessage.MustNewName("www.front."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET})
	query, err := b.Finish()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(query, query)
	f.Add(query[:11], []byte{})
	s := &service{zone: testZone(), id: "b"}
	f.Fuzz(func(t *testing.T, query, reply []byte) {
		answer, local := s.local(query)
		if !local {
			t.Fatal("a container that asks nobody outside sends a query there")
		}
		var p dnsmessage.Parser
		if len(answer) > 0 {
			if head, err := p.Start(answer); err != nil || !head.Response {
				t.Fatalf("the answer %x to %x is none: %v", answer, query, err)
			}
		}
		answers(reply, query)
	})
}
