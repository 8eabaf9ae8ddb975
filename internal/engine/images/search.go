package images

import (
	"cmp"
	"context"
	"strconv"

	"berth/internal/engine/filter"
	"berth/internal/fault"

	"github.com/moby/moby/api/types/registry"
)

// SearchOptions describe a search in a registry.
type SearchOptions struct {
	Term    string
	Limit   int        // 1 to 100; 0 means 25
	Filters filter.Set // is-official, is-automated, stars
	Auth    registry.AuthConfig
}

// defaultSearchLimit is docker's.
const defaultSearchLimit = 25

// RegistrySearch searches a registry, Docker Hub unless the term begins with
// another's name, for repositories.
func (s *Service) RegistrySearch(ctx context.Context, o SearchOptions) ([]registry.SearchResult, error) {
	admits, err := searchFilter(o.Filters)
	if err != nil {
		return nil, err
	}
	found, err := s.remote.Transfers().Search(ctx, o.Term, cmp.Or(o.Limit, defaultSearchLimit), o.Auth)
	if err != nil {
		return nil, err
	}
	out := []registry.SearchResult{}
	for _, r := range found {
		r.IsAutomated = false //nolint:staticcheck // docker has answered so since the field lost its meaning
		if admits(r) {
			out = append(out, r)
		}
	}
	return out, nil
}

// searchFilter understands the filters of a search.
func searchFilter(f filter.Set) (func(registry.SearchResult) bool, error) {
	if err := f.Check("is-automated", "is-official", "stars"); err != nil {
		return nil, err
	}
	automated, err := f.Bool("is-automated", false)
	if err != nil {
		return nil, err
	}
	official, err := f.Bool("is-official", false)
	if err != nil {
		return nil, err
	}
	stars := 0
	for _, text := range f.Get("stars") {
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, fault.New(fault.Invalid, "", "", "invalid filter 'stars=%s'", text)
		}
		stars = max(stars, n)
	}
	return func(r registry.SearchResult) bool {
		return !automated && (!f.Has("is-official") || r.IsOfficial == official) && r.StarCount >= stars
	}, nil
}
