package engine

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"berth/internal/fault"

	"golang.org/x/sys/unix"
)

// lockRoot makes this process the one engine of a data directory. The lock dies
// with the process; the file tells others who holds it.
func lockRoot(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	readOnly := errors.Is(err, unix.EROFS)
	if readOnly {
		f, err = os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		return nil, fault.Wrap("lock data directory", path, err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		pid, _ := io.ReadAll(io.LimitReader(f, 32))
		f.Close()
		who := "another engine"
		if n, err := strconv.Atoi(strings.TrimSpace(string(pid))); err == nil {
			who = "the engine with pid " + strconv.Itoa(n)
		}
		return nil, fault.New(fault.Conflict, "open data directory", filepath.Dir(path), "it is in use by %s", who).
			WithHint("stop that engine, or give this one another --root and --run")
	}
	if err == nil && !readOnly {
		err = errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid())+"\n"))
	}
	if err != nil {
		f.Close()
		return nil, fault.Wrap("lock data directory", path, err)
	}
	return f, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// readIdentity reads the id of this data directory, made when it was first used.
func (e *Engine) readIdentity() error {
	path := filepath.Join(e.cfg.Root, "engine-id")
	text, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(text))) == 36 {
		e.id = strings.TrimSpace(string(text))
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap("read", path, err)
	}
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b)
	e.id = h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
	return writeFile(path, []byte(e.id+"\n"), 0o600)
}
