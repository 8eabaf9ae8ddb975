package registry

import (
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestManyUnfinishedUploadsHoldFewFiles(t *testing.T) {
	h := newHarness(t, nil)
	var locs []string
	for range mostOpen + 20 {
		loc := h.begin("r")
		h.want(202, "", "PATCH", loc, "a")
		locs = append(locs, loc)
	}
	s := h.registry.uploads
	if n := s.opened.Load(); n > mostOpen {
		t.Errorf("%d open files", n)
	}
	last := locs[len(locs)-1] // whose file is closed
	h.want(202, "", "PATCH", last, "b", "Content-Range: 1-1")
	h.want(201, "", "PUT", last+"?digest="+digest.FromString("ab").String(), nil)

	s.expire(time.Now().Add(idleOpen + time.Minute))
	if n := s.opened.Load(); n != 0 {
		t.Errorf("%d open files after a pause", n)
	}
	h.want(201, "", "PUT", locs[0]+"?digest="+digest.FromString("a").String(), nil)
	s.expire(time.Now().Add(25 * time.Hour))
	h.want(404, codeUploadUnknown, "GET", locs[1], nil)
	if n := s.count(); n != 0 {
		t.Errorf("%d uploads after a day", n)
	}
	for _, f := range tree(t, h.dir+"/content/ingest") {
		t.Errorf("%s is left", f)
	}
}

func TestTwoRequestsNeverWriteToOneUpload(t *testing.T) {
	h := newHarness(t, nil)
	loc := h.begin("r")
	results := make(chan string, 8)
	for range 8 {
		go func() { results <- fmt.Sprint(h.do("PATCH", loc, "abcd", "Content-Range: 0-3").StatusCode) }()
	}
	count := map[string]int{}
	for range 8 {
		count[<-results]++
	}
	if count["202"] != 1 || count["416"] != 7 {
		t.Errorf("%v", count)
	}
	h.want(201, "", "PUT", loc+"?digest="+digest.FromString("abcd").String(), nil)
}
