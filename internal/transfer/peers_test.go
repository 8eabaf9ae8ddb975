package transfer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"berth/internal/fault"
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
func startRegistry(t testing.TB, dir string) string {
	t.Helper()
	return startRegistryWith(t, dir, "", "")
}

// startRegistryWith is startRegistry with further settings: lines below http
// and at the top level.
func startRegistryWith(t testing.TB, dir, http, more string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	config := fmt.Sprintf("version: 0.1\nstorage: {filesystem: {rootdirectory: %s}}\nlog: {level: error, accesslog: {disabled: true}}\nhttp:\n  addr: %q\n%s%s",
		filepath.Join(dir, "registry"), addr, http, more)
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
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			return addr
		}
	}
	t.Fatal("docker-registry does not answer")
	return ""
}

// TestDockerRegistryWithTLSAndPasswords pushes to Debian's docker-registry and
// pulls from it, with a certificate of our own and htpasswd.
func TestDockerRegistryWithTLSAndPasswords(t *testing.T) {
	if _, err := exec.LookPath("docker-registry"); err != nil {
		t.Skip("docker-registry is not installed (apt-get install docker-registry)")
	}
	dir := t.TempDir()
	writeCertificate(t, dir)
	hash, err := bcrypt.GenerateFromPassword([]byte(thePassword), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "htpasswd"), append([]byte(theUser+":"), hash...), 0o600); err != nil {
		t.Fatal(err)
	}
	host := startRegistryWith(t, dir, fmt.Sprintf("  tls: {certificate: %s/cert.pem, key: %s/key.pem}\n", dir, dir),
		fmt.Sprintf("auth: {htpasswd: {realm: x, path: %s/htpasswd}}\n", dir))
	file := filepath.Join(dir, "registries.toml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "[registry.%q]\nca = %q\n", host, filepath.Join(dir, "cert.pem")), 0o600); err != nil {
		t.Fatal(err)
	}
	registries, err := LoadRegistries(file)
	if err != nil {
		t.Fatal(err)
	}
	src := newRegistry(t)
	data := noise(3<<20, 5)
	src.push("v1", arch, dockerTwo, oneFile("a", data), oneFile("b", "2"))
	auth, wrong := Auth{Username: theUser, Password: thePassword, ServerAddress: host}, Auth{Username: theUser, Password: "x", ServerAddress: host}
	h := build(t, func(c *Config) { c.Registries = registries })
	h.pull(t, src.host+"/app:v1")
	ref := host + "/team/app:v1"
	h.tag(t, src.host+"/app:v1", ref)

	if _, status, err := h.Login(context.Background(), auth); err != nil || status != "Login Succeeded" {
		t.Errorf("login: %q, %v", status, err)
	}
	for _, bad := range []Auth{{ServerAddress: host}, wrong} {
		if _, _, err := h.Login(context.Background(), bad); !fault.Is(err, fault.Unauthorized) {
			t.Errorf("login: %v", err)
		}
		if _, err := h.Push(context.Background(), ref, PushOptions{Auth: bad}); !fault.Is(err, fault.Unauthorized) {
			t.Errorf("push: %v", err)
		}
		if _, _, err := h.Pull(context.Background(), ref, Options{Auth: bad}); !fault.Is(err, fault.Unauthorized) {
			t.Errorf("pull: %v", err)
		}
	}
	h.push(t, ref, PushOptions{Auth: auth})
	h.tag(t, ref, host+"/other:v1")
	img := h.pull(t, src.host+"/app:v1")
	_, said := h.push(t, host+"/other:v1", PushOptions{Auth: auth})
	said.has(t, shortDigest(img.DiffIDs[0])+" Mounted from team/app")
	other := build(t, func(c *Config) { c.Registries = registries })
	img, _, err = other.Pull(context.Background(), ref, Options{Auth: auth})
	if err != nil || other.read(t, img, "a") != data {
		t.Fatal(err)
	}
	if _, _, err := other.Pull(context.Background(), host+"/team/app", Options{AllTags: true, Auth: auth}); err != nil {
		t.Errorf("all tags: %v", err)
	}
	unknown := t.TempDir()
	writeCertificate(t, unknown)
	os.WriteFile(file, fmt.Appendf(nil, "[registry.%q]\nca = %q\n", host, filepath.Join(unknown, "cert.pem")), 0o600)
	if registries, err = LoadRegistries(file); err != nil {
		t.Fatal(err)
	}
	stranger := build(t, func(c *Config) { c.Registries = registries })
	if _, _, err := stranger.Pull(context.Background(), ref, Options{Auth: auth}); !fault.Is(err, fault.Forbidden) || !strings.Contains(err.Error(), "not trusted") {
		t.Errorf("another certificate: %v", err)
	}
}

// TestDockerRegistryOverBadLines sends and fetches through a proxy that breaks
// the first connections. This registry forgets an upload that was cut; then all
// of it is sent again.
func TestDockerRegistryOverBadLines(t *testing.T) {
	if _, err := exec.LookPath("docker-registry"); err != nil {
		t.Skip("docker-registry is not installed (apt-get install docker-registry)")
	}
	addr := startRegistryWith(t, t.TempDir(), "", "")
	src := newRegistry(t)
	data := noise(3<<20, 5)
	src.push("v1", arch, dockerTwo, oneFile("a", data))
	for _, keep := range []bool{true, false} {
		h := build(t, func(c *Config) { c.KeepBlobs = keep })
		h.pull(t, src.host+"/app:v1")
		ref := badLine(t, addr, 4, 400_000) + "/app" + map[bool]string{true: "/kept", false: "/dropped"}[keep] + ":v1"
		h.tag(t, src.host+"/app:v1", ref)
		h.push(t, ref, PushOptions{})
		other := build(t, nil)
		if other.read(t, other.pull(t, ref), "a") != data {
			t.Error("the file differs")
		}
	}
}

// badLine forwards to addr and breaks each of the first bad connections after so
// many bytes in either direction.
func badLine(t *testing.T, addr string, bad int, after int64) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", addr)
			if err != nil {
				in.Close()
				continue
			}
			if bad--; bad == 0 {
				after = math.MaxInt64
			}
			after := after
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() {
					io.CopyN(pair[0], pair[1], after)
					in.Close()
					out.Close()
				}()
			}
		}
	}()
	return l.Addr().String()
}

// writeCertificate makes cert.pem and key.pem for 127.0.0.1 in dir.
func writeCertificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "registry"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "EC PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
