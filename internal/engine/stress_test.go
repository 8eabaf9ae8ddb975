package engine

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"berth/internal/fault"

	"github.com/moby/moby/api/types/container"
)

// TestManyHandsOnOneContainer lets several clients do everything to a few
// containers at once. Each call must end, with success or with a refusal that is
// not of the engine's own making, and nothing may be left.
func TestManyHandsOnOneContainer(t *testing.T) {
	b := newBench(t)
	b.monitor.handle(func(id string, signal int) {
		if rand.IntN(2) == 0 {
			b.monitor.exit(id, signal)
		}
	})
	names := []string{"one", "two", "three"}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var hands sync.WaitGroup
	for range 8 {
		hands.Go(func() {
			for ctx.Err() == nil {
				b.act(names[rand.IntN(len(names))])
			}
		})
	}
	hands.Wait()
	for _, n := range names {
		err := b.ContainerRemove(t.Context(), n, RemoveOptions{Force: true, Volumes: true})
		if err != nil && !fault.Is(err, fault.NotFound) {
			t.Error(err)
		}
	}
	if list, err := b.ContainerList(t.Context(), ListOptions{All: true}); err != nil || len(list) != 0 {
		t.Errorf("left: %v %v", list, err)
	}
	b.eventually("the monitor has forgotten all", func() bool {
		b.monitor.mu.Lock()
		defer b.monitor.mu.Unlock()
		return len(b.monitor.known) == 0
	})
}

// act does one thing, whatever the state of the container.
func (b *bench) act(name string) {
	zero := 0
	var err error
	switch rand.IntN(10) {
	case 0, 1:
		_, err = b.ContainerCreate(context.Background(), name, container.CreateRequest{
			Config:     &container.Config{Image: "image", Volumes: map[string]struct{}{"/data": {}}},
			HostConfig: &container.HostConfig{NetworkMode: "host", AutoRemove: rand.IntN(2) == 0},
		}, nil)
	case 2, 3:
		err = b.ContainerStart(context.Background(), name, "")
	case 4:
		err = b.ContainerStop(context.Background(), name, StopOptions{Timeout: &zero})
	case 5:
		err = b.ContainerKill(context.Background(), name, "")
	case 6:
		err = b.ContainerRemove(context.Background(), name, RemoveOptions{Force: rand.IntN(2) == 0, Volumes: true})
	case 7:
		if c, ferr := b.containers.Find(name); ferr == nil && b.monitor.knows(c.ID) {
			b.monitor.exit(c.ID, 1)
		}
	case 8:
		if rand.IntN(2) == 0 {
			err = b.ContainerPause(context.Background(), name)
		} else {
			err = b.ContainerUnpause(context.Background(), name)
		}
	case 9:
		_, err = b.ContainerList(context.Background(), ListOptions{All: true, Size: true})
		if err == nil {
			_, err = b.ContainerInspect(context.Background(), name, true)
		}
	}
	if err != nil && fault.KindOf(err) == fault.Internal {
		b.t.Error(err)
	}
}
