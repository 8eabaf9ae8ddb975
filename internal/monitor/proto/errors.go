package proto

import (
	"encoding/json"
	"errors"

	"berth/internal/fault"
	"berth/internal/runtime"
)

// wireError is an error on its way: what a *fault.Error says, and the
// executable's own error when that is the cause.
type wireError struct {
	Kind    fault.Kind `json:"kind"`
	Op      string     `json:"op,omitempty"`
	Subject string     `json:"subject,omitempty"`
	Text    string     `json:"text,omitempty"`
	Hint    string     `json:"hint,omitempty"`
	Exec    *execError `json:"exec,omitempty"`
}

type execError struct {
	Path string `json:"path"`
	Text string `json:"text,omitempty"`
	Hint string `json:"hint,omitempty"`
	Code int    `json:"code"`
}

// EncodeError returns the head of an error frame.
func EncodeError(err error) []byte {
	w := wireError{Kind: fault.KindOf(err), Text: err.Error()}
	var located *fault.Error
	if errors.As(err, &located) && located == err {
		w.Op, w.Subject, w.Hint, w.Text = located.Op, located.Subject, located.Hint, ""
		if located.Err != nil {
			w.Text = located.Err.Error()
		}
	}
	var exec *runtime.ExecError
	if errors.As(err, &exec) {
		w.Exec = &execError{Path: exec.Path, Hint: exec.Hint, Code: exec.Code}
		if exec.Err != nil {
			w.Exec.Text = exec.Err.Error()
		}
	}
	head, failed := json.Marshal(w)
	if failed != nil {
		return []byte(`{"text":"an error that cannot be written as JSON"}`)
	}
	return head
}

// DecodeError rebuilds the error of an error frame: a *fault.Error of the same
// kind, whose cause is a *runtime.ExecError where it was one.
func DecodeError(head []byte) error {
	var w wireError
	if err := json.Unmarshal(head, &w); err != nil {
		return fault.New(fault.Internal, "decode the monitor's error", "", "%w", err)
	}
	e := &fault.Error{Kind: w.Kind, Op: w.Op, Subject: w.Subject, Hint: w.Hint}
	switch {
	case w.Exec != nil:
		e.Err = &runtime.ExecError{Path: w.Exec.Path, Err: errors.New(w.Exec.Text), Hint: w.Exec.Hint, Code: w.Exec.Code}
		if e.Op == "" {
			return e.Err
		}
	case w.Text != "":
		e.Err = errors.New(w.Text)
	}
	return e
}
