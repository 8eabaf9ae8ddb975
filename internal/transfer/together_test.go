package transfer

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/moby/moby/api/types/jsonstream"

	"berth/internal/fault"
	"berth/internal/image"
)

// TestConcurrentPullsShareDownloads: however many want an image, each blob is
// fetched once.
func TestConcurrentPullsShareDownloads(t *testing.T) {
	g := newRegistry(t)
	m, _ := g.push("v1", arch, ociGzip, oneFile("a", noise(2<<20, 1)), oneFile("b", noise(2<<20, 2)))
	h := build(t, nil)
	waiting := make(chan struct{})
	var arrived atomic.Int32
	g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, m.Layers[0].Digest.String()) {
			select { // until all pulls have joined
			case <-waiting:
			case <-r.Context().Done():
			}
		}
		return false
	})
	var wg sync.WaitGroup
	const n = 8
	for range n {
		wg.Go(func() {
			_, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{Progress: func(msg jsonstream.Message) {
				// The other layer may be there before the last pull begins.
				if msg.Status == "Pulling fs layer" && msg.ID == shortID(m.Layers[0]) && arrived.Add(1) == n {
					close(waiting)
				}
			}})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := g.requests("GET /v2/app/blobs/" + m.Layers[0].Digest.String()); got != 1 {
		t.Errorf("the layer was fetched %d times", got)
	}
}

// TestOneOfTwoGivesUp: the other gets its image nevertheless.
func TestOneOfTwoGivesUp(t *testing.T) {
	g := newRegistry(t)
	m, _ := g.push("v1", arch, ociGzip, oneFile("a", noise(1<<20, 1)))
	h := build(t, nil)
	asked, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, m.Layers[0].Digest.String()) {
			once.Do(func() { close(asked) })
			<-goOn
		}
		return false
	})
	ctx, cancel := context.WithCancel(context.Background())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { _, _, err := h.Pull(ctx, g.host+"/app:v1", Options{}); first <- err }()
	<-asked
	joined := make(chan struct{})
	var joinOnce sync.Once
	go func() {
		_, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{Progress: func(msg jsonstream.Message) {
			if msg.Status == "Downloading" || msg.Status == "Pulling fs layer" {
				joinOnce.Do(func() { close(joined) })
			}
		}})
		second <- err
	}()
	<-joined
	cancel()
	if err := <-first; !fault.Is(err, fault.Canceled) {
		t.Errorf("the one that gave up got %v", err)
	}
	close(goOn)
	if err := <-second; err != nil {
		t.Errorf("the other got %v", err)
	}
}

func TestCanceledPullLeavesNothing(t *testing.T) {
	g := newRegistry(t)
	m, _ := g.push("v1", arch, ociGzip, oneFile("a", noise(1<<20, 1)))
	h := build(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	g.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, m.Layers[0].Digest.String()) {
			g.cutAfter(w, r, 500_000)
			cancel()
			return true
		}
		return false
	})
	if _, _, err := h.Pull(ctx, g.host+"/app:v1", Options{}); !fault.Is(err, fault.Canceled) {
		t.Errorf("got %v", err)
	}
	h.empty(t)
}

// TestPullsAndRemovalsAtOnce: whoever pulls has a whole image afterwards.
func TestPullsAndRemovalsAtOnce(t *testing.T) {
	g := newRegistry(t)
	g.push("v1", arch, ociGzip, oneFile("a", "1"), oneFile("b", "2"))
	h := build(t, nil)
	ref := g.host + "/app:v1"
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range 10 {
				if _, _, err := h.Pull(context.Background(), ref, Options{}); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 10 {
				if _, err := h.images.Remove(context.Background(), ref, image.RemoveOptions{}); err != nil && !fault.Is(err, fault.NotFound) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	img, _, err := h.Pull(context.Background(), ref, Options{})
	if err != nil || h.read(t, img, "b") != "2" {
		t.Error(err)
	}
}

func TestOnlyMissingLayersAreFetched(t *testing.T) {
	g := newRegistry(t)
	base := oneFile("base", noise(100_000, 1))
	g.push("v1", arch, ociGzip, base, oneFile("a", "1"))
	m, _ := g.push("v2", arch, ociZstd, base, oneFile("a", "2"))
	h := build(t, nil)
	for _, tag := range []string{"v1", "v2"} {
		if _, _, err := h.Pull(context.Background(), g.host+"/app:"+tag, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if g.requests(m.Layers[0].Digest.String()) != 0 || g.requests(m.Layers[1].Digest.String()) != 1 {
		t.Errorf("requests: %v", g.log)
	}
}

// TestUnreachable: a registry that is not there is an answer within seconds.
func TestUnreachable(t *testing.T) {
	h := build(t, nil)
	s := httptest.NewServer(http.NotFoundHandler())
	host := strings.TrimPrefix(s.URL, "http://")
	s.Close()
	_, _, err := h.Pull(context.Background(), host+"/app:v1", Options{})
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), host) {
		t.Errorf("got %v", err)
	}
}
