package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestImageFlagsReachTheEngine(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	registries, policy, config := file("r.toml"), file("p.toml"), file("c.toml")
	o, err := parse("--root", "/r", "--keep-blobs=false", "--registries", registries, "--policy", policy, "--insecure-registry", "a.io:5000", "--insecure-registry", "b.io",
		"--registry-mirror", "https://m.io/", "--registry-mirror", "http://n.io:80", "--max-concurrent-downloads", "7", "--max-concurrent-uploads", "2",
		"--max-layer-size", "1g", "--max-layer-files", "9", "--registry-listen", ":5000", "--registry-config", config)
	if err != nil {
		t.Fatal(err)
	}
	c := o.images.engineConfig()
	if !c.DropBlobs || c.Registries != registries || c.Policy != policy || strings.Join(c.Insecure, " ") != "a.io:5000 b.io" || strings.Join(c.HubMirrors, " ") != "https://m.io http://n.io:80" ||
		c.Downloads != 7 || c.Uploads != 2 || c.MaxLayerSize != 1<<30 || c.MaxLayerFiles != 9 || c.Serve != ":5000" || c.ServeFile != config {
		t.Errorf("%+v", c)
	}
	if o, err = parse("--root", "/r"); err != nil || o.images.engineConfig().DropBlobs || o.images.maxLayer != 128<<30 {
		t.Errorf("defaults: %+v, %v", o, err)
	}
}

func TestImageFlagsAreRefusedByName(t *testing.T) {
	for flag, bad := range map[string][]string{
		"registries": {"/nonexistent.toml"}, "policy": {"/nonexistent.toml"}, "registry-config": {"/nonexistent.toml"},
		"insecure-registry":        {"", "http://a.io", "a.io/b", "10.0.0.0/8"},
		"registry-mirror":          {"", "m.io", "ftp://m.io", "https://m.io/path", "https://u:p@m.io", "https://"},
		"max-concurrent-downloads": {"0", "-1", "x"}, "max-concurrent-uploads": {"0"}, "max-layer-files": {"0"}, "max-layer-size": {"big", "0", "-1"},
		"registry-listen": {"5000", "host", "host:", ":"}, "keep-blobs": {"maybe"},
	} {
		for _, value := range bad {
			_, err := parse("--root", "/r", "--"+flag+"="+value)
			if err == nil || exitCode(err) != 2 || !strings.Contains(err.Error(), flag) {
				t.Errorf("--%s=%s: %v", flag, value, err)
			}
		}
	}
}

func TestHelpNamesTheImageFlags(t *testing.T) {
	var out bytes.Buffer
	_, _ = parseOptions([]string{"--help"}, &out)
	for _, flag := range []string{"keep-blobs", "registries", "policy", "insecure-registry", "registry-mirror", "max-concurrent-downloads", "max-concurrent-uploads", "max-layer-size", "max-layer-files", "registry-listen", "registry-config"} {
		if !strings.Contains(out.String(), "--"+flag+" ") {
			t.Errorf("help does not name --%s", flag)
		}
	}
	if !strings.Contains(out.String(), "SIGHUP") {
		t.Error("help does not tell what SIGHUP does")
	}
}
