package cli

import (
	"strings"
	"testing"
	"time"

	"berth/internal/wire"
)

func whyScreen(w *wire.Why, width, rows int) string {
	p := &whyPainter{w: w, now: time.Unix(2000, 0), width: width, rows: rows}
	return p.paint()
}

func TestWhyFitsTheScreen(t *testing.T) {
	t.Parallel()
	w := &wire.Why{Name: "web", Image: "img:1", Status: "exited", Command: []string{"sh", "-c", strings.Repeat("word ", 40)},
		Started: time.Unix(1000, 0), Finished: time.Unix(1990, 0),
		End:    &wire.WhyEnd{Code: 137, Signal: "SIGKILL", BySignal: true, OOM: true},
		Memory: wire.WhyMemoryUse{Limit: 64 << 20, Peak: 64 << 20, Victim: &wire.WhyVictim{Name: "python3", Pid: 77, RSS: 60 << 20}},
		Causes: []wire.WhyCause{{Kind: wire.WhyOOM, Sure: wire.WhyCertain, Subject: "python3"}, {Kind: wire.WhyNetwork, Sure: wire.WhyGuess, Evidence: "connection refused"}}}
	for range 100 {
		w.Log.Lines = append(w.Log.Lines, "a line of the log with \x1b[31mcolours\x1b[0m and "+strings.Repeat("x", 300))
	}
	for _, width := range []int{40, 80, 110} {
		text := whyScreen(w, width, 30)
		for line := range strings.Lines(text) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > width {
				t.Errorf("width %d: a line of %d: %q", width, n, line)
			}
		}
		if strings.Contains(text, "\x1b") {
			t.Error("the log drives the terminal")
		}
		if n := strings.Count(text, "\n"); width > 40 && n > 30 {
			t.Errorf("width %d: %d lines on a screen of 30", width, n)
		}
	}
	text := strings.Join(strings.Fields(whyScreen(w, 80, 30)), " ")
	for _, want := range []string{"web ended 10 seconds ago with code 137 (SIGKILL) It ran out of memory, and the kernel killed it.",
		"python3 (pid 77 on the host), which held 60MiB, was killed when the container met its limit of 64MiB (most in use: 64MiB).",
		"berth update --memory 128M", "A guess: something that it needs could not be reached", "\"connection refused\"", "64MiB at most, limit 64MiB"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
}

func TestEveryCauseHasWords(t *testing.T) {
	t.Parallel()
	kinds := []string{wire.WhyFine, wire.WhyFinished, wire.WhyNever, wire.WhyPaused, wire.WhyDead, wire.WhyAsked, wire.WhyOOM, wire.WhyHostOOM,
		wire.WhyKilled, wire.WhySignal, wire.WhyLost, wire.WhyNoShell, wire.WhyExit, wire.WhyNotFound, wire.WhyLoader, wire.WhyCRLF, wire.WhyPlatform,
		wire.WhyExecutable, wire.WhyPort, wire.WhyMount, wire.WhyConfig, wire.WhyPartner, wire.WhyStart, wire.WhyPermission, wire.WhyDenied, wire.WhyReadOnly, wire.WhyDisk,
		wire.WhyProcesses, wire.WhyFiles, wire.WhyMemory, wire.WhyNetwork, wire.WhyUnhealthy, wire.WhyLoop, wire.WhyThrottled}
	seen := map[string]string{}
	for _, kind := range kinds {
		for _, subject := range []string{"", "hand", "policy", "shutdown", "boot", "seccomp", "apparmor", "privileged", "heap", "limit", "pressure", "port", "SIGSEGV"} {
			w := &wire.Why{Name: "web", Status: "exited", End: &wire.WhyEnd{Code: 1}}
			title, _, _ := explainCause(w, &wire.WhyCause{Kind: kind, Sure: wire.WhyCertain, Subject: subject, Other: "is no program"}, time.Unix(1, 0))
			if strings.HasPrefix(title, kind+" ") && kind != "port" || kind != wire.WhyAsked && len(title) < 10 {
				t.Errorf("%s %s: %q", kind, subject, title)
			}
			seen[kind] = title
			w.Causes = []wire.WhyCause{{Kind: kind, Sure: wire.WhyCertain, Subject: subject}}
			whyScreen(w, 80, 24) // must not fail on what is missing
		}
	}
	w := &wire.Why{Name: "web", Causes: []wire.WhyCause{{Kind: "brand-new", Sure: "certain", Subject: "x"}}}
	if text := whyScreen(w, 80, 24); !strings.Contains(text, "brand-new x") {
		t.Errorf("a cause of a newer engine is not shown:\n%s", text)
	}
}
