package worker

import (
	"encoding/json"
	"os"

	"berth/internal/fault"
	"berth/internal/monitor/proto"
	"berth/internal/monitor/stdio"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// record is what a successor has to know of a container and what does not
// change. It lies behind the State in the container's file "state".
type record struct {
	Token       string          `json:"token"`
	OpenStdin   bool            `json:"openStdin,omitempty"`
	StdinOnce   bool            `json:"stdinOnce,omitempty"`
	TTY         bool            `json:"tty,omitempty"`
	SharedPID   bool            `json:"sharedPid,omitempty"`   // no pid namespace of its own: its end does not end all its processes
	MemoryLimit bool            `json:"memoryLimit,omitempty"` // it can run out of memory by itself
	Cgroup      string          `json:"cgroup,omitempty"`      // as the specification names it
	Log         proto.LogConfig `json:"log"`
	Runtime     string          `json:"runtime,omitempty"`
	RuntimeArgs []string        `json:"runtimeArgs,omitempty"`
}

func newRecord(req *proto.StartRequest, spec *specs.Spec) record {
	r := record{
		Token: req.Token, OpenStdin: req.OpenStdin, StdinOnce: req.StdinOnce, Log: req.Log,
		Runtime: req.Runtime, RuntimeArgs: req.RuntimeArgs, SharedPID: true,
	}
	if spec.Process != nil {
		r.TTY = spec.Process.Terminal
	}
	if l := spec.Linux; l != nil {
		r.Cgroup = l.CgroupsPath
		for _, n := range l.Namespaces {
			if n.Type == specs.PIDNamespace && n.Path == "" {
				r.SharedPID = false
			}
		}
		if l.Resources != nil && l.Resources.Memory != nil && l.Resources.Memory.Limit != nil {
			r.MemoryLimit = *l.Resources.Memory.Limit > 0
		}
	}
	return r
}

// write puts the record in place, with a fresh state in front of it.
func (r *record) write(path string) (*stdio.State, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fault.New(fault.Internal, "write container record", path, "%w", err)
	}
	temporary := path + ".new"
	fd, err := unix.Open(temporary, unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o600)
	if err == nil {
		_, err = unix.Write(fd, append(stdio.Header(), text...))
		if err == nil {
			err = unix.Rename(temporary, path)
		}
		if err != nil {
			_ = unix.Close(fd)
		}
	}
	if err != nil {
		return nil, fault.New(fault.Internal, "write container record", path, "%w", err)
	}
	return stdio.NewState(fd), nil
}

// readRecord reads what write has put in place.
func readRecord(path string) (record, *stdio.State, error) {
	var r record
	text, err := os.ReadFile(path)
	if err != nil {
		return r, nil, fault.New(fault.Internal, "read container record", path, "%w", err)
	}
	if len(text) < stdio.StateSize {
		return r, nil, fault.New(fault.Internal, "read container record", path, "it ends after %d bytes", len(text))
	}
	if err := json.Unmarshal(text[stdio.StateSize:], &r); err != nil {
		return r, nil, fault.New(fault.Internal, "read container record", path, "%w", err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return r, nil, fault.New(fault.Internal, "read container record", path, "%w", err)
	}
	state, err := stdio.LoadState(fd)
	if err != nil {
		_ = unix.Close(fd)
		return r, nil, fault.Wrap("read container record", path, err)
	}
	return r, state, nil
}

// readExit reads the exit record that the keeper has written; nil if there is
// none.
func readExit(path string) *proto.Exit {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	exit := new(proto.Exit)
	if json.Unmarshal(text, exit) != nil {
		return nil
	}
	return exit
}
