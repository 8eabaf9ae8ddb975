package format

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"

	units "github.com/docker/go-units"
)

// Decode turns JSON into values that templates handle as they would typed
// structures: whole numbers are integers, not floating-point, and objects whose
// values are all strings (labels, options) give "" for a missing index.
func Decode(raw []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	return settle(v), nil
}

func settle(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		if f, err := v.Float64(); err == nil && !math.IsInf(f, 0) {
			return f
		}
		return v.String()
	case []any:
		for i := range v {
			v[i] = settle(v[i])
		}
		return v
	case map[string]any:
		return settleMap(v)
	}
	return v
}

func settleMap(m map[string]any) any {
	texts := len(m) > 0
	for name, value := range m {
		m[name] = settle(value)
		if _, ok := value.(string); !ok {
			texts = false
		}
	}
	if !texts {
		return m
	}
	plain := make(map[string]string, len(m))
	for name, value := range m {
		plain[name] = value.(string)
	}
	return plain
}

// Bytes returns a size in decimal units with three digits: 4.41MB.
func Bytes(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

// TotalBytes returns a size in decimal units with four digits, as docker writes
// sums: 4.412MB.
func TotalBytes(n int64) string { return units.HumanSize(float64(n)) }

// BinaryBytes returns a size in binary units: 1.944GiB.
func BinaryBytes(n int64) string { return units.BytesSize(float64(n)) }

// Printable makes text that somebody else wrote fit for a terminal: characters
// that would move the cursor, change colours or answer for the person become
// marks. Line ends and tabs stay.
func Printable(text string) string {
	if !strings.ContainsFunc(text, controls) {
		return text
	}
	return strings.Map(func(r rune) rune {
		if controls(r) {
			return '\uFFFD'
		}
		return r
	}, text)
}

func controls(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }

// Since returns how long ago a Unix time was: "3 minutes ago".
func Since(unix int64, now time.Time) string {
	if unix <= 0 {
		return "N/A"
	}
	return units.HumanDuration(now.Sub(time.Unix(unix, 0))) + " ago"
}

// ShortID cuts an id to the twelve characters that tables show.
func ShortID(id string) string {
	return Truncate(strings.TrimPrefix(id, "sha256:"), 12)
}

// Plural returns "1 image", "2 images".
func Plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
