package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/internal/client"
)

func TestCommandsAgainstAnEngine(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	for _, name := range []string{"web", "db"} {
		e.berth("", "run", "-d", "--name", name, "img", "wait")
	}
	archive := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(archive, make([]byte, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, stdin    string
		args           []string
		code           int
		stdout, stderr string // stderr: a part
	}{
		{"stop says what the engine had to do", "", []string{"stop", "web"}, 0, "web\n", "berth: web: killed: it ignored SIGTERM"},
		{"several at once, in order", "", []string{"stop", "db", "web"}, 0, "db\nweb\n", "ignored"},
		{"one of them is missing", "", []string{"kill", "webb", "db"}, 1, "db\n", "No such container: webb\n  did you mean web?"},
		{"logs", "", []string{"logs", "web"}, 0, "ready\n", "err\n"},
		{"logs of nothing", "", []string{"logs", "wbe"}, 1, "", "did you mean web?"},
		{"logs since nonsense", "", []string{"logs", "--since", "yesterday", "web"}, 1, "", "not a time"},
		{"logs with a bad tail", "", []string{"logs", "-n", "x", "web"}, 1, "", "--tail"},
		{"exec", "", []string{"exec", "web", "echo", "-n", "x"}, 0, "-n x\n", ""},
		{"exec with input", "in", []string{"exec", "-i", "web", "cat"}, 0, "in", ""},
		{"exec's code", "", []string{"exec", "web", "exit", "3"}, 3, "", ""},
		{"exec of nothing", "", []string{"exec", "web", "nosuch"}, 127, "", "no such program"},
		{"exec without a command", "", []string{"exec", "web"}, 1, "", "usage: berth exec"},
		{"load from a file", "", []string{"load", "-i", archive}, 0, "Loaded image: 5000 bytes\n", ""},
		{"load from standard input", "12345", []string{"load", "-q"}, 0, "Loaded image: 5 bytes\n", ""},
		{"load of a missing file", "", []string{"load", "-i", "/nonexistent"}, 1, "", "/nonexistent"},
		{"import", "", []string{"import", archive, "base:1"}, 0, "sha256:abc\n", ""},
		{"import of a directory", "", []string{"import", filepath.Dir(archive)}, 1, "", "tar -C"},
		{"quiet pull", "", []string{"pull", "-q", "ghcr.io/a/b:1"}, 0, "ghcr.io/a/b:1\n", ""},
		{"pull names the default tag", "", []string{"pull", "a/b"}, 0, "Using default tag: latest\nlatest: Pulling from x\n" +
			"0123456789ab: Pulling fs layer\n0123456789ab: Download complete\n0123456789ab: Pull complete\n" +
			"Status: Downloaded newer image\ndocker.io/a/b:latest\n", ""},
		{"failed pull", "", []string{"pull", "broken"}, 1, "Using default tag: latest\nlatest: Pulling from broken\n", "manifest unknown"},
		{"inspect with a template", "", []string{"inspect", "-f", "{{.State.Status}} {{.Name}}", "web"}, 0, "running /web\n", ""},
		{"inspect of nothing", "", []string{"inspect", "nothing"}, 1, "[]\n", "No such object: nothing"},
		{"rm of nothing", "", []string{"rm", "nothing"}, 1, "", "No such container: nothing"},
		{"forced rm of nothing", "", []string{"rm", "-f", "nothing"}, 0, "nothing\n", ""},
		{"ps in a template", "", []string{"ps", "--filter", "name=web", "--format", "{{.Image}}"}, 0, "img\nimg\n", ""},
		{"a filter that is none", "", []string{"ps", "-f", "web"}, 1, "", "NAME=VALUE"},
		{"a command that docker has", "", []string{"compose"}, 1, "", "docker has it"},
		{"a mistyped command", "", []string{"rnu"}, 1, "", "did you mean 'berth run'?"},
		{"a mistyped flag", "", []string{"ps", "--no-truncate"}, 125, "", "did you mean --no-trunc?"},
		{"an unknown shorthand", "", []string{"ps", "-Z"}, 125, "", "berth ps --help"},
		{"a bad address", "", []string{"-H", "ftp://x", "ps"}, 1, "", "unix:///path"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := e.berth(c.stdin, c.args...)
			if o.code != c.code || o.stdout != c.stdout || !strings.Contains(o.stderr, c.stderr) {
				t.Errorf("berth %q:\ngot code %d, stdout %q, stderr %q\nwant code %d, stdout %q, stderr with %q",
					c.args, o.code, o.stdout, o.stderr, c.code, c.stdout, c.stderr)
			}
		})
	}
}

func TestContainerTable(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	s := client.Summary{SummaryHead: client.SummaryHead{ID: strings.Repeat("0123456789abcdef", 4), Names: []string{"/web"}, Image: "sha256:" + strings.Repeat("ab", 32),
		Command: "/docker-entrypoint.sh nginx -g 'daemon off;'", Created: now.Unix() - 7200, State: "running", Status: "Up 2 hours",
		Ports: []client.PortSummary{{IP: "0.0.0.0", PrivatePort: 81, PublicPort: 8081, Type: "tcp"}, {IP: "0.0.0.0", PrivatePort: 80, PublicPort: 8080, Type: "tcp"},
			{IP: "::", PrivatePort: 80, PublicPort: 8080, Type: "tcp"}, {PrivatePort: 443, Type: "tcp"}, {PrivatePort: 53, Type: "udp"}}},
		Labels: map[string]string{"b": "2", "a": "1"},
		Mounts: []client.MountPoint{{Type: "volume", Name: "data", Driver: "local"}, {Type: "bind", Source: "/a/very/long/path/indeed"}}}
	for _, c := range []struct {
		full bool
		want map[string]string
	}{
		{false, map[string]string{"ID": "0123456789ab", "Image": "abababababab", "Command": `"/docker-entrypoint.…"`, "RunningFor": "2 hours ago",
			"Ports": "443/tcp, 0.0.0.0:8080-8081->80-81/tcp, [::]:8080->80/tcp, 53/udp", "Names": "web", "Labels": "a=1,b=2",
			"Mounts": "data,/a/very/long/p…", "LocalVolumes": "1", "Size": "0B"}},
		{true, map[string]string{"ID": s.ID, "Image": s.Image, "Command": `"/docker-entrypoint.sh nginx -g 'daemon off;'"`, "Mounts": "data,/a/very/long/path/indeed"}},
	} {
		row := containerRow(&s, now, c.full)
		for field, want := range c.want {
			if row.Values[field] != want {
				t.Errorf("full %v, %s: got %q, want %q", c.full, field, row.Values[field], want)
			}
		}
	}
}

func TestImageRows(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	digest := "sha256:" + strings.Repeat("cd", 32)
	for _, c := range []struct {
		image client.ImageSummary
		want  [][2]string // repository, tag
	}{
		{client.ImageSummary{RepoTags: []string{"a:1", "r:5000/b:2"}}, [][2]string{{"a", "1"}, {"r:5000/b", "2"}}},
		{client.ImageSummary{RepoDigests: []string{"a@" + digest}}, [][2]string{{"a", "<none>"}}},
		{client.ImageSummary{RepoTags: []string{"<none>:<none>"}}, [][2]string{{"<none>", "<none>"}}},
		{client.ImageSummary{}, [][2]string{{"<none>", "<none>"}}},
	} {
		rows := imageRows(&c.image, &imagesFlags{}, now)
		if len(rows) != len(c.want) {
			t.Errorf("%+v: %d rows", c.image, len(rows))
			continue
		}
		for i, row := range rows {
			if row.Values["Repository"] != c.want[i][0] || row.Values["Tag"] != c.want[i][1] {
				t.Errorf("%+v: row %d is %v", c.image, i, row.Values)
			}
		}
	}
}

func TestParseTime(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 500)
	for in, want := range map[string]string{"": "", "0": "0", "10m": "1699999400.000000500", "1700000000": "1700000000", "1700000000.25": "1700000000.25",
		"2023-11-14T22:13:20Z": "1700000000.000000000", "2023-11-14T22:13:20.5+00:00": "1700000000.500000000"} {
		if got, err := parseTime("since", in, now); err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
	local := time.Date(2023, 11, 14, 0, 0, 0, 0, time.Local)
	if got, err := parseTime("since", "2023-11-14", now); err != nil || got != unixTime(local) {
		t.Errorf("a date: got %q, %v", got, err)
	}
	for _, in := range []string{"soon", "10", "1.", "2023-13-01"} {
		if got, err := parseTime("since", in, now); in != "10" && err == nil {
			t.Errorf("%q was read as %q", in, got)
		}
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	root := e.berth("", "--help")
	for _, group := range groupOrder {
		if !strings.Contains(root.stdout, group+"\n") {
			t.Errorf("the help lacks the group %q", group)
		}
	}
	for name := range strings.FieldsSeq(topLevel + topGroups) {
		c := lookUp(name)
		if c == nil || name == "registry" { // a group, or another program's
			continue
		}
		listed := strings.Contains(root.stdout, "\n  "+c.name+" ")
		if listed != (c.group != "") {
			t.Errorf("%s listed: %v", c.name, listed)
		}
		o := e.berth("", c.name, "--help")
		if o.code != 0 || !strings.Contains(o.stdout, c.short) {
			t.Errorf("berth %s --help: code %d, %q", c.name, o.code, o.stdout)
		}
		for line := range strings.Lines(o.stdout) {
			if len([]rune(line)) > 101 && !strings.HasPrefix(line, "  berth") {
				t.Errorf("berth %s --help: a line of %d columns: %q", c.name, len([]rune(line)), line)
			}
		}
	}
}

// TestEveryFlagOfRunIsInItsHelp keeps the headings of the help complete.
func TestEveryFlagOfRunIsInItsHelp(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	a := &app{in: os.Stdin, out: newSafeBuffer(), err: newSafeBuffer()}
	for _, name := range []string{"run", "create"} {
		help := e.berth("", name, "--help=all").stdout
		for _, f := range flagsOf(a.command(lookUp(name), name).Flags()) {
			if !strings.Contains(help, "--"+f.Name+" ") && !strings.Contains(help, "--"+f.Name+"\n") {
				t.Errorf("berth %s --help=all lacks --%s", name, f.Name)
			}
		}
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.berth("", "create", "--name", "web1", "img")
	e.berth("", "create", "--name", "web2", "img")
	for _, c := range []struct {
		args []string
		want []string
		not  string
	}{
		{[]string{"__complete", "st"}, []string{"start", "stop"}, "run"},
		{[]string{"__complete", "start", "we"}, []string{"web1", "web2"}, "img"},
		{[]string{"__complete", "start", "web1", ""}, []string{"web2"}, "web1\n"},
		{[]string{"__complete", "run", "--pull", ""}, []string{"always", "missing", "never"}, "web"},
		{[]string{"__complete", "run", "--pu"}, []string{"--pull", "--publish"}, "web"},
		{[]string{"__complete", "container", "l"}, []string{"ls", "logs"}, "run"},
	} {
		o := e.berth("", c.args...)
		for _, word := range c.want {
			if !strings.Contains(o.stdout, word) {
				t.Errorf("%q lacks %s: %q", c.args, word, o.stdout)
			}
		}
		if strings.Contains(o.stdout, c.not) {
			t.Errorf("%q has %s: %q", c.args, c.not, o.stdout)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if o := e.berth("", "completion", shell); o.code != 0 || !strings.Contains(o.stdout, "berth") {
			t.Errorf("%s: code %d", shell, o.code)
		}
	}
}

func TestVersionOfTheClientAsksNobody(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	o := e.berth("", "version", "--client")
	if o.code != 0 || !strings.Contains(o.stdout, "Go version") {
		t.Errorf("code %d, %q, %q", o.code, o.stdout, o.stderr)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.requests) != 0 {
		t.Errorf("requests: %v", e.requests)
	}
}
