package cgroup

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/fault"
	"berth/internal/runtime/smallfile"

	"golang.org/x/sys/unix"
)

// settle is how long the kernel may take to finish with killed or frozen
// processes before an operation is given up.
const settle = 10 * time.Second

// poll calls done at growing intervals until it returns true or time is up.
func poll(limit time.Duration, done func() bool) bool {
	wait := 100 * time.Microsecond
	for end := time.Now().Add(limit); ; {
		if done() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
		time.Sleep(wait)
		wait = min(wait*2, 20*time.Millisecond)
	}
}

// main returns the directory that tells best which processes the container has.
func (m *Manager) main() string {
	if u := m.unified(); u != "" {
		if unix.Access(u, unix.F_OK) == nil {
			return u
		}
	}
	for _, g := range m.groups {
		if unix.Access(g.dir, unix.F_OK) == nil {
			return g.dir
		}
	}
	return ""
}

// Exists reports whether the container has a cgroup in any hierarchy.
func (m *Manager) Exists() bool { return m.main() != "" }

// Pids returns the processes in the cgroup and below, sorted.
func (m *Manager) Pids() ([]int, error) {
	dir := m.main()
	if dir == "" {
		return nil, nil
	}
	pids, err := pidsBelow(dir)
	slices.Sort(pids)
	return pids, err
}

func pidsBelow(dir string) ([]int, error) {
	var pids []int
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.IsDir() {
			return err
		}
		b, err := smallfile.Read(filepath.Join(path, "cgroup.procs"), maxFile)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) {
			return nil
		}
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return err
	})
	return pids, err
}

// populated reports whether a cgroup or one below it has processes.
func populated(dir string) (bool, error) {
	if b, err := smallfile.Read(filepath.Join(dir, "cgroup.events"), maxFile); err == nil {
		return bytes.Contains(b, []byte("populated 1")), nil
	}
	pids, err := pidsBelow(dir)
	return len(pids) > 0, err
}

// Kill kills every process of the container and returns when none is left.
func (m *Manager) Kill() error {
	dir := m.main()
	if dir == "" {
		return nil
	}
	if busy, err := populated(dir); err == nil && !busy {
		return nil
	}
	if err := write(dir, "cgroup.kill", "1"); err != nil {
		return m.killByHand(dir)
	}
	_ = m.Thaw() // v1: a frozen process does not die
	if !poll(settle, func() bool { busy, err := populated(dir); return err == nil && !busy }) {
		return fault.New(fault.Internal, "kill", dir, "processes are still there after %v", settle)
	}
	return nil
}

// killByHand kills where the kernel has no cgroup.kill: the processes are
// stopped first, so that none can fork away between listing and killing.
func (m *Manager) killByHand(dir string) error {
	done := poll(settle, func() bool {
		frozen := m.Freeze() == nil
		pids, err := pidsBelow(dir)
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if frozen {
			_ = m.Thaw()
		}
		return err == nil && len(pids) == 0
	})
	if !done {
		return fault.New(fault.Internal, "kill", dir, "processes are still there after %v", settle)
	}
	return nil
}

// freezer returns where to freeze: the unified hierarchy can everywhere since
// Linux 5.2.
func (m *Manager) freezer() (dir string, v2 bool) {
	if u := m.unified(); u != "" && unix.Access(filepath.Join(u, "cgroup.freeze"), unix.F_OK) == nil {
		return u, true
	}
	return m.dir("freezer"), false
}

// Freeze stops all processes of the container and returns when they are.
func (m *Manager) Freeze() error { return m.setFrozen(true) }

// Thaw lets them go on.
func (m *Manager) Thaw() error { return m.setFrozen(false) }

func (m *Manager) setFrozen(on bool) error {
	dir, v2 := m.freezer()
	if dir == "" || unix.Access(dir, unix.F_OK) != nil {
		return fault.New(fault.Unsupported, "freeze", m.path, "no cgroup freezer on this host")
	}
	file, value := "freezer.state", "THAWED"
	switch {
	case v2 && on:
		file, value = "cgroup.freeze", "1"
	case v2:
		file, value = "cgroup.freeze", "0"
	case on:
		value = "FROZEN"
	}
	if err := write(dir, file, value); err != nil {
		return fault.New(fault.Internal, "freeze", m.path, "%w", err)
	}
	if !on {
		return nil
	}
	done := poll(settle, func() bool {
		frozen, err := m.Frozen()
		if !v2 && err == nil && !frozen {
			_ = write(dir, file, value) // v1 needs to be told again about processes that forked meanwhile
		}
		return err == nil && frozen
	})
	if !done {
		_ = m.setFrozen(false)
		return fault.New(fault.Internal, "freeze", m.path, "processes do not stop within %v", settle)
	}
	return nil
}

// Frozen reports whether the container is frozen.
func (m *Manager) Frozen() (bool, error) {
	dir, v2 := m.freezer()
	if dir == "" {
		return false, nil
	}
	if v2 {
		b, err := smallfile.Read(filepath.Join(dir, "cgroup.events"), maxFile)
		return bytes.Contains(b, []byte("frozen 1")), err
	}
	b, err := smallfile.Read(filepath.Join(dir, "freezer.state"), maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return strings.TrimSpace(string(b)) == "FROZEN", err
}

// Delete removes the cgroup with those below it. Processes that are on their
// way out are waited for; a cgroup that is gone is no error.
func (m *Manager) Delete() error {
	for _, g := range m.groups {
		if err := remove(g.dir); err != nil {
			return fault.New(fault.Internal, "remove cgroup", g.dir, "%w", err)
		}
	}
	return nil
}

func remove(dir string) error {
	var last error
	gone := poll(settle, func() bool {
		switch last = unix.Rmdir(dir); last {
		case nil, unix.ENOENT:
			return true
		case unix.EBUSY:
			last = removeBelow(dir)
			if last == nil {
				last = unix.EBUSY
			}
			return false
		}
		return true
	})
	if gone && (last == nil || last == unix.ENOENT) {
		return nil
	}
	return last
}

func removeBelow(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.IsDir() {
			if err := remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
