package dockerfile

import (
	"path"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/util/suggest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/build/graph"
)

// The checks below are those that need more than one instruction; the parser
// makes the others. Rules and their texts are BuildKit's, so that what people
// read about them is true here.

func (t *translation) lintNames(stages []instructions.Stage) {
	seen := map[string]bool{}
	for _, s := range stages {
		if s.Name == "" {
			continue
		}
		if s.Name == "context" || s.Name == scratch {
			t.lint.Run(&linter.RuleReservedStageName, s.Location, linter.RuleReservedStageName.Format(s.Name))
		}
		if seen[s.Name] {
			t.lint.Run(&linter.RuleDuplicateStageName, s.Location, linter.RuleDuplicateStageName.Format(s.Name))
		}
		seen[s.Name] = true
	}
}

func (t *translation) lintCasing(stages []instructions.Stage) {
	lower, upper := 0, 0
	each := func(visit func(name string, at []parser.Range)) {
		for _, s := range stages {
			visit(s.OrigCmd, s.Location)
			for _, c := range s.Commands {
				visit(c.Name(), c.Location())
			}
		}
	}
	each(func(name string, _ []parser.Range) {
		switch name {
		case strings.ToLower(name):
			lower++
		case strings.ToUpper(name):
			upper++
		}
	})
	want, fold := "uppercase", strings.ToUpper
	if lower > upper {
		want, fold = "lowercase", strings.ToLower
	}
	each(func(name string, at []parser.Range) {
		if fold(name) != name {
			t.lint.Run(&linter.RuleConsistentInstructionCasing, at, linter.RuleConsistentInstructionCasing.Format(name, want))
		}
	})
}

// lintDefaultArgs looks whether base images have names when no arguments are
// given.
func (t *translation) lintDefaultArgs(stages []instructions.Stage, predefined *env, meta []instructions.ArgCommand) {
	defaults := predefined.clone()
	if t.metaArgs(defaults, meta, nil) != nil {
		return // the translation itself will say so
	}
	for _, s := range stages {
		r, err := t.lex.ProcessWordWithMatches(s.BaseName, defaults)
		if err != nil {
			return
		}
		if _, err := reference.ParseNormalizedNamed(r.Result); err != nil {
			t.lint.Run(&linter.RuleInvalidDefaultArgInFrom, s.Location, linter.RuleInvalidDefaultArgInFrom.Format(s.BaseName))
		}
	}
}

func (t *translation) lintFromArgs(unmatched map[string]struct{}, at []parser.Range, lint *linter.Linter) {
	known := t.globalNames()
	for _, name := range sorted(unmatched) {
		if slices.Contains(known, name) {
			continue
		}
		guess, _ := suggest.Search(name, known, true)
		lint.Run(&linter.RuleUndefinedArgInFrom, at, linter.RuleUndefinedArgInFrom.Format(name, guess))
	}
}

func sorted(set map[string]struct{}) []string {
	var out []string
	for k := range set {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func (t *translation) lintPlatform(s instructions.Stage, r shell.ProcessWordResult, lint *linter.Linter) {
	if len(r.Matched) == 1 && len(r.Unmatched) == 0 {
		if _, ok := r.Matched["TARGETPLATFORM"]; ok {
			if v, _ := t.global.Get("TARGETPLATFORM"); v == r.Result {
				lint.Run(&linter.RuleRedundantTargetPlatform, s.Location, linter.RuleRedundantTargetPlatform.Format(s.Platform))
			}
		}
	}
	if len(r.Matched) > 0 || len(r.Unmatched) > 0 {
		return
	}
	p, err := parsePlatform(r.Result)
	if err != nil || strings.Contains(s.Name, p.OS) || strings.Contains(s.Name, p.Architecture) {
		return
	}
	lint.Run(&linter.RuleFromPlatformFlagConstDisallowed, s.Location, linter.RuleFromPlatformFlagConstDisallowed.Format(r.Result))
}

func (t *translation) lintBasePlatform(name string, want, have ocispec.Platform, at []parser.Range) {
	if want.OS != have.OS || want.Architecture != have.Architecture {
		t.lint.Run(&linter.RuleInvalidBaseImagePlatform, at,
			linter.RuleInvalidBaseImagePlatform.Format(name, formatPlatform(want), formatPlatform(have)))
	}
}

func (t *translation) lintUndefined(s *stage, c instructions.Command, unmatched map[string]struct{}, lint *linter.Linter) {
	for _, name := range sorted(unmatched) {
		if slices.ContainsFunc(s.args, func(a instructions.KeyValuePairOptional) bool { return a.Key == name }) {
			continue
		}
		guess, _ := suggest.Search(name, s.env.keys, true)
		lint.Run(&linter.RuleUndefinedVar, c.Location(), linter.RuleUndefinedVar.Format(name, guess))
	}
}

func (t *translation) lintLegacy(name string, legacy bool, at []parser.Range, lint *linter.Linter) {
	if legacy {
		lint.Run(&linter.RuleLegacyKeyValueFormat, at, linter.RuleLegacyKeyValueFormat.Format(name))
	}
}

// lintOnce warns about the earlier of two instructions of which one counts.
func (t *translation) lintOnce(c instructions.Command, before **[]parser.Range, lint *linter.Linter) {
	if *before != nil {
		lint.Run(&linter.RuleMultipleInstructionsDisallowed, **before, linter.RuleMultipleInstructionsDisallowed.Format(c.Name()))
	}
	at := c.Location()
	*before = &at
}

func (t *translation) lintSecret(instruction, key string, at []parser.Range, lint *linter.Linter) {
	if graph.SecretName(key) {
		lint.Run(&linter.RuleSecretsUsedInArgOrEnv, at, linter.RuleSecretsUsedInArgOrEnv.Format(instruction, key))
	}
}

func (t *translation) lintIgnored(add bool, src string, at []parser.Range, lint *linter.Linter) {
	if t.o.Ignored == nil {
		return
	}
	clean := strings.TrimPrefix(path.Clean("/"+src), "/")
	if clean == "" || !t.o.Ignored(clean) {
		return
	}
	what := "Copy"
	if add {
		what = "Add"
	}
	lint.Run(&linter.RuleCopyIgnoredFile, at, linter.RuleCopyIgnoredFile.Format(what, clean))
}
