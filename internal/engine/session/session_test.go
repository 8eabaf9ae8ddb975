package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"berth/internal/monitor"
)

// taker is a monitor that keeps what it is given.
type taker struct {
	conn net.Conn
	err  error
}

func (m *taker) Attach(_ context.Context, _ monitor.AttachRequest, conn *os.File) (err error) {
	if m.err == nil {
		m.conn, err = net.FileConn(conn)
	}
	return errors.Join(m.err, err)
}

// pair returns a client's connection and what the engine has of it.
func pair(t *testing.T) (client net.Conn, ours *os.File) {
	t.Helper()
	near, far, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	client, err = net.FileConn(near)
	near.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		far.Close()
	})
	return client, far
}

// A client's input reaches the program in order, whatever of it was read too early,
// and the end of either direction reaches the other side.
func TestHandOver(t *testing.T) {
	for name, early := range map[string]string{"nothing read": "", "input read too early": "early "} {
		t.Run(name, func(t *testing.T) {
			client, ours := pair(t)
			m := &taker{}
			if err := HandOver(t.Context(), m, monitor.AttachRequest{Stdin: true}, ours, []byte(early)); err != nil {
				t.Fatal(err)
			}
			defer m.conn.Close()
			ours.Close() // as the API does
			if _, err := io.WriteString(client, "late"); err != nil {
				t.Fatal(err)
			}
			endWriting(client)
			if got, err := io.ReadAll(m.conn); err != nil || string(got) != early+"late" {
				t.Errorf("the program reads %q, %v", got, err)
			}
			if _, err := io.WriteString(m.conn, "answer"); err != nil {
				t.Fatal(err)
			}
			m.conn.Close()
			if got, err := io.ReadAll(client); err != nil || string(got) != "answer" {
				t.Errorf("the client reads %q, %v", got, err)
			}
		})
	}
	client, ours := pair(t)
	if err := HandOver(t.Context(), &taker{err: os.ErrClosed}, monitor.AttachRequest{Stdin: true}, ours, []byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a monitor that refuses: %v", err)
	}
	Tell(ours, errors.New("no program"), true)
	if got, err := io.ReadAll(client); err != nil || string(got) != "no program\r\n" {
		t.Errorf("the client reads %q, %v", got, err)
	}
}

func TestTell(t *testing.T) {
	client, ours := pair(t)
	Tell(ours, errors.New("gone"), false)
	if got, err := io.ReadAll(client); err != nil || string(got) != "\x02\x00\x00\x00\x00\x00\x00\x06gone\r\n" {
		t.Errorf("the client reads %q, %v", got, err)
	}
}

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	if n, err := (Frames{&b, 1}).Write([]byte("out")); n != 3 || err != nil || b.String() != "\x01\x00\x00\x00\x00\x00\x00\x03out" {
		t.Errorf("%d, %v: %q", n, err, b.String())
	}
}
