package dockerfile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"berth/internal/build/tree"
)

// Everything that BuildKit's checks find, with its words: people and programs look
// for these. A wish is "line rule: message", where the message may be cut short.
func TestChecks(t *testing.T) {
	secret := func(line int, what string) string {
		return fmt.Sprintf("%d SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (%s)", line, what)
	}
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"nothing to find", "FROM base AS x\nCOPY a b\nCMD [\"c\"]", nil},
		{"stage names", "# bad\n#\nFROM base AS BadStage\nFROM base as b2\nFROM base AS b3", []string{"3 StageNameCasing: Stage name 'BadStage' should be lowercase", "4 FromAsCasing: 'as' and 'FROM' keywords' casing do not match"}},
		{"stage names, lower case", "from base AS b1\nfrom base as b2", []string{"1 FromAsCasing: 'AS' and 'from' keywords' casing do not match"}},
		{"empty continuation", "FROM base\nCOPY a \\\n\n.\nCOPY a \\\n.", []string{"4 NoEmptyContinuation: Empty continuation line"}},
		{"casing of one", "From base as b1\nFROM base AS b2", []string{"1 ConsistentInstructionCasing: Command 'From' should match the case of the command majority (uppercase)"}},
		{"casing, upper wins", "FROM base\ncopy a /b\nCOPY a /c", []string{"2 ConsistentInstructionCasing: Command 'copy' should match the case of the command majority (uppercase)"}},
		{"casing, lower wins", "from base\nCOPY a /b\ncopy a /c", []string{"2 ConsistentInstructionCasing: Command 'COPY' should match the case of the command majority (lowercase)"}},
		{"casing of FROM", "FROM base\ncopy a /b\ncopy a /c\ncopy a /d", []string{"1 ConsistentInstructionCasing: Command 'FROM' should match the case of the command majority (lowercase)"}},
		{"casing, mixed", "frOM base as x\nfrom base as y", []string{"1 ConsistentInstructionCasing: Command 'frOM' should match the case of the command majority (lowercase)"}},
		{"casing, all lower", "from base\ncopy a /b\nrun <<'EOT'\nENV\nEOT", nil},
		{"duplicate stage", "FROM base AS b\nFROM base AS b", []string{`2 DuplicateStageName: Duplicate stage name "b", stage names should be unique`}},
		{"duplicate stage, other case", "FROM base AS b\nFROM base AS B", []string{`2 DuplicateStageName: Duplicate stage name "b"`, "2 StageNameCasing: "}},
		{"reserved names", "FROM scratch AS scratch\nFROM scratch AS context", []string{`1 ReservedStageName: Stage name should not use the same name as reserved stage "scratch"`, `2 ReservedStageName: Stage name should not use the same name as reserved stage "context"`}},
		{"reserved names as bases", "FROM scratch\nFROM scratch AS a", nil},
		{"cmd in the shell", "FROM base\nCMD a b", []string{"2 JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals"}},
		{"entrypoint in the shell", "FROM base\nENTRYPOINT a", []string{"2 JSONArgsRecommended: JSON arguments recommended for ENTRYPOINT "}},
		{"a shell that was asked for", "FROM base\nSHELL [\"/x\"]\nCMD a\nENTRYPOINT b", nil},
		{"a shell of an earlier stage", "FROM base AS a\nSHELL [\"/x\"]\nFROM a\nENTRYPOINT b", nil},
		{"a health check in the shell is usual", "FROM base\nHEALTHCHECK CMD a", nil},
		{"maintainer", "FROM base\nMAINTAINER me@example.org", []string{"2 MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label"}},
		{"a base without default", "ARG DEBUG\nFROM base${DEBUG}", nil},
		{"a base with a default in its name", "ARG DEBUG\nFROM ba${DEBUG:-se}", nil},
		{"a known platform argument", "FROM --platform=$BUILDPLATFORM base", nil},
		{"an unknown argument in FROM", "ARG tag=latest\nFROM base:${tag}${version} AS b", []string{"2 UndefinedArgInFrom: FROM argument 'version' is not declared"}},
		{"an argument in FROM, nearly right", "ARG TAG=latest\nFROM base:latest${TAGG}", []string{"2 UndefinedArgInFrom: FROM argument 'TAGG' is not declared (did you mean TAG?)"}},
		{"relative directory", "FROM base\nWORKDIR app/", []string{`2 WorkdirRelativePath: Relative workdir "app/" can have unexpected results if the base image changes`}},
		{"relative to an earlier stage's", "FROM base AS a\nWORKDIR /app\nFROM a AS b\nWORKDIR sub/", nil},
		{"relative, said once", "FROM base\nWORKDIR app\nWORKDIR sub", []string{"2 WorkdirRelativePath: "}},
		{"variable before its ARG", "FROM base\nCOPY $foo .\nARG foo=bar\nRUN echo $foo", []string{"2 UndefinedVar: Usage of undefined variable '$foo'"}},
		{"variable, nearly right", "FROM base\nARG DIR_BINARIES=b/\nARG DIR_ASSETS=a/\nCOPY $DIR_ASSET .", []string{"4 UndefinedVar: Usage of undefined variable '$DIR_ASSET' (did you mean $DIR_ASSETS?)"}},
		{"variable, PATH mistyped", "FROM base\nENV PATH=$PAHT:/tmp/bin", []string{"2 UndefinedVar: Usage of undefined variable '$PAHT' (did you mean $PATH?)"}},
		{"variable of ARG without value", "FROM base\nARG foo\nCOPY a${foo} .", nil},
		{"variable of an earlier stage", "FROM base AS a\nARG foo=a\nFROM a\nCOPY $foo .", nil},
		{"variables in every stage", "FROM base AS a\nCOPY $foo .\nFROM base AS b\nCOPY $bar .", []string{"2 UndefinedVar: Usage of undefined variable '$foo'", "4 UndefinedVar: Usage of undefined variable '$bar'"}},
		{"several of one kind", "FROM base\nENTRYPOINT [\"a\"]\nENTRYPOINT [\"b\"]\nCMD [\"a\"]\nHEALTHCHECK CMD a\nRUN x\nCMD [\"b\"]\nHEALTHCHECK CMD b", []string{
			"2 MultipleInstructionsDisallowed: Multiple ENTRYPOINT instructions should not be used in the same stage because only the last one will be used",
			"4 MultipleInstructionsDisallowed: Multiple CMD instructions", "5 MultipleInstructionsDisallowed: Multiple HEALTHCHECK instructions"}},
		{"one of a kind in each stage", "FROM base AS a\nCMD [\"a\"]\nFROM a\nCMD [\"b\"]", nil},
		{"old forms", "FROM base\nENV a b\nLABEL c d", []string{`2 LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" format`, `3 LegacyKeyValueFormat: "LABEL key=value" should be used`}},
		{"redundant platform", "FROM --platform=$TARGETPLATFORM base", []string{"1 RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"}},
		{"redundant platform in braces", "FROM --platform=${TARGETPLATFORM} base", []string{"1 RedundantTargetPlatform: Setting platform to predefined ${TARGETPLATFORM} in FROM"}},
		{"constant platform", "FROM --platform=linux/amd64 base", []string{`1 FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value "linux/amd64"`}},
		{"constant platform, in the stage's name", "FROM --platform=linux/amd64 base AS my_amd64_stage\nFROM --platform=linux/amd64 base AS linux", nil},
		{"the base is of another platform", "FROM --platform=linux/arm64 base AS arm64", []string{`1 InvalidBaseImagePlatform: Base image base was pulled with platform "linux/amd64", expected "linux/arm64" for current build`}},
		{"secrets", "FROM base\nARG SECRET_PASSPHRASE\nENV SUPER_Secret=foo\nENV password=bar secret=baz\nARG super_duper_secret_token=foo auth=bar\nENV apikey=bar sunflower=foo\nENV git_key=", []string{
			secret(2, `ARG "SECRET_PASSPHRASE"`), secret(3, `ENV "SUPER_Secret"`), secret(4, `ENV "password"`), secret(4, `ENV "secret"`),
			secret(5, `ARG "auth"`), secret(5, `ARG "super_duper_secret_token"`), secret(6, `ENV "apikey"`), secret(7, `ENV "git_key"`)}},
		{"no secrets", "FROM base\nENV PUBLIC_KEY=\nARG public_token\nARG SECRET_PASSPHRASE_FILE\nENV password_file=bar secret_File=baz\nARG AUTH_MODULE_VERSION\nENV KEYBOARD=de", nil},
		{"no default for the base", "ARG V\nFROM base:$V", []string{"2 InvalidDefaultArgInFrom: Default value for ARG base:$V results in empty or invalid base image name"}},
		{"no default for the base's name", "ARG I\nFROM $I", []string{"2 InvalidDefaultArgInFrom: Default value for ARG $I results in empty or invalid base image name"}},
		{"a default that is a name", "ARG V=latest\nFROM base:${V}", nil},
		{"an ignored file", "FROM base\nCOPY ignored .\nADD ignored /w", []string{`2 CopyIgnoredFile: Attempting to Copy file "ignored" that is excluded by .dockerignore`, `3 CopyIgnoredFile: Attempting to Add file "ignored" that is excluded by .dockerignore`}},
		{"an ignored file of a stage", "FROM base AS a\nFROM base\nCOPY --from=a /ignored /x", nil},
		{"a file that is taken back", "FROM base\nCOPY some/kept ./some/kept /x/", nil},
		{"the whole context", "FROM base\nCOPY . .\nCOPY ./ /", nil},
		{"protocols", "FROM base\nEXPOSE 80/TcP 8080/TCP 8080/udp", []string{"2 ExposeProtoCasing: Defined protocol '80/TcP' in EXPOSE instruction should be lowercase", "2 ExposeProtoCasing: Defined protocol '8080/TCP'"}},
		{"host ports", "FROM base\nEXPOSE 127.0.0.1:80:80 [::1]:8080:8080 5000:5000 8000", []string{
			"2 ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80'",
			"2 ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '5000:5000'",
			"2 ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '[::1]:8080:8080'"}},
		{"descriptions", "# check=experimental=InvalidDefinitionDescription\n# bar this is the bar\nARG foo=bar\n# BasE this is the BasE image\nFROM base AS base\n# a bad comment\nARG version=latest\n# a bad comment\nARG foo=baz bar=qux baz=quux", []string{
			"3 InvalidDefinitionDescription: Comment for ARG should follow the format: `# foo <description>`", "5 InvalidDefinitionDescription: Comment for FROM should follow the format: `# base <description>`",
			"7 InvalidDefinitionDescription: Comment for ARG should follow the format: `# version <description>`", "9 InvalidDefinitionDescription: Comment for ARG should follow the format: `# <arg_key> <description>`"}},
		{"descriptions as they should be", "# check=experimental=all\n# foo this is the foo\nARG foo=bar\n# base this is the base\nFROM base AS base\n# baz this is the baz\nARG foo=baz bar=qux baz=quux\n#\nARG bit=bat\n# not of ARG or FROM\nCOPY a .", nil},

		{"all skipped", "#check=skip=all\nFROM base as x\ncopy a .", nil},
		{"two skipped", "#check=skip=ConsistentInstructionCasing,FromAsCasing\nFROM base as x\ncopy a .", nil},
		{"one skipped", "# check=skip=ConsistentInstructionCasing\nFROM base as x\ncopy a .", []string{"2 FromAsCasing: "}},
		{"skipped for one instruction", "FROM base\n# check=skip=JSONArgsRecommended\nCMD a\n# check=skip=MaintainerDeprecated\nMAINTAINER x\n# check=skip=WorkdirRelativePath\nWORKDIR x\n# check=skip=SecretsUsedInArgOrEnv // it is none\nENV password=x\n# check=skip=all\nENV secret y\nENV token=z",
			[]string{secret(12, `ENV "token"`)}},
		{"skipped for FROM", "# comment\n# check=skip=FromAsCasing\nFROM base as x", nil},
		{"errors, of which none is found", "#check=skip=all;error=true\nFROM base as x", nil},
		{"errors", "#check=skip=ConsistentInstructionCasing;error=true\nFROM base as x\ncopy a .", []string{"2 FromAsCasing: ", "error lint violation found for rules: FromAsCasing"}},
		{"warnings before an error", "FROM base AS Bad\nMAINTAINER x\nBADCMD", []string{"1 StageNameCasing: ", "2 MaintainerDeprecated: ", "error unknown instruction: BADCMD"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			ignored, err := tree.NewIgnorer([]string{"ignored", "some/*", "!some/kept"})
			if err != nil {
				t.Fatal(err)
			}
			var args map[string]string
			if strings.HasPrefix(tt.name, "no default") {
				args = map[string]string{"V": "latest", "I": "base:latest"}
			}
			_, err = translate(t, tt.text, func(o *Options) {
				o.AllStages, o.Args = true, args
				o.Ignored = func(p string) bool { out, _, _ := ignored.Ignored(p, nil); return out }
				o.Warn = func(w Warning) {
					got = append(got, fmt.Sprintf("%d %s: %s", w.Lines.Start, w.Rule, w.Message))
					if w.Description == "" || w.URL == "" && w.Rule != "InvalidBaseImagePlatform" {
						t.Errorf("%+v tells too little", w)
					}
				}
			})
			slices.SortStableFunc(got, func(a, b string) int {
				return cmp.Or(cmp.Compare(strings.IndexByte(a, ' '), strings.IndexByte(b, ' ')), cmp.Compare(a, b))
			})
			if err != nil {
				_, text, _ := strings.Cut(err.Error(), ": ")
				got = append(got, "error "+text)
			}
			if !slices.EqualFunc(got, tt.want, strings.HasPrefix) {
				t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}
