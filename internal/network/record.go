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

	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// record is what the run directory knows about a claimed sandbox: enough for
// the next engine to serve a live container on, or to remove what a dead one
// left.
type record struct {
	Version   int         `json:"version"`
	Container string      `json:"-"` // the file's name
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

	// Priority is that of the default network, see JoinRequest.
	Priority int `json:"priority,omitempty"`

	// Beside others; To4 and To6 are where Ports lead when it is not IPv4 and IPv6.
	Joined   []joined   `json:"joined,omitempty"`
	To4      netip.Addr `json:"to4,omitzero"`
	To6      netip.Addr `json:"to6,omitzero"`
	Upstream []string   `json:"upstream,omitempty"`
}

const recordVersion = 1

func (m *Manager) recordDir() string { return filepath.Join(m.cfg.RunDir, "network") }
func (m *Manager) netnsDir() string  { return filepath.Join(m.cfg.RunDir, "netns") }

func (m *Manager) recordPath(id string) string { return filepath.Join(m.recordDir(), id+".json") }

// readyName is the file name of an unclaimed sandbox, in both directories; no
// container id begins with a dot.
func readyName(s *sandbox) string { return "." + s.id }

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

// prepare writes what a claim of the sandbox will need, under names that say
// nobody has claimed it yet.
func (m *Manager) prepare(s *sandbox) error {
	s.record = m.newRecord(s)
	data, err := json.Marshal(s.record)
	if err != nil {
		return fault.New(fault.Internal, "record network namespace", s.id, "%w", err)
	}
	s.unclaimed = true
	if err := writeFile(filepath.Join(m.recordDir(), readyName(s)), data); err != nil {
		return err
	}
	return m.linkSandbox(readyName(s), s.ns)
}

// unprepare removes the files of a sandbox that nobody claimed.
func (m *Manager) unprepare(s *sandbox) {
	if s.unclaimed {
		s.unclaimed = false
		m.removeFile(m.recordDir(), readyName(s))
		m.removeFile(m.netnsDir(), readyName(s))
	}
}

// commit claims a sandbox for a container by renaming its files. The record
// comes first: a name without a record is swept by the next engine.
func (m *Manager) commit(id string, s *sandbox, ports []Published) error {
	ready, path := filepath.Join(m.recordDir(), readyName(s)), m.recordPath(id)
	s.record.Container = id
	if len(ports) > 0 || s.record.Priority != 0 {
		s.record.Ports = ports
		data, err := json.Marshal(s.record)
		if err != nil {
			return fault.New(fault.Internal, "record endpoint of", id, "%w", err)
		}
		// Not yet claimed, hence not read by anyone: no need for a second file.
		if err := writeFile(ready, data); err != nil {
			return err
		}
	}
	if err := unix.Rename(ready, path); err != nil {
		return fault.New(fault.Internal, "claim network namespace for", id, "%w", err)
	}
	s.unclaimed = false
	if err := unix.Rename(filepath.Join(m.netnsDir(), readyName(s)), m.sandboxPath(id)); err != nil {
		return fault.New(fault.Internal, "name network namespace of", id, "%w", err)
	}
	return nil
}

// linkSandbox points a name of a namespace at our descriptor of it.
func (m *Manager) linkSandbox(name string, ns *os.File) error {
	target := "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(ns.Fd()))
	path := m.sandboxPath(name)
	err := unix.Symlink(target, path)
	if err == unix.EEXIST {
		_ = unix.Unlink(path)
		err = unix.Symlink(target, path)
	}
	if err != nil {
		return fault.New(fault.Internal, "name network namespace of", name, "%w", err)
	}
	return nil
}

func (m *Manager) removeFiles(id string) {
	m.removeFile(m.netnsDir(), id)
	m.removeFile(m.recordDir(), id+".json")
}

// removeFile is unlink alone: os.Remove would try rmdir on a file that is gone.
func (m *Manager) removeFile(dir, name string) {
	path := filepath.Join(dir, name)
	if err := unix.Unlink(path); err != nil && err != unix.ENOENT {
		m.log.Warn("cannot remove file", "path", path, "error", err)
	}
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
		if e.Name()[0] == '.' { // never claimed
			_ = os.Remove(path)
			continue
		}
		data, err := readFile(path)
		r := record{Container: id}
		if !isRecord || err != nil || json.Unmarshal(data, &r) != nil || r.Version != recordVersion {
			m.log.Warn("removing unreadable network record", "path", path)
			_ = os.RemoveAll(path)
			continue
		}
		out = append(out, r)
	}
	return out, nil
}
