package build

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/docker-image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"berth/internal/build/solve"
	"berth/internal/content"
	"berth/internal/image"
	"berth/internal/layer"
	"berth/internal/metadata"
	"berth/internal/overlay"
)

// house is everything that a builder needs, below a directory of its own.
type house struct {
	t      testing.TB
	dir    string
	db     *metadata.DB
	layers *layer.Store
	images *image.Store
	exec   *runner
	b      *Builder
	store  *content.Store
}

func newHouse(t testing.TB) *house {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: runs steps in containers")
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("needs /bin/busybox of the package busybox-static")
	}
	h := houseAt(t, t.TempDir())
	h.busybox()
	return h
}

// houseAt opens what is in dir.
func houseAt(t testing.TB, dir string) *house {
	h := &house{t: t, dir: dir, exec: &runner{state: filepath.Join(dir, "state")}}
	h.open()
	t.Cleanup(h.shut)
	return h
}

// open opens the stores as an engine does at its start.
func (h *house) open() {
	h.t.Helper()
	var err error
	check := func() {
		if err != nil {
			h.t.Fatal(err)
		}
	}
	h.db, err = metadata.Open(filepath.Join(h.dir, "m.db"))
	check()
	h.store, err = content.Open(filepath.Join(h.dir, "content"))
	check()
	h.layers, err = layer.Open(h.dir, layer.Limits{})
	check()
	h.images, err = image.Open(context.Background(), image.Options{DB: h.db, Content: h.store, Layers: h.layers})
	check()
	h.b, err = Open(Options{Dir: filepath.Join(h.dir, "build"), DB: h.db, Layers: h.layers, Images: h.images, Executor: h.exec})
	check()
	_, err = h.layers.CollectAll()
	check()
}

// shut closes what can be closed; a killed engine would not even do that.
func (h *house) shut() {
	h.db.Close()
	h.layers.Close()
}

// reopen is what a new engine finds after the old one was killed.
func (h *house) reopen() {
	h.t.Helper()
	h.shut()
	h.open()
}

// busybox loads the image "busybox", made of the program of that name.
func (h *house) busybox() {
	h.t.Helper()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		h.t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(hd tar.Header, data []byte) {
		hd.Size = int64(len(data))
		if err := w.WriteHeader(&hd); err != nil {
			h.t.Fatal(err)
		}
		w.Write(data)
	}
	for _, d := range []string{"bin", "etc", "proc", "root", "usr/lib"} {
		add(tar.Header{Name: d + "/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	add(tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil)
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, program)
	for _, name := range strings.Fields("sh true false cat ls id mount sleep grep stat readlink touch mkdir ln echo env pwd dd rm cp mv chmod chown find sort wc test head tail date sed umount mknod printenv mkfifo wget nc sha256sum") {
		add(tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	}
	add(tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:0:root:/root:/bin/sh\nweb:x:500:501::/:/bin/sh\n"))
	add(tar.Header{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:\nwww:x:600:\n"))
	add(tar.Header{Name: "lib", Typeflag: tar.TypeSymlink, Linkname: "usr/lib"}, nil)
	w.Close()
	if _, err := h.images.Import(context.Background(), &b, image.ImportOptions{Ref: "busybox", Changes: []string{"ENV PATH=/bin", `CMD ["sh"]`}}); err != nil {
		h.t.Fatal(err)
	}
}

// context makes a directory of files. "link -> target" makes a symlink.
func (h *house) context(files map[string]string) string {
	h.t.Helper()
	dir := h.t.TempDir()
	for name, data := range files {
		if link, target, ok := strings.Cut(name, " -> "); ok {
			os.MkdirAll(filepath.Dir(filepath.Join(dir, link)), 0o755)
			os.Symlink(target, filepath.Join(dir, link))
			continue
		}
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			h.t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(data), 0o644); err != nil {
			h.t.Fatal(err)
		}
	}
	return dir
}

// outcome is a build with what it printed.
type outcome struct {
	*Result
	err    error
	output string
	events []Event
}

func (h *house) try(req Request) *outcome {
	h.t.Helper()
	o := &outcome{}
	var out strings.Builder
	more := req.Progress
	req.Progress = func(e Event) {
		o.events = append(o.events, e)
		out.Write(e.Data)
		if more != nil {
			more(e)
		}
	}
	o.Result, o.err = h.b.Build(context.Background(), req)
	o.output = out.String()
	return o
}

func (h *house) build(dockerfile string, files map[string]string, change ...func(*Request)) *outcome {
	h.t.Helper()
	req := Request{Text: []byte(dockerfile)}
	if files != nil {
		req.ContextDir = h.context(files)
	}
	for _, c := range change {
		c(&req)
	}
	o := h.try(req)
	if o.err != nil {
		h.t.Fatalf("build: %v\n%s", o.err, o.output)
	}
	return o
}

// tree describes the files of an image: "path mode uid:gid content or link".
func (h *house) tree(o *outcome, below string) map[string]string {
	h.t.Helper()
	lower, err := h.layers.Lower(o.Layers)
	if err != nil {
		h.t.Fatal(err)
	}
	empty, _ := h.layers.Lower(nil)
	if len(o.Layers) == 0 {
		return nil
	}
	fd, err := overlay.Mount(overlay.Stack{Lower: append(lower, empty[0])}, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	defer unix.Close(fd)
	root := fmt.Sprintf("/proc/self/fd/%d/%s", fd, below)
	out := map[string]string{}
	err = filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		name := strings.TrimPrefix(strings.TrimPrefix(p, root), "/")
		text := fmt.Sprintf("%o %d:%d", st.Mode&0o7777, st.Uid, st.Gid)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			if st.Size < 4096 {
				data, err := os.ReadFile(p)
				if err != nil {
					return err
				}
				text += " " + string(data)
			}
		case unix.S_IFLNK:
			target, _ := os.Readlink(p)
			text = "-> " + target
		case unix.S_IFDIR:
			text += " dir"
		}
		out[name] = text
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// want compares some files of an image.
func (h *house) want(o *outcome, files map[string]string) {
	h.t.Helper()
	got := h.tree(o, "")
	for name, text := range files {
		if got[name] != text {
			h.t.Errorf("%s is %q, want %q", name, got[name], text)
		}
	}
}

// layerFiles lists what is in a layer.
func (h *house) layerFiles(o *outcome, i int) []string {
	h.t.Helper()
	dir, err := h.layers.Tree(o.Layers[i])
	if err != nil {
		h.t.Fatal(err)
	}
	var out []string
	filepath.WalkDir(dir, func(p string, _ fs.DirEntry, _ error) error {
		if p != dir {
			out = append(out, strings.TrimPrefix(p, dir+"/"))
		}
		return nil
	})
	return out
}

// ran lists the steps that were not cached.
func (o *outcome) ran() string {
	var out []string
	for _, s := range o.Steps {
		if !s.Cached && !s.Skipped && !strings.HasPrefix(s.Name, "[internal] load") {
			out = append(out, s.Name)
		}
	}
	return strings.Join(out, "\n")
}

// why returns why the first step that ran was no hit.
func (o *outcome) why() string {
	for _, s := range o.Steps {
		if s.Why != "" {
			return s.Why
		}
	}
	return ""
}

func (o *outcome) config() v1.DockerOCIImage {
	var c v1.DockerOCIImage
	_ = json.Unmarshal(o.Config, &c)
	return c
}

// clean checks that nothing of any step is left.
func (h *house) clean() {
	h.t.Helper()
	ids, err := h.layers.Writables()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, id := range ids {
		if strings.HasPrefix(id, solve.UpperPrefix) {
			h.t.Errorf("the root of step %s is left", id)
		}
	}
	for _, d := range []string{"build/tmp", "build/sources/tmp", "state"} {
		left, _ := os.ReadDir(filepath.Join(h.dir, d))
		for _, e := range left {
			h.t.Errorf("%s/%s is left", d, e.Name())
		}
	}
}
