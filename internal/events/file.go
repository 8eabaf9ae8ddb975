package events

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"

	"berth/internal/fault"

	"github.com/moby/moby/api/types/events"
)

// Keep makes the bus remember its events in a file, so that they can be replayed
// after the process was killed: those there are read first. An event is in the
// file before Publish returns; nothing is synced, since the file is to live as
// long as the boot. Without Keep, and when the file can't be written any more, the
// bus remembers what it has seen itself.
func (b *Bus) Keep(path string) error {
	const op = "keep events"
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(op, path, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range bytes.Lines(text) {
		var m events.Message
		if !bytes.HasSuffix(line, []byte("\n")) || json.Unmarshal(line, &m) != nil {
			continue // cut off by a kill
		}
		b.append(m)
	}
	b.path = path
	return fault.Wrap(op, path, b.rewrite())
}

// rewrite begins the file anew with the events that are kept, by rename.
func (b *Bus) rewrite() error {
	if b.file != nil {
		b.file.Close()
		b.file = nil
	}
	f, err := os.OpenFile(b.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	b.lines = 0
	for seq := b.next - uint64(len(b.ring)); seq < b.next && err == nil; seq++ {
		err = enc.Encode(b.at(seq))
		b.lines++
	}
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = os.Rename(b.path+".new", b.path)
	}
	if err != nil {
		f.Close()
		return err
	}
	b.file = f
	return nil
}

// write appends an event to the file, and begins it anew when it has become twice
// as long as it needs to be. The caller holds the lock.
func (b *Bus) write(m *events.Message) {
	if b.file == nil {
		return
	}
	line, err := json.Marshal(m)
	if err == nil {
		_, err = b.file.Write(append(line, '\n'))
	}
	if b.lines++; err == nil && b.lines >= 2*kept {
		err = b.rewrite()
	}
	if err != nil && b.file != nil {
		b.file.Close()
		b.file = nil
	}
}

// Close lets go of the file.
func (b *Bus) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file != nil {
		b.file.Close()
		b.file = nil
	}
}
