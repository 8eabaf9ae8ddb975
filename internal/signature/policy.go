// Package signature decides whether an image may be used: a policy names, by
// repository, what is allowed, what is denied and what must be signed by whom.
// It exists so that this decision is in one place that reaches no network and
// trusts nothing that a registry says: signatures are fetched through Source
// and checked here with the standard library's cryptography alone.
package signature

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"

	"berth/internal/fault"
	"berth/internal/signature/cosign"
)

// maxPolicyFile bounds the policy's size.
const maxPolicyFile = 1 << 20

// Action is what a rule does with the images that it names.
type Action string

// The actions.
const (
	Allow  Action = "allow"
	Deny   Action = "deny"
	Signed Action = "signed" // only with enough signatures
)

// Values of a rule's identity beside a repository's name.
const (
	identityOwn = "repository" // the signature must name the image's own repository
	identityAny = "any"        // it may name any, or none
)

// Policy is what a policy file says. A nil Policy allows everything.
type Policy struct {
	path     string
	rules    []rule
	fallback Action
	byHand   bool // made of keys that somebody gave, not of a file
}

// rule is one entry of the file, ready for use.
type rule struct {
	name      string
	patterns  []pattern
	action    Action
	keys      []*cosign.PublicKey
	threshold int
	identity  string
}

// file is the policy as it is written.
type file struct {
	Default string     `toml:"default"`
	Rules   []fileRule `toml:"rule"`
}

type fileRule struct {
	Name       string   `toml:"name"`
	Repository any      `toml:"repository"` // one pattern or a list
	Action     string   `toml:"action"`
	Keys       []string `toml:"keys"`
	Threshold  *int     `toml:"threshold"`
	Identity   string   `toml:"identity"`
	Keyless    any      `toml:"keyless"`
}

// LoadPolicy reads a policy file. Paths of keys in it are relative to its
// directory. What the file says and is not understood is an error, because a
// rule that silently does nothing is worse than none.
func LoadPolicy(path string) (*Policy, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fault.New(kindOf(err), "read signature policy", path, "%w", err)
	}
	if info.Size() > maxPolicyFile {
		return nil, fault.New(fault.Invalid, "read signature policy", path, "it has more than %d bytes", maxPolicyFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(kindOf(err), "read signature policy", path, "%w", err)
	}
	return parsePolicy(path, string(text), func(name string) ([]byte, error) {
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(path), name)
		}
		return os.ReadFile(name)
	})
}

func kindOf(err error) fault.Kind {
	switch {
	case os.IsNotExist(err):
		return fault.NotFound
	case os.IsPermission(err):
		return fault.Forbidden
	}
	return fault.Internal
}

// parsePolicy reads a policy; readKey returns the content of a key file.
func parsePolicy(path, text string, readKey func(name string) ([]byte, error)) (*Policy, error) {
	bad := func(format string, args ...any) *fault.Error {
		return fault.New(fault.Invalid, "read signature policy", path, format, args...)
	}
	var in file
	meta, err := toml.Decode(text, &in)
	if err != nil {
		return nil, bad("%w", err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, bad("there is no setting %q", unknown[0].String()).
			WithHint("a policy has default and [[rule]]; a rule has name, repository, action, keys, threshold and identity")
	}
	p := &Policy{path: path, fallback: Action(in.Default)}
	switch p.fallback {
	case "":
		p.fallback = Allow
	case Allow, Deny:
	default:
		return nil, bad("default is %q", in.Default).WithHint("use %q or %q", Allow, Deny)
	}
	names := map[string]bool{}
	for i := range in.Rules {
		r, err := in.Rules[i].rule(readKey)
		if err == nil && names[r.name] {
			err = fault.New(fault.Invalid, "", "", "another rule has the same name")
		}
		if err != nil {
			return nil, bad("rule %d %q: %w", i+1, in.Rules[i].Name, err)
		}
		names[r.name] = true
		p.rules = append(p.rules, r)
	}
	return p, nil
}

// rule checks and prepares one rule.
func (f *fileRule) rule(readKey func(string) ([]byte, error)) (rule, error) {
	bad := func(format string, args ...any) *fault.Error {
		return fault.New(fault.Invalid, "", "", format, args...)
	}
	r := rule{name: f.Name, action: Action(f.Action), identity: f.Identity, threshold: 1}
	if strings.TrimSpace(f.Name) == "" {
		return r, bad("it has no name, by which a refusal could call it")
	}
	if f.Keyless != nil {
		return r, bad("keyless verification is not offered yet").WithHint("name public keys with keys = [...]")
	}
	var err error
	if r.patterns, err = patterns(f.Repository); err != nil {
		return r, err
	}
	switch r.action {
	case Allow, Deny:
		if len(f.Keys) > 0 || f.Threshold != nil || f.Identity != "" {
			return r, bad("keys, threshold and identity have no meaning with action %q", r.action).WithHint("use action = %q", Signed)
		}
		return r, nil
	case Signed:
	default:
		return r, bad("action is %q", f.Action).WithHint("use %q, %q or %q", Allow, Deny, Signed)
	}
	if r.keys, err = readKeys(f.Keys, readKey); err != nil {
		return r, err
	}
	if f.Threshold != nil {
		r.threshold = *f.Threshold
	}
	if r.threshold < 1 || r.threshold > len(r.keys) {
		return r, bad("threshold is %d with %d different keys", r.threshold, len(r.keys)).WithHint("use 1 to %d", len(r.keys))
	}
	return r, r.checkIdentity()
}

func (r *rule) checkIdentity() error {
	switch r.identity {
	case "":
		r.identity = identityOwn
	case identityOwn, identityAny:
	default:
		name, err := repositoryOf(r.identity)
		if err != nil {
			return fault.New(fault.Invalid, "", "", "identity is %q: %w", r.identity, err).
				WithHint("use %q, %q or the repository that the signatures name", identityOwn, identityAny)
		}
		r.identity = name
	}
	return nil
}

// readKeys reads key files; a key that is named twice counts once.
func readKeys(names []string, read func(string) ([]byte, error)) ([]*cosign.PublicKey, error) {
	if len(names) == 0 {
		return nil, fault.New(fault.Invalid, "", "", "it wants signatures and names no keys").WithHint(`say whose: keys = ["FILE.pub"]`)
	}
	var keys []*cosign.PublicKey
	for _, name := range names {
		text, err := read(name)
		if err != nil {
			return nil, fault.New(kindOf(err), "read key", name, "%w", err)
		}
		found, err := cosign.ParsePublicKeys(text)
		if err != nil {
			return nil, fault.Wrap("key", name, err)
		}
		keys = appendNew(keys, found)
	}
	return keys, nil
}

func appendNew(keys, more []*cosign.PublicKey) []*cosign.PublicKey {
next:
	for _, key := range more {
		for _, known := range keys {
			if known.Equal(key) {
				continue next
			}
		}
		keys = append(keys, key)
	}
	return keys
}

// WithKeys returns a policy that wants one signature by any of the keys in PEM
// form, whatever the repository: what checking an image by hand uses.
func WithKeys(texts ...[]byte) (*Policy, error) {
	r := rule{name: "keys given by hand", action: Signed, threshold: 1, identity: identityOwn, patterns: []pattern{{"**"}}}
	for _, text := range texts {
		found, err := cosign.ParsePublicKeys(text)
		if err != nil {
			return nil, err
		}
		r.keys = appendNew(r.keys, found)
	}
	if len(r.keys) == 0 {
		return nil, fault.New(fault.Invalid, "check signature", "", "no key was given")
	}
	return &Policy{rules: []rule{r}, fallback: Deny, byHand: true}, nil
}
