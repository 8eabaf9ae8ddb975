package test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// context writes the files of a build context and returns its directory.
func (h *host) context(name string, files map[string]string) string {
	h.t.Helper()
	dir := h.path(name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		h.t.Fatal(err)
	}
	for path, text := range files {
		h.write(filepath.Join(name, path), text, 0o644)
	}
	return dir
}

// build builds, which must succeed, and returns what was shown.
func (h *host) build(args ...string) string {
	h.t.Helper()
	o := h.run(append([]string{"build"}, args...)...)
	if o.code != 0 {
		h.t.Fatalf("berth build %s: code %d\n%s", strings.Join(args, " "), o.code, o.stderr)
	}
	return o.stdout + o.stderr
}

func contains(t *testing.T, text string, wanted ...string) {
	t.Helper()
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			t.Errorf("lacks %q:\n%s", w, text)
		}
	}
}

// The three Dockerfiles that everybody begins with: a program that is compiled in
// the image, a server, and the same in two stages.
func TestBuildWhatBeginnersBuild(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	const source = "#include <stdio.h>\n\nint main() {\n\tprintf(\"Hello from C!\\n\");\n\treturn 0;\n}\n"
	h.context("base", map[string]string{
		"Dockerfile": "FROM scratch\nADD root.tar /\nCMD [\"/bin/sh\"]\n",
		// a compiler, as far as the engine can tell
		"gcc": "#!/bin/sh\n[ -f \"$1\" ] && [ \"$2\" = -o ] && { echo '#!/bin/sh'; echo 'echo Hello from C!'; } > \"$3\" && dd if=/dev/zero bs=1 count=10600 of=\"$3.bin\" 2>/dev/null\n",
	})
	if err := os.Rename(h.busyboxTar(), h.path("base", "root.tar")); err != nil {
		t.Fatal(err)
	}
	h.build("-t", "alpine:3", h.path("base"))
	c := h.context("c", map[string]string{"app.c": source, "gcc": readFile(t, h.path("base", "gcc")), "Dockerfile": `FROM alpine:3
ENV VARIABLE=1
RUN --mount=source=gcc,target=/tmp/gcc mkdir -p /usr/bin && \
    cat /tmp/gcc > /usr/bin/gcc && chmod 755 /usr/bin/gcc
WORKDIR /build
COPY app.c .
RUN gcc app.c -o app && chmod 755 app
RUN rm /build/app.c
ENTRYPOINT ["/build/app"]
`})
	h.build("-t", "hello-c", c)
	if out := h.berth("run", "--rm", "hello-c"); out != "Hello from C!" {
		t.Errorf("the program says %q", out)
	}
	var rows []string
	for line := range strings.Lines(h.berth("history", "--no-trunc", "--format", "{{.Size}}\t{{.CreatedBy}}", "hello-c")) {
		rows = append(rows, strings.TrimSpace(line))
	}
	compiler := strings.TrimSpace(h.berth("run", "--rm", "--entrypoint", "stat", "hello-c", "-c", "%s", "/usr/bin/gcc"))
	for i, want := range []string{"0B\tENTRYPOINT", "0B\tRUN /bin/sh -c rm /build/app.c", "10.6kB\tRUN /bin/sh -c gcc", "74B\tCOPY app.c .",
		"0B\tWORKDIR /build", compiler + "B\tRUN", "0B\tENV VARIABLE=1", "0B\tCMD [\"/bin/sh\"]", "MB\tADD root.tar"} {
		if i >= len(rows) || !strings.Contains(rows[i], want) {
			t.Errorf("row %d of the history lacks %q:\n%s", i, want, strings.Join(rows, "\n"))
		}
	}

	server := h.context("go", map[string]string{"Dockerfile": `FROM alpine:3 AS builder
ENV LISTEN_PORT=80
WORKDIR /go/src
COPY server ./
RUN cp server /app

FROM scratch
COPY --from=builder /app /app
CMD ["/app", "--version"]
`})
	copyFile(t, binary(t, "berth-runtime"), filepath.Join(server, "server"))
	h.build("-t", "two-stages", server)
	contains(t, h.berth("run", "--rm", "two-stages"), "version")
	if out := h.berth("images", "--format", "{{.Repository}}"); !strings.Contains(out, "two-stages") {
		t.Errorf("images: %s", out)
	}
	again := h.build("-t", "two-stages", server)
	contains(t, again, "5 of 5 steps cached")
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if err := os.WriteFile(to, []byte(readFile(t, from)), 0o755); err != nil {
		t.Fatal(err)
	}
}

// What a build says: why a step ran, what is wrong and where, what failed with
// which environment.
func TestBuildExplains(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	dir := h.context("why", map[string]string{"a.txt": "one", "Dockerfile": "FROM " + busyboxImage +
		"\nARG WHO=me\nRUN echo $WHO > /who\nCOPY a.txt /\nRUN cat /a.txt\n"})
	contains(t, h.build("--why", dir), "#2 WHY it was never run before")
	contains(t, h.build("--why", dir), "#2 CACHED", "4 of 4 steps cached")
	contains(t, h.build("--why", "--build-arg", "WHO=you", dir), `WHY build argument WHO: "me" → "you"`)
	h.write("why/a.txt", "two", 0o644)
	contains(t, h.build("--why", dir), "WHY a.txt changed: content", "\ntwo\n"[1:])
	contains(t, h.berth("build", "history", "inspect"), "a.txt changed", "Status:     done")
	contains(t, h.berth("build", "history", "logs"), "two")
	contains(t, h.berth("build", "history", "trace"), "<svg", "COPY a.txt")
	contains(t, h.berth("build", "history", "trace", "--type", "chrome"), `"traceEvents"`)

	h.write("why/Dockerfile", "FROM "+busyboxImage+"\nENV COLOUR=red\nWORKDIR /tmp\nRUN echo before; exit 3\n", 0o644)
	o := h.run("build", dir)
	if o.code != 1 {
		t.Errorf("a failed build ends with %d", o.code)
	}
	contains(t, o.stderr, "Dockerfile:4", ">>> RUN echo before; exit 3", "It ran as root in /tmp with:", "  COLOUR=red", "exit code: 3", "before\n")
	for text, want := range map[string][]string{
		"FROM " + busyboxImage + "\nCOYP a b\n":                   {"Dockerfile:2:1", "did you mean COPY?", "^~~~"},
		"FROM " + busyboxImage + "\nCOPY --form=x a b\n":          {"Dockerfile:2:6", "unknown flag", "--from"},
		"FROM " + busyboxImage + "\nCOPY nothing /\n":             {"nothing", "not found"},
		"FROM " + busyboxImage + "\nRUN --mount=type=sceret true": {"Dockerfile:2", "sceret"},
		"":         {"Dockerfile"},
		"RUN x":    {"Dockerfile:1", "FROM"},
		"FROM a b": {"Dockerfile:1:"},
	} {
		h.write("why/Dockerfile", text, 0o644)
		o := h.run("build", dir)
		if o.code != 1 {
			t.Errorf("%q: code %d", text, o.code)
		}
		contains(t, o.stderr, want...)
	}
	h.write("why/Dockerfile", "FROM "+busyboxImage+"\nrun true\nRUN true\nCMD echo\n", 0o644)
	o = h.run("build", "--check", dir)
	if o.code != 1 {
		t.Errorf("a check with findings ends with %d", o.code)
	}
	contains(t, o.stderr, "ConsistentInstructionCasing", ">>> run true", "JSONArgsRecommended", "2 warnings")
}

// Where results go, and where contexts come from.
func TestBuildInputsAndOutputs(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	dir := h.context("io", map[string]string{
		"a.txt": "a", "skip/b.txt": "b", "skip/keep.txt": "keep", ".dockerignore": "skip\n!skip/keep.txt\n",
		"Dockerfile": "FROM scratch AS files\nCOPY . /\nFROM " + busyboxImage + "\nARG WHO\nCOPY --from=files / /files/\nCOPY --from=extra /e.txt /files/\nRUN echo $WHO > /who\n",
		"other":      "FROM scratch\nCOPY a.txt /only\n",
	})
	extra := h.context("extra", map[string]string{"e.txt": "e"})
	cmd := h.within(h.berthBin, "build", "-q", "--build-context", "extra="+extra, "--build-arg", "WHO", "-t", "io:1", "--iidfile", h.path("iid"),
		"--metadata-file", h.path("meta"), "--label", "a=b", "-o", h.path("out"), "-o", "type=image", "-o", "type=oci,dest="+h.path("oci.tar"), dir)
	cmd.Env = append(cmd.Env, "WHO=somebody")
	o := execute(t, cmd)
	if o.code != 0 {
		t.Fatal(o.stderr)
	}
	id := strings.TrimSpace(o.stdout)
	if !strings.HasPrefix(id, "sha256:") || readFile(t, h.path("iid")) != id {
		t.Errorf("-q prints %q, --iidfile has %q", id, readFile(t, h.path("iid")))
	}
	var meta map[string]any
	if err := json.Unmarshal([]byte(readFile(t, h.path("meta"))), &meta); err != nil || meta["containerimage.config.digest"] != id || meta["image.name"] != "docker.io/library/io:1" {
		t.Errorf("--metadata-file: %v, %v", meta, err)
	}
	want := "/files/.dockerignore\n/files/Dockerfile\n/files/a.txt\n/files/e.txt\n/files/other\n/files/skip/keep.txt\nsomebody"
	if out := h.berth("run", "--rm", "io:1", "sh", "-c", "for f in /files/.dockerignore /files/* /files/skip/*; do [ -f $f ] && echo $f; done; cat /who"); out != want {
		t.Errorf("the image has\n%s\nwant\n%s", out, want)
	}
	if readFile(t, h.path("out", "files", "skip", "keep.txt")) != "keep" || readFile(t, h.path("out", "who")) != "somebody\n" {
		t.Error("-o DIR lacks files")
	}
	contains(t, h.berth("load", "-i", h.path("oci.tar")), "io:1")
	if out := h.berth("inspect", "--format", "{{.Config.Labels.a}}", "io:1"); out != "b" {
		t.Errorf("label: %q", out)
	}

	tarball := execute(t, h.within("sh", "-c", h.berthBin+" build -q -f other -o - "+dir+" | tar t"))
	if strings.TrimSpace(tarball.stdout) != "only" {
		t.Errorf("-o - wrote %q (%s)", tarball.stdout, tarball.stderr)
	}
	piped := execute(t, h.within("sh", "-c", "tar -C "+dir+" -c . | "+h.berthBin+" build -q -f other -"))
	direct := h.berth("build", "-q", "-f", filepath.Join(dir, "other"), dir)
	if strings.TrimSpace(piped.stdout) != direct {
		t.Errorf("from an archive %q, from the directory %q: %s", piped.stdout, direct, piped.stderr)
	}
	text := h.within(h.berthBin, "build", "-q", "-")
	text.Stdin = strings.NewReader("FROM " + busyboxImage + "\nCMD [\"echo\", \"from text\"]\n")
	if o := execute(t, text); h.berth("run", "--rm", strings.TrimSpace(o.stdout)) != "from text" {
		t.Errorf("from text: %s", o.stderr)
	}
}

// A client that shares no directory with its engine sends the files, without what
// is left out.
func TestBuildSendsFilesToAnotherMachine(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.args = []string{"-H", "tcp://127.0.0.1:18375", "-H", h.socket()}
	h.startEngine()
	h.berth("import", h.busyboxTar(), busyboxImage)
	dir := h.context("far", map[string]string{
		"a.txt": "a", "b.log": "b", "deep/er/c.txt": "c", "deep/er/d.log": "d", ".dockerignore": "**/*.log\nDockerfile\n",
		"Dockerfile": "FROM " + busyboxImage + "\nCOPY . /got/\n",
	})
	o := h.run("-H", "tcp://127.0.0.1:18375", "build", "-t", "far:1", dir)
	if o.code != 0 {
		t.Fatal(o.stderr)
	}
	contains(t, o.stderr, "build context:")
	out := h.berth("run", "--rm", "far:1", "sh", "-c", "cd /got; for f in * deep/er/*; do [ -f $f ] && echo $f; done")
	if out != "a.txt\ndeep/er/c.txt" {
		t.Errorf("the image has %q", out)
	}
}

func TestBuildRefusesByName(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	dir := h.context("no", map[string]string{"Dockerfile": "FROM " + busyboxImage + "\n"})
	for _, args := range [][]string{{"--squash"}, {"--annotation", "index:a=b"}, {"--annotation", "a"}, {"--sbom=true"}, {"--platform", "linux/amd64,linux/arm64"},
		{"--cache-to", "type=gha"}, {"--cache-from", "type=s3,ref=x"}, {"--output", "type=nothing"}, {"--progress", "loud"}, {"--push"},
		{"--ssh", "x=/etc/passwd"}, {"--secret", "src=x"}, {"--secret", "id=a,colour=red"}, {"--ulimit", "nofile"}, {"-o", "out", "-t", "x"},
		{"--build-context", "x=oci-layout://y"}, {"--add-host", "x"}, {"--network", "nosuch"}, {"--allow", "everything"}, {"-t", "UPPER"}} {
		o := h.run(append(append([]string{"build"}, args...), dir)...)
		if o.code == 0 || len(strings.TrimSpace(o.stderr)) < 20 {
			t.Errorf("build %s: code %d, %q", strings.Join(args, " "), o.code, o.stderr)
		}
		if bytes.Contains([]byte(o.stderr), []byte("internal")) {
			t.Errorf("build %s: %s", strings.Join(args, " "), o.stderr)
		}
	}
}
