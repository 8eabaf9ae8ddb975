package runtime

import (
	"encoding/json"

	"berth/internal/fault"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func (k *creation) sendListener(s *session, number int) error {
	return k.c.passListener(s, number, k.opts.Spec)
}

// passListener takes a seccomp listener out of the init and hands it to the
// agent that the specification names, with the state of the process.
func (c *Container) passListener(s *session, number int, spec *specs.Spec) error {
	const field = "linux.seccomp.listenerPath"
	fd, err := unix.PidfdGetfd(int(s.pidfd.Fd()), number, 0)
	if err != nil {
		return fault.New(fault.Internal, "pass listener", field, "%w", err)
	}
	defer unix.Close(fd)
	state := c.State()
	state.Pid = c.st.PID
	message, err := json.Marshal(specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: s.pid,
		Metadata: spec.Linux.Seccomp.ListenerMetadata, State: state,
	})
	if err != nil {
		return fault.New(fault.Internal, "pass listener", field, "%w", err)
	}
	if err := sendFD(spec.Linux.Seccomp.ListenerPath, message, fd); err != nil {
		return fault.Wrap("pass listener", field, err)
	}
	return nil
}
