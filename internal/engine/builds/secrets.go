package builds

import (
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"berth/internal/build/solve"
	"berth/internal/engine/tmpfs"
	"berth/internal/fault"
)

// secrets is where the data is that a step may see and no disk may: files in
// a tmpfs of the step's own.
type secrets struct {
	dir   string         // "" when there are none
	files map[int]string // by the number of the mount
}

// secretsDir is below the run directory: what a killed engine left there is
// removed by the next.
func (s *Steps) secretsDir() string { return filepath.Join(s.m.RunDir, "secrets") }

func (s *Steps) secrets(step solve.Step) (secrets, error) {
	out := secrets{files: map[int]string{}}
	for i, m := range step.Mounts {
		if m.Kind != solve.DataMount {
			continue
		}
		if out.dir == "" {
			out.dir = filepath.Join(s.secretsDir(), step.ID)
			if err := tmpfs.Mount(out.dir, "secrets", "mode=0700"); err != nil {
				return out, err
			}
		}
		file := filepath.Join(out.dir, strconv.Itoa(i))
		if err := os.WriteFile(file, m.Data, 0o600); err != nil {
			return out, fault.Wrap("write", file, err)
		}
		if err := os.Chown(file, int(m.UID), int(m.GID)); err != nil {
			return out, fault.Wrap("set owner of", file, err)
		}
		if err := os.Chmod(file, os.FileMode(m.Mode&0o777)); err != nil {
			return out, fault.Wrap("set mode of", file, err)
		}
		out.files[i] = file
	}
	return out, nil
}

func (s secrets) remove(log *slog.Logger) {
	if s.dir == "" {
		return
	}
	if err := tmpfs.Remove(s.dir); err != nil {
		log.Warn("remove secrets of a build step", "directory", s.dir, "error", err)
	}
}

// Sweep removes what the steps of a killed engine left. None of them may run.
func (s *Steps) Sweep() {
	entries, _ := os.ReadDir(s.secretsDir())
	for _, entry := range entries {
		secrets{dir: filepath.Join(s.secretsDir(), entry.Name())}.remove(s.m.Log)
	}
}
