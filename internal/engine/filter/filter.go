// Package filter reads docker's list filters, which narrow lists, prunes and streams
// of events. It exists because every room of the engine that lists something judges
// by the same rules which values are alternatives and which must all hold.
package filter

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/fault"
)

// Set is docker's wire form of list filters: key to a set of values. Values
// of one key are alternatives, keys must all match; label and a few other keys
// want every value.
type Set map[string]map[string]bool

// Parse decodes the "filters" query parameter: the current form
// {"key":{"value":true}} and the one of old clients, {"key":["value"]}.
func Parse(raw string) (Set, error) {
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
	f := make(Set, len(old))
	for k, vs := range old {
		for _, v := range vs {
			f.Add(k, v)
		}
	}
	return f, nil
}

// clean drops values set to false and keys left without values.
func clean(in map[string]map[string]bool) Set {
	f := make(Set, len(in))
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
func (f Set) Add(key, value string) {
	if f[key] == nil {
		f[key] = make(map[string]bool, 1)
	}
	f[key][value] = true
}

// Get returns the values of a key in order.
func (f Set) Get(key string) []string {
	vs := make([]string, 0, len(f[key]))
	for v := range f[key] {
		vs = append(vs, v)
	}
	slices.Sort(vs)
	return vs
}

// Has reports whether the key is used at all.
func (f Set) Has(key string) bool { return len(f[key]) > 0 }

// Exact reports whether the key is unused or holds value.
func (f Set) Exact(key, value string) bool {
	return !f.Has(key) || f[key][value]
}

// Match reports whether the key is unused, one of its values is equal to value, or
// one of them is a regular expression that matches a part of it.
func (f Set) Match(key, value string) bool {
	if !f.Has(key) || f[key][value] {
		return true
	}
	for v := range f[key] {
		if regexp.QuoteMeta(v) == v {
			if strings.Contains(value, v) {
				return true
			}
		} else if re, err := regexp.Compile(v); err == nil && re.MatchString(value) {
			return true
		}
	}
	return false
}

// Labels reports whether every "key" or "key=value" of the named filter holds
// for the labels.
func (f Set) Labels(key string, labels map[string]string) bool {
	for want := range f[key] {
		k, v, hasValue := strings.Cut(want, "=")
		have, ok := labels[k]
		if !ok || (hasValue && have != v) {
			return false
		}
	}
	return true
}

// HasLabels reports whether the named filter is used and every "key" or
// "key=value" of it holds for the labels: what "label!" leaves out.
func (f Set) HasLabels(key string, labels map[string]string) bool {
	return f.Has(key) && f.Labels(key, labels)
}

// Bool reads a filter which is a truth value.
func (f Set) Bool(key string, byDefault bool) (bool, error) {
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
func (f Set) Check(known ...string) error {
	for k := range f {
		if !slices.Contains(known, k) {
			return fault.New(fault.Invalid, "", "", "invalid filter '%s'", k).
				WithHint("known filters: %s", strings.Join(known, ", "))
		}
	}
	return nil
}

// Until reads the filter until, a time or an age; it is zero when that is not used.
func (f Set) Until() (time.Time, error) {
	values := f.Get("until")
	switch len(values) {
	case 0:
		return time.Time{}, nil
	case 1:
	default:
		return time.Time{}, fault.New(fault.Invalid, "", "", "more than one until filter specified")
	}
	text := values[0]
	if d, err := time.ParseDuration(text); err == nil {
		return time.Now().Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	whole, frac, _ := strings.Cut(text, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if nsec, ferr := strconv.ParseUint((frac + "000000000")[:9], 10, 32); err == nil && ferr == nil {
		return time.Unix(sec, int64(nsec)), nil
	}
	return time.Time{}, fault.New(fault.Invalid, "", "", "invalid filter 'until=%s'", text).
		WithHint("write a time (2006-01-02T15:04:05, seconds since 1970) or an age (24h)")
}
