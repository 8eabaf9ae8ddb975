package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// registryServer is a registry of one contender on a port and in a directory of
// its own.
type registryServer struct {
	name, host, dir string
	cmd             *exec.Cmd
}

// startRegistry starts the registry of berth or of the distribution with an
// empty store.
func (b *bench) startRegistry(name string) (*registryServer, error) {
	b.registries++
	dir := b.path(fmt.Sprintf("registry-%d", b.registries))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	host, err := freePort()
	if err != nil {
		return nil, err
	}
	r := &registryServer{name: name, host: host, dir: dir}
	switch name {
	case "berth":
		r.cmd = exec.Command(filepath.Join(b.bin, "berthd"), "registry", "--listen", host, "--root", filepath.Join(dir, "data"), "--access-log", "off")
	default:
		config := filepath.Join(dir, "config.yml")
		text := fmt.Sprintf("version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: %s\n",
			filepath.Join(dir, "data"), host)
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			return nil, err
		}
		r.cmd = exec.Command("docker-registry", "serve", config)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		if res, err := http.Get("http://" + host + "/v2/"); err == nil {
			res.Body.Close()
			return r, nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	r.stop()
	text, _ := os.ReadFile(log.Name())
	return nil, fmt.Errorf("the registry of %s does not answer: %s", name, tail(string(text), 400))
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// stop ends the server and removes what it stored.
func (r *registryServer) stop() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
	_ = os.RemoveAll(r.dir)
}

// memory returns the most memory that the server ever had, in MiB.
func (r *registryServer) memory() float64 { return statusMiB(r.cmd.Process.Pid, "VmHWM:") }

// statusMiB reads a line of /proc/PID/status.
func statusMiB(pid int, field string) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(text), "\n") {
		if f := strings.Fields(line); len(f) == 3 && f[0] == field {
			kib, _ := strconv.ParseFloat(f[1], 64)
			return kib / 1024
		}
	}
	return 0
}

// registryWork measures the two registries with clients that do nothing but
// move bytes: pulls of one image, pushes of blobs that nobody has.
func (b *bench) registryWork() error {
	for _, clients := range []int{1, 16} {
		var pulls, pushes, memory []contender
		servers := map[string]*registryServer{}
		for _, name := range []string{"berth", "docker-registry"} {
			server, err := b.startRegistry(name)
			if err != nil {
				return err
			}
			defer server.stop()
			servers[name] = server
			if err := server.pushImage("bench/served", 10, 4<<20); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			pulls = append(pulls, contender{name: name, run: func() error {
				return together(clients, func(int) error { return server.pullImage("bench/served") })
			}})
			pushes = append(pushes, contender{name: name, run: func() error {
				return together(clients, func(i int) error { return server.pushImage(fmt.Sprintf("bench/pushed-%d", i), 4, 4<<20) })
			}})
			memory = append(memory, contender{name: name})
		}
		pulled, err := b.interleave(pulls)
		if err != nil {
			return err
		}
		pushed, err := b.interleave(pushes)
		if err != nil {
			return err
		}
		var most []sample
		for _, c := range memory {
			most = append(most, one(c.name, servers[c.name].memory()))
		}
		even := bar{against: "docker-registry", factor: 1}
		b.add(fmt.Sprintf("registry: %d clients pull 40 MB each", clients), "ms", pulled, even)
		b.add(fmt.Sprintf("registry: %d clients push 16 MB each", clients), "ms", pushed, even)
		b.add(fmt.Sprintf("registry: most memory after that, %d clients", clients), "MiB", most, even)
	}
	return nil
}

// together calls do from n goroutines at once.
func together(n int, do func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = do(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// pushImage pushes an image of blobs that were never seen before.
func (r *registryServer) pushImage(repository string, blobs, size int) error {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	put := func(mediaType string, data []byte) (ocispec.Descriptor, error) {
		d := ocispec.Descriptor{MediaType: mediaType, Digest: sha(data), Size: int64(len(data))}
		return d, r.putBlob(repository, string(d.Digest), data)
	}
	var err error
	if m.Config, err = put(ocispec.MediaTypeImageConfig, []byte(fmt.Sprintf(`{"os":"linux","rootfs":{"type":"layers","diff_ids":[]},"created":%q}`, time.Now().Format(time.RFC3339Nano)))); err != nil {
		return err
	}
	data := make([]byte, size)
	_, _ = rand.Read(data)
	for i := range blobs {
		data[0] = byte(i)
		d, err := put(ocispec.MediaTypeImageLayerGzip, data)
		if err != nil {
			return err
		}
		m.Layers = append(m.Layers, d)
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return r.send(http.MethodPut, "http://"+r.host+"/v2/"+repository+"/manifests/latest", m.MediaType, text, nil)
}

func (r *registryServer) putBlob(repository, id string, data []byte) error {
	var location string
	err := r.send(http.MethodPost, "http://"+r.host+"/v2/"+repository+"/blobs/uploads/", "", nil, &location)
	if err != nil {
		return err
	}
	if strings.HasPrefix(location, "/") {
		location = "http://" + r.host + location
	}
	sep := "?"
	if strings.Contains(location, "?") {
		sep = "&"
	}
	return r.send(http.MethodPut, location+sep+"digest="+id, "application/octet-stream", data, nil)
}

func (r *registryServer) send(method, url, mediaType string, body []byte, location *string) error {
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", mediaType)
	res, err := loadClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, url, res.Status, tail(string(text), 200))
	}
	if location != nil {
		*location = res.Header.Get("Location")
	}
	return nil
}

// loadClient is shared by all clients of a load, as many connections as they
// need.
var loadClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true, ReadBufferSize: 128 << 10}}

// pullImage fetches manifest and blobs, one after the other, and throws the
// bytes away.
func (r *registryServer) pullImage(repository string) error {
	base := "http://" + r.host + "/v2/" + repository
	var m ocispec.Manifest
	text, err := fetch(base+"/manifests/latest", ocispec.MediaTypeImageManifest)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return err
	}
	for _, d := range append(m.Layers, m.Config) {
		res, err := loadClient.Get(base + "/blobs/" + string(d.Digest))
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil || n != d.Size || res.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s: %d of %d bytes: %v", d.Digest, res.Status, n, d.Size, err)
		}
	}
	return nil
}

func fetch(url, accept string) ([]byte, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	res, err := loadClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", url, res.Status, tail(string(text), 200))
	}
	return text, err
}

func sha(data []byte) digest.Digest {
	return digest.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(data)))
}
