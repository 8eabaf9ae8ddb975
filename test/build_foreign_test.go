package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// foreign is a platform that this machine is not, how the kernel knows its
// programs, and the emulator for them.
type foreign struct{ arch, magic, mask, emulator string }

// foreignPlatform is one that no other test needs to be foreign: the kernel's list of
// emulators is the machine's.
func foreignPlatform() foreign {
	f := foreign{
		"riscv64", `\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xf3\x00`,
		`\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff`, "qemu-riscv64-static",
	}
	if runtime.GOARCH == f.arch {
		f = foreign{"arm64", strings.Replace(f.magic, `\xf3`, `\xb7`, 1), f.mask, "qemu-aarch64-static"}
	}
	return f
}

// enable registers the emulator with the kernel, as binfmt-support does: opened now
// (F), so that containers need not have it. The kernel has one list for all mount
// namespaces, so the entry has a name of its own, and what a test left that was
// killed is removed.
func (f foreign) enable(h *host) (disable func(), err error) {
	emulator, err := exec.LookPath(f.emulator)
	if err != nil {
		return nil, fmt.Errorf("%w: apt-get install qemu-user-static", err)
	}
	const dir = "/proc/sys/fs/binfmt_misc"
	if out, err := h.within("sh", "-c", "test -e "+dir+"/register || mount -t binfmt_misc binfmt_misc "+dir).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("binfmt_misc cannot be mounted: %s", out)
	}
	const ours = "berth-test-"
	remove := func(name string) { _ = h.within("sh", "-c", "echo -1 > "+filepath.Join(dir, name)).Run() }
	list, _ := h.within("ls", dir).Output()
	for name := range strings.FieldsSeq(string(list)) {
		if rest, ok := strings.CutPrefix(name, ours); ok {
			pid, _, _ := strings.Cut(rest, "-")
			if n, err := strconv.Atoi(pid); err == nil && unix.Kill(n, 0) == unix.ESRCH {
				remove(name)
			}
		}
	}
	name := fmt.Sprintf("%s%d-%s", ours, os.Getpid(), strings.TrimSuffix(strings.TrimPrefix(f.emulator, "qemu-"), "-static"))
	cmd := h.within("sh", "-c", "cat > "+dir+"/register")
	cmd.Stdin = strings.NewReader(":" + name + ":M::" + f.magic + ":" + f.mask + ":" + emulator + ":F")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("the kernel takes no emulator: %s", out)
	}
	return func() { remove(name) }, nil
}

// Steps and containers of another platform run in an emulator when the kernel knows
// one, and say how to get one when not.
func TestForeignPlatforms(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	f := foreignPlatform()
	platform := "linux/" + f.arch
	dir := h.context("foreign", map[string]string{
		"main.go": `package main

import (
	"os"
	"runtime"
)

func main() {
	text := "made on " + runtime.GOARCH + "\n"
	os.Stdout.WriteString(text)
	if len(os.Args) > 1 && os.WriteFile(os.Args[1], []byte(text), 0o600) != nil {
		os.Exit(1)
	}
}
`,
		"base/Dockerfile": "FROM scratch\nCOPY make /bin/make\nCMD [\"/bin/make\"]\n",
		"run/Dockerfile":  "FROM foreign\nARG TARGETARCH\nRUN [\"/bin/make\", \"/made\"]\nRUN --mount=type=cache,target=/c [\"/bin/make\", \"/c/in-a-cache\"]\nLABEL for=$TARGETARCH\n",
		"local/Dockerfile": "FROM --platform=$BUILDPLATFORM " + busyboxImage + " AS b\nARG TARGETARCH\nRUN echo for $TARGETARCH on $(cat /bin/busybox | head -c 20 | wc -c) > /o\n" +
			"FROM foreign\nCOPY --from=b /o /o\n",
	})
	compile := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "base/make"), filepath.Join(dir, "main.go"))
	compile.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+f.arch)
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("compile for %s: %v\n%s", f.arch, err, out)
	}
	// What runs nothing needs no emulator.
	h.build("--platform", platform, "-t", "foreign", filepath.Join(dir, "base"))
	h.build("--platform", platform, "-t", "cross", filepath.Join(dir, "local"))
	if got := h.berth("image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", "cross"); got != platform {
		t.Errorf("the image is for %s", got)
	}

	if others, _ := h.within("sh", "-c", "ls /proc/sys/fs/binfmt_misc/*-"+strings.TrimSuffix(strings.TrimPrefix(f.emulator, "qemu-"), "-static")).Output(); len(others) == 0 {
		o := h.run("build", "--platform", platform, filepath.Join(dir, "run"))
		if o.code == 0 {
			t.Fatal("a program for another machine runs without an emulator")
		}
		contains(t, o.stderr, platform, "has no emulator", "qemu-user-static")
		o = h.run("run", "--rm", "--platform", platform, "foreign")
		if o.code == 0 {
			t.Fatal("a container for another machine runs without an emulator")
		}
		contains(t, o.stderr, f.arch, "qemu-user-static")
	}

	disable, err := f.enable(h)
	if err != nil {
		t.Skipf("programs of other platforms are not run here: %v", err)
	}
	t.Cleanup(disable)
	contains(t, h.build("--platform", platform, "-t", "ran", filepath.Join(dir, "run")), "made on "+f.arch)
	if got := h.berth("image", "inspect", "--format", "{{.Os}}/{{.Architecture}} {{.Config.Labels.for}}", "ran"); got != platform+" "+f.arch {
		t.Errorf("the image is for %s", got)
	}
	if out := h.berth("run", "--rm", "--platform", platform, "ran"); out != "made on "+f.arch {
		t.Errorf("the container says %q", out)
	}
	h.berth("create", "--name", "made", "--platform", platform, "ran")
	if out := h.berth("cp", "made:/made", "-"); !strings.Contains(out, "made on "+f.arch) {
		t.Errorf("the step made %q", out)
	}
}
