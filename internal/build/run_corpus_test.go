package build

import (
	"strings"
	"testing"
)

// What programs of RUN find, as BuildKit's tests have it. Each text leaves what it
// saw in /o.
func TestRunCorpus(t *testing.T) {
	h := newHouse(t)
	dir := h.context(map[string]string{"f": "context", "sub/g": "G", "a.txt": "foo\n", "b.txt": "bar\n", "in -> sub": "", "a[b]c": "bracket", "abc": "none"})
	with := func(r *Request) {
		r.ContextDir = dir
		r.Secrets = secrets{"mysecret": "pw", "other": "o"}
	}
	for _, tt := range []struct{ name, text, want string }{
		{"shell", "RUN echo $0 $# > /o", "/bin/sh 0\n"},
		{"JSON has no shell", "ENV A=1\nRUN [\"/bin/sh\", \"-c\", \"echo $1$A > /o\", \"x\", \"$A\"]", "$A1\n"},
		{"the entrypoint does not count", "ENTRYPOINT [\"/nosuch\"]\nRUN [\"touch\", \"/o\"]", ""},
		{"another shell", "SHELL [\"/bin/sh\", \"-ec\"]\nRUN echo $- > /o; false || echo b >> /o", "ce\nb\n"},
		{"a shell that is none", "SHELL [\"/bin/touch\"]\nRUN /o", ""},
		{"continued words", "RUN ec\\\nho a\\\nb > /o", "ab\n"},
		{"comments and blank lines within", "RUN echo a \\\n# c\n  # d\n\n  b > /o", "a b\n"},
		{"windows line ends", "RUN echo a \\\r\n b > /o\r\n", "a b\n"},
		{"quotes of the shell", "ENV A=x\nRUN echo '$A' \"$A\" \\$A \"a  b\" > /o", "$A x $A a  b\n"},
		{"variables of the image and arguments", "ARG B=arg\nENV A=env\nRUN echo $A $B > /o", "env arg\n"},
		{"no variable is left over", "RUN env | grep -v -e ^PATH= -e ^HOME= -e ^HOSTNAME= -e ^PWD= -e ^SHLVL= > /o; true", ""},
		{"working directory", "WORKDIR /a/b\nRUN pwd > /o\nRUN cd /\nRUN pwd >> /o", "/a/b\n/a/b\n"},
		{"working directory of a link", "RUN mkdir /real && ln -s real /ln\nWORKDIR /ln/x\nRUN readlink -f . > /o", "/real/x\n"},
		{"host name", "RUN cat /etc/hostname 2>/dev/null; echo -n > /o", ""},

		{"a working directory that is there", "RUN mkdir -m 700 /d && chown 7:8 /d\nUSER 500\nWORKDIR /d\nUSER 0\nRUN stat -c '%u:%g %a' /d > /o", "7:8 700\n"},

		{"script", "RUN <<EOF\necho \"i am\" >> /o\nid -u >> /o\nEOF", "i am\n0\n"},
		{"script with a program of its own", "WORKDIR /w\nRUN <<EOF\n#!/bin/ln -s\nEOF\nRUN readlink EOF > /o", "/dev/pipes/EOF\n"},
		{"script with tabs and a program", "RUN <<-EOF\n\t#!/bin/sh\n\techo \"\n\tx\" > /o\nEOF", "\nx\n"},
		{"script keeps tabs", "RUN <<EOF\n#!/bin/sh\necho \"\n\tx\" > /o\nEOF", "\n\tx\n"},
		{"script for a program", "RUN <<EOF sh > /o\necho \"\n\tx\"\nEOF", "\n\tx\n"},
		{"script for a program, without tabs", "RUN <<-EOF sh > /o\n\techo \"\n\tx\"\n\tEOF", "\nx\n"},
		{"several documents", "RUN cat <<ONE > /o; cat <<TWO >> /o\none\nONE\ntwo\nTWO", "one\ntwo\n"},
		{"documents on other descriptors", "RUN <<EOF 3<<IN1 4<<IN2 sh\ncat /proc/self/fd/3 /proc/self/fd/4 > /o\nEOF\nhello\nIN1\nworld\nIN2", "hello\nworld\n"},
		{"a document's variables are the shell's", "ARG name=world\nRUN <<EOF\nhi=Hello\necho \"$hi ${name}!\" > /o\nname=you\necho $name >> /o\nEOF", "Hello world!\nyou\n"},
		{"a quoted document", "ARG n=1\nRUN cat <<'E' > /o\n$n\nE", "$n\n"},
		{"a document that has the word in it", "RUN <<EOF\necho EOFX > /o\necho ' EOF' >> /o\nEOF", "EOFX\n EOF\n"},
		{"not a document", "RUN echo '<<EOF' > /o", "<<EOF\n"},
		{"a script sees its own name", "RUN <<script\n#!/bin/sh\necho ${0##*/} > /o\nscript", "script\n"},
		{"nothing is left of a script", "RUN <<E\n#!/bin/sh\ntrue\nE\nRUN ls /dev/pipes > /o 2>&1; true", "ls: /dev/pipes: No such file or directory\n"},

		{"context", "RUN --mount=target=/c [ \"$(cat /c/f)\" = context ] && echo y > /o", "y\n"},
		{"context below the working directory", "WORKDIR /w\nRUN --mount=target=c cat c/f > /o", "context"},
		{"context through a link", "RUN --mount=source=in/g,target=/c cat /c > /o", "G"},
		{"context with letters that are wildcards elsewhere", "RUN --mount=source=a[b]c,target=/c --mount=source=sub,target=/s cat /c /s/g > /o", "bracketG"},
		{"context cannot be written", "RUN --mount=target=/c touch /c/x 2>/o; [ -s /o ] && echo no > /o", "no\n"},
		{"context that is said to be writable", "RUN --mount=target=/c,readonly=false echo x > /c/x && cat /c/x > /o\nRUN --mount=target=/c ls /c/x >/dev/null 2>&1 || echo gone >> /o", "x\ngone\n"},
		{"mounts over mounts", "RUN --mount=source=.,target=/t --mount=source=b.txt,target=/t/sub/g cat /t/a.txt /t/sub/g > /o", "foo\nbar\n"},
		{"mount points are taken away", "RUN --mount=type=tmpfs,target=/x/y touch /x/y/z\nRUN ls /x > /o 2>&1; true", "ls: /x: No such file or directory\n"},
		{"mount points that were there stay", "RUN mkdir -p /x/y && touch /x/y/old\nRUN --mount=type=tmpfs,target=/x/y ls /x/y > /o\nRUN ls /x/y >> /o", "old\n"},
		{"tmpfs of a size", "RUN --mount=type=tmpfs,target=/dev/shm,size=128m mount | grep -c 'on /dev/shm .*size=131072k' > /o", "1\n"},
		{"tmpfs for anybody", "RUN --mount=type=tmpfs,target=/t stat -c %a /t > /o", "1777\n"},

		{"cache by target", "RUN --mount=type=cache,target=/c1 touch /c1/x\nRUN --mount=type=cache,target=/c2 [ ! -f /c2/x ]\nRUN --mount=type=cache,target=/c1/ ls /c1 > /o", "x\n"},
		{"cache by name", "ENV I=n1 T=cache\nRUN --mount=type=cache,id=n1,target=/a touch /a/x\nRUN --mount=type=$T,id=$I,target=/b ls /b > /o", "x\n"},
		{"cache by a global argument", "ARG P=/tmp/m\nRUN --mount=type=cache,id=n2,target=/tmp/m touch /tmp/m/x\nRUN --mount=type=cache,id=n2,target=$P ls /tmp/m > /o", "x\n"},
		{"cache with an owner", "RUN --mount=type=cache,target=/own,uid=1001,gid=1002,mode=0751 stat -c '%u %g %f' /own > /o", "1001 1002 41e9\n"},
		{"cache in a cache", "RUN --mount=type=cache,target=/k/b --mount=type=cache,target=/k/b/c touch /k/b/1 /k/b/c/2 && ls /k/b > /o", "1\nc\n"},
		{"cache read only", "RUN --mount=type=cache,target=/ro1,readonly touch /ro1/x 2>/o; [ -s /o ] && echo no > /o", "no\n"},
		{"cache of one's own", "RUN --mount=type=cache,target=/pr,sharing=private touch /pr/x\nRUN --mount=type=cache,target=/pr,sharing=private ls /pr > /o", "x\n"},
		{"cache, one after the other", "RUN --mount=type=cache,target=/lk,sharing=locked echo 1 >> /lk/x\nRUN --mount=type=cache,target=/lk,sharing=locked cat /lk/x > /o", "1\n"},

		{"secret", "RUN --mount=type=secret,id=mysecret cat /run/secrets/mysecret > /o\nRUN ls /run/secrets >> /o 2>&1; true", "pwls: /run/secrets: No such file or directory\n"},
		{"secret with an owner", "RUN --mount=type=secret,required=false,mode=741,uid=100,gid=102,target=/mysecret stat -c '%u %g %f' /mysecret > /o\nRUN [ ! -e /mysecret ]", "100 102 81e1\n"},
		{"secret as a variable", "ENV S=foo\nRUN --mount=type=secret,id=mysecret,env=S echo $S > /o; ls /run/secrets >> /o 2>&1; true", "pw\nls: /run/secrets: No such file or directory\n"},
		{"secret as a variable of its own name", "RUN --mount=type=secret,id=other,env= echo $other > /o", "o\n"},
		{"secret as both", "RUN --mount=type=secret,id=mysecret,target=/s/x,env=S echo $S > /o; cat /s/x >> /o", "pw\npw"},
		{"secret by source", "RUN --mount=type=secret,source=mysecret,dst=/x cat /x > /o", "pw"},
		{"secret that was not given", "RUN --mount=type=secret,id=none ls /run/secrets/none > /o 2>&1; true", "ls: /run/secrets/none: No such file or directory\n"},
		{"agent that was not given", "RUN --mount=type=ssh echo x$SSH_AUTH_SOCK > /o", "x\n"},

		{"no network", "RUN --network=none ls /sys/class/net > /o", "lo\n"},
		{"network by a variable is not", "RUN --network=default true > /o", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			o := h.build("FROM busybox\n"+tt.text+"\n", nil, with)
			if got := h.tree(o, "")["o"]; got[strings.IndexByte(got+"   ", ' ')+1:] != "0:0 "+tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	h.t = t
	for text, says := range map[string]string{
		"RUN nosuch":        "/bin/sh -c nosuch",
		"RUN [\"/nosuch\"]": "/nosuch",
		"RUN [\"echo\", \"hello\"]this is invalid":      "this is invalid",
		"RUN --mount=type=secret,required,id=none true": "none",
		"RUN --mount=type=ssh,required true":            "default",
		"RUN --mount=source=nosuch,target=/x true":      "nosuch",
		"RUN --mount=from=nosuch,target=/x true":        "nosuch",
		"RUN --network=host true":                       "not allowed",
		"RUN --security=insecure true":                  "not allowed",
		"USER nobody-here\nRUN true":                    "nobody-here",
	} {
		if o := h.try(Request{Text: []byte("FROM busybox\n" + text + "\n"), ContextDir: dir}); o.err == nil || !strings.Contains(o.err.Error(), says) {
			t.Errorf("%s: %v, want %s", text, o.err, says)
		}
	}
	h.clean()
}

func tagged(name string) func(*Request) { return func(r *Request) { r.Tags = []string{name} } }

// Stages and triggers, as BuildKit's tests have it.
func TestStageCorpus(t *testing.T) {
	h := newHouse(t)
	h.build("FROM busybox\nONBUILD RUN mkdir -p /out && echo -n 11 >> /out/foo\n", nil, tagged("trigger"))
	h.build("FROM busybox\nONBUILD COPY --from=busybox /etc/group /out/group2\n", nil, tagged("deps"))
	h.build("FROM busybox\nONBUILD RUN --mount=type=bind,target=/in,from=inputstage mkdir /out && cat /in/foo > /out/bar && cat /in/out/group2 > /out/bar2\n", nil, tagged("nested"))
	h.build("FROM busybox\nONBUILD RUN --mount=type=cache,target=/cache echo -n 42 >> /cache/foo && echo -n 11 >> /bar\n", nil, tagged("cached"))
	h.build("FROM busybox\nONBUILD RUN <<EOF\necho text >> /dest\nEOF\nONBUILD COPY <<EOF /doc\ndoc\nEOF\nONBUILD WORKDIR /trig\nONBUILD ENV A=b\n", nil, tagged("texts"))
	h.build("FROM trigger\n", nil, tagged("child"))
	const group = "644 0:0 root:x:0:\nwww:x:600:\n"
	files := map[string]string{"foo": "foo-contents"}
	for _, tt := range []struct {
		name, text, target string
		want               map[string]string
	}{
		{"triggers once", "FROM trigger AS base\nRUN [ -f /out/foo ] && touch /step1\nRUN rm /out/foo\nFROM base AS child\nRUN [ ! -f /out/foo ] && touch /step3\nFROM scratch\nCOPY --from=child /step* /", "", map[string]string{"step1": "644 0:0 ", "step3": "644 0:0 "}},
		{"triggers are gone in the child", "FROM child AS b\nFROM scratch\nCOPY --from=b /out /", "", map[string]string{"foo": "644 0:0 11"}},
		{"triggers of a stage", "FROM busybox AS base\nONBUILD RUN mkdir -p /out && echo -n 11 >> /out/foo\nFROM base AS mid\nRUN cp /out/foo /out/bar\nFROM scratch\nCOPY --from=mid /out/bar /", "", map[string]string{"bar": "644 0:0 11"}},
		{"triggers of a stage that copy", "FROM busybox AS src\nRUN mkdir -p /in && echo -n 12 > /in/file\nFROM busybox AS base\nONBUILD COPY --from=src /in/file /out/foo\nFROM base AS mid\nRUN cp /out/foo /out/bar\nFROM scratch\nCOPY --from=mid /out/bar /", "", map[string]string{"bar": "644 0:0 12"}},
		{"triggers that need more images", "FROM deps AS base\nRUN cat /out/group2 > /out/group3\nFROM scratch\nCOPY --from=base /out /", "", map[string]string{"group3": group}},
		{"triggers that need a stage with triggers", "FROM deps AS inputstage\nRUN echo -n foo > /foo\nFROM nested AS base\nRUN echo -n bar3 > /out/bar3\nFROM scratch\nCOPY --from=base /out /", "", map[string]string{"bar": "644 0:0 foo", "bar2": group, "bar3": "644 0:0 bar3"}},
		{"triggers with a cache", "FROM cached\nRUN --mount=type=cache,target=/cache [ \"$(cat /cache/foo)\" = 42 ]", "", map[string]string{"bar": "644 0:0 11"}},
		{"triggers with texts", "FROM texts\nRUN pwd > p && echo $A >> p", "", map[string]string{"dest": "644 0:0 text\n", "doc": "644 0:0 doc\n", "trig/p": "644 0:0 /trig\nb\n"}},
		{"triggers and the context", "FROM busybox AS a\nONBUILD ADD foo /from-context\nFROM a", "", map[string]string{"from-context": "644 0:0 foo-contents"}},

		{"an image by name", "FROM scratch\nCOPY --from=busybox /etc/passwd test", "", map[string]string{"test": "644 0:0 root:x:0:0:root:/root:/bin/sh\nweb:x:500:501::/:/bin/sh\n"}},
		{"a stage hides an image of its name", "FROM busybox AS trigger\nRUN mkdir -p /usr/bin && echo -n foo > /usr/bin/go\nFROM scratch\nCOPY --from=trigger /usr/bin/go go", "", map[string]string{"go": "644 0:0 foo"}},
		{"names in any case", "FROM scratch AS STAge0\nCOPY foo bar\nFROM scratch AS staGE1\nCOPY --from=staGE0 bar baz\nFROM scratch\nCOPY --from=stage1 baz bax", "Stage1", map[string]string{"baz": "644 0:0 foo-contents", "bax": ""}},
		{"by number", "FROM scratch\nCOPY foo a\nFROM scratch\nCOPY --from=0 a b\nFROM scratch\nCOPY --from=1 b c", "", map[string]string{"c": "644 0:0 foo-contents"}},
		{"a target by number", "FROM scratch\nCOPY foo a\nFROM scratch\nCOPY foo b", "0", map[string]string{"a": "644 0:0 foo-contents", "b": ""}},
		{"a target in the middle", "FROM scratch AS a\nCOPY foo a\nFROM a AS b\nCOPY foo b\nFROM nosuch AS c\nRUN never", "b", map[string]string{"a": "644 0:0 foo-contents", "b": "644 0:0 foo-contents"}},
		{"a mount from a stage", "FROM busybox AS build\nRUN mkdir out && echo foo > out/foo\nFROM busybox\nRUN --mount=from=build,src=out,target=/out,rw touch /out/bar && cat /out/foo > /x", "", map[string]string{"x": "644 0:0 foo\n", "out": ""}},
		{"a file that becomes a directory", "FROM busybox AS a\nRUN echo x > /p\nRUN rm /p && mkdir /p && echo y > /p/q\nFROM scratch\nCOPY --from=a /p /n/", "", map[string]string{"n/q": "644 0:0 y\n"}},
		{"a stage that begins with another and copies from it", "FROM busybox AS a\nRUN echo x > /x\nFROM a\nRUN rm /x\nCOPY --from=a /x /y", "", map[string]string{"x": "", "y": "644 0:0 x\n"}},
		{"of nothing at all", "FROM scratch", "", map[string]string{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			h.want(h.build(tt.text+"\n", files, func(r *Request) { r.Target = tt.target }), tt.want)
		})
	}
	h.t = t
	if o := h.try(Request{Text: []byte("FROM scratch AS build\nFROM scratch\n"), Target: "bulid"}); o.err == nil || !strings.Contains(o.err.Error(), `target stage "bulid" could not be found (did you mean build?)`) {
		t.Errorf("a mistyped target: %v", o.err)
	}
	h.clean()
}
