package why

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"berth/internal/container"
	"berth/internal/wire"

	api "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

func TestLastWordsPointToCauses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ line, kind, subject, sure string }{
		{"sh: slep: not found", wire.WhyNotFound, "slep", wire.WhyLikely},
		{"/bin/sh: 1: slep: not found", wire.WhyNotFound, "slep", wire.WhyLikely},
		{"bash: line 1: slep: command not found", wire.WhyNotFound, "slep", wire.WhyLikely},
		{"/entry.sh: line 12: gunicorn: command not found", wire.WhyNotFound, "gunicorn", wire.WhyLikely},
		{"env: can't execute 'python': No such file or directory", wire.WhyNotFound, "python", wire.WhyLikely},
		{"/usr/bin/env: ‘bash\\r’: No such file or directory", wire.WhyCRLF, "bash", wire.WhyLikely},
		{"/x.sh: line 2: $'\\r': command not found", wire.WhyCRLF, "", wire.WhyLikely},
		{"./app: error while loading shared libraries: libssl.so.3: cannot open shared object file", wire.WhyLoader, "libssl.so.3", wire.WhyLikely},
		{"sh: ./arm: cannot execute binary file: Exec format error", wire.WhyPlatform, "./arm", wire.WhyLikely},
		{"listen tcp :8080: bind: address already in use", wire.WhyPort, "", wire.WhyLikely},
		{"Error: listen EADDRINUSE: address already in use :::3000", wire.WhyPort, "3000", wire.WhyLikely},
		{"listen tcp :80: bind: permission denied", wire.WhyPermission, "port", wire.WhyGuess},
		{"touch: /data/x: Read-only file system", wire.WhyReadOnly, "/data/x", wire.WhyLikely},
		{"cat: can't open '/etc/key': Permission denied", wire.WhyPermission, "/etc/key", wire.WhyGuess},
		{"mount: permission denied (are you root?)", wire.WhyDenied, "", wire.WhyGuess},
		{"ip: RTNETLINK answers: Operation not permitted", wire.WhyDenied, "", wire.WhyGuess},
		{"FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory", wire.WhyMemory, "heap", wire.WhyLikely},
		{"java.lang.OutOfMemoryError: unable to create new native thread", wire.WhyProcesses, "", wire.WhyLikely},
		{"sh: can't fork: Resource temporarily unavailable", wire.WhyProcesses, "", wire.WhyLikely},
		{"accept: too many open files", wire.WhyFiles, "", wire.WhyLikely},
		{"write /var/log/x: no space left on device", wire.WhyDisk, "", wire.WhyLikely},
		{"could not translate host name \"db\" to address", wire.WhyNetwork, "", wire.WhyGuess},
		{"dial tcp 10.0.0.3:5432: connect: connection refused", wire.WhyNetwork, "", wire.WhyGuess},
		{"listening on :8080", "", "", ""},
		{"user not found in database", "", "", ""},
		{"GET /favicon.ico 404", "", "", ""},
	} {
		got := wordedCauses([]string{"begin", c.line})
		if c.kind == "" {
			if len(got) != 0 {
				t.Errorf("%q: %+v", c.line, got)
			}
			continue
		}
		if len(got) == 0 || got[0].Kind != c.kind || got[0].Subject != c.subject || got[0].Sure != c.sure {
			t.Errorf("%q: %+v, want %s of %q, %s", c.line, got, c.kind, c.subject, c.sure)
		}
	}
}

func TestKernelNamesTheVictim(t *testing.T) {
	t.Parallel()
	lines := []kernelLine{
		{text: "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/berth/aa,task_memcg=/berth/aa,task=tail,pid=12,uid=0"},
		{text: "Memory cgroup out of memory: Killed process 12 (tail) total-vm:18128kB, anon-rss:1024kB, file-rss:9kB, shmem-rss:1024kB, UID:0 pgtables:72kB oom_score_adj:0"},
		{text: "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/berth/bb/sub,task=java,pid=13,uid=0"},
	}
	if v := victimIn(lines, "/berth/aa"); v == nil || *v != (container.Victim{Name: "tail", Pid: 12, RSS: 2 << 20}) {
		t.Errorf("%+v", v)
	}
	if v := victimIn(lines, "/berth/bb"); v == nil || !v.Host || v.Name != "java" {
		t.Errorf("%+v", v)
	}
	if v := victimIn(lines, "/berth/b"); v != nil {
		t.Errorf("of somebody else: %+v", v)
	}
}

func TestKernelRecords(t *testing.T) {
	t.Parallel()
	boot := time.Unix(1000, 0)
	l, ok := parseKernel("6,339,5140900,-;tail[7]: segfault at 0\n SUBSYSTEM=x\n", boot)
	if !ok || l.text != "tail[7]: segfault at 0" || !l.at.Equal(boot.Add(5140900*time.Microsecond)) {
		t.Errorf("%+v %v", l, ok)
	}
	for _, bad := range []string{"", ";", "6,1;x", "6,1,x,-;y", "no separator"} {
		if _, ok := parseKernel(bad, boot); ok {
			t.Errorf("%q was taken", bad)
		}
	}
	for line, want := range map[string]string{
		`audit: type=1326 audit(1:2): auid=0 uid=0 pid=7 comm="x" sig=31 arch=c000003e syscall=165`:        "seccomp",
		`audit: type=1400 audit(1:2): apparmor="DENIED" operation="mount" profile="docker-default" pid=7 `: "apparmor",
		"tail[7]: segfault at 0 ip 0 sp 0 error 4":                                                         "SIGSEGV",
		"traps: x[7] trap invalid opcode ip:1 sp:2 error:0 in x[1000+20]":                                  "SIGILL",
	} {
		if c := kernelCause([]string{line}); c == nil || c.Subject != want || c.Sure != wire.WhyCertain {
			t.Errorf("%s: %+v", line, c)
		}
	}
}

func TestSimilarPrograms(t *testing.T) {
	t.Parallel()
	files := map[string][]string{"/bin": {"sleep", "sh", "python3.12", "ls"}, "/usr/bin": {"sleep", "node"}, "/app": {"start.sh", "server"}}
	list := func(dir string) []string { return files[dir] }
	dirs := []string{"/bin", "/usr/bin", "/app"}
	for name, want := range map[string][]string{
		"slep": {"/bin/sleep"}, "python": {"/bin/python3.12"}, "/usr/local/bin/node": {"/usr/bin/node"}, "start": {"/app/start.sh"},
		"sever": {"/app/server"}, "xy": nil, "postgres": nil, "Server": {"/app/server"},
	} {
		if got := similarPrograms(name, dirs, list); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestSocketsAtAPort(t *testing.T) {
	t.Parallel()
	const text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
		"   0: 0100007F:46A1 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1234 1 x\n" +
		"   1: 0100007F:46A1 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 5678 1 x\n"
	if got := listening(text, 18081, true); !reflect.DeepEqual(got, []string{"1234"}) {
		t.Errorf("%v", got)
	}
	if got := listening(text, 80, true); got != nil {
		t.Errorf("%v", got)
	}
}

func TestStalls(t *testing.T) {
	t.Parallel()
	s := parseStall("some avg10=1.50 avg60=2.25 avg300=0.00 total=1500000\nfull avg10=0.50 avg60=0.75 avg300=0.00 total=1\n")
	if *s != (wire.WhyStall{Some10: 1.5, Some60: 2.25, Full10: .5, Full60: .75, Total: 1500 * time.Millisecond}) {
		t.Errorf("%+v", s)
	}
}

func TestASignalThatIsNoStopExplainsNoEnd(t *testing.T) {
	t.Parallel()
	asked := func(s unix.Signal) *container.Asked { return &container.Asked{By: container.ByHand, Signal: int(s)} }
	for _, c := range []struct {
		end  container.Ending
		want bool
	}{
		{container.Ending{Code: 1, Asked: asked(unix.SIGHUP)}, false},
		{container.Ending{Code: 129, Signal: int(unix.SIGHUP), Asked: asked(unix.SIGHUP)}, true},
		{container.Ending{Code: 0, Asked: asked(unix.SIGTERM)}, true},
		{container.Ending{Code: 137, Asked: &container.Asked{}}, true},
	} {
		if got := meantEnd(c.end); got != c.want {
			t.Errorf("%+v: %v", c.end, got)
		}
	}
}

func TestEndsThatNobodySaw(t *testing.T) {
	t.Parallel()
	rec := &container.Record{Path: "sleep", Config: &api.Config{}, HostConfig: &api.HostConfig{}}
	k, w := &Evidence{Record: rec}, &wire.Why{}
	running := container.State{Status: api.StateRunning}
	for _, c := range []struct {
		end  container.Ending
		kind string
		subj string
	}{
		{lastOf(running.Lost(time.Unix(1, 0), "")), wire.WhyLost, "boot"},
		{lastOf(running.Lost(time.Unix(1, 0), "the monitor does not know it")), wire.WhyLost, "monitor"},
		{container.Ending{Code: 255}, wire.WhyExit, "255"},
		{container.Ending{Code: 137, Signal: 9}, wire.WhyKilled, ""},
		{container.Ending{Code: 139, Signal: 11}, wire.WhySignal, "SIGSEGV"},
		{container.Ending{Code: 143}, wire.WhySignal, "SIGTERM"},
		{container.Ending{Code: 159, Signal: 31}, wire.WhyDenied, "seccomp"},
		{container.Ending{Code: 137, Signal: 9, OOM: true, Victim: &container.Victim{Name: "x", Host: true}}, wire.WhyHostOOM, "x"},
	} {
		if got := k.endCauses(w, c.end); got[0].Kind != c.kind || got[0].Subject != c.subj {
			t.Errorf("%+v: %+v, want %s of %q", c.end, got, c.kind, c.subj)
		}
	}
}

func lastOf(s container.State) container.Ending {
	end, _ := s.LastEnding()
	return end
}
