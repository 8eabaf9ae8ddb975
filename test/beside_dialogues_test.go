package test

// containerDialogues are about requests, good and bad ones. The first four are the
// short form.
var containerDialogues = []dialogue{
	{"life", `
		id = POST /containers/create?name=one {"Image":"test/busybox:1","Cmd":["sleep","1000"]}
		GET /containers/one/json
		GET /containers/json?all=1
		POST /containers/one/start
		POST /containers/one/start
		GET /containers/one/json
		GET /containers/json
		GET /containers/json?size=1
		POST /containers/one/pause
		POST /containers/one/pause
		GET /containers/one/json
		POST /containers/one/start
		POST /containers/one/exec {"Cmd":["true"]}
		DELETE /containers/one
		POST /containers/one/unpause
		POST /containers/one/unpause
		POST /containers/one/stop?t=0
		POST /containers/one/stop?t=0
		GET /containers/one/json
		GET /containers/one/json?size=1
		POST /containers/one/pause
		POST /containers/one/kill
		POST /containers/one/resize?h=10&w=10
		POST /containers/one/wait
		GET /containers/one/stats?stream=0
		GET /containers/one/top
		POST /containers/one/exec {"Cmd":["true"]}
		POST /containers/one/restart?t=0
		POST /containers/one/kill?signal=KILL
		AWAIT /containers/one/json State.Running false
		GET /containers/one/json
		POST /containers/one/rename?name=two
		GET /containers/one/json
		DELETE /containers/two
		DELETE /containers/two
	`},
	{"names and ids", `
		id = POST /containers/create?name=one {"Image":"test/busybox:1","Cmd":["true"]}
		POST /containers/create?name=one {"Image":"test/busybox:1","Cmd":["true"]}
		POST /containers/create?name=/lead {"Image":"test/busybox:1","Cmd":["true"]}
		POST /containers/create?name=x {"Image":"test/busybox:1","Cmd":["true"]}
		POST /containers/create?name=bad%20name {"Image":"test/busybox:1","Cmd":["true"]}
		POST /containers/create?name=a/b {"Image":"test/busybox:1","Cmd":["true"]}
		POST /containers/create {"Image":"test/busybox:1","Cmd":["true"]}
		GET /containers/$id/json
		GET /containers/nosuch/json
		GET /containers//json
		GET /containers/%20/json
		POST /containers/one/rename?name=lead
		POST /containers/one/rename?name=one
		POST /containers/one/rename
		POST /containers/one/rename?name=b!d
		POST /containers/nosuch/rename?name=other
		POST /containers/one/rename?name=/two
		GET /containers/two/json
		GET /containers/json?all=1
		PUT /containers/two/json
		POST /containers/two/json
		DELETE /containers/nosuch
		DELETE /containers/nosuch?force=1
		DELETE /containers/two?link=1
		DELETE /containers/two?v=1
	`},
	{"unknown containers", `
		POST /containers/nosuch/start
		POST /containers/nosuch/stop
		POST /containers/nosuch/restart
		POST /containers/nosuch/kill
		POST /containers/nosuch/pause
		POST /containers/nosuch/unpause
		POST /containers/nosuch/wait
		POST /containers/nosuch/resize?h=1&w=1
		POST /containers/nosuch/attach
		UPGRADE POST /containers/nosuch/attach?stream=1&stdout=1
		GET /containers/nosuch/attach/ws
		GET /containers/nosuch/logs
		GET /containers/nosuch/logs?stdout=1
		GET /containers/nosuch/stats
		GET /containers/nosuch/stats?stream=0
		GET /containers/nosuch/top
		GET /containers/nosuch/changes
		GET /containers/nosuch/export
		GET /containers/nosuch/archive?path=/
		GET /containers/nosuch/archive
		HEAD /containers/nosuch/archive?path=/
		PUT /containers/nosuch/archive?path=/ tar:a=b
		POST /containers/nosuch/exec {"Cmd":["true"]}
		POST /containers/nosuch/update {"Memory":67108864}
		POST /commit?container=nosuch
		POST /commit
		POST /exec/nosuch/start {}
		POST /exec/nosuch/start {"Detach":true}
		POST /exec/nosuch/resize?h=1&w=1
		GET /exec/nosuch/json
		GET /nosuch
		POST /containers/nosuch
	`},
	{"bad bodies", `
		POST /containers/create
		POST /containers/create {
		POST /containers/create []
		POST /containers/create null
		POST /containers/create {}
		POST /containers/create "text"
		POST /containers/create {"Image":"test/busybox:1"}
		POST /containers/create {"Image":"test/busybox:1","Cmd":7}
		POST /containers/create {"Image":"test/busybox:1","Cmd":"true"}
		POST /containers/create {"Image":"test/busybox:1","Cmd":["true"]} trailing
		POST /containers/create {"Image":"test/busybox:1","Cmd":["true"],"Tty":"yes"}
		POST /containers/create {"Image":"test/busybox:1","Cmd":["true"],"HostConfig":7}
		POST /containers/create {"Image":"test/busybox:1","Cmd":["true"],"HostConfig":{"Memory":"1g"}}
		POST /containers/create {"Image":"nosuch:1","Cmd":["true"]}
		POST /containers/create {"Image":"BAD NAME","Cmd":["true"]}
		POST /containers/create {"Image":"","Cmd":["true"]}
		POST /containers/create {"Cmd":["true"]}
		Content-Type: text/plain; POST /containers/create {"Image":"test/busybox:1","Cmd":["true"]}
		Content-Type: application/json;charset=utf-8; POST /containers/create {"Image":"test/busybox:1","Cmd":["true"]}
		id = POST /containers/create?name=one {"Image":"test/busybox:1","Cmd":["sleep","1000"]}
		POST /containers/one/start {"Memory":1}
		POST /containers/one/start {}
		POST /containers/one/exec
		POST /containers/one/exec {
		POST /containers/one/exec {}
		POST /containers/one/exec {"Cmd":[]}
		POST /containers/one/exec {"Cmd":"true"}
		POST /containers/one/exec {"Cmd":["true"],"User":"nosuchuser"}
		Content-Type: text/plain; POST /containers/one/exec {"Cmd":["true"]}
		POST /containers/one/update
		POST /containers/one/update {
		POST /containers/one/update {}
		POST /containers/one/update {"Memory":"x"}
		Content-Type: text/plain; POST /containers/one/update {}
		Content-Type: text/plain; POST /commit?container=one {}
		POST /commit?container=one {
	`},
	{"bad parameters", `
		id = POST /containers/create?name=one {"Image":"test/busybox:1","Cmd":["sleep","1000"]}
		POST /containers/one/stop?t=x
		POST /containers/one/restart?t=x
		POST /containers/one/start
		POST /containers/one/kill?signal=NOSUCH
		POST /containers/one/kill?signal=99
		POST /containers/one/kill?signal=0
		POST /containers/one/kill?signal=-1
		POST /containers/one/kill?signal=CONT
		POST /containers/one/kill?signal=sigcont
		POST /containers/one/kill?signal=18
		POST /containers/one/resize
		POST /containers/one/resize?h=x&w=10
		POST /containers/one/resize?h=10
		POST /containers/one/resize?h=-1&w=10
		POST /containers/one/resize?h=10&w=10
		GET /containers/one/logs
		GET /containers/one/logs?stdout=1&since=x
		GET /containers/one/logs?stdout=1&until=x
		GET /containers/one/logs?stdout=1&tail=x
		GET /containers/one/logs?stdout=1&tail=-1
		GET /containers/one/logs?stdout=1&since=-1
		GET /containers/one/top?ps_args=-x%20nosuch
		GET /containers/one/top?ps_args=-ef%3B
		GET /containers/one/archive
		HEAD /containers/one/archive
		PUT /containers/one/archive tar:a=b
		GET /containers/json?limit=x
		GET /containers/json?limit=-1
		GET /containers/json?filters=x
		GET /containers/json?filters={"nosuch":["x"]}
		GET /containers/json?filters={"status":["nosuch"]}
		GET /containers/json?filters={"health":["nosuch"]}
		GET /containers/json?filters={"exited":["x"]}
		GET /containers/json?filters={"before":["nosuch"]}
		GET /containers/json?filters={"since":["nosuch"]}
		GET /containers/json?filters={"is-task":["x"]}
		GET /containers/json?filters={"publish":["x"]}
		GET /containers/json?filters={"expose":["99999"]}
		GET /containers/json?filters={"isolation":["x"]}
		GET /containers/json?filters={"ancestor":["BAD NAME"]}
		GET /containers/json?filters={"name":["["]}
		GET /containers/json?filters={"id":[""]}
		GET /containers/json?filters=[]
		GET /containers/json?filters={}
		GET /containers/json?filters={"label":"x"}
		GET /containers/json?filters={"label":{"x":true}}
		POST /containers/prune?filters={"nosuch":["x"]}
		POST /containers/prune?filters={"until":["x"]}
		POST /containers/prune?filters=x
		POST /containers/create?platform=bad/plat/form/x {"Image":"test/busybox:1","Cmd":["true"]}
		POST /containers/create?platform=windows/amd64 {"Image":"test/busybox:1","Cmd":["true"]}
		POST /containers/create?platform=linux/amd64 {"Image":"test/busybox:1","Cmd":["true"]}
		POST /commit?container=one&repo=BAD
		POST /commit?container=one&repo=ok&tag=b!d
		POST /commit?container=one&changes=NOSUCH%20x
		POST /commit?container=one&changes=RUN%20x
	`},
	{"filters", `
		one = POST /containers/create?name=one {"Image":"test/busybox:1","Cmd":["sleep","1000"],"Labels":{"a":"b","tier":"front"},"ExposedPorts":{"80/tcp":{},"53/udp":{}},"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"$port"}]},"Tmpfs":{"/t":""}}}
		two = POST /containers/create?name=two {"Image":"test/busybox:1","Cmd":["sh","-c","exit 3"],"Labels":{"a":"c"},"HostConfig":{"NetworkMode":"none","Binds":["vol:/data","/usr:/host:ro"]}}
		three = POST /containers/create?name=three {"Image":"test/busybox:1","Cmd":["true"],"HostConfig":{"NetworkMode":"host"},"Healthcheck":{"Test":["NONE"]}}
		POST /containers/one/start
		POST /containers/two/start
		POST /containers/two/wait
		GET /containers/json
		GET /containers/json?all=1
		GET /containers/json?all=0
		GET /containers/json?limit=2
		GET /containers/json?limit=0
		GET /containers/json?limit=-1
		GET /containers/json?all=1&limit=1
		GET /containers/json?since=$one&all=1
		GET /containers/json?before=$three&all=1
		GET /containers/json?filters={"id":["$two"]}&all=1
		GET /containers/json?filters={"id":["zzzz"]}&all=1
		GET /containers/json?filters={"name":["t"]}&all=1
		GET /containers/json?filters={"name":["^/two$"]}&all=1
		GET /containers/json?filters={"name":["^two$"]}&all=1
		GET /containers/json?filters={"name":["/one"]}&all=1
		GET /containers/json?filters={"name":["one","two"]}&all=1
		GET /containers/json?filters={"label":["a"]}&all=1
		GET /containers/json?filters={"label":["a=b"]}&all=1
		GET /containers/json?filters={"label":["a=b","tier=front"]}&all=1
		GET /containers/json?filters={"label":["a=b","a=c"]}&all=1
		GET /containers/json?filters={"label":{"a=c":true}}&all=1
		GET /containers/json?filters={"label":["a="]}&all=1
		GET /containers/json?filters={"status":["created"]}
		GET /containers/json?filters={"status":["exited"]}
		GET /containers/json?filters={"status":["running","exited"]}
		GET /containers/json?filters={"status":["dead"]}
		GET /containers/json?filters={"exited":["3"]}
		GET /containers/json?filters={"exited":["0"]}
		GET /containers/json?filters={"before":["two"]}
		GET /containers/json?filters={"since":["two"]}
		GET /containers/json?filters={"since":["one"],"before":["three"]}
		GET /containers/json?filters={"volume":["vol"]}&all=1
		GET /containers/json?filters={"volume":["/data"]}&all=1
		GET /containers/json?filters={"volume":["/usr"]}&all=1
		GET /containers/json?filters={"volume":["/t"]}&all=1
		GET /containers/json?filters={"volume":["vo"]}&all=1
		GET /containers/json?filters={"network":["none"]}&all=1
		GET /containers/json?filters={"network":["host"]}&all=1
		GET /containers/json?filters={"network":["bridge"]}&all=1
		GET /containers/json?filters={"network":["nosuch"]}&all=1
		GET /containers/json?filters={"publish":["80"]}&all=1
		GET /containers/json?filters={"publish":["$port"]}&all=1
		GET /containers/json?filters={"publish":["$port-$port/tcp"]}&all=1
		GET /containers/json?filters={"publish":["53/udp"]}&all=1
		GET /containers/json?filters={"expose":["80"]}&all=1
		GET /containers/json?filters={"expose":["53/udp"]}&all=1
		GET /containers/json?filters={"expose":["53"]}&all=1
		GET /containers/json?filters={"expose":["50-90"]}&all=1
		GET /containers/json?filters={"health":["none"]}&all=1
		GET /containers/json?filters={"health":["healthy"]}&all=1
		GET /containers/json?filters={"isolation":["default"]}&all=1
		GET /containers/json?filters={"isolation":["x"]}&all=1
		GET /containers/json?filters={"is-task":["true"]}&all=1
		GET /containers/json?filters={"is-task":["false"]}&all=1
		GET /containers/json?filters={"is-task":["x"]}&all=1
		GET /containers/json?filters={"ancestor":["test/busybox:1"]}&all=1
		GET /containers/json?filters={"ancestor":["test/busybox"]}&all=1
		GET /containers/json?filters={"ancestor":["nosuch"]}&all=1
		POST /containers/prune?filters={"until":["1h"]}
		POST /containers/prune?filters={"label":["a=zz"]}
		POST /containers/prune?filters={"label!":["a=c"]}
		POST /containers/prune
		POST /containers/prune
		GET /containers/json?all=1
	`},
	{"logs", `
		POST /containers/create?name=one {"Image":"test/busybox:1","Cmd":["sh","-c","echo out; echo err >&2; echo -n tail"],"Labels":{"k":"v"},"HostConfig":{"LogConfig":{"Type":"json-file","Config":{"labels":"k"}}}}
		GET /containers/one/logs?stdout=1
		POST /containers/one/start
		POST /containers/one/wait
		GET /containers/one/logs?stdout=1
		GET /containers/one/logs?stderr=1
		GET /containers/one/logs?stdout=true&tail=1
		GET /containers/one/logs?stdout=1&tail=0
		GET /containers/one/logs?stdout=1&tail=all
		GET /containers/one/logs?stdout=1&tail=x
		GET /containers/one/logs?stdout=1&tail=-5
		GET /containers/one/logs?stdout=1&since=1
		GET /containers/one/logs?stdout=1&until=1
		GET /containers/one/logs?stdout=1&since=99999999999
		GET /containers/one/logs?stdout=1&until=99999999999
		GET /containers/one/logs?stdout=1&since=1.5&until=99999999999.000000001
		GET /containers/one/logs?stdout=1&timestamps=1
		GET /containers/one/logs?stdout=1&details=1
		GET /containers/one/logs?stdout=1&follow=1
		POST /containers/one/attach?logs=1&stdout=1
		UPGRADE POST /containers/one/attach?logs=1&stdout=1
		POST /containers/create?name=two {"Image":"test/busybox:1","Tty":true,"Cmd":["sh","-c","echo out; echo err >&2"]}
		POST /containers/two/start
		POST /containers/two/wait
		GET /containers/two/logs?stdout=1&stderr=1
		GET /containers/two/logs?stderr=1
		GET /containers/two/logs?stdout=1&timestamps=1
		UPGRADE POST /containers/two/attach?logs=1&stdout=1
		POST /containers/create?name=three {"Image":"test/busybox:1","Cmd":["echo","x"],"HostConfig":{"LogConfig":{"Type":"none"}}}
		POST /containers/three/start
		POST /containers/three/wait
		GET /containers/three/logs?stdout=1
		GET /containers/three/json
		POST /containers/create?name=four {"Image":"test/busybox:1","Cmd":["echo","x"],"HostConfig":{"LogConfig":{"Type":"local"}}}
		POST /containers/four/start
		POST /containers/four/wait
		GET /containers/four/logs?stdout=1
		POST /containers/create?name=five {"Image":"test/busybox:1","Cmd":["echo","x"],"HostConfig":{"LogConfig":{"Type":"nosuch"}}}
		POST /containers/create?name=six {"Image":"test/busybox:1","Cmd":["echo","x"],"HostConfig":{"LogConfig":{"Type":"json-file","Config":{"nosuch":"1"}}}}
		POST /containers/create?name=seven {"Image":"test/busybox:1","Cmd":["echo","x"],"HostConfig":{"LogConfig":{"Type":"json-file","Config":{"max-size":"x"}}}}
	`},
	{"attach", `
		POST /containers/create?name=one {"Image":"test/busybox:1","Cmd":["cat"],"OpenStdin":true,"StdinOnce":true,"AttachStdin":true,"AttachStdout":true}
		POST /containers/one/start
		UPGRADE POST /containers/one/attach?stream=1&stdin=1&stdout=1&stderr=1 << hello
		POST /containers/one/wait
		POST /containers/create?name=two {"Image":"test/busybox:1","Cmd":["sh","-c","read a; echo got $a; exit 5"],"OpenStdin":true,"StdinOnce":true,"Tty":true}
		POST /containers/two/start
		POST /containers/two/attach?stream=1&stdin=1&stdout=1&detachKeys=nosuch
		GET /containers/one/attach/ws
	`},
	{"exec", `
		POST /containers/create?name=one {"Image":"test/busybox:1","Cmd":["sleep","1000"],"Env":["A=b"],"WorkingDir":"/www"}
		POST /containers/one/start
		e = POST /containers/one/exec {"Cmd":["sh","-c","echo $A $X; pwd; id -u; exit 4"],"AttachStdout":true,"AttachStderr":true,"Env":["X=y"],"WorkingDir":"/etc","User":"user"}
		GET /exec/$e/json
		POST /exec/$e/resize?h=10&w=10
		POST /exec/$e/start {}
		GET /exec/$e/json
		POST /exec/$e/start {}
		GET /containers/one/json
		f = POST /containers/one/exec {"Cmd":["cat"],"AttachStdin":true,"AttachStdout":true}
		UPGRADE POST /exec/$f/start {"Detach":false,"Tty":false} << input
		GET /exec/$f/json
		g = POST /containers/one/exec {"Cmd":["true"]}
		POST /exec/$g/start {"Detach":true}
		AWAIT /exec/$g/json Running false
		GET /exec/$g/json
		h = POST /containers/one/exec {"Cmd":["nosuch"],"AttachStdout":true}
		UPGRADE POST /exec/$h/start {}
		GET /exec/$h/json
		hh = POST /containers/one/exec {"Cmd":["nosuch"],"AttachStdout":true}
		POST /exec/$hh/start {"Detach":true}
		GET /exec/$hh/json
		i = POST /containers/one/exec {"Cmd":["sh","-c","stty size; tty"],"Tty":true,"AttachStdout":true,"Privileged":true,"DetachKeys":"ctrl-a"}
		UPGRADE POST /exec/$i/start {"Tty":true}
		GET /exec/$i/json
		POST /containers/one/exec {"Cmd":["true"],"DetachKeys":"nosuch-key"}
		POST /containers/one/exec {"Cmd":["true"],"WorkingDir":"/nosuch"}
		j = POST /containers/one/exec {"Cmd":["true"],"User":"nosuchuser","AttachStdout":true}
		POST /exec/$j/start {}
		GET /exec/$j/json
		k = POST /containers/one/exec {"Cmd":["pwd"],"WorkingDir":"/nosuch","AttachStdout":true}
		POST /exec/$k/start {}
		POST /exec/$k/start
		POST /exec/$k/start {
		l = POST /containers/one/exec {"Cmd":["true"]}
		Content-Type: text/plain; POST /exec/$l/start {}
		POST /containers/one/pause
		POST /exec/$l/start {}
		POST /containers/one/unpause
		POST /containers/one/stop?t=0
		POST /exec/$l/start {}
		GET /exec/$l/json
		DELETE /containers/one
		GET /exec/$l/json
	`},
	{"archive", `
		POST /containers/create?name=one {"Image":"test/busybox:1","Cmd":["sleep","1000"],"HostConfig":{"Binds":["/usr/share:/ro:ro"],"Tmpfs":{"/tm":""}}}
		HEAD /containers/one/archive?path=/www/index.html
		HEAD /containers/one/archive?path=/www
		HEAD /containers/one/archive?path=/www/
		HEAD /containers/one/archive?path=/bin/sh
		HEAD /containers/one/archive?path=/nosuch
		HEAD /containers/one/archive?path=/
		HEAD /containers/one/archive?path=.
		HEAD /containers/one/archive?path=/www/index.html/
		GET /containers/one/archive?path=/www/index.html
		GET /containers/one/archive?path=/www
		GET /containers/one/archive?path=/www/.
		GET /containers/one/archive?path=/www/
		GET /containers/one/archive?path=/bin/sh
		GET /containers/one/archive?path=/nosuch
		GET /containers/one/archive?path=/www/index.html/
		PUT /containers/one/archive?path=/www tar:a=text d/ d/f=more
		PUT /containers/one/archive?path=/nosuch tar:a=text
		PUT /containers/one/archive?path=/www/index.html tar:a=text
		PUT /containers/one/archive?path=/ro tar:a=text
		PUT /containers/one/archive?path=/www&copyUIDGID=1 tar:b=text
		PUT /containers/one/archive?path=/www&noOverwriteDirNonDir=1 tar:d=text
		PUT /containers/one/archive?path=/www&noOverwriteDirNonDir=true tar:a/
		PUT /containers/one/archive?path=/www&noOverwriteDirNonDir=0 tar:d=text
		PUT /containers/one/archive?path=/www no-archive
		PUT /containers/one/archive?path=/www
		GET /containers/one/archive?path=/www
		GET /containers/one/changes
		POST /containers/one/start
		PUT /containers/one/archive?path=/tm tar:t=text
		HEAD /containers/one/archive?path=/tm/t
		GET /containers/one/changes
		GET /containers/one/export
		POST /containers/one/stop?t=0
		GET /containers/one/export
		GET /containers/one/changes
	`},
	{"commit", `
		POST /containers/create?name=one {"Image":"test/busybox:1","Cmd":["sh","-c","echo x > /new; sleep 1000"],"Env":["A=b"],"Labels":{"l":"m"}}
		POST /containers/one/start
		id = POST /commit?container=one&repo=made&tag=1&comment=c&author=a&pause=1&changes=CMD%20%5B%22cat%22,%22/new%22%5D&changes=ENV%20X=y
		GET /images/made:1/json
		GET /images/$id/history
		id2 = POST /commit?container=one {"Cmd":["other"],"Labels":{"n":"o"},"Env":["A=z"]}
		GET /images/$id2/json
		POST /commit?container=one&repo=made&tag=1&pause=0 null
	`},
	{"update", `
		POST /containers/create?name=one {"Image":"test/busybox:1","Cmd":["sleep","1000"],"HostConfig":{"Memory":67108864}}
		POST /containers/one/update {"Memory":33554432,"MemorySwap":67108864}
		GET /containers/one/json
		POST /containers/one/start
		POST /containers/one/update {"Memory":67108864}
		POST /containers/one/update {"Memory":67108864,"MemorySwap":134217728,"CpuShares":512,"CpuPeriod":100000,"CpuQuota":50000}
		GET /containers/one/json
		POST /containers/one/update {"NanoCpus":500000000}
		POST /containers/one/update {"PidsLimit":100}
		GET /containers/one/json
		POST /containers/one/update {"PidsLimit":0}
		GET /containers/one/json
		POST /containers/one/update {"PidsLimit":100}
		POST /containers/one/update {"PidsLimit":-1}
		GET /containers/one/json
		POST /containers/one/update {"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3}}
		GET /containers/one/json
		POST /containers/one/update {"RestartPolicy":{"Name":"nosuch"}}
		POST /containers/one/update {"RestartPolicy":{"Name":"always","MaximumRetryCount":3}}
		POST /containers/one/update {"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":-3}}
		POST /containers/one/update {"Memory":1}
		POST /containers/one/update {"Memory":-1}
		POST /containers/one/update {"MemoryReservation":1}
		POST /containers/one/update {"CpuShares":-1}
		POST /containers/one/update {"CpuPeriod":1}
		POST /containers/one/update {"CpuQuota":1}
		POST /containers/one/update {"CpusetCpus":"99"}
		POST /containers/one/update {"CpusetCpus":"x"}
		POST /containers/one/update {"CpusetMems":"99"}
		POST /containers/one/update {"BlkioWeight":5}
		POST /containers/one/update {"BlkioWeight":500}
		POST /containers/one/update {"KernelMemory":50000000}
		POST /containers/one/update {"NosuchField":1}
	`},
}
