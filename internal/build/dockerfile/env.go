package dockerfile

import (
	"slices"
	"strings"
)

// env is an environment in the order in which it was made. It implements
// shell.EnvGetter.
type env struct {
	keys   []string
	values map[string]string
}

func newEnv() *env { return &env{values: map[string]string{}} }

// Get returns a variable.
func (e *env) Get(key string) (string, bool) {
	v, ok := e.values[key]
	return v, ok
}

// Keys returns the names in order.
func (e *env) Keys() []string { return e.keys }

func (e *env) set(key, value string) {
	if _, ok := e.values[key]; !ok {
		e.keys = append(e.keys, key)
	}
	e.values[key] = value
}

func (e *env) clone() *env {
	c := &env{keys: slices.Clone(e.keys), values: make(map[string]string, len(e.values))}
	for k, v := range e.values {
		c.values[k] = v
	}
	return c
}

// list returns "key=value" lines.
func (e *env) list() []string {
	out := make([]string, 0, len(e.keys))
	for _, k := range e.keys {
		out = append(out, k+"="+e.values[k])
	}
	return out
}

func splitEnv(s string) (key, value string) {
	key, value, _ = strings.Cut(s, "=")
	return key, value
}

// setEnv puts a variable into a config's list.
func setEnv(list []string, key, value string) []string {
	for i, s := range list {
		if k, _ := splitEnv(s); k == key {
			list[i] = key + "=" + value
			return list
		}
	}
	return append(list, key+"="+value)
}

// masked shows some variables as asterisks.
type masked struct {
	*env
	hidden map[string]bool
}

func (m masked) Get(key string) (string, bool) {
	if m.hidden[key] {
		return "****", true
	}
	return m.env.Get(key)
}
