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

	"github.com/docker/go-units"
)

// defaultDaemonJSON is read when it exists and no other file is named.
const defaultDaemonJSON = "/etc/docker/daemon.json"

// readDaemonJSON adds to what the command line says what the file says. Both
// saying something about the same option is an error, in dockerd's words.
func readDaemonJSON(flags settings) (settings, error) {
	path := flags.text("config-file")
	named := path != ""
	if !named {
		path = defaultDaemonJSON
	}
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return flags, nil
	}
	var file settings
	if err == nil {
		file, err = parseDaemonJSON(content)
	}
	if err == nil {
		err = conflicts(flags, file)
	}
	if err != nil {
		return nil, fmt.Errorf("unable to configure the Docker daemon with file %s: %w", path, err)
	}
	all := settings{}
	for _, from := range []settings{flags, file} {
		for name, v := range from {
			all[name] = v
		}
	}
	return all, nil
}

// parseDaemonJSON reads the text of a daemon.json.
func parseDaemonJSON(content []byte) (settings, error) {
	content = bytes.TrimSpace(bytes.TrimPrefix(content, []byte("\xef\xbb\xbf")))
	if len(content) == 0 {
		return settings{}, nil
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(content, &keys); err != nil {
		return nil, err
	}
	byKey := map[string]*dockerdFlag{}
	for i := range dockerdFlags {
		byKey[dockerdFlags[i].fileKey()] = &dockerdFlags[i]
	}
	out := settings{}
	var unknown []string
	for key, raw := range keys {
		f := byKey[key]
		if _, ok := fileOnly[key]; ok {
			if err := out.fileOnly(key, raw); err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
			continue
		}
		if f == nil || key == "-" {
			unknown = append(unknown, key)
			continue
		}
		values, err := fileValues(f, raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		if len(values) > 0 {
			out[f.name] = values
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return nil, fmt.Errorf("the following directives don't match any configuration option: %s", strings.Join(unknown, ", "))
	}
	return out, nil
}

// fileValues turns a JSON value into what the flag would be given.
func fileValues(f *dockerdFlag, raw json.RawMessage) ([]string, error) {
	switch f.name {
	case "default-ulimit":
		return ulimitPairs(raw)
	case "add-runtime":
		return runtimePairs(raw)
	case "default-address-pool":
		return poolPairs(raw)
	case "default-network-opt", "feature":
		return []string{string(raw)}, nil // without effect
	}
	switch f.kind {
	case boolean:
		var v bool
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, errors.New("must be true or false")
		}
		return []string{fmt.Sprint(v)}, nil
	case number:
		var v int
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, errors.New("must be a whole number")
		}
		return []string{fmt.Sprint(v)}, nil
	case list:
		var v []string
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, errors.New("must be a list of texts")
		}
		return v, nil
	case pairs:
		var v map[string]string
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, errors.New("must be an object of texts")
		}
		var out []string
		for k, text := range v {
			out = append(out, k+"="+text)
		}
		slices.Sort(out)
		return out, nil
	}
	values, err := configValues(raw)
	if err == nil && len(values) != 1 {
		err = errors.New("must be a text")
	}
	return values, err
}

func ulimitPairs(raw json.RawMessage) ([]string, error) {
	var v map[string]struct {
		Name       string
		Soft, Hard int64
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, errors.New(`must be an object such as {"nofile": {"Name": "nofile", "Soft": 1024, "Hard": 2048}}`)
	}
	var out []string
	for name, u := range v {
		out = append(out, fmt.Sprintf("%s=%d:%d", name, u.Soft, u.Hard))
	}
	slices.Sort(out)
	return out, nil
}

func poolPairs(raw json.RawMessage) (out []string, err error) {
	var v []struct {
		Base string
		Size int
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, errors.New(`must be a list such as [{"base": "10.10.0.0/16", "size": 24}]`)
	}
	for _, p := range v {
		out = append(out, fmt.Sprintf("base=%s,size=%d", p.Base, p.Size))
	}
	return out, nil
}

func runtimePairs(raw json.RawMessage) ([]string, error) {
	var v map[string]struct {
		Path        string   `json:"path"`
		RuntimeArgs []string `json:"runtimeArgs"`
		RuntimeType string   `json:"runtimeType"`
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, errors.New(`must be an object such as {"NAME": {"path": "PATH"}}`)
	}
	var out []string
	for name, r := range v {
		switch {
		case r.RuntimeType != "":
			return nil, fmt.Errorf("%s: runtimeType names a shim of containerd, which Berth does not use; name a program with path", name)
		case len(r.RuntimeArgs) > 0:
			return nil, fmt.Errorf("%s: runtimeArgs are not supported; name a script that adds them", name)
		}
		out = append(out, name+"="+r.Path)
	}
	slices.Sort(out)
	return out, nil
}

// fileOnly takes what exists in the file alone.
func (s settings) fileOnly(key string, raw json.RawMessage) error {
	switch key {
	case "berth":
		values, err := berthValues(raw)
		if err != nil {
			return err
		}
		s[key] = values
	case "proxies":
		var v map[string]string
		if err := json.Unmarshal(raw, &v); err != nil {
			return errors.New("must be an object of texts")
		}
		for name, url := range v {
			if name != "http-proxy" && name != "https-proxy" && name != "no-proxy" {
				return fmt.Errorf("the following directives don't match any configuration option: %s", name)
			}
			s[name] = []string{url}
		}
	case "builder":
		var v struct {
			GC struct {
				Enabled            *bool
				DefaultKeepStorage string
				ReservedSpace      string `json:"defaultReservedSpace"`
				MaxUsedSpace       string `json:"defaultMaxUsedSpace"`
			} `json:"gc"`
		}
		if err := json.Unmarshal(raw, &v); err != nil {
			return err
		}
		keep := ""
		for _, text := range []string{v.GC.DefaultKeepStorage, v.GC.ReservedSpace, v.GC.MaxUsedSpace} {
			if text != "" {
				keep = text
			}
		}
		if keep == "" || v.GC.Enabled != nil && !*v.GC.Enabled {
			return nil
		}
		if _, err := units.RAMInBytes(keep); err != nil {
			return fmt.Errorf("gc: %w", err)
		}
		s["builder"] = []string{keep}
	default:
		s[key] = []string{string(raw)}
	}
	return nil
}

// berthOnly are the flags of berthd that dockerd has no option for; "berth" in the
// file is an object of them.
var berthOnly = []string{"build-cache-keep", "disk-budget", "disk-budget-fresh", "keep-blobs", "log-max-files", "log-max-size", "max-layer-files",
	"max-layer-size", "policy", "pool-size", "registries", "registry-config", "registry-listen", "runtime-binary"}

// berthValues reads that object as KEY=VALUE.
func berthValues(raw json.RawMessage) ([]string, error) {
	var v map[string]any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return nil, errors.New(`must be an object such as {"disk-budget": "20GB"}`)
	}
	var out []string
	for key, value := range v {
		if !slices.Contains(berthOnly, key) {
			return nil, fmt.Errorf("the following directives don't match any configuration option: %s; there are %s", key, strings.Join(berthOnly, ", "))
		}
		text, err := configScalar(value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		out = append(out, key+"="+text)
	}
	slices.Sort(out)
	return out, nil
}

// conflicts refuses options that are in both places.
func conflicts(flags, file settings) error {
	var both []string
	for name, inFile := range file {
		if inFlags, ok := flags[name]; ok {
			key := name
			for i := range dockerdFlags {
				if dockerdFlags[i].name == name {
					key = dockerdFlags[i].fileKey()
				}
			}
			both = append(both, fmt.Sprintf("%s: (from flag: %s, from file: %s)", key, shown(inFlags), shown(inFile)))
		}
	}
	if len(both) == 0 {
		return nil
	}
	slices.Sort(both)
	return fmt.Errorf("the following directives are specified both as a flag and in the configuration file: %s", strings.Join(both, ", "))
}

func shown(values []string) string {
	if len(values) == 1 {
		return values[0]
	}
	return fmt.Sprint(values)
}
