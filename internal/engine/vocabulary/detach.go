package vocabulary

import "berth/internal/fault"

// DetachKeys reads docker's notation: letters, and ctrl- with a letter or
// one of @ [ \ ] ^ _, with commas between. "" is ctrl-p,ctrl-q.
func DetachKeys(s string) ([]byte, error) {
	if s == "" {
		return []byte{16, 17}, nil
	}
	wrong := fault.New(fault.Invalid, "", "", "Invalid detach keys (%s) provided", s)
	var out []byte
	for rest, more := s, true; more; {
		var key string
		switch {
		case rest == ",": // a comma as the last key
			key, more = rest, false
		default:
			key, rest, more = cutKey(rest)
		}
		switch {
		case len(key) == 1:
			out = append(out, key[0])
		case len(key) == 6 && key[:5] == "ctrl-":
			switch c := key[5]; {
			case c >= 'a' && c <= 'z':
				out = append(out, c-'a'+1)
			case c >= '@' && c <= '_' && (c == '@' || c >= '['):
				out = append(out, c-'@')
			default:
				return nil, wrong
			}
		default:
			return nil, wrong
		}
	}
	return out, nil
}

func cutKey(s string) (key, rest string, more bool) {
	for i := range len(s) {
		if s[i] == ',' {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}
