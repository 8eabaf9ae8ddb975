// Package metadata is the one database file of the engine: typed buckets of
// JSON records with durable transactions. It exists so that every room keeps
// its records the same way and exactly one process ever owns the file.
package metadata

import (
	"berth/internal/fault"
)

// DB is the open database. It is safe for concurrent use.
type DB struct{}

// Tx is one transaction, valid only inside the function it was given to.
type Tx struct{}

// Bucket names one set of records of type T, keyed by a string.
type Bucket[T any] struct{ name string }

// BadRecord is a record that is there and cannot be read.
type BadRecord struct {
	Bucket, Key string
	Err         error
}

// NewBucket returns the bucket called name. Buckets come into being with their
// first Put.
func NewBucket[T any](name string) Bucket[T] { return Bucket[T]{name: name} }

// Open opens or creates the database at path. A second owner is refused with
// fault.Conflict.
func Open(path string) (*DB, error) {
	return nil, fault.New(fault.Unsupported, "open", path, "skeleton")
}

// Close waits for running transactions and closes the file.
func (db *DB) Close() error { return nil }

// View runs fn on a consistent snapshot.
func (db *DB) View(fn func(*Tx) error) error { return nil }

// Update runs fn and commits its writes; when it returns nil they are on disk.
// Concurrent updates share one commit, so fn may run more than once: it must
// not have effects outside the transaction other than setting its own variables.
func (db *DB) Update(fn func(*Tx) error) error { return nil }

// Get returns the record under key, or fault.NotFound.
func (b Bucket[T]) Get(tx *Tx, key string) (T, error) { var v T; return v, nil }

// Put stores v under key.
func (b Bucket[T]) Put(tx *Tx, key string, v T) error { return nil }

// Delete removes key; a missing key is no error.
func (b Bucket[T]) Delete(tx *Tx, key string) error { return nil }

// ForEach calls fn for each readable record in key order and returns the
// records it could not read.
func (b Bucket[T]) ForEach(tx *Tx, fn func(key string, v T) error) ([]BadRecord, error) {
	return nil, nil
}
