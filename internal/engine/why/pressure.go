package why

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"berth/internal/runtime/cgroup"
	"berth/internal/runtime/smallfile"
	"berth/internal/wire"

	"golang.org/x/sys/unix"
)

// readPressure reads the pressure stall information of a cgroup, which only the
// unified hierarchy has, or says why there is none.
func readPressure(m *cgroup.Manager, p *wire.WhyPressure) {
	host, err := cgroup.Detect()
	if err != nil || host.Unified == nil {
		p.Missing = "pressure is counted in cgroup v2 alone, and this machine has v1"
		return
	}
	dir := m.Paths()[host.Unified.Name]
	for _, r := range []struct {
		file string
		to   **wire.WhyStall
	}{{"cpu.pressure", &p.CPU}, {"memory.pressure", &p.Memory}, {"io.pressure", &p.IO}} {
		text, err := smallfile.Read(filepath.Join(dir, r.file), 4096)
		switch {
		case err == nil:
			*r.to = parseStall(string(text))
		case errors.Is(err, unix.EOPNOTSUPP):
			p.Missing = "this kernel was started without pressure stall information (psi=1 turns it on)"
		case errors.Is(err, fs.ErrNotExist):
			p.Missing = "this kernel does not count pressure"
			if _, err := os.Stat(dir); err != nil {
				p.Missing = "the container has no cgroup of version 2"
			}
		default:
			p.Missing = err.Error()
		}
	}
}

// parseStall reads two lines such as "some avg10=0.00 avg60=0.00 avg300=0.00 total=0".
func parseStall(text string) *wire.WhyStall {
	out := &wire.WhyStall{}
	for line := range strings.Lines(text) {
		kind, rest, _ := strings.Cut(line, " ")
		v := keyValues(rest, " ")
		share := func(key string) float64 { f, _ := strconv.ParseFloat(v[key], 64); return f }
		switch kind {
		case "some":
			usec, _ := strconv.ParseInt(v["total"], 10, 64)
			out.Some10, out.Some60, out.Total = share("avg10"), share("avg60"), time.Duration(usec)*time.Microsecond
		case "full":
			out.Full10, out.Full60 = share("avg10"), share("avg60")
		}
	}
	return out
}
