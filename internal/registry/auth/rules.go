// Package auth decides who may do what in a registry: it reads passwords and
// tokens, and applies rules by repository. It exists so that the protocol never
// sees a credential, and every way to prove who one is ends in the same Caller.
package auth

import (
	"fmt"
	"slices"
	"strings"
)

// Rights is a set of things that somebody may do in a repository.
type Rights uint8

// The rights. Pull includes seeing that the repository exists.
const (
	Pull Rights = 1 << iota
	Push
	Delete
	All = Pull | Push | Delete
)

var rightNames = []struct {
	right Rights
	name  string
}{{Pull, "pull"}, {Push, "push"}, {Delete, "delete"}}

// ParseRights reads a list of pull, push and delete; "*" is all of them.
func ParseRights(names []string) (Rights, error) {
	var r Rights
next:
	for _, name := range names {
		if name == "*" {
			r |= All
			continue
		}
		for _, n := range rightNames {
			if n.name == name {
				r |= n.right
				continue next
			}
		}
		return 0, fmt.Errorf("%q is none of pull, push, delete", name)
	}
	return r, nil
}

// Names returns the rights in words.
func (r Rights) Names() []string {
	var out []string
	for _, n := range rightNames {
		if r&n.right != 0 {
			out = append(out, n.name)
		}
	}
	return out
}

// Rule grants rights. Rules only ever add: what no rule grants is refused.
type Rule struct {
	Who          []string // "user:NAME", "group:NAME", "users" (whoever has logged in), "anonymous" (everybody)
	Repositories []string // patterns: * is one part of a name or of a part, ** any number of parts, {user} the caller's name
	Allow        Rights
}

// Check reports what in the rule nobody can mean.
func (r Rule) Check() error {
	if len(r.Who) == 0 || len(r.Repositories) == 0 || r.Allow == 0 {
		return fmt.Errorf("a rule needs who, repositories and allow")
	}
	for _, w := range r.Who {
		kind, name, _ := strings.Cut(w, ":")
		if w != "users" && w != "anonymous" && (kind != "user" && kind != "group" || name == "") {
			return fmt.Errorf("who: %q is none of user:NAME, group:NAME, users, anonymous", w)
		}
	}
	for _, p := range r.Repositories {
		if p == "" || strings.HasPrefix(p, "/") || strings.HasSuffix(p, "/") || strings.Contains(strings.ReplaceAll(p, "{user}", ""), "{") {
			return fmt.Errorf("repositories: %q is not a pattern such as team/** or home/{user}/*", p)
		}
	}
	return nil
}

// rightsOf returns what the rules grant a user ("" is anonymous).
func rightsOf(rules []Rule, user string, groups []string, repo string) Rights {
	var have Rights
	for _, r := range rules {
		if have&r.Allow == r.Allow || !r.speaksOf(user, groups) {
			continue
		}
		for _, p := range r.Repositories {
			if p, ok := expandUser(p, user); ok && matchName(p, repo) {
				have |= r.Allow
				break
			}
		}
	}
	return have
}

func (r Rule) speaksOf(user string, groups []string) bool {
	for _, w := range r.Who {
		kind, name, _ := strings.Cut(w, ":")
		switch {
		case w == "anonymous", w == "users" && user != "", kind == "user" && name == user && user != "", kind == "group" && slices.Contains(groups, name):
			return true
		}
	}
	return false
}

// expandUser puts the user's name into a pattern. A name that could be read as a
// pattern or as several parts names no repository of anybody.
func expandUser(pattern, user string) (string, bool) {
	if !strings.Contains(pattern, "{user}") {
		return pattern, true
	}
	if user == "" || strings.ContainsAny(user, "*/{}") {
		return "", false
	}
	return strings.ReplaceAll(pattern, "{user}", user), true
}

// matchName matches a repository's name against a pattern, part by part.
func matchName(pattern, name string) bool {
	return matchParts(strings.Split(pattern, "/"), strings.Split(name, "/"))
}

func matchParts(pattern, name []string) bool {
	// next[j] says whether the rest of the pattern matches name[j:]; filling it
	// from the end keeps a pattern of many ** from costing more than its length.
	next := make([]bool, len(name)+1)
	next[len(name)] = true
	for i := len(pattern) - 1; i >= 0; i-- {
		now := make([]bool, len(name)+1)
		for j := len(name); j >= 0; j-- {
			if pattern[i] == "**" {
				now[j] = next[j] || j < len(name) && now[j+1]
			} else {
				now[j] = j < len(name) && next[j+1] && matchPart(pattern[i], name[j])
			}
		}
		next = now
	}
	return next[0]
}

// matchPart matches one part, in which * stands for any characters.
func matchPart(pattern, part string) bool {
	pieces := strings.Split(pattern, "*")
	if len(pieces) == 1 {
		return pattern == part
	}
	if !strings.HasPrefix(part, pieces[0]) {
		return false
	}
	part = part[len(pieces[0]):]
	for _, p := range pieces[1 : len(pieces)-1] {
		i := strings.Index(part, p)
		if i < 0 {
			return false
		}
		part = part[i+len(p):]
	}
	return strings.HasSuffix(part, pieces[len(pieces)-1])
}
