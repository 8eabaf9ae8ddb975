package jsonfile

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"berth/internal/logs"
)

var noon = time.Date(2026, 11, 3, 12, 0, 0, 120_000_000, time.UTC)

// expected builds an entry with encoding/json. docker's writer differs from it
// in that tab, backspace and form feed have no short escape.
func expected(t testing.TB, line string, partial bool, stream string, attrs map[string]string, at time.Time) string {
	t.Helper()
	if !partial {
		line += "\n"
	}
	text, err := json.Marshal(struct {
		Log    string            `json:"log"`
		Stream string            `json:"stream"`
		Attrs  map[string]string `json:"attrs,omitempty"`
		Time   time.Time         `json:"time"`
	}{line, stream, attrs, at})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			out.WriteByte(text[i])
			continue
		}
		i++
		switch text[i] {
		case 't':
			out.WriteString(`\u0009`)
		case 'b':
			out.WriteString(`\u0008`)
		case 'f':
			out.WriteString(`\u000c`)
		default:
			out.WriteByte('\\')
			out.WriteByte(text[i])
		}
	}
	return out.String() + "\n"
}

func encodeOne(line string, partial bool, stream string, attrs map[string]string, at time.Time) string {
	var e Encoder
	e.Set(stream, logs.EncodeAttrs(attrs), at)
	return string(e.Append(nil, []byte(line), partial))
}

func TestEncoderWritesDockersFormat(t *testing.T) {
	if got, want := encodeOne("hello", false, "stdout", nil, noon), `{"log":"hello\n","stream":"stdout","time":"2026-11-03T12:00:00.12Z"}`+"\n"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
	if got, want := encodeOne("a\tb", true, "stderr", map[string]string{"z": "1", "a": "<"}, noon), `{"log":"a\u0009b","stream":"stderr","attrs":{"a":"\u003c","z":"1"},"time":"2026-11-03T12:00:00.12Z"}`+"\n"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
	lines := []string{
		"", " ", "plain text that is longer than eight bytes", "1234567", "12345678", "123456789",
		`quote " backslash \ slash /`, "<script>&amp;</script>", "\x00\x01\x1f\x7f\x80\xff",
		"grüße, 世界, 🚀 \u2028\u2029 \ufffd", "cut off: \xe4\xb8", "\xf0\x9f\x9a", "\xed\xa0\x80", "\r\n\t\b\f",
		"\x1b[31mred\x1b[0m", strings.Repeat("x", 16384), strings.Repeat("ü", 5000),
	}
	for b := range 256 { // each byte at each place of a word
		for place := range 9 {
			lines = append(lines, strings.Repeat("a", place)+string([]byte{byte(b)})+strings.Repeat("z", 9-place))
		}
	}
	for _, line := range lines {
		for _, partial := range []bool{false, true} {
			if got, want := encodeOne(line, partial, "stdout", nil, noon), expected(t, line, partial, "stdout", nil, noon); got != want {
				t.Errorf("%q:\n got %s\nwant %s", line, got, want)
			}
		}
	}
}

func TestDecoderReadsWhatTheEncoderWrote(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var d Decoder
	for range 5000 {
		line := make([]byte, random.IntN(40))
		for i := range line {
			line[i] = "ab\\\"\n\t\r<&\x00\xff\xc3\xa9u"[random.IntN(14)]
		}
		line = bytes.ReplaceAll(line, []byte("\n"), nil)
		text := encodeOne(string(line), false, "stderr", nil, noon)
		e := d.Decode([]byte(strings.TrimSuffix(text, "\n")))
		want := strings.ToValidUTF8(string(line), "\ufffd")
		if e == nil || e.Stream != "stderr" || !e.Time.Equal(noon) || e.Partial {
			t.Fatalf("%q: decoded as %+v", text, e)
		}
		// One replacement character for each bad byte, where ToValidUTF8 makes one of a run.
		if squeeze(string(e.Line)) != squeeze(want+"\n") {
			t.Fatalf("%q: got %q, want %q", text, e.Line, want)
		}
	}
}

func squeeze(s string) string {
	for strings.Contains(s, "\ufffd\ufffd") {
		s = strings.ReplaceAll(s, "\ufffd\ufffd", "\ufffd")
	}
	return s
}

func FuzzEscapeAgainstEncodingJSON(f *testing.F) {
	for _, s := range []string{"", "abc", "<>&\"\\", "\xff\xfe", "日本\u2028", "\t\b\f\n\r"} {
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, line []byte, partial bool) {
		got := encodeOne(string(line), partial, "stdout", nil, noon)
		if want := expected(t, string(line), partial, "stdout", nil, noon); got != want {
			t.Fatalf("got %s want %s", got, want)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"log":"a\n","stream":"stdout","time":"2026-11-03T12:00:00.12Z"}`))
	f.Add([]byte(`{"log":"\u00e9\ud83d\ude00\n","stream":"stderr","attrs":{"a":"b"},"time":"2026-11-03T12:00:00Z"}`))
	f.Add([]byte(`{"log":"\`))
	f.Add([]byte(`{"log":"\u12`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var own, other Decoder
		if !own.decodeOwn(line) {
			return
		}
		// What the quick way accepts means the same to encoding/json. It also
		// accepts control characters and bad UTF-8 inside, which JSON refuses.
		if !other.decodeAny(line) {
			return
		}
		if want := strings.ToValidUTF8(string(own.text), "\ufffd"); squeeze(want) != squeeze(string(other.text)) || own.entry.Stream != other.entry.Stream || !own.entry.Time.Equal(other.entry.Time) {
			t.Fatalf("%q: %+v, by encoding/json %+v", line, own.entry, other.entry)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	line := []byte(strings.Repeat("The quick brown fox jumps over the lazy dog. ", 3)[:100])
	var e Encoder
	e.Set("stdout", nil, noon)
	dst := make([]byte, 0, 1<<20)
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		if len(dst) > 1<<19 {
			dst = dst[:0]
		}
		dst = e.Append(dst, line, false)
	}
}
