package progress

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"berth/internal/client"
)

func message(id, status string, current, total int64) client.Progress {
	return client.Progress{ID: id, Status: status, Detail: client.ProgressDetail{Current: current, Total: total}}
}

func TestPlainLinesElsewhere(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	d := New(Options{Out: &b})
	for _, m := range []client.Progress{message("latest", "Pulling from x", 0, 0), message("aa", "Downloading", 1, 10),
		message("aa", "Downloading", 5, 10), message("aa", "Pull complete", 0, 0), message("aa", "Pull complete", 0, 0),
		message("", "Status: done", 0, 0), {Stream: "Loaded image: x\n"}} {
		d.Update(m)
	}
	d.Sent(1, 2)
	d.Close()
	if want := "latest: Pulling from x\naa: Pull complete\nStatus: done\nLoaded image: x\n"; b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

// screen is what a terminal shows after the bytes that were written to it.
func screen(out string) []string {
	var lines []string
	row := 0
	up := regexp.MustCompile(`^\x1b\[(\d+)A`)
	for out != "" {
		if m := up.FindStringSubmatch(out); m != nil {
			var n int
			_, _ = fmt.Sscan(m[1], &n)
			row -= n
			out = out[len(m[0]):]
			continue
		}
		for row >= len(lines) {
			lines = append(lines, "")
		}
		switch {
		case out[0] == '\r':
			out = out[1:]
		case strings.HasPrefix(out, "\x1b[J"):
			lines = lines[:row]
			out = out[3:]
		default:
			text, rest, _ := strings.Cut(out, "\n")
			lines[row] = strings.TrimRight(strings.TrimSuffix(text, "\x1b[K"), " ")
			out = rest
			row++
		}
	}
	return lines
}

func TestLayersAreRedrawnInPlace(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	d := New(Options{Out: &b, TTY: true, Rows: 24, Columns: 100})
	d.Update(message("latest", "Pulling from x", 0, 0))
	for i := range int64(11) {
		d.Update(message("aaaaaaaaaaaa", "Downloading", i*1000, 10_000))
		d.Update(message("bbbbbbbbbbbb", "Waiting", 0, 0))
	}
	d.Update(message("", "a remark", 0, 0))
	d.Update(message("aaaaaaaaaaaa", "Pull complete", 0, 0))
	d.Update(message("bbbbbbbbbbbb", "Pull complete", 0, 0))
	d.Update(message("", "Digest: sha256:00", 0, 0))
	d.Close()
	got := screen(b.String())
	want := []string{"latest: Pulling from x", "a remark", "  aaaaaaaaaaaa  Pull complete", "  bbbbbbbbbbbb  Pull complete", "Digest: sha256:00"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestLinesFitTheTerminal(t *testing.T) {
	t.Parallel()
	for _, unicode := range []bool{false, true} {
		for _, columns := range []uint{20, 40, 80, 200} {
			d := New(Options{TTY: true, Columns: columns, Unicode: unicode})
			for current := int64(0); current <= 1200; current += 100 { // more than the total, too
				text := d.render(&line{id: "aaaaaaaaaaaa", status: "Downloading", current: current, total: 1000})
				if n := len([]rune(text)); n >= int(columns) {
					t.Errorf("%d columns of %d: %q", n, columns, text)
				}
			}
		}
	}
}

func TestManyLayersFitTheTerminal(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	d := New(Options{Out: &b, TTY: true, Rows: 10, Columns: 80})
	for i := range 200 {
		status := "Pull complete"
		if i%50 == 0 {
			status = "Downloading"
		}
		d.Update(message(fmt.Sprintf("%012d", i), status, 0, 0))
	}
	d.mu.Lock()
	shown := d.visible()
	d.mu.Unlock()
	if len(shown) > 9 || !strings.Contains(shown[len(shown)-1], "196 more layers") {
		t.Errorf("shown: %q", shown)
	}
	d.Close()
}

func TestWhatWasSentVanishes(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	d := New(Options{Out: &b, TTY: true, Columns: 80})
	d.Sent(0, 100)
	d.Sent(100, 100)
	d.Update(client.Progress{Stream: "Loaded image: x\n"})
	d.Close()
	if got := screen(b.String()); len(got) != 1 || got[0] != "Loaded image: x" {
		t.Errorf("screen: %q", got)
	}
}
