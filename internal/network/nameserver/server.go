package nameserver

import (
	"encoding/json"
	"net"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// message is what the engine says: put, or drop by id.
type message struct {
	Put  *Entry `json:",omitempty"`
	Drop string `json:",omitempty"`
}

// The descriptors that a server is started with.
const (
	controlFD = 3 // the connection to the engine
	endFD     = 4 // the socket at path: whoever calls there ends the server
)

// Main is a server process from its start to its end. path is that of its socket.
func Main(path string) error {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM) // containers need it when all else is asked to end
	control := os.NewFile(controlFD, "engine")
	conn, err := packetConn(control)
	if err != nil {
		return fault.New(fault.Invalid, "serve names", "", "this program is started by the engine: %w", err)
	}
	_ = control.Close()
	socket := os.NewFile(endFD, path)
	end, err := net.FileListener(socket)
	if err != nil {
		return fault.New(fault.Invalid, "serve names", path, "%w", err)
	}
	_ = socket.Close()
	ended := make(chan struct{}, 2)
	go func() {
		_, _ = end.Accept()
		ended <- struct{}{}
	}()
	go func() {
		if newServer().attend(conn) == 0 {
			ended <- struct{}{}
		}
	}()
	<-ended
	_ = os.Remove(path)
	return nil
}

// server holds the services of all containers.
type server struct {
	zone     *zone
	services map[string]*service // attend's own
}

func newServer() *server { return &server{zone: newZone(), services: make(map[string]*service)} }

// attend does what the engine says until the connection ends, and tells how many
// containers are left then.
func (s *server) attend(conn *net.UnixConn) int {
	defer conn.Close()
	buf, oob := make([]byte, maxEntry), make([]byte, unix.CmsgSpace(2*4))
	for {
		n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
		if err != nil || n == 0 {
			return len(s.services)
		}
		fds := descriptors(oob[:oobn])
		var m message
		if json.Unmarshal(buf[:n], &m) == nil {
			fds = s.do(&m, fds)
		}
		for _, fd := range fds { // nobody's
			unix.Close(fd)
		}
	}
}

// do carries a message out and returns the sockets that it did not take.
func (s *server) do(m *message, fds []int) []int {
	if m.Drop != "" {
		s.zone.drop(m.Drop)
		s.close(m.Drop)
	}
	if m.Put == nil {
		return fds
	}
	s.zone.put(m.Put)
	if len(fds) != 2 {
		return fds
	}
	s.close(m.Put.Container)
	if made, err := newService(s.zone, m.Put.Container, fds[0], fds[1]); err == nil {
		s.services[m.Put.Container] = made
	}
	return nil
}

func (s *server) close(id string) {
	if old := s.services[id]; old != nil {
		old.close()
		delete(s.services, id)
	}
}

func (s *server) closeAll() {
	for id := range s.services {
		s.close(id)
	}
}

// descriptors reads what came with a message.
func descriptors(oob []byte) []int {
	var out []int
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range list {
		if fds, err := unix.ParseUnixRights(&list[i]); err == nil {
			out = append(out, fds...)
		}
	}
	for _, fd := range out {
		unix.CloseOnExec(fd)
	}
	return out
}
