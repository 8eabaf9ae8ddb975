package jsonfile

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"berth/internal/fault"
	"berth/internal/logs"
	"berth/internal/logs/conformance"
)

func TestConformance(t *testing.T) { conformance.Run(t, Format{}) }

func TestReadOfForeignAndPartialEntries(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x-json.log")
	text := `{"time":"2026-11-03T12:00:00.12Z","log":"\ud83d\ude00\n","attrs":{"a":"b"},"stream":"stderr"}` + "\n" +
		`{"log":"part","stream":"stdout","time":"2026-11-03T13:00:00.12+01:00"}` + "\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var got []logs.Entry
	err := logs.Read(t.Context(), Format{}, path, logs.ReadOptions{Tail: -1}, func(e logs.Entry) error {
		e.Line = []byte(string(e.Line))
		e.Time, e.Next = e.Time.UTC(), logs.Position{}
		got = append(got, e)
		return nil
	})
	want := []logs.Entry{
		{Time: noon, Stream: "stderr", Line: []byte("😀\n"), Attrs: map[string]string{"a": "b"}},
		{Time: noon, Stream: "stdout", Line: []byte("part"), Partial: true},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n got %v\nwant %v", err, got, want)
	}
}

func TestParse(t *testing.T) {
	o, err := Parse(map[string]string{"max-size": "10m", "max-file": "5", "tag": "x", "compress": "true", "mode": "blocking"})
	if err != nil || o.MaxSize != 10_000_000 || o.MaxFiles != 5 || o.Tag != "x" || !o.Compress || o.Buffer != 0 {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err = Parse(map[string]string{"max-size": "-1"}); err != nil || o.MaxSize != -1 {
		t.Errorf("unlimited: %+v, %v", o, err)
	}
	if o, err = Parse(map[string]string{"mode": "non-blocking"}); err != nil || o.Buffer != logs.DefaultBuffer {
		t.Errorf("non-blocking: %+v, %v", o, err)
	}
	if o, err = Parse(map[string]string{"mode": "non-blocking", "max-buffer-size": "4m"}); err != nil || o.Buffer != 4<<20 {
		t.Errorf("non-blocking with a size: %+v, %v", o, err)
	}
	for name, value := range map[string]string{"max-size": "ten", "max-file": "0", "compress": "maybe", "mode": "sometimes", "max-buffer-size": "4m", "colour": "red"} {
		_, err := Parse(map[string]string{name: value})
		if err == nil || !strings.Contains(err.Error(), name) && name != "mode" {
			t.Errorf("%s=%s: %v, want an error that names it", name, value, err)
		}
		if kind := fault.KindOf(err); kind != fault.Invalid {
			t.Errorf("%s=%s: kind %v", name, value, kind)
		}
	}
	for _, other := range []string{"max-file=1", "max-size=-1"} {
		name, value, _ := strings.Cut(other, "=")
		if _, err := Parse(map[string]string{"compress": "true", name: value}); err == nil {
			t.Errorf("compress with %s is accepted", other)
		}
	}
}
