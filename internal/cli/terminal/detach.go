package terminal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// DefaultDetachKeys is the key sequence that leaves an attached container.
const DefaultDetachKeys = "ctrl-p,ctrl-q"

// ErrDetach is returned by a reader in whose input the detach keys were typed.
var ErrDetach = errors.New("detached")

// ParseDetachKeys reads a comma-separated list of keys, each a single character
// or ctrl- and one of a-z @ [ \ ] ^ _. The empty string means the default.
func ParseDetachKeys(text string) ([]byte, error) {
	if text == "" {
		text = DefaultDetachKeys
	}
	var keys []byte
	for key := range strings.SplitSeq(text, ",") {
		code, ok := keyCode(key)
		if !ok {
			return nil, fmt.Errorf("detach keys %q: %q is not a key: use a character or ctrl-a ... ctrl-z, ctrl-@ [ \\ ] ^ _", text, key)
		}
		keys = append(keys, code)
	}
	return keys, nil
}

func keyCode(key string) (byte, bool) {
	if len(key) == 1 {
		return key[0], true
	}
	rest, ok := strings.CutPrefix(strings.ToLower(key), "ctrl-")
	if !ok || len(rest) != 1 {
		return 0, false
	}
	switch c := rest[0]; {
	case c >= 'a' && c <= 'z':
		return c - 'a' + 1, true
	case c == '@':
		return 0, true
	case c >= '[' && c <= '_':
		return c - '[' + 27, true
	}
	return 0, false
}

// DetachReader passes r on and ends with ErrDetach when keys are typed in it.
// Keys that begin the sequence are held back until it is clear that they do not
// complete it.
type DetachReader struct {
	r     io.Reader
	keys  []byte
	held  int    // how many of keys have been typed
	ready []byte // to be returned
	err   error  // to be returned after ready
	buf   [4096]byte
}

// NewDetachReader returns a reader of r that recognises keys.
func NewDetachReader(r io.Reader, keys []byte) *DetachReader {
	return &DetachReader{r: r, keys: keys}
}

// Read implements io.Reader.
func (d *DetachReader) Read(p []byte) (int, error) {
	for len(d.ready) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		n, err := d.r.Read(d.buf[:])
		d.ready = d.ready[:0]
		for _, b := range d.buf[:n] {
			if d.typed(b) {
				d.err = ErrDetach
				break
			}
		}
		if err != nil && d.err == nil {
			d.ready = append(d.ready, d.keys[:d.held]...)
			d.held, d.err = 0, err
		}
	}
	n := copy(p, d.ready)
	d.ready = d.ready[n:]
	return n, nil
}

// typed takes one byte and reports whether it completed the sequence.
func (d *DetachReader) typed(b byte) bool {
	if len(d.keys) == 0 {
		d.ready = append(d.ready, b)
		return false
	}
	seen := append(append(make([]byte, 0, d.held+1), d.keys[:d.held]...), b)
	for n := len(seen); n >= 0; n-- { // the longest end of what was typed that begins the sequence
		if n <= len(d.keys) && bytes.HasSuffix(seen, d.keys[:n]) {
			d.ready = append(d.ready, seen[:len(seen)-n]...)
			d.held = n
			return n == len(d.keys)
		}
	}
	return false
}
