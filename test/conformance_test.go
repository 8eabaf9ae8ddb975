package test

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// conformanceSuite builds the OCI distribution conformance suite, a module of
// its own in test/conformance. It needs the network once; after that the
// module cache has it.
func conformanceSuite(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "conformance")
	cmd := exec.Command("go", "build", "-C", "conformance", "-mod=readonly", "-o", program, "github.com/opencontainers/distribution-spec/conformance")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if err != nil && regexp.MustCompile(`dial tcp|no such host|module lookup disabled|i/o timeout`).Match(out) {
		t.Skipf("the conformance suite is not in the module cache and cannot be fetched: %s", out)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

// registryForSuite starts `berthd registry` and returns its address.
func registryForSuite(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(binary(t, "berthd"), append([]string{"registry", "--listen", "127.0.0.1:0", "--root", t.TempDir(), "--access-log", "off"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the registry ended with %v", err)
		}
	})
	address := make(chan string, 1)
	go func() {
		defer close(address)
		found := regexp.MustCompile(`address=https?://(\S+)`)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if m := found.FindStringSubmatch(lines.Text()); m != nil {
				address <- m[1]
			} else if strings.Contains(lines.Text(), "level=ERROR") {
				t.Log(lines.Text())
			}
		}
	}()
	select {
	case a, ok := <-address:
		if ok {
			return a
		}
	case <-time.After(time.Minute):
	}
	t.Fatal("the registry did not start")
	return ""
}

// TestDistributionConformance runs every workflow of the suite, the optional
// ones too, with passwords and with tokens.
func TestDistributionConformance(t *testing.T) {
	suite := conformanceSuite(t)
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	passwords := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(passwords, []byte("ann:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sparse := filepath.Join(t.TempDir(), "registry.toml")
	if err := os.WriteFile(sparse, []byte("allow-missing = true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ args, env []string }{
		"stable":    {nil, nil},
		"all":       {[]string{"--config", sparse}, []string{"OCI_VERSION=1.1+dev", "OCI_DATA_SPARSE=true"}},
		"passwords": {[]string{"--config", sparse, "--htpasswd", passwords}, []string{"OCI_VERSION=1.1+dev", "OCI_DATA_SPARSE=true", "OCI_USERNAME=ann", "OCI_PASSWORD=secret"}},
		// A token is for one repository: it finds nothing to mount in others.
		"tokens": {[]string{"--config", sparse, "--htpasswd", passwords, "--token"}, []string{"OCI_VERSION=1.1+dev", "OCI_DATA_SPARSE=true", "OCI_USERNAME=ann", "OCI_PASSWORD=secret", "OCI_API_BLOBS_MOUNT_ANONYMOUS=false"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := registryForSuite(t, c.args...)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, suite)
			cmd.Dir = t.TempDir()
			cmd.Env = append(os.Environ(), "OCI_REGISTRY="+address, "OCI_TLS=disabled", "OCI_RESULTS_DIR="+t.TempDir())
			cmd.Env = append(cmd.Env, c.env...)
			out, err := cmd.CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("OCI Conformance Result: Pass")) {
				t.Fatalf("%v\n%s", err, out[max(0, len(out)-20000):])
			}
			for _, line := range strings.Split(string(out), "\n") {
				if f := strings.Fields(line); len(f) == 2 && (strings.HasPrefix(f[0], "FAIL.") || strings.HasPrefix(f[0], "Error.") || strings.HasPrefix(f[0], "Skip.") ||
					name != "stable" && name != "tokens" && strings.HasPrefix(f[0], "Disabled.")) && f[1] != "0" {
					t.Error(line)
				}
			}
		})
	}
}
