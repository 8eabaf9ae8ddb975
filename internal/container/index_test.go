package container

import (
	"context"
	"strings"
	"testing"
	"time"

	"berth/internal/fault"

	"github.com/moby/moby/api/types/container"
)

func add(t *testing.T, x *Index, id, name string, created time.Time) *Container {
	t.Helper()
	if err := x.Reserve(name, id); err != nil {
		t.Fatal(err)
	}
	c := New(&Record{ID: id, Name: name, Created: created, State: State{Status: container.StateCreated}})
	x.Add(c)
	return c
}

func TestFind(t *testing.T) {
	x := NewIndex()
	now := time.Now()
	add(t, x, "abc1000000000000", "web", now)
	add(t, x, "abc2000000000000", "db", now.Add(time.Second))
	// A name that looks like another's id prefix wins over the prefix.
	add(t, x, "fff0000000000000", "abc1", now.Add(2*time.Second))
	for ref, want := range map[string]string{
		"abc1000000000000": "abc1000000000000", "web": "abc1000000000000", "/web": "abc1000000000000",
		"abc2": "abc2000000000000", "abc1": "fff0000000000000", "abc10": "abc1000000000000",
	} {
		c, err := x.Find(ref)
		if err != nil || c.ID != want {
			t.Errorf("%s: %v, %v", ref, c, err)
		}
	}
	if _, err := x.Find("abc"); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "multiple IDs") {
		t.Errorf("ambiguous prefix: %v", err)
	}
	for _, ref := range []string{"", "nope", "/"} {
		if _, err := x.Find(ref); !fault.Is(err, fault.NotFound) || err.Error() != "No such container: "+ref {
			t.Errorf("%q: %v", ref, err)
		}
	}
	all := x.All()
	if len(all) != 3 || all[0].ID != "fff0000000000000" || all[2].ID != "abc1000000000000" {
		t.Errorf("not newest first: %v", all)
	}
}

func TestNamesAreGivenOnce(t *testing.T) {
	x := NewIndex()
	c := add(t, x, "id1", "web", time.Now())
	err := x.Reserve("web", "id2")
	want := `Conflict. The container name "/web" is already in use by container "id1". You have to remove (or rename) that container to be able to reuse that name.`
	if !fault.Is(err, fault.Conflict) || err.Error() != want {
		t.Errorf("got %v", err)
	}
	x.Remove(c.ID, "web")
	if err := x.Reserve("web", "id2"); err != nil {
		t.Errorf("the name is not free after removal: %v", err)
	}
	x.Release("web", "id3") // not its owner
	if err := x.Reserve("web", "id3"); err == nil {
		t.Error("a name was released by somebody else")
	}
	seen := map[string]bool{}
	for range 5000 {
		n := x.ReserveFree("id", RandomName)
		if seen[n] || CheckName(n) != nil {
			t.Fatalf("bad name %q", n)
		}
		seen[n] = true
	}
}

func TestCheckName(t *testing.T) {
	for _, n := range []string{"ab", "a1", "web_1.x-y", "0a"} {
		if err := CheckName(n); err != nil {
			t.Errorf("%q: %v", n, err)
		}
	}
	for _, n := range []string{"", "a", "-a", ".a", "a b", "a/b", "ä1"} {
		if err := CheckName(n); err == nil {
			t.Errorf("%q was accepted", n)
		}
	}
}

func receive(t *testing.T, ch <-chan Result) Result {
	t.Helper()
	select {
	case r := <-ch:
		return r
	case <-time.After(10 * time.Second):
		t.Fatal("the wait was not answered")
		return Result{}
	}
}

func waiting(ch <-chan Result) bool {
	select {
	case <-ch:
		return false
	default:
		return true
	}
}

func TestWaitConditions(t *testing.T) {
	c := New(&Record{ID: "x", State: State{Status: container.StateExited, ExitCode: 4}})
	notRunning, _ := c.Wait(container.WaitConditionNotRunning)
	if r := receive(t, notRunning); r.ExitCode != 4 {
		t.Errorf("stopped container: %+v", r)
	}
	nextExit, _ := c.Wait(container.WaitConditionNextExit)
	removed, _ := c.Wait(container.WaitConditionRemoved)
	s, _ := c.State().Running(1, time.Now(), "b")
	c.SetState(s)
	running, _ := c.Wait(container.WaitConditionNotRunning)
	forgotten, forget := c.Wait(container.WaitConditionNotRunning)
	forget()
	if !waiting(nextExit) || !waiting(removed) || !waiting(running) {
		t.Fatal("answered before the end")
	}
	c.AnswerExit(Result{ExitCode: 9})
	if r := receive(t, nextExit); r.ExitCode != 9 {
		t.Errorf("next exit: %+v", r)
	}
	if r := receive(t, running); r.ExitCode != 9 {
		t.Errorf("not running: %+v", r)
	}
	if !waiting(removed) || !waiting(forgotten) {
		t.Error("answered who should not be")
	}
	c.AnswerRemoved(Result{ExitCode: 9})
	receive(t, removed)
	late, _ := c.Wait(container.WaitConditionRemoved)
	receive(t, late)
}

func TestRestartingCountsAsRunning(t *testing.T) {
	c := New(&Record{ID: "x", State: State{Status: container.StateRestarting}})
	ch, _ := c.Wait(container.WaitConditionNotRunning)
	if !waiting(ch) {
		t.Error("a container between two starts was reported as not running")
	}
}

func TestLockGivesUpWithTheContext(t *testing.T) {
	c := New(&Record{ID: "x"})
	if err := c.Lock(context.Background()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := c.Lock(ctx); err == nil {
		t.Fatal("locked twice")
	}
	c.Unlock()
	if err := c.Lock(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestExecs(t *testing.T) {
	var all Execs
	a := NewExec("a", "c1", container.ExecCreateRequest{})
	b := NewExec("b", "c2", container.ExecCreateRequest{})
	all.Add(a)
	all.Add(b)
	if !a.Claim() || a.Claim() {
		t.Error("an exec must be started once")
	}
	a.Ended(3) // before its start was reported
	a.Began(17)
	if pid, running, code := a.Status(); running || pid != 17 || code == nil || *code != 3 {
		t.Errorf("a: pid %d running %v code %v", pid, running, code)
	}
	all.EndAll("c2", 255)
	<-b.Done()
	if got := all.Of("c1"); len(got) != 0 {
		t.Errorf("finished execs are listed: %v", got)
	}
	all.Drop("c1")
	if all.Get("a") != nil || all.Get("b") == nil {
		t.Error("dropped the wrong ones")
	}
}
