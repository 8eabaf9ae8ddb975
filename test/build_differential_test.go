package test

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// differentialEnv asks for all Dockerfiles and all other builders instead of the
// first few and docker's, when it is "all".
const differentialEnv = "BERTH_DIFFERENTIAL"

// differentialCase is a Dockerfile that all builders know.
type differentialCase struct{ name, text string }

const from = "FROM " + busyboxImage + "\n"

// The first five are the short form: between them they copy, run, delete, use
// stages and set all of a configuration.
var differentialCases = []differentialCase{
	{"copies", from + "COPY a.txt /x\nCOPY a.txt d /dir/\nCOPY d /n/\nCOPY w/*.txt /k/\nCOPY --chown=user:7 a.txt /owned\n"},
	{"files of programs", from + "RUN mkdir -m 1777 /s && touch /f && chmod 6755 /f && chown 5:6 /f && ln /f /g && ln -s /f /h && mkfifo /p && mknod /n c 1 3\n"},
	{"deletions", from + "RUN mkdir -p /one/two && echo a > /one/two/f && echo b > /one/g\nRUN rm -rf /one/two /etc/group && mkdir /one/two && touch /one/two/new\nRUN rm /one/g\n"},
	{"stages", from[:len(from)-1] + " AS b\nRUN mkdir -p /o/p && echo x > /o/p/f && ln -s p/f /o/l && chmod 711 /o/p\n" + from + "COPY --from=b /o /n\nCOPY --from=0 /etc/passwd /q\n"},
	{"configuration", from + "LABEL a=b \"c d\"=\"e f\"\nEXPOSE 80 53/udp 1000-1002\nVOLUME /v /w\nSTOPSIGNAL SIGUSR1\nHEALTHCHECK --interval=3s --retries=2 CMD [\"x\", \"y\"]\nENTRYPOINT [\"/e\"]\nCMD [\"c\"]\nUSER user\nENV P=q R=\"s t\" U=v\\ w\nONBUILD RUN x\nWORKDIR /here\n"},

	{"base", from},
	{"everything", from + "COPY . /all/\n"},
	{"directories", from + "COPY d /n\nCOPY d /m/\nCOPY d/ /o\nCOPY empty /e/\n"},
	{"deep targets", from + "COPY a.txt /x/y/z\nCOPY d /p/q/r/\n"},
	{"over files", from + "COPY a.txt /etc/passwd\nCOPY d /etc\n"},
	{"through a link", from + "RUN mkdir /real && ln -s real /ln\nCOPY d /ln\nCOPY a.txt /ln/\n"},
	{"wildcards", from + "COPY w/*.txt /n/\nCOPY w/?.m* /n/\nCOPY w/[12].txt /m/\n"},
	{"owners by number", from + "COPY --chown=7:8 d /n\nCOPY --chown=9 a.txt /m\n"},
	{"owners by name", from + "COPY --chown=user d /n\nCOPY --chown=root:user a.txt /m\n"},
	{"working directories", from + "WORKDIR /a/b\nWORKDIR c\nCOPY a.txt .\nCOPY a.txt ./x\nRUN pwd > here\n"},
	{"archives", from + "ADD t.tar /n/\nADD t.tgz /m/\nADD a.txt /o/\n"},
	{"archive over files", from + "RUN mkdir -p /in/f && ln -s /in /l\nADD t.tar /in/sub/\n"},
	{"variables in copies", from + "ENV A=/envdir B=a.txt\nCOPY $B ${A}/\nCOPY $B ${C:-/other}/\nWORKDIR $A/w\n"},
	{"arguments", "ARG TAG=1\nFROM test/busybox:$TAG\nARG X=1\nARG Y\nRUN echo $X-$Y > /o\nENV Z=$X\n"},
	{"argument before variable", from + "ARG X=arg\nENV X=env\nRUN echo $X > /o\n"},
	{"user", from + "RUN chmod 777 /www\nUSER 900\nRUN id -u > /www/u\nCOPY a.txt /www/a\n"},
	{"user with home", from + "USER user\nRUN echo $HOME > /tmp/home 2>/dev/null || true\n"},
	{"shell", from + "SHELL [\"/bin/sh\", \"-ec\"]\nRUN echo $0 > /o\nCMD hi\nENTRYPOINT there\n"},
	{"entrypoint alone", from + "CMD [\"a\"]\nENTRYPOINT [\"/x\"]\n"},
	{"no health check", from + "HEALTHCHECK NONE\n"},
	{"escape", "# escape=`\n" + from + "RUN echo a `\n && echo b > /o\n"},
	{"forms of variables", from + "ENV one two three\nENV a=$one b=${one} c='$one' d=\"$one\" e=\\$one\nRUN env | grep -v -e HOSTNAME -e PWD -e SHLVL > /o; true\n"},
	{"links in the context", from + "COPY link /x\nCOPY links /z\n"},
	{"hard links in the context", from + "COPY hard /h\n"},
	{"capabilities", from + "COPY caps /caps\n"},
	{"stages by number and name", from[:len(from)-1] + " AS One\nRUN echo 1 > /f\nFROM one AS two\nRUN echo 2 >> /f\n" + from + "COPY --from=0 /f /0\nCOPY --from=two /f /1\n"},
	{"quotes", from + "COPY [\"a.txt\", \"/with space/\"]\nRUN [\"sh\", \"-c\", \"echo \\\"$HOME\\\" > /o\"]\nLABEL x='y z' \"k\"=\"v\\\"w\"\nCMD [\"a b\", \"c\"]\n"},
	{"continuations", from + "RUN echo a \\\n# comment\n  b \\\n\n  c > /o\nENV A=1 \\\n    B=2\n"},
	{"on build", "FROM " + busyboxImage + " AS p\nRUN echo p > /p\nONBUILD RUN echo t > /t\nFROM " + busyboxImage + "\nCOPY --from=p /p /g\n"},
	{"scratch", "FROM scratch\nCOPY a.txt /\nENV X=1\nLABEL l=m\n"},
	{"file becomes directory", from + "RUN echo f > /x\nRUN rm /x && mkdir /x && echo g > /x/y\nRUN rm -r /x && echo h > /x\n"},
	{"links are replaced", from + "RUN mkdir /a && ln -s /a /b && echo 1 > /b/f\nRUN rm /b && mkdir /b && echo 2 > /b/f\n"},
	{"names", from + "RUN touch '/a b' '/ü' /-x \"/'q\" && mkdir '/dir with space' && touch '/dir with space/\\'\n"},
	{"large file", from + "RUN dd if=/dev/zero of=/big bs=65536 count=200 2>/dev/null && echo end >> /big\n"},
	{"many layers", from + strings.Repeat("RUN echo x >> /log\n", 30)},
	{"new destinations", from + "COPY modes /n\nCOPY modes/ /a/b/c\nCOPY --chown=5:6 modes /o\nRUN mkdir -m 700 /old && chown 7:8 /old\nCOPY modes /old\n"},
	{"links as destinations", from + "RUN echo t > /t && ln -s t /f && ln -s /www /d\nCOPY a.txt /f\nCOPY a.txt /d/\n"},
	{"users", from + "RUN chmod 777 /www && echo 'more:x:1003:user' >> /etc/group\nUSER user\nRUN id -u > /www/1 && id -g >> /www/1 && id -G >> /www/1 && echo $HOME >> /www/1\nUSER user:more\nRUN id -u > /www/2 && id -G >> /www/2\nUSER 1042:1043\nRUN id -u > /www/3 && id -G >> /www/3\n"},
	{"triggers", "FROM " + busyboxImage + " AS p\nRUN echo p > /p\nONBUILD RUN echo t > /t\nONBUILD COPY a.txt /fromcontext\nONBUILD ENV T=1\nFROM p\nRUN echo $T > /u\n"},
	{"attributes of files", from + "COPY attributes /n\nCOPY modes/plain /m\n"},
	{"volumes", from + "RUN mkdir /v && echo 1 > /v/f\nVOLUME [\"/v\"]\nENV D=/w\nVOLUME $D\n"},
	{"stop and ports of variables", from + "ARG S=SIGINT\nARG P=99/udp\nSTOPSIGNAL $S\nEXPOSE $P 80\nLABEL l=$P\n"},
}

// knownDifference is where another builder makes something else than we do, who
// follow BuildKit.
type knownDifference struct {
	peer, name string // of the builder and the Dockerfile; name "" is every one
	paths      string // with what is below them; ".config Key" are settings; "" tells that it cannot build that
	why        string
}

var knownDifferences = []knownDifference{
	{"docker", "configuration", "here", "a working directory is root's there, and the user's since"},
	{"docker", "configuration", "v w", "its container makes mount points of volumes"},
	{"docker", "volumes", "w", "its container makes mount points of volumes"},
	{"docker", "everything", "all/caps", "it loses security.capability of files in the context"},
	{"docker", "capabilities", "caps", "it loses security.capability of files in the context"},
	{"docker", "scratch", "etc .config", "its container has an /etc; an image of nothing has no PATH there"},
	{"buildah", "configuration", "v w", "our container makes mount points of volumes"},
	{"buildah", "configuration", ".config", "it keeps a range of ports as one"},
	{"buildah", "everything", "all/attributes", "our export leaves out attributes that programs made, as docker's does"},
	{"buildah", "attributes of files", "n/user", "our export leaves out attributes that programs made, as docker's does"},
	{"buildah", "shell", ".config", "it has no use for SHELL in CMD and ENTRYPOINT"},
	{"buildah", "scratch", ".config WorkingDir", "an image of nothing has no working directory there"},
	{"buildah", "links as destinations", "f t", "a file replaces a link there, and not what that is for"},
	{"buildah", "stages by number and name", "", "it tells upper from lower case in names of stages"},
}

// Images of ours and of other builders are the same: every file with its mode,
// owner, links and attributes, its time where that was given, and every setting.
func TestBuildMakesWhatOthersMake(t *testing.T) {
	t.Parallel()
	needRoot(t)
	all := os.Getenv(differentialEnv) == "all"
	h := newEngine(t)
	dir := h.differentialContext()
	peers, cases := h.peers(all), differentialCases
	if !all {
		cases = cases[:5]
	}
	ours := &dockerPeer{h: h, client: h.berthBin, socket: h.socket()}
	ours.base()
	for _, p := range peers {
		p.base()
	}
	differs := map[knownDifference]bool{}
	for i, c := range cases {
		tag := fmt.Sprintf("diff:%d", i)
		h.write("diff/Dockerfile", c.text, 0o644)
		ours.build(tag, dir)
		files, settings := ours.files(tag), ours.settings(tag)
		if c.name == "capabilities" {
			contains(t, files["caps"], "security.capability 0100000200200000")
		}
		for _, p := range peers {
			if expected(differs, p.name(), c.name, "") {
				continue
			}
			p.build(tag, dir)
			theirs := p.files(tag)
			for _, name := range slices.Sorted(maps.Keys(union(files, theirs))) {
				if files[name] != theirs[name] && !expected(differs, p.name(), c.name, name) {
					t.Errorf("%s: %s is\n  %s\nand that of %s\n  %s", c.name, name, files[name], p.name(), theirs[name])
				}
			}
			config := p.settings(tag)
			for _, key := range slices.Sorted(maps.Keys(union(settings, config))) {
				if !reflect.DeepEqual(settings[key], config[key]) && !expected(differs, p.name(), c.name, ".config "+key) {
					t.Errorf("%s: %s is\n  %v\nand that of %s\n  %v", c.name, key, settings[key], p.name(), config[key])
				}
			}
		}
	}
	for _, d := range knownDifferences {
		if all && !differs[d] && slices.ContainsFunc(peers, func(p peer) bool { return p.name() == d.peer }) {
			t.Errorf("%s builds %q as we do: it is no difference that %s", d.peer, d.name, d.why)
		}
	}
	t.Logf("%d images compared with those of %d other builders", len(cases), len(peers))
}

func union[V any](a, b map[string]V) map[string]V {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// expected reports whether a difference is known, and notes that it is there. What
// engines mount over when a container is made is nobody's.
func expected(differs map[knownDifference]bool, peer, dockerfile, name string) bool {
	below := func(paths string) bool {
		if paths == "" || name == "" {
			return paths == name
		}
		for p := range strings.FieldsSeq(paths) {
			if name == p || strings.HasPrefix(name, p+"/") || strings.HasPrefix(name, p+" ") {
				return true
			}
		}
		return false
	}
	for _, d := range knownDifferences {
		if (d.peer == "" || d.peer == peer) && (d.name == "" || d.name == dockerfile) && below(d.paths) {
			differs[d] = true
			return true
		}
	}
	return below("dev proc sys run .dockerenv etc/hosts etc/hostname etc/resolv.conf etc/mtab")
}

// differentialContext makes the files that the Dockerfiles take.
func (h *host) differentialContext() string {
	dir := h.context("diff", map[string]string{
		"a.txt": "a", "d/e": "e", "d/f/g": "g", "w/1.txt": "1", "w/2.txt": "2", "w/3.md": "3", "hard/one": "1", "links/target": "t", "caps": "program",
		"ignored/x": "x", ".dockerignore": "ignored\n**/*.tmp\n!keep.tmp\n", "drop.tmp": "", "keep.tmp": "", "ü/ö": "umlaut", "modes/plain": "p", "attributes/user": "a",
	})
	must := func(err error) {
		h.t.Helper()
		if err != nil {
			h.t.Fatal(err)
		}
	}
	must(os.Mkdir(filepath.Join(dir, "empty"), 0o700))
	must(os.Link(filepath.Join(dir, "hard/one"), filepath.Join(dir, "hard/two")))
	must(os.Symlink("a.txt", filepath.Join(dir, "link")))
	must(os.Symlink("target", filepath.Join(dir, "links/near")))
	must(os.Symlink("/etc/passwd", filepath.Join(dir, "links/far")))
	must(os.Symlink("nowhere", filepath.Join(dir, "links/broken")))
	must(os.Chmod(filepath.Join(dir, "modes/plain"), 0o4751))
	must(os.Mkdir(filepath.Join(dir, "modes/dir"), 0o711))
	must(os.Chmod(filepath.Join(dir, "modes"), 0o751))
	must(os.Chown(filepath.Join(dir, "a.txt"), 1234, 5678))
	// not every file system has these
	_ = unix.Setxattr(filepath.Join(dir, "attributes/user"), "user.test", []byte("value"), 0)
	// cap_net_raw, effective: what ping has
	must(unix.Setxattr(filepath.Join(dir, "caps"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	must(writeTar(filepath.Join(dir, "t.tar"), []tarFile{{name: "in/", mode: 0o750}, {name: "in/f", mode: 0o640, body: "f"}, {name: "in/l", link: "f"}}))
	must(exec.Command("sh", "-c", "gzip -c "+filepath.Join(dir, "t.tar")+" > "+filepath.Join(dir, "t.tgz")).Run())
	at := unix.NsecToTimespec(given.UnixNano())
	must(filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
	}))
	return dir
}

// given is the time of files that were given one: what a builder makes at its own
// time is none of the comparison.
var given = time.Unix(1_000_000_000, 0)

// describe says of every file in an archive what it is.
func (h *host) describe(archive io.Reader) map[string]string {
	h.t.Helper()
	files := map[string]string{}
	inodes := map[string]string{}
	for in := tar.NewReader(archive); ; {
		e, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			h.t.Fatal(err)
		}
		sum := sha256.New()
		n, err := io.Copy(sum, in)
		if err != nil {
			h.t.Fatal(err)
		}
		at := strings.Trim(path.Clean("/"+e.Name), "/")
		text := fmt.Sprintf("kind %c, mode %04o, owner %d:%d, %d bytes %.8x, device %d,%d", e.Typeflag, e.Mode&0o7777, e.Uid, e.Gid, n, sum.Sum(nil), e.Devmajor, e.Devminor)
		if e.Typeflag == tar.TypeSymlink {
			text = fmt.Sprintf("link to %s, owner %d:%d", e.Linkname, e.Uid, e.Gid)
		}
		if e.ModTime.Unix() == given.Unix() && e.Typeflag != tar.TypeLink {
			text += ", of the time that was given"
		}
		for _, key := range slices.Sorted(maps.Keys(e.PAXRecords)) {
			if attr, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
				text += fmt.Sprintf(", %s %x", attr, e.PAXRecords[key])
			}
		}
		if e.Typeflag == tar.TypeLink { // which of the names comes first is chance
			first := strings.Trim(path.Clean("/"+e.Linkname), "/")
			text = inodes[first] + ", of several names"
			files[first] = text
		} else {
			inodes[at] = text
		}
		files[at] = text
	}
	delete(files, "")
	return files
}
