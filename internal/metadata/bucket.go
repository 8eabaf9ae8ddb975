package metadata

import (
	"encoding/json"

	bolt "go.etcd.io/bbolt"

	"berth/internal/fault"
)

// Bucket names one set of records of type T, kept as JSON under a string key.
// It holds no state; packages declare theirs as variables.
type Bucket[T any] struct{ name string }

// BadRecord is a record that is there and cannot be read. The owner of the
// bucket names it to the user and goes on with the others.
type BadRecord struct {
	Bucket, Key string
	Err         error
}

// NewBucket returns the bucket called name. Buckets come into being with their
// first Put.
func NewBucket[T any](name string) Bucket[T] { return Bucket[T]{name: name} }

// Get returns the record under key, fault.NotFound when there is none, or
// fault.Internal when it cannot be read.
func (b Bucket[T]) Get(tx *Tx, key string) (T, error) {
	var v T
	err := guard(func() error {
		bk := tx.bolt.Bucket([]byte(b.name))
		if bk == nil {
			return errMissing
		}
		data := bk.Get([]byte(key))
		if data == nil {
			return errMissing
		}
		return json.Unmarshal(data, &v)
	})
	if err == errMissing {
		return v, fault.New(fault.NotFound, "read record", b.name+"/"+key, "no such record")
	}
	return v, fault.Wrap("read record", b.name+"/"+key, err)
}

// Put stores v under key.
func (b Bucket[T]) Put(tx *Tx, key string, v T) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fault.Wrap("write record", b.name+"/"+key, err)
	}
	err = guard(func() error {
		bk, err := tx.bolt.CreateBucketIfNotExists([]byte(b.name))
		if err != nil {
			return err
		}
		return bk.Put([]byte(key), data)
	})
	return fault.Wrap("write record", b.name+"/"+key, err)
}

// Delete removes key; a missing key is no error.
func (b Bucket[T]) Delete(tx *Tx, key string) error {
	err := guard(func() error {
		bk := tx.bolt.Bucket([]byte(b.name))
		if bk == nil {
			return nil
		}
		return bk.Delete([]byte(key))
	})
	return fault.Wrap("delete record", b.name+"/"+key, err)
}

// ForEach calls fn for each readable record in key order and returns the
// records it could not read. An error from fn ends the walk and is returned as
// it is. When pages of the file themselves are damaged, the walk ends with an
// error after the records before the damage.
func (b Bucket[T]) ForEach(tx *Tx, fn func(key string, v T) error) ([]BadRecord, error) {
	var bad []BadRecord
	var cur *bolt.Cursor
	var k, data []byte
	step := func(first bool) error {
		return guard(func() error {
			if first {
				bk := tx.bolt.Bucket([]byte(b.name))
				if bk == nil {
					return nil
				}
				cur = bk.Cursor()
				k, data = cur.First()
				return nil
			}
			k, data = cur.Next()
			return nil
		})
	}
	err := step(true)
	for ; err == nil && k != nil; err = step(false) {
		key := string(k)
		var v T
		if jsonErr := guard(func() error { return json.Unmarshal(data, &v) }); jsonErr != nil {
			bad = append(bad, BadRecord{Bucket: b.name, Key: key, Err: jsonErr})
			continue
		}
		if err := fn(key, v); err != nil {
			return bad, err
		}
	}
	return bad, fault.Wrap("read records", b.name, err)
}

type missingError struct{}

func (missingError) Error() string { return "no such record" }

// errMissing tells "not there" from "not readable" inside this package.
var errMissing error = missingError{}
