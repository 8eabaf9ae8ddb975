package images_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"berth/internal/engine/filter"
	"berth/internal/engine/images"
	"berth/internal/engine/images/imagestest"
	"berth/internal/fault"
	"berth/internal/transfer"

	"github.com/moby/moby/api/types/registry"
)

// client is the only client of registries.
type client struct{ *transfer.Client }

func (c client) Transfers() *transfer.Client { return c.Client }

func TestSearchAsksTheRegistryOfTheTerm(t *testing.T) {
	t.Parallel()
	b := imagestest.New(t, client{transfer.New(transfer.Config{})})
	status, asked := http.StatusOK, ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/search" {
			http.NotFound(w, r) // what a look for TLS or version 2 finds
			return
		}
		user, _, _ := r.BasicAuth()
		asked = r.URL.RawQuery + " " + user
		w.WriteHeader(status)
		fmt.Fprint(w, `{"results":[{"name":"a","star_count":9,"is_official":true,"is_automated":true},{"name":"b","star_count":3},{"name":"c","star_count":1}]}`)
	}))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	search := func(limit int, f filter.Set, auth registry.AuthConfig) string {
		t.Helper()
		list, err := b.RegistrySearch(t.Context(), images.SearchOptions{Term: host + "/team/app", Limit: limit, Filters: f, Auth: auth})
		if err != nil {
			return fault.KindOf(err).String()
		}
		names := ""
		for _, r := range list {
			names += r.Name
		}
		return names
	}
	for _, c := range []struct {
		limit int
		f     filter.Set
		want  string
	}{
		{0, nil, "abc"}, {2, nil, "ab"}, {0, imagestest.Filters("stars", "3"), "ab"}, {0, imagestest.Filters("is-official", "true"), "a"}, {0, imagestest.Filters("is-official", "false"), "bc"},
		{0, imagestest.Filters("is-automated", "true"), ""}, {0, imagestest.Filters("is-automated", "false"), "abc"}, {0, imagestest.Filters("colour", "red"), "invalid"}, {0, imagestest.Filters("stars", "many"), "invalid"},
	} {
		if got := search(c.limit, c.f, registry.AuthConfig{}); got != c.want {
			t.Errorf("limit %d, %v: %q, want %q", c.limit, c.f, got, c.want)
		}
	}
	if search(7, nil, registry.AuthConfig{Username: "me", Password: "pw"}); asked != "n=7&q=team%2Fapp me" {
		t.Errorf("the registry was asked %q", asked)
	}
	for code, want := range map[int]string{404: "unsupported", 401: "unauthorized", 500: "unavailable"} {
		status = code
		if got := search(0, nil, registry.AuthConfig{}); got != want {
			t.Errorf("answer %d: %q, want %q", code, got, want)
		}
	}
}
