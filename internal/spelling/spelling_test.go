package spelling

import "testing"

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"run", "run", 0}, {"", "run", 3}, {"rn", "run", 1}, {"runn", "run", 1}, {"rum", "run", 1},
		{"rnu", "run", 1}, {"images", "imagse", 1}, {"inspect", "inpsetc", 2}, {"pull", "push", 2}, {"a", "b", 1},
	} {
		if got, back := Distance(tt.a, tt.b), Distance(tt.b, tt.a); got != tt.want || back != tt.want {
			t.Errorf("%q and %q: %d, and %d the other way round, want %d", tt.a, tt.b, got, back, tt.want)
		}
	}
}
