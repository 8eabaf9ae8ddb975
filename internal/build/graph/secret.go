package graph

import (
	"regexp"
	"sync"
)

// secretNames tells names of variables that hold secrets from those that only
// speak of them.
var secretNames = sync.OnceValue(func() (re struct{ deny, allow *regexp.Regexp }) {
	re.deny = regexp.MustCompile(`(?i)(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)`)
	re.allow = regexp.MustCompile(`(?i)(?:_|^)(?:public|file|version)(?:_|$)`)
	return re
})

// SecretName reports whether a variable is named as if it held a secret: the build
// checks warn of those, and nobody is shown their values. The names are those of
// BuildKit's rule SecretsUsedInArgOrEnv.
func SecretName(name string) bool {
	re := secretNames()
	return re.deny.MatchString(name) && !re.allow.MatchString(name)
}
