package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// logFiles are the files of a container's log, with their sizes.
func (h *host) logFiles(name string) map[string]int64 {
	h.t.Helper()
	id := h.ok("inspect", "-f", "{{.Id}}", name)
	paths, _ := filepath.Glob(h.path("data", "containers", id, id+"-*.log*"))
	files := make(map[string]int64)
	for _, p := range paths {
		if info, err := os.Stat(p); err == nil {
			files[strings.TrimPrefix(filepath.Base(p), id)] = info.Size()
		}
	}
	return files
}

// TestLogAttributes gives containers labels and variables, which each driver keeps with
// the lines if it is told to.
func TestLogAttributes(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	server := h.syslogServer(h.path("syslog.sock"))
	for _, driver := range []string{"json-file", "local", "syslog"} {
		args := []string{"run", "--network", "none", "--name", driver, "--log-driver", driver, "-l", "tier=front", "-l", "team.name=a b", "-l", "other=x",
			"-e", "MODE=fast", "-e", "APP_ONE=1", "-e", "HIDDEN=y", "--log-opt", "labels=tier,absent", "--log-opt", "labels-regex=^team", "--log-opt", "env=MODE", "--log-opt", "env-regex=^APP_"}
		if driver == "syslog" {
			args = append(args, "--log-opt", "syslog-address=unix://"+h.path("syslog.sock"))
		}
		h.ok(append(args, busyboxImage, "echo", "line 1")...)
		h.equal(h.ok("logs", "--details", driver), "APP_ONE=1,MODE=fast,team.name=a b,tier=front line 1")
		h.equal(h.ok("logs", driver), "line 1")
	}
	h.eventually("the line is sent", func() bool { n, _ := server.count(); return n == 1 })

	all := "{{.ID}}|{{.FullID}}|{{.Name}}|{{.FullName}}|{{.ImageID}}|{{.ImageFullID}}|{{.ImageName}}|{{.Command}}|{{.DaemonName}}|{{.Hostname}}|" +
		`{{.ContainerName}}|{{index .ContainerLabels "k"}}|{{index .ExtraAttributes "k"}}|{{upper .Name}}|{{truncate .FullID 3}}|{{join (split .Name "a") "-"}}|{{json .Name}}`
	h.ok("run", "--network", "none", "--name", "tagged", "-l", "k=v", "--log-opt", "labels=k", "--log-opt", "tag="+all, busyboxImage, "echo", "one", "two")
	id, image := h.ok("inspect", "-f", "{{.Id}}", "tagged"), h.ok("inspect", "-f", "{{.Image}}", "tagged")
	machine, _ := os.Hostname()
	want := strings.Join([]string{id[:12], id, "tagged", "/tagged", strings.TrimPrefix(image, "sha256:")[:12], image, busyboxImage, "echo one two", "berth", machine,
		"/tagged", "v", "v", "TAGGED", id[:3], "t-gged", `"tagged"`}, "|")
	h.equal(h.ok("logs", "--details", "tagged"), "k=v,tag="+want+" one two")
}

// TestLogFilesKeepTheirBounds looks at the files that the options about them lead to.
func TestLogFilesKeepTheirBounds(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	address := "syslog-address=unix://" + h.path("syslog.sock")
	server := h.syslogServer(h.path("syslog.sock"))
	const lines = 4000
	for name, c := range map[string]struct {
		options []string
		files   int
		zipped  bool
		file    string
	}{
		"json":         {[]string{"max-size=10k", "max-file=3"}, 3, false, "-json.log"},
		"json-zipped":  {[]string{"max-size=10k", "max-file=3", "compress=true"}, 3, true, "-json.log"},
		"local":        {[]string{"max-size=10k", "max-file=2", "compress=false"}, 2, false, "-local.log"},
		"local-zipped": {[]string{"max-size=10k", "max-file=4"}, 4, true, "-local.log"},
		"sys":          {[]string{address, "cache-max-size=10k", "cache-max-file=2", "cache-compress=false"}, 2, false, "-local.log"},
		"sys-zipped":   {[]string{address, "cache-max-size=10k", "cache-max-file=3"}, 3, true, "-local.log"},
		"sys-one":      {[]string{address, "cache-max-size=-1"}, 1, false, "-local.log"},
		"json-others":  {[]string{"max-size=-1", "cache-disabled=true", "cache-max-size=1k", "cache-max-file=9"}, 1, false, "-json.log"},
	} {
		driver := map[string]string{"js": "json-file", "lo": "local", "sy": "syslog"}[name[:2]]
		args := []string{"run", "--network", "none", "--name", name, "--log-driver", driver}
		for _, o := range c.options {
			args = append(args, "--log-opt", o)
		}
		h.ok(append(args, busyboxImage, "sh", "-c", fmt.Sprintf(countTo, lines))...)
		var files map[string]int64
		h.eventually(fmt.Sprint(name, ": ", c.files, " files, all but one zipped: ", c.zipped), func() bool {
			files = h.logFiles(name)
			zipped := 0
			for file := range files {
				if strings.HasSuffix(file, ".gz") {
					zipped++
				}
			}
			return len(files) == c.files && zipped == map[bool]int{true: c.files - 1}[c.zipped]
		})
		if n := files[c.file]; n == 0 || c.files > 1 && n > 11_000 {
			t.Errorf("%s: %v", name, files)
		}
		shown := strings.Split(h.ok("logs", name), "\n")
		if last := shown[len(shown)-1]; last != fmt.Sprint("line ", lines) || (len(shown) == lines) != (c.files == 1) {
			t.Errorf("%s: %d lines, the last %q", name, len(shown), last)
		}
	}
	h.eventually("the server has them all", func() bool { n, _ := server.count(); return n == lines })
}

// TestLogsOfAnyBytes writes what is no text, no line, or too long for one, and reads it
// back from each driver, with and without a terminal.
func TestLogsOfAnyBytes(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	long := strings.Repeat("x", 70_000)
	for _, c := range []struct{ name, script, want string }{
		{"no-end", `printf abc`, "abc"},
		{"only-ends", `printf '\n\n\n'`, "\n\n\n"},
		{"long", `head -c 70000 /dev/zero | tr '\0' x; echo; echo end`, long + "\nend\n"},
		{"long-no-end", `head -c 70000 /dev/zero | tr '\0' x`, long},
		{"sixteen", `head -c 16384 /dev/zero | tr '\0' x; echo; echo end`, long[:16384] + "\nend\n"},
		{"zero", `printf 'a\000b\nc\n'`, "a\x00b\nc\n"},
		{"returns", `printf 'a\rb\r\n'`, "a\rb\r\n"},
		{"slow", `printf a; sleep 0.3; printf b; sleep 0.3; echo c`, "abc\n"},
		{"bytes", `printf 'a\377b\n\303\244\303\n'`, "a\xffb\n\u00e4\xc3\n"},
	} {
		for _, driver := range []string{"json-file", "local"} {
			for _, tty := range []bool{false, true} {
				name, want := fmt.Sprintf("%s-%s-%v", c.name, driver, tty), c.want
				args := []string{"run", "--network", "none", "--name", name, "--log-driver", driver}
				if tty {
					args = append(args, "-t")
					want = strings.ReplaceAll(want, "\n", "\r\n")
				}
				if driver == "json-file" && c.name == "bytes" { // JSON has no bytes
					want = strings.NewReplacer("\xff", "\ufffd", "\xc3\r", "\ufffd\r", "\xc3\n", "\ufffd\n").Replace(want)
				}
				h.ok(append(args, busyboxImage, "sh", "-c", c.script)...)
				if got := h.docker("logs", name).stdout; got != want {
					t.Errorf("%s: %d bytes, %.60q; want %d, %.60q", name, len(got), got, len(want), want)
				}
				h.ok("rm", name)
			}
		}
	}
}
