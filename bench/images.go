package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// packedLayer is a layer as a registry has it.
type packedLayer struct {
	diffID digest.Digest
	blob   []byte
}

// makeLayer makes a layer of about size bytes in files of every length up to
// 200 KiB, which gzip to about a third, as those of real images do.
func makeLayer(seed uint64, size int64) (packedLayer, error) {
	random := rand.New(rand.NewPCG(seed, 1))
	words := make([][]byte, 4096)
	for i := range words {
		words[i] = make([]byte, 3+random.IntN(9))
		for k := range words[i] {
			words[i][k] = byte(random.IntN(256))
		}
	}
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	plain := digest.SHA256.Digester()
	archive := tar.NewWriter(io.MultiWriter(zip, plain.Hash()))
	text := make([]byte, 0, 256<<10)
	for n := 0; size > 0; n++ {
		text = text[:0]
		for length := 1 + random.IntN(200<<10); len(text) < length; {
			text = append(text, words[random.IntN(len(words))]...)
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("data-%d/dir-%d/file-%d", seed, n%40, n), Mode: 0o644, Size: int64(len(text)),
			ModTime: time.Unix(1700000000, 0)}
		if err := archive.WriteHeader(h); err != nil {
			return packedLayer{}, err
		}
		if _, err := archive.Write(text); err != nil {
			return packedLayer{}, err
		}
		size -= int64(len(text))
	}
	if err := archive.Close(); err != nil {
		return packedLayer{}, err
	}
	err := zip.Close()
	return packedLayer{plain.Digest(), packed.Bytes()}, err
}

// publish puts an image of the given layers into a registry.
func (r *registryServer) publish(repository string, layers []packedLayer) error {
	var diffIDs []digest.Digest
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	for _, l := range layers {
		d := sha(l.blob)
		if err := r.putBlob(repository, string(d), l.blob); err != nil {
			return err
		}
		diffIDs = append(diffIDs, l.diffID)
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: d, Size: int64(len(l.blob))})
	}
	config, err := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{"Cmd": []string{"/bin/true"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}})
	if err != nil {
		return err
	}
	m.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: sha(config), Size: int64(len(config))}
	if err := r.putBlob(repository, string(m.Config.Digest), config); err != nil {
		return err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return r.send(http.MethodPut, "http://"+r.host+"/v2/"+repository+"/manifests/latest", m.MediaType, text, nil)
}

// imageStores are the contenders that keep images, each as its command line.
func (b *bench) imageStores() map[string]func(args ...string) *exec.Cmd {
	stores := map[string]func(args ...string) *exec.Cmd{"berth": b.berthCmd}
	if b.docker != nil {
		stores["docker"] = b.dockerCmd
	}
	if b.podman {
		stores["podman"] = func(args ...string) *exec.Cmd {
			if args[0] == "pull" || args[0] == "push" {
				args = append([]string{args[0], "--tls-verify=false"}, args[1:]...)
			}
			return b.podmanCmd(args...)
		}
	}
	return stores
}

// quiet runs a command of which only a failure is of interest.
func quiet(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, tail(strings.TrimSpace(string(out)), 400))
	}
	return nil
}

// forget removes an image and waits until its files are gone, so that nobody
// is measured while another cleans up.
func (b *bench) forget(name string, store func(...string) *exec.Cmd, images ...string) {
	for _, image := range images {
		_ = store("rmi", image).Run()
	}
	for range 2000 {
		if name != "berth" || b.trashEmpty() {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	_ = exec.Command("sync").Run()
}

func (b *bench) trashEmpty() bool {
	left, err := os.ReadDir(b.path("berth", "data", "layers", ".trash"))
	return err == nil && len(left) == 0
}

// imageWork measures pulls and pushes through one registry, the distribution's.
func (b *bench) imageWork() error {
	source, err := b.startRegistry("docker-registry")
	if err != nil {
		return err
	}
	defer source.stop()
	var layers []packedLayer
	for i := range 11 {
		l, err := makeLayer(uint64(i), 40<<20)
		if err != nil {
			return err
		}
		layers = append(layers, l)
	}
	big, err := makeLayer(100, 120<<20)
	if err != nil {
		return err
	}
	for repository, of := range map[string][]packedLayer{"bench/one": {big}, "bench/ten": layers[:10], "bench/changed": append(layers[:9:9], layers[10]), "bench/tenth": layers[10:]} {
		if err := source.publish(repository, of); err != nil {
			return err
		}
	}
	layers = nil
	for _, image := range []string{"bench/one", "bench/ten"} {
		if err := b.pullWork(source, image); err != nil {
			return err
		}
	}
	if err := b.pullChanged(source); err != nil {
		return err
	}
	if err := b.pushWork(source); err != nil {
		return err
	}
	return b.rmiWork()
}

func (b *bench) pullWork(source *registryServer, repository string) error {
	name := source.host + "/" + repository
	var cs []contender
	most, before := 0.0, 0.0
	pid := b.berth.cmd.Process.Pid
	for _, who := range []string{"berth", "docker", "podman"} {
		store := b.imageStores()[who]
		if store == nil {
			continue
		}
		cs = append(cs, contender{who, func() error {
			if who != "berth" {
				return quiet(store("pull", name))
			}
			err := quiet(store("pull", name))
			most = max(most, statusMiB(pid, "VmHWM:")-before)
			return err
		}, func() error {
			b.forget(who, store, name)
			if who == "berth" {
				// 5 makes the kernel forget the most memory so far (proc(5)).
				_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
				before = statusMiB(pid, "VmRSS:")
			}
			return nil
		}})
	}
	floor := b.path("floor-pull")
	clean := func() error {
		err := os.RemoveAll(floor)
		_ = exec.Command("sync").Run()
		return err
	}
	cs = append(cs, contender{"floor", func() error { return source.unpackImage(repository, floor) }, clean},
		contender{"skopeo", func() error {
			return quiet(exec.Command("skopeo", "copy", "-q", "--src-tls-verify=false", "docker://"+name, "oci:"+floor+":x"))
		}, clean})
	samples, err := b.interleave(cs)
	if err != nil {
		return err
	}
	b.add("pull "+repository+" cold (skopeo only copies)", "ms", samples, bar{against: "docker", factor: 0.5}, bar{against: "floor", factor: 1.3})
	b.add("pull "+repository+": growth of the engine's memory", "MiB", []sample{one("berth", most)}, bar{factor: 64})
	return clean()
}

// pullChanged pulls an image of which nine of ten layers are there.
func (b *bench) pullChanged(source *registryServer) error {
	var cs []contender
	name, base, floor := source.host+"/bench/changed", source.host+"/bench/ten", b.path("floor-pull")
	for _, who := range []string{"berth", "docker"} {
		store := b.imageStores()[who]
		if store == nil {
			continue
		}
		if err := quiet(store("pull", base)); err != nil {
			return err
		}
		defer b.forget(who, store, name, base)
		cs = append(cs, contender{who, func() error { return quiet(store("pull", name)) },
			func() error { b.forget(who, store, name); return nil }})
	}
	cs = append(cs, contender{"floor of one layer", func() error { return source.unpackImage("bench/tenth", floor) },
		func() error { return os.RemoveAll(floor) }})
	samples, err := b.interleave(cs)
	if err != nil {
		return err
	}
	b.add("pull with nine of ten layers there", "ms", samples, bar{against: "docker", factor: 0.5}, bar{against: "floor of one layer", factor: 1.3})
	return os.RemoveAll(floor)
}

// pushWork pushes an image to a registry that knows nothing of it: one that was
// pulled, and one that was made here, whose layer has to be packed first.
func (b *bench) pushWork(source *registryServer) error {
	big, err := fetchLayer(source, "bench/one")
	if err != nil {
		return err
	}
	file := b.path("one.tar")
	if err := os.WriteFile(file, big, 0o600); err != nil {
		return err
	}
	for _, what := range []string{"pulled", "imported"} {
		var cs []contender
		for _, who := range []string{"berth", "docker", "podman"} {
			store := b.imageStores()[who]
			if store == nil {
				continue
			}
			from := source.host + "/bench/one"
			if err := quiet(store("pull", from)); what == "pulled" && err != nil {
				return err
			}
			var target *registryServer
			cs = append(cs, contender{who, func() error { return quiet(store("push", target.host+"/bench/pushed")) }, func() error {
				if target != nil {
					b.forget(who, store, target.host+"/bench/pushed")
					target.stop()
				}
				var err error
				if target, err = b.startRegistry("docker-registry"); err != nil {
					return err
				}
				if what == "imported" {
					return importFresh(store, file, target.host+"/bench/pushed")
				}
				return quiet(store("tag", from, target.host+"/bench/pushed"))
			}})
			defer func() {
				if target != nil {
					b.forget(who, store, target.host+"/bench/pushed", from)
					target.stop()
				}
			}()
		}
		samples, err := b.interleave(cs)
		if err != nil {
			return err
		}
		b.add("push a 120 MB image that was "+what, "ms", samples, bar{against: "docker", factor: 1 / 1.5})
	}
	return nil
}

// importFresh imports the archive in file with one more file in front, so that
// nobody has seen the layer before.
func importFresh(store func(...string) *exec.Cmd, file, name string) error {
	whole, err := os.Open(file)
	if err != nil {
		return err
	}
	defer whole.Close()
	var first bytes.Buffer
	archive := tar.NewWriter(&first)
	text := []byte(name + time.Now().String())
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "fresh", Mode: 0o644, Size: int64(len(text))}); err != nil {
		return err
	}
	if _, err := archive.Write(text); err != nil {
		return err
	}
	if err := archive.Flush(); err != nil {
		return err
	}
	cmd := store("import", "-", name)
	cmd.Stdin = io.MultiReader(&first, whole)
	return quiet(cmd)
}

// rmiWork removes an image of 30,000 files: until the command returns, and
// until the files are gone.
func (b *bench) rmiWork() error {
	file := b.path("files.tar")
	if err := manyFiles(file, 30000); err != nil {
		return err
	}
	var cs []contender
	for _, who := range []string{"berth", "docker", "podman"} {
		store := b.imageStores()[who]
		if store == nil {
			continue
		}
		cs = append(cs, contender{who, func() error { return quiet(store("rmi", "bench/files:1")) },
			func() error { return quiet(store("import", file, "bench/files:1")) }})
	}
	whole := contender{"berth until the files are gone", func() error {
		b.forget("berth", b.berthCmd, "bench/files:1")
		return nil
	}, cs[0].before}
	samples, err := b.interleave(append(cs, whole))
	if err != nil {
		return err
	}
	b.add("rmi of an image of 30,000 files", "ms", samples, bar{against: "docker", factor: 0.5})
	return nil
}

func manyFiles(file string, n int) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	archive := tar.NewWriter(f)
	text := bytes.Repeat([]byte("text\n"), 200)
	for i := range n {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d%d/f%d", i%200, i), Mode: 0o644, Size: int64(len(text))}
		if err := archive.WriteHeader(h); err != nil {
			return err
		}
		if _, err := archive.Write(text); err != nil {
			return err
		}
	}
	return archive.Close()
}

// fetchLayer returns the only layer of an image, unpacked to its tar.
func fetchLayer(r *registryServer, repository string) ([]byte, error) {
	var m ocispec.Manifest
	base := "http://" + r.host + "/v2/" + repository
	text, err := fetch(base+"/manifests/latest", ocispec.MediaTypeImageManifest)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, err
	}
	blob, err := fetch(base+"/blobs/"+string(m.Layers[0].Digest), "")
	if err != nil {
		return nil, err
	}
	zip, err := gzip.NewReader(bytes.NewReader(blob))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(zip)
}

// unpackImage is the floor of a pull: the blobs are fetched in parallel,
// decompressed by the library that Berth uses, and written to files. No digest
// is computed, no owner, mode or time set, nothing recorded.
func (r *registryServer) unpackImage(repository, dir string) error {
	var m ocispec.Manifest
	base := "http://" + r.host + "/v2/" + repository
	text, err := fetch(base+"/manifests/latest", ocispec.MediaTypeImageManifest)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return err
	}
	slots := make(chan struct{}, 4)
	return together(len(m.Layers), func(i int) error {
		slots <- struct{}{}
		defer func() { <-slots }()
		res, err := loadClient.Get(base + "/blobs/" + string(m.Layers[i].Digest))
		if err != nil {
			return err
		}
		defer res.Body.Close()
		zip, err := gzip.NewReader(res.Body)
		if err != nil {
			return err
		}
		return writeFiles(tar.NewReader(zip), filepath.Join(dir, strconv.Itoa(i)))
	})
}

func writeFiles(archive *tar.Reader, dir string) error {
	buf := make([]byte, 128<<10)
	made := map[string]bool{}
	for {
		h, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		path := filepath.Join(dir, h.Name)
		if parent := filepath.Dir(path); !made[parent] {
			if err := os.MkdirAll(parent, 0o755); err != nil {
				return err
			}
			made[parent] = true
		}
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{f}, archive, buf)
		f.Close()
		if err != nil {
			return err
		}
	}
}
