package dockerfile

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/build/graph"
	"berth/internal/fault"
)

// images answers with images made by hand.
type images map[string]Base

func (m images) Resolve(_ context.Context, ref string, _ ocispec.Platform) (Base, error) {
	name := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(ref, "docker.io/"), "library/"), ":latest")
	if b, ok := m[name]; ok {
		return b, nil
	}
	return Base{}, fault.New(fault.NotFound, "find image", ref, "no such image")
}

func testImages() images {
	m := images{}
	for i, name := range []string{"base", "other", "onbuild", "trigger-copy"} {
		var b Base
		b.ID = digest.FromString("id" + name)
		b.Config.OS, b.Config.Architecture = "linux", "amd64"
		b.Config.RootFS.Type = "layers"
		b.Config.RootFS.DiffIDs = []digest.Digest{digest.FromString(fmt.Sprint("layer", i))}
		b.Config.History = []ocispec.History{{CreatedBy: "ADD rootfs.tar /"}}
		b.Config.Config.Env = []string{"PATH=/bin", "FROM_BASE=yes"}
		b.Config.Config.Cmd = []string{"sh"}
		m[name] = b
	}
	b := m["onbuild"]
	b.Config.Config.OnBuild = []string{"RUN echo triggered", "ENV T=1"}
	m["onbuild"] = b
	b = m["trigger-copy"]
	b.Config.Config.OnBuild = []string{"COPY --from=other /x /y"}
	m["trigger-copy"] = b
	return m
}

var amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}

func translate(t testing.TB, text string, change ...func(*Options)) (*graph.Graph, error) {
	t.Helper()
	o := Options{Platform: amd64, Images: testImages()}
	for _, c := range change {
		c(&o)
	}
	return Translate(context.Background(), []byte(text), o)
}

func must(t testing.TB, text string, change ...func(*Options)) *graph.Graph {
	t.Helper()
	g, err := translate(t, text, change...)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// texts lists the instructions of a graph in order.
func texts(g *graph.Graph) string {
	var out []string
	for _, n := range g.Nodes {
		out = append(out, n.Name)
	}
	return strings.Join(out, "\n")
}

// execs returns the RUN steps.
func execs(g *graph.Graph) []*graph.Exec {
	var out []*graph.Exec
	for _, n := range g.Nodes {
		if e, ok := n.Op.(*graph.Exec); ok {
			out = append(out, e)
		}
	}
	return out
}

func copies(g *graph.Graph) []*graph.Copy {
	var out []*graph.Copy
	for _, n := range g.Nodes {
		if f, ok := n.Op.(*graph.File); ok {
			for _, a := range f.Actions {
				if c, ok := a.(*graph.Copy); ok {
					out = append(out, c)
				}
			}
		}
	}
	return out
}

func TestOnlyWhatTheTargetNeedsIsInTheGraph(t *testing.T) {
	const text = `
FROM base AS unused
RUN make unused
FROM base AS builder
RUN make
FROM other AS tests
COPY --from=builder /out /out
RUN test
FROM scratch
COPY --from=builder /out /
`
	got := texts(must(t, text))
	want := "[builder 1/2] FROM base\n[builder 2/2] RUN make\n[stage-3 1/1] COPY --from=builder /out /"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	got = texts(must(t, text, func(o *Options) { o.Target = "tests" }))
	if !strings.Contains(got, "RUN test") || strings.Contains(got, "stage-3") || strings.Contains(got, "unused") {
		t.Errorf("target tests has\n%s", got)
	}
}

func TestArgumentScopes(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		args       map[string]string
		want       string // the first RUN's arguments, joined
	}{
		{"default", "FROM base\nARG X=1\nRUN echo [\"$X\"]\nENV Y=$X\nRUN [\"echo\", \"a\"]", nil, "X=1"},
		{"given", "FROM base\nARG X=1\nRUN true", map[string]string{"X": "2"}, "X=2"},
		{"not declared", "FROM base\nRUN true", map[string]string{"X": "2"}, ""},
		{"global needs declaring", "ARG X=g\nFROM base\nRUN true", nil, ""},
		{"global declared", "ARG X=g\nFROM base\nARG X\nRUN true", nil, "X=g"},
		{"stage default over global", "ARG X=g\nFROM base\nARG X=s\nRUN true", nil, "X=s"},
		{"inherited by a stage", "FROM base AS a\nARG X=a\nFROM a\nRUN true", nil, "X=a"},
		{"env wins", "FROM base\nENV X=e\nARG X=a\nENV X=e2\nRUN true", nil, "X=e2"},
		{"predefined platform", "FROM base\nARG TARGETARCH\nENV X=$TARGETARCH\nRUN true", nil, "X=amd64"},
		{"modifiers", "FROM base\nARG A=foo.tar.gz\nENV X=${A%.gz}-${B:-none}-${A:+set}-${A/foo/bar}\nRUN true", nil, "X=foo.tar-none-set-bar.tar.gz"},
		{"several in one", "FROM base\nARG A=1 X=$A\nRUN true", nil, "X=1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := must(t, tt.text, func(o *Options) { o.Args = tt.args })
			got := ""
			for _, kv := range execs(g)[0].Env {
				if strings.HasPrefix(kv, "X=") {
					got = kv
				}
			}
			if got != tt.want {
				t.Errorf("RUN sees %q, want %q", got, tt.want)
			}
		})
	}
}

func TestProxyIsNoPartOfTheStep(t *testing.T) {
	g := must(t, "FROM base\nRUN true", func(o *Options) { o.Args = map[string]string{"HTTP_PROXY": "http://p"} })
	e := execs(g)[0]
	if len(e.Proxy) != 2 || strings.Contains(strings.Join(e.Env, " "), "PROXY") {
		t.Errorf("proxy %v, environment %v", e.Proxy, e.Env)
	}
	for _, h := range g.Image.History {
		if strings.Contains(h.CreatedBy, "http://p") {
			t.Errorf("history has the proxy: %s", h.CreatedBy)
		}
	}
}

func TestHistoryAndConfig(t *testing.T) {
	g := must(t, `FROM base
ARG V=1
ENV A=b C="d e"
LABEL l=m
WORKDIR /build
WORKDIR sub
COPY --chown=1:2 app.c .
RUN gcc -o app \
    app.c
EXPOSE 80 53/udp 8000-8001
USER me
VOLUME /data
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=5s CMD curl x
SHELL ["/bin/bash", "-c"]
ENTRYPOINT ["/app"]
CMD echo hi
MAINTAINER you
`, func(o *Options) { o.Labels = map[string]string{"extra": "1"} })
	var got []string
	for _, h := range g.Image.History {
		got = append(got, h.CreatedBy)
		if (h.Node == nil) != h.EmptyLayer && h.Comment != "" {
			t.Errorf("%s: empty layer %v", h.CreatedBy, h.EmptyLayer)
		}
	}
	want := []string{
		"ADD rootfs.tar /", "ARG V=1", "ENV A=b C=d e", "LABEL l=m", "WORKDIR /build", "WORKDIR /build/sub",
		"COPY --chown=1:2 app.c . # buildkit", "RUN |1 V=1 /bin/sh -c gcc -o app     app.c # buildkit",
		"EXPOSE [53/udp 80/tcp 8000/tcp 8001/tcp]", "USER me", "VOLUME [/data]", "STOPSIGNAL SIGQUIT",
		"HEALTHCHECK {Test:[CMD-SHELL curl x] Interval:5s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
		"SHELL [/bin/bash -c]", `ENTRYPOINT ["/app"]`, `CMD ["/bin/bash" "-c" "echo hi"]`, "MAINTAINER you",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("history\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	c := g.Image.Config.Config
	if c.User != "me" || c.WorkingDir != "/build/sub" || c.StopSignal != "SIGQUIT" || c.Labels["extra"] != "1" || c.Labels["l"] != "m" ||
		fmt.Sprint(c.Env) != "[PATH=/bin FROM_BASE=yes A=b C=d e]" || len(c.ExposedPorts) != 4 || g.Image.Config.Author != "you" {
		t.Errorf("config %+v", c)
	}
}

func TestTriggersOfTheBaseRunFirst(t *testing.T) {
	g := must(t, "FROM onbuild\nRUN own")
	if got := texts(g); got != "[1/3] FROM onbuild\n[2/3] ONBUILD RUN echo triggered\n[3/3] RUN own" {
		t.Errorf("got\n%s", got)
	}
	if len(g.Image.Config.Config.OnBuild) != 0 || !strings.Contains(strings.Join(g.Image.Config.Config.Env, " "), "T=1") {
		t.Errorf("config %+v", g.Image.Config.Config)
	}
	if got := texts(must(t, "FROM trigger-copy")); !strings.Contains(got, "FROM other") || !strings.Contains(got, "ONBUILD COPY") {
		t.Errorf("a trigger's own source is missing:\n%s", got)
	}
	if got := texts(must(t, "FROM base AS a\nONBUILD RUN later\nFROM a\n")); !strings.Contains(got, "ONBUILD RUN later") {
		t.Errorf("the trigger of a stage is missing:\n%s", got)
	}
}

func TestMounts(t *testing.T) {
	g := must(t, `FROM base AS src
FROM base
WORKDIR /w
ARG ID=xyz
RUN --mount=type=cache,target=/root/.cache,id=$ID,sharing=locked,uid=5 \
    --mount=type=bind,from=src,source=/etc,target=conf \
    --mount=type=secret,id=tok,env=TOK \
    --mount=type=secret,id=file,required \
    --mount=type=ssh --mount=type=tmpfs,target=/t,size=1m \
    --mount=target=/ctx,rw --network=none true
`)
	m := execs(g)[0].Mounts
	for i, want := range []graph.Mount{
		{Kind: graph.Cache, Target: "/root/.cache", ID: "xyz", Sharing: graph.Locked, UID: 5, Mode: 0o755, Input: -1, Source: "/"},
		{Kind: graph.Bind, Target: "/w/conf", Source: "/etc", Input: 1, ReadOnly: true},
		{Kind: graph.Secret, ID: "tok", Env: "TOK", NoFile: true, Input: -1, Source: "/", ReadOnly: true, Mode: 0o400},
		{Kind: graph.Secret, ID: "file", Target: "/run/secrets/file", Required: true, Input: -1, Source: "/", ReadOnly: true, Mode: 0o400},
		{Kind: graph.SSH, ID: "default", Target: "/run/buildkit/ssh_agent.0", Input: -1, Source: "/", ReadOnly: true, Mode: 0o600},
		{Kind: graph.Tmpfs, Target: "/t", Size: 1 << 20, Input: -1, Source: "/"},
		{Kind: graph.Bind, Target: "/ctx", Source: "/", Input: 2},
	} {
		if m[i] != want {
			t.Errorf("mount %d is\n%+v, want\n%+v", i, m[i], want)
		}
	}
	if execs(g)[0].Network != "none" {
		t.Error("the network is not off")
	}
}

func TestWeakerIsolationNeedsConsent(t *testing.T) {
	for flag, allow := range map[string]func(*Options){
		"--security=insecure": func(o *Options) { o.Insecure = true },
		"--network=host":      func(o *Options) { o.HostNetwork = true },
	} {
		text := "FROM base\nRUN " + flag + " true"
		if _, err := translate(t, text); !fault.Is(err, fault.Forbidden) {
			t.Errorf("%s: %v, want forbidden", flag, err)
		}
		must(t, text, allow)
	}
}

func TestCopies(t *testing.T) {
	g := must(t, `FROM base
WORKDIR /w
COPY --link --chmod=u+x --exclude=*.o a b/ dst/
COPY --parents x/./y/z.* .
ADD --checksum=sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 https://example.com/f.tgz /
ADD --keep-git-dir=true https://example.com/r.git#v1:sub /src
COPY <<one <<"two" /docs/
${FROM_BASE}
one
${FROM_BASE}
two
`)
	c := copies(g)
	if c[0].Dest != "/w/dst/" || c[1].Src != "/b/" || c[0].Mode != "u+x" || fmt.Sprint(c[0].Exclude) != "[*.o]" {
		t.Errorf("%+v %+v", c[0], c[1])
	}
	if !c[2].Parents || c[2].Src != "/x" || c[2].Pattern != "y/z.*" || c[2].Dest != "/w/" {
		t.Errorf("%+v", c[2])
	}
	var docs []string
	for _, n := range g.Nodes {
		switch op := n.Op.(type) {
		case *graph.Git:
			if op.Remote != "https://example.com/r.git" || op.Ref != "v1" || op.Subdir != "sub" || !op.KeepDir {
				t.Errorf("%+v", op)
			}
		case *graph.HTTP:
			if op.Filename != "f.tgz" {
				t.Errorf("%+v", op)
			}
		case *graph.File:
			if m, ok := op.Actions[0].(*graph.MakeFile); ok {
				docs = append(docs, string(m.Data))
			}
		}
	}
	if fmt.Sprint(docs) != "[yes\n ${FROM_BASE}\n]" {
		t.Errorf("documents %q", docs)
	}
}

func TestHeredocRuns(t *testing.T) {
	g := must(t, "FROM base\nRUN <<EOF\necho a\necho b\nEOF\nRUN <<EOF\n#!/usr/bin/env python\nprint(1)\nEOF\nRUN cat <<A >x\nhi\nA\n")
	e := execs(g)
	if e[0].Args[2] != "echo a\necho b\n" || e[1].Args[0] != "/dev/pipes/EOF" || e[2].Args[2] != "cat <<A >x\nhi\nA" {
		t.Errorf("%q %q %q", e[0].Args, e[1].Args, e[2].Args)
	}
}

func TestNamedContexts(t *testing.T) {
	contexts := func(o *Options) {
		o.Contexts = map[string]NamedContext{
			"alpine": {Kind: ImageContext, Value: "other"}, "files": {Kind: LocalContext, Value: "files"}, "b": {Kind: ImageContext, Value: "base"},
		}
	}
	got := texts(must(t, "FROM nonsense AS b\nRUN never\nFROM alpine:latest\nCOPY --from=files /a /b\nCOPY --from=b /c /d\n", contexts))
	for _, want := range []string{"FROM other", "[context files]", "FROM base"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing in\n%s", want, got)
		}
	}
	if strings.Contains(got, "never") {
		t.Errorf("a stage that a context stands in for runs:\n%s", got)
	}
}
