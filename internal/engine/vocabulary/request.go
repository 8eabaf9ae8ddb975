// Package vocabulary knows every field with which a container can be asked for.
// It exists so that nothing a client sends is silently ignored: each field of
// docker's Config, HostConfig and endpoint settings stands in one table as
// having an effect, being refused by name, or being the engine's own output, and
// a test holds the table against the types. What can be judged without touching
// the host is judged here, in docker's words where docker has words for it.
package vocabulary

import (
	"berth/internal/fault"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// Host says what the machine and this engine offer.
type Host struct {
	CPUs     int
	Memory   int64 // bytes
	Nodes    int   // of memory
	CgroupV2 bool
	IOWeight bool     // cgroups can weigh what goes to block devices
	Runtimes []string // names of the OCI runtimes besides the built-in one
	AppArmor bool     // the kernel enforces AppArmor profiles
	SELinux  bool     // the kernel enforces SELinux labels
	Init     bool     // the runtime brings a small init for --init
}

// Request is a whole request to create a container, already merged with its
// image. All three parts are set.
type Request struct {
	Config     *container.Config
	HostConfig *container.HostConfig
	Networking *network.NetworkingConfig
	Host       Host

	warnings []string
}

// Complete replaces missing parts with empty ones, so that nobody below has to
// look for nil.
func Complete(req container.CreateRequest) (*Request, error) {
	if req.Config == nil {
		return nil, fault.New(fault.Invalid, "", "", "config cannot be empty in order to create a container")
	}
	r := &Request{Config: req.Config, HostConfig: req.HostConfig, Networking: req.NetworkingConfig}
	if r.HostConfig == nil {
		r.HostConfig = &container.HostConfig{}
	}
	if r.Networking == nil {
		r.Networking = &network.NetworkingConfig{}
	}
	for name, ep := range r.Networking.EndpointsConfig {
		if ep == nil {
			r.Networking.EndpointsConfig[name] = &network.EndpointSettings{}
		}
	}
	return r, nil
}

// Check judges every field and the combinations of fields. It returns warnings
// for what is accepted and yet will not do what the user may expect.
func (r *Request) Check() ([]string, error) {
	for i := range fields {
		f := &fields[i]
		if f.check == nil {
			continue
		}
		if err := f.check(r); err != nil {
			return nil, err
		}
	}
	return r.warnings, nil
}

func (r *Request) warn(text string) { r.warnings = append(r.warnings, text) }

func invalid(format string, args ...any) error {
	return fault.New(fault.Invalid, "", "", format, args...)
}

// unsupported refuses a field by name.
func unsupported(field, hint string) error {
	e := fault.New(fault.Unsupported, "", "", "%s is not supported", field)
	if hint == "" {
		return e
	}
	return e.WithHint("%s", hint)
}
