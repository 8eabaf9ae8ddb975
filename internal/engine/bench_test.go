package engine

import (
	"os"
	"testing"

	"github.com/moby/moby/api/types/container"
)

// BenchmarkLife measures the engine's own share of create, start, wait and
// remove: the monitor is the scripted one, which costs next to nothing.
func BenchmarkLife(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root")
	}
	for _, mode := range []string{"host", "none", "bridge"} {
		b.Run(mode, func(b *testing.B) {
			e := newBench(b)
			b.ReportAllocs()
			for b.Loop() {
				id := e.create("", func(r *container.CreateRequest) { r.HostConfig.NetworkMode = container.NetworkMode(mode) })
				e.start(id)
				wait := e.wait(id, "")
				e.monitor.exit(id, 0)
				wait()
				if err := e.ContainerRemove(b.Context(), id, RemoveOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
