package stdio

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"berth/internal/logs"
	"berth/internal/logs/local"

	"golang.org/x/sys/unix"
)

// A pipe that nobody reads stands for a disk that hangs.
func TestNonBlockingDeliveryDropsAndCounts(t *testing.T) {
	t.Parallel()
	f := newFake(t, true, -1, 1)
	path := f.dir + "/hanging"
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f.proc.cfg.Log = NewLog(LogConfig{Path: path, Format: local.Format{}, Limits: logs.Limits{MaxSize: -1, MaxFiles: 1}, Buffer: 100_000}, f.state)
	f.start()
	const lines = 400_000
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		w := bufio.NewWriterSize(f.out[0], 64<<10)
		for i := 1; i <= lines; i++ {
			fmt.Fprintf(w, "%d\n", i)
		}
		_ = w.Flush()
	}()
	within(t, "the process writes on although its log hangs", wrote)
	var st unix.Stat_t
	if err := unix.Stat(f.dir+"/spool1", &st); err != nil || st.Blocks*512 > 2<<20 {
		t.Errorf("%d bytes wait in the spool, %v", st.Blocks*512, err)
	}
	disk, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	read := make(chan struct{})
	seen, gaps := 0, 0
	go func() {
		defer close(read)
		d := local.Format{}.NewDecoder()
		for in := bufio.NewScanner(disk); seen < lines && in.Scan(); {
			e := d.Decode(in.Bytes())
			if e == nil {
				t.Errorf("not an entry: %q", in.Bytes())
				return
			}
			var dropped int
			if n, _ := fmt.Sscanf(string(e.Line), "berth: %d lines were dropped", &dropped); n == 1 {
				seen += dropped
				gaps++
				continue
			}
			if seen++; strings.TrimSpace(string(e.Line)) != fmt.Sprint(seen) {
				t.Errorf("line %q, want %d", e.Line, seen)
				return
			}
		}
	}()
	f.exit()
	within(t, "everything is accounted for", read)
	if seen != lines || gaps == 0 || gaps > 20 {
		t.Errorf("%d lines accounted for of %d, told of in %d places", seen, lines, gaps)
	}
	t.Logf("%d gaps", gaps)
}

// Where the disk keeps up nothing is dropped.
func TestNonBlockingDeliveryLogsAll(t *testing.T) {
	t.Parallel()
	f := newFake(t, true, 5000, 1000)
	f.proc.cfg.Log.Buffer = 64 << 20
	f.start()
	var want strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	f.say(0, want.String())
	f.say(1, "unfinished")
	f.exit()
	if got := readLog(t, f.logPath()); got[0] != want.String() || got[1] != "unfinished|" {
		t.Errorf("the log differs: %d bytes, want %d; %q", len(got[0]), want.Len(), got[1])
	}
}
