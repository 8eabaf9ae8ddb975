package build

import (
	"context"
	"io"
	"net"
	"os"
	"testing"

	"berth/internal/build/solve"
	"berth/internal/fault"
	"berth/internal/image"
)

// secrets are given by name.
type secrets map[string]string

func (s secrets) Secret(_ context.Context, id string) ([]byte, error) {
	if v, ok := s[id]; ok {
		return []byte(v), nil
	}
	return nil, fault.New(fault.NotFound, "find secret", id, "not given")
}

func (s secrets) Agent(id string) (solve.Dial, error) {
	if v, ok := s["ssh "+id]; ok {
		return func(context.Context) (io.ReadWriteCloser, error) { return net.Dial("unix", v) }, nil
	}
	return nil, fault.New(fault.NotFound, "find agent", id, "not given")
}

func writeFile(t testing.TB, p, data string) {
	t.Helper()
	if err := os.WriteFile(p, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

var removeForce = image.RemoveOptions{Force: true}
