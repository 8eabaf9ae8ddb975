package builds

import (
	"bytes"
	"encoding/xml"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/internal/build"
	"berth/internal/build/solve"
	"berth/internal/engine/filter"
	"berth/internal/engine/vocabulary"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestMountsOfSteps(t *testing.T) {
	for name, tt := range map[string]struct {
		mount solve.Mount
		want  specs.Mount
	}{
		"a stack to read": {solve.Mount{Kind: solve.OverlayMount, Target: "/src", ReadOnly: true, Lower: []string{"/b", "/a"}},
			specs.Mount{Destination: "/src", Type: "overlay", Source: "overlay", Options: []string{"ro", "lowerdir+=/b", "lowerdir+=/a"}}},
		"a stack to write": {solve.Mount{Kind: solve.OverlayMount, Target: "/src", Lower: []string{"/a"}, Upper: "/u", Work: "/w"},
			specs.Mount{Destination: "/src", Type: "overlay", Source: "overlay", Options: []string{"rw", "lowerdir+=/a", "upperdir=/u", "workdir=/w"}}},
		"memory": {solve.Mount{Kind: solve.TmpfsMount, Target: "/t", Size: 4096},
			specs.Mount{Destination: "/t", Type: "tmpfs", Source: "tmpfs", Options: []string{"rw", "nosuid", "nodev", "size=4096"}}},
		"a secret": {solve.Mount{Kind: solve.DataMount, Target: "/run/secrets/s", ReadOnly: true},
			specs.Mount{Destination: "/run/secrets/s", Type: "bind", Source: "/file", Options: []string{"bind", "rprivate", "ro", "nosuid", "nodev", "noexec"}}},
		"a cache": {solve.Mount{Kind: solve.BindMount, Target: "/c", Path: "/cache"},
			specs.Mount{Destination: "/c", Type: "bind", Source: "/cache", Options: []string{"rbind", "rprivate", "rw"}}},
	} {
		got := stepMount(tt.mount, "/file")
		if got.Destination != tt.want.Destination || got.Type != tt.want.Type || got.Source != tt.want.Source || !slices.Equal(got.Options, tt.want.Options) {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

// A step is a container like others: what it does not ask for is confined.
func TestStepsAreConfined(t *testing.T) {
	step := solve.Step{ID: "build-x", Args: []string{"/bin/sh", "-c", "true"}, Dir: "/src"}
	plain := stepRecord(step, vocabulary.Host{})
	if hc := plain.HostConfig; hc.Privileged || len(hc.SecurityOpt) > 0 || len(hc.MaskedPaths) == 0 || len(hc.CapAdd) > 0 {
		t.Errorf("%+v", hc)
	}
	if plain.Config.Hostname != "build" || plain.Path != "/bin/sh" || len(plain.Args) != 2 {
		t.Errorf("%+v", plain)
	}
	step.Insecure = true
	if hc := stepRecord(step, vocabulary.Host{}).HostConfig; !hc.Privileged || !slices.Contains(hc.SecurityOpt, "seccomp=unconfined") {
		t.Errorf("%+v", hc)
	}
}

func TestCacheFilters(t *testing.T) {
	item := solve.Item{ID: "abc1", Kind: "mount", Description: "mount /root/.cache", InUse: true}
	for text, want := range map[string]bool{
		``: true, `{"id":["abc"]}`: true, `{"id":["bc"]}`: false, `{"type":["exec.cachemount"]}`: true, `{"type":["regular"]}`: false,
		`{"inuse":["true"]}`: true, `{"inuse":["0"]}`: false, `{"shared":["1"]}`: false, `{"private":["1"]}`: true, `{"description":["cache"]}`: true,
	} {
		f, err := filter.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := isCacheWanted(f, item); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// What comes from Dockerfiles and programs is text in the picture, and nothing else.
func TestPictureOfHostileNames(t *testing.T) {
	const evil = `</text><script>alert("1")</script>&` + "\x00\x1b]"
	now := time.Now()
	b := &build.Build{Name: evil, Status: evil, Started: now, Finished: now.Add(time.Second), Steps: []solve.StepInfo{
		{Name: evil, Why: evil, Started: now, Finished: now.Add(time.Second)},
		{Name: strings.Repeat("long ", 100), Error: evil, Started: now},
		{Name: "never", Skipped: true},
	}}
	var out bytes.Buffer
	if err := Picture(b, &out); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "never") {
		t.Error("a step is drawn that was skipped")
	}
	for d := xml.NewDecoder(&out); ; {
		token, err := d.Token()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "script" {
			t.Error("a name became an element")
		}
	}
}
