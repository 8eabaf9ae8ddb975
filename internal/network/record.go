package network

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"berth/internal/fault"
)

// record is what the run directory knows about a claimed sandbox: enough for
// the next engine to serve a live container on, or to remove what a dead one
// left.
type record struct {
	Version   int         `json:"version"`
	Container string      `json:"container"`
	Sandbox   string      `json:"sandbox"`
	Endpoint  string      `json:"endpoint"`
	Inode     uint64      `json:"inode"` // of the namespace
	Veth      string      `json:"veth,omitempty"`
	Index     int         `json:"index,omitempty"`
	Number    uint32      `json:"number,omitempty"`
	IPv4      netip.Addr  `json:"ipv4"`
	IPv6      netip.Addr  `json:"ipv6"`
	ExtraIPv6 netip.Addr  `json:"extraIPv6"`
	MAC       string      `json:"mac,omitempty"`
	Ports     []Published `json:"ports,omitempty"`
	MakerPID  int         `json:"makerPID"` // the engine that wrote the record
}

const recordVersion = 1

func (m *Manager) recordDir() string { return filepath.Join(m.cfg.RunDir, "network") }
func (m *Manager) netnsDir() string  { return filepath.Join(m.cfg.RunDir, "netns") }

func (m *Manager) recordPath(id string) string { return filepath.Join(m.recordDir(), id+".json") }

// sandboxPath is the name under which other programs open a container's
// namespace: a link to the engine's descriptor, re-made by the next engine.
func (m *Manager) sandboxPath(id string) string { return filepath.Join(m.netnsDir(), id) }

func (m *Manager) makeDirs() error {
	for _, d := range []string{m.recordDir(), m.netnsDir()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fault.New(fault.Internal, "create", d, "%w", err)
		}
	}
	return nil
}

// checkID keeps container ids, which become file names, harmless.
func checkID(id string) error {
	ok := id != "" && len(id) <= 128 && id[0] != '.' && id[0] != '-'
	for i := 0; ok && i < len(id); i++ {
		c := id[i]
		ok = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-'
	}
	if !ok {
		return fault.New(fault.Invalid, "use container id", strconv.Quote(id), "an id has 1 to 128 letters, digits, underscores, dots and dashes")
	}
	return nil
}

func (m *Manager) writeRecord(r record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fault.New(fault.Internal, "record endpoint of", r.Container, "%w", err)
	}
	return writeFileAtomic(m.recordPath(r.Container), data)
}

// linkSandbox points the public name of a namespace at our descriptor of it.
func (m *Manager) linkSandbox(id string, ns *os.File) error {
	target := "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(ns.Fd()))
	path := m.sandboxPath(id)
	err := os.Symlink(target, path)
	if errors.Is(err, fs.ErrExist) {
		if err = os.Remove(path); err == nil {
			err = os.Symlink(target, path)
		}
	}
	if err != nil {
		return fault.New(fault.Internal, "name network namespace of", id, "%w", err)
	}
	return nil
}

func (m *Manager) removeFiles(id string) {
	_ = os.Remove(m.sandboxPath(id))
	_ = os.Remove(m.recordPath(id))
}

// readRecords returns all records; what cannot be read as one is removed, since
// it was never acknowledged (records appear by rename).
func (m *Manager) readRecords() ([]record, error) {
	entries, err := os.ReadDir(m.recordDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New(fault.Internal, "read", m.recordDir(), "%w", err)
	}
	var out []record
	for _, e := range entries {
		path := filepath.Join(m.recordDir(), e.Name())
		id, isRecord := strings.CutSuffix(e.Name(), ".json")
		data, err := os.ReadFile(path)
		var r record
		if !isRecord || err != nil || json.Unmarshal(data, &r) != nil || r.Container != id || r.Version != recordVersion {
			m.log.Warn("removing unreadable network record", "path", path)
			_ = os.RemoveAll(path)
			continue
		}
		out = append(out, r)
	}
	return out, nil
}
