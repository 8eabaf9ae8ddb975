package logs

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// stamped is a format for tests: minutes since the epoch and a text.
type stamped struct{ plain }

func (s *stamped) NewDecoder() Decoder { return new(stamped) }
func (s *stamped) Decode(line []byte) *Entry {
	at, text, _ := strings.Cut(string(line), " ")
	n, err := strconv.Atoi(at)
	if err != nil {
		return nil
	}
	return &Entry{Time: time.Unix(60*int64(n), 0), Line: []byte(text)}
}

// TestAClockPutBackLosesNoLine reads what was written while the clock went back by
// an hour.
func TestAClockPutBackLosesNoLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("100 a\n140 b\n155 c\n100 d\n120 e\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := func(n int64) time.Time { return time.Unix(60*n, 0) }
	for _, tt := range []struct {
		name         string
		since, until time.Time
		follow       bool
		want         string
	}{
		{"everything", time.Time{}, time.Time{}, false, "abcde"},
		{"since the last line that was seen before", at(155), time.Time{}, false, "cde"},
		{"since a time that came twice", at(120), time.Time{}, false, "bcde"},
		{"until now", time.Time{}, at(121), false, "ade"},
		{"of a span of time", at(110), at(145), false, "bde"},
		{"follow until now", time.Time{}, at(119), true, "ad"},
	} {
		var got []byte
		o := ReadOptions{Tail: -1, Since: tt.since, Until: tt.until, Follow: tt.follow}
		err := Read(t.Context(), new(stamped), path, o, func(e Entry) error { got = append(got, e.Line...); return nil })
		if err != nil || string(got) != tt.want {
			t.Errorf("%s: %q, not %q; error %v", tt.name, got, tt.want, err)
		}
	}
}

// TestFollowersSinceATimeGoOnWhenTheClockIsPutBack before that time.
func TestFollowersSinceATimeGoOnWhenTheClockIsPutBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := newWriter(t, path, Limits{})
	now := time.Now()
	minute := func(ago time.Duration) string { return strconv.FormatInt(now.Add(-ago).Unix()/60, 10) }
	write := func(line string) {
		if err := w.Append([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	write(minute(time.Hour) + " old\n")
	lines := make(chan string)
	go func() {
		o := ReadOptions{Tail: -1, Since: now.Add(-10 * time.Minute), Follow: true}
		_ = Read(t.Context(), new(stamped), path, o, func(e Entry) error { lines <- string(e.Line); return nil })
	}()
	write(minute(-time.Minute) + " new\n")
	got := []string{<-lines}
	write(minute(2*time.Hour) + " put back\n")
	got = append(got, <-lines)
	if want := []string{"new", "put back"}; !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}
