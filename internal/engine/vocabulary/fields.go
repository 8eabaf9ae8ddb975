package vocabulary

// class says what becomes of a field.
type class uint8

const (
	effective class = iota + 1 // does what docker's documentation says
	refused                    // any value but the neutral one is refused by name
	client                     // for the client's or the builder's own use; kept and shown
	output                     // filled by the engine in answers; ignored in requests
)

// field is one exported field of the request types.
type field struct {
	name  string // type and Go field name
	class class
	check func(*Request) error
}

const windowsOnly = "it is for Windows containers"

// refuse makes the check of a field that is not offered.
func refuse(name, hint string, set func(*Request) bool) field {
	return field{name, refused, func(r *Request) error {
		if set(r) {
			return unsupported(name, hint)
		}
		return nil
	}}
}

// fields lists every field. A test compares it with the types and tries that
// each refused field is refused.
var fields = [...]field{
	{"Config.Hostname", effective, checkHostname},
	{"Config.Domainname", effective, checkDomainname},
	{"Config.User", effective, nil},
	{"Config.AttachStdin", client, nil},
	{"Config.AttachStdout", client, nil},
	{"Config.AttachStderr", client, nil},
	{"Config.ExposedPorts", effective, checkExposed},
	{"Config.Tty", effective, nil},
	{"Config.OpenStdin", effective, nil},
	{"Config.StdinOnce", effective, nil},
	{"Config.Env", effective, checkEnv},
	{"Config.Cmd", effective, checkCommand},
	{"Config.Healthcheck", effective, checkHealth},
	{"Config.ArgsEscaped", client, nil},
	{"Config.Image", effective, nil},
	{"Config.Volumes", effective, nil},
	{"Config.WorkingDir", effective, checkWorkingDir},
	{"Config.Entrypoint", effective, nil},
	{"Config.NetworkDisabled", effective, nil},
	{"Config.OnBuild", client, nil},
	{"Config.Labels", effective, nil},
	{"Config.StopSignal", effective, checkStopSignal},
	{"Config.StopTimeout", effective, nil},
	{"Config.Shell", effective, nil},

	{"HostConfig.Binds", effective, nil},
	{"HostConfig.ContainerIDFile", client, nil},
	{"HostConfig.LogConfig", effective, checkLog},
	{"HostConfig.NetworkMode", effective, checkNetworkMode},
	{"HostConfig.PortBindings", effective, checkPorts},
	{"HostConfig.RestartPolicy", effective, checkRestart},
	{"HostConfig.AutoRemove", effective, nil},
	{"HostConfig.VolumeDriver", effective, checkVolumeDriver},
	{"HostConfig.VolumesFrom", effective, nil},
	{"HostConfig.ConsoleSize", effective, nil},
	{"HostConfig.Annotations", effective, checkAnnotations},
	{"HostConfig.CapAdd", effective, checkCaps},
	{"HostConfig.CapDrop", effective, nil},
	{"HostConfig.CgroupnsMode", effective, checkCgroupns},
	{"HostConfig.DNS", effective, nil},
	{"HostConfig.DNSOptions", effective, checkDNS},
	{"HostConfig.DNSSearch", effective, nil},
	{"HostConfig.ExtraHosts", effective, checkExtraHosts},
	{"HostConfig.GroupAdd", effective, nil},
	{"HostConfig.IpcMode", effective, checkIpc},
	{"HostConfig.Cgroup", output, checkCgroup},
	{"HostConfig.Links", effective, checkLinks},
	{"HostConfig.OomScoreAdj", effective, checkOOMScore},
	{"HostConfig.PidMode", effective, checkPid},
	{"HostConfig.Privileged", effective, nil},
	{"HostConfig.PublishAllPorts", effective, nil},
	{"HostConfig.ReadonlyRootfs", effective, nil},
	{"HostConfig.SecurityOpt", effective, checkSecurity},
	{"HostConfig.StorageOpt", effective, checkStorage},
	{"HostConfig.Tmpfs", effective, nil},
	{"HostConfig.UTSMode", effective, checkUTS},
	{"HostConfig.UsernsMode", effective, checkUserns},
	{"HostConfig.ShmSize", effective, checkShm},
	{"HostConfig.Sysctls", effective, checkSysctls},
	{"HostConfig.Runtime", effective, checkRuntime},
	{"HostConfig.Umask", effective, checkUmask},
	{"HostConfig.Isolation", effective, checkIsolation},
	{"HostConfig.Resources", effective, nil},
	{"HostConfig.Mounts", effective, nil},
	{"HostConfig.MaskedPaths", effective, checkPaths},
	{"HostConfig.ReadonlyPaths", effective, nil},
	{"HostConfig.Init", effective, checkInit},

	{"Resources.CPUShares", effective, checkCPU},
	{"Resources.Memory", effective, checkMemory},
	{"Resources.NanoCPUs", effective, nil},
	{"Resources.CgroupParent", effective, checkCgroupParent},
	{"Resources.BlkioWeight", effective, checkBlkio},
	{"Resources.BlkioWeightDevice", effective, nil},
	{"Resources.BlkioDeviceReadBps", effective, nil},
	{"Resources.BlkioDeviceWriteBps", effective, nil},
	{"Resources.BlkioDeviceReadIOps", effective, nil},
	{"Resources.BlkioDeviceWriteIOps", effective, nil},
	{"Resources.CPUPeriod", effective, nil},
	{"Resources.CPUQuota", effective, nil},
	{"Resources.CPURealtimePeriod", effective, nil},
	{"Resources.CPURealtimeRuntime", effective, nil},
	{"Resources.CpusetCpus", effective, checkCpuset},
	{"Resources.CpusetMems", effective, nil},
	{"Resources.Devices", effective, checkDevices},
	{"Resources.DeviceCgroupRules", effective, checkDeviceRules},
	{"HostConfig.DeviceRequests", effective, checkDeviceRequests},
	{"Resources.MemoryReservation", effective, nil},
	{"Resources.MemorySwap", effective, nil},
	{"Resources.MemorySwappiness", effective, nil},
	{"Resources.OomKillDisable", effective, nil},
	{"Resources.PidsLimit", effective, nil},
	{"Resources.Ulimits", effective, checkUlimits},
	refuse("HostConfig.CPUCount", windowsOnly, func(r *Request) bool { return r.HostConfig.CPUCount != 0 }),
	refuse("HostConfig.CPUPercent", windowsOnly, func(r *Request) bool { return r.HostConfig.CPUPercent != 0 }),
	refuse("HostConfig.IOMaximumIOps", windowsOnly, func(r *Request) bool { return r.HostConfig.IOMaximumIOps != 0 }),
	refuse("HostConfig.IOMaximumBandwidth", windowsOnly, func(r *Request) bool { return r.HostConfig.IOMaximumBandwidth != 0 }),

	{"NetworkingConfig.EndpointsConfig", effective, checkEndpoints},
	{"EndpointSettings.IPAMConfig", effective, nil},
	{"EndpointSettings.Links", effective, checkEndpointLinks},
	{"EndpointSettings.Aliases", effective, nil},
	refuseEndpoint("EndpointSettings.DriverOpts", ""),
	{"EndpointSettings.GwPriority", effective, nil},
	{"EndpointSettings.NetworkID", output, nil},
	{"EndpointSettings.EndpointID", output, nil},
	{"EndpointSettings.Gateway", output, nil},
	{"EndpointSettings.IPAddress", output, nil},
	{"EndpointSettings.MacAddress", effective, nil},
	{"EndpointSettings.IPPrefixLen", output, nil},
	{"EndpointSettings.IPv6Gateway", output, nil},
	{"EndpointSettings.GlobalIPv6Address", output, nil},
	{"EndpointSettings.GlobalIPv6PrefixLen", output, nil},
	{"EndpointSettings.DNSNames", output, nil},
	{"EndpointIPAMConfig.IPv4Address", effective, nil},
	{"EndpointIPAMConfig.IPv6Address", effective, nil},
	refuseEndpoint("EndpointIPAMConfig.LinkLocalIPs", ""),
}
