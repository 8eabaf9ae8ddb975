package measure

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/container"
	"berth/internal/fault"
	"berth/internal/runtime/smallfile"

	api "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// Processes describes processes as the host's ps does when it is called with args; ""
// is what docker takes for them.
func Processes(ctx context.Context, pids []int, args string) (api.TopResponse, error) {
	slices.Sort(pids)
	if args == "" || args == "-ef" {
		return listProcesses(pids), nil
	}
	return runPS(ctx, strings.Fields(args), pids)
}

// listProcesses is `ps -ef` without another process.
func listProcesses(pids []int) api.TopResponse {
	out := api.TopResponse{Titles: []string{"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"}, Processes: [][]string{}}
	now, up := time.Now(), container.Uptime()
	for _, pid := range pids {
		if line := describeProcess(pid, now, up); line != nil {
			out.Processes = append(out.Processes, line)
		}
	}
	return out
}

// describeProcess returns one line of ps, nil for a process that has ended.
func describeProcess(pid int, now time.Time, up time.Duration) []string {
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	text, err := smallfile.Read(dir+"stat", 64<<10)
	if err != nil {
		return nil
	}
	// The name in parentheses may hold anything, further parentheses included.
	stat := string(text)
	begin, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if begin < 0 || end < begin {
		return nil
	}
	f := strings.Fields(stat[end+1:])
	if len(f) < 20 {
		return nil
	}
	n := func(i int) int64 { v, _ := strconv.ParseInt(f[i], 10, 64); return v }
	var st unix.Stat_t
	owner := "?"
	if unix.Stat(dir, &st) == nil {
		owner = userName(st.Uid)
	}
	used := time.Duration(n(11)+n(12)) * container.Tick
	age := up - time.Duration(n(19))*container.Tick
	began := now.Add(-age)
	share := 0
	if age > 0 {
		share = min(int(100*used/age), 99)
	}
	stime := began.Format("15:04")
	if age > 24*time.Hour {
		stime = began.Format("Jan02")
	}
	seconds := int(used.Seconds())
	clock := two(seconds/3600) + ":" + two(seconds/60%60) + ":" + two(seconds%60)
	command := "[" + stat[begin+1:end] + "]"
	if line, err := smallfile.Read(dir+"cmdline", 1<<20); err == nil && len(line) > 0 {
		command = strings.ReplaceAll(strings.TrimRight(string(line), "\x00"), "\x00", " ")
	}
	return []string{owner, strconv.Itoa(pid), f[1], strconv.Itoa(share), stime, terminal(int(n(4))), clock, command}
}

func two(n int) string {
	if n < 10 {
		return "0" + strconv.Itoa(n)
	}
	return strconv.Itoa(n)
}

// userName is the host's name of a user, as ps shows it.
func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

func terminal(dev int) string {
	const ptsMajor, ptsLast = 136, 143
	major, minor := int(unix.Major(uint64(dev))), int(unix.Minor(uint64(dev)))
	switch {
	case dev == 0:
		return "?"
	case major >= ptsMajor && major <= ptsLast:
		return "pts/" + strconv.Itoa((major-ptsMajor)<<20|minor)
	}
	return strconv.Itoa(major) + "," + strconv.Itoa(minor)
}

// runPS asks the host's ps for whatever columns a user wants and keeps the lines
// of the container's processes.
func runPS(ctx context.Context, args []string, pids []int) (api.TopResponse, error) {
	none := api.TopResponse{}
	for _, a := range args {
		if strings.ContainsAny(a, "\x00\n") {
			return none, fault.New(fault.Invalid, "", "", "invalid argument of ps: %q", a)
		}
	}
	cmd := exec.CommandContext(ctx, "ps", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		if ctx.Err() != nil {
			return none, ctx.Err()
		}
		return none, fault.New(fault.Invalid, "", "", "running the host's ps with %q: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return parsePS(string(text), pids)
}

// parsePS keeps the lines whose PID column names one of pids. Lines whose PID
// column can't be told ("-" of threads) follow the line before.
func parsePS(text string, pids []int) (api.TopResponse, error) {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	out := api.TopResponse{Titles: strings.Fields(lines[0]), Processes: [][]string{}}
	column := slices.Index(out.Titles, "PID")
	if column < 0 {
		return api.TopResponse{}, fault.New(fault.Invalid, "", "", "Couldn't find PID field in ps output")
	}
	kept := false
	for _, line := range lines[1:] {
		f := strings.Fields(line)
		if len(f) <= column {
			continue
		}
		if f[column] != "-" {
			pid, err := strconv.Atoi(f[column])
			if err != nil {
				return api.TopResponse{}, fault.New(fault.Invalid, "", "", "Unexpected pid '%s': %v", f[column], err)
			}
			kept = slices.Contains(pids, pid)
		}
		if !kept {
			continue
		}
		if last := len(out.Titles) - 1; len(f) > last {
			f = append(f[:last:last], strings.Join(f[last:], " "))
		}
		out.Processes = append(out.Processes, f)
	}
	return out, nil
}
