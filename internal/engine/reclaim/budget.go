package reclaim

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"berth/internal/build/solve"
	"berth/internal/engine/images"
	"berth/internal/engine/intake"
	"berth/internal/metadata"
	"berth/internal/volume"

	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

const (
	defaultFresh = 10 * time.Minute      // what was used within this time stays
	idle         = time.Minute           // between looks at a directory in which nothing goes on
	busy         = 50 * time.Millisecond // while something is being written
	rest         = 4                     // times that a walk took until the next one, unless somebody waits
	stalePartial = time.Minute           // age of a broken-off download that may go
	cheap        = 20 * time.Millisecond // for a walk
	near         = 8                     // margins
)

// Cache is the cache of builds; *build.Builder has it.
type Cache interface {
	Usage(ctx context.Context) ([]solve.Item, error)
	Prune(ctx context.Context, o solve.PruneOptions) (solve.Pruned, error)
}

// Directory is a data directory with a budget.
type Directory struct {
	Root   string
	Fresh  time.Duration // for so long what was used stays in any case; 0 means ten minutes
	Engine string        // id of the engine, for events
	Intake *intake.Ledger
	Images *Images
	Cache  Cache
	DB     *metadata.DB
	Log    *slog.Logger
}

// budget keeps a data directory below a size, by removing what nobody uses before it
// is reached: images and build cache, the least recently used first.
type budget struct {
	Directory
	stock *images.Stock
	uses  uses

	// What the directory was found to take, and what its file system had in use then:
	// from the difference follows when to look again.
	used, disk int64
	at         time.Time
	took       time.Duration
	over       bool // it was said that nothing more can go
}

// KeepBudget starts to keep a directory's budget, if there is one, until ctx ends. What
// goes on beside the caller is counted in work.
func KeepBudget(ctx context.Context, d Directory, work *sync.WaitGroup) {
	if d.Intake.Limit() == 0 {
		return
	}
	b := &budget{Directory: d, stock: d.Images.stock}
	b.uses = uses{stock: b.stock, db: d.DB, log: d.Log, last: map[digest.Digest]time.Time{}}
	b.uses.read()
	happenings := b.stock.Bus.Subscribe(ctx, time.Time{}, time.Time{}, concernsUse)
	work.Go(func() {
		for m := range happenings {
			b.uses.note(ctx, &m)
			b.Intake.Wake()
		}
	})
	work.Go(func() { b.keep(ctx) })
}

// keep looks after the data directory until ctx ends.
func (b *budget) keep(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	saved := time.Now()
	for {
		select {
		case <-timer.C:
		case <-b.Intake.Woken():
		case <-ctx.Done():
			b.uses.save(context.WithoutCancel(ctx))
			return
		}
		waits := b.Intake.Waiting()
		b.check(ctx, len(waits) > 0)
		for _, done := range waits {
			close(done)
		}
		if time.Since(saved) > idle {
			b.uses.save(context.WithoutCancel(ctx))
			saved = time.Now()
		}
		pause := idle
		if list, _ := b.Intake.UnderWay(); len(list) > 0 {
			pause = busy
		}
		timer.Reset(pause)
	}
}

// estimate is about what the data directory takes. Others who free room on the same
// file system make it too small, and others who fill it too large; -1 says that it
// is not known.
func (b *budget) estimate() int64 {
	now, err := usedOnDisk(b.Root)
	if err != nil || b.at.IsZero() {
		return -1
	}
	return b.used + max(now-b.disk, b.Intake.Taken())
}

func usedOnDisk(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, err
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize, nil
}

// measure walks the data directory.
func (b *budget) measure(ctx context.Context) error {
	began := time.Now()
	taken := b.Intake.Taken()
	disk, err := usedOnDisk(b.Root)
	if err != nil {
		return err
	}
	b.stock.Layers.Flush() // what was removed takes nothing
	used, err := volume.DiskUsage(ctx, b.Root)
	if err != nil {
		return err
	}
	b.Intake.Measured(taken)
	b.used, b.disk, b.at, b.took = used, disk, time.Now(), time.Since(began)
	return nil
}

// check makes room if the budget is about to be passed, and breaks off what cannot
// fit. Somebody may be waiting for it.
func (b *budget) check(ctx context.Context, waiting bool) {
	limit, margin := b.Intake.Limit(), b.Intake.Margin()
	list, ahead := b.Intake.UnderWay()
	line := limit - margin
	stale := time.Since(b.at) > idle
	guess := b.estimate()
	// Whoever waits gets a real look where that costs next to nothing, or matters.
	look := waiting && (b.took < cheap || guess+ahead > line-near*margin)
	if !stale && !look && guess >= 0 && guess+ahead <= line {
		return
	}
	if !waiting && !b.at.IsZero() && time.Since(b.at) < rest*b.took && (b.over || len(list) > 0) {
		return
	}
	if err := b.measure(ctx); err != nil {
		if ctx.Err() == nil {
			b.Log.Error("the disk budget cannot be kept: the data directory cannot be measured", "error", err)
		}
		return
	}
	freed := int64(0)
	for range 4 { // others write meanwhile
		excess := b.used + ahead - line
		if excess <= 0 {
			b.over = false
			return
		}
		n := b.makeRoom(ctx, excess)
		freed += n
		if err := b.measure(ctx); err != nil || n == 0 {
			break
		}
	}
	switch {
	case b.used+ahead <= line || b.used+ahead < limit && len(list) == 0:
		b.over = false
	case len(list) > 0:
		last := list[len(list)-1]
		last.Break(b.used)
		b.Log.Warn("broken off: it does not fit into the disk budget", "what", last.What(), "budget", limit, "used", b.used)
	default:
		b.tellOver(freed > 0)
		b.over = true
	}
}

// tellOver says that the budget is passed and nothing more can go: once, and again when
// something has gone since.
func (b *budget) tellOver(again bool) {
	if b.over && !again {
		return
	}
	limit := b.Intake.Limit()
	b.Log.Warn("the data directory is larger than its budget, and nothing more can go: containers, volumes, logs and what was used a moment ago stay",
		"budget", limit, "used", b.used)
	b.stock.Bus.Publish(events.DaemonEventType, "disk_budget", b.Engine, map[string]string{
		"budget": decimal(limit), "used": decimal(b.used), "result": "exceeded"})
}

// since is the time before which something must have been used last to go.
func (b *budget) since() time.Time {
	if b.Fresh > 0 {
		return time.Now().Add(-b.Fresh)
	}
	return time.Now().Add(-defaultFresh)
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
