package registries

import (
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/engine/images/imagestest"
	"berth/internal/fault"
)

// open opens both sides of a configuration on stores of its own.
func open(t *testing.T, b *imagestest.Bench, cfg Config) (*Own, *Reach, error) {
	t.Helper()
	own, err := OpenOwn(cfg, b.Stock.Content, b.DB, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, nil, err
	}
	t.Cleanup(func() {
		own.Stop()
		if err := own.Close(); err != nil {
			t.Error(err)
		}
	})
	reach, err := NewReach(cfg, Stores{b.Stock.Images, b.Stock.Content, b.Stock.Layers}, own, own.log)
	return own, reach, err
}

func TestFilesOfRegistriesAndPolicyAreReadAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	settings := Settings{HubMirrors: []string{"http://mirror.invalid:5000"}}
	_, r, err := open(t, imagestest.New(t, nil), Config{Settings: settings,
		Registries: write("registries.toml", ""), Policy: write("policy.toml", "default = \"deny\"\n")})
	if err != nil {
		t.Fatal(err)
	}
	before, rules := r.Transfers(), r.policy.now.Load()
	for file, text := range map[string]string{"registries.toml": "sparkle = 1\n", "policy.toml": "default = \"maybe\"\n"} {
		good, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		write(file, text)
		if err := r.Load(settings); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", text, err)
		}
		if r.Transfers() != before || r.policy.now.Load() != rules {
			t.Errorf("%s: what was in force is not any more", text)
		}
		write(file, string(good))
	}
	if err := r.Load(settings); err != nil || r.Transfers() == before {
		t.Errorf("good files again: %v", err)
	}
	if d := r.Describe(); len(d.Mirrors) != 1 {
		t.Errorf("%+v", d)
	}
}

func TestOwnRegistryIsServedAndKnown(t *testing.T) {
	t.Parallel()
	b := imagestest.New(t, nil)
	own, _, err := open(t, b, Config{Serve: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := own.Serve(); err != nil {
		t.Fatal(err)
	}
	address := own.address.String()
	resp, err := http.Get("http://" + address + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the registry answers %s", resp.Status)
	}
	_, port, _ := strings.Cut(address, ":")
	for host, ours := range map[string]bool{
		address: true, "localhost:" + port: true, "[::1]:" + port: false, "127.0.0.1:1": false, "127.0.0.1": false, "registry.example:" + port: false, "10.0.0.1:" + port: false,
	} {
		if got := own.At(host) != nil; got != ours {
			t.Errorf("%s: own %v, want %v", host, got, ours)
		}
	}
	for name, text := range map[string]string{"nothing": "", "root": "listen = \"127.0.0.1:0\"\nroot = \"/srv\"\n", "unknown": "sparkle = 1\n", "log": "listen = \"127.0.0.1:0\"\naccess-log = \"loud\"\n"} {
		file := filepath.Join(t.TempDir(), name+".toml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		own, _, err := open(t, imagestest.New(t, nil), Config{ServeFile: file})
		if err != nil {
			t.Fatal(err)
		}
		if err := own.Serve(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
