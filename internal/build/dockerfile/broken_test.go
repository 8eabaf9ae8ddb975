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
	{"mount source without a stage", "FROM base\nRUN --mount=type=cache,target=/x,source=sub true\n", "2:1", "RUN", "needs from"},
	{"json of numbers", "FROM base\nCMD [\"a\", 1]\n", "2:1", "CMD", "strings only"},
	{"json in json", "FROM base\nCMD [ \"echo\", [ \"nested json\" ] ]\n", "2:1", "CMD", "strings only"},
	{"json and a word", "FROM base\nSHELL [\"a\"] b\n", "2:1", "SHELL", "JSON"},
	{"env without name", "FROM base\nENV =b\n", "2:1", "ENV", "names can not be blank"},
	{"label without name", "FROM base\nLABEL =b\n", "2:1", "LABEL", "names can not be blank"},
	{"arg without name", "FROM base\nARG =b\n", "2:1", "ARG", "names can not be blank"},
	{"no directory", "FROM base\nWORKDIR\n", "2:1", "WORKDIR", "exactly one argument"},
	{"two signals", "FROM base\nSTOPSIGNAL 9 15\n", "2:12", "9 15", "invalid signal"},
	{"maintainer of nothing", "FROM base\nMAINTAINER\n", "2:1", "MAINTAINER", "exactly one argument"},
	{"expose of nothing", "FROM base\nEXPOSE\n", "2:1", "EXPOSE", "at least one argument"},
	{"add without destination", "FROM base\nADD a\n", "2:1", "ADD", "Destination could not be determined"},
	{"copy of a commented source", "FROM base\nCOPY \\\n  # a \\\n  /x\n", "2:1", "COPY", "requires at least two arguments"},
	{"onbuild maintainer", "FROM base\nONBUILD MAINTAINER x\n", "2:1", "ONBUILD", "isn't allowed as an ONBUILD trigger"},
	{"onbuild with an unknown flag", "FROM base AS a\nONBUILD RUN --boo x\nFROM a\n", "", "", "unknown flag"},
	{"healthcheck too often", "FROM base\nHEALTHCHECK --interval=1us CMD x\n", "2:15", "interval", "cannot be less than 1ms"},
	{"healthcheck without command", "FROM base\nHEALTHCHECK CMD\n", "2:1", "HEALTHCHECK", "Missing command"},
	{"healthcheck none of something", "FROM base\nHEALTHCHECK NONE x\n", "2:1", "HEALTHCHECK", "takes no arguments"},
	{"healthcheck, few retries", "FROM base\nHEALTHCHECK --retries=-1 CMD x\n", "2:1", "HEALTHCHECK", "cannot be negative"},
	{"healthcheck, bad number", "FROM base\nHEALTHCHECK --retries=x CMD y\n", "2:23", "x", "invalid syntax"},
	{"a flag twice", "FROM base\nCOPY --chown=1 --chown=2 a b\n", "2:6", "--chown", "Duplicate flag"},
	{"no boolean", "FROM base\nCOPY --link=maybe a b\n", "2:13", "maybe", "expecting boolean value"},
	{"checksum of COPY", "FROM base\nCOPY --checksum=sha256:ab a b\n", "2:6", "--checksum", "unknown flag"},
	{"from of ADD", "FROM base\nADD --from=base a b\n", "2:5", "--from", "unknown flag"},
	{"checksum without algorithm", "FROM base\nADD --checksum=abcd https://e.com/x /\n", "2:16", "abcd", "checksum"},
	{"checksum of an old algorithm", "FROM base\nADD --checksum=md5:7e55db001d319a94b0b713529a756623 https://e.com/x /\n", "2:16", "md5:7e55db001d319a94b0b713529a756623", "algorithm"},
	{"checksum of several", "FROM base\nADD --checksum=sha256:ab https://e.com/x https://e.com/y /\n", "2:1", "ADD", "multiple sources"},
	{"chmod too large", "FROM base\nCOPY --chmod=10000 a b\n", "2:14", "10000", "invalid chmod parameter: '10000'"},
	{"unknown run flag, nearly right", "FROM base\nRUN --mont=target=/x true\n", "2:5", "--mont", "did you mean mount?"},
	{"mount key, nearly right", "FROM base\nRUN --mount=typ=tmpfs true\n", "2:13", "typ", "did you mean type?"},
	{"mount type, nearly right", "FROM base\nRUN --mount=type=tmp true\n", "2:18", "tmp", "did you mean tmpfs?"},
	{"mount from a variable", "FROM base AS x\nENV t=x\nRUN --mount=from=$t,type=cache,target=/tmp ls\n", "3:13", "from", "doesn't support variable expansion"},
	{"mount without a value", "FROM base\nRUN --mount=type=cache,target true\n", "2:24", "target", "key=value pair"},
	{"mount readonly, no boolean", "FROM base\nRUN --mount=target=/x,ro=maybe true\n", "2:26", "maybe", "invalid value for ro: maybe"},
	{"mount size of a cache", "FROM base\nRUN --mount=type=cache,target=/x,size=1m true\n", "2:34", "size", "unexpected key 'size' for mount type 'cache'"},
	{"mount mode of a bind", "FROM base\nRUN --mount=target=/x,mode=755 true\n", "2:1", "RUN", "mode not allowed"},
	{"mount mode, no number", "FROM base\nRUN --mount=type=cache,target=/x,mode=u+x true\n", "2:1", "RUN", "invalid value u+x for mode"},
	{"mount owner, no number", "FROM base\nRUN --mount=type=cache,target=/x,uid=me true\n", "2:1", "RUN", "invalid value me for uid"},
	{"mount required of a cache", "FROM base\nRUN --mount=type=cache,target=/x,required true\n", "2:34", "required", "unexpected key 'required'"},
	{"mount sharing of a bind", "FROM base\nRUN --mount=target=/x,sharing=locked true\n", "2:1", "RUN", "invalid cache sharing"},
	{"mount a secret from a stage", "FROM base\nRUN --mount=type=secret,id=x,from=base true\n", "2:1", "RUN", "should not have a from"},
	{"mount a secret with two names", "FROM base\nRUN --mount=type=secret,id=x,source=y true\n", "2:1", "RUN", "both source and id"},
	{"mount from a later stage", "FROM base AS a\nRUN --mount=from=later,target=/x true\nFROM base AS later\nFROM a\n", "2:18", "later", "needs to be defined before"},
	{"argument that must be given", "ARG FOO=${FOO:?\"custom error\"}\nFROM base\n", "1:9", "${FOO:?\"custom error\"}", "FOO: custom error"},
	{"argument that must be given, in a stage", "FROM base\nARG FOO\nARG BAR=${FOO:?\"foo missing\"}\n", "3:9", "${FOO:?\"foo missing\"}", "FOO: foo missing"},
	{"variable that must be set", "FROM base\nENV A=\"${B?not set}\"\n", "2:7", "\"${B?not set}\"", "B: not set"},
	{"host name in expose", "FROM base\nEXPOSE localhost:1234:1234/tcp\n", "2:8", "localhost:1234:1234/tcp", "invalid IP address"},
	{"expose of unequal ranges", "FROM base\nEXPOSE 1-2:1-3\n", "2:8", "1-2:1-3", "invalid ranges"},
	{"expose of no port", "FROM base\nEXPOSE 0.0.0.0:1234-1235:/tcp\n", "2:8", "0.0.0.0:1234-1235:/tcp", "invalid port"},
	{"platform of an unknown argument", "FROM --platform=$BULIDPLATFORM base\n", "1:17", "$BULIDPLATFORM", "did you mean BUILDPLATFORM?"},
	{"platform, half unknown", "ARG MY_ARCH=amd64\nFROM --platform=linux/${MYARCH} base\n", "2:17", "linux/", "did you mean MY_ARCH?"},
	{"blank name of a base", "FROM \"\" AS foo\n", "1:6", "\"\"", "should not be blank"},
	{"copy from itself by number", "FROM base\nCOPY --from=0 /x /y\n", "2:1", "COPY", "circular dependency"},
	{"copy in a circle", "FROM base AS a\nCOPY --from=c x /\nFROM base AS b\nCOPY --from=a x /\nFROM base AS c\nCOPY --from=b x /\n", "4:1", "COPY", "circular dependency detected on stage: a"},
	{"copy from a stage below", "FROM base AS target\nCOPY --from=build / /out\nFROM other AS build\nCOPY a /d2\nFROM target\n", "2:13", "build", "needs to be defined before current stage"},
	{"copy a repository", "FROM base\nCOPY https://e.com/x.git#main /\n", "2:1", "COPY", "git ref"},
	{"instruction in lower case", "from base\nfoo bar\n", "2:1", "foo", "unknown instruction: foo"},
	{"syntax of another name", "#syntax=foobar\nfrom base\n", "1:9", "foobar", "front end"},
	{"a directive twice", "# escape=`\n# escape=\\\nFROM base\n", "1:1", "", "only one escape"},
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
