package test

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestCollectorsGetAnAddressThatServesTheFiguresAndNothingElse(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) *host{
		"berthd": func(t *testing.T) *host { return newEngine(t, "--metrics-address", "127.0.0.1:9323") },
		"dockerd": func(t *testing.T) *host {
			h := newDockerd(t)
			h.startDockerd("--metrics-addr", "127.0.0.1:9323")
			return h
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t)
			fetch := func(path string) outcome {
				return execute(t, h.within("busybox", "wget", "-qO-", "http://127.0.0.1:9323"+path))
			}
			if o := fetch("/metrics"); !strings.Contains(o.stdout, "\nberth_containers{state=\"running\"} 0\n") || !strings.Contains(o.stdout, "berth_api_failures_total") {
				t.Errorf("/metrics: %+v", o)
			}
			for _, path := range []string{"/_ping", "/containers/json", "/v1.41/info", "/"} {
				if o := fetch(path); o.code == 0 || !strings.Contains(o.stderr, "404") {
					t.Errorf("%s is served beside the figures: %+v", path, o)
				}
			}
		})
	}
}

func TestATakenAddressForTheFiguresIsNamedAtStart(t *testing.T) {
	t.Parallel()
	h := newEngine(t, "--metrics-address", "127.0.0.1:9323")
	o := execute(t, h.within(binary(t, "berthd"), "--root", h.path("data2"), "--run", h.path("run2"), "--metrics-address", "127.0.0.1:9323"))
	if o.code != 2 || !strings.Contains(o.stderr, "serve metrics on 127.0.0.1:9323") || !strings.Contains(o.stderr, "address already in use") {
		t.Errorf("%+v", o)
	}
}

func TestTheEngineLogsInJSONWhenAsked(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.args = []string{"--log-format", "json"}
	h.startEngine()
	h.stopEngine()
	for line := range strings.Lines(h.engineLog()) {
		var entry struct{ Time, Level, Msg string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Time == "" || entry.Level == "" || entry.Msg == "" {
			t.Errorf("%v in %s", err, line)
		}
	}
	if !strings.Contains(h.engineLog(), `"msg":"serving the API"`) {
		t.Errorf("%s", h.engineLog())
	}
}
