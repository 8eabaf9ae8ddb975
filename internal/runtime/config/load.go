// Package config reads a bundle's config.json and checks it before anything is
// made. It exists so that a bad configuration is refused by the name of the
// field that is wrong, and not by the system call that would have failed.
package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"

	"berth/internal/fault"
	"berth/internal/runtime/smallfile"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// maxSize bounds a configuration file; real ones have some kilobytes.
const maxSize = 16 << 20

// Load reads config.json in the bundle directory and returns it decoded and as
// it is.
func Load(bundle string) (*specs.Spec, []byte, error) {
	name := filepath.Join(bundle, "config.json")
	text, err := smallfile.Read(name, maxSize)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, fault.New(fault.NotFound, "read", name, "%w", err).WithHint("a bundle is a directory with config.json; 'berth-runtime spec' writes one")
	}
	if err != nil {
		return nil, nil, fault.New(fault.Internal, "read", name, "%w", err)
	}
	if len(text) > maxSize {
		return nil, nil, fault.New(fault.Invalid, "read", name, "the file is larger than %d MiB", maxSize>>20)
	}
	spec, err := decode(text)
	if err != nil {
		return nil, nil, fault.New(fault.Invalid, "parse", name, "%w", err)
	}
	return spec, text, nil
}

// Parse decodes a configuration.
func Parse(text []byte) (*specs.Spec, error) {
	spec, err := decode(text)
	if err != nil {
		return nil, fault.New(fault.Invalid, "parse", "config", "%w", err)
	}
	return spec, nil
}

func decode(text []byte) (*specs.Spec, error) {
	d := &decoder{text: text}
	s := new(specs.Spec)
	d.spec(s)
	return s, d.end()
}

// ParseProcess decodes a process, as exec gets it.
func ParseProcess(text []byte) (*specs.Process, error) {
	d := &decoder{text: text, path: []byte("process")}
	p := new(specs.Process)
	d.process(p)
	if err := d.end(); err != nil {
		return nil, fault.New(fault.Invalid, "parse", "process", "%w", err)
	}
	return p, nil
}

func position(text []byte, off int64) (line, col int) {
	before := text[:min(max(off, 0), int64(len(text)))]
	return 1 + bytes.Count(before, []byte("\n")), len(before) - bytes.LastIndexByte(before, '\n')
}
