package engine

import (
	"encoding/json"
	"path"
	"slices"
	"strings"

	"berth/internal/fault"
)

// Filters is docker's wire form of list filters: key to a set of values. Values
// of one key are alternatives, keys must all match; label and a few other keys
// want every value.
type Filters map[string]map[string]bool

// ParseFilters decodes the "filters" query parameter: the current form
// {"key":{"value":true}} and the one of old clients, {"key":["value"]}.
func ParseFilters(raw string) (Filters, error) {
	if raw == "" {
		return nil, nil
	}
	var now map[string]map[string]bool
	if err := json.Unmarshal([]byte(raw), &now); err == nil {
		return clean(now), nil
	}
	var old map[string][]string
	if err := json.Unmarshal([]byte(raw), &old); err != nil {
		return nil, fault.New(fault.Invalid, "parse filters", "", "invalid filter: %v", err)
	}
	f := make(Filters, len(old))
	for k, vs := range old {
		for _, v := range vs {
			f.Add(k, v)
		}
	}
	return f, nil
}

// clean drops values set to false and keys left without values.
func clean(in map[string]map[string]bool) Filters {
	f := make(Filters, len(in))
	for k, vs := range in {
		for v, on := range vs {
			if on {
				f.Add(k, v)
			}
		}
	}
	return f
}

// Add adds one value of one key.
func (f Filters) Add(key, value string) {
	if f[key] == nil {
		f[key] = make(map[string]bool, 1)
	}
	f[key][value] = true
}

// Get returns the values of a key in order.
func (f Filters) Get(key string) []string {
	vs := make([]string, 0, len(f[key]))
	for v := range f[key] {
		vs = append(vs, v)
	}
	slices.Sort(vs)
	return vs
}

// Has reports whether the key is used at all.
func (f Filters) Has(key string) bool { return len(f[key]) > 0 }

// Exact reports whether the key is unused or holds value.
func (f Filters) Exact(key, value string) bool {
	return !f.Has(key) || f[key][value]
}

// Match reports whether the key is unused or one of its values is equal to or
// part of value.
func (f Filters) Match(key, value string) bool {
	if !f.Has(key) || f[key][value] {
		return true
	}
	for v := range f[key] {
		if strings.Contains(value, v) {
			return true
		}
	}
	return false
}

// MatchPath is Match with shell patterns in the values.
func (f Filters) MatchPath(key, value string) bool {
	if !f.Has(key) {
		return true
	}
	for v := range f[key] {
		if ok, err := path.Match(v, value); err == nil && ok {
			return true
		}
	}
	return false
}

// Labels reports whether every "key" or "key=value" of the named filter holds
// for the labels.
func (f Filters) Labels(key string, labels map[string]string) bool {
	for want := range f[key] {
		k, v, hasValue := strings.Cut(want, "=")
		have, ok := labels[k]
		if !ok || (hasValue && have != v) {
			return false
		}
	}
	return true
}

// Bool reads a filter which is a truth value.
func (f Filters) Bool(key string, byDefault bool) (bool, error) {
	if !f.Has(key) {
		return byDefault, nil
	}
	yes := f[key]["1"] || f[key]["true"]
	no := f[key]["0"] || f[key]["false"]
	if yes == no {
		return false, fault.New(fault.Invalid, "", "", "invalid filter '%s=%s'", key, strings.Join(f.Get(key), ","))
	}
	return yes, nil
}

// Check refuses keys which are not among the known ones.
func (f Filters) Check(known ...string) error {
	for k := range f {
		if !slices.Contains(known, k) {
			return fault.New(fault.Invalid, "", "", "invalid filter '%s'", k).
				WithHint("known filters: %s", strings.Join(known, ", "))
		}
	}
	return nil
}

// HasLabels reports whether the named filter is used and every "key" or
// "key=value" of it holds for the labels: what "label!" leaves out.
func (f Filters) HasLabels(key string, labels map[string]string) bool {
	return f.Has(key) && f.Labels(key, labels)
}
