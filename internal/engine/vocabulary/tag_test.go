package vocabulary

import (
	"testing"

	"berth/internal/container"

	api "github.com/moby/moby/api/types/container"
)

func TestLogTag(t *testing.T) {
	rec := &container.Record{
		ID: "0123456789abcdef", Name: "web", ImageRef: "nginx:1", Path: "nginx", Args: []string{"-g", "x"},
		Config:     &api.Config{Env: []string{"A=b"}, Labels: map[string]string{"team": "a\nb", "other": "x"}},
		HostConfig: &api.HostConfig{LogConfig: api.LogConfig{Type: LogJSONFile, Config: map[string]string{"labels": "team"}}},
	}
	for text, want := range map[string]string{
		"":                                      "",
		"plain":                                 "plain",
		"{{.ID}} {{.FullID}}":                   "0123456789ab 0123456789abcdef",
		"{{.Name}}/{{.ContainerName}}":          "web//web",
		"{{.ImageName}}|{{.Command}}":           "nginx:1|nginx -g x",
		"{{.DaemonName}}":                       "berth",
		"{{index .ContainerLabels \"other\"}}":  "x",
		"{{join .ContainerEnv \",\"}}":          "A=b",
		"{{upper .Name}}{{pad .Name 1 2}}.":     "WEB web  .",
		"{{truncate .FullID 3}}{{title .Name}}": "012Web",
		"{{json .ContainerArgs}}":               `["-g","x"]`,
		"{{.ExtraAttributes.team}}":             "a b",
	} {
		if got, err := LogTag(text, rec); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
		}
	}
	for _, bad := range []string{"{{.Nothing}}", "{{", "{{nothing}}"} {
		if _, err := LogTag(bad, rec); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
	if _, err := LogTag("{{.ID}}{{.ImageID}}{{.Hostname}}", &container.Record{}); err != nil {
		t.Error(err)
	}
}
