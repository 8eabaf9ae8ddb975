package logs

import (
	"compress/gzip"
	"io"
	"os"
)

// inflater reads a compressed file as if it were not. It is made for reading
// forwards; going back begins anew. What is damaged ends the file: it must not
// hide the rest of the log.
type inflater struct {
	file *os.File
	zip  *gzip.Reader
	at   int64 // of what comes out next
	over bool
}

// ReadAt reads at least one byte unless the file is at its end.
func (r *inflater) ReadAt(p []byte, off int64) (int, error) {
	if r.zip == nil || off < r.at {
		if err := r.begin(); err != nil {
			r.over = true
		}
	}
	if off > r.at && !r.over {
		n, err := io.CopyN(io.Discard, r.zip, off-r.at)
		r.at += n
		r.over = err != nil
	}
	if r.over {
		return 0, io.EOF
	}
	n, err := io.ReadFull(r.zip, p)
	r.at += int64(n)
	if err != nil {
		r.over = true
		return n, io.EOF
	}
	return n, nil
}

func (r *inflater) begin() (err error) {
	r.at, r.over = 0, false
	from := io.NewSectionReader(r.file, 0, 1<<62)
	if r.zip == nil {
		r.zip, err = gzip.NewReader(from)
		return err
	}
	return r.zip.Reset(from)
}
