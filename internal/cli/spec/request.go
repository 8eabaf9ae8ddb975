package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"berth/internal/client"
)

// Request returns the request for a container of image that runs args, the
// image's own command when there are none.
func (f *Flags) Request(image string, args []string) (*client.CreateRequest, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	config := &client.Config{Image: image, Cmd: args}
	host := &client.HostConfig{}
	for _, fill := range []func(*client.Config, *client.HostConfig) error{
		f.process, f.standardStreams, f.health, f.ports, f.storage, f.limits, f.confinement,
	} {
		if err := fill(config, host); err != nil {
			return nil, err
		}
	}
	networking, err := f.networks(host)
	if err != nil {
		return nil, err
	}
	return &client.CreateRequest{Config: config, HostConfig: host, NetworkingConfig: networking}, nil
}

// check refuses combinations that contradict each other.
func (f *Flags) check() error {
	switch f.Pull {
	case PullMissing, PullAlways, PullNever:
	default:
		return fmt.Errorf("--pull %q: use missing, always or never", f.Pull)
	}
	if f.MemorySwappiness < -1 || f.MemorySwappiness > 100 {
		return fmt.Errorf("--memory-swappiness %d is not between 0 and 100", f.MemorySwappiness)
	}
	if f.CPUs != 0 && (f.CPUPeriod != 0 || f.CPUQuota != 0) {
		return errors.New("--cpus and --cpu-period or --cpu-quota set the same limit; use one of them")
	}
	for _, mode := range []struct {
		flag, value string
		allowed     []string
	}{
		{"pid", f.PID, []string{"host"}}, {"uts", f.UTS, []string{"host"}},
		{"userns", f.Userns, []string{"host"}}, {"cgroupns", f.Cgroupns, []string{"host", "private"}},
		{"ipc", f.IPC, []string{"host", "private", "shareable", "none"}},
	} {
		if err := checkMode(mode.flag, mode.value, mode.allowed); err != nil {
			return err
		}
	}
	return nil
}

func checkMode(flag, value string, allowed []string) error {
	if value == "" {
		return nil
	}
	for _, word := range allowed {
		if value == word {
			return nil
		}
	}
	if name, ok := strings.CutPrefix(value, "container:"); ok && name != "" {
		return nil
	}
	allowed = append(allowed, "container:NAME")
	return fmt.Errorf("--%s %q: use %s", flag, value, strings.Join(allowed, ", "))
}

func (f *Flags) process(c *client.Config, h *client.HostConfig) (err error) {
	c.Hostname, c.Domainname, c.User, c.WorkingDir = f.Hostname, f.Domainname, f.User, f.Workdir
	if f.Entrypoint != "" {
		c.Entrypoint = []string{f.Entrypoint}
	} else if f.set.Changed("entrypoint") {
		c.Entrypoint = []string{""} // an empty one clears the image's
	}
	c.StopSignal = f.StopSignal
	if f.set.Changed("stop-timeout") {
		c.StopTimeout = &f.StopTimeout
	}
	if c.Env, err = Environment(f.EnvFile, f.Env); err != nil {
		return err
	}
	if c.Labels, err = labels(f.LabelFile, f.Label); err != nil {
		return err
	}
	if h.Annotations, err = pairs("annotation", f.Annotation); err != nil {
		return err
	}
	if f.OnUnhealthy != "" {
		if h.Annotations == nil {
			h.Annotations = make(map[string]string, 1)
		}
		h.Annotations["berth.on-unhealthy"] = f.OnUnhealthy
	}
	if h.LogConfig.Config, err = pairs("log-opt", f.LogOpt); err != nil {
		return err
	}
	if h.LogConfig.Type = f.LogDriver; f.LogDriver == "none" && len(f.LogOpt) > 0 {
		return errors.New("--log-opt has no meaning with --log-driver none")
	}
	if f.set.Changed("init") {
		h.Init = &f.Init
	}
	h.AutoRemove, h.ContainerIDFile = f.Remove, f.CIDFile
	if h.RestartPolicy, err = restartPolicy(f.Restart); err != nil {
		return err
	}
	if f.Remove && h.RestartPolicy.Name != "" && h.RestartPolicy.Name != "no" {
		return errors.New("--rm and --restart contradict each other")
	}
	return nil
}

func restartPolicy(text string) (client.RestartPolicy, error) {
	var p client.RestartPolicy
	name, count, counted := strings.Cut(text, ":")
	switch name {
	case "", "no", "always", "unless-stopped", "on-failure":
	default:
		return p, fmt.Errorf("--restart %q: use no, on-failure[:N], always or unless-stopped", text)
	}
	p.Name = name
	if !counted {
		return p, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || name != "on-failure" {
		return p, fmt.Errorf("--restart %q: only on-failure takes a number of tries", text)
	}
	p.MaximumRetryCount = n
	return p, nil
}

// standardStreams decides what is attached. The caller takes back what a
// detached run does not attach.
func (f *Flags) standardStreams(c *client.Config, _ *client.HostConfig) error {
	c.Tty, c.OpenStdin, c.AttachStdin = f.TTY, f.Stdin, f.Stdin
	if len(f.Attach) == 0 {
		c.AttachStdout, c.AttachStderr = true, true
	}
	for _, name := range f.Attach {
		switch strings.ToLower(name) {
		case "stdin":
			c.AttachStdin = true
		case "stdout":
			c.AttachStdout = true
		case "stderr":
			c.AttachStderr = true
		default:
			return fmt.Errorf("--attach %q: use stdin, stdout or stderr", name)
		}
	}
	c.StdinOnce = c.OpenStdin && c.AttachStdin
	return nil
}

func (f *Flags) health(c *client.Config, _ *client.HostConfig) error {
	given := f.HealthCmd != "" || f.HealthInterval != 0 || f.HealthTimeout != 0 || f.HealthStartPeriod != 0 ||
		f.HealthStartInterval != 0 || f.HealthRetries != 0
	switch {
	case f.NoHealthcheck && given:
		return errors.New("--no-healthcheck and --health-* contradict each other")
	case f.NoHealthcheck:
		c.Healthcheck = &client.HealthConfig{Test: []string{"NONE"}}
		return nil
	case !given:
		return nil
	}
	for _, d := range []time.Duration{f.HealthInterval, f.HealthTimeout, f.HealthStartPeriod, f.HealthStartInterval} {
		if d < 0 {
			return errors.New("--health-* times cannot be negative")
		}
	}
	if f.HealthRetries < 0 {
		return errors.New("--health-retries cannot be negative")
	}
	c.Healthcheck = &client.HealthConfig{Interval: f.HealthInterval, Timeout: f.HealthTimeout,
		StartPeriod: f.HealthStartPeriod, StartInterval: f.HealthStartInterval, Retries: f.HealthRetries}
	if f.HealthCmd != "" {
		c.Healthcheck.Test = []string{"CMD-SHELL", f.HealthCmd}
	}
	return nil
}

func (f *Flags) ports(c *client.Config, h *client.HostConfig) error {
	var p publishing
	for _, text := range f.Publish {
		if err := p.publish(text); err != nil {
			return err
		}
	}
	for _, text := range f.Expose {
		if err := p.exposeFlag(text); err != nil {
			return err
		}
	}
	c.ExposedPorts, h.PortBindings, h.PublishAllPorts = p.exposed, p.bindings, f.PublishAll
	var err error
	if h.DNS, err = nameServers(f.DNS); err != nil {
		return err
	}
	h.DNSOptions, h.DNSSearch = f.DNSOption, f.DNSSearch
	h.ExtraHosts, err = extraHosts(f.AddHost)
	return err
}

func (f *Flags) storage(c *client.Config, h *client.HostConfig) (err error) {
	if h.Binds, c.Volumes, err = volumes(f.Volume); err != nil {
		return err
	}
	for _, text := range f.Mount {
		m, err := parseMount(text)
		if err != nil {
			return err
		}
		h.Mounts = append(h.Mounts, m)
	}
	for _, text := range f.Tmpfs {
		target, options, _ := strings.Cut(text, ":")
		if !strings.HasPrefix(target, "/") {
			return fmt.Errorf("--tmpfs %q: %q is not an absolute path in the container", text, target)
		}
		if h.Tmpfs == nil {
			h.Tmpfs = map[string]string{}
		}
		h.Tmpfs[target] = options
	}
	h.VolumesFrom, h.VolumeDriver, h.ReadonlyRootfs = f.VolumesFrom, f.VolumeDriver, f.ReadOnly
	h.StorageOpt, err = pairs("storage-opt", f.StorageOpt)
	return err
}

func (f *Flags) limits(_ *client.Config, h *client.HostConfig) (err error) {
	r := &h.Resources
	r.Memory, r.MemoryReservation, r.MemorySwap = int64(f.Memory), int64(f.MemoryReservation), int64(f.MemorySwap)
	if f.MemorySwappiness != -1 {
		r.MemorySwappiness = &f.MemorySwappiness
	}
	r.NanoCPUs, r.CPUShares, r.CPUPeriod, r.CPUQuota = int64(f.CPUs), f.CPUShares, f.CPUPeriod, f.CPUQuota
	r.CPURealtimePeriod, r.CPURealtimeRuntime = f.CPURTPeriod, f.CPURTRuntime
	r.CpusetCpus, r.CpusetMems, r.CgroupParent = f.CpusetCPUs, f.CpusetMems, f.CgroupParent
	if f.PidsLimit != 0 {
		r.PidsLimit = &f.PidsLimit
	}
	if f.OOMKillDisable {
		r.OomKillDisable = &f.OOMKillDisable
	}
	h.OomScoreAdj, h.ShmSize = f.OOMScoreAdj, int64(f.ShmSize)
	if r.Ulimits, err = ulimits(f.Ulimit); err != nil {
		return err
	}
	if err := f.blockIO(r); err != nil {
		return err
	}
	return f.devices(r)
}

func (f *Flags) confinement(_ *client.Config, h *client.HostConfig) (err error) {
	h.CapAdd, h.CapDrop, h.Privileged, h.GroupAdd = f.CapAdd, f.CapDrop, f.Privileged, f.GroupAdd
	h.IpcMode, h.PidMode, h.UTSMode, h.UsernsMode, h.CgroupnsMode = f.IPC, f.PID, f.UTS, f.Userns, f.Cgroupns
	h.Runtime, h.Isolation = f.Runtime, f.Isolation
	if h.Sysctls, err = pairs("sysctl", f.Sysctl); err != nil {
		return err
	}
	return securityOptions(f.SecurityOpt, h)
}

// securityOptions passes --security-opt on; a seccomp profile is sent as its
// text because the engine may run elsewhere.
func securityOptions(args []string, h *client.HostConfig) error {
	for _, text := range args {
		name, value, ok := strings.Cut(text, "=")
		if !ok && name != "no-new-privileges" {
			if name, value, ok = strings.Cut(text, ":"); !ok {
				return fmt.Errorf("--security-opt %q is not NAME=VALUE", text)
			}
			text = name + "=" + value
		}
		switch {
		case name == "seccomp" && value != "unconfined" && value != "builtin":
			profile, err := compactFile(value)
			if err != nil {
				return fmt.Errorf("--security-opt seccomp: %w", err)
			}
			text = "seccomp=" + profile
		case name == "systempaths" && value == "unconfined":
			h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
			continue
		}
		h.SecurityOpt = append(h.SecurityOpt, text)
	}
	return nil
}

func compactFile(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return "", fmt.Errorf("%s is not JSON: %w", path, err)
	}
	return b.String(), nil
}
