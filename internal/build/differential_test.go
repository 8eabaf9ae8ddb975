package build

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/moby/docker-image-spec/specs-go/v1"
)

// dockerSocket names the socket of a docker engine to compare with, whose classic
// builder needs no plugin.
const dockerSocket = "BERTH_TEST_DOCKER"

// differential are Dockerfiles that both builders know. Where docker's classic
// builder is known to differ from its successor, which is what we follow, the
// paths in except are not compared.
var differential = []struct{ name, text, except string }{
	{name: "base only", text: "FROM busybox\n"},
	{name: "copy file", text: "FROM busybox\nCOPY a /x\nCOPY a /dir/\nCOPY a /tmp\n"},
	{name: "copy all", text: "FROM busybox\nCOPY . /all/\n", except: "all/.dockerignore all/modes"},
	{name: "copy directory", text: "FROM busybox\nCOPY d /n\nCOPY d /m/\nCOPY d/ /o\n"},
	{name: "copy into deep", text: "FROM busybox\nCOPY a /x/y/z\nCOPY d /p/q/r/\n"},
	{name: "copy over", text: "FROM busybox\nCOPY a /etc/passwd\nCOPY d /etc\n"},
	{name: "copy through links", text: "FROM busybox\nCOPY a /lib/\nCOPY d /lib/sub\n"},
	{name: "wildcards", text: "FROM busybox\nCOPY w/*.txt /n/\nCOPY w/?.m* /n/\nCOPY w/[12].txt /m/\nCOPY */x /k/\n"},
	{name: "chown", text: "FROM busybox\nCOPY --chown=web:www d /n\nCOPY --chown=7:8 a /m\n\n"},
	{name: "workdir", text: "FROM busybox\nWORKDIR /a/b\nWORKDIR c\nCOPY a .\nCOPY a ./x\nRUN touch here\n"},
	{name: "add archive", text: "FROM busybox\nADD t.tar /n/\nADD t.tgz /m\nADD a /o/\nADD d /p\n"},
	{name: "env in copy", text: "FROM busybox\nENV A=/envdir B=a\nCOPY $B ${A}/\nCOPY $B ${C:-/other}/\nWORKDIR $A/w\n"},
	{name: "arg", text: "FROM busybox\nARG X=1\nARG Y\nRUN echo $X-$Y > /o\nENV Z=$X\n"},
	{name: "delete", text: "FROM busybox\nRUN rm -rf /root /etc/group; mkdir /root; touch /root/new\nRUN rm -rf /usr && mkdir -p /usr/x\n"},
	{name: "modes", text: "FROM busybox\nRUN mkdir -m 1777 /s; touch /f; chmod 6755 /f; chown 5:6 /f; ln /f /g; ln -s /f /h; mkfifo /p; mknod /n c 1 3\nRUN chown 9 /g\n"},
	{name: "multi-stage", text: "FROM busybox AS b\nRUN mkdir -p /o/p && echo x > /o/p/f && ln -s p/f /o/l && chmod 711 /o/p && chown 3:4 /o/p/f\nFROM busybox\nCOPY --from=b /o /n\nCOPY --from=b /o/p/f /m/\nCOPY --from=b /o/l /k\nCOPY --from=0 /etc/passwd /q\n", except: "n/p/f m/f k"},
	{name: "user", text: "FROM busybox\nRUN chmod 777 /tmp\nUSER 900\nRUN id -u > /tmp/u\nCOPY a /tmp/a\n"},
	{name: "shell", text: "FROM busybox\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN echo $0 > /o\nCMD hi\nENTRYPOINT there\n"},
	{name: "config", text: "FROM busybox\nLABEL a=b \"c d\"=\"e f\"\nEXPOSE 80 53/udp 1000-1002\nVOLUME /v /w\nSTOPSIGNAL SIGUSR1\nHEALTHCHECK --interval=3s --retries=2 CMD [\"x\", \"y\"]\nENTRYPOINT [\"/e\"]\nCMD [\"c\"]\nUSER web\nENV P=q R=\"s t\" U=v\\ w\nONBUILD RUN x\nMAINTAINER me\n"},
	{name: "entrypoint resets cmd", text: "FROM busybox\nENTRYPOINT [\"/x\"]\n"},
	{name: "healthcheck none", text: "FROM busybox\nHEALTHCHECK NONE\n"},
	{name: "escape", text: "# escape=`\nFROM busybox\nRUN echo a `\n && echo b > /o\n"},
	{name: "ignore", text: "FROM busybox\nCOPY w /w\nCOPY ignored* /i/\n", except: "i"},
	{name: "env forms", text: "FROM busybox\nENV one two three\nENV a=$one b=${one} c='$one' d=\"$one\" e=\\$one\nRUN env | grep -v HOSTNAME | sort > /o\n"},
	{name: "links in context", text: "FROM busybox\nCOPY link /x\nCOPY dirlink /y\nCOPY links /z\n"},
	{name: "hard links", text: "FROM busybox\nCOPY hard /h\n"},
	{name: "empty directory", text: "FROM busybox\nCOPY empty /e/\n"},
	{name: "set modes in context", text: "FROM busybox\nCOPY modes /m\nADD modes /n/\n", except: "m/s n/s"},
	{name: "target directory is a link", text: "FROM busybox\nRUN mkdir /real && ln -s real /ln\nCOPY d /ln\nCOPY a /ln/\n"},
	{name: "archive over files", text: "FROM busybox\nRUN mkdir -p /in/f/x /in2 && ln -s /in2 /in/l\nCOPY d /in/sub\nADD t.tar /in/sub/\n"},
	{name: "stage by number and name", text: "FROM busybox AS One\nRUN echo 1 > /f\nFROM one AS two\nRUN echo 2 >> /f\nFROM busybox\nCOPY --from=0 /f /0\nCOPY --from=two /f /1\n"},
	{name: "quotes", text: "FROM busybox\nCOPY [\"a\", \"/with space/\"]\nRUN [\"sh\", \"-c\", \"echo \\\"$HOME\\\" > /o\"]\nLABEL x='y z' \"k\"=\"v\\\"w\"\nCMD [\"a b\", \"c\"]\n"},
	{name: "continuations", text: "FROM busybox\nRUN echo a \\\n# comment\n  b \\\n\n  c > /o\nENV A=1 \\\n    B=2\n"},
	{name: "directory times", text: "FROM busybox\nWORKDIR /\nWORKDIR /tmp\nRUN pwd > /o\n"},
	{name: "volume before change", text: "FROM busybox\nVOLUME /data\nCOPY a /data/\n"},
	{name: "onbuild", text: "FROM busybox AS p\nONBUILD RUN echo t > /t\nFROM busybox\nCOPY --from=p /etc/group /g\n"},
	{name: "scratch", text: "FROM scratch\nCOPY a /\nENV X=1\nWORKDIR /x\n"},
}

// differentialContext makes the files that the Dockerfiles above take.
func differentialContext(h *house) string {
	archive := tarball(h.t,
		tar.Header{Name: "in/", Typeflag: tar.TypeDir, Mode: 0o750, Uid: 1, Gid: 2},
		tar.Header{Name: "in/f", Typeflag: tar.TypeReg, Linkname: "F", Uid: 5, Gid: 6, Mode: 0o4755},
		tar.Header{Name: "in/l", Typeflag: tar.TypeSymlink, Linkname: "f"},
		tar.Header{Name: "in/h", Typeflag: tar.TypeLink, Linkname: "in/f"},
	)
	cmd := exec.Command("gzip", "-c")
	cmd.Stdin = bytes.NewReader(archive)
	packed, err := cmd.Output()
	if err != nil {
		h.t.Skip("needs gzip: ", err)
	}
	dir := h.context(map[string]string{
		"a": "A", "d/x": "X", "d/sub/y": "Y", "w/1.txt": "1", "w/2.txt": "2", "w/3.md": "3", "link -> a": "", "dirlink -> d": "",
		"links/l -> ../a": "", "links/broken -> /nowhere": "", "hard/one": "h", "modes/s": "s", "modes/t/u": "u",
		"t.tar": string(archive), "t.tgz": string(packed), "ignored1": "i", "ignored2": "i", ".dockerignore": "ignored1\nw/2.txt\n",
	})
	os.Link(dir+"/hard/one", dir+"/hard/two")
	os.Mkdir(dir+"/empty", 0o755)
	os.Chmod(dir+"/modes/s", 0o755|os.ModeSetuid)
	os.Chmod(dir+"/modes/t", 0o700|os.ModeSticky)
	os.Chown(dir+"/modes/t/u", 42, 43)
	return dir
}

// described is what is compared of a root: a line for each path.
func described(r io.Reader) (map[string]string, error) {
	out := map[string]string{}
	for tr := tar.NewReader(r); ; {
		hd, err := tr.Next()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean(strings.TrimPrefix(hd.Name, "./"))
		if hd.Typeflag == tar.TypeLink {
			to := path.Clean(strings.TrimPrefix(hd.Linkname, "./"))
			out[name] = out[to] + " linked"
			out[to] += " linked"
			continue
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return nil, err
		}
		text := fmt.Sprintf("%c %o %d:%d %s", hd.Typeflag, hd.Mode&0o7777, hd.Uid, hd.Gid, hd.Linkname)
		if hd.Typeflag == tar.TypeReg {
			text += fmt.Sprintf(" %x", sha256.Sum256(data))
		}
		if hd.Typeflag == tar.TypeChar {
			text += fmt.Sprintf(" %d:%d", hd.Devmajor, hd.Devminor)
		}
		out[name] = text
	}
}

// TestLikeDocker builds what docker's builder builds and compares every file and
// every field of the config.
func TestLikeDocker(t *testing.T) {
	socket := os.Getenv(dockerSocket)
	if socket == "" {
		t.Skip("set " + dockerSocket + " to the socket of a docker engine to compare with it")
	}
	h := newHouse(t)
	docker := func(stdin io.Reader, args ...string) []byte {
		h.t.Helper()
		cmd := exec.Command("docker", append([]string{"-H", "unix://" + socket}, args...)...)
		cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
		cmd.Stdin = stdin
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			h.t.Fatalf("docker %v: %v %s %s", args, err, out, errs.String())
		}
		return out
	}
	var base bytes.Buffer
	if err := h.images.Save(t.Context(), []string{"busybox"}, &base, imageSave); err != nil {
		t.Fatal(err)
	}
	docker(&base, "load")
	dir := differentialContext(h)
	for _, tt := range differential {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			dockerfile := t.TempDir() + "/Dockerfile"
			writeFile(t, dockerfile, tt.text)
			docker(nil, "build", "-q", "--no-cache", "--network=none", "-t", "diff", "-f", dockerfile, dir)
			id := strings.TrimSpace(string(docker(nil, "create", "diff", "x")))
			theirs, err := described(bytes.NewReader(docker(nil, "export", id)))
			if err != nil {
				t.Fatal(err)
			}
			o := h.build(tt.text, nil, func(r *Request) { r.ContextDir, r.Network = dir, "none" })
			var b bytes.Buffer
			if err := h.b.ExportTar(t.Context(), o.Layers, &b); err != nil {
				t.Fatal(err)
			}
			ours, err := described(&b)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, ours, theirs, strings.Fields(tt.except))
			var inspected []struct{ Config v1.DockerOCIImageConfig }
			if err := json.Unmarshal(docker(nil, "inspect", "diff"), &inspected); err != nil {
				t.Fatal(err)
			}
			compareConfigs(t, o.config().Config, inspected[0].Config)
		})
	}
}

func compare(t *testing.T, ours, theirs map[string]string, except []string) {
	t.Helper()
	// What docker makes for the container itself.
	made := []string{".dockerenv", "dev", "dev/console", "dev/pts", "dev/shm", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf", "etc", "sys", "proc", ".", "v", "w"}
	all := maps.Clone(ours)
	maps.Copy(all, theirs)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		skip := slices.Contains(made, name)
		for _, e := range except {
			skip = skip || name == e || strings.HasPrefix(name, e+"/")
		}
		if !skip && ours[name] != theirs[name] {
			t.Errorf("%s: ours %q, docker's %q", name, ours[name], theirs[name])
		}
	}
}

func compareConfigs(t *testing.T, ours, theirs v1.DockerOCIImageConfig) {
	t.Helper()
	ours.ArgsEscaped, theirs.ArgsEscaped = false, false //nolint:staticcheck // a leftover of windows
	a, b := reflect.ValueOf(ours.ImageConfig), reflect.ValueOf(theirs.ImageConfig)
	for i := range a.NumField() {
		x, y := a.Field(i), b.Field(i)
		if x.Kind() != reflect.String && x.Kind() != reflect.Bool && x.Len() == 0 && y.Len() == 0 {
			continue
		}
		if !reflect.DeepEqual(x.Interface(), y.Interface()) {
			t.Errorf("%s: ours %v, docker's %v", a.Type().Field(i).Name, x, y)
		}
	}
	if fmt.Sprintf("%+v %v %v", ours.Healthcheck, ours.OnBuild, ours.Shell) != fmt.Sprintf("%+v %v %v", theirs.Healthcheck, theirs.OnBuild, theirs.Shell) {
		t.Errorf("ours %+v, docker's %+v", ours.DockerOCIImageConfigExt, theirs.DockerOCIImageConfigExt)
	}
}
