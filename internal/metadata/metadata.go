// Package metadata is the one database file of the engine: typed buckets of
// JSON records with durable transactions. It exists so that every room keeps
// its records the same way and exactly one process ever owns the file.
package metadata

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"berth/internal/fault"
)

// mapSize is the address space reserved for the file at open. Growing beyond it
// works and makes one writer wait for all readers, so it is chosen well above
// what an engine with thousands of containers needs. It costs no memory.
const mapSize = 64 << 20

// DB is the open database. It is safe for concurrent use.
type DB struct {
	bolt *bolt.DB
	path string

	// writing is held by the goroutine that commits a batch. It is taken
	// before queueMu, never after it.
	writing sync.Mutex
	queueMu sync.Mutex // guards queue
	queue   []*update
}

// update is one call of Update on its way into a commit. All fields but fn are
// guarded by DB.writing.
type update struct {
	fn   func(*Tx) error
	done bool
	err  error
}

// Tx is one transaction, valid only inside the function it was given to.
type Tx struct{ bolt *bolt.Tx }

// Open opens or creates the database at path, for reading only where the file
// system is read-only: every Update is refused then, with fault.Forbidden. A second owner is refused with
// fault.Conflict; a file that is no database, or a damaged one, with
// fault.Internal.
func Open(path string) (*DB, error) {
	const op = "open database"
	var b *bolt.DB
	open := func(readOnly bool) error {
		return guard(func() (err error) {
			b, err = bolt.Open(path, 0o600, &bolt.Options{
				Timeout:         time.Nanosecond, // one attempt: waiting for the owner would be for ever
				FreelistType:    bolt.FreelistMapType,
				InitialMmapSize: mapSize,
				NoStatistics:    true,
				ReadOnly:        readOnly,
			})
			return err
		})
	}
	err := open(false)
	if errors.Is(err, syscall.EROFS) {
		err = open(true) // what is there can be read; updates say why they fail
	}
	var hint string
	switch {
	case err == nil:
		return &DB{bolt: b, path: path}, nil
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fault.New(fault.Conflict, op, path, "another engine has it open").
			WithHint("stop that engine, or give this one a --root of its own")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOSPC):
	default:
		hint = "restore the file from a backup, or move it away to begin without images and containers"
	}
	return nil, &fault.Error{Kind: kindOf(err), Op: op, Subject: path, Err: err, Hint: hint}
}

// Close waits for running transactions and closes the file.
func (db *DB) Close() error {
	db.writing.Lock()
	defer db.writing.Unlock()
	return fault.Wrap("close database", db.path, db.bolt.Close())
}

// View runs fn on a consistent snapshot.
func (db *DB) View(fn func(*Tx) error) error {
	tx, err := db.bolt.Begin(false)
	if err != nil {
		return fault.Wrap("read database", db.path, err)
	}
	defer tx.Rollback()
	return fn(&Tx{tx})
}

// Update runs fn and commits its writes; when it returns nil they are on disk,
// when it returns an error nothing of them is kept. Updates that arrive while a
// commit is being written to disk share the next one, so fn may run more than
// once: it must have no effect outside the transaction other than setting
// variables of its own. Calling Update inside fn deadlocks.
func (db *DB) Update(fn func(*Tx) error) error {
	u := &update{fn: fn}
	db.queueMu.Lock()
	db.queue = append(db.queue, u)
	db.queueMu.Unlock()

	db.writing.Lock()
	defer db.writing.Unlock()
	if u.done { // an earlier holder of the lock committed it along with its own
		return u.err
	}
	db.queueMu.Lock()
	batch := db.queue
	db.queue = nil
	db.queueMu.Unlock()
	db.commit(batch)
	return u.err
}

// commit brings a batch to disk in one transaction. An update that fails is
// taken out and the others are run again. The caller holds writing.
func (db *DB) commit(batch []*update) {
	defer func() { // also when an update's function panics
		for _, u := range batch {
			if !u.done {
				u.done = true
				u.err = fault.New(fault.Internal, "write database", db.path, "another update panicked")
			}
		}
	}()
	for {
		failed, err := db.tryCommit(batch)
		if failed == nil {
			for _, u := range batch {
				if !u.done {
					u.done, u.err = true, err
				}
			}
			return
		}
		failed.done, failed.err = true, err
	}
}

// tryCommit runs the batch's open updates in one transaction. It returns the
// update that failed, or nil with the result of the commit.
func (db *DB) tryCommit(batch []*update) (*update, error) {
	open := 0
	for _, u := range batch {
		if !u.done {
			open++
		}
	}
	if open == 0 {
		return nil, nil
	}
	tx, err := db.bolt.Begin(true)
	if errors.Is(err, berrors.ErrDatabaseReadOnly) {
		err = syscall.EROFS
	}
	if err != nil {
		return nil, fault.Wrap("write database", db.path, err)
	}
	defer tx.Rollback() // of a committed one: no effect
	for _, u := range batch {
		if u.done {
			continue
		}
		if err := u.fn(&Tx{tx}); err != nil {
			return u, err
		}
	}
	err = guard(tx.Commit)
	if err != nil {
		return nil, &fault.Error{Kind: kindOf(err), Op: "write database", Subject: db.path, Err: err}
	}
	return nil, nil
}

// guard turns what the database does on a damaged file (panic, or a fault on
// the mapped pages) into an error.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the file is damaged: %v", r)
		}
	}()
	return fn()
}

func kindOf(err error) fault.Kind {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.Exhausted
	case errors.Is(err, fs.ErrPermission):
		return fault.Forbidden
	}
	return fault.KindOf(err)
}
