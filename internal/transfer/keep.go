package transfer

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/layer"
)

const (
	leaseFor   = time.Hour       // how long layers of a failed pull are kept
	leaseEvery = 2 * time.Second // while a pull is under way; a kill loses no more than what came since
	syncEvery  = 250 * time.Millisecond
)

// keeper sees to it that what a pull has fetched is not deleted before its
// image is recorded, nor when the process is killed.
type keeper struct {
	c      *Client
	key    string
	layers *layer.Hold
	blobs  *content.Hold
	syncs  sync.WaitGroup

	mu       sync.Mutex // guards what follows
	idle     *sync.Cond // running has become false
	here     []digest.Digest
	packed   []digest.Digest
	left     int
	timer    *time.Timer // runs until the next lease; nil: none is needed
	running  bool        // a lease is being written
	leased   bool
	finished bool
}

// keep begins to keep what a pull of that manifest or index fetches.
func (c *Client) keep(top digest.Digest) *keeper {
	k := &keeper{c: c, key: "pull " + top.String(), layers: c.c.Layers.Hold(), blobs: c.c.Content.Hold()}
	k.idle = sync.NewCond(&k.mu)
	return k
}

// hold holds all layers, before anybody looks which are there.
func (k *keeper) hold(parts []part) {
	for _, one := range parts {
		k.layers.Add(one.diffIDs...)
		for _, d := range one.manifest.Layers {
			k.blobs.Add(d.Digest)
		}
	}
}

// run does all fetches at once; the first error ends the others.
func (k *keeper) run(ctx context.Context, fetches []func(context.Context) error) error {
	k.left = len(fetches)
	g, ctx := errgroup.WithContext(ctx)
	if len(fetches) > 0 {
		k.syncs.Go(func() { k.sync(ctx) })
	}
	for _, fetch := range fetches {
		g.Go(func() error { return fetch(ctx) })
	}
	return g.Wait()
}

// sync has the disk busy while layers are unpacked. An image is recorded when
// everything of it is on the disk; without this, all of it would be written at
// the end, while everybody waits. It ends with ctx.
func (k *keeper) sync(ctx context.Context) {
	for sleep(ctx, syncEvery) == nil {
		_ = k.c.c.Content.Sync() // the one that counts comes with the record
	}
}

// arrived notes a layer that is whole.
func (k *keeper) arrived(ctx context.Context, diffID, blob digest.Digest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.left--
	k.here = append(k.here, diffID)
	if k.c.c.KeepBlobs {
		k.packed = append(k.packed, blob)
	}
	if k.left > 0 && k.timer == nil && !k.finished {
		ctx := context.WithoutCancel(ctx)
		k.timer = time.AfterFunc(k.c.leaseEvery, func() { k.lease(ctx) })
	}
}

// lease writes down what is here, unless the pull has come to its end.
func (k *keeper) lease(ctx context.Context) {
	k.mu.Lock()
	k.timer = nil
	if k.finished || k.left == 0 {
		k.mu.Unlock()
		return
	}
	k.running, k.leased = true, true
	layers, blobs := slices.Clone(k.here), slices.Clone(k.packed)
	k.mu.Unlock()
	// That a pull is longer after a kill is no reason to let it fail now.
	err := k.c.c.Images.Lease(ctx, k.key, leaseFor, layers, blobs)
	if err == nil && k.c.onLease != nil {
		k.c.onLease()
	}
	k.mu.Lock()
	k.running = false
	k.idle.Broadcast()
	k.mu.Unlock()
}

// release ends the pull. What came of one that failed is kept for a while,
// unless it was the disk that had no room for it.
func (k *keeper) release(ctx context.Context, err error) {
	ctx = context.WithoutCancel(ctx)
	k.syncs.Wait()
	k.mu.Lock()
	k.finished = true
	if k.timer != nil {
		k.timer.Stop()
	}
	for k.running {
		k.idle.Wait()
	}
	layers, blobs, leased := k.here, k.packed, k.leased || err == nil // an earlier try may have left one
	k.mu.Unlock()
	switch {
	case err != nil && len(layers) > 0 && !fault.Is(err, fault.Exhausted):
		_ = k.c.c.Images.Lease(ctx, k.key, leaseFor, layers, blobs)
	case leased:
		_ = k.c.c.Images.DropLease(ctx, k.key)
	}
	k.c.c.Images.Release(k.layers)
	_, _ = k.c.c.Content.Collect(k.blobs.Release()...) // what stays is collected another time
}
