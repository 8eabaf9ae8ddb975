package registry

import (
	"io"
	"net/http"
	"os"
	"time"
)

const (
	// slice is what is sent or received under one deadline, in bytes.
	slice = 1 << 20
	// sliceTime is how long a client may take for a slice: less than 17 KB a
	// second for a minute on end is given up, because it holds a connection.
	sliceTime = time.Minute
)

// response counts what is sent, keeps slow clients to a deadline that moves
// with them, and leaves files to sendfile(2): it hands them on to the
// connection's own ReadFrom, in slices.
type response struct {
	http.ResponseWriter
	control *http.ResponseController
	status  int
	bytes   int64
}

func newResponse(w http.ResponseWriter) *response {
	return &response{ResponseWriter: w, control: http.NewResponseController(w)}
}

// Unwrap lets http.ResponseController find the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader remembers the status. The deadline is that of this answer and not
// what an earlier one on the same connection left behind.
func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.extend()
	w.ResponseWriter.WriteHeader(status)
}

// Write counts.
func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.extend()
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// ReadFrom sends r, of which a file is sent without copying.
func (w *response) ReadFrom(r io.Reader) (int64, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	rest := int64(1<<63 - 1)
	limited, ok := r.(*io.LimitedReader)
	if ok {
		r, rest = limited.R, limited.N
	}
	if _, file := r.(*os.File); !file {
		return w.copy(&io.LimitedReader{R: r, N: rest})
	}
	var total int64
	for rest > 0 {
		part := &io.LimitedReader{R: r, N: min(slice, rest)}
		w.extend()
		n, err := w.send(part)
		total += n
		rest -= n
		w.bytes += n
		if ok {
			limited.N = rest
		}
		if err != nil {
			return total, err
		}
		if part.N > 0 { // r has ended
			break
		}
	}
	return total, nil
}

// copy sends what is no file. It may have to be waited for, so the deadline is
// set before each write.
func (w *response) copy(r io.Reader) (int64, error) {
	p := buffers.Get().(*[]byte)
	defer buffers.Put(p)
	return io.CopyBuffer(struct{ io.Writer }{w}, r, *p)
}

func (w *response) send(part *io.LimitedReader) (int64, error) {
	if rf, ok := w.ResponseWriter.(io.ReaderFrom); ok {
		return rf.ReadFrom(part)
	}
	return io.Copy(struct{ io.Writer }{w.ResponseWriter}, part)
}

// extend gives the client time for one more slice. Where there is no connection
// (in tests, behind another handler) there is no deadline.
func (w *response) extend() { _ = w.control.SetWriteDeadline(time.Now().Add(sliceTime)) }

// body is a request's body whose sender is kept to the same pace.
type body struct {
	io.Reader
	control *http.ResponseController
	left    int64 // bytes until the deadline moves
	bytes   int64
	cut     error // how it ended, if not well
}

// Read reads and moves the deadline.
func (b *body) Read(p []byte) (int, error) {
	if b.left <= 0 {
		b.left = slice
		_ = b.control.SetReadDeadline(time.Now().Add(sliceTime))
	}
	n, err := b.Reader.Read(p)
	b.left -= int64(n)
	b.bytes += int64(n)
	switch {
	case err == io.EOF:
		// What is done with it may take longer than a client may.
		_ = b.control.SetReadDeadline(time.Time{})
	case err != nil:
		b.cut = err
	}
	return n, err
}
