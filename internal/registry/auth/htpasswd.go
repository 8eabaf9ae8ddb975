package auth

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"berth/internal/fault"
)

const (
	rememberFor = 5 * time.Minute // how long a verified password is not computed anew
	remembered  = 4096            // at most
	recheck     = 2 * time.Second // how often the file is looked at, at most
	longestPass = 72              // what bcrypt takes, in bytes
)

// passwords are the users of an htpasswd file, which is read again when it
// changes. Only bcrypt is accepted: the file's other formats are broken.
//
// bcrypt is slow on purpose, and docker sends the password with every request;
// a verified pair is remembered for minutes, as a keyed hash.
type passwords struct {
	path  string
	slots chan struct{} // bounds how many bcrypt computations run at once
	key   [32]byte

	mu    sync.Mutex // guards the fields below
	users map[string][]byte
	stamp fileStamp
	look  time.Time
	known map[[32]byte]time.Time
}

// fileStamp tells a changed file from the one that was read.
type fileStamp struct {
	size int64
	time time.Time
}

func stampOf(path string) (fileStamp, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return fileStamp{}, err
	}
	return fileStamp{fi.Size(), fi.ModTime()}, nil
}

func openPasswords(path string) (*passwords, error) {
	p := &passwords{path: path, slots: make(chan struct{}, max(1, runtime.NumCPU())), known: map[[32]byte]time.Time{}}
	rand.Read(p.key[:])
	var err error
	if p.stamp, err = stampOf(path); err != nil {
		return nil, fault.New(fault.Invalid, "read passwords", "", "%w", err)
	}
	if p.users, err = readPasswords(path); err != nil {
		return nil, err
	}
	return p, nil
}

func readPasswords(path string) (map[string][]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read passwords", "", "%w", err)
	}
	users := map[string][]byte{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		user, hash, ok := strings.Cut(line, ":")
		if !ok || user == "" {
			return nil, fault.New(fault.Invalid, "read passwords", fmt.Sprintf("%s:%d", path, n), "not of the form USER:HASH")
		}
		if _, err := bcrypt.Cost([]byte(hash)); err != nil {
			return nil, fault.New(fault.Invalid, "read passwords", fmt.Sprintf("%s:%d", path, n), "the hash of %q is not bcrypt", user).
				WithHint("make it with `htpasswd -B`")
		}
		users[user] = []byte(hash)
	}
	if err := lines.Err(); err != nil {
		return nil, fault.New(fault.Invalid, "read passwords", path, "%w", err)
	}
	return users, nil
}

// check reports whether the password is the user's.
func (p *passwords) check(user, password string) bool {
	if len(password) > longestPass || user == "" {
		return false
	}
	p.mu.Lock()
	p.reload()
	users := p.users // replaced as a whole, never changed
	hash, ok := users[user]
	mac := hmac.New(sha256.New, p.key[:])
	fmt.Fprintf(mac, "%d:%s%d:%s%s", len(user), user, len(hash), hash, password)
	id := [32]byte(mac.Sum(nil))
	fresh := time.Since(p.known[id]) < rememberFor
	p.mu.Unlock()
	if ok && fresh {
		return true
	}
	if !ok {
		// Compared all the same, so that the answer takes as long.
		hash = someHash(users)
	}
	p.slots <- struct{}{}
	right := bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil
	<-p.slots
	if !right || !ok {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.known) >= remembered {
		clear(p.known)
	}
	p.known[id] = time.Now()
	return true
}

func someHash(users map[string][]byte) []byte {
	for _, hash := range users {
		return hash
	}
	return nil
}

// has reports whether there is such a user.
func (p *passwords) has(user string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reload()
	_, ok := p.users[user]
	return ok
}

// reload reads the file again if it changed. A file that cannot be read leaves
// the users as they were. The caller holds mu.
func (p *passwords) reload() {
	if time.Since(p.look) < recheck {
		return
	}
	p.look = time.Now()
	stamp, err := stampOf(p.path)
	if err != nil || stamp == p.stamp {
		return
	}
	if users, err := readPasswords(p.path); err == nil {
		p.users, p.stamp = users, stamp
	}
}
