// Package cache makes a registry a pull-through cache: what its storage does not
// have is fetched from another registry, once however many clients ask, and
// goes to them while it comes. It exists so that a room full of machines pulls
// an image over a thin line once.
package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/singleflight"

	"berth/internal/fault"
	"berth/internal/registry/store"
)

// Config says what is cached.
type Config struct {
	Upstream           string // URL of a registry; docker.io is understood
	Username, Password string // for the upstream; may be empty
	// TokenHosts are token servers, beside the upstream's own host, that get the
	// password when the upstream names them.
	TokenHosts []string
	// TTL is how long a tag is believed before the upstream is asked again; a
	// minute when 0.
	TTL time.Duration
	// Budget bounds the bytes of blobs; the least recently used go first. 0 is no
	// bound.
	Budget int64
	// Transport is used in place of our own; for tests.
	Transport http.RoundTripper
	// Parse reads a manifest; the registry sets it.
	Parse func(raw []byte, contentType string) (store.Manifest, error)
}

const (
	limitManifest = 4 << 20
	flushEvery    = 5 * time.Minute
	noteUsed      = "cache-used"
	mostTags      = 100000
)

var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// accept lists the documents that we ask the upstream for.
var accept = []string{
	ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest,
	"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json",
}

// Cache fetches what a storage lacks. It is safe for concurrent use.
type Cache struct {
	cfg     Config
	storage store.Storage
	log     *slog.Logger
	up      *upstream
	ctx     context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup
	group   singleflight.Group

	counts struct{ hits, misses, fetched, evicted, errors atomic.Int64 }

	mu      sync.Mutex // guards the fields below
	flights map[string]*flight
	checked map[string]time.Time // "repository tag": when the upstream was asked
	entries map[string]*entry    // "repository digest"
	size    int64
	dirty   bool
}

// entry is a cached blob.
type entry struct {
	size int64
	used time.Time
}

// New opens a cache over a storage.
func New(cfg Config, storage store.Storage, log *slog.Logger) (*Cache, error) {
	if cfg.TTL <= 0 {
		cfg.TTL = time.Minute
	}
	up, err := newUpstream(cfg)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	c := &Cache{cfg: cfg, storage: storage, log: log, up: up, ctx: ctx, stop: stop,
		flights: map[string]*flight{}, checked: map[string]time.Time{}, entries: map[string]*entry{}}
	if err := c.load(); err != nil {
		stop()
		return nil, err
	}
	c.wg.Go(c.flusher)
	return c, nil
}

// Close ends downloads (they go on at the next start) and writes down what was
// used when.
func (c *Cache) Close() {
	c.stop()
	c.wg.Wait()
	c.flush()
}

// load takes stock of what is cached.
func (c *Cache) load() error {
	var repos []string
	if err := c.storage.Repositories(c.ctx, "", func(name string) bool { repos = append(repos, name); return true }); err != nil {
		return err
	}
	for _, repo := range repos {
		err := c.storage.Blobs(c.ctx, repo, "", func(b store.Blob) bool {
			c.entries[repo+" "+b.Digest.String()] = &entry{b.Size, b.Linked}
			c.size += b.Size
			return true
		})
		if err != nil {
			return err
		}
	}
	raw, err := c.storage.Note(c.ctx, noteUsed)
	if err != nil {
		return err
	}
	used := map[string]int64{}
	_ = json.Unmarshal(raw, &used) // an unreadable one costs the order only
	for key, at := range used {
		if e := c.entries[key]; e != nil {
			e.used = time.Unix(at, 0)
		}
	}
	return nil
}

func (c *Cache) flusher() {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
			c.flush()
		}
	}
}

func (c *Cache) flush() {
	c.mu.Lock()
	if !c.dirty {
		c.mu.Unlock()
		return
	}
	c.dirty = false
	used := make(map[string]int64, len(c.entries))
	for k, e := range c.entries {
		used[k] = e.used.Unix()
	}
	c.mu.Unlock()
	raw, err := json.Marshal(used)
	if err == nil {
		err = c.storage.SetNotes(context.Background(), map[string][]byte{noteUsed: raw})
	}
	if err != nil {
		c.log.Warn("registry cache: what was used when cannot be written down", "error", err)
	}
}

// Used says that a stored blob was asked for.
func (c *Cache) Used(repo string, d digest.Digest) {
	c.counts.hits.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[repo+" "+d.String()]; e != nil {
		e.used, c.dirty = time.Now(), true
	}
}

// stored counts a new blob and makes room.
func (c *Cache) stored(repo string, b store.Blob) {
	key := repo + " " + b.Digest.String()
	c.mu.Lock()
	if old := c.entries[key]; old != nil {
		c.size -= old.size
	}
	c.entries[key] = &entry{b.Size, time.Now()}
	c.size += b.Size
	c.dirty = true
	victims := c.victims(key)
	c.mu.Unlock()
	for _, v := range victims {
		repo, d, _ := strings.Cut(v, " ")
		if err := c.storage.DeleteBlob(c.ctx, repo, digest.Digest(d)); err != nil && !fault.Is(err, fault.NotFound) {
			c.log.Warn("registry cache: a blob cannot be evicted", "repository", repo, "digest", d, "error", err)
		}
	}
}

// victims takes the least recently used blobs off the books until the rest fits
// into nine tenths of the budget. The caller holds mu.
func (c *Cache) victims(keep string) []string {
	if c.cfg.Budget <= 0 || c.size <= c.cfg.Budget {
		return nil
	}
	keys := make([]string, 0, len(c.entries))
	for k := range c.entries {
		if k != keep {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b string) int { return c.entries[a].used.Compare(c.entries[b].used) })
	n := 0
	for ; n < len(keys) && c.size > c.cfg.Budget/10*9; n++ {
		c.size -= c.entries[keys[n]].size
		c.counts.evicted.Add(c.entries[keys[n]].size)
		delete(c.entries, keys[n])
	}
	return keys[:n]
}

// Stat finds a blob at the upstream.
func (c *Cache) Stat(ctx context.Context, repo string, d digest.Digest) (store.Blob, error) {
	resp, err := c.up.do(ctx, http.MethodHead, repo, "/blobs/"+d.String(), nil)
	if err != nil {
		return store.Blob{}, err
	}
	drop(resp)
	if resp.ContentLength < 0 {
		return store.Blob{}, fault.New(fault.Unavailable, "find blob", d.String(), "the upstream does not say how long it is")
	}
	return store.Blob{Digest: d, Size: resp.ContentLength}, nil
}

// Open fetches a blob that the storage does not have. It can be read while it
// comes; its Err method says whether that went wrong.
func (c *Cache) Open(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, store.Blob, error) {
	c.counts.misses.Add(1)
	f := c.fly(repo, d)
	size, err := f.wait(ctx)
	if err != nil {
		return nil, store.Blob{}, err
	}
	return &follower{ctx: ctx, f: f, size: size}, store.Blob{Digest: d, Size: size}, nil
}

// Manifest makes sure that a manifest is in the storage and as fresh as wanted,
// and returns its digest. d is "" when ref is a tag.
func (c *Cache) Manifest(ctx context.Context, repo, ref string, d digest.Digest) (digest.Digest, error) {
	if d != "" {
		if _, err := c.storage.Manifest(ctx, repo, d); err == nil || !fault.Is(err, fault.NotFound) {
			c.counts.hits.Add(1)
			return d, err
		}
		return c.once(ctx, repo+"@"+ref, func(ctx context.Context) (digest.Digest, error) { return c.fetch(ctx, repo, ref, d) })
	}
	t, err := c.storage.Tag(ctx, repo, ref)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return "", err
	}
	key := repo + " " + ref
	c.mu.Lock()
	asked := c.checked[key]
	c.mu.Unlock()
	if err == nil && time.Since(asked) < c.cfg.TTL {
		c.counts.hits.Add(1)
		return t.Digest, nil
	}
	known := t.Digest
	return c.once(ctx, repo+":"+ref, func(ctx context.Context) (digest.Digest, error) {
		got, err := c.revalidate(ctx, repo, ref, known)
		if err != nil && known != "" && !fault.Is(err, fault.NotFound) {
			c.counts.errors.Add(1)
			c.log.Warn("registry cache: the upstream cannot be asked; an old answer is given", "repository", repo, "tag", ref, "error", err)
			return known, nil
		}
		if err == nil {
			c.mu.Lock()
			if len(c.checked) > mostTags {
				clear(c.checked)
			}
			c.checked[key] = time.Now()
			c.mu.Unlock()
		}
		return got, err
	})
}

// once lets one of those who ask for the same do it. It goes on when they leave.
func (c *Cache) once(ctx context.Context, key string, fn func(context.Context) (digest.Digest, error)) (digest.Digest, error) {
	ch := c.group.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(c.ctx, answerTime*2)
		defer cancel()
		return fn(ctx)
	})
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case r := <-ch:
		d, _ := r.Val.(digest.Digest)
		return d, r.Err
	}
}

// revalidate asks the upstream what a tag stands for.
func (c *Cache) revalidate(ctx context.Context, repo, tag string, known digest.Digest) (digest.Digest, error) {
	if known != "" {
		resp, err := c.up.do(ctx, http.MethodHead, repo, "/manifests/"+tag, http.Header{"Accept": accept})
		if fault.Is(err, fault.NotFound) {
			_ = c.storage.DeleteTag(ctx, repo, tag)
			return "", err
		}
		if err != nil {
			return "", err
		}
		drop(resp)
		if resp.Header.Get("Docker-Content-Digest") == known.String() {
			c.counts.hits.Add(1)
			return known, nil
		}
	}
	return c.fetch(ctx, repo, tag, "")
}

// fetch brings a manifest into the storage; a tag will name it.
func (c *Cache) fetch(ctx context.Context, repo, ref string, d digest.Digest) (digest.Digest, error) {
	c.counts.misses.Add(1)
	resp, err := c.up.do(ctx, http.MethodGet, repo, "/manifests/"+ref, http.Header{"Accept": accept})
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, limitManifest+1))
	if err != nil {
		return "", fault.New(fault.Unavailable, "fetch manifest", repo, "%w", err)
	}
	c.counts.fetched.Add(int64(len(raw)))
	if len(raw) > limitManifest {
		return "", fault.New(fault.Unavailable, "fetch manifest", repo, "larger than %d bytes", limitManifest)
	}
	got := digest.SHA256.FromBytes(raw)
	var tags []string
	if d == "" {
		tags = []string{ref}
	} else if got = d.Algorithm().FromBytes(raw); got != d {
		return "", fault.New(fault.Unavailable, "fetch manifest", d.String(), "the upstream sent one with digest %s", got)
	}
	m, err := c.cfg.Parse(raw, resp.Header.Get("Content-Type"))
	if err != nil {
		return "", fault.New(fault.Unavailable, "fetch manifest", repo, "%w", errors.New(err.Error()))
	}
	m.Digest = got
	return got, c.storage.PutManifest(ctx, repo, m, raw, tags, true)
}

// Tags asks the upstream for a repository's tags and returns them, nil and false
// if it cannot be asked.
func (c *Cache) Tags(ctx context.Context, repo string) ([]string, bool) {
	var names []string
	last := ""
	for len(names) < mostTags {
		q := url.Values{"n": {"1000"}}
		if last != "" {
			q.Set("last", last)
		}
		resp, err := c.up.do(ctx, http.MethodGet, repo, "/tags/list?"+q.Encode(), nil)
		if err != nil {
			return nil, false
		}
		var page struct{ Tags []string }
		err = json.NewDecoder(io.LimitReader(resp.Body, 32<<20)).Decode(&page)
		resp.Body.Close()
		if err != nil {
			return nil, false
		}
		names = append(names, page.Tags...)
		if resp.Header.Get("Link") == "" || len(page.Tags) == 0 || page.Tags[len(page.Tags)-1] == last {
			break
		}
		last = page.Tags[len(page.Tags)-1]
	}
	slices.Sort(names)
	return slices.Compact(names), true
}

// Referrers asks the upstream what refers to a manifest; false if it cannot be
// asked or does not know the question.
func (c *Cache) Referrers(ctx context.Context, repo string, subject digest.Digest, artifactType string) ([]ocispec.Descriptor, bool) {
	path := "/referrers/" + subject.String()
	if artifactType != "" {
		path += "?" + url.Values{"artifactType": {artifactType}}.Encode()
	}
	resp, err := c.up.do(ctx, http.MethodGet, repo, path, nil)
	if err != nil {
		return nil, false
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, limitManifest))
	if err != nil {
		return nil, false
	}
	var index ocispec.Index
	if json.NewDecoder(bytes.NewReader(raw)).Decode(&index) != nil {
		return nil, false
	}
	list := slices.DeleteFunc(index.Manifests, func(d ocispec.Descriptor) bool { return artifactType != "" && d.ArtifactType != artifactType })
	if list == nil {
		list = []ocispec.Descriptor{}
	}
	return list, true
}

// Counts are what a cache counted since it was opened.
type Counts struct{ Hits, Misses, Fetched, Evicted, Errors, Size int64 }

// Counts returns them.
func (c *Cache) Counts() Counts {
	c.mu.Lock()
	size := c.size
	c.mu.Unlock()
	n := &c.counts
	return Counts{n.hits.Load(), n.misses.Load(), n.fetched.Load(), n.evicted.Load(), n.errors.Load(), size}
}
