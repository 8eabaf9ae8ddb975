package buildview

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"berth/internal/wire"
)

var begin = time.Unix(1700000000, 0)

func at(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }

// someBuild is a build of two stages in which everything happens.
func someBuild() []*wire.BuildEvent {
	return []*wire.BuildEvent{
		{Kind: wire.BuildPlanned, Step: 1, Name: "[build 1/3] FROM base"},
		{Kind: wire.BuildPlanned, Step: 2, Name: "[build 2/3] RUN make\tall  now", Inputs: []int{1}, Line: 2},
		{Kind: wire.BuildPlanned, Step: 3, Name: "[internal] load build context"},
		{Kind: wire.BuildPlanned, Step: 4, Name: "[build 3/3] COPY . /", Inputs: []int{2, 3}},
		{Kind: wire.BuildPlanned, Step: 5, Name: "[stage-1 1/1] COPY --from=build /o /", Inputs: []int{4}},
		{Kind: wire.BuildStarted, Step: 1, Time: at(0)},
		{Kind: wire.BuildCached, Step: 1, Time: at(1)},
		{Kind: wire.BuildStarted, Step: 2, Time: at(10), Why: "variable X is new"},
		{Kind: wire.BuildOutput, Step: 2, Time: at(110), Stream: 1, Data: []byte("one\npro")},
		{Kind: wire.BuildOutput, Step: 2, Time: at(210), Stream: 2, Data: []byte("gress 1%\rprogress 99%\n\x1b[31mred\x1b[0m \x1b]0;title\x07\x07unfinished")},
		{Kind: wire.BuildDone, Step: 2, Time: at(1210)},
		{Kind: wire.BuildWarning, Rule: "SomeRule", Message: "something is odd", Line: 2},
	}
}

func TestPlainLines(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	v := New(Options{Out: &b, Why: true})
	for _, e := range someBuild() {
		v.Event(e)
	}
	v.Close()
	want := `#1 [build 1/3] FROM base
#1 CACHED

#2 [build 2/3] RUN make all now
#2 WHY variable X is new
#2 0.100 one
#2 0.200 progress 99%
#2 1.200 red ` + "\uFFFD" + `unfinished
#2 DONE 1.2s

1 warning:
  SomeRule: something is odd (line 2)
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestRawJSONIsBuildKits(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	v := New(Options{Out: &b, Mode: RawJSON})
	for _, e := range someBuild() {
		v.Event(e)
	}
	v.Close()
	digests, logs, warnings := map[string]string{}, "", 0
	for line := range strings.Lines(b.String()) {
		var s rawStatus
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		for _, vertex := range s.Vertexes {
			digests[vertex.Name] = vertex.Digest
			for _, in := range vertex.Inputs {
				if !strings.HasPrefix(in, "sha256:") {
					t.Errorf("input %q", in)
				}
			}
		}
		for _, l := range s.Logs {
			logs += string(l.Data)
		}
		warnings += len(s.Warnings)
	}
	if len(digests) != 5 || !strings.HasPrefix(logs, "one\nprogress 1%") || warnings != 1 {
		t.Errorf("%d vertexes, %d warnings, logs %q", len(digests), warnings, logs)
	}
}

func pictureOf(rows, columns int, events []*wire.BuildEvent, last bool) []string {
	f := &fancy{common: common{o: Options{Title: "app", Unicode: true}, m: newModel(begin)}}
	for _, e := range events {
		f.m.event(e)
	}
	var out []string
	for _, l := range f.picture(at(2000), rows, columns, last) {
		text, _ := f.lay(l, columns)
		out = append(out, strings.TrimRight(text, " "))
	}
	return out
}

func TestPicture(t *testing.T) {
	t.Parallel()
	events := someBuild()[:10]
	want := `⠋ Building app  1/4 steps, 1 cached                2.0s
build   ✓ 1/3 FROM base                          cached
        ⠹ 2/3 RUN make all now                     2.0s
          │ one
          │ progress 99%
          │ red ` + "\uFFFD" + `unfinished
        · 3/3 COPY . /
stage-1 · 1/1 COPY --from=build /o /`
	if got := strings.Join(pictureOf(20, 56, events, false), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Whatever the size of the terminal, no line is longer than it and no picture
// higher, with wide characters and all.
func TestPicturesFit(t *testing.T) {
	t.Parallel()
	var events []*wire.BuildEvent
	for i := 1; i <= 40; i++ {
		stage := fmt.Sprintf("阶段%d", i%7)
		events = append(events, &wire.BuildEvent{Kind: wire.BuildPlanned, Step: i, Name: fmt.Sprintf("[%s %d/9] RUN echo 漢字漢字漢字 🚢 and more", stage, i)})
	}
	for i := 1; i <= 30; i++ {
		events = append(events, &wire.BuildEvent{Kind: wire.BuildStarted, Step: i, Time: at(i), Why: "because"},
			&wire.BuildEvent{Kind: wire.BuildOutput, Step: i, Time: at(i), Data: []byte("tab\tand 漢字 in a line that goes on and on and on\nx\ny\n")})
		if i%3 > 0 {
			events = append(events, &wire.BuildEvent{Kind: []string{wire.BuildDone, wire.BuildCached}[i%2], Step: i, Time: at(i + 5)})
		}
		for _, columns := range []int{1, 5, 20, 50, 80, 200} {
			for _, rows := range []int{3, 10, 24, 100} {
				lines := pictureOf(rows, columns, events, false)
				if len(lines) > rows {
					t.Fatalf("%d lines on %d rows", len(lines), rows)
				}
				for _, l := range lines {
					if width(l) >= max(columns, 2) {
						t.Fatalf("%d columns of %d: %q", width(l), columns, l)
					}
				}
			}
		}
	}
}

func TestRedrawnInPlaceAlsoAfterTheTerminalBecameNarrower(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	columns := 60
	f := &fancy{common: common{o: Options{Out: &b, Title: "app", Size: func() (int, int) { return 24, columns }}, m: newModel(begin)}}
	for _, e := range someBuild() {
		f.m.event(e)
	}
	f.draw(at(2000), false)
	lines := strings.Count(b.String(), "\n")
	b.Reset()
	f.draw(at(2000), false)
	if want := fmt.Sprintf("\x1b[%dA\r", lines); !strings.HasPrefix(b.String(), want) {
		t.Errorf("the second picture begins with %q, want %q", b.String()[:10], want)
	}
	columns = 30 // each line that is longer takes two rows now
	b.Reset()
	f.draw(at(2000), true)
	m := regexp.MustCompile(`^\x1b\[(\d+)A`).FindStringSubmatch(b.String())
	if m == nil || m[1] <= fmt.Sprint(lines) {
		t.Errorf("after narrowing: %q, %d lines before", b.String()[:10], lines)
	}
}

func TestFailure(t *testing.T) {
	t.Parallel()
	v := New(Options{Out: &bytes.Buffer{}})
	e := &wire.BuildEvent{Kind: wire.BuildFailed, Excerpt: "Dockerfile:2\n>>> RUN x\n",
		Failure: &wire.BuildFailure{Step: "[1/1] RUN x", Env: []string{"A=b"}, Code: 127, Tail: "before\r\nsh: x: \x1b[1mnot found\x1b[0m\n"}}
	text := v.Failure(e)
	for _, want := range []string{" > [1/1] RUN x:\nbefore\nsh: x: not found\n", "Dockerfile:2\n", "as root in / with:\n  A=b\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %q:\n%s", want, text)
		}
	}
	if !strings.Contains(e.Hint, "no such program") {
		t.Errorf("hint: %q", e.Hint)
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a\x1b[31mb\x1b]0;t\x1b\\c\rd\te\x1b")
	f.Fuzz(func(t *testing.T, line string) {
		got := clean(line)
		if strings.ContainsAny(got, "\x1b\r\x07\u009b") {
			t.Errorf("%q became %q", line, got)
		}
		for n := range 20 {
			if w := width(fit(valid(got), n)); w > n && n > 0 {
				t.Errorf("%q takes %d columns of %d", got, w, n)
			}
		}
	})
}
