package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"berth/internal/fault"

	"github.com/spf13/pflag"
)

// readConfig applies the configuration file to all flags that the command line
// did not set.
func (o *options) readConfig(all *pflag.FlagSet) error {
	path := o.config
	if path == "" {
		if all.Changed("root") || all.Changed("run") {
			return nil // another engine beside the machine's own
		}
		path = defaultConfig
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && o.config == "" {
		return nil
	}
	if err != nil {
		return fault.New(fault.Invalid, "read configuration", "", "%w", err)
	}
	if err := applyConfig(text, all); err != nil {
		return fault.New(fault.Invalid, "read configuration", path, "%w", err)
	}
	return nil
}

// applyConfig sets the flags that the JSON object names.
func applyConfig(text []byte, all *pflag.FlagSet) error {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(text, &keys); err != nil {
		return fmt.Errorf("not a JSON object: %w", err)
	}
	var unknown []string
	for key := range keys {
		if f := all.Lookup(key); f == nil || key == "config" || key == "help" || key == "version" {
			unknown = append(unknown, key)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return fmt.Errorf("unknown key %s; the keys are the flags of berthd --help without the dashes", strings.Join(unknown, ", "))
	}
	for key, raw := range keys {
		if all.Changed(key) {
			continue
		}
		values, err := configValues(raw)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		if len(values) != 1 && all.Lookup(key).Value.Type() != "stringArray" {
			return fmt.Errorf("%s: takes a single value", key)
		}
		for _, v := range values {
			if err := all.Set(key, v); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		}
	}
	return nil
}

// configValues turns a JSON value into the texts that a flag would be given: a
// list repeats the flag, an object repeats it with KEY=VALUE.
func configValues(raw json.RawMessage) ([]string, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case []any:
		var out []string
		for _, e := range v {
			s, err := configScalar(e)
			if err != nil {
				return nil, err
			}
			out = append(out, s)
		}
		return out, nil
	case map[string]any:
		var out []string
		for k, e := range v {
			s, err := configScalar(e)
			if err != nil {
				return nil, err
			}
			out = append(out, k+"="+s)
		}
		slices.Sort(out)
		return out, nil
	}
	s, err := configScalar(v)
	return []string{s}, err
}

func configScalar(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case bool, json.Number:
		return fmt.Sprint(v), nil
	}
	return "", errors.New("must be a text, a number, true or false")
}
