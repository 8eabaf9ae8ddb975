package engine

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"berth/internal/fault"
	"berth/internal/volume"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

const (
	defaultFresh   = 10 * time.Minute      // what was used within this time stays
	budgetIdle     = time.Minute           // between looks at a directory in which nothing goes on
	budgetBusy     = 50 * time.Millisecond // while something is being written
	budgetRest     = 4                     // times that a walk took until the next one, unless somebody waits
	budgetPartial  = time.Minute           // age of a broken-off download that may go
	budgetPatience = 10 * time.Second      // that whoever takes room waits for a look at most
	budgetCheap    = 20 * time.Millisecond // for a walk
	budgetNear     = 8                     // margins
	marginLeast    = 1 << 20               // bytes kept free below the budget
	marginMost     = 256 << 20             //
	packedFactor   = 2                     // of the bytes of a packed layer: how much a pull takes at least, packed and unpacked
)

// budget keeps the data directory below a size, by removing what nobody uses
// before it is reached: images and build cache, the least recently used first. It
// learns of uses from the events, so that a start pays nothing for it.
type budget struct {
	limit int64 // bytes; 0: none, and nothing below is used
	wake  chan struct{}
	over  <-chan struct{} // closed when the engine ends
	taken atomic.Int64    // bytes that came in since the directory was walked

	mu     sync.Mutex // guards what follows; nothing else is locked under it
	spends map[*spend]struct{}
	used   map[digest.Digest]time.Time // images, by their last use
	dirty  bool                        // used is not on disk yet
	waits  []chan struct{}             // of those who wait for the next look
}

// spend is something under way that takes room: a pull, a build, a load.
type spend struct {
	b      *budget
	what   string
	began  time.Time
	cancel context.CancelCauseFunc

	mu     sync.Mutex       // guards what follows
	layers map[string]int64 // bytes to come of each, packed
	read   int64            // bytes taken since the last look
}

// OverBudget is the error of what could not fit into the disk budget.
type OverBudget struct {
	What          string // as in "pull of alpine"
	Limit, Needed int64  // bytes; Needed is 0 when that is not known
	Kept          int64  // bytes that could not be removed
}

// Error names the budget, and what stands in the way.
func (o *OverBudget) Error() string {
	text := o.What + " does not fit into the disk budget of " + units.BytesSize(float64(o.Limit))
	if o.Needed > 0 {
		text += ": it needs " + units.BytesSize(float64(o.Needed)) + " and more"
	}
	return text + "; " + units.BytesSize(float64(o.Kept)) + " are in use, or too fresh to be removed"
}

// begin notes that something is about to take room. The caller goes on with the
// returned context, which ends when there is none left, and calls end.
func (b *budget) begin(ctx context.Context, what string) (context.Context, *spend) {
	if b.limit <= 0 {
		return ctx, nil
	}
	s := &spend{b: b, what: what, began: time.Now(), layers: map[string]int64{}}
	ctx, s.cancel = context.WithCancelCause(ctx)
	b.mu.Lock()
	b.spends[s] = struct{}{}
	b.mu.Unlock()
	b.poke()
	return ctx, s
}

// end is called with the outcome, which it returns, or with the budget's reason if
// that broke it off.
func (s *spend) end(ctx context.Context, err error) error {
	if s == nil {
		return err
	}
	s.b.mu.Lock()
	delete(s.b.spends, s)
	s.b.mu.Unlock()
	var over *OverBudget
	if errors.As(context.Cause(ctx), &over) && err != nil {
		err = fault.New(fault.Exhausted, "", "", "%w", over).
			WithHint("berth system df -v shows what takes how much; --disk-budget sets the limit")
	}
	s.cancel(nil)
	s.b.settle(context.WithoutCancel(ctx))
	return err
}

// took notes that so much was read or fetched. Now and then it waits for a look at
// the directory, so that what is written does not run ahead of that.
func (s *spend) took(ctx context.Context, n int64) error {
	s.b.taken.Add(n)
	s.mu.Lock()
	s.read += n
	look := s.read >= s.b.margin()/2
	if look {
		s.read = 0
	}
	s.mu.Unlock()
	if look {
		s.b.settle(ctx)
	}
	return context.Cause(ctx)
}

// reader is r, counted.
func (s *spend) reader(ctx context.Context, r io.Reader) io.Reader {
	if s == nil {
		return r
	}
	return &spendReader{ctx, s, r}
}

type spendReader struct {
	ctx context.Context
	s   *spend
	r   io.Reader
}

func (r *spendReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if e := r.s.took(r.ctx, int64(n)); e != nil {
		return n, e
	}
	return n, err
}

// settle waits, for a bounded time, until the directory has been looked at.
func (b *budget) settle(ctx context.Context) {
	done := make(chan struct{})
	b.mu.Lock()
	b.waits = append(b.waits, done)
	b.mu.Unlock()
	b.poke()
	late := time.NewTimer(budgetPatience)
	defer late.Stop()
	select {
	case <-done:
	case <-ctx.Done():
	case <-b.over:
	case <-late.C:
	}
}

// waiting returns who waits for the look that is about to begin.
func (b *budget) waiting() []chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.waits
	b.waits = nil
	return list
}

// watch passes progress on and reads in it how much is about to come.
func (s *spend) watch(ctx context.Context, send func(jsonstream.Message)) func(jsonstream.Message) {
	if s == nil {
		return send
	}
	return func(m jsonstream.Message) {
		if m.Progress != nil && m.Status == "Downloading" && m.Progress.Total > 0 {
			s.mu.Lock()
			before, known := s.layers[m.ID]
			left := max(m.Progress.Total-m.Progress.Current, 0)
			s.layers[m.ID] = left
			s.mu.Unlock()
			if !known {
				s.b.settle(ctx)
			} else if left < before {
				_ = s.took(ctx, before-left)
			}
		}
		send(m)
	}
}

// ahead is how much is still to come at least, in bytes.
func (s *spend) ahead() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	total := int64(0)
	for _, n := range s.layers {
		total += n
	}
	return total * packedFactor
}

func (b *budget) poke() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// under returns what takes room now, the youngest last, and how much more it will
// need.
func (b *budget) under() (list []*spend, ahead int64) {
	b.mu.Lock()
	for s := range b.spends {
		list = append(list, s)
	}
	b.mu.Unlock()
	slices.SortFunc(list, func(x, y *spend) int { return x.began.Compare(y.began) })
	for _, s := range list {
		ahead += s.ahead()
	}
	return list, ahead
}

func (b *budget) margin() int64 {
	return min(max(b.limit/50, min(marginLeast, b.limit/10)), marginMost)
}

// openBudget starts to keep the budget, if there is one.
func (e *Engine) openBudget() {
	b := &e.budget
	b.limit, b.over = e.cfg.DiskBudget, e.life.Done()
	b.wake = make(chan struct{}, 1)
	b.spends, b.used = map[*spend]struct{}{}, map[digest.Digest]time.Time{}
	if b.limit <= 0 {
		return
	}
	e.readUses()
	happenings := e.bus.Subscribe(e.life, time.Time{}, time.Time{}, concernsUse)
	e.work.Go(func() {
		for m := range happenings {
			e.noteUse(&m)
			b.poke()
		}
	})
	e.work.Go(e.keepBudget)
}

// keepBudget looks after the data directory until the engine ends.
func (e *Engine) keepBudget() {
	b := &e.budget
	var walked budgetWalk
	timer := time.NewTimer(0)
	defer timer.Stop()
	saved := time.Now()
	for {
		select {
		case <-timer.C:
		case <-b.wake:
		case <-e.life.Done():
			e.saveUses()
			return
		}
		waits := b.waiting()
		e.checkBudget(&walked, len(waits) > 0)
		for _, done := range waits {
			close(done)
		}
		if time.Since(saved) > budgetIdle {
			e.saveUses()
			saved = time.Now()
		}
		pause := budgetIdle
		if list, _ := b.under(); len(list) > 0 {
			pause = budgetBusy
		}
		timer.Reset(pause)
	}
}

// budgetWalk is what the data directory was found to take, and what its file system
// had in use then: from the difference follows when to look again.
type budgetWalk struct {
	used, disk int64
	at         time.Time
	took       time.Duration
	over       bool // it was said that nothing more can go
}

// estimate is about what the data directory takes. Others who free room on the same
// file system make it too small, and others who fill it too large; -1 says that it
// is not known.
func (e *Engine) estimate(w *budgetWalk) int64 {
	now, err := usedOnDisk(e.cfg.Root)
	if err != nil || w.at.IsZero() {
		return -1
	}
	return w.used + max(now-w.disk, e.budget.taken.Load())
}

func usedOnDisk(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, err
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize, nil
}

// measure walks the data directory.
func (e *Engine) measure(w *budgetWalk) error {
	began := time.Now()
	taken := e.budget.taken.Load()
	disk, err := usedOnDisk(e.cfg.Root)
	if err != nil {
		return err
	}
	e.layers.Flush() // what was removed takes nothing
	used, err := volume.DiskUsage(e.life, e.cfg.Root)
	if err != nil {
		return err
	}
	e.budget.taken.Add(-taken)
	w.used, w.disk, w.at, w.took = used, disk, time.Now(), time.Since(began)
	return nil
}

// checkBudget makes room if the budget is about to be passed, and breaks off what
// cannot fit.
func (e *Engine) checkBudget(w *budgetWalk, now bool) {
	b := &e.budget
	list, ahead := b.under()
	line := b.limit - b.margin()
	stale := time.Since(w.at) > budgetIdle
	guess := e.estimate(w)
	// Whoever waits gets a real look where that costs next to nothing, or matters.
	near := now && (w.took < budgetCheap || guess+ahead > line-budgetNear*b.margin())
	if !stale && !near && guess >= 0 && guess+ahead <= line {
		return
	}
	if !now && !w.at.IsZero() && time.Since(w.at) < budgetRest*w.took && (w.over || len(list) > 0) {
		return
	}
	if err := e.measure(w); err != nil {
		if e.life.Err() == nil {
			e.log.Error("the disk budget cannot be kept: the data directory cannot be measured", "error", err)
		}
		return
	}
	freed := int64(0)
	for range 4 { // others write meanwhile
		excess := w.used + ahead - line
		if excess <= 0 {
			w.over = false
			return
		}
		n := e.makeRoom(excess)
		freed += n
		if err := e.measure(w); err != nil || n == 0 {
			break
		}
	}
	if w.used+ahead <= line || w.used+ahead < b.limit && len(list) == 0 {
		w.over = false
		return
	}
	if len(list) > 0 {
		last := list[len(list)-1]
		last.cancel(&OverBudget{What: last.what, Limit: b.limit, Needed: last.ahead(), Kept: w.used})
		e.log.Warn("broken off: it does not fit into the disk budget", "what", last.what, "budget", b.limit, "used", w.used)
		return
	}
	if !w.over || freed > 0 {
		e.log.Warn("the data directory is larger than its budget, and nothing more can go: containers, volumes, logs and what was used a moment ago stay",
			"budget", b.limit, "used", w.used)
		e.bus.Publish(events.DaemonEventType, "disk_budget", e.id, map[string]string{
			"budget": itoa64(b.limit), "used": itoa64(w.used), "result": "exceeded"})
	}
	w.over = true
}

// budgetFresh is how long what was used stays in any case.
func (e *Engine) budgetFresh() time.Duration {
	if e.cfg.DiskBudgetFresh > 0 {
		return e.cfg.DiskBudgetFresh
	}
	return defaultFresh
}
