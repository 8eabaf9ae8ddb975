package tree

import (
	"strings"

	"github.com/moby/patternmatcher"
)

// patterns is a list as .dockerignore has it: later ones win, "!" takes back.
type patterns struct {
	m       *patternmatcher.PatternMatcher
	negated bool
	lines   []string
}

// NewIgnorer returns what a list of .dockerignore's patterns leaves out, or nil
// for an empty list.
func NewIgnorer(lines []string) (Ignorer, error) {
	p, err := newPatterns(lines)
	if p == nil || err != nil {
		return nil, err
	}
	return p, nil
}

func newPatterns(lines []string) (*patterns, error) {
	if len(lines) == 0 {
		return nil, nil
	}
	m, err := patternmatcher.New(lines)
	if err != nil {
		return nil, err
	}
	return &patterns{m: m, negated: m.Exclusions(), lines: lines}, nil
}

// Ignored implements Ignorer.
func (p *patterns) Ignored(path string, parent any) (bool, any, error) {
	info, _ := parent.(patternmatcher.MatchInfo)
	ignored, info, err := p.m.MatchesUsingParentResults(path, info)
	return ignored, info, err
}

// Below implements Ignorer: only a pattern that takes something back can make a
// difference, and only if it can match below dir.
func (p *patterns) Below(dir string) bool {
	if !p.negated {
		return false
	}
	for _, line := range p.lines {
		pattern, ok := strings.CutPrefix(line, "!")
		if !ok {
			continue
		}
		pattern = strings.Trim(strings.TrimSpace(pattern), "/")
		fixed := pattern
		if i := strings.IndexAny(pattern, "*?[\\"); i >= 0 {
			fixed = pattern[:i]
			if strings.HasPrefix(dir+"/", fixed) || strings.HasPrefix(fixed, dir+"/") {
				return true
			}
			continue
		}
		if strings.HasPrefix(fixed, dir+"/") || within(fixed, dir) {
			return true
		}
	}
	return false
}
