package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	documents "berth/internal/wire"
)

// stocktaking is what an engine has: by kind and id what it takes in bytes, and the names
// of images.
type stocktaking struct {
	things map[string]int64 // "container ID", "image ID", "volume NAME", "network ID", "layer ID", "blob ID", "build-cache ID"
	names  map[string]bool
}

// stock looks at everything that a removal can take away.
func (h *host) stock() stocktaking {
	h.t.Helper()
	s := stocktaking{map[string]int64{}, map[string]bool{}}
	ask := func(path string, into any) {
		h.t.Helper()
		var b bytes.Buffer
		if err := h.get(path, &b); err != nil {
			h.t.Fatal(err)
		}
		if err := json.Unmarshal(b.Bytes(), into); err != nil {
			h.t.Fatal(err)
		}
	}
	var containers []struct {
		ID     string `json:"Id"`
		SizeRw int64
	}
	ask("/containers/json?all=1&size=1", &containers)
	for _, c := range containers {
		s.things["container "+c.ID] = c.SizeRw
	}
	var images []struct {
		ID                    string `json:"Id"`
		RepoTags, RepoDigests []string
	}
	ask("/images/json?all=1", &images)
	for _, i := range images {
		s.things["image "+i.ID] = 0 // its layers and blobs count
		for _, name := range slices.Concat(i.RepoTags, i.RepoDigests) {
			s.names[name] = true
		}
	}
	var networks []struct {
		ID string `json:"Id"`
	}
	ask("/networks", &networks)
	for _, n := range networks {
		s.things["network "+n.ID] = 0
	}
	var usage struct {
		Volumes []struct {
			Name      string
			UsageData struct{ Size int64 }
		}
	}
	ask("/v1.45/system/df?type=volume", &usage)
	for _, v := range usage.Volumes {
		s.things["volume "+v.Name] = v.UsageData.Size
	}
	var cache []struct {
		ID, Type string
		Size     int64
	}
	ask("/berth/build/cache", &cache)
	for _, c := range cache {
		if c.Type == "regular" {
			c.Size = 0 // its layers count
		}
		s.things["build-cache "+c.ID] = c.Size
	}
	records, _ := filepath.Glob(h.path("data", "layers", "*", "layer.json"))
	for _, record := range records {
		var layer struct{ Disk int64 }
		text, err := os.ReadFile(record)
		if err == nil {
			err = json.Unmarshal(text, &layer)
		}
		if err != nil {
			h.t.Fatal(err)
		}
		s.things["layer "+filepath.Base(filepath.Dir(record))] = layer.Disk
	}
	_ = filepath.WalkDir(h.path("data", "content"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && len(e.Name()) == 64 {
			if info, err := e.Info(); err == nil {
				s.things["blob "+e.Name()] = info.Size()
			}
		}
		return nil
	})
	return s
}

// TestAPlanIsWhatTheRemovalDoes removes random things of random stocks, each time after a
// dry run, which must have told what went, how much came back, and how it ended.
func TestAPlanIsWhatTheRemovalDoes(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if text := os.Getenv("BERTH_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("BERTH_SEED=%d repeats it", seed)
	p := &planner{host: newEngine(t), r: rand.New(rand.NewPCG(seed, 0))}
	for range 4 {
		p.fill()
		for range 8 {
			p.planAndDo(p.removal())
		}
	}
	p.planAndDo([]string{"system", "prune", "-a", "--volumes"})
	p.berth("rm", "-f", "-v", "none", p.try("ps", "-aq"))
}

type planner struct {
	*host
	r    *rand.Rand
	made int // things so far
}

func (p *planner) pick(words ...string) string { return words[p.r.IntN(len(words))] }

// fill makes images with layers in common, containers of them, volumes and networks.
func (p *planner) fill() {
	name := func(kind string) string { p.made++; return fmt.Sprint(kind, p.made) }
	if !strings.Contains(p.imageNames(), busyboxImage) {
		p.berth("import", p.busyboxTar(), busyboxImage)
	}
	images := []string{busyboxImage}
	var containers, volumes, networks []string
	for range 3 {
		network, volume := name("net"), name("vol")
		p.berth("network", "create", network)
		p.berth("volume", "create", volume)
		networks, volumes = append(networks, network), append(volumes, volume)
	}
	if p.r.IntN(2) == 0 {
		tag := "built:" + strconv.Itoa(p.r.IntN(3))
		p.build("-t", tag, p.context(name("app"), map[string]string{"Dockerfile": fmt.Sprintf(
			"FROM %s\nRUN head -c %d /dev/urandom >/built\nRUN --mount=type=cache,target=/kept head -c 3000 /dev/urandom >/kept/file\n", busyboxImage, p.r.IntN(3)*10000)}))
		images = append(images, tag)
	}
	for range 6 {
		args := []string{"--name", name("c"), "--network", p.pick(networks...)}
		if p.r.IntN(3) > 0 {
			args = append(args, "-v", "/anonymous")
		}
		if p.r.IntN(3) == 0 {
			args = append(args, "-v", p.pick(volumes...)+":/named")
		}
		if len(containers) > 0 && p.r.IntN(3) == 0 {
			args = append(args, "--volumes-from", p.pick(containers...))
		}
		image, write := p.pick(images...), fmt.Sprintf("head -c %d /dev/urandom >/file; head -c %d /dev/urandom >/anonymous/file; ", p.r.IntN(50000), p.r.IntN(50000))
		made := args[1]
		switch p.r.IntN(5) {
		case 0:
			p.berth(slices.Concat([]string{"create"}, args, []string{image, "true"})...)
		case 1, 2:
			if p.r.IntN(2) == 0 {
				args = append(args, "--rm")
			}
			p.berth(slices.Concat([]string{"run", "-d"}, args, []string{image, "sleep", "100000"})...)
			p.run("exec", made, "sh", "-c", write)
		default:
			p.run(slices.Concat([]string{"run"}, args, []string{image, "sh", "-c", write})...)
		}
		containers = append(containers, made)
		tag := []string{"commit", made}
		if p.r.IntN(4) > 0 {
			tag = append(tag, "app:"+strconv.Itoa(p.r.IntN(5))) // which may be another image's
		}
		images = append(images, p.berth(tag...))
		if p.r.IntN(2) == 0 {
			p.berth("tag", p.pick(images...), p.pick("app", "other")+":t"+strconv.Itoa(p.r.IntN(5)))
		}
	}
}

// removal is a random command that removes.
func (p *planner) removal() []string {
	some := func(flags []string, list string) []string {
		args := flags
		if p.r.IntN(3) == 0 {
			args = append(args, "-f")
		}
		all := strings.Fields(list)
		if len(all) == 0 || p.r.IntN(6) == 0 {
			args = append(args, "no-such-thing")
		}
		for range 1 + p.r.IntN(4) {
			if len(all) > 0 {
				i := p.r.IntN(len(all))
				args, all = append(args, all[i]), slices.Delete(all, i, i+1)
			}
		}
		return args
	}
	switch p.r.IntN(14) {
	case 0, 1, 2:
		flags := []string{"rm"}
		if p.r.IntN(2) == 0 {
			flags = append(flags, "-v")
		}
		return some(flags, p.berth("ps", "-a", "--format", "{{.Names}}"))
	case 3, 4, 5, 6:
		flags := []string{"rmi"}
		if p.r.IntN(4) == 0 {
			flags = append(flags, "--no-prune")
		}
		return some(flags, p.berth("images", "-q")+"\n"+strings.ReplaceAll(p.imageNames(), "<none>:<none>", ""))
	case 7:
		return some([]string{"volume", "rm"}, p.berth("volume", "ls", "-q"))
	case 8:
		return some([]string{"network", "rm"}, p.berth("network", "ls", "--format", "{{.Name}}"))
	case 9:
		return []string{p.pick("container", "volume", "network"), "prune"}
	case 10:
		return []string{p.pick("image", "volume"), "prune", "-a"}
	case 11:
		return []string{"build", "cache", "prune", p.pick("-a", "--max-used-space=1", "--mounts")}
	}
	return [][]string{{"system", "prune"}, {"system", "prune", "--volumes"}, {"image", "prune"}, {"container", "prune"}}[p.r.IntN(4)]
}

// planAndDo lets a command tell what it would do and then do it.
func (p *planner) planAndDo(args []string) {
	p.t.Helper()
	before := p.stock()
	told := p.run(append(slices.Clone(args), "--explain", "--format", "json")...)
	var plan documents.Plan
	if err := json.Unmarshal([]byte(told.stdout), &plan); err != nil {
		p.t.Fatalf("%v: %v: %s%s", args, err, told.stdout, told.stderr)
	}
	if now := p.stock(); !maps.Equal(now.things, before.things) || !maps.Equal(now.names, before.names) {
		p.t.Fatalf("the dry run of %v removed something", args)
	}
	deed := slices.Clone(args)
	if slices.Contains(args, "prune") {
		deed = append(deed, "-f")
	}
	done := p.run(deed...)
	after := p.stock()

	fail := func(format string, a ...any) {
		p.t.Helper()
		p.t.Fatalf("%v: %s\nplanned: %s%s\ndid: %s%s", args, fmt.Sprintf(format, a...), told.stdout, told.stderr, done.stdout, done.stderr)
	}
	if told.code != done.code {
		fail("planned exit code %d, got %d", told.code, done.code)
	}
	if sorted(told.stderr) != sorted(done.stderr) {
		fail("planned other complaints")
	}
	planned, names, freed := map[string]bool{}, map[string]bool{}, int64(0)
	for _, item := range plan.Remove {
		key := item.Kind + " " + item.ID
		if _, known := before.things[key]; known && !strings.HasSuffix(item.Reason, "the image stays without the name") {
			planned[key] = true
		}
		for _, name := range item.Names {
			names[name] = true
		}
	}
	for _, item := range plan.Keep {
		if item.Reason == "" {
			fail("%s %s is kept without a reason", item.Kind, item.ID)
		}
		if strings.HasPrefix(item.Reason, "it goes only if") { // which of the removals comes last is nobody's choice
			delete(before.things, item.Kind+" "+item.ID)
		}
	}
	for key, size := range before.things {
		if _, still := after.things[key]; still {
			if planned[key] {
				fail("%s was to go and is there", key)
			}
			continue
		}
		freed += size
		if !planned[key] && !strings.HasPrefix(key, "layer ") && !strings.HasPrefix(key, "blob ") {
			fail("%s has gone unplanned", key)
		}
	}
	for name := range before.names {
		if !after.names[name] && !names[name] && !strings.Contains(name, "<none>") && !strings.Contains(name, "@") {
			fail("the name %s has gone unplanned", name)
		}
	}
	if plan.SpaceReclaimed != freed {
		fail("%d bytes were to come back, %d did", plan.SpaceReclaimed, freed)
	}
}

func sorted(text string) string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
