package registry

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/registry/store/local"
)

const killDir = "BERTH_TEST_REGISTRY_DIR"

// TestServerToBeKilled is no test: it is the server of the tests below, in a
// process of its own.
func TestServerToBeKilled(t *testing.T) {
	dir := os.Getenv(killDir)
	if dir == "" {
		t.Skip("serves another test")
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	s, err := local.OpenDir(dir, log)
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(Config{Storage: s, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("serving", l.Addr())
	t.Fatal(NewServer(r, log).Serve(l))
}

// victim is a server that is killed and started again.
type victim struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
	url string
}

func (v *victim) start() {
	v.t.Helper()
	v.cmd = exec.Command(os.Args[0], "-test.run=^TestServerToBeKilled$", "-test.v")
	v.cmd.Env = append(os.Environ(), killDir+"="+v.dir)
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	v.cmd.Stderr = os.Stderr
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		v.t.Fatal(err)
	}
	if err := v.cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if addr, ok := strings.CutPrefix(lines.Text(), "serving "); ok {
			v.url = "http://" + addr
			go io.Copy(io.Discard, out)
			return
		}
	}
	v.t.Fatal("the server did not start")
}

func (v *victim) kill() {
	_ = v.cmd.Process.Kill()
	_ = v.cmd.Wait()
}

// do sends a request that the server may not live to answer.
func (v *victim) do(method, path string, body io.Reader, headers ...string) (*http.Response, []byte) {
	if strings.HasPrefix(path, "/") {
		path = v.url + path
	}
	req, err := http.NewRequest(method, path, body)
	if err != nil {
		v.t.Fatal(err)
	}
	for _, x := range headers {
		name, value, _ := strings.Cut(x, ": ")
		req.Header.Set(name, value)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}).Do(req)
	if err != nil {
		return nil, nil
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil
	}
	return resp, data
}

// killer ends the server when so many bytes were read through it.
type killer struct {
	r    io.Reader
	left int
	v    *victim
}

func (k *killer) Read(p []byte) (int, error) {
	if k.left <= 0 {
		k.v.kill()
		return 0, io.ErrUnexpectedEOF
	}
	n, err := k.r.Read(p[:min(len(p), k.left, 64<<10)])
	k.left -= n
	return n, err
}

func TestUploadsGoOnAfterAKillAtAnyByte(t *testing.T) {
	v := &victim{t: t, dir: t.TempDir()}
	v.start()
	defer func() { v.kill() }()
	rng := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	for round := range 12 {
		text := random(1<<20 + rng.IntN(1<<20) + round)
		d := digest.FromBytes(text)
		blob := "/v2/r/blobs/" + d.String()
		resp, _ := v.do("POST", "/v2/r/blobs/uploads/", nil)
		if resp == nil || resp.StatusCode != 202 {
			t.Fatal("no upload")
		}
		loc, acked := resp.Header.Get("Location"), 0
		for cuts := 0; acked < len(text); cuts++ {
			var body io.Reader = bytes.NewReader(text[acked:])
			if cuts < 3 {
				body = &killer{body, rng.IntN(len(text) - acked), v}
			}
			resp, _ := v.do("PATCH", loc, body, fmt.Sprintf("Content-Range: %d-%d", acked, len(text)-1))
			if resp != nil && resp.StatusCode == 202 {
				acked = len(text)
				continue
			}
			v.kill()
			v.start()
			if resp, _ := v.do("HEAD", blob, nil); resp == nil || resp.StatusCode != 404 {
				t.Fatal("half a blob is visible")
			}
			resp, _ = v.do("GET", loc, nil)
			if resp == nil || resp.StatusCode != 204 {
				t.Fatalf("the upload is gone: %v", resp)
			}
			var end int
			fmt.Sscanf(resp.Header.Get("Range"), "0-%d", &end)
			if end > 0 {
				end++
			}
			if end < acked || end > len(text) {
				t.Fatalf("%d bytes were acknowledged, and %d are there", acked, end)
			}
			acked = end
		}
		// The end, too, is a byte to be killed at.
		process := v.cmd.Process
		after := time.AfterFunc(time.Duration(rng.IntN(3000))*time.Microsecond, func() { process.Kill() })
		resp, _ = v.do("PUT", loc+"?digest="+d.String(), nil)
		done := resp != nil && resp.StatusCode == 201
		after.Stop()
		v.kill()
		v.start()
		resp, got := v.do("GET", blob, nil)
		switch {
		case resp == nil:
			t.Fatal("no answer")
		case resp.StatusCode == 200 && !bytes.Equal(got, text):
			t.Fatal("a wrong blob")
		case resp.StatusCode != 200 && done:
			t.Fatalf("an acknowledged blob is gone: %d", resp.StatusCode)
		}
	}
}

func TestAcknowledgedImagesSurviveKills(t *testing.T) {
	v := &victim{t: t, dir: t.TempDir()}
	v.start()
	defer func() { v.kill() }()
	rng := rand.New(rand.NewPCG(2, uint64(time.Now().UnixNano())))
	acked := map[string][]byte{}
	for round := range 12 {
		process := v.cmd.Process
		after := time.AfterFunc(time.Duration(rng.IntN(40_000))*time.Microsecond, func() { process.Kill() })
		for i := 0; ; i++ {
			text := fmt.Sprintf("layer %d-%d", round, i)
			d := digest.FromString(text)
			resp, _ := v.do("POST", "/v2/r/blobs/uploads/?digest="+d.String(), strings.NewReader(text))
			if resp == nil {
				break
			}
			layer := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(len(text))}
			raw := manifestOf(layer, []ocispec.Descriptor{layer}, nil)
			tag := fmt.Sprintf("t%d-%d", round, i)
			resp, _ = v.do("PUT", "/v2/r/manifests/"+tag, bytes.NewReader(raw), "Content-Type: "+ocispec.MediaTypeImageManifest)
			if resp == nil {
				break
			}
			if resp.StatusCode == 201 {
				acked[tag] = raw
			}
		}
		after.Stop()
		v.kill()
		v.start()
		_, list := v.do("GET", "/v2/r/tags/list", nil)
		var tags struct{ Tags []string }
		if len(acked) > 0 && json.Unmarshal(list, &tags) != nil {
			t.Fatalf("%s", list)
		}
		here := map[string]bool{}
		for _, tag := range tags.Tags {
			here[tag] = true
			if _, before := acked[tag]; before && rng.IntN(4) > 0 {
				continue // a sample of what was looked at before
			}
			_, raw := v.do("GET", "/v2/r/manifests/"+tag, nil)
			var m ocispec.Manifest
			if err := json.Unmarshal(raw, &m); err != nil || len(m.Layers) != 1 {
				t.Fatalf("%s: %s", tag, raw)
			}
			if resp, got := v.do("GET", "/v2/r/blobs/"+m.Layers[0].Digest.String(), nil); resp == nil || resp.StatusCode != 200 || digest.FromBytes(got) != m.Layers[0].Digest {
				t.Fatalf("%s is visible and its layer is not whole", tag)
			}
		}
		for tag := range acked {
			if !here[tag] {
				t.Fatalf("%s was acknowledged and is gone", tag)
			}
		}
	}
	if len(acked) == 0 {
		t.Error("nothing was ever acknowledged: the kills come too early")
	}
}
