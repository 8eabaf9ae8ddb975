package solve

import "testing"

func TestHowMuchMayStay(t *testing.T) {
	for _, c := range []struct {
		max, free, reserved int64 // asked for
		total, isFree       int64 // as it is
		want                int64 // -1: everything may go
	}{
		{0, 0, 0, 100, 50, -1},
		{40, 0, 0, 100, 50, 40},
		{400, 0, 0, 100, 50, 400},
		{0, 0, 30, 100, 50, 30},
		{0, 50, 0, 100, 50, 100}, // there is room
		{0, 70, 0, 100, 50, 80},
		{0, 1000, 0, 100, 50, 0},
		{0, 1000, 30, 100, 50, 30},
		{40, 70, 0, 100, 50, 40},
		{90, 70, 0, 100, 50, 80},
		{40, 0, 60, 100, 50, 60},
	} {
		o := PruneOptions{MaxUsed: c.max, MinFree: c.free, Reserved: c.reserved}
		if got := o.most(c.total, c.isFree); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}
