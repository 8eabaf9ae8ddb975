package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/registry/store"
)

const (
	tries      = 6                      // of a download that breaks
	firstPause = 200 * time.Millisecond // doubled with each
	stall      = time.Minute            // without a byte; then it is asked for anew
)

// flight is one download of a blob, which any number of clients read while it
// comes. It goes on when they leave: somebody will want it again.
type flight struct {
	cache *Cache
	repo  string
	d     digest.Digest

	mu     sync.Mutex // guards the fields below
	cond   *sync.Cond
	size   int64 // -1 until the upstream has said
	have   int64
	reader io.ReaderAt // what is there
	done   bool
	err    error
}

// fly returns the flight of a blob, starting it if there is none.
func (c *Cache) fly(repo string, d digest.Digest) *flight {
	key := repo + " " + d.String()
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.flights[key]; f != nil {
		return f
	}
	f := &flight{cache: c, repo: repo, d: d, size: -1}
	f.cond = sync.NewCond(&f.mu)
	c.flights[key] = f
	c.wg.Go(func() {
		err := f.run(c.ctx)
		if err != nil {
			c.counts.errors.Add(1)
			c.log.Warn("registry cache: a blob cannot be fetched", "repository", repo, "digest", d, "error", err)
		}
		// Off the list first: whoever comes now finds it in the storage.
		c.mu.Lock()
		delete(c.flights, key)
		c.mu.Unlock()
		f.mu.Lock()
		f.done, f.err = true, err
		f.cond.Broadcast()
		f.mu.Unlock()
		if err == nil {
			c.stored(repo, store.Blob{Digest: d, Size: f.have})
		}
	})
	return f
}

// uploadKey names the partial blob of a repository.
func uploadKey(repo string, d digest.Digest) string {
	sum := sha256.Sum256([]byte(repo + " " + d.String()))
	return "cache-" + hex.EncodeToString(sum[:])
}

func (f *flight) run(ctx context.Context) error {
	if err := f.mount(ctx); err == nil {
		return nil
	}
	u, err := f.cache.storage.Upload(ctx, uploadKey(f.repo, f.d))
	if err != nil {
		return err
	}
	defer func() { u.Close() }()
	pause := firstPause
	for try := 1; ; try++ {
		err := f.fetch(ctx, &u)
		if err == nil {
			break
		}
		// As long as nothing came clients wait for an answer, and hear soon.
		if try == tries || try > 1 && !f.started() || ctx.Err() != nil || fault.Is(err, fault.NotFound) || fault.Is(err, fault.Invalid) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause *= 2
	}
	if _, err := u.Commit(ctx, f.repo, f.d); err != nil {
		if errors.Is(err, content.ErrDigest) {
			_ = u.Discard()
			// Not the client's mistake, as it would be in a push.
			return fault.New(fault.Unavailable, "fetch blob", f.d.String(), "the upstream sent other bytes: %v", err)
		}
		return err
	}
	return nil
}

// mount spares the download of a blob that another repository has, after the
// upstream said that this one has it, too.
func (f *flight) mount(ctx context.Context) error {
	from := ""
	if err := f.cache.storage.Holders(ctx, f.d, func(repo string) bool { from = repo; return false }); err != nil || from == "" {
		return errors.New("nowhere")
	}
	resp, err := f.cache.up.do(ctx, http.MethodHead, f.repo, "/blobs/"+f.d.String(), nil)
	if err != nil {
		return err
	}
	drop(resp)
	b, err := f.cache.storage.Mount(ctx, f.repo, from, f.d)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.size, f.have = b.Size, b.Size
	return nil
}

// fetch asks for what is missing and appends it.
func (f *flight) fetch(ctx context.Context, u *store.Upload) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch := time.AfterFunc(stall, cancel)
	defer watch.Stop()
	start := (*u).Size()
	var h http.Header
	if start > 0 {
		h = http.Header{"Range": {"bytes=" + strconv.FormatInt(start, 10) + "-"}}
	}
	resp, err := f.cache.up.do(ctx, http.MethodGet, f.repo, "/blobs/"+f.d.String(), h)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if start > 0 && !continues(resp, start) {
		if f.started() {
			return fault.New(fault.Unavailable, "fetch blob", f.d.String(), "the upstream does not go on where it broke off")
		}
		// It does not resume. Nobody has read of the old bytes yet: begin again.
		if err := (*u).Discard(); err != nil {
			return err
		}
		if *u, err = f.cache.storage.Upload(ctx, uploadKey(f.repo, f.d)); err != nil {
			return err
		}
		start = 0
		if resp.StatusCode != http.StatusOK {
			return fault.New(fault.Unavailable, "fetch blob", f.d.String(), "the upstream answers %d with an odd range", resp.StatusCode)
		}
	}
	if resp.ContentLength < 0 {
		return fault.New(fault.Invalid, "fetch blob", f.d.String(), "the upstream does not say how long it is")
	}
	total := start + resp.ContentLength
	if limit := f.cache.cfg.Budget; limit > 0 && total > limit {
		return fault.New(fault.Invalid, "fetch blob", f.d.String(), "its %d bytes are more than the cache may hold", total)
	}
	f.progress(total, *u)
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	for {
		n, err := resp.Body.Read(*b)
		watch.Reset(stall)
		if n > 0 {
			if _, werr := (*u).Write((*b)[:n]); werr != nil {
				return werr
			}
			f.cache.counts.fetched.Add(int64(n))
			f.progress(total, *u)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fault.New(fault.Unavailable, "fetch blob", f.d.String(), "%w", err)
		}
	}
}

// continues reports whether an answer begins where we asked it to.
func continues(resp *http.Response, start int64) bool {
	return resp.StatusCode == http.StatusPartialContent && strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", start))
}

func (f *flight) started() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size >= 0
}

func (f *flight) progress(total int64, u store.Upload) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.size, f.have, f.reader = total, u.Size(), u.Reader()
	f.cond.Broadcast()
}

// wait returns when the size is known or the flight has ended.
func (f *flight) wait(ctx context.Context) (int64, error) {
	stop := context.AfterFunc(ctx, func() { f.mu.Lock(); f.cond.Broadcast(); f.mu.Unlock() })
	defer stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.size < 0 && !f.done && ctx.Err() == nil {
		f.cond.Wait()
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if f.done && f.err != nil {
		return 0, f.err
	}
	return f.size, nil
}

// follower reads a blob while it comes. The last byte is held back until the
// whole was verified: no client gets a complete wrong blob.
type follower struct {
	ctx  context.Context
	f    *flight
	size int64
	at   int64
	file io.ReadSeekCloser // the stored blob, once it is
	err  error
}

// Seek implements io.Seeker.
func (r *follower) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, errors.New("a negative position")
	}
	r.at = offset
	if r.file != nil {
		_, err := r.file.Seek(offset, io.SeekStart)
		return offset, err
	}
	return offset, nil
}

// Read implements io.Reader; it waits for bytes to come.
func (r *follower) Read(p []byte) (int, error) {
	if r.at >= r.size {
		return 0, io.EOF
	}
	if r.file != nil {
		n, err := r.file.Read(p)
		r.at += int64(n)
		return n, err
	}
	n, err := r.next(p)
	r.at += int64(n)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

func (r *follower) next(p []byte) (int, error) {
	f := r.f
	stop := context.AfterFunc(r.ctx, func() { f.mu.Lock(); f.cond.Broadcast(); f.mu.Unlock() })
	defer stop()
	for {
		f.mu.Lock()
		for !f.done && r.at >= min(f.have, r.size-1) && r.ctx.Err() == nil {
			f.cond.Wait()
		}
		done, err, ready, src := f.done, f.err, min(f.have, r.size-1)-r.at, f.reader
		f.mu.Unlock()
		switch {
		case r.ctx.Err() != nil:
			return 0, r.ctx.Err()
		case done && err != nil:
			return 0, err
		case done:
			file, _, err := f.cache.storage.OpenBlob(r.ctx, f.repo, f.d)
			if err != nil {
				return 0, err
			}
			if _, err := file.Seek(r.at, io.SeekStart); err != nil {
				file.Close()
				return 0, err
			}
			r.file = file
			return file.Read(p)
		}
		n, err := src.ReadAt(p[:min(int64(len(p)), ready)], r.at)
		if n > 0 {
			return n, nil
		}
		if err != nil && f.ended() {
			continue // it was closed under us: the stored blob has it
		}
		if err != nil {
			return 0, err
		}
	}
}

// ended waits for the end of a flight whose file was closed.
func (f *flight) ended() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	late := false
	deadline := time.AfterFunc(10*time.Second, func() { f.mu.Lock(); late = true; f.cond.Broadcast(); f.mu.Unlock() })
	defer deadline.Stop()
	for !f.done && !late {
		f.cond.Wait()
	}
	return f.done
}

// Err says why the blob ended early, nil if it did not.
func (r *follower) Err() error { return r.err }

// Close implements io.Closer.
func (r *follower) Close() error {
	if r.file != nil {
		return r.file.Close()
	}
	return nil
}
