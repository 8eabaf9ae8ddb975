package source

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"berth/internal/build/tree"
	"berth/internal/fault"
	"berth/internal/wire/manifest"
)

// nonblock keeps an open from waiting for the other end of a FIFO.
const nonblock = syscall.O_NONBLOCK

// wait lets a context be taken by its ID, for a while.
func (r *received) wait(in *Incoming) error {
	r.mu.Lock()
	full := len(r.waiting) >= maxWaiting
	if !full {
		in.ID = rand.Text()
		r.waiting[in.ID] = in
	}
	r.mu.Unlock()
	if full {
		in.Release()
		return fault.New(fault.Unavailable, "receive build context", "", "%d contexts wait for their builds already", maxWaiting)
	}
	in.timer = time.AfterFunc(patience, func() {
		if r.claim(in.ID) != nil {
			in.Release()
		}
	})
	return nil
}

func (r *received) claim(id string) *Incoming {
	r.mu.Lock()
	defer r.mu.Unlock()
	in := r.waiting[id]
	delete(r.waiting, id)
	return in
}

// Claim returns the context that Receive has begun, once.
func (s *Store) Claim(id string) (*Incoming, error) {
	in := s.received.claim(id)
	if in == nil {
		return nil, fault.New(fault.NotFound, "find build context", "", "it is not on its way, or was not asked for in time").
			WithHint("build again: the files that were sent are still there")
	}
	in.timer.Stop()
	return in, nil
}

// Fill reads the contents that are missing, in their order.
func (in *Incoming) Fill(ctx context.Context, r *bufio.Reader) error {
	for _, i := range in.Missing {
		e := &in.list[i]
		was := *e
		err := manifest.ErrAgain
		for errors.Is(err, manifest.ErrAgain) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			err = in.tree.Put(e, func(w io.Writer) error { return manifest.ReadContent(r, w, e) })
		}
		if err != nil {
			return fault.Wrap("receive build context", in.m.info.Name, err)
		}
		in.changed = in.changed || !was.Equal(e)
	}
	return nil
}

// Context finishes what was received, and opens it. It belongs to the context
// from now on, whatever comes out.
func (in *Incoming) Context(dockerfile string) (*Context, error) {
	c, err := in.open(dockerfile)
	if err != nil {
		in.Release()
		return nil, fault.Wrap("receive build context", in.m.info.Name, err)
	}
	return c, nil
}

func (in *Incoming) open(dockerfile string) (*Context, error) {
	if in.changed {
		if err := manifest.Check(in.list); err != nil {
			return nil, err
		}
	}
	if err := in.tree.Finish(); err != nil {
		return nil, err
	}
	var b []byte
	for i := range in.list {
		b = in.list[i].Append(b)
	}
	at := filepath.Join(in.r.dir, in.m.name)
	if old, err := os.ReadFile(filepath.Join(at, "list")); err != nil || !bytes.Equal(old, b) {
		if err := replace(filepath.Join(at, "list"), b); err != nil {
			return nil, err
		}
	}
	info := in.m.info
	info.Uses++
	if err := in.r.save(in.m, info); err != nil {
		return nil, err
	}
	c := &Context{dir: filepath.Join(at, "tree"), remove: in.Release}
	return c, c.open(tree.Options{Flat: true, Sums: in.sums}, dockerfile)
}

// Release lets go of the directory, which stays for the next time if there is one.
func (in *Incoming) Release() {
	in.release.Do(func() {
		if in.tree != nil {
			in.tree.Close()
		}
		if in.sums != nil {
			_ = in.sums.release() // what is forgotten is found out again
		}
		if in.m == nil {
			return
		}
		in.r.mu.Lock()
		in.m.busy = false
		in.m.info.LastUsed = time.Now()
		in.r.mu.Unlock()
		if in.once {
			_, _ = in.r.store.Remove(in.m.name) // what cannot be removed now is later, with the rest
		}
	})
}

// Kept is a client's directory that is kept.
type Kept struct {
	ID, Name          string
	Size              int64 // bytes
	InUse             bool
	Created, LastUsed time.Time
	Uses              int
}

// Kept lists the directories of clients that are here.
func (s *Store) Kept() []Kept {
	r := s.received
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Kept
	for _, m := range r.mirrors {
		out = append(out, Kept{ID: m.name, Name: m.info.Name, Size: m.info.Size, InUse: m.busy, Created: m.info.Created, LastUsed: m.info.LastUsed, Uses: m.info.Uses})
	}
	return out
}

// Remove removes such a directory unless somebody uses it, and reports whether it
// did.
func (s *Store) Remove(id string) (bool, error) {
	r := s.received
	r.mu.Lock()
	m := r.mirrors[id]
	if m == nil || m.busy {
		r.mu.Unlock()
		return false, nil
	}
	gone := filepath.Join(s.dir, "tmp", "gone-"+id+"-"+rand.Text())
	err := os.Rename(filepath.Join(r.dir, id), gone)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		delete(r.mirrors, id)
		s.sums.forget(filepath.Join(r.dir, id, "tree"))
	}
	r.mu.Unlock()
	if err == nil {
		err = os.RemoveAll(gone)
	}
	return err == nil, fault.Wrap("remove build context", m.info.Name, err)
}
