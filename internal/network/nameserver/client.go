package nameserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

const (
	// sendPatience is how long a server may leave a message unread before it is
	// replaced.
	sendPatience = 5 * time.Second
	// linger is how long a server without containers is kept for the next one.
	linger = 30 * time.Second
	// restartPause keeps a server that dies at once from being started all the time.
	restartPause = time.Second
	// maxEntry bounds a message, in bytes; names of one container fill a fraction.
	maxEntry = 512 << 10
)

// Client is the engine's end: it starts the server when the first container needs
// it, and again when it dies. Its methods may be called at the same time.
type Client struct {
	dir     string   // where servers listen for their end
	command []string // of a server; none serves inside of this process
	log     *slog.Logger

	mu     sync.Mutex // guards the rest
	conn   *net.UnixConn
	server *os.Process // nil inside of this process
	path   string      // of the server's socket
	served map[string]*served
	idle   *time.Timer
	closed bool
}

// served is a container and its sockets.
type served struct {
	entry    Entry
	udp, tcp int
}

// NewClient prepares a client. Nothing is started before the first Put. command is
// what to execute with the path of a socket as its last argument; see Main.
func NewClient(dir string, command []string, log *slog.Logger) *Client {
	return &Client{dir: dir, command: command, log: log, served: make(map[string]*served)}
}

// Put begins to serve a container on two sockets, which now belong to the client.
func (c *Client) Put(e Entry, udp, tcp int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		unix.Close(udp)
		unix.Close(tcp)
		return fault.New(fault.Unavailable, "serve names for", e.Container, "the network is shutting down")
	}
	c.remove(e.Container)
	s := &served{entry: e, udp: udp, tcp: tcp}
	c.served[e.Container] = s
	if c.idle != nil {
		c.idle.Stop()
		c.idle = nil
	}
	err := c.ensure()
	if err == nil {
		err = c.send(message{Put: &s.entry}, s.udp, s.tcp)
	}
	if err != nil {
		c.remove(e.Container)
	}
	return err
}

// Update replaces what is known about a container that is served; of others it
// knows nothing.
func (c *Client) Update(e Entry) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.served[e.Container]
	if s == nil {
		return nil
	}
	s.entry = e
	return c.send(message{Put: &e})
}

// Drop ends the service of a container.
func (c *Client) Drop(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.served[id] == nil {
		return
	}
	c.remove(id)
	_ = c.send(message{Drop: id})
	if len(c.served) == 0 && c.idle == nil {
		c.idle = time.AfterFunc(linger, c.rest)
	}
}

// rest lets go of a server that has nothing to do.
func (c *Client) rest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle != nil && len(c.served) == 0 {
		c.hangUp()
	}
}

// remove forgets a container and closes its sockets here.
func (c *Client) remove(id string) {
	if s := c.served[id]; s != nil {
		delete(c.served, id)
		unix.Close(s.udp)
		unix.Close(s.tcp)
	}
}

// hangUp ends the connection. A server without containers ends with it.
func (c *Client) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close()
	}
	c.conn, c.server, c.path = nil, nil, ""
}

// Close lets go of the server, which goes on serving the containers there are.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.idle != nil {
		c.idle.Stop()
	}
	if len(c.served) == 0 && c.path != "" {
		_ = os.Remove(c.path) // it ends now
	}
	_ = os.Remove(c.dir) // unless somebody is in there
	c.hangUp()
	for id := range c.served {
		c.remove(id)
	}
}

// Retire ends the servers of engines before this one.
func (c *Client) Retire() {
	c.mu.Lock()
	own := c.path
	c.mu.Unlock()
	entries, _ := os.ReadDir(c.dir)
	for _, e := range entries {
		path := filepath.Join(c.dir, e.Name())
		if path == own {
			continue
		}
		if conn, err := net.Dial("unix", path); err == nil {
			_ = conn.Close() // whoever calls is the next engine
		}
		_ = os.Remove(path)
	}
	if own == "" {
		_ = os.Remove(c.dir)
	}
}

// send gives the server a message, with sockets. One that does not take it is
// replaced by one that gets everything.
func (c *Client) send(m message, fds ...int) error {
	if c.conn == nil {
		return nil // it is being started, and will be told
	}
	data, err := json.Marshal(m)
	if err != nil {
		return fault.New(fault.Internal, "serve names", "", "%w", err)
	}
	if len(data) > maxEntry {
		return fault.New(fault.Invalid, "serve names", "", "a container has names of %d bytes, at most %d are possible", len(data), maxEntry)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(sendPatience))
	if _, _, err := c.conn.WriteMsgUnix(data, rights, nil); err != nil {
		_ = c.conn.Close() // attend sees it, and starts another
	}
	return nil
}

// ensure starts a server unless there is one.
func (c *Client) ensure() error {
	if c.conn != nil {
		return nil
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return fault.New(fault.Internal, "start the name server", "", "%w", err)
	}
	defer theirs.Close()
	if len(c.command) == 0 {
		conn, err := packetConn(theirs)
		if err != nil {
			_ = ours.Close()
			return fault.New(fault.Internal, "start the name server", "", "%w", err)
		}
		go func() {
			s := newServer()
			s.attend(conn)
			s.closeAll()
		}()
	} else if err := c.spawn(theirs); err != nil {
		_ = ours.Close()
		return err
	}
	c.conn = ours
	go c.attend(ours, c.server, time.Now())
	return nil
}

// spawn executes a server. Its socket exists before it does, so that no server can
// be overlooked by Retire.
func (c *Client) spawn(control *os.File) error {
	const op = "start the name server"
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return fault.New(fault.Internal, op, c.dir, "%w", err)
	}
	path := filepath.Join(c.dir, fmt.Sprintf("%x.sock", time.Now().UnixNano()))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		return fault.New(fault.Internal, op, path, "%w", err)
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	end, err := l.File()
	if err != nil {
		return fault.New(fault.Internal, op, path, "%w", err)
	}
	defer end.Close()
	cmd := exec.Command(c.command[0], append(c.command[1:], path)...)
	cmd.Args[0] = "berthd"
	cmd.ExtraFiles = []*os.File{control, end}
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=25")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Dir = "/"
	if err := cmd.Start(); err != nil {
		_ = os.Remove(path)
		return fault.New(fault.Internal, op, c.command[0], "%w", err)
	}
	go func() { _ = cmd.Wait() }()
	c.server, c.path = cmd.Process, path
	return nil
}

// attend waits for the end of a connection and starts another server if there is
// something to serve.
func (c *Client) attend(conn *net.UnixConn, server *os.Process, since time.Time) {
	_, _ = conn.Read(make([]byte, 1)) // it says nothing
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != conn {
		return // we hung up
	}
	path := c.path
	if server != nil {
		_ = server.Kill() // two that answer at the same sockets would be one too many
		_ = os.Remove(path)
	}
	c.hangUp()
	if c.closed || len(c.served) == 0 {
		return
	}
	c.log.Warn("the name server has ended; starting another")
	pause := time.Duration(0)
	if time.Since(since) < restartPause {
		pause = restartPause
	}
	time.AfterFunc(pause, c.again)
}

// again starts a server for the containers that there are.
func (c *Client) again() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.served) == 0 || c.conn != nil {
		return
	}
	if err := c.ensure(); err != nil {
		c.log.Error("names are not found on user-defined networks", "error", err)
		time.AfterFunc(restartPause, c.again)
		return
	}
	for _, s := range c.served {
		if err := c.send(message{Put: &s.entry}, s.udp, s.tcp); err != nil {
			c.log.Warn("serve names again", "container", s.entry.Container, "error", err)
		}
	}
}

// socketPair makes the two ends of a connection that keeps messages apart.
func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	for _, fd := range fds {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4*maxEntry)
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "names"), os.NewFile(uintptr(fds[1]), "names")
	defer mine.Close()
	conn, err := packetConn(mine)
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return conn, theirs, nil
}

func packetConn(f *os.File) (*net.UnixConn, error) {
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}
