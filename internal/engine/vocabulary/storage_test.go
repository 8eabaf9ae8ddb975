package vocabulary

import (
	"strings"
	"testing"

	"berth/internal/fault"
)

func TestStorageSize(t *testing.T) {
	for _, c := range []struct {
		key, value string
		want       int64
		wrong      string
	}{
		{"size", "10G", 10 << 30, ""},
		{"SIZE", "1536m", 1536 << 20, ""},
		{"size", "1048576", 1 << 20, ""},
		{"size", "0", 0, ""},
		{"size", "", 0, "invalid"},
		{"size", "-1", 0, "invalid"},
		{"size", "ten", 0, "ten"},
		{"size", "5Q", 0, "5Q"},
		{"size", "4k", 0, "smallest"},
		{"size", "99999999999999999999", 0, "invalid"},
		{"sise", "1G", 0, `"sise"`},
		{"dm.basesize", "1G", 0, `"dm.basesize"`},
	} {
		got, err := StorageSize(map[string]string{c.key: c.value})
		switch {
		case c.wrong == "" && (err != nil || got != c.want):
			t.Errorf("%s=%s: %d, %v", c.key, c.value, got, err)
		case c.wrong != "" && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.wrong)):
			t.Errorf("%s=%s: %d, %v; want an error with %q", c.key, c.value, got, err, c.wrong)
		}
	}
}
