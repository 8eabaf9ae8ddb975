package transfer

import "strings"

// challenge is one way in which a server wants to be shown credentials (RFC
// 9110, section 11.6.1).
type challenge struct {
	scheme string // in lower case
	params map[string]string
}

// parseChallenges reads the values of WWW-Authenticate, each of which may hold
// several challenges.
func parseChallenges(values []string) []challenge {
	const most = 16 // nobody offers more ways than that
	var all []challenge
	for _, v := range values {
		for v = strings.TrimLeft(v, " \t,"); v != "" && len(all) < most; v = strings.TrimLeft(v, " \t,") {
			var c challenge
			if c, v = parseChallenge(v); c.scheme != "" {
				all = append(all, c)
			}
		}
	}
	return all
}

// parseChallenge reads the first challenge and returns what follows it.
func parseChallenge(s string) (challenge, string) {
	i := strings.IndexAny(s, " \t,")
	if i < 0 {
		return challenge{strings.ToLower(s), nil}, ""
	}
	c := challenge{strings.ToLower(s[:i]), map[string]string{}}
	rest := s[i:]
	for {
		rest = strings.TrimLeft(rest, " \t,")
		key, after, ok := cutKey(rest)
		if !ok {
			return c, rest // the next scheme, or the end
		}
		var value string
		value, rest = cutValue(after)
		c.params[strings.ToLower(key)] = value
	}
}

// cutKey cuts "key=" off; a word that is followed by something else is no key.
func cutKey(s string) (key, after string, ok bool) {
	i := strings.IndexAny(s, "= \t,\"")
	if i <= 0 {
		return "", s, false
	}
	after = strings.TrimLeft(s[i:], " \t")
	if !strings.HasPrefix(after, "=") {
		return "", s, false
	}
	return s[:i], strings.TrimLeft(after[1:], " \t"), true
}

// cutValue cuts a token or a quoted string off.
func cutValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		i := strings.IndexAny(s, " \t,")
		if i < 0 {
			return s, ""
		}
		return s[:i], s[i:]
	}
	var b strings.Builder
	i := 1
	for ; i < len(s) && s[i] != '"'; i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), s[min(i+1, len(s)):]
}
