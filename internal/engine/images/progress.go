package images

import (
	"encoding/json"
	"io"
	"sync"

	"github.com/moby/moby/api/types/jsonstream"
)

// progress writes docker's progress messages, one JSON object a line.
type progress struct {
	mu  sync.Mutex // serialises writes
	out io.Writer
	err error // of the first write that failed: the client went away
}

func (p *progress) send(m jsonstream.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return
	}
	text, err := json.Marshal(m)
	if err == nil {
		_, err = p.out.Write(append(text, '\r', '\n'))
	}
	p.err = err
}

func (p *progress) status(text string) { p.send(jsonstream.Message{Status: text}) }
