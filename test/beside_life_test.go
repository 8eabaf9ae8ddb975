package test

// lifeDialogues are about what becomes of containers.
var lifeDialogues = []dialogue{
	{"networks", `
		n = POST /networks/create {"Name":"net","IPAM":{"Config":[{"Subnet":"$subnet.0/24"}]}}
		POST /containers/create?name=one {"Image":"test/busybox:1","Cmd":["sleep","1000"],"Hostname":"web","HostConfig":{"NetworkMode":"net"},"NetworkingConfig":{"EndpointsConfig":{"net":{"Aliases":["alias"],"IPAMConfig":{"IPv4Address":"$subnet.77"}}}}}
		GET /containers/one/json
		POST /containers/one/start
		GET /containers/one/json
		GET /containers/json
		GET /containers/json?filters={"network":["net"]}
		GET /containers/json?filters={"network":["$n"]}
		POST /networks/bridge/connect {"Container":"one"}
		GET /containers/one/json
		POST /networks/net/disconnect {"Container":"one"}
		GET /containers/one/json
		POST /networks/net/connect {"Container":"one","EndpointConfig":{"Aliases":["other"]}}
		GET /containers/one/json
		POST /containers/create?name=two {"Image":"test/busybox:1","Cmd":["true"],"HostConfig":{"NetworkMode":"container:one","PidMode":"container:one"}}
		POST /containers/two/start
		POST /containers/two/wait
		GET /containers/two/json
		POST /containers/create {"Image":"test/busybox:1","Cmd":["true"],"HostConfig":{"NetworkMode":"container:one","PortBindings":{"80/tcp":[{}]}}}
		POST /containers/create {"Image":"test/busybox:1","Cmd":["true"],"ExposedPorts":{"80/tcp":{}},"HostConfig":{"NetworkMode":"container:one"}}
		POST /containers/create {"Image":"test/busybox:1","Cmd":["true"],"HostConfig":{"NetworkMode":"container:one","Dns":["192.0.2.1"]}}
		POST /containers/create {"Image":"test/busybox:1","Cmd":["true"],"HostConfig":{"NetworkMode":"container:one","ExtraHosts":["a:192.0.2.1"]}}
		POST /containers/create {"Image":"test/busybox:1","Cmd":["true"],"Hostname":"x","HostConfig":{"NetworkMode":"container:one"}}
		POST /containers/create {"Image":"test/busybox:1","Cmd":["true"],"HostConfig":{"NetworkMode":"container:one","Links":["one:x"]}}
		POST /containers/create {"Image":"test/busybox:1","Cmd":["true"],"HostConfig":{"NetworkMode":"host","Links":["one:x"]}}
		POST /containers/create {"Image":"test/busybox:1","Cmd":["true"],"Hostname":"x","HostConfig":{"UTSMode":"host"}}
		POST /containers/one/stop?t=0
		GET /containers/one/json
		DELETE /containers/one?force=1
		DELETE /networks/net
	`},
	{"ends", `
		POST /containers/create?name=one {"Image":"test/busybox:1","Cmd":["sh","-c","exit 7"]}
		POST /containers/one/start
		POST /containers/one/wait
		POST /containers/one/wait?condition=not-running
		GET /containers/one/json
		POST /containers/create?name=dud-two {"Image":"test/busybox:1","Cmd":["nosuch"]}
		POST /containers/dud-two/start
		GET /containers/dud-two/json
		POST /containers/create?name=dud-three {"Image":"test/busybox:1","Cmd":["/etc/passwd"]}
		POST /containers/dud-three/start
		GET /containers/dud-three/json
		POST /containers/create?name=dud-five {"Image":"test/busybox:1","Cmd":["true"],"User":"nosuch"}
		POST /containers/dud-five/start
		GET /containers/dud-five/json
		POST /containers/create?name=six {"Image":"test/busybox:1","Cmd":["sh","-c","kill -9 $$"],"HostConfig":{"AutoRemove":true}}
		GET /containers/six/json
		POST /containers/create?name=seven {"Image":"test/busybox:1","Cmd":["sh","-c","test -e /again || { echo > /again; exit 1; }; sleep 1000"],"StopSignal":"SIGKILL","HostConfig":{"RestartPolicy":{"Name":"always"}}}
		POST /containers/seven/start
		AWAIT /containers/seven/json RestartCount 1
		AWAIT /containers/seven/json State.Status running
		POST /containers/seven/stop
		GET /containers/seven/json
		POST /containers/seven/restart
		GET /containers/seven/top
		GET /containers/seven/top?ps_args=-o%20pid,args
		GET /containers/seven/top?ps_args=aux
		GET /containers/seven/stats?stream=0
		POST /containers/seven/pause
		GET /containers/seven/top
		GET /containers/seven/stats?stream=0
		POST /containers/seven/stop
		POST /containers/seven/kill
		DELETE /containers/seven?force=1
	`},
	{"old clients", `
		POST /containers/create?name=one {"Image":"test/busybox:1","Cmd":["true"],"HostConfig":{"AutoRemove":true}}
		GET /containers/one/json
		POST /containers/create?name=two {"Image":"test/busybox:1","Cmd":["true"],"HostConfig":{"IpcMode":"","CgroupnsMode":"","PidsLimit":-1,"Mounts":[{"Type":"bind","Source":"/usr","Target":"/x","BindOptions":{"NonRecursive":true}}]}}
		GET /containers/two/json
		POST /containers/two/update {"PidsLimit":10}
		GET /containers/two/json
	`},
	{"health", `
		POST /containers/create?name=one {"Image":"test/busybox:1","Cmd":["sleep","1000"],"Healthcheck":{"Test":["CMD-SHELL","echo fine"],"Interval":1000000000}}
		GET /containers/one/json
		POST /containers/one/start
		AWAIT /containers/one/json State.Health.Status healthy
		GET /containers/json
		GET /containers/json?filters={"health":["healthy"]}
		GET /containers/json?filters={"health":["unhealthy","none"]}
		POST /containers/create?name=two {"Image":"test/busybox:1","Cmd":["sleep","1000"],"Healthcheck":{"Test":["CMD","false"],"Interval":100000000,"Retries":1}}
		POST /containers/two/start
		AWAIT /containers/two/json State.Health.Status unhealthy
		GET /containers/json?filters={"health":["unhealthy"]}
		POST /containers/one/stop?t=0
		GET /containers/json?all=1&filters={"health":["unhealthy"]}
	`},
}
