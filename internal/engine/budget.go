package engine

import (
	"sync"
	"time"

	"berth/internal/volume"

	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

const (
	defaultFresh  = 10 * time.Minute      // what was used within this time stays
	budgetIdle    = time.Minute           // between looks at a directory in which nothing goes on
	budgetBusy    = 50 * time.Millisecond // while something is being written
	budgetRest    = 4                     // times that a walk took until the next one, unless somebody waits
	budgetPartial = time.Minute           // age of a broken-off download that may go
	budgetCheap   = 20 * time.Millisecond // for a walk
	budgetNear    = 8                     // margins
)

// budget keeps the data directory below a size, by removing what nobody uses
// before it is reached: images and build cache, the least recently used first. It
// learns of uses from the events, so that a start pays nothing for it.
type budget struct {
	mu    sync.Mutex                  // guards what follows; nothing else is locked under it
	used  map[digest.Digest]time.Time // images, by their last use
	dirty bool                        // used is not on disk yet
}

// openBudget starts to keep the budget, if there is one.
func (e *Engine) openBudget() {
	if e.intake.Limit() == 0 {
		return
	}
	e.budget.used = map[digest.Digest]time.Time{}
	e.readUses()
	happenings := e.bus.Subscribe(e.life, time.Time{}, time.Time{}, concernsUse)
	e.work.Go(func() {
		for m := range happenings {
			e.noteUse(&m)
			e.intake.Wake()
		}
	})
	e.work.Go(e.keepBudget)
}

// keepBudget looks after the data directory until the engine ends.
func (e *Engine) keepBudget() {
	var walked budgetWalk
	timer := time.NewTimer(0)
	defer timer.Stop()
	saved := time.Now()
	for {
		select {
		case <-timer.C:
		case <-e.intake.Woken():
		case <-e.life.Done():
			e.saveUses()
			return
		}
		waits := e.intake.Waiting()
		e.checkBudget(&walked, len(waits) > 0)
		for _, done := range waits {
			close(done)
		}
		if time.Since(saved) > budgetIdle {
			e.saveUses()
			saved = time.Now()
		}
		pause := budgetIdle
		if list, _ := e.intake.UnderWay(); len(list) > 0 {
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
	return w.used + max(now-w.disk, e.intake.Taken())
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
	taken := e.intake.Taken()
	disk, err := usedOnDisk(e.cfg.Root)
	if err != nil {
		return err
	}
	e.layers.Flush() // what was removed takes nothing
	used, err := volume.DiskUsage(e.life, e.cfg.Root)
	if err != nil {
		return err
	}
	e.intake.Measured(taken)
	w.used, w.disk, w.at, w.took = used, disk, time.Now(), time.Since(began)
	return nil
}

// checkBudget makes room if the budget is about to be passed, and breaks off what
// cannot fit.
func (e *Engine) checkBudget(w *budgetWalk, now bool) {
	limit, margin := e.intake.Limit(), e.intake.Margin()
	list, ahead := e.intake.UnderWay()
	line := limit - margin
	stale := time.Since(w.at) > budgetIdle
	guess := e.estimate(w)
	// Whoever waits gets a real look where that costs next to nothing, or matters.
	near := now && (w.took < budgetCheap || guess+ahead > line-budgetNear*margin)
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
	if w.used+ahead <= line || w.used+ahead < limit && len(list) == 0 {
		w.over = false
		return
	}
	if len(list) > 0 {
		last := list[len(list)-1]
		last.Break(w.used)
		e.log.Warn("broken off: it does not fit into the disk budget", "what", last.What(), "budget", limit, "used", w.used)
		return
	}
	if !w.over || freed > 0 {
		e.log.Warn("the data directory is larger than its budget, and nothing more can go: containers, volumes, logs and what was used a moment ago stay",
			"budget", limit, "used", w.used)
		e.bus.Publish(events.DaemonEventType, "disk_budget", e.id, map[string]string{
			"budget": itoa64(limit), "used": itoa64(w.used), "result": "exceeded"})
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
