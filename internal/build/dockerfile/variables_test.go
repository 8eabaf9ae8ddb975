package dockerfile

import (
	"slices"
	"strings"
	"testing"
)

// How words with variables come out, in the cases that BuildKit's own lexer is held
// to. "error" means that the word is refused.
func TestVariables(t *testing.T) {
	const known = "ENV PWD=/home SHELL=bash KOREAN=한국어 NULL= greeting=hello path=a/b/c/d.tar.gz\n"
	for _, tt := range [][2]string{
		{`hello`, `hello`}, {`he'll'o`, `hello`}, {`he'llo`, `error`}, {`he\'llo`, `he'llo`}, {`abc\tdef`, `abctdef`}, {`"abc\tdef"`, `abc\tdef`},
		{`'hello\there'`, `hello\there`}, {`"hel'lo"`, `hel'lo`}, {`"hello`, `error`}, {`'hello`, `error`}, {`"''"`, `''`},
		{`$.`, `$.`}, {`he$1x`, `hex`}, {`he$.x`, `he$.x`}, {`he$pwd.`, `he.`}, {`he$PWD`, `he/home`}, {`he\$PWD`, `he$PWD`},
		{`"he\$PWD"`, `he$PWD`}, {`\${}`, `${}`}, {`${}`, `error`}, {`he${hi}xx`, `hexx`}, {`he${.}`, `error`},
		{`${XXX:-000}xx`, `000xx`}, {`${PWD:-000}xx`, `/homexx`}, {`${XXX:-$PWD}xx`, `/homexx`}, {`${XXX:-${YYY:-yyy}}xx`, `yyyxx`}, {`${XXX:YYY}`, `error`},
		{`${NULL:-x}`, `x`}, {`${NULL-x}`, ``}, {`${XXX-x}`, `x`}, {`${PWD-x}`, `/home`}, {`${NULL:+x}`, ``}, {`${NULL+x}`, `x`}, {`${XXX+x}`, ``}, {`${PWD+x}`, `x`},
		{`${XXX?}`, `error`}, {`${XXX:?}`, `error`}, {`${PWD?}`, `/home`}, {`${PWD:?}`, `/home`}, {`a${NULL?}`, `a`}, {`${NULL:?}`, `error`}, {`${XXX:?message}`, `error`},
		{`${XXX:+${PWD}}xx`, `xx`}, {`${PWD:+${SHELL}}xx`, `bashxx`}, {`${PWD:=000}xx`, `error`}, {`${PWD:+${PWD}:}xx`, `/home:xx`}, {`${XXX:-\$PWD:}xx`, `$PWD:xx`}, {`${XXX:-\${PWD}z}xx`, `${PWDz}xx`},
		{`'he${XX}'`, `he${XX}`}, {`"he'$PWD'"`, `he'/home'`}, {`'$PWD'`, `$PWD`}, {`'"hello"'`, `"hello"`}, {`he${PWD`, `error`},
		{`안녕$KOREAN`, `안녕한국어`}, {`안녕${PWD:-000}`, `안녕/home`},
		{`${{aaa}`, `error`}, {`${aaa}}`, `}`}, {`${aaa:-bbb}}`, `bbb}`}, {`${:-bbb}`, `error`}, {`${1:-bbb}`, `bbb`}, {`$999aaa`, `aaa`}, {`${@:-bbb}aaa`, `bbbaaa`}, {`$@@@`, `@@`}, {`$$`, ``},

		{`${greeting#h}`, `ello`}, {`${greeting#*l}`, `lo`}, {`${greeting##*l}`, `o`}, {`${greeting#x}`, `hello`}, {`${greeting#h?l}`, `lo`},
		{`${greeting%o}`, `hell`}, {`${greeting%l*}`, `hel`}, {`${greeting%%l*}`, `he`}, {`${greeting%x}`, `hello`},
		{`${path##*/}`, `d.tar.gz`}, {`${path%/*}`, `a/b/c`}, {`${path#*/}`, `b/c/d.tar.gz`}, {`${path%%.*}`, `a/b/c/d`}, {`${path%.*}`, `a/b/c/d.tar`},
		{`${greeting/l/L}`, `heLlo`}, {`${greeting//l/L}`, `heLLo`}, {`${greeting/x/y}`, `hello`}, {`${greeting/l/}`, `helo`}, {`${greeting//l}`, `error`}, {`${path//\//-}`, `a-b-c-d.tar.gz`}, {`${greeting/?l/_}`, `h_lo`}, {`${greeting//*/z}`, `z`},
		{`${greeting/l/$SHELL}`, `hebashlo`}, {`${greeting#${NULL:-he}}`, `llo`}, {`${greeting^}`, `error`}, {`${greeting:1:2}`, `error`}, {`${XXX#a}`, ``}, {`${XXX/a/b}`, ``},
	} {
		g, err := translate(t, "FROM base\n"+known+"ENV X="+tt[0]+"\n")
		got := "error"
		if err == nil {
			list := g.Image.Config.Config.Env
			got = strings.TrimPrefix(list[len(list)-1], "X=")
		}
		if got != tt[1] {
			t.Errorf("%s is %q (%v), want %q", tt[0], got, err, tt[1])
		}
	}
}

// What the program of the first RUN finds in its environment, and what of that the
// image keeps.
func TestArguments(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		args       string // "A=1 B=2"
		want       string // variables of the RUN beyond the base's
	}{
		{"several with quotes", "ARG a1=\"foo bar\" a2=se\nARG a3=\"$a2-foo\"\nFROM ba$a2\nARG a3 a4=\"123 456\" a1\nRUN x", "", "a3=se-foo a4=123 456 a1=foo bar"},
		{"the base by argument", "ARG tag=nosuch\nFROM $tag\nRUN x", "tag=base", ""},
		{"an empty default is a value", "FROM base\nARG FOO\nARG BAR=\nRUN x", "", "BAR="},
		{"given empty", "FROM base\nARG FOO=1\nRUN x", "FOO=", "FOO="},
		{"given empty, with a default by modifier", "FROM base\nARG A\nENV B=${A:-def} C=${B%%e*}\nRUN x", "A=", "A= B=def C="},
		{"default from another", "FROM base\nARG A=1\nARG B=${A}2\nRUN x", "", "A=1 B=12"},
		{"default from another that is given", "FROM base\nARG A=1\nARG B=${A}2\nRUN x", "A=3", "A=3 B=32"},
		{"default that needs what is missing is not read when given", "FROM base\nARG BAR=${FOO:?missing}\nRUN x", "BAR=1", "BAR=1"},
		{"argument after its use", "FROM base\nENV B=$A\nARG A=1\nRUN x", "", "B= A=1"},
		{"argument from the global scope by its own name only", "ARG A=1\nFROM base\nARG B=$A\nRUN x", "", "B="},
		{"a global argument given", "ARG A=1\nFROM base\nARG A\nRUN x", "A=2", "A=2"},
		{"a later stage does not see it", "FROM base AS a\nARG A=1\nFROM base\nRUN x", "A=2", ""},
		{"a stage on top sees it", "FROM base AS a\nARG A=1\nFROM a\nRUN x", "A=2", "A=2"},
		{"a stage on top declares it anew", "FROM base AS a\nARG A=1\nFROM a\nARG A=3\nRUN x", "", "A=3"},
		{"ENV over ARG", "FROM base\nARG A=1\nENV A=2\nRUN x", "A=3", "A=2"},
		{"ARG after ENV", "FROM base\nENV A=2\nARG A=1\nRUN x", "", "A=1"},
		{"ENV from ARG", "FROM base\nARG A=1\nENV A=v$A\nRUN x", "A=2", "A=v2"},
		{"ENV of the base over ARG", "FROM base\nARG FROM_BASE=arg\nRUN x", "FROM_BASE=given", "FROM_BASE=given"},
		{"the target's name", "FROM base\nRUN x\nARG TARGETSTAGE", "", ""},
		{"the target's name declared", "FROM base\nARG TARGETSTAGE\nRUN x", "", "TARGETSTAGE=default"},
		{"the target's name, named", "FROM base AS final\nARG TARGETSTAGE\nRUN x", "", "TARGETSTAGE=final"},
		{"platform", "FROM base\nARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT BUILDPLATFORM BUILDARCH\nRUN x", "", "TARGETPLATFORM=linux/amd64 TARGETOS=linux TARGETARCH=amd64 TARGETVARIANT= BUILDPLATFORM=linux/amd64 BUILDARCH=amd64"},
		{"platform with a default of its own", "FROM base\nARG TARGETARCH=none\nRUN x", "", "TARGETARCH=none"},
		{"platform given", "FROM base\nARG TARGETOS\nRUN x", "TARGETOS=freebsd", "TARGETOS=freebsd"},
		{"platform in a name", "FROM base AS build-linux\nENV A=1\nFROM build-${TARGETOS}\nRUN x", "", "A=1"},
		{"platform in the global scope", "ARG S=x-$TARGETARCH\nFROM base\nARG S\nRUN x", "", "S=x-amd64"},
		{"proxies", "FROM base\nRUN x", "http_proxy=h NO_PROXY=n", "HTTP_PROXY=h http_proxy=h NO_PROXY=n no_proxy=n"},
		{"proxies in two spellings", "FROM base\nRUN x", "HTTP_PROXY=H http_proxy=h", "HTTP_PROXY=H http_proxy=h"},
		{"proxies that the file sets", "FROM base\nENV http_proxy=mine\nRUN x", "http_proxy=h", "http_proxy=mine HTTP_PROXY=h"},
		{"a proxy that the file declares", "FROM base\nARG http_proxy\nRUN x", "http_proxy=h", "http_proxy=h HTTP_PROXY=h"},
		{"of a trigger", "FROM onbuild\nRUN x", "", ""},
		{"a per cent sign", "FROM base\nARG A=%s%d\nRUN x", "", "A=%s%d"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := map[string]string{}
			for _, kv := range strings.Fields(tt.args) {
				k, v := splitEnv(kv)
				args[k] = v
			}
			g, err := translate(t, tt.text, func(o *Options) { o.Args = args })
			if err != nil {
				t.Fatal(err)
			}
			e := execs(g)[0]
			got := slices.DeleteFunc(append(slices.Clone(e.Env), e.Proxy...), func(kv string) bool {
				return kv == "PATH=/bin" || kv == "FROM_BASE=yes"
			})
			if text := strings.Join(got, " "); text != tt.want {
				t.Errorf("RUN sees %q, want %q", text, tt.want)
			}
			for _, kv := range g.Image.Config.Config.Env {
				if k, _ := splitEnv(kv); k != "PATH" && k != "FROM_BASE" && k != "T" && !strings.Contains(tt.text, "ENV ") {
					t.Errorf("the image has %s", kv)
				}
			}
		})
	}
}

// The names of steps show what variables became, and keep what only a shell
// understands.
func TestStepNames(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"FROM base AS b\nWORKDIR /out\nRUN echo \"x\" > y\nFROM scratch\nCOPY --from=b --chmod=0644 /out /out", "[b 1/3] FROM base\n[b 2/3] WORKDIR /out\n[b 3/3] RUN echo \"x\" > y\n[stage-1 1/1] COPY --from=b --chmod=0644 /out /out"},
		{"FROM scratch\nENV FOO=bar\nRUN echo C:\\hello\\world\\path\nRUN echo \"C:\\q\\p\"\nRUN echo \\$FOO $FOO \"a\\\"b\"\nRUN [\"echo\", \"C:\\\\x\"]", "[1/4] RUN echo C:\\hello\\world\\path\n[2/4] RUN echo \"C:\\q\\p\"\n[3/4] RUN echo \\$FOO bar \"a\\\"b\"\n[4/4] RUN [\"echo\", \"C:\\\\x\"]"},
		{"# escape=`\nFROM scratch\nENV FOO=bar\nRUN echo C:\\hello `$FOO $FOO", "[1/1] RUN echo C:\\hello `$FOO bar"},
		{"from scratch\nrun --network=none a\n", "[1/1] RUN --network=none a"},
		{"FROM scratch\nENV S=foo\nRUN --mount=type=secret,id=m,env=S [ \"$S\" = x ]", "[1/1] RUN --mount=type=secret,id=m,env=S [ \"****\" = x ]"},
		{"FROM scratch\nRUN <<EOF\n\n  first\nsecond\nEOF", "[1/1] RUN <<EOF (first...)"},
		{"FROM onbuild AS x\nRUN a", "[x 1/3] FROM onbuild\n[x 2/3] ONBUILD RUN echo triggered\n[x 3/3] RUN a"},
	} {
		if got := texts(must(t, tt.text)); got != tt.want {
			t.Errorf("%q gives\n%s\nwant\n%s", tt.text, got, tt.want)
		}
	}
}
