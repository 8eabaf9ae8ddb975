package network

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// Defaults of the engine that runs without options; any other pair of
// directories gets names derived from them.
const (
	DefaultRunDir   = "/run/berth"
	DefaultDataRoot = "/var/lib/berth"
	DefaultBridge   = "berth0"

	defaultPoolSize = 8
	defaultMTU      = 1500
	maxIfName       = 15
	maxRecordSize   = 64 << 20 // a container that publishes every port there is has 30 MB
)

// Config says where a Manager keeps its state and which addresses it uses.
type Config struct {
	// RunDir dies with the boot; records of live endpoints are below it.
	RunDir string
	// DataRoot outlives the boot; the chosen subnets are remembered there.
	DataRoot string
	// Bridge is the name of the bridge interface, at most 15 bytes. Empty means
	// berth0 for the default directories and a name derived from RunDir else.
	Bridge string
	// Subnet4 and Subnet6 fix the subnets. The zero value picks a range that no
	// route of the host uses, and remembers it.
	Subnet4, Subnet6 netip.Prefix
	// NoIPv6 gives the default network no IPv6 addresses, whatever the host has.
	NoIPv6 bool
	// Gateway4 is the address of the bridge in Subnet4; zero means the first one.
	Gateway4 netip.Addr
	// Range4 is the part of Subnet4 that containers get addresses from; zero means
	// all of it.
	Range4 netip.Prefix
	// Router4 and Router6 are what the default routes of containers on the default
	// network lead to; zero means the bridge.
	Router4, Router6 netip.Addr
	// Isolated keeps containers on the default network from each other; NoMasq lets
	// them go out under their own addresses.
	Isolated, NoMasq bool
	// Pools are cut into the subnets of networks that name none, in this order. None
	// means ranges that others seldom use.
	Pools []Pool
	// MTU of the bridge and the containers' interfaces in bytes; 0 takes the
	// MTU of the host's default route, at most 1500.
	MTU int
	// PoolSize is how many namespaces are kept ready; 0 means 8, negative none.
	PoolSize int
	// NameServer is the command that runs NameServerMain with the path that is added
	// to it; empty serves names inside of this process, and no longer than it lives.
	NameServer []string
	// Logger receives what no caller is waiting for. Nil discards it.
	Logger *slog.Logger
}

// names are everything derived from one engine's directories, so that several
// engines live side by side on a host.
type names struct {
	bridge string // interface name of the bridge
	table  string // nftables table
	tag    string // four hex digits in the names of host-side interfaces
	id     string // 64 hex digits: the default network's id
	alias  string // ownership mark on the bridge
}

func deriveNames(cfg Config) (names, error) {
	sum := sha256.Sum256([]byte("berth network\x00" + cfg.RunDir + "\x00" + cfg.DataRoot))
	h := hex.EncodeToString(sum[:])
	n := names{
		bridge: cfg.Bridge,
		table:  "berth-" + h[:8],
		tag:    h[8:12],
		id:     h,
		alias:  "berth:" + cfg.RunDir,
	}
	if cfg.RunDir == DefaultRunDir && cfg.DataRoot == DefaultDataRoot {
		n.table = "berth"
		if n.bridge == "" {
			n.bridge = DefaultBridge
		}
	}
	if n.bridge == "" {
		n.bridge = "berth-" + h[:8]
	}
	if !validIfName(n.bridge) {
		return names{}, fault.New(fault.Invalid, "configure bridge", n.bridge,
			"an interface name has 1 to %d characters, no slash, no colon and no blank", maxIfName)
	}
	return n, nil
}

func validIfName(s string) bool {
	if s == "" || len(s) > maxIfName || s == "." || s == ".." {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c == '/' || c == ':' || c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// saved is what is remembered over restarts: the addresses, so that they stay
// the same for firewall rules and clients that know them.
type saved struct {
	Subnet4 netip.Prefix `json:"subnet4"`
	Subnet6 netip.Prefix `json:"subnet6"`
}

func savedPath(cfg Config) string { return filepath.Join(cfg.DataRoot, "network.json") }

// loadSaved returns the remembered subnets; a missing or damaged file is the
// same as none, since the addresses can be chosen again.
func loadSaved(cfg Config) (saved, error) {
	data, err := os.ReadFile(savedPath(cfg))
	if errors.Is(err, fs.ErrNotExist) {
		return saved{}, nil
	}
	if err != nil {
		return saved{}, fault.New(fault.Internal, "read", savedPath(cfg), "%w", err)
	}
	var s saved
	if json.Unmarshal(data, &s) != nil {
		return saved{}, nil
	}
	return s, nil
}

func storeSaved(cfg Config, s saved) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.DataRoot, 0o711); err != nil {
		return fault.New(fault.Internal, "create", cfg.DataRoot, "%w", err)
	}
	return writeFileAtomic(savedPath(cfg), data)
}

// writeFileAtomic replaces path by rename, so that a reader or a later engine
// sees the old content or the new one.
func writeFileAtomic(path string, data []byte) error {
	tmp := path + ".tmp"
	if err := writeFile(tmp, data); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return fault.New(fault.Internal, "write", path, "%w", err)
	}
	return nil
}

// writeFile makes a file by plain system calls: what os.File adds, a place in
// the poller and a finaliser, costs more than the writing.
func writeFile(path string, data []byte) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fault.New(fault.Internal, "write", path, "%w", err)
	}
	n, err := unix.Write(fd, data)
	if err == nil && n < len(data) {
		err = unix.ENOSPC
	}
	if closing := unix.Close(fd); err == nil {
		err = closing
	}
	if err != nil {
		return fault.New(fault.Internal, "write", path, "%w", err)
	}
	return nil
}

// readFile reads a small file by plain system calls, as writeFile writes.
func readFile(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxRecordSize {
		return nil, &os.PathError{Op: "read", Path: path, Err: unix.EINVAL}
	}
	data := make([]byte, st.Size)
	n, err := unix.Read(fd, data)
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: path, Err: err}
	}
	return data[:n], nil
}
