package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// image is the one image of all contenders: busybox and nothing else.
const image = "bench/busybox:1"

// isolated marks the re-executed bench, which lives in process, network and
// mount namespaces of its own: daemons, bridges, packet filters and mounts of
// every contender die with it and never meet the machine's.
const isolated = "BERTH_BENCH_ISOLATED"

func init() {
	if os.Getenv(isolated) != "" || os.Geteuid() != 0 {
		return
	}
	for _, arg := range os.Args[1:] {
		if strings.HasPrefix(arg, "-test.") || arg == "-h" || arg == "-help" || arg == "--help" {
			return
		}
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), isolated+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWPID | syscall.CLONE_NEWNET,
		Unshareflags: syscall.CLONE_NEWNS,
		Pdeathsig:    syscall.SIGTERM,
	}
	err := cmd.Run()
	if exit, ok := err.(*exec.ExitError); ok {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// prepare builds the floor program, the shared root file system and bundle, and
// starts the engines.
func (b *bench) prepare(peers bool) error {
	if err := command("mount", "-t", "proc", "proc", "/proc"); err != nil {
		return err
	}
	if err := command("ip", "link", "set", "lo", "up"); err != nil {
		return err
	}
	if err := command("gcc", "-O2", "-static", "-o", b.path("floor"), "bench/floor/floor.c"); err != nil {
		return err
	}
	if err := b.makeRootfs(); err != nil {
		return err
	}
	if err := b.makeBundle(); err != nil {
		return err
	}
	var err error
	if b.berth, err = b.startBerth(); err != nil {
		return err
	}
	if !peers {
		return nil
	}
	if b.docker, err = b.startDocker(); err != nil {
		fmt.Fprintln(os.Stderr, "docker is not in the table:", err)
	}
	if err := b.podmanCmd("import", b.path("rootfs.tar"), image).Run(); err != nil {
		fmt.Fprintln(os.Stderr, "podman is not in the table:", err)
	} else {
		b.podman = true
	}
	return nil
}

func (b *bench) path(elem ...string) string {
	return filepath.Join(append([]string{b.dir}, elem...)...)
}

func (b *bench) makeRootfs() error {
	root := b.path("rootfs")
	for _, dir := range []string{"bin", "proc", "sys", "dev", "etc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	if err := command("cp", busybox, filepath.Join(root, "bin/busybox")); err != nil {
		return err
	}
	for _, applet := range []string{"sh", "true", "sleep", "cat", "echo", "seq", "head", "yes"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil {
			return err
		}
	}
	return command("tar", "-C", root, "-cf", b.path("rootfs.tar"), ".")
}

// makeBundle writes the OCI bundle that all runtimes run: runc's own template
// with /bin/true as its process and no terminal.
func (b *bench) makeBundle() error {
	bundle := b.path("bundle")
	if err := os.Mkdir(bundle, 0o755); err != nil {
		return err
	}
	if err := os.Symlink("../rootfs", filepath.Join(bundle, "rootfs")); err != nil {
		return err
	}
	spec := exec.Command("runc", "spec")
	spec.Dir = bundle
	if err := spec.Run(); err != nil {
		return fmt.Errorf("runc spec: %w", err)
	}
	file := filepath.Join(bundle, "config.json")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		return err
	}
	process := config["process"].(map[string]any)
	process["terminal"] = false
	process["args"] = []string{"/bin/true"}
	config["root"] = map[string]any{"path": b.path("rootfs"), "readonly": true}
	if text, err = json.Marshal(config); err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

func (b *bench) startBerth() (*engine, error) {
	dir := b.path("berth")
	e := &engine{name: "berth", marker: dir, socket: filepath.Join(dir, "run", "berth.sock"),
		argv: []string{filepath.Join(b.bin, "berthd"), "--root", filepath.Join(dir, "data"), "--run", filepath.Join(dir, "run")}}
	if err := e.start(b.path("berthd.log")); err != nil {
		return nil, err
	}
	return e, b.berthCmd("import", b.path("rootfs.tar"), image).Run()
}

func (b *bench) startDocker() (*engine, error) {
	dir := b.path("docker")
	e := &engine{name: "docker", marker: dir, socket: filepath.Join(dir, "docker.sock"), argv: []string{
		"dockerd", "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "-H", "unix://" + filepath.Join(dir, "docker.sock"), "--live-restore"}}
	if err := e.start(b.path("dockerd.log")); err != nil {
		return nil, err
	}
	return e, b.dockerCmd("import", b.path("rootfs.tar"), image).Run()
}

func (b *bench) berthCmd(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(b.ctx, filepath.Join(b.bin, "berth"), args...)
	cmd.Env = append(os.Environ(), "BERTH_HOST=unix://"+b.path("berth", "run", "berth.sock"))
	return cmd
}

func (b *bench) dockerCmd(args ...string) *exec.Cmd {
	return exec.CommandContext(b.ctx, "docker", append([]string{"-H", "unix://" + b.path("docker", "docker.sock")}, args...)...)
}

func (b *bench) podmanCmd(args ...string) *exec.Cmd {
	return exec.CommandContext(b.ctx, "podman", append([]string{"--root", b.path("podman", "root"), "--runroot", b.path("podman", "run"),
		"--tmpdir", b.path("podman", "tmp"), "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "runc"}, args...)...)
}

// close stops what prepare started and removes the scratch directory.
func (b *bench) close() {
	for _, e := range []*engine{b.berth, b.docker} {
		if e == nil {
			continue
		}
		e.removeAll()
		e.stop()
	}
	for _, pid := range pidsWith(b.path("")) {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	deadline := time.Now().Add(10 * time.Second)
	for len(pidsWith(b.path(""))) > 0 && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
	}
	// Mounts of the contenders live in this namespace; a detached one can
	// still hold a directory for a moment.
	_ = command("sh", "-c", "awk '$5 ~ \"^"+b.dir+"\" {print $5}' /proc/self/mountinfo | sort -r | xargs -r umount -l")
	if err := os.RemoveAll(b.dir); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}

// command runs a program and returns its output as the error when it fails.
func command(argv ...string) error {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
