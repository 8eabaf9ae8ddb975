package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// fail reports an error on standard error and, with --log, in the log file in
// the form that callers of runc parse. It returns the exit code.
func (g *global) fail(err error) int {
	if g.log != "" {
		if logged := g.append(err); logged != nil {
			fmt.Fprintln(os.Stderr, "berth-runtime:", logged)
		}
	}
	fmt.Fprintln(os.Stderr, "berth-runtime:", err)
	return 1
}

func (g *global) append(err error) error {
	now := time.Now().Format(time.RFC3339Nano)
	line := []byte(fmt.Sprintf("time=%q level=error msg=%q\n", now, err.Error()))
	if g.logFormat == "json" {
		text, encoded := json.Marshal(map[string]string{"level": "error", "msg": err.Error(), "time": now})
		if encoded != nil {
			return encoded
		}
		line = append(text, '\n')
	}
	f, opened := os.OpenFile(g.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND|os.O_SYNC, 0o644)
	if opened != nil {
		return opened
	}
	if _, written := f.Write(line); written != nil {
		f.Close()
		return written
	}
	return f.Close()
}
