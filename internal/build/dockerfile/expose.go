package dockerfile

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
)

// expose adds ports, of which one word may name many.
func (t *translation) expose(s *stage, c *instructions.ExposeCommand, lint *linter.Linter) error {
	var all []string
	for _, p := range c.Ports {
		words, err := t.lex.ProcessWords(p, s.env)
		if err != nil {
			return err
		}
		for _, w := range words {
			ports, err := t.ports(w, c, lint)
			if err != nil {
				return err
			}
			all = append(all, ports...)
		}
	}
	if s.image.Config.ExposedPorts == nil {
		s.image.Config.ExposedPorts = map[string]struct{}{}
	}
	for _, p := range all {
		s.image.Config.ExposedPorts[p] = struct{}{}
	}
	t.commit(s, fmt.Sprintf("EXPOSE %v", all), nil)
	return nil
}

// ports reads [[address:]host:]container[/protocol], each a port or a range.
func (t *translation) ports(word string, c *instructions.ExposeCommand, lint *linter.Linter) ([]string, error) {
	rest, host := word, ""
	if i := strings.LastIndexByte(word, ':'); i >= 0 {
		host, rest = word[:i], word[i+1:]
		lint.Run(&linter.RuleExposeInvalidFormat, c.Location(), linter.RuleExposeInvalidFormat.Format(word))
	}
	numbers, proto, _ := strings.Cut(rest, "/")
	if proto != strings.ToLower(proto) {
		lint.Run(&linter.RuleExposeProtoCasing, c.Location(), linter.RuleExposeProtoCasing.Format(word))
	}
	switch proto = strings.ToLower(proto); proto {
	case "":
		proto = "tcp"
	case "tcp", "udp", "sctp":
	default:
		return nil, fmt.Errorf("invalid port %q: invalid proto: %s", word, proto)
	}
	from, to, err := portRange(numbers)
	if err != nil {
		return nil, fmt.Errorf("invalid port %q: %w", word, err)
	}
	if err := checkHostPart(host, to-from); err != nil {
		return nil, fmt.Errorf("invalid port %q: %w", word, err)
	}
	out := make([]string, 0, to-from+1)
	for p := from; p <= to; p++ {
		out = append(out, strconv.Itoa(p)+"/"+proto)
	}
	return out, nil
}

// checkHostPart reads the address and ports of the host, which have no effect in
// an image; they are accepted because docker's builder does.
func checkHostPart(s string, count int) error {
	if s == "" {
		return nil
	}
	address, ports := "", s
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		address, ports = strings.Trim(s[:i], "[]"), s[i+1:]
	}
	if address != "" {
		if _, err := netip.ParseAddr(address); err != nil {
			return fmt.Errorf("invalid IP address: %s", address)
		}
	}
	if ports == "" {
		return nil
	}
	from, to, err := portRange(ports)
	if err != nil {
		return err
	}
	if to-from != count && count != 0 {
		return fmt.Errorf("invalid ranges specified for container and host Ports: %s", ports)
	}
	return nil
}

func portRange(s string) (from, to int, err error) {
	a, b, ranged := strings.Cut(s, "-")
	if from, err = portNumber(a); err != nil {
		return 0, 0, err
	}
	to = from
	if ranged {
		if to, err = portNumber(b); err != nil {
			return 0, 0, err
		}
	}
	if to < from {
		return 0, 0, fmt.Errorf("invalid port range: %s", s)
	}
	return from, to, nil
}

func portNumber(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number from 0 to 65535", s)
	}
	return int(n), nil
}
