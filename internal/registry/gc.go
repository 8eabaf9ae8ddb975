package registry

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/internal/fault"
	"berth/internal/registry/store"
)

// mostTouched bounds a generation of what was touched; a busier registry
// collects nothing for a while, which is safe.
const mostTouched = 1 << 17

// touched remembers what clients were told to be here, for at least the grace
// period: they may push a manifest that relies on it. Things are remembered as
// hashes; two that share one keep each other, which is safe.
type touched struct {
	grace time.Duration
	seed  maphash.Seed
	since time.Time // before that, everything counts as touched: we do not know

	mu       sync.Mutex // guards the fields below
	now, old map[uint64]struct{}
	turned   time.Time
	full     time.Time // when a generation last overflowed
}

func (t *touched) init(grace time.Duration) {
	t.grace, t.seed, t.since = grace, maphash.MakeSeed(), time.Now()
	t.now, t.old, t.turned = map[uint64]struct{}{}, map[uint64]struct{}{}, t.since
}

func (t *touched) hash(repo string, d digest.Digest) uint64 {
	return maphash.String(t.seed, repo+" "+d.String())
}

func (t *touched) add(repo string, d digest.Digest) {
	h := t.hash(repo, d)
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); now.Sub(t.turned) > t.grace {
		t.old, t.now, t.turned = t.now, map[uint64]struct{}{}, now
	}
	if len(t.now) >= mostTouched {
		t.full = time.Now()
		return
	}
	t.now[h] = struct{}{}
}

// lately reports whether the thing was touched within the grace period.
func (t *touched) lately(repo string, d digest.Digest) bool {
	h := t.hash(repo, d)
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if now.Sub(t.since) < t.grace || now.Sub(t.full) < t.grace {
		return true
	}
	// What is in a generation came at most a grace period after it began.
	_, young := t.now[h]
	_, older := t.old[h]
	return young && now.Sub(t.turned) < 2*t.grace || older && now.Sub(t.turned) < t.grace
}

// GC collects garbage now, beside whatever else goes on: blobs that no manifest
// of their repository refers to, with Config.GC.Untagged manifests that no tag
// leads to, and old unfinished uploads. One collection runs at a time.
func (r *Registry) GC(ctx context.Context, dryRun bool) (store.Swept, error) {
	r.gcMu.Lock()
	defer r.gcMu.Unlock()
	start := time.Now()
	swept, err := r.storage.Sweep(ctx, store.SweepOptions{
		Grace: r.cfg.GC.Grace, Untagged: r.cfg.GC.Untagged, Uploads: r.cfg.UploadAge, DryRun: dryRun,
		Touched: r.touched.lately,
	})
	m := r.metrics
	m.gcRuns.Add(1)
	if err != nil {
		m.gcFailed.Add(1)
	}
	if !dryRun {
		m.gcManifests.Add(int64(swept.Manifests))
		m.gcBlobs.Add(int64(swept.Blobs))
		m.gcFreed.Add(swept.Freed)
	}
	m.gcLast.Store(time.Now().Unix())
	r.log.Info("registry: collected garbage", "manifests", swept.Manifests, "blobs", swept.Blobs, "freed", swept.Freed,
		"dry", dryRun, "took", time.Since(start).Round(time.Millisecond))
	return swept, fault.Wrap("collect garbage", "", err)
}

// periodic closes what idles and collects when it is time.
func (r *Registry) periodic() {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-r.ctx.Done():
			return
		case now := <-tick.C:
			r.uploads.expire(now)
			if r.cfg.GC.Interval > 0 && now.Sub(last) >= r.cfg.GC.Interval {
				if _, err := r.GC(r.ctx, false); err != nil && r.ctx.Err() == nil {
					r.log.Error("registry: garbage collection failed", "error", err)
				}
				last = time.Now()
			}
		}
	}
}
