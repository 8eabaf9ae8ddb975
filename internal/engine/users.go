package engine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"berth/internal/container"
	"berth/internal/container/identity"

	"golang.org/x/sys/unix"
)

// userCache remembers who a user specification is in an image: reading its
// files for each of a thousand containers would be most of their start.
type userCache struct {
	mu sync.Mutex // guards by; nothing else is locked under it
	by map[string]identity.Identity
}

// maxCachedUsers bounds the cache; it starts anew when it is full.
const maxCachedUsers = 1024

func (u *userCache) get(key string) (identity.Identity, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	id, ok := u.by[key]
	return id, ok
}

func (u *userCache) put(key string, id identity.Identity) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.by == nil || len(u.by) >= maxCachedUsers {
		u.by = make(map[string]identity.Identity)
	}
	u.by[key] = id
}

// identity finds out who a container's process is. The image's answer is cached;
// a container which has changed its /etc is asked itself.
func (e *Engine) identity(rec *container.Record, user string, groups []string) (identity.Identity, error) {
	upper := filepath.Join(e.dir(rec.ID), "upper")
	untouched := !changedUsers(upper)
	key := string(rec.ImageID) + "\x00" + user + "\x00" + strings.Join(groups, "\x00")
	if untouched {
		if id, ok := e.users.get(key); ok {
			return id, nil
		}
	}
	lower, err := e.layers.Lower(rec.Layers)
	if err != nil {
		return identity.Identity{}, err
	}
	if !untouched {
		lower = append([]string{upper}, lower...)
	}
	id, err := identity.InLayers(lower, user, groups)
	if err == nil && untouched {
		e.users.put(key, id)
	}
	return id, err
}

// changedUsers reports whether a writable layer may hide the image's user files:
// with files of its own, with marks of removed ones, or with an /etc that is not
// merged with the image's.
func changedUsers(upper string) bool {
	etc := filepath.Join(upper, "etc")
	info, err := os.Lstat(etc)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err != nil || !info.IsDir() {
		return true
	}
	for _, name := range []string{"passwd", "group"} {
		if _, err := os.Lstat(filepath.Join(etc, name)); !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	var value [16]byte
	for _, attr := range []string{"trusted.overlay.opaque", "trusted.overlay.redirect"} {
		if _, err := unix.Lgetxattr(etc, attr, value[:]); !errors.Is(err, unix.ENODATA) {
			return true
		}
	}
	return false
}
