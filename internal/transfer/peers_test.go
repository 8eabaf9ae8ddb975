package transfer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"berth/internal/image"
)

// TestPeers lets the distribution's own tools write what is read here: skopeo
// writes archives of several kinds and pushes to Debian's docker-registry.
func TestPeers(t *testing.T) {
	for _, tool := range []string{"skopeo", "docker-registry"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (apt-get install skopeo docker-registry)", tool)
		}
	}
	dir := t.TempDir()
	source := "docker-archive:" + dockerArchive(t, filepath.Join(dir, "source.tar"), oneFile("who", "base"), oneFile("what", "top"))
	registry := startRegistry(t, dir)
	h := build(t, nil)
	skopeo := func(args ...string) {
		t.Helper()
		args = append([]string{"--insecure-policy", "copy", "-q", "--dest-tls-verify=false"}, args...)
		if out, err := exec.Command("skopeo", args...).CombinedOutput(); err != nil {
			t.Fatalf("skopeo %v: %v: %s", args, err, out)
		}
	}
	for i, extra := range [][]string{
		{"oci-archive:", "--dest-compress-format=gzip"}, {"oci-archive:", "--dest-compress-format=zstd", "--dest-compress"}, {"docker-archive:"},
	} {
		file := filepath.Join(dir, fmt.Sprintf("out%d.tar", i))
		name := fmt.Sprintf("app:v%d", i)
		skopeo(append(extra[1:], source, extra[0]+file+":"+name)...)
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		loaded, err := h.images.Load(context.Background(), f, image.LoadOptions{})
		f.Close()
		if err != nil || len(loaded) != 1 || loaded[0].Ref != name {
			t.Fatalf("%v: %v, %v", extra, loaded, err)
		}
	}
	for i, extra := range [][]string{
		{"--format=v2s2"}, {"--format=oci"}, {"--format=oci", "--dest-compress-format=zstd", "--dest-compress"},
	} {
		ref := fmt.Sprintf("%s/team/app:v%d", registry, i)
		skopeo(append(extra, source, "docker://"+ref)...)
		img, _, err := h.Pull(context.Background(), ref, Options{})
		if err != nil {
			t.Fatalf("%v: %v", extra, err)
		}
		if got := h.read(t, img, "who") + " " + h.read(t, img, "what"); got != "base top" {
			t.Errorf("%v: the files say %q", extra, got)
		}
	}
}

// dockerArchive writes a docker-archive to file and returns file.
func dockerArchive(t *testing.T, file string, layers ...[]byte) string {
	t.Helper()
	var ids, names []string
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(name string, data []byte) {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))})
		w.Write(data)
	}
	for _, l := range layers {
		sum := fmt.Sprintf("%x", sha256.Sum256(l))
		ids, names = append(ids, "sha256:"+sum), append(names, sum+".tar")
		put(sum+".tar", l)
	}
	c, err := json.Marshal(map[string]any{"os": "linux", "architecture": arch, "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids}, "history": []any{map[string]any{}, map[string]any{}}})
	if err != nil {
		t.Fatal(err)
	}
	put("config.json", c)
	m, err := json.Marshal([]any{map[string]any{"Config": "config.json", "RepoTags": []string{"source:1"}, "Layers": names}})
	if err != nil {
		t.Fatal(err)
	}
	put("manifest.json", m)
	w.Close()
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// startRegistry runs Debian's docker-registry on a free port.
func startRegistry(t *testing.T, dir string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	config := fmt.Sprintf("version: 0.1\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\nlog: {level: error, accesslog: {disabled: true}}\n",
		filepath.Join(dir, "registry"), addr)
	file := filepath.Join(dir, "registry.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", file)
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if res, err := http.Get("http://" + addr + "/v2/"); err == nil {
			res.Body.Close()
			return addr
		}
	}
	t.Fatal("docker-registry does not answer")
	return ""
}
