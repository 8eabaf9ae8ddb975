package stdio

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/internal/logs"
	"berth/internal/logs/jsonfile"
	"berth/internal/logs/local"

	"golang.org/x/sys/unix"
)

// pumpUntilKilled is the process of TestKilledAtAnyInstant: it moves two pipes
// into a log, as a successor of one that was killed.
func pumpUntilKilled(dir string) {
	fd := must(unix.Open(dir+"/state", unix.O_RDWR|unix.O_CLOEXEC, 0))
	state := must(LoadState(fd))
	pump := must(NewPump())
	drained := make(chan struct{})
	proc := pump.NewProc(Config{
		Name: "pump", Spools: [2]string{dir + "/spool1", dir + "/spool2"},
		Log:       NewLog(killedLog(dir), state),
		OnDrained: func() { close(drained) },
	})
	proc.Recover()
	files := NoFiles
	for i := range 2 {
		files.Out[i] = must(unix.Open(fmt.Sprintf("%s/fifo%d", dir, i), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0))
	}
	if err := proc.Open(files, false); err != nil {
		panic(err)
	}
	go func() { panic(pump.Run()) }()
	if os.Getenv("STDIO_TEST_EXIT") != "" {
		proc.Exit()
	}
	<-drained
	os.Exit(0)
}

// killedLog is the log of TestKilledAtAnyInstant; the name of the directory says
// which.
func killedLog(dir string) LogConfig {
	cfg := LogConfig{Path: dir + "/x.log", Format: jsonfile.Format{}, Limits: logs.Limits{MaxSize: 20_000, MaxFiles: 10_000}}
	if strings.Contains(dir, "local") {
		cfg.Format = local.Format{}
	}
	cfg.Limits.Compress = strings.Contains(dir, "compressed")
	if strings.Contains(dir, "dropping") {
		cfg.Buffer = 20_000
	}
	return cfg
}

// Numbered lines are written while the process that logs them is killed again
// and again: each has to be in the log once, and in order.
func TestKilledAtAnyInstant(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"json-file", "json-file-compressed", "local-compressed", "local-dropping"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), name)
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			killAtAnyInstant(t, dir, killedLog(dir))
		})
	}
}

func killAtAnyInstant(t *testing.T, dir string, cfg LogConfig) {
	newState(dir + "/state").Close()
	var writers sync.WaitGroup
	stop := make(chan struct{})
	var counts [2]int
	for i := range 2 {
		path := fmt.Sprintf("%s/fifo%d", dir, i)
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		fifo, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = fifo.Close() })
		writers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 3))
			for {
				select {
				case <-stop:
					return
				default:
				}
				var b []byte
				for range 1 + random.IntN(200) {
					counts[i]++
					b = fmt.Appendf(b, "%d %s\n", counts[i], strings.Repeat("é\t", random.IntN(60)))
				}
				for len(b) > 0 { // cut anywhere
					n := min(1+random.IntN(3000), len(b))
					_, _ = fifo.Write(b[:n])
					b = b[n:]
				}
			}
		})
	}
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	const kills = 60
	var group sync.WaitGroup
	followed := [2]int{}
	done := make(chan struct{})
	group.Go(func() { // a reader that follows must not be misled either
		err := logs.Read(t.Context(), cfg.Format, cfg.Path, logs.ReadOptions{Tail: -1, Follow: true, Done: done}, func(e logs.Entry) error {
			checkLine(t, "follower", e, &followed)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	for range kills {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "STDIO_TEST_PUMP="+dir)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(5+random.IntN(40)) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	close(stop)
	finish := func(until <-chan struct{}) {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "STDIO_TEST_PUMP="+dir)
		if until == nil {
			cmd.Env = append(cmd.Env, "STDIO_TEST_EXIT=1")
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if until != nil {
			<-until
			_ = cmd.Process.Kill()
		}
		_ = cmd.Wait()
	}
	written := make(chan struct{})
	go func() { writers.Wait(); close(written) }()
	finish(written)
	finish(nil)
	close(done)
	group.Wait()
	var seen [2]int
	err := logs.Read(t.Context(), cfg.Format, cfg.Path, logs.ReadOptions{Tail: -1}, func(e logs.Entry) error {
		checkLine(t, "log", e, &seen)
		return nil
	})
	if err != nil || seen != counts || followed != counts {
		t.Errorf("%v; written %v, logged %v, followed %v", err, counts, seen, followed)
	}
	t.Logf("%v lines through %d kills", counts, kills)
}

// checkLine checks that a line has the next number of its stream, and counts it.
func checkLine(t *testing.T, who string, e logs.Entry, seen *[2]int) {
	i := 0
	if e.Stream == "stderr" {
		i = 1
	}
	var dropped int
	if n, _ := fmt.Sscanf(string(e.Line), "berth: %d lines were dropped here", &dropped); n == 1 {
		seen[i] += dropped
		return
	}
	number, rest, _ := strings.Cut(string(e.Line), " ")
	if number != fmt.Sprint(seen[i]+1) || strings.Trim(rest, "é\t") != "\n" {
		t.Errorf("%s: %s line %.80q after %d", who, e.Stream, e.Line, seen[i])
	}
	seen[i]++
}

func TestStateSurvivesATornSlot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s := newState(path)
	for i := range 5 {
		if err := s.Update(func(p *Progress) { p.PID, p.Started, p.Log.Streams[1].Partial = 100+i, true, true }); err != nil {
			t.Fatal(err)
		}
	}
	load := func() Progress {
		return must(LoadState(must(unix.Open(path, unix.O_RDWR, 0)))).Get()
	}
	if got := load(); got.PID != 104 || !got.Started || !got.Log.Streams[1].Partial || got.Log.Streams[0].Partial || got.OOM {
		t.Errorf("got %+v", got)
	}
	text := must(os.ReadFile(path))
	text[slotSize*(6%2)+24]++ // the newest has the sequence number 6
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := load(); got.PID != 103 {
		t.Errorf("with the newest slot torn: %+v", got)
	}
	text[slotSize*(5%2)+24]++
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadState(must(unix.Open(path, unix.O_RDWR, 0))); err == nil {
		t.Error("a state without a valid slot was read")
	}
}
