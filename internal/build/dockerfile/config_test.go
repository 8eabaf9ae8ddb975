package dockerfile

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/moby/docker-image-spec/specs-go/v1"
)

// settings describes a configuration in one line: what the images of these
// tests have by themselves is left out.
func settings(i v1.DockerOCIImage) string {
	var out []string
	say := func(name string, v any) {
		text, _ := json.Marshal(v)
		if s := string(text); s != "null" && s != `""` && s != "[]" && s != "{}" {
			out = append(out, name+" "+strings.Trim(s, `"`))
		}
	}
	c := i.Config
	say("author", i.Author)
	for _, kv := range c.Env {
		if kv != "PATH="+defaultPath && kv != "PATH=/bin" {
			out = append(out, kv)
		}
	}
	say("labels", c.Labels)
	say("ports", slices.Sorted(maps.Keys(c.ExposedPorts)))
	say("volumes", slices.Sorted(maps.Keys(c.Volumes)))
	say("user", c.User)
	if c.WorkingDir != "/" {
		say("dir", c.WorkingDir)
	}
	say("shell", c.Shell)
	say("entrypoint", c.Entrypoint)
	say("cmd", c.Cmd)
	say("stop", c.StopSignal)
	if h := c.Healthcheck; h != nil {
		out = append(out, fmt.Sprintf("health %q %v %v %v %v %d", h.Test, h.Interval, h.Timeout, h.StartPeriod, h.StartInterval, h.Retries))
	}
	say("onbuild", c.OnBuild)
	return strings.Join(out, "; ")
}

// What instructions make of an image's configuration, as docker's builders have
// it. FROM scratch is in front of a text that has none.
func TestConfigurations(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"cmd", `CMD ["a", "b c"]`, `cmd ["a","b c"]`},
		{"cmd in the shell", `CMD a  b`, `cmd ["/bin/sh","-c","a  b"]`},
		{"cmd, loosely written", `CMD [  "a" ,"b"  ]  `, `cmd ["a","b"]`},
		{"cmd of nothing", `CMD []`, ``},
		{"cmd, not JSON: single quotes", `CMD ['a', 'b']`, `cmd ["/bin/sh","-c","['a', 'b']"]`},
		{"cmd, not JSON: open", `CMD [ "a", "b"`, `cmd ["/bin/sh","-c","[ \"a\", \"b\""]`},
		{"cmd, not JSON: open string", `CMD ["a]`, `cmd ["/bin/sh","-c","[\"a]"]`},
		{"cmd, not JSON: words after it", `CMD ["a"]b`, `cmd ["/bin/sh","-c","[\"a\"]b"]`},
		{"cmd, escapes in JSON", `CMD ["\u0061\n\"\\"]`, `cmd ["a\n\"\\"]`},
		{"cmd keeps variables", "ENV A=1\nCMD echo $A", `A=1; cmd ["/bin/sh","-c","echo $A"]`},
		{"the last cmd counts", "CMD a\nCMD [\"b\"]", `cmd ["b"]`},
		{"entrypoint", `ENTRYPOINT ["a"]`, `entrypoint ["a"]`},
		{"entrypoint in the shell", `ENTRYPOINT []random string`, `entrypoint ["/bin/sh","-c","[]random string"]`},
		{"entrypoint resets the base's cmd", "FROM base\nENTRYPOINT [\"e\"]", `FROM_BASE=yes; entrypoint ["e"]`},
		{"entrypoint keeps this stage's cmd", "FROM base\nCMD [\"c\"]\nENTRYPOINT [\"e\"]", `FROM_BASE=yes; entrypoint ["e"]; cmd ["c"]`},
		{"entrypoint resets an earlier stage's cmd", "FROM scratch AS a\nCMD [\"c\"]\nFROM a\nENTRYPOINT [\"e\"]", `entrypoint ["e"]`},
		{"cmd keeps the base's entrypoint", "FROM scratch AS a\nENTRYPOINT [\"e\"]\nFROM a\nCMD [\"c\"]", `entrypoint ["e"]; cmd ["c"]`},
		{"both are inherited", "FROM scratch AS a\nENTRYPOINT [\"e\"]\nCMD [\"c\"]\nFROM a", `entrypoint ["e"]; cmd ["c"]`},
		{"entrypoint taken back", "FROM scratch AS a\nENTRYPOINT [\"e\"]\nFROM a\nENTRYPOINT []", ``},
		{"shell", "SHELL [\"ls\"]\nENTRYPOINT my entrypoint", `shell ["ls"]; entrypoint ["ls","my entrypoint"]`},
		{"shell before and after", "CMD a\nSHELL [\"x\", \"-c\"]", `shell ["x","-c"]; cmd ["/bin/sh","-c","a"]`},
		{"shell is inherited", "FROM scratch AS a\nSHELL [\"x\"]\nFROM a\nCMD b", `shell ["x"]; cmd ["x","b"]`},

		{"env", `ENV A=b C=d`, `A=b; C=d`},
		{"env, old form", `ENV A b c`, `A=b c`},
		{"env, old form with quotes", `ENV A "b  c" d`, `A=b  c d`},
		{"env, old form keeps an equals sign", `ENV A b=c`, `A=b=c`},
		{"env, quotes", `ENV A="b  c" D='e f' G=h\ i J="k\"l"`, `A=b  c; D=e f; G=h i; J=k"l`},
		{"env, empty", `ENV A= B=""`, `A=; B=`},
		{"env, per cent", `ENV A foo%sbar`, `A=foo%sbar`},
		{"env, unknown variable", `ENV A=x${NONE}y`, `A=xy`},
		{"env, escaped variable", "ENV A=1\nENV B=\\$A C=\"\\${A}\" D='$A'", `A=1; B=$A; C=${A}; D=$A`},
		{"env sees what was before the instruction", "ENV A=hello\nENV A=bye B=$A\nENV C=$A", `A=bye; B=hello; C=bye`},
		{"env over several lines", "ENV A=1 \\\n    # comment\n\n    B=2 \\\n    C=3", `A=1; B=2; C=3`},
		{"env with tabs", "ENV\tA=1\t B=2", `A=1; B=2`},
		{"env over the base's", "FROM base\nENV FROM_BASE=no PATH=$PATH:/x", `PATH=/bin:/x; FROM_BASE=no; cmd ["sh"]`},
		{"env at the end of the file with a backslash", "ENV A=1 \\", `A=1`},
		{"env, a letter continued", "ENV A=b\\\nc", `A=bc`},

		{"label", `LABEL a=b c=d`, `labels {"a":"b","c":"d"}`},
		{"label, old form", `LABEL a b c`, `labels {"a":"b c"}`},
		{"label, quoted", `LABEL "a b"="c d" 'e'='f "g"' h=i\ j`, `labels {"a b":"c d","e":"f \"g\"","h":"i j"}`},
		{"label over lines", "LABEL a=\"x\\\ny\" \\\n  b=z", `labels {"a":"xy","b":"z"}`},
		{"label with variables", "ENV A=1\nLABEL x=$A y='$A' z=\"$A\" $A=k", `A=1; labels {"1":"k","x":"1","y":"$A","z":"1"}`},
		{"label, the last counts", "LABEL a=1\nLABEL a=2", `labels {"a":"2"}`},
		{"label, empty value", "LABEL a= b=\"\"", `labels {"a":"","b":""}`},
		{"labels are inherited, not those of a source", "FROM scratch AS b\nLABEL m=base\nFROM b AS sibling\nLABEL m=sibling\nFROM b\nCOPY --from=sibling / /", `labels {"m":"base"}`},

		{"expose", `EXPOSE 80 53/udp 99/SCTP`, `ports ["53/udp","80/tcp","99/sctp"]`},
		{"expose ranges", "EXPOSE 8000-8002 9-9/udp", `ports ["8000/tcp","8001/tcp","8002/tcp","9/udp"]`},
		{"expose variables", "ARG P=\"3000 4000/udp\"\nEXPOSE $P\nEXPOSE 5000", `ports ["3000/tcp","4000/udp","5000/tcp"]`},
		{"expose host ports", "EXPOSE 0.0.0.0:1234-1235:3333-3334/tcp 1:2 [::1]:80:81 2001:4860:0:2001::68::333 ::::82", `ports ["2/tcp","333/tcp","3333/tcp","3334/tcp","81/tcp","82/tcp"]`},
		{"expose is inherited", "FROM scratch AS a\nEXPOSE 1\nFROM a\nEXPOSE 2", `ports ["1/tcp","2/tcp"]`},
		{"volume", `VOLUME /a /b`, `volumes ["/a","/b"]`},
		{"volume as JSON", `VOLUME ["/a", "/b c"]`, `volumes ["/a","/b c"]`},
		{"volume of a variable", "ENV D=/data\nVOLUME $D/x", `D=/data; volumes ["/data/x"]`},
		{"user", "ARG U=me\nUSER $U:grp", `user me:grp`},
		{"user by number, inherited", "FROM scratch AS a\nUSER 7:8\nFROM a", `user 7:8`},
		{"working directories", "WORKDIR /a//b/./c/\nWORKDIR d\nWORKDIR ..", `dir /a/b/c`},
		{"working directory of a variable", "ENV D=/x\nWORKDIR $D/y${NONE}", `D=/x; dir /x/y`},
		{"working directory with spaces", "WORKDIR /a b/c", `dir /a b/c`},
		{"working directory above the root", "WORKDIR /a\nWORKDIR ../../../b", `dir /b`},
		{"stop signals", "STOPSIGNAL SIGUSR1\nSTOPSIGNAL 9", `stop 9`},
		{"stop signal of a variable", "ARG S=SIGRTMIN+3\nSTOPSIGNAL $S", `stop SIGRTMIN+3`},
		{"maintainer", `MAINTAINER You <you@example.org>`, `author You \u003cyou@example.org\u003e`},

		{"health check", "HEALTHCHECK CMD curl -f http://x", `health ["CMD-SHELL" "curl -f http://x"] 0s 0s 0s 0s 0`},
		{"health check as JSON", `HEALTHCHECK CMD ["a","b"]`, `health ["CMD" "a" "b"] 0s 0s 0s 0s 0`},
		{"health check, all flags", "HEALTHCHECK --interval=1s --timeout=2m --start-period=3s --start-interval=100ms --retries=5 CMD x", `health ["CMD-SHELL" "x"] 1s 2m0s 3s 100ms 5`},
		{"no health check", "HEALTHCHECK NONE", `health ["NONE"] 0s 0s 0s 0s 0`},
		{"health check taken back", "FROM scratch AS a\nHEALTHCHECK CMD x\nFROM a\nHEALTHCHECK none", `health ["NONE"] 0s 0s 0s 0s 0`},
		{"health check over lines", "HEALTHCHECK --interval=5s \\\n  --retries=2 \\\n  CMD x", `health ["CMD-SHELL" "x"] 5s 0s 0s 0s 2`},

		{"on build", "ONBUILD RUN a\nONBUILD  COPY  . /x", `onbuild ["RUN a","COPY  . /x"]`},
		{"on build, JSON", `ONBUILD CMD ["a", "b"]`, `onbuild ["CMD [\"a\", \"b\"]"]`},
		{"on build, text", "ONBUILD RUN <<EOF\na\nEOF", `onbuild ["RUN \u003c\u003cEOF\na\nEOF"]`},
		{"on build is gone after one stage", "FROM onbuild\nENV X=1", `FROM_BASE=yes; T=1; X=1; cmd ["sh"]`},
		{"on build of a stage", "FROM scratch AS a\nONBUILD ENV A=1\nONBUILD USER u\nFROM a", `A=1; user u`},
		{"on build of a stage, once", "FROM scratch AS a\nONBUILD ENV A=1$A\nFROM a AS b\nFROM b", `A=1`},

		{"windows line ends", "# c\r\nENV A=1 \\\r\n  B=2\r\nLABEL x=y\r\n", `A=1; B=2; labels {"x":"y"}`},
		{"a byte order mark", "\ufeffFROM scratch\nENV A=1", `A=1`},
		{"lower case", "from base as x\nenv A=1\ncmd [\"c\"]", `FROM_BASE=yes; A=1; cmd ["c"]`},
		{"indented", "  FROM scratch\n\t ENV A=1\n  # comment\n", `A=1`},
		{"another escape", "# escape=`\nFROM scratch\nENV A=1 `\n  B=c:\\x", `A=1; B=c:\x`},
		{"another escape, close", "#escape=`\nFROM scratch\nENV A=1`\n2", `A=12`},
		{"an escape after syntax", "# syntax=docker/dockerfile:1\n# escape=`\nFROM scratch\nENV A=1`\n2", `A=12`},
		{"an escape that is a comment", "# comment\n# escape=`\nFROM scratch\nENV A=1\\\n2", `A=12`},
		{"comments inside of an instruction", "ENV A=1 \\\n# a\n  # b\n B=2", `A=1; B=2`},
		{"a number sign in a value", "ENV A=1#2 B=#3", `A=1#2; B=#3`},
		{"stage by number in variables", "ARG N=0\nFROM scratch AS s0\nENV A=1\nFROM s${N}", `A=1`},
		{"a stage named like an image", "FROM scratch AS base\nENV A=1\nFROM base", `A=1`},
		{"a stage in another case", "FROM scratch AS StAge\nENV A=1\nFROM sTaGE", `A=1`},
		{"the later stage of a name", "FROM scratch AS a\nENV A=1\nFROM scratch AS a\nENV A=2\nFROM a", `A=2`},
		{"a stage that begins with an image of its own name", "FROM base AS base\nENV A=1\nFROM base", `FROM_BASE=yes; A=1; cmd ["sh"]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := tt.text
			if !strings.Contains(strings.ToLower(text), "from ") {
				text = "FROM scratch\n" + text
			}
			g, err := translate(t, text)
			if err != nil {
				t.Fatal(err)
			}
			if got := settings(g.Image.Config); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// The last line of a history, as docker's builder writes it.
func TestHistoryTexts(t *testing.T) {
	for _, tt := range [][2]string{
		{"ARG foo=bar\nARG bar=123\nARG foo=bar2\nRUN ls /etc/", "RUN |2 foo=bar2 bar=123 /bin/sh -c ls /etc/ # buildkit"},
		{"ARG A B=1\nRUN x", "RUN |2 A= B=1 /bin/sh -c x # buildkit"},
		{"ARG A=1 B", "ARG A=1 B"},
		{"RUN [\"ls\", \"-l\"]", "RUN ls -l # buildkit"},
		{"RUN <<EOF\na\nb\nEOF", "RUN /bin/sh -c a\nb\n # buildkit"},
		{"SHELL [\"/bin/bash\", \"-c\"]\nRUN a", "RUN /bin/bash -c a # buildkit"},
		{"COPY --from=other --link --chown=1:2 --chmod=755 a b /c/", "COPY --chown=1:2 --chmod=755 a b /c/ # buildkit"},
		{"COPY --parents --exclude=x a /c/", "COPY --parents a /c/ # buildkit"},
		{"COPY <<EOF /f\nx\nEOF", "COPY <<EOF /f # buildkit"},
		{"ADD https://e.com/x /c", "ADD https://e.com/x /c # buildkit"},
		{"EXPOSE 2375 5000 1234/udp", "EXPOSE [1234/udp 2375/tcp 5000/tcp]"},
		{"EXPOSE 80/tcp 80/udp 9", "EXPOSE [80/tcp 80/udp 9/tcp]"},
		{"WORKDIR /", "WORKDIR /"},
		{"WORKDIR a", "WORKDIR /a"},
		{"LABEL a=b \"c d\"=e", "LABEL a=b c d=e"},
		{"ENV a=b", "ENV a=b"},
		{"VOLUME /a /b", "VOLUME [/a /b]"},
		{"USER a:b", "USER a:b"},
		{"HEALTHCHECK --interval=1s --timeout=10s --start-period=3s --start-interval=100ms --retries=5 CMD [\"bin\", \"-c\", \"exit 0\"]", "HEALTHCHECK {Test:[CMD bin -c exit 0] Interval:1s Timeout:10s StartPeriod:3s StartInterval:100ms Retries:5}"},
		{"CMD [\"a b\", \"c\"]", `CMD ["a b" "c"]`},
		{"ENTRYPOINT a", `ENTRYPOINT ["/bin/sh" "-c" "a"]`},
		{"STOPSIGNAL 9", "STOPSIGNAL 9"},
	} {
		g, err := translate(t, "FROM scratch\n"+tt[0]+"\n")
		if err != nil {
			t.Fatal(err)
		}
		if got := g.Image.History[len(g.Image.History)-1].CreatedBy; got != tt[1] {
			t.Errorf("%q is\n%s\nwant\n%s", tt[0], got, tt[1])
		}
	}
}
