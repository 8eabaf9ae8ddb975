// Package config reads a bundle's config.json and checks it before anything is
// made. It exists so that a bad configuration is refused by the name of the
// field that is wrong, and not by the system call that would have failed.
package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"berth/internal/fault"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// maxSize bounds a configuration file; real ones have some kilobytes.
const maxSize = 16 << 20

// Load reads config.json in the bundle directory and returns it decoded and as
// it is.
func Load(bundle string) (*specs.Spec, []byte, error) {
	name := filepath.Join(bundle, "config.json")
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, fault.New(fault.NotFound, "read", name, "%w", err).WithHint("a bundle is a directory with config.json; 'berth-runtime spec' writes one")
	}
	if err != nil {
		return nil, nil, fault.New(fault.Internal, "read", name, "%w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, nil, fault.New(fault.Internal, "read", name, "%w", err)
	}
	if len(text) > maxSize {
		return nil, nil, fault.New(fault.Invalid, "read", name, "the file is larger than %d MiB", maxSize>>20)
	}
	var spec specs.Spec
	if err := decode(text, &spec); err != nil {
		return nil, nil, fault.New(fault.Invalid, "parse", name, "%w", err)
	}
	return &spec, text, nil
}

// Parse decodes a configuration.
func Parse(text []byte) (*specs.Spec, error) {
	var spec specs.Spec
	if err := decode(text, &spec); err != nil {
		return nil, fault.New(fault.Invalid, "parse", "config", "%w", err)
	}
	return &spec, nil
}

// ParseProcess decodes a process, as exec gets it.
func ParseProcess(text []byte) (*specs.Process, error) {
	var p specs.Process
	if err := decode(text, &p); err != nil {
		return nil, fault.New(fault.Invalid, "parse", "process", "%w", err)
	}
	return &p, nil
}

func decode(text []byte, into any) error {
	err := json.Unmarshal(text, into)
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		line, col := position(text, syntax.Offset)
		return fmt.Errorf("line %d, column %d: %s", line, col, strings.TrimPrefix(syntax.Error(), "json: "))
	case errors.As(err, &typ):
		line, col := position(text, typ.Offset)
		return fmt.Errorf("%s (line %d, column %d): a %s can't be here, want %s", typ.Field, line, col, typ.Value, typ.Type)
	}
	return err
}

func position(text []byte, off int64) (line, col int) {
	before := text[:min(max(off, 0), int64(len(text)))]
	return 1 + bytes.Count(before, []byte("\n")), len(before) - bytes.LastIndexByte(before, '\n')
}
