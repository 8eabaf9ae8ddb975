package logs

// follower delivers what is appended to a log, through rotations.
type follower struct {
	*reader
	changes *watch
	current *logFile // nil while the log does not exist
	behind  bool     // files were rotated away that were not read
}

func (f *follower) close() {
	if f.current != nil {
		_ = f.current.file.Close()
	}
}

func (f *follower) run() error {
	for {
		ending := f.ended()
		if err := f.catchUp(); err != nil {
			return err
		}
		if ending {
			return nil
		}
		select {
		case <-f.changes.changed:
		case <-f.opts.Done:
		case <-f.ctx.Done():
			return f.ctx.Err()
		}
	}
}

// ended reports that nothing more will be written.
func (f *follower) ended() bool {
	select {
	case <-f.opts.Done:
		return true
	default:
		return false
	}
}

// catchUp delivers everything that is there, file after file.
func (f *follower) catchUp() error {
	for {
		// The order matters: a file that was replaced already is complete.
		next, err := f.successor()
		if err != nil {
			return err
		}
		if f.current != nil {
			if err := f.drainCurrent(); err != nil {
				closeFile(next)
				return err
			}
		}
		if next == nil {
			return nil
		}
		if f.behind {
			f.behind = false
			f.missed()
		}
		f.close()
		f.current = next
	}
}

// drainCurrent delivers the rest of the current file. One that has shrunk was
// emptied by hand and is read from its beginning.
func (f *follower) drainCurrent() error {
	if info, err := f.current.file.Stat(); err == nil && !f.current.zipped && info.Size() < f.current.offset {
		f.current.offset = 0
	}
	return f.drain(f.current, -1)
}

// successor opens the file that follows the current one, nil if there is none.
func (f *follower) successor() (*logFile, error) {
	for {
		at, found := f.position()
		if at == 0 {
			return nil, nil
		}
		next, err := openFile(f.path, at-1)
		if err != nil {
			return nil, err
		}
		// Had a rotation come in between, what was opened may be another one.
		if now, _ := f.position(); now == at {
			if next == nil || f.current != nil && next.id == f.current.id {
				closeFile(next)
				return nil, nil // the rotation is under way: its end is an event
			}
			if !found && f.current != nil {
				f.behind = true
			}
			return next, nil
		}
		closeFile(next)
	}
}

// position returns the number of the current file among the rotated ones. When
// it was rotated out or there is none yet, that is one more than the oldest's,
// so that the oldest is what follows.
func (f *follower) position() (at int, found bool) {
	for i := 0; ; i++ {
		id := idAt(f.path, i)
		switch {
		case id.Inode == 0 && i > 0 && !present(f.path, i+1):
			return i, false
		case id.Inode != 0 && f.current != nil && id == f.current.id:
			return i, true
		}
	}
}

func closeFile(f *logFile) {
	if f != nil {
		_ = f.file.Close()
	}
}
