// Package sending sends directories to an engine that cannot read them. It exists
// so that an engine on another machine gets only what changed since the last
// build: files that look as they did are not even read, because their digests are
// remembered together with what tells that they have not changed, and what the
// engine has already stays here.
package sending

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"

	"berth/internal/client"
	"berth/internal/fault"
	"berth/internal/wire"
	"berth/internal/wire/manifest"
)

// Directory is a directory that is sent.
type Directory struct {
	// ID is the engine's name for what it has of it.
	ID string

	dir     string
	cache   *cache
	list    []manifest.Entry
	missing [][2]int
}

// Begin tells the engine what is in dir. dockerfile is the Dockerfile's path in it,
// "" if it is elsewhere. What the engine lacks is to be sent with Reader after.
func Begin(ctx context.Context, c *client.Client, dir, dockerfile string) (*Directory, error) {
	key, kept, err := keyFor(c.Endpoint().String())
	if err != nil {
		return nil, err
	}
	d := &Directory{dir: dir, cache: openCache(slot(dir, dockerfile))}
	base := d.cache.list
	if d.list, err = d.cache.scan(ctx, dir, dockerfile); err != nil {
		return nil, err
	}
	sum := manifest.Sum(d.list)
	head := &wire.BuildContext{Key: key, Slot: d.cache.name, Name: filepath.Base(dir), Once: !kept, Sum: sum[:]}
	entries := d.list
	if base != nil {
		was := manifest.Sum(base)
		head.Base, entries = was[:], manifest.Changes(base, d.list)
	}
	answer, err := c.BuildContext(ctx, head, entries)
	if err == nil && answer.Whole {
		head.Base = nil
		answer, err = c.BuildContext(ctx, head, d.list)
	}
	if err != nil {
		return nil, err
	}
	d.ID, d.missing = answer.ID, answer.Missing
	last := 0
	for _, r := range d.missing {
		if r[0] < last || r[1] <= r[0] || r[1] > len(d.list) {
			return nil, fault.New(fault.Unavailable, "engine", "", "asks for files that are not in the build context")
		}
		last = r[1]
	}
	d.cache.save(d.list)
	return d, nil
}

// slot names a directory, as seen with one of its ignore files.
func slot(dir, dockerfile string) string {
	host, _ := os.Hostname()
	text := host + "\x00" + dir
	if dockerfile != "" {
		if _, err := os.Lstat(filepath.Join(dir, dockerfile+".dockerignore")); err == nil {
			text += "\x00" + dockerfile
		}
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:16])
}

// home is where things are kept between builds: the user's cache directory. ""
// means that there is none, and nothing is kept.
func home() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "berth", "contexts")
}

// keyFor returns the secret with which an engine is sent contents. It is another
// one for each engine, so that none can use it on another. kept tells that it will
// be the same the next time.
func keyFor(engine string) (key string, kept bool, err error) {
	secret, kept, err := secret()
	if err != nil {
		return "", false, err
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(engine))
	return hex.EncodeToString(mac.Sum(nil)), kept, nil
}

// secret returns this user's secret, made at its first use. Without a place to
// keep it, it is new each time: nothing is found again then.
func secret() (secret []byte, known bool, err error) {
	const length = 32
	fresh := make([]byte, length)
	_, _ = rand.Read(fresh) // never fails
	dir := home()
	if dir == "" {
		return fresh, false, nil
	}
	path := filepath.Join(dir, "secret")
	for range 2 {
		kept, err := os.ReadFile(path)
		if err == nil && len(kept) == length {
			return kept, true, nil
		}
		if err == nil {
			return nil, false, fault.New(fault.Invalid, "read", path, "it has %d bytes instead of %d", len(kept), length).
				WithHint("remove the file: a new one is made")
		}
		if !errors.Is(err, os.ErrNotExist) || os.MkdirAll(dir, 0o700) != nil {
			return fresh, false, nil
		}
		// A link gives the whole file its name, or fails when somebody was faster.
		f, err := os.CreateTemp(dir, "secret-")
		if err != nil {
			return fresh, false, nil
		}
		_, err = f.Write(fresh)
		if cerr := f.Close(); err == nil && cerr == nil {
			_ = os.Link(f.Name(), path)
		}
		_ = os.Remove(f.Name())
	}
	return fresh, false, nil
}

// Reader returns the contents that the engine lacks. It fails when a file keeps
// changing.
func (d *Directory) Reader() io.Reader {
	s := &sender{d: d}
	for _, r := range d.missing {
		for i := r[0]; i < r[1]; i++ {
			s.todo = append(s.todo, i)
		}
	}
	return s
}
