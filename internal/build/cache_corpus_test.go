package build

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What is found again and what is not, as BuildKit's tests have it.
func TestCacheCorpus(t *testing.T) {
	h := newHouse(t)
	dir := h.context(map[string]string{"file1": "foo", "foo1": "1", "foo2": "2", "bar": "b", "cachebust": "0", "sub/x": "x", ".dockerignore": "ignored"})
	unique := 0
	for _, tt := range []struct {
		name, text string
		change     func()
		request    func(*Request)
		ran        string // of "unique" steps, the second time
	}{
		{name: "a file with another name", text: "FROM busybox\nCOPY file* /files/\nRUN unique a\n", ran: "a",
			change: func() { os.Rename(filepath.Join(dir, "file1"), filepath.Join(dir, "file2")) }},
		{name: "a file of a later step", text: "FROM busybox\nCOPY foo* files/\nRUN unique a\nCOPY bar files/\nRUN unique b\n", ran: "b",
			change: func() { writeFile(t, filepath.Join(dir, "bar"), "other") }},
		{name: "a file of a wildcard", text: "FROM busybox\nCOPY foo* files/\nRUN unique a\n", ran: "a",
			change: func() { writeFile(t, filepath.Join(dir, "foo2"), "other") }},
		{name: "a file that nobody copies", text: "FROM busybox\nCOPY foo* files/\nRUN unique a\n",
			change: func() { writeFile(t, filepath.Join(dir, "unrelated"), "other") }},
		{name: "a file that is left out", text: "FROM busybox\nCOPY . files/\nRUN unique a\n",
			change: func() { writeFile(t, filepath.Join(dir, "ignored"), "other") }},
		{name: "the times of files", text: "FROM busybox\nCOPY . files/\nRUN unique a\n",
			change: func() { os.Chtimes(filepath.Join(dir, "bar"), time.Unix(1, 0), time.Unix(1, 0)) }},
		{name: "the mode of the directory whose content is copied", text: "FROM busybox\nCOPY sub files/\nRUN unique a\n",
			change: func() { os.Chmod(filepath.Join(dir, "sub"), 0o700) }},
		{name: "a stage that comes out the same", text: "FROM busybox AS build\nCOPY cachebust /\nRUN mkdir out && echo foo > out/foo\nFROM busybox\nCOPY --from=build /out /x\nRUN unique a\n",
			change: func() { writeFile(t, filepath.Join(dir, "cachebust"), "1") }},
		{name: "an argument that is not used after", text: "FROM busybox\nRUN unique a\nARG X\nRUN unique b\n", ran: "b",
			request: func(r *Request) { r.Args = map[string]string{"X": "2"} }},
		{name: "a proxy", text: "FROM busybox\nRUN unique a\n", request: func(r *Request) { r.Args = map[string]string{"http_proxy": "http://p"} }},
		{name: "a label", text: "FROM busybox\nRUN unique a\n", request: func(r *Request) { r.Labels = map[string]string{"a": "b"} }},
		{name: "another target of the same steps", text: "FROM busybox AS a\nRUN unique a\nFROM a AS b\nENV X=1\n", request: func(r *Request) { r.Target = "a" }},
		{name: "no cache", text: "FROM busybox AS s0\nRUN unique a\nFROM s0\nRUN unique b\n", ran: "a b", request: func(r *Request) { r.NoCache = true }},
		{name: "no cache for one stage", text: "FROM busybox AS s0\nRUN unique a\nFROM busybox AS s1\nRUN unique b\nFROM scratch\nCOPY --from=s0 /etc /0\nCOPY --from=s1 /etc /1\n", ran: "b", request: func(r *Request) { r.NoCacheOnly = []string{"s1"} }},
		{name: "no cache for a stage that another begins with", text: "FROM busybox AS s0\nRUN unique a\nFROM s0\nRUN unique b\n", ran: "a b", request: func(r *Request) { r.NoCacheOnly = []string{"s0"} }},
		{name: "what is in a cache mount", text: "FROM busybox\nRUN --mount=type=cache,id=cc,target=/c echo 1 >> /c/n && unique a\n", change: func() {
			h.build("FROM busybox\nRUN --mount=type=cache,id=cc,target=/c echo 2 >> /c/n\n", nil)
		}},
		{name: "a secret's value", text: "FROM busybox\nRUN --mount=type=secret,id=s unique a\n", request: func(r *Request) { r.Secrets = secrets{"s": "other"} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			unique++ // each text is new, and each step changes something every time
			text := strings.ReplaceAll(tt.text, "unique ", "cat /proc/sys/kernel/random/uuid > /u; : "+strings.Repeat("x", unique)+" ")
			at := func(r *Request) { r.ContextDir = dir }
			h.build(text, nil, at)
			if tt.change != nil {
				tt.change()
			}
			request := func(r *Request) {
				if tt.request != nil {
					tt.request(r)
				}
			}
			var ran []string
			for line := range strings.Lines(h.build(text, nil, at, request).ran()) {
				if strings.Contains(line, "/u; : ") {
					fields := strings.Fields(line)
					ran = append(ran, fields[len(fields)-1])
				}
			}
			if got := strings.Join(ran, " "); got != tt.ran {
				t.Errorf("it ran %q, want %q", got, tt.ran)
			}
		})
	}
	h.t = t
	h.clean()
}
