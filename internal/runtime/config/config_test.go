package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"berth/internal/fault"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// minimal is the least that passes.
func minimal() *specs.Spec {
	return &specs.Spec{
		Version: "1.2.0",
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: []string{"true"}, Cwd: "/"},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.MountNamespace}, {Type: specs.UTSNamespace}, {Type: specs.IPCNamespace}, {Type: specs.NetworkNamespace},
		}},
	}
}

func TestValidateNamesTheField(t *testing.T) {
	n := func(v int) *int { return &v }
	u := func(v uint32) *uint32 { return &v }
	user := specs.LinuxNamespace{Type: specs.UserNamespace}
	ids := []specs.LinuxIDMapping{{Size: 1}}
	for field, break_ := range map[string]func(*specs.Spec){
		"":                               func(*specs.Spec) {},
		"ociVersion":                     func(s *specs.Spec) { s.Version = "2.0.0" },
		"root.path":                      func(s *specs.Spec) { s.Root = nil },
		"process":                        func(s *specs.Spec) { s.Process = nil },
		"process.args":                   func(s *specs.Spec) { s.Process.Args = nil },
		"process.args[1]":                func(s *specs.Spec) { s.Process.Args = []string{"a", "b\x00"} },
		"process.env[0]":                 func(s *specs.Spec) { s.Process.Env = []string{"a=\x00"} },
		"process.cwd":                    func(s *specs.Spec) { s.Process.Cwd = "relative" },
		"process.user.uid":               func(s *specs.Spec) { s.Process.User.UID = 1<<32 - 1 },
		"process.user.gid":               func(s *specs.Spec) { s.Process.User.GID = 1<<32 - 1 },
		"process.user.umask":             func(s *specs.Spec) { s.Process.User.Umask = u(0o1000) },
		"process.user.additionalGids[0]": func(s *specs.Spec) { s.Process.User.AdditionalGids = []uint32{1<<32 - 1} },
		"process.oomScoreAdj":            func(s *specs.Spec) { s.Process.OOMScoreAdj = n(1001) },
		"process.rlimits[0].type":        func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} },
		"process.rlimits[0].soft":        func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CPU", Soft: 2, Hard: 1}} },
		"process.rlimits[1].type": func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CPU"}, {Type: "RLIMIT_CPU"}}
		},
		"process.scheduler.policy":   func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "X"} },
		"process.scheduler.nice":     func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: 20} },
		"process.scheduler.priority": func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Priority: 1} },
		"process.scheduler":          func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO, Period: 1} },
		"process.ioPriority.class":   func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: "X"} },
		"process.ioPriority.priority": func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 8}
		},
		"process.execCPUAffinity.initial": func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "3-1"} },
		"linux.namespaces[0].type":        func(s *specs.Spec) { s.Linux.Namespaces[0].Type = "x" },
		"linux.namespaces[4].type":        func(s *specs.Spec) { s.Linux.Namespaces = append(s.Linux.Namespaces, s.Linux.Namespaces[0]) },
		"linux.namespaces[2].path":        func(s *specs.Spec) { s.Linux.Namespaces[2].Path = "relative" },
		"linux.uidMappings":               func(s *specs.Spec) { s.Linux.UIDMappings = ids },
		"linux.gidMappings":               func(s *specs.Spec) { s.Linux.Namespaces = append(s.Linux.Namespaces, user); s.Linux.UIDMappings = ids },
		"linux.uidMappings[0].size": func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, user)
			s.Linux.UIDMappings = make([]specs.LinuxIDMapping, 1)
		},
		"hostname":              func(s *specs.Spec) { s.Hostname = "h"; s.Linux.Namespaces = s.Linux.Namespaces[:1] },
		"domainname":            func(s *specs.Spec) { s.Domainname = strings.Repeat("d", 65) },
		"mounts[0].destination": func(s *specs.Spec) { s.Mounts = []specs.Mount{{}} },
		"mounts[0]":             func(s *specs.Spec) { s.Mounts = []specs.Mount{{Destination: "/x"}}; s.Linux.Namespaces = nil },
		"mounts[1].uidMappings[0].size": func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/x"}, {Destination: "/y", UIDMappings: make([]specs.LinuxIDMapping, 1), GIDMappings: ids}}
		},
		"hooks.poststop[0].path":     func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "x"}}} },
		"hooks.prestart[0].timeout":  func(s *specs.Spec) { s.Hooks = &specs.Hooks{Prestart: []specs.Hook{{Path: "/x", Timeout: n(0)}}} },
		"linux.maskedPaths[0]":       func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"x"} },
		"linux.readonlyPaths[0]":     func(s *specs.Spec) { s.Linux.ReadonlyPaths = []string{"x"} },
		"linux.rootfsPropagation":    func(s *specs.Spec) { s.Linux.RootfsPropagation = "x" },
		"linux.devices[0].path":      func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "x", Type: "c"}} },
		"linux.devices[0].type":      func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/x", Type: "x"}} },
		"linux.sysctl[kernel.panic]": func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.panic": "1"} },
		"linux.sysctl[net/../../x]":  func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net/../../x": "1"} },
		"linux.sysctl[net.x]": func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net.x": "1"}
			s.Linux.Namespaces = s.Linux.Namespaces[:3]
		},
		"linux.timeOffsets[boottime]": func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {}} },
		"linux.intelRdt":              func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} },
		"linux.netDevices[eth0]":      func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {}} },
		"linux.personality.domain":    func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{} },
		"linux.memoryPolicy.mode":     func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{} },
		"linux.memoryPolicy.nodes":    func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "x"} },
	} {
		s := minimal()
		break_(s)
		err := Validate(s, true)
		if field == "" {
			if err != nil {
				t.Errorf("the minimal configuration: %v", err)
			}
			continue
		}
		f, ok := err.(*fault.Error)
		if !ok || f.Subject != field || f.Kind != fault.Invalid && f.Kind != fault.Unsupported {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

func TestParseErrorsNameTheField(t *testing.T) {
	for text, want := range map[string]string{
		`{"process":{"user":{"uid":"root"}}}`:                  "process.user.uid (line 1, column 27): want a number, not a string",
		`{"linux":{"namespaces":[{"type":"pid"},{"type":5}]}}`: "linux.namespaces[1].type",
		`{"process":{"user":{"uid":4294967296}}}`:              "not a whole number of the right size",
		`{"process":{"user":{"uid":-1}}}`:                      "process.user.uid",
		`{"process":{"args":"sh"}}`:                            `process.args (line 1, column 20): want '[', not a string`,
		"{\n \"root\": {\"path\": 5}\n}":                       "root.path (line 2, column 19)",
		`{"ociVersion": "1.0.0"`:                               "the end of the text",
		`{} {}`:                                                "unexpected text behind the end",
		`{"x":[[[`:                                             "x[0][0][0]",
		``:                                                     "the end of the text",
		`{"hostname":"a` + "\n" + `"}`:                         "control character",
	} {
		_, err := Parse([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	deep := strings.Repeat(`{"x":`, 100_000) + "1" + strings.Repeat("}", 100_000)
	if _, err := Parse([]byte(deep)); err == nil || !strings.Contains(err.Error(), "deep") {
		t.Error("endless nesting was accepted")
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := Load(dir); !fault.Is(err, fault.NotFound) {
		t.Errorf("no configuration: %v", err)
	}
	os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"ociVersion":"1.0.0","hostname":"h\u00e4"}`), 0o644)
	if s, _, err := Load(dir); err != nil || s.Hostname != "hä" {
		t.Errorf("got %+v, %v", s, err)
	}
	os.WriteFile(filepath.Join(dir, "config.json"), make([]byte, maxSize+1), 0o644)
	if _, _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("a giant: %v", err)
	}
}

// full sets every field of the specification that concerns Linux, so that the
// comparison with the general decoder covers all of them.
func full(t *testing.T) []byte {
	t.Helper()
	s := &specs.Spec{}
	fill(reflect.ValueOf(s).Elem(), 1)
	s.Solaris, s.Windows, s.VM, s.ZOS, s.FreeBSD = nil, nil, nil, nil, nil
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func fill(v reflect.Value, n int) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n+i)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n+1)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		e := reflect.New(v.Type().Elem()).Elem()
		fill(e, n)
		v.SetMapIndex(reflect.ValueOf("key").Convert(v.Type().Key()), e)
	case reflect.String:
		v.SetString("text" + strings.Repeat("x", n%5))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(int64(n))
	case reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(n))
	}
}

func TestDecoderKnowsEveryField(t *testing.T) {
	text := full(t)
	var want specs.Spec
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	got, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, &want) {
		a, _ := json.MarshalIndent(got, "", " ")
		b, _ := json.MarshalIndent(want, "", " ")
		for i, line := range strings.Split(string(b), "\n") {
			if l := strings.Split(string(a), "\n"); i >= len(l) || l[i] != line {
				t.Fatalf("the decoders differ at line %d: %s", i, line)
			}
		}
	}
}

// FuzzParse compares with the general decoder: what it accepts is read alike,
// and nothing is accepted that it refuses.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"ociVersion":"1.0.0","process":{"args":["a\"b","\u00e9"],"user":{"uid":5},"oomScoreAdj":-5},"linux":{"resources":{"memory":{"limit":null}}}}`))
	f.Add([]byte(`{"a":[1e5,{"b":false}],"linux":{"timeOffsets":{"x":{"secs":-1}}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := Parse(text)
		if err != nil {
			return
		}
		var want specs.Spec
		if werr := json.Unmarshal(text, &want); werr != nil {
			if strings.Contains(werr.Error(), "Go struct field") {
				return // a section for another system, or another spelling of a key
			}
			t.Fatalf("accepted %q, which is malformed: %v", text, werr)
		}
		if err := Validate(got, true); err == nil && got.Process == nil {
			t.Fatal("no process, and valid")
		}
	})
}
