package signature

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/distribution/reference"

	"berth/internal/fault"
)

// pattern is a repository's name with wildcards, split at its slashes: * stands
// for anything within one part, ** as a part for any number of parts.
type pattern []string

// maxParts bounds a pattern's length; names have far fewer parts.
const maxParts = 32

// patterns reads one pattern or a list of them.
func patterns(value any) ([]pattern, error) {
	var texts []string
	switch v := value.(type) {
	case string:
		texts = []string{v}
	case []any:
		for _, one := range v {
			text, ok := one.(string)
			if !ok {
				return nil, fault.New(fault.Invalid, "", "", "repository holds %v, which is not a pattern", one)
			}
			texts = append(texts, text)
		}
	case nil:
	default:
		return nil, fault.New(fault.Invalid, "", "", "repository is %v, which is not a pattern", value)
	}
	if len(texts) == 0 {
		return nil, fault.New(fault.Invalid, "", "", "it names no repository").WithHint(`say which: repository = "registry.example/team/*", or "**" for all`)
	}
	out := make([]pattern, 0, len(texts))
	for _, text := range texts {
		p, err := parsePattern(text)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func parsePattern(text string) (pattern, error) {
	bad := func(format string, args ...any) *fault.Error {
		return fault.New(fault.Invalid, "", "", "repository %q: %s", text, fmt.Sprintf(format, args...))
	}
	parts := strings.Split(text, "/")
	if len(parts) > maxParts {
		return nil, bad("it has more than %d parts", maxParts)
	}
	for i, part := range parts {
		if part == "" || part == "." || part == ".." {
			return nil, bad("a part of it is %q", part)
		}
		for _, r := range part {
			plain := r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("._-*", r)
			inHost := i == 0 && (r >= 'A' && r <= 'Z' || strings.ContainsRune(":[]", r))
			if !plain && !inHost {
				return nil, bad("%q cannot be part of a repository's name", r).WithHint("tags and digests do not belong here; * and ** are the wildcards")
			}
		}
		if strings.Contains(part, "**") && part != "**" {
			return nil, bad("** must stand alone between slashes")
		}
	}
	if first := parts[0]; !strings.ContainsAny(first, ".:*") && first != "localhost" {
		return nil, bad("it does not begin with a registry").WithHint("use docker.io/library/%[1]s for docker's %[1]s, or **/%[1]s for one anywhere", text)
	}
	if !strings.Contains(parts[0], "*") {
		parts[0] = host(parts[0])
	}
	return parts, nil
}

// host gives a registry one name, however it is written: a rule must not be
// passed by with capitals or a port that goes without saying.
func host(name string) string {
	name = strings.TrimSuffix(strings.ToLower(name), ":443")
	switch name {
	case "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return name
}

// repositoryName returns the name by which rules know a repository.
func repositoryName(named reference.Named) string {
	domain, rest := reference.Domain(named), reference.Path(named)
	if domain = host(domain); domain == "docker.io" && !strings.Contains(rest, "/") {
		rest = "library/" + rest
	}
	return domain + "/" + rest
}

// repositoryOf returns the name of a repository that is written in full.
func repositoryOf(text string) (string, error) {
	named, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		return "", err
	}
	if !reference.IsNameOnly(named) {
		return "", errors.New("it has a tag or a digest")
	}
	return repositoryName(named), nil
}

// matches reports whether a repository's name fits the pattern.
func (p pattern) matches(name string) bool { return matchParts(p, strings.Split(name, "/")) }

func matchParts(p, parts []string) bool {
	// Only the last ** seen needs to be tried again, as in matching of file names:
	// linear steps back, never exponential.
	back, at := -1, 0
	i, j := 0, 0
	for j < len(parts) {
		switch {
		case i < len(p) && p[i] == "**":
			back, at = i, j
			i++
		case i < len(p) && matchPart(p[i], parts[j]):
			i, j = i+1, j+1
		case back >= 0:
			at++
			i, j = back+1, at
		default:
			return false
		}
	}
	for i < len(p) && p[i] == "**" {
		i++
	}
	return i == len(p)
}

// matchPart matches one part. Brackets of IPv6 addresses are no wildcards.
func matchPart(pattern, part string) bool {
	if !strings.Contains(pattern, "*") {
		return pattern == part
	}
	quoted := strings.NewReplacer("[", `\[`, "]", `\]`).Replace(pattern)
	ok, err := path.Match(quoted, part)
	return ok && err == nil
}
