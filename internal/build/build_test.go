package build

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestMultiStageBuild(t *testing.T) {
	h := newHouse(t)
	files := map[string]string{"src/app.c": "int main;", "src/skip.o": "x", ".dockerignore": "**/*.o"}
	const text = `
FROM busybox AS builder
ARG WHO=world
ENV GREETING=hello
WORKDIR /build
COPY src .
RUN echo $GREETING $WHO > out && cat app.c >> out && ls > list
FROM busybox AS unused
RUN false
FROM busybox
COPY --from=builder --chown=web:www /build/out /app/
RUN rm /etc/group
USER web
CMD ["cat", "/app/out"]
`
	o := h.build(text, files, func(r *Request) { r.Tags = []string{"app"} })
	h.want(o, map[string]string{"app/out": "644 500:600 hello world\nint main;", "app": "755 500:600 dir"})
	if got := h.tree(o, ""); got["etc/group"] != "" {
		t.Error("a deleted file is there")
	}
	c := o.config()
	var history []string
	for _, e := range c.History {
		history = append(history, fmt.Sprint(e.EmptyLayer, " ", e.CreatedBy))
	}
	want := []string{"false ", "false COPY --chown=web:www /build/out /app/ # buildkit", "false RUN /bin/sh -c rm /etc/group # buildkit", "true USER web", `true CMD ["cat" "/app/out"]`}
	if !slices.Equal(history, want) {
		t.Errorf("history %q", history)
	}
	if len(c.RootFS.DiffIDs) != 3 || c.Config.User != "web" {
		t.Errorf("config %+v", c)
	}
	if got := h.layerFiles(o, 2); fmt.Sprint(got) != "[etc etc/group]" {
		t.Errorf("the layer of rm has %v", got)
	}
	again := h.build(text, files, func(r *Request) { r.Tags = []string{"app"} })
	if again.ran() != "" || again.Image.ID != o.Image.ID {
		t.Errorf("built again: %s; %s and %s", again.ran(), again.Image.ID, o.Image.ID)
	}
	h.clean()
}

func TestStepsLeaveNothingOfTheirMounts(t *testing.T) {
	h := newHouse(t)
	o := h.build(`FROM scratch
COPY --from=busybox /bin /bin
RUN --mount=type=cache,target=/var/cache/x --mount=type=tmpfs,target=/t/u --mount=type=secret,id=s --mount=type=bind,from=busybox,source=/etc,target=/conf echo hi > /var/cache/x/f; ls /conf
RUN ["true"]
WORKDIR /
`, nil, func(r *Request) { r.Secrets = secrets{"s": "geheim"} })
	if n := len(o.Layers); n != 1 {
		t.Errorf("%d layers, want 1: the steps changed nothing; the last has %v", n, h.layerFiles(o, n-1))
	}
	h.clean()
}

func TestCacheIsByContent(t *testing.T) {
	h := newHouse(t)
	const text = "FROM busybox\nARG X=1\nCOPY a b /d/\nRUN cat /d/a > /out\n"
	dir := h.context(map[string]string{"a": "1", "b": "2", "c": "3"})
	at := func(r *Request) { r.ContextDir = dir }
	first := h.build(text, nil, at)
	for _, tt := range []struct {
		name, text string
		change     func(*Request)
		file, data string
		ran, why   string
	}{
		{name: "nothing", text: text},
		{name: "a file that is not copied", text: text, file: "c", data: "new"},
		{name: "a file", text: text, file: "b", data: "new", ran: "COPY a b /d/|RUN cat /d/a > /out", why: "b changed: content"},
		{name: "the file as it was", text: text, file: "b", data: "2"},
		{name: "an argument", text: text, change: func(r *Request) { r.Args = map[string]string{"X": "2"} }, ran: "RUN cat /d/a > /out", why: `build argument X: "1" → "2"`},
		{name: "a command", text: strings.Replace(text, "/out", "/other", 1), ran: "RUN cat /d/a > /other", why: `the instruction was "RUN cat /d/a > /out" and is "RUN cat /d/a > /other"`},
		{name: "a line before", text: strings.Replace(text, "COPY", "ENV Y=1\nCOPY", 1), ran: "RUN cat /d/a > /out", why: "variable Y is new"},
		{name: "a comment", text: strings.Replace(text, "COPY", "# comment\nCOPY", 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			if tt.file != "" {
				writeFile(t, dir+"/"+tt.file, tt.data)
			}
			change := tt.change
			if change == nil {
				change = func(*Request) {}
			}
			o := h.build(tt.text, nil, at, change)
			var ran []string
			for line := range strings.Lines(o.ran()) {
				_, step, _ := strings.Cut(strings.TrimSpace(line), "] ")
				ran = append(ran, step)
			}
			if got := strings.Join(ran, "|"); got != tt.ran {
				t.Errorf("it ran %q, want %q", got, tt.ran)
			}
			if !strings.HasPrefix(o.why(), tt.why) || tt.why == "" && o.why() != "" {
				t.Errorf("why: %q, want %q", o.why(), tt.why)
			}
		})
	}
	h.t = t
	if o := h.build(text, nil, at, func(r *Request) { r.NoCache = true }); len(o.ran()) == 0 || o.Image.ID == first.Image.ID {
		t.Errorf("without cache: %q", o.ran())
	}
	if o := h.build("FROM busybox\nRUN true\n", nil); o.ran() == "" {
		t.Error("a new step is a hit")
	}
}
