package registry

import (
	"github.com/opencontainers/go-digest"
)

const (
	longestName = 255
	longestTag  = 128
)

// validName reports whether s is a repository's name as the distribution
// specification (1.1, "Pulling manifests") writes it: parts of lower-case
// letters and digits, with single "." or "_", "__" or any number of "-" between
// them, joined by "/". Nothing that is empty, "." or ".." passes.
func validName(s string) bool {
	if s == "" || len(s) > longestName {
		return false
	}
	separator := 0 // length of the run of separators that s[:i] ends in
	start := true  // a part begins at i
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			start, separator = false, 0
			continue
		case start:
			return false
		case c == '/':
			if separator > 0 {
				return false
			}
			start = true
			continue
		case c == '.':
			if separator > 0 {
				return false
			}
		case c == '_':
			if separator > 1 || separator == 1 && s[i-1] != '_' {
				return false
			}
		case c == '-':
			if separator > 0 && s[i-1] != '-' {
				return false
			}
		default:
			return false
		}
		separator++
	}
	return !start && separator == 0
}

// validTag reports whether s is a tag: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func validTag(s string) bool {
	if s == "" || len(s) > longestTag || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-') {
			return false
		}
	}
	return true
}

// parseDigest checks a digest that a client names: sha256 or sha512 in lower
// case hexadecimal digits, the algorithms that the image specification registers.
func parseDigest(s string) (digest.Digest, bool) {
	d := digest.Digest(s)
	var hex string
	switch {
	case len(s) == 7+64 && s[:7] == "sha256:":
		hex = s[7:]
	case len(s) == 7+128 && s[:7] == "sha512:":
		hex = s[7:]
	default:
		return "", false
	}
	for i := 0; i < len(hex); i++ {
		if c := hex[i]; !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return "", false
		}
	}
	return d, true
}
