package intake

import (
	"context"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/jsonstream"
)

func TestAPullTellsWhatIsToCome(t *testing.T) {
	t.Parallel()
	l := Open(1000<<20, nil)
	stop := make(chan struct{})
	defer close(stop)
	go func() { // stands for the loop that looks at the directory
		for {
			select {
			case <-l.Woken():
				for _, done := range l.Waiting() {
					close(done)
				}
			case <-stop:
				return
			}
		}
	}()
	ctx, e := l.Begin(context.Background(), "pull of x")
	told := 0
	send := e.Watch(ctx, func(jsonstream.Message) { told++ })
	for _, m := range []jsonstream.Message{
		{ID: "a", Status: "Downloading", Progress: &jsonstream.Progress{Current: 10, Total: 100}},
		{ID: "a", Status: "Downloading", Progress: &jsonstream.Progress{Current: 60, Total: 100}},
		{ID: "b", Status: "Downloading", Progress: &jsonstream.Progress{Total: 1000}},
		{ID: "a", Status: "Extracting", Progress: &jsonstream.Progress{Current: 1, Total: 100_000}},
	} {
		send(m)
	}
	if told != 4 || e.Ahead() != 2*(40+1000) {
		t.Errorf("%d messages, %d bytes ahead", told, e.Ahead())
	}
	list, ahead := l.UnderWay()
	if len(list) != 1 || ahead != e.Ahead() {
		t.Errorf("%v %d", list, ahead)
	}
	e.cancel(&overBudget{What: e.what, Limit: l.limit, Needed: 5, Kept: 6})
	err := e.End(ctx, context.Canceled)
	if err == nil || !strings.Contains(err.Error(), "pull of x does not fit into the disk budget of 1000MiB: it needs 5B and more; 6B are in use") {
		t.Errorf("%v", err)
	}
	if list, _ := l.UnderWay(); len(list) != 0 {
		t.Error("it is not over")
	}
	// Without a budget nothing happens.
	ctx, e = Open(0, nil).Begin(context.Background(), "x")
	if err := e.End(ctx, context.Canceled); err != context.Canceled {
		t.Error(err)
	}
}
