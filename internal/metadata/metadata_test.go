package metadata

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"berth/internal/fault"
)

type record struct {
	Name string
	N    int
}

var records = NewBucket[record]("records")

func open(t testing.TB, path string) *DB {
	t.Helper()
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestRecordsSurviveReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.db")
	db := open(t, path)
	put := func(k string, r record) {
		t.Helper()
		if err := db.Update(func(tx *Tx) error { return records.Put(tx, k, r) }); err != nil {
			t.Fatal(err)
		}
	}
	put("b", record{"bee", 2})
	put("a", record{"ay", 1})
	put("gone", record{})
	if err := db.Update(func(tx *Tx) error {
		if err := records.Delete(tx, "never there"); err != nil {
			return err
		}
		return records.Delete(tx, "gone")
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	var got []string
	err := db.View(func(tx *Tx) error {
		bad, err := records.ForEach(tx, func(k string, r record) error {
			got = append(got, fmt.Sprintf("%s=%s/%d", k, r.Name, r.N))
			return nil
		})
		if len(bad) != 0 {
			t.Errorf("unreadable: %v", bad)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := "[a=ay/1 b=bee/2]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %v", got, want)
	}
	err = db.View(func(tx *Tx) error { _, err := records.Get(tx, "gone"); return err })
	if !fault.Is(err, fault.NotFound) {
		t.Errorf("a deleted record gives %v, want not found", err)
	}
}

func TestSecondOwnerIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.db")
	open(t, path)
	_, err := Open(path)
	if !fault.Is(err, fault.Conflict) {
		t.Fatalf("got %v, want a conflict", err)
	}
}

func TestFailedUpdateLeavesNothing(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "m.db"))
	boom := errors.New("boom")
	err := db.Update(func(tx *Tx) error {
		if err := records.Put(tx, "k", record{}); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("got %v", err)
	}
	err = db.View(func(tx *Tx) error { _, err := records.Get(tx, "k"); return err })
	if !fault.Is(err, fault.NotFound) {
		t.Errorf("the failed update left %v", err)
	}
}

func TestConcurrentUpdatesShareCommitsAndKeepApart(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "m.db"))
	var wg sync.WaitGroup
	boom := errors.New("boom")
	for i := range 64 {
		wg.Go(func() {
			err := db.Update(func(tx *Tx) error {
				if err := records.Put(tx, fmt.Sprint(i), record{N: i}); err != nil {
					return err
				}
				if i%7 == 0 {
					return boom
				}
				return nil
			})
			if want := i%7 == 0; errors.Is(err, boom) != want || (!want && err != nil) {
				t.Errorf("update %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	err := db.View(func(tx *Tx) error {
		for i := range 64 {
			_, err := records.Get(tx, fmt.Sprint(i))
			if fault.Is(err, fault.NotFound) != (i%7 == 0) {
				t.Errorf("record %d: %v", i, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPanickingUpdateDoesNotWedge(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "m.db"))
	func() {
		defer func() { recover() }()
		db.Update(func(*Tx) error { panic("defect") })
	}()
	if err := db.Update(func(tx *Tx) error { return records.Put(tx, "k", record{}) }); err != nil {
		t.Fatal(err)
	}
}

func TestUnreadableRecordIsNamedAndTheRestServed(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "m.db"))
	if err := db.Update(func(tx *Tx) error {
		records.Put(tx, "a", record{N: 1})
		records.Put(tx, "c", record{N: 3})
		b, err := tx.bolt.CreateBucketIfNotExists([]byte("records"))
		if err != nil {
			return err
		}
		return b.Put([]byte("b"), []byte("{half"))
	}); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := db.View(func(tx *Tx) error {
		bad, err := records.ForEach(tx, func(string, record) error { n++; return nil })
		if len(bad) != 1 || bad[0].Key != "b" {
			t.Errorf("unreadable: %v", bad)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if n != 2 {
		t.Errorf("served %d records, want 2", n)
	}
}

func TestDamagedFilesAreErrorsNotCrashes(t *testing.T) {
	good := filepath.Join(t.TempDir(), "m.db")
	db := open(t, good)
	for i := range 400 {
		db.Update(func(tx *Tx) error { return records.Put(tx, fmt.Sprint(i), record{Name: good, N: i}) })
	}
	db.Close()
	data, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	damage := map[string]func([]byte) []byte{
		"garbage":       func([]byte) []byte { return []byte("this is not a database, really not") },
		"metas zeroed":  func(b []byte) []byte { clear(b[:8192]); return b },
		"cut to a page": func(b []byte) []byte { return b[:4096] },
		"cut to two":    func(b []byte) []byte { return b[:8192] },
		"half":          func(b []byte) []byte { return b[:len(b)/2/4096*4096] },
		"pages zeroed":  func(b []byte) []byte { clear(b[3*4096:]); return b },
		"pages of ones": func(b []byte) []byte {
			for i := 2 * 4096; i < len(b); i++ {
				b[i] = 0xff
			}
			return b
		},
	}
	for name, f := range damage {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "m.db")
			if err := os.WriteFile(path, f(append([]byte(nil), data...)), 0o600); err != nil {
				t.Fatal(err)
			}
			db, err := Open(path)
			if err != nil {
				return
			}
			defer db.Close()
			db.View(func(tx *Tx) error {
				_, err := records.ForEach(tx, func(string, record) error { return nil })
				return err
			})
			db.Update(func(tx *Tx) error { return records.Put(tx, "x", record{}) })
		})
	}
}

func BenchmarkCommit(b *testing.B) {
	db := open(b, filepath.Join(b.TempDir(), "m.db"))
	r := record{Name: string(make([]byte, 2000))}
	for i := range b.N {
		if err := db.Update(func(tx *Tx) error { return records.Put(tx, fmt.Sprint(i%200), r) }); err != nil {
			b.Fatal(err)
		}
	}
}
