package build

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"berth/internal/build/solve"
	"berth/internal/fault"
)

// History is what was built: a file for each build with its steps, and one with
// their output. The oldest go when there are more than keptBuilds.
type History struct {
	dir string

	mu      sync.Mutex // guards running
	running map[string]*Build
}

const (
	keptBuilds = 200
	maxLog     = 16 << 20 // bytes of output kept for one build
)

// Build is one build in the history.
type Build struct {
	ID         string
	Name       string // first tag, or the context's
	Dockerfile string
	Context    string
	Target     string   `json:",omitempty"`
	Platform   string   `json:",omitempty"`
	Tags       []string `json:",omitempty"`
	Args       []string `json:",omitempty"` // names only: values may be secrets
	Status     string   // "running", "done", "failed", "cancelled", "interrupted"
	Error      string   `json:",omitempty"`
	Image      string   `json:",omitempty"`
	Started    time.Time
	Finished   time.Time
	Steps      []solve.StepInfo
	Warnings   []string `json:",omitempty"`

	log  *os.File
	size int
}

// openHistory opens the history in dir. Builds that were running when the engine
// was killed are marked.
func openHistory(dir string) (*History, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Wrap("open build history", dir, err)
	}
	h := &History{dir: dir, running: map[string]*Build{}}
	list, err := h.List()
	if err != nil {
		return nil, err
	}
	for _, b := range list {
		if b.Status == "running" {
			b.Status = "interrupted"
			if err := h.save(b); err != nil && !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.ENOSPC) {
				return nil, fault.Wrap("open build history", dir, err)
			}
		}
	}
	return h, nil
}

func (h *History) begin(o *one) *Build {
	r := o.req
	b := &Build{
		ID: newID(), Dockerfile: o.file, Context: r.ContextDir, Target: r.Target, Tags: r.Tags, Status: "running", Started: time.Now(),
		Platform: strings.Join(platformNames(o.platforms), ","),
	}
	if b.Context == "" {
		b.Context = r.Remote
	}
	if b.Context == "" {
		b.Context = r.ContextName
	}
	if b.Name = filepath.Base(b.Context); b.Context == "" {
		b.Name = "-" // from standard input, as its client calls it
	}
	if len(r.Tags) > 0 {
		b.Name = r.Tags[0]
	}
	for k := range r.Args {
		b.Args = append(b.Args, k)
	}
	slices.Sort(b.Args)
	h.mu.Lock()
	h.running[b.ID] = b
	h.mu.Unlock()
	_ = h.save(b) // an unwritten history is no reason not to build
	b.log, _ = os.OpenFile(h.path(b.ID, ".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	return b
}

// event keeps what a step's program wrote. It is not called concurrently for one
// build.
func (h *History) event(b *Build, e Event) {
	if e.Kind != solve.Output || b.log == nil || b.size > maxLog {
		return
	}
	var out bytes.Buffer
	for line := range bytes.Lines(e.Data) {
		fmt.Fprintf(&out, "#%d %s", e.Vertex, line)
		if !bytes.HasSuffix(line, []byte("\n")) {
			out.WriteByte('\n')
		}
	}
	n, _ := b.log.Write(out.Bytes())
	b.size += n
}

func (h *History) end(b *Build, res *Result, err error) {
	b.Finished, b.Steps, b.Status = res.Finished, res.Steps, "done"
	for _, w := range res.Warnings {
		b.Warnings = append(b.Warnings, fmt.Sprintf("%s: %s (line %d)", w.Rule, w.Message, w.Lines.Start))
	}
	if res.Image != nil {
		b.Image = res.Name().String()
	}
	if err != nil {
		b.Status, b.Error = "failed", err.Error()
		if fault.Is(err, fault.Canceled) {
			b.Status = "cancelled"
		}
	}
	if b.log != nil {
		b.log.Close()
	}
	_ = h.save(b)
	h.mu.Lock()
	delete(h.running, b.ID)
	h.mu.Unlock()
	h.trim()
}

func (h *History) path(id, ext string) string { return filepath.Join(h.dir, id+ext) }

func (h *History) save(b *Build) error {
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	p := h.path(b.ID, ".json")
	if err := os.WriteFile(p+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(p+".new", p)
}

// trim drops the oldest builds.
func (h *History) trim() {
	// The directory is listed before any file of it is read: mostly there is
	// nothing to do.
	entries, err := os.ReadDir(h.dir)
	if err != nil || len(entries) <= 2*keptBuilds {
		return
	}
	list, err := h.List()
	if err != nil {
		return
	}
	for _, b := range list[min(len(list), keptBuilds):] {
		_ = h.Remove(b.ID)
	}
}

// List returns all builds, newest first.
func (h *History) List() ([]*Build, error) {
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return nil, fault.Wrap("list builds", h.dir, err)
	}
	var out []*Build
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		if b, err := h.read(id); err == nil {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b *Build) int {
		if c := b.Started.Compare(a.Started); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out, nil
}

func (h *History) read(id string) (*Build, error) {
	data, err := os.ReadFile(h.path(id, ".json"))
	if err != nil {
		return nil, err
	}
	b := &Build{}
	return b, json.Unmarshal(data, b)
}

// Get finds a build by its id, a unique beginning of that, or "" for the newest.
func (h *History) Get(id string) (*Build, error) {
	list, err := h.List()
	if err != nil {
		return nil, err
	}
	var found *Build
	for _, b := range list {
		if !strings.HasPrefix(b.ID, id) {
			continue
		}
		if found != nil && id != "" && b.ID != id {
			return nil, fault.New(fault.Invalid, "find build", id, "more than one build begins with it")
		}
		if found == nil {
			found = b
		}
	}
	if found == nil {
		return nil, fault.New(fault.NotFound, "find build", id, "no such build").WithHint("berth build history ls shows what there is")
	}
	return found, nil
}

// Logs writes the output of a build's steps, each line after its step's number.
func (h *History) Logs(id string, w io.Writer) error {
	b, err := h.Get(id)
	if err != nil {
		return err
	}
	f, err := os.Open(h.path(b.ID, ".log"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.Wrap("read log of build", b.ID, err)
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return fault.Wrap("read log of build", b.ID, err)
}

// Remove forgets a build, named as for Get: what a caller writes is looked up,
// never made part of a path.
func (h *History) Remove(id string) error {
	if id == "" {
		return fault.New(fault.Invalid, "remove build", "", "no id is given")
	}
	b, err := h.Get(id)
	if err != nil {
		return err
	}
	id = b.ID
	h.mu.Lock()
	running := h.running[id] != nil
	h.mu.Unlock()
	if running {
		return fault.New(fault.Conflict, "remove build", id, "it is running")
	}
	for _, ext := range []string{".log", ".json"} {
		if err := os.Remove(h.path(id, ext)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault.Wrap("remove build", id, err)
		}
	}
	return nil
}

// Trace writes a build's timeline in Chrome's trace format, which
// chrome://tracing and ui.perfetto.dev show.
func (h *History) Trace(id string, w io.Writer) error {
	b, err := h.Get(id)
	if err != nil {
		return err
	}
	type event struct {
		Name string            `json:"name"`
		Cat  string            `json:"cat,omitempty"`
		Ph   string            `json:"ph"`
		TS   int64             `json:"ts"`            // microseconds
		Dur  int64             `json:"dur,omitempty"` // microseconds
		PID  int               `json:"pid"`
		TID  int               `json:"tid"`
		Args map[string]string `json:"args,omitempty"`
	}
	events := []event{{Name: "process_name", Ph: "M", PID: 1, Args: map[string]string{"name": "build " + b.Name}}}
	for _, s := range b.Steps {
		if s.Skipped {
			continue
		}
		kind := "run"
		if s.Cached {
			kind = "cached"
		}
		args := map[string]string{"stage": s.Stage}
		for k, v := range map[string]string{"why": s.Why, "error": s.Error} {
			if v != "" {
				args[k] = v
			}
		}
		events = append(events, event{
			Name: s.Name, Cat: kind, Ph: "X", TS: s.Started.Sub(b.Started).Microseconds(),
			Dur: max(1, s.Finished.Sub(s.Started).Microseconds()), PID: 1, TID: s.ID, Args: args,
		})
	}
	return fault.Wrap("write trace of build", b.ID, json.NewEncoder(w).Encode(map[string]any{"traceEvents": events, "displayTimeUnit": "ms"}))
}
