package syslog

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"berth/internal/logs"
)

// formatter puts entries into messages. Its memory is reused.
type formatter struct {
	format   string
	framed   bool // the length in front of each message (RFC 5425)
	facility int
	hostname string
	tag      string
	pid      string

	message, frame []byte
}

func newFormatter(o *Options, tag string) *formatter {
	hostname, err := os.Hostname()
	if err != nil || hostname == "" {
		hostname = "-"
	}
	return &formatter{
		format: o.Format, facility: o.Facility, hostname: hostname, tag: tag, pid: strconv.Itoa(os.Getpid()),
		framed: o.Network == "tcp+tls" && (o.Format == RFC5424 || o.Format == RFC5424Micro),
	}
}

// The severities of the two streams.
const (
	severityError = 3
	severityInfo  = 6

	microseconds = "2006-01-02T15:04:05.000000Z07:00"
)

// encode returns the message of an entry; it is valid until the next call. The
// time is that of the line, not of sending.
func (f *formatter) encode(e *logs.Entry) []byte {
	severity := severityInfo
	if e.Stream == "stderr" {
		severity = severityError
	}
	at := e.Time.Local()
	m := append(f.message[:0], '<')
	m = strconv.AppendInt(m, int64(f.facility*8+severity), 10)
	m = append(m, '>')
	switch f.format {
	case RFC5424, RFC5424Micro:
		layout := time.RFC3339
		if f.format == RFC5424Micro {
			layout = microseconds
		}
		m = at.AppendFormat(append(m, "1 "...), layout)
		for _, field := range []string{f.hostname, f.tag, f.pid, f.tag, "-"} {
			m = append(append(m, ' '), field...)
		}
		m = append(m, ' ')
	default:
		m = at.AppendFormat(m, time.Stamp)
		if f.format == RFC3164 {
			m = append(append(m, ' '), f.hostname...)
		}
		m = append(append(m, ' '), f.tag...)
		m = append(append(append(m, '['), f.pid...), "]: "...)
	}
	m = append(append(m, bytes.TrimSuffix(e.Line, []byte("\n"))...), '\n')
	f.message = m
	if !f.framed {
		return m
	}
	f.frame = strconv.AppendInt(f.frame[:0], int64(len(m)), 10)
	f.frame = append(append(f.frame, ' '), m...)
	return f.frame
}
