package spec

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"

	"berth/internal/client"
)

// request parses a command line after `run`.
func request(args ...string) (*client.CreateRequest, error) {
	f := &Flags{}
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	f.Register(fs)
	fs.SetInterspersed(false)
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	return f.Request(fs.Arg(0), fs.Args()[1:])
}

// TestFlagsBecomeRequests lists flags with the part of the request, in the
// API's words, that docker's command line sends for them.
func TestFlagsBecomeRequests(t *testing.T) {
	t.Setenv("FROM_CALLER", "here")
	t.Setenv("HOME", "/home/me")
	cwd, _ := os.Getwd()
	for _, c := range []struct{ args, want string }{
		{"-i -t img sh -c x", `{"Tty":true,"OpenStdin":true,"Cmd":["sh","-c","x"],"StdinOnce":true,"AttachStdin":true}`},
		{"-a stdout img", `{"AttachStdout":true}`},
		{"-e A=1 -e FROM_CALLER -e NOWHERE -e B= img", `{"Env":["A=1","FROM_CALLER=here","NOWHERE","B="]}`},
		{"-l a=1 --label b img", `{"Labels":{"a":"1","b":""}}`},
		{"-p 80 img", `{"ExposedPorts":{"80/tcp":{}},"HostConfig":{"PortBindings":{"80/tcp":[{}]}}}`},
		{"-p 8080:80 img", `{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"8080"}]}}}`},
		{"-p 127.0.0.1:8080:80/udp img", `{"HostConfig":{"PortBindings":{"80/udp":[{"HostIp":"127.0.0.1","HostPort":"8080"}]}}}`},
		{"-p 127.0.0.1::80 img", `{"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1"}]}}}`},
		{"-p [::1]:8080:80 img", `{"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"::1","HostPort":"8080"}]}}}`},
		{"-p 8000-8001:80-81 img", `{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"8000"}],"81/tcp":[{"HostPort":"8001"}]}}}`},
		{"-p 8000-8010:80 img", `{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"8000-8010"}]}}}`},
		{"-p 1:80 -p 2:80 img", `{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"1"},{"HostPort":"2"}]}}}`},
		{"-p published=8080,target=80,protocol=udp img", `{"HostConfig":{"PortBindings":{"80/udp":[{"HostPort":"8080"}]}}}`},
		{"--expose 90-91/udp -P img", `{"ExposedPorts":{"90/udp":{},"91/udp":{}},"HostConfig":{"PublishAllPorts":true}}`},
		{"-v /a:/b:ro -v name:/c img", `{"HostConfig":{"Binds":["/a:/b:ro","name:/c"]}}`},
		{"-v /anon img", `{"Volumes":{"/anon":{}}}`},
		{"-v .:/b img", `{"HostConfig":{"Binds":["` + cwd + `:/b"]}}`},
		{"-v ~/x:/b img", `{"HostConfig":{"Binds":["/home/me/x:/b"]}}`},
		{"--mount type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave img",
			`{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true,"BindOptions":{"Propagation":"rslave"}}]}}`},
		{"--mount source=v,target=/b,volume-opt=o=1,volume-label=l=2,volume-nocopy img",
			`{"HostConfig":{"Mounts":[{"Type":"volume","Source":"v","Target":"/b","VolumeOptions":{"NoCopy":true,"Labels":{"l":"2"},"DriverConfig":{"Options":{"o":"1"}}}}]}}`},
		{"--mount type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777 img",
			`{"HostConfig":{"Mounts":[{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":1048576,"Mode":1023}}]}}`},
		{"--tmpfs /run --tmpfs /x:size=1m,exec img", `{"HostConfig":{"Tmpfs":{"/run":"","/x":"size=1m,exec"}}}`},
		{"-w /w -u 1:2 -h name --domainname d img", `{"WorkingDir":"/w","User":"1:2","Hostname":"name","Domainname":"d"}`},
		{"--entrypoint e img", `{"Entrypoint":["e"]}`},
		{"--entrypoint= img", `{"Entrypoint":[""]}`},
		{"--network host img", `{"HostConfig":{"NetworkMode":"host"}}`},
		{"--net container:x img", `{"HostConfig":{"NetworkMode":"container:x"}}`},
		{"--network name=n,alias=a,ip=10.0.0.2 img",
			`{"HostConfig":{"NetworkMode":"n"},"NetworkingConfig":{"EndpointsConfig":{"n":{"Aliases":["a"],"IPAMConfig":{"IPv4Address":"10.0.0.2"}}}}}`},
		{"--network a --network b --ip 10.0.0.2 img",
			`{"HostConfig":{"NetworkMode":"a"},"NetworkingConfig":{"EndpointsConfig":{"a":{"IPAMConfig":{"IPv4Address":"10.0.0.2"}},"b":{}}}}`},
		{"--mac-address 02:42:ac:11:00:02 img", `{"NetworkingConfig":{"EndpointsConfig":{"default":{"MacAddress":"02:42:ac:11:00:02"}}}}`},
		{"--add-host a:1.2.3.4 --add-host b=::1 --add-host c:host-gateway img", `{"HostConfig":{"ExtraHosts":["a:1.2.3.4","b:::1","c:host-gateway"]}}`},
		{"--dns 1.1.1.1 --dns-opt ndots:2 --dns-search x img", `{"HostConfig":{"Dns":["1.1.1.1"],"DnsOptions":["ndots:2"],"DnsSearch":["x"]}}`},
		{"-m 512m --memory-swap -1 --memory-reservation 1g --memory-swappiness 0 img",
			`{"HostConfig":{"Memory":536870912,"MemorySwap":-1,"MemoryReservation":1073741824,"MemorySwappiness":0}}`},
		{"--cpus 1.5 -c 512 --cpuset-cpus 0-1 --cpuset-mems 0 img", `{"HostConfig":{"NanoCpus":1500000000,"CpuShares":512,"CpusetCpus":"0-1","CpusetMems":"0"}}`},
		{"--cpu-period 100000 --cpu-quota 50000 img", `{"HostConfig":{"CpuPeriod":100000,"CpuQuota":50000}}`},
		{"--pids-limit -1 --shm-size 64m img", `{"HostConfig":{"PidsLimit":-1,"ShmSize":67108864}}`},
		{"--ulimit nofile=1:2 --ulimit core=-1 img", `{"HostConfig":{"Ulimits":[{"Name":"nofile","Soft":1,"Hard":2},{"Name":"core","Soft":-1,"Hard":-1}]}}`},
		{"--cap-add NET_ADMIN --cap-drop ALL --privileged img", `{"HostConfig":{"CapAdd":["NET_ADMIN"],"CapDrop":["ALL"],"Privileged":true}}`},
		{"--security-opt no-new-privileges --security-opt label:disable --security-opt seccomp=unconfined img",
			`{"HostConfig":{"SecurityOpt":["no-new-privileges","label=disable","seccomp=unconfined"]}}`},
		{"--security-opt systempaths=unconfined img", `{"HostConfig":{"MaskedPaths":[],"ReadonlyPaths":[]}}`},
		{"--device /dev/null --device /dev/zero:/dev/z:r --device /dev/full:w img",
			`{"HostConfig":{"Devices":[{"PathOnHost":"/dev/null","PathInContainer":"/dev/null","CgroupPermissions":"rwm"},` +
				`{"PathOnHost":"/dev/zero","PathInContainer":"/dev/z","CgroupPermissions":"r"},{"PathOnHost":"/dev/full","PathInContainer":"/dev/full","CgroupPermissions":"w"}]}}`},
		{"--device vendor.com/gpu=0 img", `{"HostConfig":{"DeviceRequests":[{"Driver":"cdi","DeviceIDs":["vendor.com/gpu=0"]}]}}`},
		{"--gpus all img", `{"HostConfig":{"DeviceRequests":[{"Count":-1,"Capabilities":[["gpu"]]}]}}`},
		{"--group-add audio --init --read-only img", `{"HostConfig":{"GroupAdd":["audio"],"Init":true,"ReadonlyRootfs":true}}`},
		{"--init=false img", `{"HostConfig":{"Init":false}}`},
		{"--restart on-failure:3 img", `{"HostConfig":{"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3}}}`},
		{"--rm img", `{"HostConfig":{"AutoRemove":true}}`},
		{"--stop-signal INT --stop-timeout 0 img", `{"StopSignal":"INT","StopTimeout":0}`},
		{"--health-cmd x --health-interval 1s --health-retries 2 --health-start-interval 1ms img",
			`{"Healthcheck":{"Test":["CMD-SHELL","x"],"Interval":1000000000,"Retries":2,"StartInterval":1000000}}`},
		{"--no-healthcheck img", `{"Healthcheck":{"Test":["NONE"]}}`},
		{"--log-driver json-file --log-opt max-size=1m img", `{"HostConfig":{"LogConfig":{"Type":"json-file","Config":{"max-size":"1m"}}}}`},
		{"--ipc shareable --pid host --uts host --userns host --cgroupns private --cgroup-parent /x img",
			`{"HostConfig":{"IpcMode":"shareable","PidMode":"host","UTSMode":"host","UsernsMode":"host","CgroupnsMode":"private","CgroupParent":"/x"}}`},
		{"--sysctl net.core.somaxconn=1 --oom-kill-disable --oom-score-adj -5 img",
			`{"HostConfig":{"Sysctls":{"net.core.somaxconn":"1"},"OomKillDisable":true,"OomScoreAdj":-5}}`},
		{"--blkio-weight 100 --blkio-weight-device /dev/a:200 --device-read-bps /dev/a:1mb --device-write-iops /dev/a:5 img",
			`{"HostConfig":{"BlkioWeight":100,"BlkioWeightDevice":[{"Path":"/dev/a","Weight":200}],"BlkioDeviceReadBps":[{"Path":"/dev/a","Rate":1048576}],"BlkioDeviceWriteIOps":[{"Path":"/dev/a","Rate":5}]}}`},
		{"--runtime runc --link a:b --volumes-from c:ro --volume-driver d --storage-opt size=1G --annotation a=b img",
			`{"HostConfig":{"Runtime":"runc","Links":["a:b"],"VolumesFrom":["c:ro"],"VolumeDriver":"d","StorageOpt":{"size":"1G"},"Annotations":{"a":"b"}}}`},
	} {
		r, err := request(strings.Fields(c.args)...)
		if err != nil {
			t.Errorf("%s: %v", c.args, err)
			continue
		}
		text, _ := json.Marshal(r)
		var got container.CreateRequest
		if err := json.Unmarshal(text, &got); err != nil {
			t.Errorf("%s: the API's types refuse it: %v", c.args, err)
		}
		expectPart(t, c.args, c.want, string(text))
	}
}

// expectPart checks that got, in JSON, has everything of want.
func expectPart(t *testing.T, what, want, got string) {
	t.Helper()
	var w, g any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	_ = json.Unmarshal([]byte(got), &g)
	if !has(g, w) {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

func has(got, want any) bool {
	w, ok := want.(map[string]any)
	if !ok || len(w) == 0 {
		return reflect.DeepEqual(got, want)
	}
	g, ok := got.(map[string]any)
	for name, value := range w {
		part, found := g[name]
		if !ok || !found || !has(part, value) {
			return false
		}
	}
	return true
}

func TestAbsentFlagsSendNothing(t *testing.T) {
	t.Parallel()
	r, err := request("img")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(r)
	if want := `{"AttachStdout":true,"AttachStderr":true,"Image":"img","HostConfig":{}}`; string(text) != want {
		t.Errorf("got %s, want %s", text, want)
	}
}

// TestRefusals lists what must be refused, with a word that the refusal says.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, word string }{
		{"-p abc img", "port"}, {"-p 80:70000 img", "port"}, {"-p 1-3:1-2 img", "length"}, {"-p 3-1:80 img", "backwards"},
		{"-p 80:80/icmp img", "icmp"}, {"-p ::1:80:80 img", "brackets"}, {"-p a.b:80:80 img", "IP address"}, {"-p 80: img", "missing"},
		{"-p 0 img", "port 0"}, {"-p x=1 img", "unknown field"}, {"--expose 1:2 img", "--publish"},
		{"-v /a:b img", "absolute"}, {"-v :/b img", "source"}, {"-v a/b:/c img", "./a/b"}, {"-v /a:/ img", "root"},
		{"--mount type=bind,target=/x img", "source"}, {"--mount type=tmpfs,source=a,target=/x img", "no source"},
		{"--mount type=volume img", "target"}, {"--mount type=weird,target=/x img", "weird"}, {"--mount foo=bar img", "unknown field"},
		{"--mount type=bind,src=/a,dst=/b,tmpfs-size=1 img", "tmpfs-"}, {"--mount type=tmpfs,dst=/b,tmpfs-mode=9 img", "octal"},
		{"--mount type=bind,src=/a,dst=/b,bind-recursive=readonly img", "readonly"},
		{"-e =x img", "name"}, {"--env-file /nonexistent img", "nonexistent"}, {"-l =x img", "name"},
		{"-m lots img", "size"}, {"-m -5 img", "size"}, {"--cpus x img", "number"}, {"--cpus 0.0000000001 img", "decimal"},
		{"--cpus 1 --cpu-quota 5 img", "same limit"}, {"--memory-swappiness 101 img", "100"}, {"--ulimit x img", "ulimit"},
		{"--restart sometimes img", "unless-stopped"}, {"--restart always:3 img", "on-failure"}, {"--restart always --rm img", "contradict"},
		{"--health-cmd x --no-healthcheck img", "contradict"}, {"--health-interval -1s img", "negative"},
		{"--device /dev/x:/y:q img", "access"}, {"--device :x img", "DEVICE"}, {"--device-cgroup-rule x img", "TYPE"},
		{"--blkio-weight 5 img", "10"}, {"--device-read-bps sda:1 img", "/dev/"}, {"--add-host a img", "NAME:ADDRESS"},
		{"--add-host a:b img", "IP address"}, {"--dns x img", "IP address"}, {"--pid nowhere img", "container:NAME"}, {"--uts x img", "host"},
		{"--pull maybe img", "missing, always or never"}, {"-a out img", "stdout"}, {"--sysctl x img", "NAME=VALUE"},
		{"--security-opt x img", "NAME=VALUE"}, {"--security-opt seccomp=/nonexistent img", "nonexistent"},
		{"--network name=a,ip=x img", "address"}, {"--network host --network b img", "combined"}, {"--network a --network a img", "twice"},
		{"--ip6 1.2.3.4 img", "ip6"}, {"--mac-address x img", "hardware"}, {"--tmpfs x img", "absolute"},
		{"--log-driver none --log-opt a=b img", "none"}, {"--gpus many img", "many"},
	} {
		_, err := request(strings.Fields(c.args)...)
		if err == nil || !strings.Contains(err.Error(), c.word) {
			t.Errorf("%s: got %v, want a refusal with %q", c.args, err, c.word)
		}
	}
}

func TestFilesOfVariables(t *testing.T) {
	t.Setenv("FROM_CALLER", "here")
	path := filepath.Join(t.TempDir(), "env")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("\ufeffA=1\n\n# comment\n  B = two words \nFROM_CALLER\nNOWHERE\nC=a=b\n")
	env, err := Environment([]string{path}, []string{"A=2"})
	if err == nil || !strings.Contains(err.Error(), "line 4") {
		t.Errorf("a name with a space must be refused: %q, %v", env, err)
	}
	write("\ufeffA=1\n\n# comment\n  B= two words \nFROM_CALLER\nNOWHERE\nC=a=b\n")
	env, err = Environment([]string{path}, []string{"A=2"})
	want := []string{"A=1", "B= two words ", "FROM_CALLER=here", "C=a=b", "A=2"}
	if err != nil || !reflect.DeepEqual(env, want) {
		t.Errorf("got %q, %v; want %q", env, err, want)
	}
	write("A=\xff\n")
	if _, err := Environment([]string{path}, nil); err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("bytes that are not UTF-8: %v", err)
	}
	write("a=1\nb\n")
	got, err := labels([]string{path}, []string{"a=2"})
	if err != nil || !reflect.DeepEqual(got, map[string]string{"a": "2", "b": ""}) {
		t.Errorf("labels: %v, %v", got, err)
	}
}

func TestSeccompProfileIsSentAsText(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "p.json")
	if err := os.WriteFile(path, []byte("{\n \"defaultAction\": \"SCMP_ACT_ALLOW\"\n}"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := request("--security-opt", "seccomp="+path, "img")
	if err != nil || r.HostConfig.SecurityOpt[0] != `seccomp={"defaultAction":"SCMP_ACT_ALLOW"}` {
		t.Errorf("%v, %v", r, err)
	}
}

func FuzzPublish(f *testing.F) {
	for _, s := range []string{"80", "1:2", "[::1]:1-2:3-4/udp", "127.0.0.1::80", "published=1,target=2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var p publishing
		if p.publish(s) != nil {
			return
		}
		text, _ := json.Marshal(client.CreateRequest{Config: &client.Config{ExposedPorts: p.exposed},
			HostConfig: &client.HostConfig{PortBindings: p.bindings}})
		var r container.CreateRequest
		if err := json.Unmarshal(text, &r); err != nil {
			t.Errorf("%q became %s, which the API refuses: %v", s, text, err)
		}
	})
}

func FuzzMount(f *testing.F) {
	f.Add("type=bind,src=/a,dst=/b,ro")
	f.Add(`"type=volume",target=/x,volume-opt=a=b`)
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseMount(s)
		if err == nil && m.Target == "" {
			t.Errorf("%q has no target", s)
		}
	})
}

func FuzzVolumes(f *testing.F) {
	f.Add("/a:/b:ro")
	f.Add("name:/x")
	f.Fuzz(func(t *testing.T, s string) {
		binds, anonymous, err := volumes([]string{s})
		if err == nil && len(binds)+len(anonymous) != 1 {
			t.Errorf("%q gave %q and %v", s, binds, anonymous)
		}
	})
}

func FuzzSmallParsers(f *testing.F) {
	f.Add("1.5")
	f.Add("/dev/x:/y:rw")
	f.Add("name=a,ip=1.2.3.4")
	f.Add("a:[::1]")
	f.Fuzz(func(t *testing.T, s string) {
		var c cpusValue
		if c.Set(s) == nil && c < 0 {
			t.Errorf("%q is %d processors", s, c)
		}
		if d, err := parseDevice(s); err == nil && d.PathOnHost == "" {
			t.Errorf("%q has no device", s)
		}
		if name, _, err := parseNetwork(s); err == nil && name == "" {
			t.Errorf("%q has no network", s)
		}
		_, _ = extraHosts([]string{s})
		_, _ = restartPolicy(s)
		_, _ = parseGPUs(s)
		_, _ = ulimits([]string{s})
		_ = isDeviceRule(s)
	})
}
