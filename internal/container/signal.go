package container

import (
	"strconv"
	"strings"

	"berth/internal/fault"

	"golang.org/x/sys/unix"
)

// The real-time signals that the C libraries leave to programs.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// ParseSignal reads a signal by number or by name, with or without SIG, in any
// case, RTMIN+n and RTMAX-n included.
func ParseSignal(s string) (int, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > sigRTMax {
			return 0, fault.New(fault.Invalid, "", "", "invalid signal: %s", s)
		}
		return n, nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	for _, base := range [...]struct {
		prefix string
		from   int
	}{{"RTMIN", sigRTMin}, {"RTMAX", sigRTMax}} {
		rest, ok := strings.CutPrefix(name, base.prefix)
		if !ok {
			continue
		}
		n := 0
		if rest != "" {
			var err error
			if n, err = strconv.Atoi(rest); err != nil {
				break
			}
		}
		if sig := base.from + n; sig >= sigRTMin && sig <= sigRTMax {
			return sig, nil
		}
		break
	}
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return int(sig), nil
	}
	return 0, fault.New(fault.Invalid, "", "", "invalid signal: %s", s)
}
