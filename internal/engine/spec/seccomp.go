package spec

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"

	"berth/internal/engine/vocabulary"
	"berth/internal/fault"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// filterCache keeps encoded seccomp filters. The default one depends on the
// container's capabilities alone, and encoding its 400 names costs more than all
// the rest of a specification.
type filterCache struct {
	mu     sync.Mutex // guards byCaps; nothing else is locked under it
	byCaps map[string][]byte
}

// maxFilters bounds the cache: sets of capabilities in use are few.
const maxFilters = 64

// mark is where Encode puts the filter. No string of a user's can look like it
// in JSON, because its quotes would be escaped.
const mark = `{"defaultAction":"@"}`

// Encode returns the specification as JSON, with the seccomp filter that the
// security options ask for.
func (b *Builder) Encode(s *specs.Spec, in Input) ([]byte, error) {
	hc := in.Record.HostConfig
	security, err := vocabulary.ParseSecurity(hc.SecurityOpt, in.Host)
	if err != nil {
		return nil, err
	}
	var filter []byte
	switch {
	case security.SeccompOff, hc.Privileged && security.SeccompProfile == "":
	case security.SeccompProfile != "":
		filter, err = custom(security.SeccompProfile, s)
	default:
		filter, err = b.filters.standard(s, in.Bounded)
	}
	if err != nil {
		return nil, err
	}
	if filter == nil {
		return json.Marshal(s)
	}
	s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "@"}
	defer func() { s.Linux.Seccomp = nil }()
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fault.Wrap("encode specification", in.Record.ID, err)
	}
	at := bytes.Index(text, []byte(mark))
	if at < 0 {
		return nil, fault.New(fault.Internal, "encode specification", in.Record.ID, "the place of the seccomp filter is missing")
	}
	out := make([]byte, 0, len(text)+len(filter))
	out = append(out, text[:at]...)
	out = append(out, filter...)
	return append(out, text[at+len(mark):]...), nil
}

// staysInProject refuses what takes a file out of the project whose files are
// counted: outside of user namespaces the kernel lets every file's owner do that.
// The number of an ioctl has 32 bits, whatever the upper half of the register holds
// (CVE-2019-7303). Of the two numbers for flags one is for programs of 32 bits.
func staysInProject(profile *specs.LinuxSeccomp) {
	for _, number := range []uint64{0x401c5820, 0x40086602, 0x40046602} { // FS_IOC_FSSETXATTR, FS_IOC_SETFLAGS, FS_IOC32_SETFLAGS
		profile.Syscalls = append(profile.Syscalls, specs.LinuxSyscall{Names: []string{"ioctl"}, Action: specs.ActErrno,
			Args: []specs.LinuxSeccompArg{{Index: 1, Op: specs.OpMaskedEqual, Value: 0xffffffff, ValueTwo: number}}})
	}
}

// standard returns moby's default profile for the specification's capabilities,
// and for a container whose files are counted.
func (f *filterCache) standard(s *specs.Spec, bounded bool) ([]byte, error) {
	key := strings.Join(s.Process.Capabilities.Bounding, ",")
	if bounded {
		key += " bounded"
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if text := f.byCaps[key]; text != nil {
		return text, nil
	}
	profile, err := seccomp.GetDefaultProfile(s)
	if err != nil {
		return nil, fault.Wrap("build the default seccomp profile", "", err)
	}
	if bounded {
		staysInProject(profile)
	}
	text, err := json.Marshal(profile)
	if err != nil {
		return nil, fault.Wrap("encode the default seccomp profile", "", err)
	}
	if f.byCaps == nil || len(f.byCaps) >= maxFilters {
		f.byCaps = make(map[string][]byte)
	}
	f.byCaps[key] = text
	return text, nil
}

// custom resolves a profile that the user brought.
func custom(text string, s *specs.Spec) ([]byte, error) {
	profile, err := seccomp.LoadProfile(text, s)
	if err != nil {
		return nil, fault.New(fault.Invalid, "", "", "invalid seccomp profile: %w", err)
	}
	if profile == nil {
		return nil, nil
	}
	return json.Marshal(profile)
}
