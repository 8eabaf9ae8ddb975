package why

import (
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"berth/internal/container"
	"berth/internal/engine/spec"

	"golang.org/x/sys/unix"
)

// kernelLine is one message of the kernel.
type kernelLine struct {
	at   time.Time
	text string
}

// kernelLog reads what the kernel still remembers of a span of time. An engine
// that may not read it, or whose kernel has none, gets nothing.
func kernelLog(from, to time.Time, want func(text string) bool) []kernelLine {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	booted := bootTime()
	var lines []kernelLine
	var buf [8192]byte
	for range 1 << 20 {
		n, err := unix.Read(fd, buf[:])
		if err == unix.EPIPE || err == unix.EINTR || err == unix.EINVAL {
			continue // overwritten while it was read, or longer than anything that matters
		}
		if err != nil || n <= 0 {
			break
		}
		line, ok := parseKernel(string(buf[:n]), booted)
		if ok && !line.at.Before(from) && !line.at.After(to) && want(line.text) {
			lines = append(lines, line)
		}
	}
	return lines
}

// parseKernel reads a record of /dev/kmsg: "level,number,microseconds,flags;text".
func parseKernel(record string, booted time.Time) (kernelLine, bool) {
	head, text, ok := strings.Cut(record, ";")
	f := strings.Split(head, ",")
	if !ok || len(f) < 3 {
		return kernelLine{}, false
	}
	usec, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil {
		return kernelLine{}, false
	}
	text, _, _ = strings.Cut(text, "\n")
	return kernelLine{booted.Add(time.Duration(usec) * time.Microsecond), text}, true
}

// bootTime is when the kernel's clock began, by today's idea of the time.
func bootTime() time.Time {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(ts.Nano()))
}

// kernelSlack is how far the kernel's clock and ours may be apart.
const kernelSlack = 3 * time.Second

// OOMVictim finds the process that the kernel killed last in a container for lack
// of memory and that has just ended; nil when the kernel's log does not tell.
func OOMVictim(rec *container.Record) *container.Victim {
	lines := kernelLog(rec.State.Began().Add(-kernelSlack), time.Now().Add(kernelSlack), func(text string) bool {
		return strings.Contains(text, "oom-kill:") || strings.Contains(text, "Killed process ")
	})
	return victimIn(lines, filepath.Join("/", spec.CgroupPath(rec)))
}

// victimIn reads the kernel's two lines about a kill: which cgroup and process,
// and what the process held.
func victimIn(lines []kernelLine, cgroup string) (last *container.Victim) {
	for _, l := range lines {
		if _, rest, ok := strings.Cut(l.text, "oom-kill:"); ok {
			v := keyValues(rest, ",")
			if v["task_memcg"] != cgroup && !strings.HasPrefix(v["task_memcg"], cgroup+"/") {
				continue
			}
			pid, _ := strconv.Atoi(v["pid"])
			last = &container.Victim{Name: v["task"], Pid: pid, Host: v["constraint"] != "CONSTRAINT_MEMCG"}
			continue
		}
		_, rest, ok := strings.Cut(l.text, "Killed process ")
		if last == nil || !ok || !strings.HasPrefix(rest, strconv.Itoa(last.Pid)+" ") {
			continue
		}
		last.RSS = 0
		for _, word := range strings.FieldsFunc(rest, func(r rune) bool { return r == ' ' || r == ',' }) {
			key, value, _ := strings.Cut(word, ":")
			if key == "anon-rss" || key == "shmem-rss" { // files can be read again
				kb, _ := strconv.ParseInt(strings.TrimSuffix(value, "kB"), 10, 64)
				last.RSS += kb << 10
			}
		}
	}
	return last
}

// keyValues reads "key=value" pairs.
func keyValues(text, separator string) map[string]string {
	out := map[string]string{}
	for pair := range strings.SplitSeq(text, separator) {
		if k, v, ok := strings.Cut(strings.TrimSpace(pair), "="); ok {
			out[k] = strings.Trim(v, `"`)
		}
	}
	return out
}
