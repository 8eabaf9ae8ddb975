package test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestDiskUsageAndPrune(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.ok("run", "-d", "--name", "up", "-v", "store:/data", busyboxImage, "sh", "-c", "head -c 1000000 /dev/zero >/data/file; head -c 500000 /dev/zero >/file; exec sleep 1000")
	for i := range 5 {
		h.ok("run", "--name", fmt.Sprintf("old%d", i), "-l", "n="+strconv.Itoa(i), busyboxImage, "sh", "-c", "head -c 100000 /dev/zero >/file")
	}
	h.ok("volume", "create", "unused")
	df := h.ok("system", "df")
	for _, want := range []string{"Images", "Containers", "Local Volumes"} {
		if !strings.Contains(df, want) {
			t.Errorf("system df lacks %s: %s", want, df)
		}
	}
	for client, v := range map[string]string{"docker": h.ok("system", "df", "-v"), "berth": h.berth("system", "df", "-v")} {
		if !strings.Contains(v, "store") || !strings.Contains(v, "old3") || client == "berth" && !strings.Contains(v, "Data directory: ") {
			t.Errorf("%s system df -v: %s", client, v)
		}
	}
	// Every byte has an owner.
	var answer struct {
		Owners []struct {
			Kind, Owner, Path string
			Size              int64
		}
	}
	var body strings.Builder
	if err := h.get("/system/df?owners=1&verbose=1", &body); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(body.String()), &answer); err != nil {
		t.Fatal(err)
	}
	total, seen := int64(0), map[string]bool{}
	for _, o := range answer.Owners {
		total += o.Size
		seen[o.Kind+" "+o.Owner] = true
	}
	out, err := h.within("du", "-s", "-B1", h.path("data")).Output()
	if err != nil {
		t.Fatal(err)
	}
	du, _ := strconv.ParseInt(strings.Fields(string(out))[0], 10, 64)
	if diff := du - total; diff < -64<<10 || diff > 64<<10 || !seen["volume store"] || !seen["container up"] || !seen["layer "+busyboxImage] {
		t.Errorf("the owners have %d bytes, du says %d: %v", total, du, answer.Owners)
	}

	if plan := h.berth("container", "prune", "--explain"); strings.Count(plan, "it does not run") != 5 || !strings.Contains(plan, "it runs") {
		t.Errorf("dry run: %s", plan)
	}
	h.equal(strconv.Itoa(len(strings.Fields(h.ok("ps", "-aq")))), "6")
	if out := h.ok("container", "prune", "-f", "--filter", "label=n=1"); strings.Count(out, "\n") < 2 {
		t.Errorf("prune by label: %s", out)
	}
	h.equal(strconv.Itoa(len(strings.Fields(h.ok("ps", "-aq")))), "5")
	h.ok("system", "prune", "-f", "--volumes")
	h.equal(h.ok("ps", "-a", "--format", "{{.Names}}"), "up")
	h.ok("rm", "-f", "up")
}

func TestEventsAreReplayedAfterAKill(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	since := strconv.FormatInt(time.Now().Unix()-1, 10)
	h.ok("network", "create", "net")
	h.ok("run", "--name", "box", "--network", "net", "-v", "vol:/data", "-l", "a=b", busyboxImage, "true")
	// Who waits for the end hears of it before the network is left.
	h.eventually("the network is left", func() bool {
		return strings.Contains(h.ok("events", "--since", since, "--until", "0s", "--filter", "event=disconnect", "--format", "{{.Action}}"), "disconnect")
	})
	h.killEngine()
	h.startEngine()
	until := strconv.FormatInt(time.Now().Unix()+1, 10)
	events := func(filters ...string) string {
		t.Helper()
		args := []string{"events", "--since", since, "--until", until, "--format", "{{.Type}} {{.Action}}"}
		for _, f := range filters {
			args = append(args, "--filter", f)
		}
		return strings.ReplaceAll(h.ok(args...), "\n", ", ")
	}
	h.equal(events("type=container", "container=box"), "container create, container attach, container start, container die")
	h.equal(events("type=network", "event=create"), "network create")
	h.equal(events("type=network", "event=connect", "event=disconnect"), "network connect, network disconnect")
	h.equal(events("volume=vol"), "volume create, volume mount, volume unmount")
	h.equal(events("label=a=b", "event=die"), "container die")
	h.ok("rm", "box")
}
