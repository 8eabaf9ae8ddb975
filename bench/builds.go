package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// builder is a contender that builds Dockerfiles.
type builder struct {
	name  string
	build func(dir string, args ...string) *exec.Cmd // args are NAME=VALUE build arguments; "target=NAME" is the target
}

// buildWork measures builds: everything cached, one file changed, ten cold steps,
// four stages that need nothing of each other, and the memory of it all.
func (b *bench) buildWork() error {
	registry, err := b.startRegistry("docker-registry")
	if err != nil {
		return err
	}
	defer registry.stop()
	// As fresh as its peers.
	b.berth.stop()
	if err := b.berth.start(b.path("berthd-build.log")); err != nil {
		return err
	}
	base := registry.host + "/bench/base:latest"
	if err := b.publishBase(registry, base); err != nil {
		return err
	}
	builders := []builder{{"berth", func(dir string, args ...string) *exec.Cmd {
		return b.berthCmd(append([]string{"build", "-q", "-t", "bench/built", dir}, flags("--build-arg", "--target", args)...)...)
	}}}
	kit, err := b.startBuildkit(registry.host)
	if err != nil {
		fmt.Fprintln(os.Stderr, "BuildKit is not in the table:", err)
	} else {
		defer func() {
			_ = kit.Process.Kill()
			_ = kit.Wait()
		}()
		builders = append(builders, builder{"buildkit", b.buildctl})
	}
	if b.docker != nil {
		builders = append(builders, builder{"docker classic", func(dir string, args ...string) *exec.Cmd {
			cmd := b.dockerCmd(append([]string{"build", "-q", "-t", "bench/built", dir}, flags("--build-arg", "--target", args)...)...)
			cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
			return cmd
		}})
	}
	buildah := builder{"buildah", b.buildah}
	probe := b.path("probe")
	if err := writeContext(probe, "FROM "+base+"\nRUN true\n", 0); err != nil {
		return err
	}
	if err := quiet(b.buildah(probe)); err != nil {
		fmt.Fprintln(os.Stderr, "buildah is not in the table:", err)
	} else {
		builders = append(builders, buildah)
	}
	if err := b.contextBuilds(builders, base); err != nil {
		return err
	}
	if err := b.coldBuilds(builders, base); err != nil {
		return err
	}
	if err := b.diamondBuild(builders, base); err != nil {
		return err
	}
	peaks := []sample{one("berth", statusMiB(b.berth.cmd.Process.Pid, "VmHWM:")), one("berth with the monitor", b.peak(pidsWith(b.berth.marker)))}
	var bars []bar
	if kit != nil && kit.Process != nil {
		peaks = append(peaks, one("buildkit", statusMiB(kit.Process.Pid, "VmHWM:")))
		bars = append(bars, bar{against: "buildkit", factor: 0.5})
	}
	b.add("peak memory of the builder over all these builds (without buildkit's runc processes)", "MiB", peaks, bars...)
	return nil
}

// flags turns NAME=VALUE into build arguments, and "target=NAME" into a target.
func flags(arg, target string, args []string) []string {
	var out []string
	for _, a := range args {
		if name, ok := strings.CutPrefix(a, "target="); ok {
			out = append(out, target, name)
		} else {
			out = append(out, arg, a)
		}
	}
	return out
}

// publishBase puts an image of busybox into the registry that all build from.
func (b *bench) publishBase(registry *registryServer, name string) error {
	if err := quiet(b.berthCmd("import", b.path("rootfs.tar"), name)); err != nil {
		return err
	}
	return quiet(b.berthCmd("push", name))
}

// startBuildkit starts buildkitd, which a make target built from its module.
func (b *bench) startBuildkit(registry string) (*exec.Cmd, error) {
	dir := b.path("buildkit")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "buildkitd.toml")
	text := fmt.Sprintf("root = %q\n[grpc]\naddress = [%q]\n[worker.containerd]\nenabled = false\n[worker.oci]\nnetworkMode = \"host\"\n[registry.%q]\nhttp = true\n",
		filepath.Join(dir, "root"), b.buildkitAddress(), registry)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command("buildkitd", "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		if exec.Command("buildctl", "--addr", b.buildkitAddress(), "debug", "workers").Run() == nil {
			return cmd, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	said, _ := os.ReadFile(log.Name())
	return nil, fmt.Errorf("buildkitd does not answer: %s", tail(string(said), 400))
}

func (b *bench) buildkitAddress() string { return "unix://" + b.path("buildkit", "sock") }

func (b *bench) buildctl(dir string, args ...string) *exec.Cmd {
	all := []string{"--addr", b.buildkitAddress(), "build", "--progress", "plain", "--frontend", "dockerfile.v0",
		"--local", "context=" + dir, "--local", "dockerfile=" + dir, "--output", "type=image,name=bench/built,compression=uncompressed"}
	for _, a := range args {
		if strings.HasPrefix(a, "target=") {
			all = append(all, "--opt", a)
		} else {
			all = append(all, "--opt", "build-arg:"+a)
		}
	}
	return exec.CommandContext(b.ctx, "buildctl", all...)
}

func (b *bench) buildah(dir string, args ...string) *exec.Cmd {
	all := []string{"--root", b.path("buildah", "root"), "--runroot", b.path("buildah", "run"), "bud", "-q", "--layers", "--tls-verify=false",
		"--runtime", "runc", "--network", "host", "--ulimit", "nofile=1024:2048", "--ulimit", "nproc=1000:2000", "-t", "bench/built"}
	return exec.CommandContext(b.ctx, "buildah", append(append(all, flags("--build-arg", "--target", args)...), dir)...)
}

// writeContext makes a build context with a Dockerfile and n files of 25 KB.
func writeContext(dir, dockerfile string, n int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(1, 1))
	text := make([]byte, 25000)
	for i := range n {
		for k := range text {
			text[k] = byte(random.UintN(256))
		}
		sub := filepath.Join(dir, fmt.Sprintf("d%d", i%40))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%d", i)), text, 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644)
}

// contextBuilds builds a context of 2,000 files and 50 MB again, unchanged and
// with one file changed. Each builder has a context of its own.
func (b *bench) contextBuilds(builders []builder, base string) error {
	var cached, changed []contender
	for i, who := range builders {
		dir := b.path(fmt.Sprintf("context-%d", i))
		if err := writeContext(dir, "FROM "+base+"\nWORKDIR /src\nCOPY . .\nRUN echo built > /done\n", 2000); err != nil {
			return err
		}
		n := 0
		cached = append(cached, contender{who.name, func() error { return quiet(who.build(dir)) }, nil})
		changed = append(changed, contender{who.name, func() error { return quiet(who.build(dir)) }, func() error {
			n++
			return os.WriteFile(filepath.Join(dir, "d7", "f7"), fmt.Appendf(nil, "change %d %s", n, time.Now()), 0o644)
		}})
	}
	samples, err := b.interleave(cached)
	if err != nil {
		return err
	}
	bars := []bar{{factor: 100}}
	more := []bar{}
	if b.contends(builders, "buildkit") {
		bars = append(bars, bar{against: "buildkit", factor: 0.2})
		more = append(more, bar{against: "buildkit", factor: 1.0 / 3})
	}
	b.add("build, all cached, 2,000 files of 50 MB in the context", "ms", samples, bars...)
	if samples, err = b.interleave(changed); err != nil {
		return err
	}
	b.add("build, one of the 2,000 files changed", "ms", samples, more...)
	return nil
}

func (b *bench) contends(builders []builder, name string) bool {
	for _, who := range builders {
		if who.name == name {
			return true
		}
	}
	return false
}

// coldBuilds runs ten trivial steps that nobody has run before.
func (b *bench) coldBuilds(builders []builder, base string) error {
	var text strings.Builder
	fmt.Fprintf(&text, "FROM %s\nARG SALT\n", base)
	for i := range 10 {
		fmt.Fprintf(&text, "RUN echo %d $SALT > /f%d\n", i, i)
	}
	dir := b.path("context-cold")
	if err := writeContext(dir, text.String(), 0); err != nil {
		return err
	}
	var cs []contender
	for _, who := range builders {
		cs = append(cs, contender{who.name, func() error { return quiet(who.build(dir, "SALT="+time.Now().Format(time.RFC3339Nano))) }, nil})
	}
	samples, err := b.interleave(cs)
	if err != nil {
		return err
	}
	var bars []bar
	if b.contends(builders, "buildkit") {
		bars = append(bars, bar{against: "buildkit", factor: 0.25})
	}
	b.add("build, ten cold RUN steps", "ms", samples, bars...)
	return nil
}

// diamondBuild compares four stages built together with the sum of each alone.
func (b *bench) diamondBuild(builders []builder, base string) error {
	var text strings.Builder
	for i := range 4 {
		fmt.Fprintf(&text, "FROM %s AS s%d\nARG SALT\nRUN i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done; echo %d $SALT > /out\n", base, i, i)
	}
	fmt.Fprintf(&text, "FROM %s\n", base)
	for i := range 4 {
		fmt.Fprintf(&text, "COPY --from=s%d /out /out%d\n", i, i)
	}
	dir := b.path("context-diamond")
	if err := writeContext(dir, text.String(), 0); err != nil {
		return err
	}
	salt := func() string { return "SALT=" + time.Now().Format(time.RFC3339Nano) }
	berth := builders[0]
	cs := []contender{
		{"berth", func() error { return quiet(berth.build(dir, salt())) }, nil},
		{"one after the other", func() error {
			s := salt()
			for i := range 4 {
				if err := quiet(berth.build(dir, s, fmt.Sprintf("target=s%d", i))); err != nil {
					return err
				}
			}
			return nil
		}, nil},
	}
	for _, who := range builders[1:] {
		cs = append(cs, contender{who.name, func() error { return quiet(who.build(dir, salt())) }, nil})
	}
	samples, err := b.interleave(cs)
	if err != nil {
		return err
	}
	b.add("build, four independent stages", "ms", samples, bar{against: "one after the other", factor: 1 / 1.6})
	return nil
}

// peak sums the most memory of processes, in MiB.
func (b *bench) peak(pids []int) float64 {
	total := 0.0
	for _, pid := range pids {
		total += statusMiB(pid, "VmHWM:")
	}
	return total
}
