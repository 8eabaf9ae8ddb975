package dockerfile

import (
	"errors"
	"strings"
	"testing"

	"berth/internal/build/graph"
	"berth/internal/fault"
)

// broken is a corpus of mistakes that people make. at is "line:column"; word is
// what the mark is below.
var broken = []struct{ name, text, at, word, says string }{
	{"unknown instruction", "FROM base\nRUNN true\n", "2:1", "RUNN", "did you mean RUN?"},
	{"mixed up", "FORM base\n", "1:1", "FORM", "unknown instruction"},
	{"no from", "RUN true\n", "1:1", "RUN", "no build stage"},
	{"env first", "# c\nENV a=b\nFROM base\n", "2:1", "ENV", "no build stage"},
	{"from without image", "FROM\n", "1:1", "FROM", "argument"},
	{"from with two words", "FROM base builder\n", "1:1", "FROM", "three arguments"},
	{"from without as", "FROM base is builder\n", "1:1", "FROM", "three arguments"},
	{"bad stage name", "FROM base AS 1x\n", "1:14", "1x", "invalid name for build stage"},
	{"blank base", "ARG B\nFROM $B\n", "2:6", "$B", "should not be blank"},
	{"upper case image", "FROM Base\n", "1:6", "Base", "lower"},
	{"no such image", "FROM base\nFROM nosuch\n", "2:6", "nosuch", "no such image"},
	{"no such image, near a stage", "FROM base AS builder\nFROM buildr\n", "2:6", "buildr", "did you mean builder?"},
	{"unknown flag", "FROM base\nCOPY --form=x a b\n", "2:6", "--form", "unknown flag"},
	{"flag without value", "FROM base\nCOPY --from a b\n", "2:6", "--from", "missing a value"},
	{"copy without destination", "FROM base\nCOPY a\n", "2:1", "COPY", "at least"},
	{"copy from itself", "FROM base AS a\nCOPY --from=a /x /y\n", "2:1", "COPY", "circular dependency"},
	{"copy from later", "FROM base AS a\nCOPY --from=1 /x /y\nFROM base\nFROM a\n", "2:13", "1", "needs to be defined before"},
	{"copy from nothing", "FROM base\nCOPY --from=7 /x /y\n", "2:1", "COPY", "invalid stage index 7"},
	{"copy from variable", "FROM base\nCOPY --from=$X /x /y\n", "2:1", "COPY", "variable expansion"},
	{"copy a url", "FROM base\nCOPY https://e.com/x /\n", "2:1", "COPY", "can't be a URL"},
	{"add a file url", "FROM base\nADD file:///etc/passwd /\n", "2:5", "file:///etc/passwd", "relative path"},
	{"checksum of nothing remote", "FROM base\nADD --checksum=sha256:ab x /\n", "2:1", "ADD", "checksum requires"},
	{"bad checksum", "FROM base\nADD --checksum=sha256:ab https://e.com/x /\n", "2:16", "sha256:ab", "checksum"},
	{"bad chmod", "FROM base\nCOPY --chmod=9z a b\n", "2:14", "9z", "invalid chmod"},
	{"chown by name with link", "FROM base\nCOPY --link --chown=me a b\n", "2:13", "--chown=me", "numeric"},
	{"bad mount type", "FROM base\nRUN --mount=type=cahce,target=/x true\n", "2:18", "cahce", "did you mean cache?"},
	{"bad mount key", "FROM base\nRUN --mount=type=cache,trget=/x true\n", "2:24", "trget", "unexpected key"},
	{"bad sharing", "FROM base\nRUN --mount=type=cache,target=/x,sharing=own true\n", "2:42", "own", "unsupported sharing"},
	{"mount on the root", "FROM base\nRUN --mount=type=tmpfs,target=/ true\n", "2:31", "/", "invalid mount target"},
	{"mount without target", "FROM base\nRUN --mount=type=cache true\n", "2:1", "RUN", "needs a target"},
	{"secret without a name", "FROM base\nRUN --mount=type=secret true\n", "2:1", "RUN", "source, target required"},
	{"bad network", "FROM base\nRUN --network=hsot true\n", "2:15", "hsot", "invalid network mode"},
	{"bad security", "FROM base\nRUN --security=none true\n", "2:16", "none", "is not valid"},
	{"second line", "FROM base\nRUN echo \\\n  a && \\\n  b\nEXPOSE 99999\n", "5:8", "99999", "65535"},
	{"bad protocol", "FROM base\nEXPOSE 80/icmp\n", "2:8", "80/icmp", "proto"},
	{"bad range", "FROM base\nEXPOSE 90-80\n", "2:8", "90-80", "range"},
	{"bad signal", "FROM base\nSTOPSIGNAL SIGFOO\n", "2:12", "SIGFOO", "invalid signal"},
	{"shell without json", "FROM base\nSHELL bash\n", "2:1", "SHELL", "JSON"},
	{"healthcheck of nothing", "FROM base\nHEALTHCHECK --interval=1s\n", "2:1", "HEALTHCHECK", ""},
	{"healthcheck type", "FROM base\nHEALTHCHECK FOO x\n", "2:13", "FOO", "Unknown type"},
	{"env without value", "FROM base\nENV a\n", "2:1", "ENV", "two arguments"},
	{"env with a stray word", "FROM base\nENV a=b c\n", "2:9", "c", "can't find ="},
	{"label without value", "FROM base\nLABEL\n", "2:1", "LABEL", "argument"},
	{"onbuild onbuild", "FROM base\nONBUILD ONBUILD RUN x\n", "2:1", "", "ONBUILD"},
	{"onbuild from", "FROM base\nONBUILD FROM x\n", "2:1", "ONBUILD", "FROM"},
	{"volume of nothing", "FROM base\nVOLUME [\"\"]\n", "2:1", "VOLUME", "empty"},
	{"bad modifier", "FROM base\nENV a=${b:x}\n", "2:7", "${b:x}", "modifier"},
	{"open brace", "FROM base\nENV a=${b\n", "2:7", "${b", "modifier"},
	{"open heredoc", "FROM base\nRUN <<EOF\necho\n", "2:1", "RUN", "heredoc"},
	{"bad platform", "FROM --platform=linux/(x) base\n", "1:17", "linux/(x)", "platform"},
	{"other front end", "# syntax=example.com/lang:1\nFROM base\n", "1:10", "example.com/lang:1", "front end"},
	{"bad escape", "# escape=x\nFROM base\n", "1:10", "x", "escape"},
	{"check option", "# check=foo=bar\nFROM base\n", "1:9", "foo", "invalid check option"},
	{"checks as errors", "# check=error=true\nFROM base\nMAINTAINER x\n", "", "", "lint violation"},
	{"git address", "FROM base\nADD https://e.com/x.git#main:../../etc /\n", "2:5", "https://e.com/x.git#main:../../etc", "leads out"},
	{"git option", "FROM base\nADD https://e.com/x.git#--upload-pack=x /\n", "2:5", "", "cannot be the name"},
	{"device", "FROM base\nRUN --device=vendor.com/x=all true\n", "2:5", "--device", "not supported"},
	{"only comments", "# nothing\n", "", "", "no instructions"},
	{"empty", " \n", "", "", "empty"},
	{"only arguments", "ARG X=1\n", "", "", "no stage"},
	{"epoch", "ARG SOURCE_DATE_EPOCH=never\nFROM base\n", "", "", "seconds"},
}

func TestBrokenFilesAreExplained(t *testing.T) {
	for _, tt := range broken {
		t.Run(tt.name, func(t *testing.T) {
			_, err := translate(t, tt.text)
			if err == nil {
				t.Fatal("it is accepted")
			}
			var f *fault.Error
			if !errors.As(err, &f) || f.Kind == fault.Internal {
				t.Fatalf("kind of %v", err)
			}
			if !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(tt.says)) {
				t.Errorf("%q does not say %q", err, tt.says)
			}
			if !strings.Contains(err.Error(), "(") {
				t.Errorf("%q has no hint", err)
			}
			var e *Error
			if tt.at == "" {
				return
			}
			if !errors.As(err, &e) {
				t.Fatalf("%v has no place", err)
			}
			if want := "Dockerfile:" + tt.at; f.Subject != want {
				t.Errorf("it is at %s, want %s (%v)", f.Subject, want, err)
			}
			if tt.word != "" && e.Width != len(tt.word) {
				t.Errorf("%d bytes are marked, want those of %q", e.Width, tt.word)
			}
			if x := e.Excerpt(); !strings.Contains(x, ">>> ") || !strings.Contains(x, "^") {
				t.Errorf("excerpt\n%s", x)
			}
		})
	}
}

func TestExcerpt(t *testing.T) {
	_, err := translate(t, "FROM base\nENV x=1\nCOPY\t--form=x a b\nRUN a\nRUN b\nRUN c\n")
	var e *Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	want := `Dockerfile:3
--------------------
   1 |     FROM base
   2 |     ENV x=1
   3 | >>> COPY	--form=x a b
     |         	^~~~~~
   4 |     RUN a
   5 |     RUN b
--------------------
`
	if got := e.Excerpt(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestChecks(t *testing.T) {
	for _, tt := range []struct {
		rule, text string
		line       int
	}{
		{"StageNameCasing", "FROM base AS Builder\n", 1},
		{"FromAsCasing", "FROM base as x\n", 1},
		{"NoEmptyContinuation", "FROM base\nRUN a \\\n\n  b\n", 4},
		{"ConsistentInstructionCasing", "FROM base\nRUN a\nrun b\n", 3},
		{"DuplicateStageName", "FROM base AS x\nFROM base AS x\n", 2},
		{"ReservedStageName", "FROM base AS scratch\n", 1},
		{"JSONArgsRecommended", "FROM base\nCMD a b\n", 2},
		{"MaintainerDeprecated", "FROM base\nMAINTAINER x\n", 2},
		{"UndefinedArgInFrom", "ARG TAG=1\nFROM base${TAGG}\n", 2},
		{"WorkdirRelativePath", "FROM base\nWORKDIR x\n", 2},
		{"UndefinedVar", "FROM base\nENV X=$PAHT\n", 2},
		{"MultipleInstructionsDisallowed", "FROM base\nCMD [\"a\"]\nCMD [\"b\"]\n", 2},
		{"LegacyKeyValueFormat", "FROM base\nENV a b\n", 2},
		{"InvalidBaseImagePlatform", "FROM --platform=linux/arm64 base AS arm64\n", 1},
		{"RedundantTargetPlatform", "FROM --platform=$TARGETPLATFORM base\n", 1},
		{"SecretsUsedInArgOrEnv", "FROM base\nARG API_KEY\n", 2},
		{"InvalidDefaultArgInFrom", "ARG V\nFROM base:${V}\n", 2},
		{"FromPlatformFlagConstDisallowed", "FROM --platform=linux/amd64 base\n", 1},
		{"CopyIgnoredFile", "FROM base\nCOPY ignored x\n", 2},
		{"ExposeProtoCasing", "FROM base\nEXPOSE 80/TCP\n", 2},
		{"ExposeInvalidFormat", "FROM base\nEXPOSE 80:80\n", 2},
		{"InvalidDefinitionDescription", "# check=experimental=all\n# nope\nFROM base AS x\n", 3},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			var found []Warning
			_, err := translate(t, tt.text, func(o *Options) {
				o.AllStages = true
				o.Args = map[string]string{"V": "latest"}
				if tt.rule != "InvalidDefaultArgInFrom" {
					o.Args = nil
				}
				o.Ignored = func(p string) bool { return p == "ignored" }
				o.Warn = func(w Warning) { found = append(found, w) }
			})
			for _, w := range found {
				if w.Rule == tt.rule {
					if w.Lines.Start != tt.line || w.Message == "" || w.Description == "" {
						t.Errorf("%+v, want line %d", w, tt.line)
					}
					return
				}
			}
			t.Errorf("found %+v, error %v", found, err)
		})
	}
	t.Run("skipped by the file", func(t *testing.T) {
		must(t, "# check=skip=JSONArgsRecommended\nFROM base\nCMD a\n", func(o *Options) {
			o.Warn = func(w Warning) { t.Errorf("%+v", w) }
		})
	})
}

func FuzzTranslate(f *testing.F) {
	for _, b := range broken {
		f.Add(b.text)
	}
	f.Add("FROM base AS a\nRUN --mount=type=cache,target=/x <<E\nx\nE\nFROM a\nCOPY --from=a --parents /./x* <<y z/\n\ny\n# check=skip=all\nRUN b\n")
	f.Fuzz(func(t *testing.T, text string) {
		g, err := translate(t, text, func(o *Options) { o.AllStages = true; o.Warn = func(Warning) {} })
		if err != nil {
			var e *Error
			if errors.As(err, &e) {
				e.Excerpt()
			}
			return
		}
		seen := map[*graph.Node]bool{nil: true}
		for _, n := range g.Nodes {
			for _, in := range n.Inputs {
				if !seen[in] {
					t.Fatalf("%s comes before %s, which it needs", n.Name, in.Name)
				}
			}
			seen[n] = true
		}
	})
}
