package format

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var list = List{
	Columns: []Column{{Field: "ID", Header: "CONTAINER ID"}, {Field: "Image", Header: "IMAGE", Flexible: true}, {Field: "Names", Header: "NAMES"}},
	Headers: map[string]string{"ID": "CONTAINER ID", "Image": "IMAGE", "Names": "NAMES", "Labels": "LABELS"},
}

var rows = []Row{
	{Values: map[string]string{"ID": "0123", "Image": "registry.example/team/application:latest", "Names": "web"}, Labels: map[string]string{"com.x.role": "front"}},
	{Values: map[string]string{"ID": "4567", "Image": "", "Names": "größer"}},
}

func written(t *testing.T, l List, text string, rows []Row) string {
	t.Helper()
	tmpl, err := Parse(text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	var b bytes.Buffer
	if err := l.Write(&b, tmpl, rows); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return b.String()
}

func TestFormats(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ format, want string }{
		{"", "CONTAINER ID   IMAGE                                      NAMES\n" +
			"0123           registry.example/team/application:latest   web\n" +
			"4567                                                      größer\n"},
		{"{{.ID}} {{.Names}}", "0123 web\n4567 größer\n"},
		{`table {{.Names}}\t{{.ID}}`, "NAMES    CONTAINER ID\nweb      0123\ngrößer   4567\n"},
		{`table {{.ID}}\t{{.Label "com.x.role"}}`, "CONTAINER ID   role\n0123           front\n4567\n"},
		{"{{upper .Names}} {{truncate .Image 8}} {{json .ID}}", "WEB registry \"0123\"\nGRÖSSER  \"4567\"\n"},
		{`{{join (split .Image "/") "+"}}`, "registry.example+team+application:latest\n\n"},
		{`{{pad .ID 1 2}}|{{title .Names}}|{{lower "X"}}`, " 0123  |Web|x\n 4567  |Größer|x\n"},
		{"json", `{"ID":"0123","Image":"registry.example/team/application:latest","Names":"web"}` + "\n" + `{"ID":"4567","Image":"","Names":"größer"}` + "\n"},
	} {
		want := strings.ReplaceAll(c.want, "GRÖSSER", strings.ToUpper("größer"))
		if got := written(t, list, c.format, rows); got != want {
			t.Errorf("%q:\ngot\n%swant\n%s", c.format, got, want)
		}
	}
}

func TestWhatStrangersWroteDoesNotDriveTheTerminal(t *testing.T) {
	t.Parallel()
	evil := []Row{{Values: map[string]string{"ID": "1", "Image": "a\x1b]0;owned\x07b\u009b2J", "Names": "x\r"}}}
	if got := written(t, list, "", evil); strings.ContainsAny(got, "\x1b\x07\r\u009b") || !strings.Contains(got, "a�]0;owned�b�2J") {
		t.Errorf("got %q", got)
	}
	if got := written(t, list, "{{.Image}}", evil); !strings.Contains(got, "\x1b") {
		t.Errorf("a template must give what there is: %q", got)
	}
}

func TestTablesFitTheTerminal(t *testing.T) {
	t.Parallel()
	narrow := list
	narrow.Width = 44
	got := written(t, narrow, "", rows)
	for line := range strings.Lines(got) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > narrow.Width {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	if !strings.Contains(got, "web") || !strings.Contains(got, "…") {
		t.Errorf("names must stay whole and the image be cut:\n%s", got)
	}
	narrow.Width = 5 // narrower than anything can be made: never cut below sense
	if got := written(t, narrow, "", rows); !strings.Contains(got, "registry.ex…") {
		t.Errorf("got\n%s", got)
	}
}

func TestBadFormatsAreExplained(t *testing.T) {
	t.Parallel()
	if _, err := Parse("{{.ID"); err == nil || !strings.Contains(err.Error(), "unclosed action") {
		t.Errorf("got %v", err)
	}
	for _, text := range []string{"{{.Nonsense}}", `table {{.Nonsense}}`} {
		tmpl, err := Parse(text)
		if err == nil {
			err = list.Write(&bytes.Buffer{}, tmpl, rows)
		}
		if err == nil || !strings.Contains(err.Error(), "Nonsense") {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

func TestDecodedValuesBehaveLikeTyped(t *testing.T) {
	t.Parallel()
	raw := `{"State":{"ExitCode":0,"Running":true},"HostConfig":{"Memory":536870912,"CpuPercent":0.5},"Config":{"Labels":{"a":"b"},"Env":["X=1"]},"Empty":{}}`
	v, err := Decode([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"{{.State.ExitCode}}":                             "0",
		"{{if eq .State.ExitCode 0}}ok{{end}}":            "ok",
		"{{.HostConfig.Memory}}":                          "536870912",
		"{{.HostConfig.CpuPercent}}":                      "0.5",
		`{{index .Config.Labels "none"}}`:                 "",
		`{{index .Config.Labels "a"}}`:                    "b",
		"{{range .Config.Env}}{{.}}{{end}}":               "X=1",
		"{{json .Config}}":                                `{"Env":["X=1"],"Labels":{"a":"b"}}`,
		`{{join .Config.Env ","}}`:                        "X=1",
		`{{printf "%d" .HostConfig.Memory}}`:              "536870912",
		"{{range $k, $v := .Config.Labels}}{{$k}}{{end}}": "a",
	} {
		tmpl, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := tmpl.Execute(&b, v); err != nil || b.String() != want+"\n" {
			t.Errorf("%s: got %q, %v; want %q", text, b.String(), err, want)
		}
	}
}

func TestUnits(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	for _, c := range []struct{ got, want string }{
		{Bytes(4_410_000), "4.41MB"}, {Bytes(74), "74B"}, {BinaryBytes(1 << 31), "2GiB"},
		{Since(now.Unix()-180, now), "3 minutes ago"}, {Since(0, now), "N/A"},
		{ShortID("sha256:0123456789abcdef"), "0123456789ab"}, {Ellipsis("größer als", 5), "größ…"}, {Ellipsis("abc", 3), "abc"},
		{Plural(1, "image"), "1 image"}, {Plural(2, "image"), "2 images"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("table {{.ID}}\\t{{.Names}}")
	f.Add("{{range .}}{{end}}")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "range") || strings.Contains(text, "template") || strings.Contains(text, "pad") {
			return // may repeat without end, which is the user's own doing
		}
		if tmpl, err := Parse(text); err == nil {
			_ = list.Write(&bytes.Buffer{}, tmpl, rows)
		}
	})
}
