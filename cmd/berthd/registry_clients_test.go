package main

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// rootTar writes a small root file system for podman to import.
func rootTar(t *testing.T, path string) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)
	for name, text := range map[string][]byte{"etc/hostname": []byte("box\n"), "data/random": data} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), ModTime: time.Unix(1e9, 0)}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// podman runs podman with a store of its own; nothing is ever run with it.
func podman(t *testing.T, dir string, args ...string) string {
	t.Helper()
	base := []string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs", "--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none"}
	return command(t, []string{"REGISTRY_AUTH_FILE=" + filepath.Join(dir, "auth.json")}, "podman", append(base, args...)...)
}

func TestPodmanAndSkopeoOverTLSWithPasswordsAndTokens(t *testing.T) {
	tool(t, "skopeo")
	for _, mode := range []string{"passwords", "tokens"} {
		t.Run(mode, func(t *testing.T) {
			var args []string
			if mode == "tokens" {
				args = []string{"--token"}
			}
			r := startTestRegistry(t, args...)
			dir := shortDir(t) // podman wants short paths
			certs := filepath.Join(dir, "certs")
			pem, err := os.ReadFile(r.cert)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(certs, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(certs, "ca.crt"), pem, 0o600); err != nil {
				t.Fatal(err)
			}
			name := r.address + "/team/box:v1"
			t.Run("podman", func(t *testing.T) {
				tool(t, "podman")
				if os.Geteuid() != 0 {
					t.Skip("needs root: podman imports an image")
				}
				rootTar(t, filepath.Join(dir, "root.tar"))
				if out, err := exec.Command("podman", "login", "--cert-dir", certs, "-u", "ann", "-p", "wrong", "--authfile", filepath.Join(dir, "wrong.json"), r.address).CombinedOutput(); err == nil {
					t.Errorf("logged in with a wrong password: %s", out)
				}
				podman(t, dir, "login", "--cert-dir", certs, "-u", "ann", "-p", "secret", r.address)
				podman(t, dir, "import", filepath.Join(dir, "root.tar"), name)
				podman(t, dir, "push", "--cert-dir", certs, name)
				podman(t, dir, "push", "--cert-dir", certs, "--format", "v2s2", name, r.address+"/team/box:docker")
				podman(t, dir, "rmi", name)
				podman(t, dir, "pull", "--cert-dir", certs, name)
				podman(t, dir, "pull", "--cert-dir", certs, r.address+"/team/box:docker")
				if id := podman(t, dir, "images", "-q", "--no-trunc", name); !strings.HasPrefix(id, "sha256:") {
					t.Errorf("pulled %q", id)
				}
				podman(t, dir, "rmi", "-a", "-f")
			})
			t.Run("skopeo", func(t *testing.T) {
				layout := filepath.Join(dir, "layout")
				if _, err := os.Stat(filepath.Join(dir, "auth.json")); err != nil {
					t.Skip("podman made no image to copy")
				}
				creds := "ann:secret"
				command(t, nil, "skopeo", "copy", "--src-cert-dir", certs, "--src-creds", creds, "docker://"+name, "oci:"+layout+":v1")
				command(t, nil, "skopeo", "copy", "--dest-cert-dir", certs, "--dest-creds", creds, "oci:"+layout+":v1", "docker://"+r.address+"/other/box:v2")
				if out := command(t, nil, "skopeo", "list-tags", "--cert-dir", certs, "--creds", creds, "docker://"+r.address+"/team/box"); !strings.Contains(out, `"docker"`) || !strings.Contains(out, `"v1"`) {
					t.Error(out)
				}
				a := command(t, nil, "skopeo", "inspect", "--format", "{{.Digest}}", "--cert-dir", certs, "--creds", creds, "docker://"+name)
				b := command(t, nil, "skopeo", "inspect", "--format", "{{.Digest}}", "--cert-dir", certs, "--creds", creds, "docker://"+r.address+"/other/box:v2")
				if a != b || !strings.HasPrefix(a, "sha256:") {
					t.Errorf("%s went in, %s came out", a, b)
				}
				command(t, nil, "skopeo", "delete", "--cert-dir", certs, "--creds", creds, "docker://"+r.address+"/other/box:v2")
				if out, err := exec.Command("skopeo", "inspect", "--cert-dir", certs, "--creds", creds, "docker://"+r.address+"/other/box:v2").CombinedOutput(); err == nil {
					t.Errorf("deleted, it is still there: %s", out)
				}
			})
		})
	}
}
