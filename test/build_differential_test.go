package test

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
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

	"golang.org/x/sys/unix"
)

// differentialEnv asks for all Dockerfiles instead of the first few, when it is
// "all".
const differentialEnv = "BERTH_DIFFERENTIAL"

// differentialCase is a Dockerfile that docker's classic builder knows, too. Where
// that one is known to differ from its successor, whom we follow, except names the
// paths that are not compared, each with what is below it.
type differentialCase struct{ name, text, except string }

const from = "FROM " + busyboxImage + "\n"

// The first five are the short form: between them they copy, run, delete, use
// stages and set all of a configuration.
var differentialCases = []differentialCase{
	{"copies", from + "COPY a.txt /x\nCOPY a.txt d /dir/\nCOPY d /n/\nCOPY w/*.txt /k/\nCOPY --chown=user:7 a.txt /owned\n", ""},
	{"files of programs", from + "RUN mkdir -m 1777 /s && touch /f && chmod 6755 /f && chown 5:6 /f && ln /f /g && ln -s /f /h && mkfifo /p && mknod /n c 1 3\n", ""},
	{"deletions", from + "RUN mkdir -p /one/two && echo a > /one/two/f && echo b > /one/g\nRUN rm -rf /one/two /etc/group && mkdir /one/two && touch /one/two/new\nRUN rm /one/g\n", ""},
	{"stages", from[:len(from)-1] + " AS b\nRUN mkdir -p /o/p && echo x > /o/p/f && ln -s p/f /o/l && chmod 711 /o/p\n" + from + "COPY --from=b /o /n\nCOPY --from=0 /etc/passwd /q\n", ""},
	{"configuration", from + "LABEL a=b \"c d\"=\"e f\"\nEXPOSE 80 53/udp 1000-1002\nVOLUME /v /w\nSTOPSIGNAL SIGUSR1\nHEALTHCHECK --interval=3s --retries=2 CMD [\"x\", \"y\"]\nENTRYPOINT [\"/e\"]\nCMD [\"c\"]\nUSER user\nENV P=q R=\"s t\" U=v\\ w\nONBUILD RUN x\nWORKDIR /here\n", "here v w"}, // a user's working directory is the user's; mount points come with a container,

	{"base", from, ""},
	{"everything", from + "COPY . /all/\n", "all/caps"},
	{"directories", from + "COPY d /n\nCOPY d /m/\nCOPY d/ /o\nCOPY empty /e/\n", "e"}, // a new directory has the mode of the one that is copied,
	{"deep targets", from + "COPY a.txt /x/y/z\nCOPY d /p/q/r/\n", ""},
	{"over files", from + "COPY a.txt /etc/passwd\nCOPY d /etc\n", ""},
	{"through a link", from + "RUN mkdir /real && ln -s real /ln\nCOPY d /ln\nCOPY a.txt /ln/\n", ""},
	{"wildcards", from + "COPY w/*.txt /n/\nCOPY w/?.m* /n/\nCOPY w/[12].txt /m/\n", ""},
	{"owners by number", from + "COPY --chown=7:8 d /n\nCOPY --chown=9 a.txt /m\n", ""},
	{"owners by name", from + "COPY --chown=user d /n\nCOPY --chown=root:user a.txt /m\n", ""},
	{"working directories", from + "WORKDIR /a/b\nWORKDIR c\nCOPY a.txt .\nCOPY a.txt ./x\nRUN pwd > here\n", ""},
	{"archives", from + "ADD t.tar /n/\nADD t.tgz /m/\nADD a.txt /o/\n", ""},
	{"archive over files", from + "RUN mkdir -p /in/f && ln -s /in /l\nADD t.tar /in/sub/\n", ""},
	{"variables in copies", from + "ENV A=/envdir B=a.txt\nCOPY $B ${A}/\nCOPY $B ${C:-/other}/\nWORKDIR $A/w\n", ""},
	{"arguments", "ARG TAG=1\nFROM test/busybox:$TAG\nARG X=1\nARG Y\nRUN echo $X-$Y > /o\nENV Z=$X\n", ""},
	{"argument before variable", from + "ARG X=arg\nENV X=env\nRUN echo $X > /o\n", ""},
	{"user", from + "RUN chmod 777 /www\nUSER 900\nRUN id -u > /www/u\nCOPY a.txt /www/a\n", ""},
	{"user with home", from + "USER user\nRUN echo $HOME > /tmp/home 2>/dev/null || true\n", ""},
	{"shell", from + "SHELL [\"/bin/sh\", \"-ec\"]\nRUN echo $0 > /o\nCMD hi\nENTRYPOINT there\n", ""},
	{"entrypoint alone", from + "CMD [\"a\"]\nENTRYPOINT [\"/x\"]\n", ""},
	{"no health check", from + "HEALTHCHECK NONE\n", ""},
	{"escape", "# escape=`\n" + from + "RUN echo a `\n && echo b > /o\n", ""},
	{"forms of variables", from + "ENV one two three\nENV a=$one b=${one} c='$one' d=\"$one\" e=\\$one\nRUN env | grep -v -e HOSTNAME -e PWD -e SHLVL > /o; true\n", ""},
	{"links in the context", from + "COPY link /x\nCOPY links /z\n", ""},
	{"hard links in the context", from + "COPY hard /h\n", ""},
	{"capabilities", from + "COPY caps /caps\n", "caps"}, // which the first builder loses
	{"stages by number and name", from[:len(from)-1] + " AS One\nRUN echo 1 > /f\nFROM one AS two\nRUN echo 2 >> /f\n" + from + "COPY --from=0 /f /0\nCOPY --from=two /f /1\n", ""},
	{"quotes", from + "COPY [\"a.txt\", \"/with space/\"]\nRUN [\"sh\", \"-c\", \"echo \\\"$HOME\\\" > /o\"]\nLABEL x='y z' \"k\"=\"v\\\"w\"\nCMD [\"a b\", \"c\"]\n", ""},
	{"continuations", from + "RUN echo a \\\n# comment\n  b \\\n\n  c > /o\nENV A=1 \\\n    B=2\n", ""},
	{"on build", "FROM " + busyboxImage + " AS p\nRUN echo p > /p\nONBUILD RUN echo t > /t\nFROM " + busyboxImage + "\nCOPY --from=p /p /g\n", ""},
	{"scratch", "FROM scratch\nCOPY a.txt /\nENV X=1\nLABEL l=m\n", "etc .config"}, // which has defaults of its own,
	{"file becomes directory", from + "RUN echo f > /x\nRUN rm /x && mkdir /x && echo g > /x/y\nRUN rm -r /x && echo h > /x\n", ""},
	{"links are replaced", from + "RUN mkdir /a && ln -s /a /b && echo 1 > /b/f\nRUN rm /b && mkdir /b && echo 2 > /b/f\n", ""},
	{"names", from + "RUN touch '/a b' '/ü' /-x \"/'q\" && mkdir '/dir with space' && touch '/dir with space/\\'\n", ""},
	{"large file", from + "RUN dd if=/dev/zero of=/big bs=65536 count=200 2>/dev/null && echo end >> /big\n", ""},
	{"many layers", from + strings.Repeat("RUN echo x >> /log\n", 30), ""},
}

// Images of ours and of docker's first builder are the same: every file with its
// mode, owner, links and attributes, and every setting.
func TestBuildMakesWhatDockerMakes(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, program := range []string{"docker", "dockerd"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs " + program)
		}
	}
	h := newEngine(t)
	socket, err := h.startDocker()
	if err != nil {
		t.Skipf("docker's engine does not start here: %v", err)
	}
	dir := h.differentialContext()
	// Both builders give a PATH to an image without one, at different times.
	change := "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	h.dockerAt(socket, "import", "-c", change, h.path("busybox.tar"), busyboxImage)
	h.berth("import", "-c", change, h.path("busybox.tar"), busyboxImage)
	cases := differentialCases[:5]
	if os.Getenv(differentialEnv) == "all" {
		cases = differentialCases
	}
	for i, c := range cases {
		tag := fmt.Sprintf("diff:%d", i)
		h.write("diff/Dockerfile", c.text, 0o644)
		h.dockerAt(socket, "build", "-q", "-t", tag, dir)
		h.build("-t", tag, dir)
		if c.name == "capabilities" {
			contains(t, h.imageFiles(h.berthBin, h.socket(), tag)["caps"], "security.capability 0100000200200000")
		}
		ours, theirs := h.imageFiles(h.berthBin, h.socket(), tag), h.imageFiles("docker", socket, tag)
		for _, name := range slices.Sorted(maps.Keys(union(ours, theirs))) {
			if !isExcepted(name, c.except) && ours[name] != theirs[name] {
				t.Errorf("%s: %s is\n  %s\nand docker's\n  %s", c.name, name, ours[name], theirs[name])
			}
		}
		a, b := h.imageConfig(h.berthBin, h.socket(), tag), h.imageConfig("docker", socket, tag)
		if !reflect.DeepEqual(a, b) && !isExcepted(".config", c.except) {
			t.Errorf("%s: the configuration is\n  %v\nand docker's\n  %v", c.name, a, b)
		}
	}
	t.Logf("%d images compared", len(cases))
}

func union(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// isExcepted reports whether a path is not to be compared: what engines mount over
// when a container is made is nobody's.
func isExcepted(name, except string) bool {
	for _, e := range append(strings.Fields(except), "dev", "proc", "sys", ".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab") {
		if name == e || strings.HasPrefix(name, e+"/") {
			return true
		}
	}
	return false
}

// startDocker starts docker's engine in the host's namespaces.
func (h *host) startDocker() (socket string, err error) {
	dir := h.path("docker")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	socket = "unix://" + filepath.Join(dir, "s.sock")
	cmd := h.within("dockerd", "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "-H", socket)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return "", err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return "", err
	}
	over := make(chan error, 1)
	go func() { over <- cmd.Wait() }()
	h.t.Cleanup(func() {
		_ = h.within("sh", "-c", "kill $(cat "+filepath.Join(dir, "pid")+")").Run()
		<-over
	})
	up := false
	h.eventually("docker's engine answers, or ends", func() bool {
		select {
		case err = <-over:
			over <- err
			return true
		default:
			up = h.within("docker", "-H", socket, "version").Run() == nil
			return up
		}
	})
	if !up {
		text, _ := os.ReadFile(filepath.Join(dir, "log"))
		return "", errors.New(string(text))
	}
	return socket, nil
}

func (h *host) dockerAt(socket string, args ...string) string {
	h.t.Helper()
	cmd := h.within(append([]string{"docker", "-H", socket}, args...)...)
	cmd.Env = append(cmd.Env, "DOCKER_BUILDKIT=0")
	o := execute(h.t, cmd)
	if o.code != 0 {
		h.t.Fatalf("docker %s: %s%s", strings.Join(args, " "), o.stdout, o.stderr)
	}
	return strings.TrimSpace(o.stdout)
}

// differentialContext makes the files that the Dockerfiles take.
func (h *host) differentialContext() string {
	dir := h.context("diff", map[string]string{
		"a.txt": "a", "d/e": "e", "d/f/g": "g", "w/1.txt": "1", "w/2.txt": "2", "w/3.md": "3", "hard/one": "1", "links/target": "t", "caps": "program",
		"ignored/x": "x", ".dockerignore": "ignored\n**/*.tmp\n!keep.tmp\n", "drop.tmp": "", "keep.tmp": "", "ü/ö": "umlaut", "modes/plain": "p",
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
	must(os.Chown(filepath.Join(dir, "a.txt"), 1234, 5678))
	// cap_net_raw, effective: what ping has
	must(unix.Setxattr(filepath.Join(dir, "caps"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	must(writeTar(filepath.Join(dir, "t.tar"), []tarFile{{name: "in/", mode: 0o750}, {name: "in/f", mode: 0o640, body: "f"}, {name: "in/l", link: "f"}}))
	must(exec.Command("sh", "-c", "gzip -c "+filepath.Join(dir, "t.tar")+" > "+filepath.Join(dir, "t.tgz")).Run())
	return dir
}

// imageFiles describes every file of an image, from a container that never ran.
func (h *host) imageFiles(client, socket, tag string) map[string]string {
	h.t.Helper()
	name := "export-" + path.Base(client)
	run := func(args ...string) *exec.Cmd { return h.within(append([]string{client, "-H", socket}, args...)...) }
	if out, err := run("create", "--name", name, tag, "x").CombinedOutput(); err != nil {
		h.t.Fatalf("%s create: %v: %s", client, err, out)
	}
	defer func() { _ = run("rm", name).Run() }()
	export := run("export", name)
	stdout, err := export.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := export.Start(); err != nil {
		h.t.Fatal(err)
	}
	files := map[string]string{}
	inodes := map[string]string{}
	for in := tar.NewReader(stdout); ; {
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
	if err := export.Wait(); err != nil {
		h.t.Fatal(err)
	}
	delete(files, "")
	return files
}

// imageConfig returns the settings of an image.
func (h *host) imageConfig(client, socket, tag string) map[string]any {
	h.t.Helper()
	out, err := h.within(client, "-H", socket, "image", "inspect", tag).Output()
	if err != nil {
		h.t.Fatal(err)
	}
	var all []struct {
		Architecture, Os, Author string
		Config                   map[string]any
	}
	if err := json.Unmarshal(out, &all); err != nil || len(all) != 1 {
		h.t.Fatalf("%s: %v", out, err)
	}
	config := map[string]any{"Architecture": all[0].Architecture, "Os": all[0].Os, "Author": all[0].Author}
	for _, key := range []string{"User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal", "Healthcheck", "Shell", "OnBuild"} {
		switch v := all[0].Config[key].(type) {
		case nil:
		case string:
			if v != "" {
				config[key] = v
			}
		case []any:
			if len(v) > 0 {
				config[key] = v
			}
		case map[string]any:
			if len(v) > 0 {
				config[key] = v
			}
		}
	}
	return config
}
