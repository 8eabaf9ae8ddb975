package local

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"berth/internal/logs"
	"berth/internal/logs/conformance"
	"berth/internal/logs/jsonfile"
)

func TestConformance(t *testing.T) { conformance.Run(t, Format{}) }

func TestParse(t *testing.T) {
	o, err := Parse(nil)
	if err != nil || o.MaxSize != 20<<20 || o.MaxFiles != 5 || !o.Compress {
		t.Errorf("defaults: %+v, %v", o, err)
	}
	o, err = Parse(map[string]string{"compress": "false", "max-size": "1k", "max-file": "1"})
	if err != nil || o.MaxSize != 1000 || o.MaxFiles != 1 || o.Compress {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err = Parse(map[string]string{"max-size": "-1"}); err != nil || o.MaxFiles != 1 {
		t.Errorf("without a limit: %+v, %v", o, err)
	}
	if _, err = Parse(map[string]string{"colour": "red"}); err == nil {
		t.Error("an unknown option is accepted")
	}
}

// What was written before this driver had a format of its own can be read, and
// what follows it in the same file.
func TestReadsWhatItWasOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	var text []byte
	for i, f := range []logs.Format{jsonfile.Format{}, Format{}} {
		e := f.NewEncoder()
		e.Set("stderr", nil, time.Unix(int64(i), 5))
		text = e.Append(text, []byte{byte('a' + i)}, false)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	got := ""
	err := logs.Read(t.Context(), Format{}, path, logs.ReadOptions{Tail: -1}, func(e logs.Entry) error {
		got += e.Stream + string(e.Line)
		return nil
	})
	if err != nil || got != "stderra\nstderrb\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func FuzzDecode(f *testing.F) {
	var e Encoder
	e.Set("stdout", []byte(`{"a":"b"}`), time.Unix(1, 2))
	f.Add(e.Append(nil, []byte("text"), true))
	f.Fuzz(func(t *testing.T, line []byte) {
		var d Decoder
		if got := d.Decode(line); got != nil && got.Stream != "stdout" && got.Stream != "stderr" && line[0] != '{' {
			t.Errorf("%+v", got)
		}
	})
}
