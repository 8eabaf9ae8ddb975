package runtime

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"
)

// encode writes the state as JSON by hand: it is on the way of every start,
// where a general encoder would first have to inspect the types.
func (s *stateFile) encode() []byte {
	e := encoder{buf: make([]byte, 0, 2048)}
	e.str("ociVersion", s.Version)
	e.str("id", s.ID)
	e.num("pid", uint64(s.PID))
	e.num("startTime", s.StartTime)
	e.str("bundle", s.Bundle)
	e.str("rootfs", s.Rootfs)
	e.str("created", s.Created.Format(time.RFC3339Nano))
	e.num("uid", uint64(s.UID))
	e.strs("annotations", s.Annotations)
	e.strs("cgroups", s.Cgroups)
	e.num("namespaces", s.Namespaces)
	if s.Unit != "" {
		e.str("unit", s.Unit)
		e.str("slice", s.Slice)
	}
	if len(s.Steps) > 0 {
		e.key("steps")
		e.buf = append(e.buf, '[')
		for i, l := range s.Steps {
			if i > 0 {
				e.buf = append(e.buf, ',')
			}
			var in encoder
			in.num("addr", l.Addr)
			in.str("step", l.Step)
			e.buf = append(e.buf, in.object()...)
		}
		e.buf = append(e.buf, ']')
	}
	return e.object()
}

// encoder appends the members of one JSON object.
type encoder struct{ buf []byte }

func (e *encoder) object() []byte {
	if len(e.buf) == 0 {
		return []byte("{}")
	}
	return append(e.buf, '}')
}

func (e *encoder) key(k string) {
	c := byte(',')
	if len(e.buf) == 0 {
		c = '{'
	}
	e.buf = append(e.buf, c)
	e.quote(k)
	e.buf = append(e.buf, ':')
}

func (e *encoder) str(k, v string) {
	e.key(k)
	e.quote(v)
}

func (e *encoder) num(k string, v uint64) {
	e.key(k)
	e.buf = strconv.AppendUint(e.buf, v, 10)
}

func (e *encoder) strs(k string, m map[string]string) {
	if len(m) == 0 {
		return
	}
	e.key(k)
	var in encoder
	for _, name := range slices.Sorted(maps.Keys(m)) {
		in.str(name, m[name])
	}
	e.buf = append(e.buf, in.object()...)
}

// quote appends a string. What needs escapes, which nearly nothing does, is
// left to the general encoder.
func (e *encoder) quote(s string) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			b, _ := json.Marshal(s) // a string can always be encoded
			e.buf = append(e.buf, b...)
			return
		}
	}
	e.buf = append(append(append(e.buf, '"'), s...), '"')
}
