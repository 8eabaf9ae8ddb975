package metadata

import (
	"bytes"
	"encoding/json"

	bolt "go.etcd.io/bbolt"

	"berth/internal/fault"
)

// Range calls fn for the readable records whose keys begin with prefix and come
// after the key after ("" for all of them), in key order, until fn returns
// false. It reads nothing else, so a page of a large bucket costs a page. It
// returns the records it could not read.
func (b Bucket[T]) Range(tx *Tx, prefix, after string, fn func(key string, v T) bool) ([]BadRecord, error) {
	var bad []BadRecord
	var cur *bolt.Cursor
	var k, data []byte
	err := guard(func() error {
		bk := tx.bolt.Bucket([]byte(b.name))
		if bk == nil {
			return nil
		}
		cur = bk.Cursor()
		if after <= prefix {
			k, data = cur.Seek([]byte(prefix))
		} else if k, data = cur.Seek([]byte(after)); string(k) == after {
			k, data = cur.Next()
		}
		return nil
	})
	for err == nil && k != nil && bytes.HasPrefix(k, []byte(prefix)) {
		key := string(k)
		var v T
		if jsonErr := guard(func() error { return json.Unmarshal(data, &v) }); jsonErr != nil {
			bad = append(bad, BadRecord{Bucket: b.name, Key: key, Err: jsonErr})
		} else if !fn(key, v) {
			return bad, nil
		}
		err = guard(func() error { k, data = cur.Next(); return nil })
	}
	return bad, fault.Wrap("read records", b.name, err)
}
