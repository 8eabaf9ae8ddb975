package metadata

import (
	"fmt"
	"path/filepath"
	"testing"
)

func TestRangeReadsOnePageOfOnePrefix(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "m.db"))
	if err := db.Update(func(tx *Tx) error {
		for _, k := range []string{"a x", "b 1", "b 2", "b 3", "b 4", "b", "ba 1", "c"} {
			if err := records.Put(tx, k, record{Name: k}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		prefix, after string
		n             int
		want          string
	}{
		{"b ", "", 10, "[b 1 b 2 b 3 b 4]"},
		{"b ", "b 2", 10, "[b 3 b 4]"},
		{"b ", "b 2x", 1, "[b 3]"},
		{"b ", "a", 2, "[b 1 b 2]"},
		{"b ", "b 4", 2, "[]"},
		{"b ", "z", 2, "[]"},
		{"", "", 2, "[a x b]"},
		{"", "c", 2, "[]"},
		{"nothing", "", 2, "[]"},
	} {
		got := []string{}
		err := db.View(func(tx *Tx) error {
			_, err := records.Range(tx, c.prefix, c.after, func(k string, _ record) bool {
				got = append(got, k)
				return len(got) < c.n
			})
			return err
		})
		if err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("%q after %q: %v, %v; want %s", c.prefix, c.after, got, err, c.want)
		}
	}
}
