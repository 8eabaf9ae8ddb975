package filter

import (
	"encoding/json"
	"fmt"
	"testing"

	"berth/internal/fault"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]string{
		"":                                      "",
		`{"label":{"a=b":true,"c":true}}`:       "label=[a=b c]",
		`{"label":["a=b","c"]}`:                 "label=[a=b c]",
		`{"status":{"running":true,"x":false}}`: "status=[running]",
	} {
		f, err := Parse(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		got := ""
		for k := range f {
			got += k + "=" + fmt.Sprint(f.Get(k))
		}
		if got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	for _, in := range []string{"x", "[]", `{"a":1}`, `{"a":{"b":"c"}}`} {
		if _, err := Parse(in); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestMatchTakesRegularExpressions(t *testing.T) {
	for _, c := range []struct {
		filter, value string
		want          bool
	}{
		{"web", "my-web-1", true}, {"^web", "my-web-1", false}, {"^my", "my-web-1", true}, {"^my-web-1$", "my-web-1", true}, {"^web$", "web", true},
		{"web-[0-9]", "my-web-1", true}, {"a.c", "abc", true}, {"a.c", "a.c", true}, {"[", "a[b", false}, {"[", "[", true}, {"db", "web", false},
	} {
		f := Set{}
		f.Add("name", c.filter)
		if f.Match("name", c.value) != c.want {
			t.Errorf("%s matches %s: %v", c.filter, c.value, !c.want)
		}
	}
}

func FuzzFilters(f *testing.F) {
	f.Add(`{"label":{"a=b":true}}`, "a", "b")
	f.Add(`{"label":["a"],"dangling":["true"]}`, "", "")
	f.Fuzz(func(t *testing.T, raw, key, value string) {
		fs, err := Parse(raw)
		if err != nil {
			return
		}
		labels := map[string]string{key: value}
		for k := range fs {
			fs.Match(k, value)
			fs.Labels(k, labels)
			_, _ = fs.Bool(k, false)
		}
		// What was parsed can be written and read again.
		text, err := json.Marshal(fs)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(string(text))
		if err != nil || len(again) != len(fs) {
			t.Errorf("%s became %s: %v", raw, text, err)
		}
	})
}
