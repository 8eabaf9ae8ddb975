package credentials

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// Kept says where credentials went.
type Kept struct {
	File   string // the configuration file
	Helper string // the program that keeps the secret; "" means the file does, readable by whoever reads it
}

// Save keeps credentials for the registry of a.ServerAddress, a key of Key.
func (c *Config) Save(ctx context.Context, a Auth) (Kept, error) {
	key := a.ServerAddress
	kept := Kept{File: c.path, Helper: c.helper(key)}
	if kept.Helper != "" {
		if err := helperStore(ctx, kept.Helper, key, a); err != nil {
			return kept, err
		}
	}
	return kept, c.update(func() {
		entry := map[string]json.RawMessage{}
		if kept.Helper == "" {
			_ = json.Unmarshal(c.auth[key], &entry) // what is malformed is replaced
			if entry == nil {
				entry = map[string]json.RawMessage{}
			}
			set := func(name, value string) {
				delete(entry, name)
				if value != "" {
					entry[name], _ = json.Marshal(value)
				}
			}
			set("auth", "")
			if a.Username != "" {
				set("auth", base64.StdEncoding.EncodeToString([]byte(a.Username+":"+a.Password)))
			}
			set("identitytoken", a.IdentityToken)
			set("registrytoken", a.RegistryToken)
			set("username", "")
			set("password", "")
		}
		c.auth[key], _ = json.Marshal(entry)
	})
}

// Erase forgets a registry. known is false when nothing was known of it.
func (c *Config) Erase(ctx context.Context, key string) (known bool, err error) {
	if h := c.helper(key); h != "" {
		if known, err = helperErase(ctx, h, key); err != nil {
			return known, err
		}
	}
	names := c.namesOf(key)
	if len(names) == 0 {
		return known, nil
	}
	return true, c.update(func() {
		for _, name := range c.namesOf(key) {
			delete(c.auth, name)
		}
	})
}

// namesOf returns the names of all entries for a key's registry.
func (c *Config) namesOf(key string) []string {
	var names []string
	for name := range c.auth {
		if name == key || hostOf(name) == hostOf(key) {
			names = append(names, name)
		}
	}
	return names
}

// update changes c.auth and writes the file. It is read anew under a lock, so
// that two who log in at once both stay logged in; what the file says beside is
// kept as it is.
func (c *Config) update(change func()) error {
	if c.path == "" {
		return fault.New(fault.Invalid, "keep credentials", "", "there is no home directory").WithHint("name a directory with DOCKER_CONFIG")
	}
	path := c.path
	if real, err := filepath.EvalSymlinks(path); err == nil { // the file may live among somebody's dotfiles
		path = real
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return c.writeFailed(err)
	}
	lock, err := os.Open(dir)
	if err != nil {
		return c.writeFailed(err)
	}
	defer lock.Close()
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		return c.writeFailed(err)
	}
	if err := c.read(); err != nil {
		return err
	}
	change()
	if c.top["auths"], err = json.Marshal(c.auth); err != nil {
		return c.writeFailed(err)
	}
	text, err := layOut(c.top)
	if err != nil {
		return c.writeFailed(err)
	}
	return c.writeFailed(replace(path, text))
}

// layOut writes the file as docker does: indented by tabs.
func layOut(top map[string]json.RawMessage) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "\t")
	if err := enc.Encode(top); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (c *Config) writeFailed(err error) error {
	if err == nil {
		return nil
	}
	return fault.New(fault.Internal, "write", c.path, "%w", err)
}

// replace writes a whole file that its owner alone can read, or nothing.
func replace(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".config.json-*") // is made with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if info, err := os.Stat(path); err == nil { // root with somebody's home must not take the file away from them
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			_ = f.Chown(int(stat.Uid), int(stat.Gid))
		}
	}
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// Registries returns the keys of the file's entries in order.
func (c *Config) Registries() []string { return slices.Sorted(maps.Keys(c.auth)) }
