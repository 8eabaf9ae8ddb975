package registry

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"berth/internal/registry/store"
)

const (
	mostSessions = 1 << 16         // unfinished uploads of this process's life
	mostOpen     = 256             // of them with an open file between requests
	idleOpen     = 5 * time.Minute // how long one keeps it without a request
	busyWait     = 10 * time.Second
)

// sessions are the unfinished uploads. An upload's id proves itself: it is
// random and carries a keyed hash of the random part, the repository and the
// user, so that it is of use to nobody else, costs no record, and is good after
// a restart as well.
type sessions struct {
	storage store.Storage
	secret  []byte
	boot    [4]byte // which ids are of this process's life
	age     time.Duration

	opened atomic.Int64 // sessions with an open file

	mu    sync.Mutex // guards the fields below
	live  map[string]*session
	ended map[string]time.Time // ids of an earlier life that are of no use any more
}

// session is one upload. What is not said to be otherwise belongs to whoever
// holds lock.
type session struct {
	id, key, repo string
	lock          chan struct{} // of capacity one: full while a request works on it
	upload        store.Upload  // nil while its file is closed
	size          atomic.Int64  // bytes acknowledged; -1: not known yet
	last          atomic.Int64  // unix nanoseconds of the last request
	gone          bool
}

func newSessions(storage store.Storage, secret []byte, age time.Duration) *sessions {
	s := &sessions{storage: storage, secret: secret, age: age, live: map[string]*session{}, ended: map[string]time.Time{}}
	rand.Read(s.boot[:])
	return s
}

const (
	nonceLen = 16 // the first four bytes are the boot's
	macLen   = 16
)

func (s *sessions) mac(nonce []byte, repo, user string) []byte {
	m := hmac.New(sha256.New, s.secret)
	m.Write(nonce)
	m.Write([]byte(repo)) // has no zero byte
	m.Write([]byte{0})
	m.Write([]byte(user))
	return m.Sum(nil)[:macLen]
}

// begin makes an upload. Nothing is stored before its first byte.
func (s *sessions) begin(repo, user string) (*session, error) {
	nonce := make([]byte, nonceLen)
	rand.Read(nonce)
	copy(nonce, s.boot[:])
	id := hex.EncodeToString(append(nonce, s.mac(nonce, repo, user)...))
	return s.add(id, nonce, repo)
}

// add registers a session that is not there yet.
func (s *sessions) add(id string, nonce []byte, repo string) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.live[id]; old != nil {
		return old, nil
	}
	if len(s.live) >= mostSessions {
		return nil, fail(http.StatusTooManyRequests, codeTooMany, "too many unfinished uploads")
	}
	n := &session{id: id, key: "upload-" + hex.EncodeToString(nonce), repo: repo, lock: make(chan struct{}, 1)}
	n.last.Store(time.Now().UnixNano())
	if string(nonce[:4]) != string(s.boot[:]) {
		n.size.Store(-1)
	}
	s.live[id] = n
	return n, nil
}

var errUpload = fail(http.StatusNotFound, codeUploadUnknown, "no such upload")

// find returns the session of an id that this user was given for this
// repository.
func (s *sessions) find(id, repo, user string) (*session, error) {
	raw, err := hex.DecodeString(id)
	if err != nil || len(raw) != nonceLen+macLen || hex.EncodeToString(raw) != id {
		return nil, errUpload
	}
	nonce := raw[:nonceLen]
	if !hmac.Equal(raw[nonceLen:], s.mac(nonce, repo, user)) {
		return nil, errUpload
	}
	s.mu.Lock()
	known := s.live[id]
	_, ended := s.ended[id]
	s.mu.Unlock()
	if known != nil {
		known.last.Store(time.Now().UnixNano())
		return known, nil
	}
	if ended || string(nonce[:4]) == string(s.boot[:]) {
		return nil, errUpload // finished, cancelled or too old
	}
	return s.add(id, nonce, repo)
}

// acquire gives the caller the session alone and opens its file. A client that
// lost its connection may come back before we noticed, so it waits a while.
func (s *sessions) acquire(ctx context.Context, n *session) error {
	timer := time.NewTimer(busyWait)
	defer timer.Stop()
	select {
	case n.lock <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fail(http.StatusConflict, codeUploadInvalid, "another request is writing to this upload")
	}
	err := s.open(ctx, n)
	if err != nil {
		<-n.lock
	}
	return err
}

func (s *sessions) open(ctx context.Context, n *session) error {
	if n.gone {
		return errUpload
	}
	if n.upload == nil {
		u, err := s.storage.Upload(ctx, n.key)
		if err != nil {
			return err
		}
		n.upload = u
		s.opened.Add(1)
	}
	n.size.Store(n.upload.Size())
	return nil
}

// shut closes the session's file and keeps what is in it; the caller holds it.
func (s *sessions) shut(n *session) {
	if n.upload != nil {
		_ = n.upload.Close()
		n.upload = nil
		s.opened.Add(-1)
	}
}

// release keeps the session for its next request. An open file spares it reading
// what is there for the digest, but there are only so many.
func (s *sessions) release(n *session) {
	if s.opened.Load() > mostOpen {
		s.shut(n)
	}
	n.last.Store(time.Now().UnixNano())
	<-n.lock
}

// finish forgets the session; the caller holds it and has closed its file.
func (s *sessions) finish(n *session) {
	if n.upload != nil {
		n.upload = nil
		s.opened.Add(-1)
	}
	n.gone = true
	s.mu.Lock()
	delete(s.live, n.id)
	if n.id[:8] != hex.EncodeToString(s.boot[:]) {
		s.ended[n.id] = time.Now()
	}
	s.mu.Unlock()
	<-n.lock
}

// expire closes the files of idle sessions and drops the old ones.
func (s *sessions) expire(now time.Time) {
	s.mu.Lock()
	all := make([]*session, 0, len(s.live))
	for _, n := range s.live {
		all = append(all, n)
	}
	maps.DeleteFunc(s.ended, func(_ string, t time.Time) bool { return now.Sub(t) > s.age })
	s.mu.Unlock()
	for _, n := range all {
		idle := now.Sub(time.Unix(0, n.last.Load()))
		select {
		case n.lock <- struct{}{}:
		default:
			continue
		}
		if idle > s.age {
			// Opened to be dropped, where there is something.
			if n.upload != nil || n.size.Load() != 0 && s.open(context.Background(), n) == nil {
				_ = n.upload.Discard()
			}
			s.finish(n)
			continue
		}
		if idle > idleOpen {
			s.shut(n)
		}
		<-n.lock
	}
}

// close keeps all uploads for the next start.
func (s *sessions) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.live {
		n.lock <- struct{}{}
		s.shut(n)
		n.gone = true
		<-n.lock
	}
	s.live = map[string]*session{}
}

// count returns how many uploads are unfinished.
func (s *sessions) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.live)
}
