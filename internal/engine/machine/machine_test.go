package machine

import (
	"runtime"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/system"
)

func TestWhatIsMissingIsWarnedOf(t *testing.T) {
	t.Parallel()
	for _, v2 := range []bool{false, true} {
		var info system.Info
		Describe(&info, v2)
		for _, c := range []struct {
			has  bool
			word string
		}{{info.MemoryLimit, "memory limit"}, {info.SwapLimit, "swap"}, {info.CPUShares, "cpu shares"}, {info.PidsLimit, "pids"}, {info.IPv4Forwarding, "IPv4 forwarding"}} {
			if strings.Contains(strings.Join(info.Warnings, "\n"), c.word) == c.has {
				t.Errorf("v2 %v: %s is %v, and warnings are %q", v2, c.word, c.has, info.Warnings)
			}
		}
		version, options := "1", 1
		if v2 {
			version, options = "2", 2
		}
		if info.CgroupVersion != version || len(info.SecurityOptions) != options {
			t.Errorf("%+v", info)
		}
	}
}

func TestTheMachineIsKnown(t *testing.T) {
	t.Parallel()
	var info system.Info
	Describe(&info, cgroupV2())
	if info.KernelVersion == "" || info.OperatingSystem == "" || info.Architecture == "" || info.Name == "" {
		t.Errorf("%+v", info)
	}
	if h := Look(); h.CPUs != runtime.NumCPU() || h.Memory < 1<<20 {
		t.Errorf("%+v", h)
	}
	if len(Boot()) != 36 || LastCap() < 37 {
		t.Errorf("boot %q, last capability %d", Boot(), LastCap())
	}
}
