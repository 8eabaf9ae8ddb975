package client

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"berth/internal/fault"
)

// sshConn is an ssh process whose standard streams are one end of a socket pair
// and so make a connection with a half-close.
type sshConn struct {
	net.Conn
	process *exec.Cmd
}

// Close ends the process with its connection.
func (s *sshConn) Close() error {
	err := s.Conn.Close()
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
	return err
}

// CloseWrite ends what the remote engine reads.
func (s *sshConn) CloseWrite() error { return s.Conn.(*net.UnixConn).CloseWrite() }

// dialSSH runs ssh with a command on the far side that connects its standard
// streams to the engine there: berth's when it is installed, else docker's.
func dialSSH(e Endpoint) (net.Conn, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fault.New(fault.Internal, "make a socket pair", "", "%w", err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "ssh"), os.NewFile(uintptr(fds[1]), "ssh")
	defer near.Close()
	defer far.Close()
	raw, err := net.FileConn(near)
	if err != nil {
		return nil, fault.New(fault.Internal, "use a socket pair", "", "%w", err)
	}
	cmd := exec.Command("ssh", sshArguments(e)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = far, far, os.Stderr
	if err := cmd.Start(); err != nil {
		_ = raw.Close()
		return nil, fault.New(fault.Unavailable, "start ssh to", e.String(), "%w", err)
	}
	return &sshConn{raw, cmd}, nil
}

func sshArguments(e Endpoint) []string {
	var args []string
	if e.User != "" {
		args = append(args, "-l", e.User)
	}
	if e.Port != "" {
		args = append(args, "-p", e.Port)
	}
	host := ""
	if e.Path != "" {
		host = " --host " + shellQuote("unix://"+e.Path)
	}
	remote := "if command -v berth >/dev/null 2>&1; then exec berth" + host + " system dial-stdio; " +
		"else exec docker" + host + " system dial-stdio; fi"
	return append(args, "-o", "ConnectTimeout=30", "-T", "--", e.Address, "sh -c "+shellQuote(remote))
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
