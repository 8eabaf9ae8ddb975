package build

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What COPY makes of a context and of other stages, as BuildKit's tests have it.
func TestCopyCorpus(t *testing.T) {
	h := newHouse(t)
	dir := h.context(map[string]string{
		"foo": "foo", "foo.go": "foogo", "bar.go": "bargo", "sub/dir1/dir2/deep": "deep", "files/foo.go": "other", "testfile": "contents0",
		"link -> foo": "", "sublink -> sub/dir1": "", "in/up -> ../foo": "", "chain -> link": "", "in/sub -> ../sub": "", "loop -> loop": "",
		"all/lfile": "lf", "all/l0 -> subfile": "", "all/subfile": "sf", "all/l1 -> second": "", "all/second -> baz": "", "all/baz": "bz", "all/ldangling -> none": "",
		"test-äöü.txt": "u", "test-%C3%A4.txt": "p", "test+aou.txt": "+", "a[b]c": "br", "sp ace/f g": "sp", "star*": "st", "stars": "sts", "back\\slash": "bs",
		"foo1/foo2/bar": "b1", "foo1/foo2/baz": "b2", "foo1/other": "o", "foo1/keep/.hidden": "h",
	})
	os.Chmod(filepath.Join(dir, "sub"), 0o700)
	os.Chmod(filepath.Join(dir, "sub/dir1"), 0o711)
	os.Chmod(filepath.Join(dir, "testfile"), 0o600)
	os.Mkdir(filepath.Join(dir, "empty"), 0o700)
	at := func(r *Request) { r.ContextDir = dir }
	for _, tt := range []struct {
		name, text string
		want       map[string]string
	}{
		{"to nowhere is the working directory", "ENV empty=\"\"\nWORKDIR /w\nCOPY testfile $empty", map[string]string{"w/testfile": "600 0:0 contents0"}},
		{"to nowhere, linked", "ENV empty=\"\"\nWORKDIR /w\nCOPY --link testfile $empty", map[string]string{"w/testfile": "600 0:0 contents0"}},
		{"to a dot, linked", "WORKDIR /w\nCOPY --link testfile .", map[string]string{"w/testfile": "600 0:0 contents0"}},
		{"a slash makes a directory", "COPY testfile /sample/", map[string]string{"sample/testfile": "600 0:0 contents0", "sample": "755 0:0 dir"}},
		{"a slash and a dot make a directory", "COPY foo /sample/.", map[string]string{"sample/foo": "644 0:0 foo"}},
		{"relative places", "WORKDIR /t1\nWORKDIR t2\nCOPY foo ./\nCOPY foo ./b/baz\nWORKDIR ..\nCOPY foo x\nWORKDIR /t5/t6\nCOPY foo ../", map[string]string{"t1/t2/foo": "644 0:0 foo", "t1/t2/b/baz": "644 0:0 foo", "t1/x": "644 0:0 foo", "t5/foo": "644 0:0 foo"}},
		{"relative places above the root", "WORKDIR /a\nCOPY foo ../../../b/", map[string]string{"b/foo": "644 0:0 foo"}},
		{"relative sources", "COPY ./foo ./sub/../foo.go /sub/dir1/dir2/deep /n/", map[string]string{"n/foo": "644 0:0 foo", "n/foo.go": "644 0:0 foogo", "n/deep": "644 0:0 deep"}},
		{"sources above the context are in it", "COPY ../foo /n/", map[string]string{"n/foo": "644 0:0 foo"}},
		{"wildcard into a directory", "COPY *.go /n/", map[string]string{"n/foo.go": "644 0:0 foogo", "n/bar.go": "644 0:0 bargo", "n/foo": ""}},
		{"wildcard for one, renamed", "COPY f*.go foo2.go", map[string]string{"foo2.go": "644 0:0 foogo"}},
		{"wildcard for directories gives their content", "COPY sub/* /n/", map[string]string{"n/dir2/deep": "644 0:0 deep", "n/dir1": ""}},
		{"wildcard in the middle", "COPY sub/*/dir2/deep /n/", map[string]string{"n/deep": "644 0:0 deep"}},
		{"wildcard in the middle, renamed", "COPY sub/*/dir2/deep /n/x", map[string]string{"n/x": "644 0:0 deep"}},
		{"wildcard of a letter and of a set", "COPY ?oo b[a-b]r.go [^f]tar? /n/", map[string]string{"n/foo": "644 0:0 foo", "n/bar.go": "644 0:0 bargo", "n/stars": "644 0:0 sts"}},
		{"wildcards that are meant", "COPY a[[]b]c star[*] /n/", map[string]string{"n/a[b]c": "644 0:0 br", "n/star*": "644 0:0 st", "n/stars": ""}},
		{"wildcard without a match, alone", "COPY nomatch* /n/\nCOPY foo /", map[string]string{"foo": "644 0:0 foo"}},
		{"wildcard of links", "COPY all/l* /n/", map[string]string{"n/l0": "644 0:0 sf", "n/l1": "644 0:0 bz", "n/lfile": "644 0:0 lf", "n/ldangling": "", "n/subfile": ""}},
		{"spaces", "COPY [\"sp ace/f g\", \"/n m/\"]", map[string]string{"n m/f g": "644 0:0 sp"}},
		{"letters of all kinds", "COPY test-äöü.txt test-%C3%A4.txt test+aou.txt /n/", map[string]string{"n/test-äöü.txt": "644 0:0 u", "n/test-%C3%A4.txt": "644 0:0 p", "n/test+aou.txt": "644 0:0 +"}},
		{"a directory", "COPY sub/dir1 /n", map[string]string{"n/dir2/deep": "644 0:0 deep", "n": "755 0:0 dir"}},
		{"a directory with a slash", "COPY sub/dir1/ n", map[string]string{"n/dir2/deep": "644 0:0 deep"}},
		{"a directory with a dot", "COPY sub/dir1/. n", map[string]string{"n/dir2/deep": "644 0:0 deep"}},
		{"a directory's own mode is not taken, those below are", "COPY sub /n\nCOPY sub/dir1 /m", map[string]string{"n": "755 0:0 dir", "n/dir1": "711 0:0 dir", "m": "755 0:0 dir"}},
		{"an empty directory", "COPY empty /n/x", map[string]string{"n/x": "755 0:0 dir"}},
		{"the context", "COPY . n", map[string]string{"n/sub/dir1/dir2/deep": "644 0:0 deep", "n/empty": "700 0:0 dir", "n/link": "-> foo", "n/back\\slash": "644 0:0 bs", "n/loop": "-> loop"}},
		{"twice", "COPY sub sub\nCOPY sub sub\nCOPY files/foo.go d/foo.go\nCOPY files/foo.go d/foo.go\nCOPY files d", map[string]string{"sub/dir1/dir2/deep": "644 0:0 deep", "d/foo.go": "644 0:0 other"}},
		{"variables", "ENV A=foo D=/n/\nCOPY $A ${D}${A}.x", map[string]string{"n/foo.x": "644 0:0 foo"}},

		{"a link to a file", "COPY link chain in/up /n/", map[string]string{"n/link": "644 0:0 foo", "n/chain": "644 0:0 foo", "n/up": "644 0:0 foo"}},
		{"a link to a directory", "COPY sublink /n", map[string]string{"n/dir2/deep": "644 0:0 deep"}},
		{"through a link", "COPY sublink/dir2/deep in/sub/dir1/dir2 /n/", map[string]string{"n/deep": "644 0:0 deep"}},
		{"links below stay", "COPY in /n", map[string]string{"n/up": "-> ../foo", "n/sub": "-> ../sub"}},

		{"onto a file", "RUN echo old > /x && chmod 777 /x && chown 5 /x\nCOPY foo /x", map[string]string{"x": "644 0:0 foo"}},
		{"onto a link", "RUN echo old > /t && ln -s t /x\nCOPY foo /x", map[string]string{"x": "-> t", "t": "644 0:0 foo"}},
		{"onto a link to a directory", "RUN mkdir /t && ln -s /t /x\nCOPY foo /x", map[string]string{"x": "-> /t", "t/foo": "644 0:0 foo"}},
		{"onto a link to nothing", "RUN ln -s ../a/b/c /x\nCOPY foo /x", map[string]string{"x": "-> ../a/b/c", "a/b/c": "644 0:0 foo"}},
		{"into a link to nothing", "RUN ln -s ../a/b /x\nCOPY foo /x/", map[string]string{"x": "-> ../a/b", "a/b/foo": "644 0:0 foo"}},
		{"through links that lead up", "RUN mkdir -p /o/p && ln -s /o/p /s && ln -s ../t /o/p/l\nCOPY foo /s/l/f", map[string]string{"o/t/f": "644 0:0 foo", "o/p/l": "-> ../t", "t": ""}},
		{"a tree over links", "RUN mkdir -p /n /real && ln -s /real /n/dir1 && ln -s gone /n/foo.go\nCOPY sub files /n/", map[string]string{"n/dir1": "-> /real", "real/dir2/deep": "644 0:0 deep", "n/foo.go": "644 0:0 other", "n/gone": ""}},
		{"a tree over a tree keeps what is not in it", "RUN mkdir -p -m 750 /n/dir1 && echo k > /n/dir1/k && chown 5:6 /n /n/dir1\nCOPY sub /n", map[string]string{"n": "755 5:6 dir", "n/dir1": "711 0:0 dir", "n/dir1/k": "644 0:0 k\n", "n/dir1/dir2/deep": "644 0:0 deep"}},

		{"mode", "COPY --chmod=0644 testfile /a\nCOPY --chmod=0 foo /b\nARG M=7755\nCOPY --chmod=$M foo /c", map[string]string{"a": "644 0:0 contents0", "b": "0 0:0 foo", "c": "7755 0:0 foo"}},
		{"mode of directories that are made", "COPY --chmod=777 foo /p/foo\nCOPY --chmod=770 foo /p/sub/foo\nCOPY --chmod=700 empty /q/r/", map[string]string{"p": "777 0:0 dir", "p/foo": "777 0:0 foo", "p/sub": "770 0:0 dir", "q/r": "700 0:0 dir", "q": "700 0:0 dir"}},
		{"mode in letters", "COPY --chmod=go-w,u+s foo /p/foo\nCOPY --chmod=u=rw,g=r,o= foo /g\nCOPY --chmod=a+X sub /h\nCOPY --chmod=+x foo /i\nCOPY --chmod=g=u,o=g foo /j", map[string]string{"p": "755 0:0 dir", "p/foo": "4644 0:0 foo", "g": "640 0:0 foo", "h/dir1": "711 0:0 dir", "h/dir1/dir2/deep": "644 0:0 deep", "i": "755 0:0 foo", "j": "666 0:0 foo"}},
		{"mode of a tree", "COPY --chmod=705 sub /n", map[string]string{"n": "705 0:0 dir", "n/dir1": "705 0:0 dir", "n/dir1/dir2/deep": "705 0:0 deep"}},
		{"mode leaves links alone", "COPY --chmod=700 in /n", map[string]string{"n/up": "-> ../foo"}},
		{"owners", "ARG g=www\nENV o=web\nCOPY --chown=web foo /a\nCOPY --chown=web: foo /b\nCOPY --chown=1000: foo /c\nCOPY --chown=1000:www sub /d\nCOPY --chown=${o}:${g} foo /e\nCOPY --chown=:www foo /f", map[string]string{
			"a": "644 500:501 foo", "b": "644 500:501 foo", "c": "644 1000:1000 foo", "d": "755 1000:600 dir", "d/dir1/dir2/deep": "644 1000:600 deep", "e": "644 500:600 foo", "f": "644 0:600 foo"}},
		{"owners of directories that are made", "COPY --chown=7:8 foo /p/q/foo\nCOPY --chown=9 . /p/r", map[string]string{"p": "755 7:8 dir", "p/q": "755 7:8 dir", "p/q/foo": "644 7:8 foo", "p/r": "755 9:9 dir"}},

		{"parents", "COPY --parents foo1/foo2/bar /\nWORKDIR /t\nCOPY --parents foo1/foo2/ba* .", map[string]string{"foo1/foo2/bar": "644 0:0 b1", "foo1/foo2/baz": "", "t/foo1/foo2/bar": "644 0:0 b1", "t/foo1/foo2/baz": "644 0:0 b2", "t/foo1/other": ""}},
		{"parents of several", "COPY --parents foo1/other sub/dir1/./dir2/deep foo /n/", map[string]string{"n/foo1/other": "644 0:0 o", "n/dir2/deep": "644 0:0 deep", "n/foo": "644 0:0 foo", "n/sub": ""}},
		{"parents of a directory", "COPY --parents foo1/foo2 /n", map[string]string{"n/foo1/foo2/bar": "644 0:0 b1", "n/foo1/foo2/baz": "644 0:0 b2", "n/foo1/other": ""}},
		{"parents without some", "COPY --parents --exclude=**/baz --exclude=**/.* foo1 /n", map[string]string{"n/foo1/foo2/bar": "644 0:0 b1", "n/foo1/foo2/baz": "", "n/foo1/keep/.hidden": ""}},
		{"parents at any depth", "COPY --parents **.go f**/baz /n/", map[string]string{"n/foo.go": "644 0:0 foogo", "n/files/foo.go": "644 0:0 other", "n/foo1/foo2/baz": "644 0:0 b2", "n/sub": ""}},
		{"parents and modes", "COPY --parents sub/dir1/dir2/deep /n/", map[string]string{"n": "755 0:0 dir", "n/sub": "700 0:0 dir", "n/sub/dir1": "711 0:0 dir"}},

		{"documents", "COPY <<A one\na\nA\nCOPY --chown=7:8 --chmod=751 <<B <<\"C\" foo /n/\n${PATH}\nB\n$PATH\nC", map[string]string{"one": "644 0:0 a\n", "n/B": "751 7:8 /bin\n", "n/C": "751 7:8 $PATH\n", "n/foo": "751 7:8 foo"}},
		{"documents without their tabs", "COPY <<-A one\n\ta\n\t\tb\n\tA\nCOPY <<B two\n\ta\nB", map[string]string{"one": "644 0:0 a\nb\n", "two": "644 0:0 \ta\n"}},
		{"documents with signs", "COPY <<A a\n\"q\" 'r' \\$ \\\\ $ #\nA\nCOPY <<'B' b\n\\$ \\\\ \"$X\"\nB\nCOPY <<C c\nC", map[string]string{"a": "644 0:0 \"q\" 'r' $ \\ $ #\n", "b": "644 0:0 \\$ \\\\ \"$X\"\n", "c": "644 0:0 "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			h.want(h.build("FROM busybox\n"+tt.text+"\n", nil, at), tt.want)
		})
	}
	h.t = t
	h.clean()
}

// What is copied from a stage, with the owners that it has there.
func TestCopyFromCorpus(t *testing.T) {
	h := newHouse(t)
	const head = `FROM busybox AS src
RUN touch /file && mkdir -p /dir/subdir && touch /dir/subdir/nested && chown 100:200 /file /dir && chown 101:201 /dir/subdir && chown 102:202 /dir/subdir/nested && chmod 700 /dir && \
    mkdir -p /out/sub && ln -s /out/sub /abs && ln -s out/sub /rel && echo -n data > /abs/foo && ln -s ../../../../out/sub/foo /out/up && ln /out/sub/foo /out/sub/hard && mkfifo /out/pipe && mknod /out/null c 1 3
RUN mkdir -p /t/a/b/c/d/e /t/a/b2/c/d/e /t/a/b/c2/d/e /t/a/b/c2/d/e2 && touch /t/a/b/c/d/foo /t/a/b/c/d/e/bay /t/a/b2/c/d/e/bar /t/a/b/c2/d/e/baz /t/a/b/c2/d/e2/baz
FROM busybox AS base
RUN mkdir -p /old/oldsub && touch /old/oldfile && chown 500:600 /old && chown 501:601 /old/oldsub /old/oldfile
FROM base
`
	for _, tt := range []struct {
		name, text string
		want       map[string]string
	}{
		{"owners stay, that of a new destination is root's", "COPY --from=src /file .\nCOPY --from=src /dir /dir\nCOPY --from=src /dir/. /old", map[string]string{
			"file": "644 100:200 ", "dir": "755 0:0 dir", "dir/subdir": "755 101:201 dir", "dir/subdir/nested": "644 102:202 ",
			"old": "755 500:600 dir", "old/oldsub": "755 501:601 dir", "old/oldfile": "644 501:601 ", "old/subdir": "755 101:201 dir", "old/subdir/nested": "644 102:202 "}},
		{"owners change, but not of what is there", "COPY --from=src --chown=300:400 /file .\nCOPY --from=src --chown=300:400 /dir /dir\nCOPY --from=src --chown=300:400 /dir/. /old", map[string]string{
			"file": "644 300:400 ", "dir": "755 300:400 dir", "dir/subdir/nested": "644 300:400 ", "old": "755 500:600 dir", "old/oldfile": "644 501:601 ", "old/subdir": "755 300:400 dir"}},
		{"through links", "COPY --from=src /abs/foo /1\nCOPY --from=src /rel/foo /2\nCOPY --from=src /out/up /3\nCOPY --from=src abs /4", map[string]string{"1": "644 0:0 data", "2": "644 0:0 data", "3": "644 0:0 data", "4/foo": "644 0:0 data"}},
		{"a working directory of neither counts", "WORKDIR /w\nCOPY --from=src file .", map[string]string{"w/file": "644 100:200 "}},
		{"devices and pipes", "COPY --from=src /out /n", map[string]string{"n/pipe": "644 0:0", "n/null": "644 0:0", "n/up": "-> ../../../../out/sub/foo"}},
		{"everything", "COPY --from=src / /n", map[string]string{"n/abs": "-> /out/sub", "n/dir": "700 100:200 dir", "n/tmp": "1777 0:0 dir"}},
		{"parents from a pivot", "COPY --from=src --parents /t/a/b/./c/d /o/", map[string]string{"o/c/d/e/bay": "644 0:0 ", "o/c/d/foo": "644 0:0 ", "o/a": "", "o/e": ""}},
		{"parents with a dot at the end", "COPY --from=src --parents /t/a/b/c/d/. /o/", map[string]string{"o/t/a/b/c/d/e": "755 0:0 dir", "o/t/a/b/c/d/foo": "644 0:0 "}},
		{"parents with a dot at the start", "COPY --from=src --parents ./t/a/b/c/d /o/", map[string]string{"o/t/a/b/c/d/foo": "644 0:0 "}},
		{"parents with two pivots", "COPY --from=src --parents /t/a/./b/./c /o/", map[string]string{"o/b/c/d/foo": "644 0:0 "}},
		{"parents with a wildcard after the pivot", "COPY --from=src --parents /t/a/./*/c /o/", map[string]string{"o/b/c/d/e": "755 0:0 dir", "o/b2/c/d/e/bar": "644 0:0 ", "o/b/c2": ""}},
		{"parents with wildcards on both sides", "COPY --from=src --parents /t/a/b*/./c/**/e /o/", map[string]string{"o/c/d/e/bay": "644 0:0 ", "o/c/d/e/bar": "644 0:0 ", "o/c/d/foo": ""}},
		{"parents of two patterns", "COPY --from=src --parents /t/a/b/c*/./d/**/baz /t/a/b*/./c/**/bar /o/", map[string]string{"o/d/e/baz": "644 0:0 ", "o/d/e/bay": "", "o/d/e2/baz": "644 0:0 ", "o/c/d/e/bar": "644 0:0 "}},
		{"parents of nothing that matches", "COPY --from=src --parents /t/a/x*/c /t/a/b/./c3* /o/", map[string]string{"o": "755 0:0 dir", "o/t": "", "o/a": ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			h.want(h.build(head+tt.text+"\n", nil), tt.want)
		})
	}
	h.t = t
	if o := h.try(Request{Text: []byte(head + "COPY --from=src --parents /t/none /o/\n")}); o.err == nil || !strings.Contains(o.err.Error(), "/t/none: not found (paths begin at the root") {
		t.Errorf("parents of what is missing: %v", o.err)
	}
	h.clean()
}

// The table of docker's documentation and tests for --exclude.
func TestExcludeCorpus(t *testing.T) {
	h := newHouse(t)
	dir := h.context(map[string]string{
		"dir1/101.png": "1", "dir1/102.txt": "2", "dir1/103.jpeg": "3", "dir2/201.pdf": "4", "dir2/202.jpeg": "5", "dir3/301.mp3": "6", "dir3/302.mpeg": "7",
		"dir4/401.txt": "8", "dir4/402.txt -> 401.txt": "", "dir4/sub/403.txt": "9", "dir4/sub/keep.txt": "k",
	})
	for _, tt := range []struct{ copy, want string }{
		{"--exclude=*/*.png --exclude=*/*.jpeg . /n", "dir1/102.txt dir2/201.pdf dir3/301.mp3 dir3/302.mpeg dir4/401.txt dir4/402.txt dir4/sub/403.txt dir4/sub/keep.txt"},
		{"--exclude=*/*.pdf --exclude=**/*.txt . /n", "dir1/101.png dir1/103.jpeg dir2/202.jpeg dir3/301.mp3 dir3/302.mpeg"},
		{"--exclude=*.mp3 dir3/ /n/", "302.mpeg"},
		{"--exclude=*.mp3 --exclude=*.jpeg --exclude=*.png --exclude=*.pdf --exclude=**.txt dir* /n/", "302.mpeg"},
		{"--exclude=*.mp* --exclude=*.jpeg --exclude=*.png --exclude=*.pdf dir* /n", "102.txt 401.txt 402.txt sub/403.txt sub/keep.txt"},
		{"--exclude=* dir* /n", ""},
		{"--exclude=sub dir4 /n", "401.txt 402.txt"},
		{"--exclude=sub/* --exclude=!sub/keep.txt dir4 /n", "401.txt 402.txt sub/keep.txt"},
		{"--exclude=** --exclude=!**/keep.txt . /n", "dir4/sub/keep.txt"},
		{"--exclude=dir1/. --exclude=dir2/ --exclude=./dir3 --exclude=dir4/../dir4 . /n", ""},
		{"--exclude=dir?/*[13].* . /n", "dir1/102.txt dir2/202.jpeg dir3/302.mpeg dir4/402.txt dir4/sub/403.txt dir4/sub/keep.txt"},
		{"--exclude=*.txt dir4/*.txt dir1/*2.txt dir2 /n/", "201.pdf 202.jpeg"},
	} {
		for _, instruction := range []string{"COPY ", "ADD "} {
			o := h.build("FROM busybox\n"+instruction+tt.copy+"\n", nil, func(r *Request) { r.ContextDir = dir })
			var got []string
			for _, name := range slices.Sorted(maps.Keys(h.tree(o, ""))) {
				if rest, ok := strings.CutPrefix(name, "n/"); ok && strings.Contains(rest, ".") {
					got = append(got, rest)
				}
			}
			if text := strings.Join(got, " "); text != tt.want {
				t.Errorf("%s%s gives\n%s\nwant\n%s", instruction, tt.copy, text, tt.want)
			}
		}
	}
}
