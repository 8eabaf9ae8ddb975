package build

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"berth/internal/build/solve"
)

// whyOf returns why the step ran whose name contains a text.
func (o *outcome) whyOf(step string) string {
	for _, s := range o.Steps {
		if strings.Contains(s.Name, step) && s.Why != "" {
			return s.Why
		}
	}
	return ""
}

// A build says exactly what made a step run again, but never the value of what is
// named like a secret.
func TestWhyAStepRanAgain(t *testing.T) {
	h := newHouse(t)
	dir := h.context(map[string]string{"a": "1", "b": "2", "d/x": "3", "l -> a": ""})
	change := func(name, data string, mode os.FileMode) func() {
		return func() {
			p := filepath.Join(dir, name)
			os.Remove(p)
			os.MkdirAll(filepath.Dir(p), 0o755)
			writeFile(t, p, data)
			os.Chmod(p, mode)
		}
	}
	base := func(text string) func() { return func() { h.build(text, nil, tagged("mine")) } }
	const text = `ARG FROM=mine
FROM busybox AS src
ARG OWNER=1
RUN echo x > /f && chown $OWNER /f
FROM $FROM
ARG X=1 API_TOKEN=one
COPY . /d/
RUN cat /d/a
COPY --from=src /f /g
`
	for _, tt := range []struct {
		name   string
		do     func()
		args   string
		step   string
		want   string
		secret string
	}{
		{"first", base("FROM busybox\nRUN echo 1 > /1\n"), "", "COPY . /d", "it was never run before", ""},
		{"content", change("b", "two", 0o644), "", "COPY . /d", "b changed: content", ""},
		{"mode", change("b", "two", 0o750), "", "COPY . /d", "b changed: mode 644 → 750", ""},
		{"both", change("b", "zwei", 0o600), "", "COPY . /d", "b changed: content, mode 750 → 600", ""},
		{"kind", func() { os.Remove(filepath.Join(dir, "b")); os.Mkdir(filepath.Join(dir, "b"), 0o755) }, "", "COPY . /d", "b changed: kind of file", ""},
		{"target", func() { os.Remove(filepath.Join(dir, "l")); os.Symlink("d", filepath.Join(dir, "l")) }, "", "COPY . /d", "l changed: content", ""},
		{"new", change("c", "c", 0o644), "", "COPY . /d", "c is new", ""},
		{"gone", func() { os.RemoveAll(filepath.Join(dir, "d")) }, "", "COPY . /d", "d is gone, and 1 more", ""},
		{"what is below", nil, "", "RUN cat", "", ""},
		{"argument", nil, "X=2", "RUN cat", `build argument X: "1" → "2"`, ""},
		{"secret argument", nil, "X=2 API_TOKEN=two", "RUN cat", "build argument API_TOKEN has another value", "two"},
		{"owner of a stage's file", nil, "X=2 API_TOKEN=two OWNER=5", "COPY --from=src", "f changed: owner 1:0 → 5:0", ""},
		{"another base image of the name", base("FROM busybox\nRUN echo 2 > /2\n"), "X=2 API_TOKEN=two OWNER=5", "COPY . /d", "the base image mine has moved from sha256:", ""},
		{"after the base image", base("FROM busybox\nRUN echo 3 > /3\n"), "X=2 API_TOKEN=two OWNER=5", "RUN cat", "the files below it changed: an earlier step gave another result", ""},
		{"another base image", nil, "X=2 API_TOKEN=two OWNER=5 FROM=busybox", "COPY . /d", "the base image was mine and is busybox", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			if tt.do != nil {
				tt.do()
			}
			args := map[string]string{}
			for kv := range strings.FieldsSeq(tt.args) {
				k, v, _ := strings.Cut(kv, "=")
				args[k] = v
			}
			o := h.build(text, nil, func(r *Request) { r.ContextDir, r.Args = dir, args })
			why := o.whyOf(tt.step)
			if !strings.HasPrefix(why, tt.want) || tt.want == "" && why != "" {
				t.Errorf("it says %q, want %q", why, tt.want)
			}
			if tt.secret != "" && strings.Contains(fmt.Sprint(o.Steps), tt.secret) {
				t.Errorf("the steps show %s", tt.secret)
			}
		})
	}
}

// What changed of an instruction is told in the Dockerfile's words.
func TestWhyAnotherInstructionRan(t *testing.T) {
	h := newHouse(t)
	dir := h.context(map[string]string{"f": "f", "g": "g"})
	build := func(text string) *outcome {
		return h.build("FROM busybox\n"+text+"\n", nil, func(r *Request) { r.ContextDir = dir })
	}
	for _, tt := range []struct{ before, now, want string }{
		{"COPY f /d/", "COPY --chmod=700 f /d/", `the instruction was "COPY f /d/" and is "COPY --chmod=700 f /d/"`},
		{"COPY f /e/", "COPY f g /e/", `the instruction was "COPY f /e/" and is "COPY f g /e/"`},
		{"RUN echo 1", "RUN echo 2", `the instruction was "RUN echo 1" and is "RUN echo 2"`},
		{"RUN <<E\necho 1\nE", "RUN <<E\necho 2\nE", `command was "[\"/bin/sh\" \"-c\" \"echo 1\\n\"]" and is`},
		{"RUN --mount=type=cache,target=/x true", "RUN --mount=type=cache,target=/y true", `the instruction was "RUN --mount=type=cache,target=/x true"`},
		{"RUN true", "RUN --network=none true", `network was "" and is "none"`},
		{"RUN echo 3", "USER 5\nRUN echo 3", `user was "" and is "5"`},
		{"WORKDIR /w1", "WORKDIR /w2", `the instruction was "WORKDIR /w1" and is "WORKDIR /w2"`},
	} {
		build(tt.before)
		if why := build(tt.now).why(); !strings.HasPrefix(why, tt.want) {
			t.Errorf("%s: it says %s, want %s", tt.now, why, tt.want)
		}
	}
}

// Waiting for a turn is no part of a step's time: it is started when it runs.
func TestStepsAreStartedWhenTheyRun(t *testing.T) {
	h := newHouse(t)
	const slots, stages = 2, 8
	var err error
	if h.b, err = Open(Options{Dir: filepath.Join(h.dir, "few"), DB: h.db, Layers: h.layers, Images: h.images, Executor: h.exec, Parallel: slots}); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	started := 0
	inside, gate := make(chan struct{}, stages), make(chan struct{})
	h.exec.before = func(solve.Step) {
		inside <- struct{}{}
		<-gate
	}
	go func() {
		for range slots {
			<-inside
		}
		mu.Lock()
		if started != slots {
			t.Errorf("%d steps are started while %d run", started, slots)
		}
		mu.Unlock()
		close(gate)
	}()
	var text strings.Builder
	for i := range stages {
		fmt.Fprintf(&text, "FROM busybox AS s%d\nRUN echo %d\n", i, i)
	}
	text.WriteString("FROM scratch\n")
	for i := range stages {
		fmt.Fprintf(&text, "COPY --from=s%d /etc/group /%d\n", i, i)
	}
	h.build(text.String(), nil, func(r *Request) {
		r.Progress = func(e Event) {
			if e.Kind == solve.Started && strings.Contains(e.Name, "RUN") {
				mu.Lock()
				started++
				mu.Unlock()
			}
		}
	})
}

// A warning shows the lines that it is about.
func TestWarningsShowTheirLines(t *testing.T) {
	h := newHouse(t)
	o := h.build("FROM busybox\nENV A=b\nCMD a \\\n  b\nLABEL c=d\n", nil)
	want := "Dockerfile:3\n--------------------\n   1 |     FROM busybox\n   2 |     ENV A=b\n   3 | >>> CMD a \\\n   4 | >>>   b\n   5 |     LABEL c=d\n   6 |     \n--------------------\n"
	if len(o.Warnings) != 1 || o.Warnings[0].Excerpt != want {
		t.Errorf("%+v", o.Warnings)
	}
}
