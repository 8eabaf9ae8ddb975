package syslog

import (
	"encoding/binary"
	"hash/crc32"

	"berth/internal/fault"
	"berth/internal/logs"

	"golang.org/x/sys/unix"
)

// memory is the file that holds how far a forwarder got: one small record with a
// checksum, replaced in place. One that is damaged counts as none: then the log
// is sent from its beginning.
type memory struct {
	fd   int
	path string
}

const memorySize = 32

func openMemory(path string) (*memory, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fault.New(fault.Internal, "open the progress of syslog", path, "%w", err)
	}
	return &memory{fd, path}, nil
}

func (m *memory) close() { _ = unix.Close(m.fd) }

func (m *memory) load() logs.Position {
	var b [memorySize]byte
	if n, err := unix.Pread(m.fd, b[:], 0); err != nil || n < len(b) {
		return logs.Position{}
	}
	le := binary.LittleEndian
	if le.Uint32(b[24:]) != crc32.ChecksumIEEE(b[:24]) {
		return logs.Position{}
	}
	return logs.Position{
		File:   logs.FileID{Inode: le.Uint64(b[0:]), Birth: int64(le.Uint64(b[8:]))},
		Offset: int64(le.Uint64(b[16:])),
	}
}

func (m *memory) save(p logs.Position) error {
	var b [memorySize]byte
	le := binary.LittleEndian
	le.PutUint64(b[0:], p.File.Inode)
	le.PutUint64(b[8:], uint64(p.File.Birth))
	le.PutUint64(b[16:], uint64(p.Offset))
	le.PutUint32(b[24:], crc32.ChecksumIEEE(b[:24]))
	if _, err := unix.Pwrite(m.fd, b[:], 0); err != nil {
		return fault.New(fault.Internal, "remember the progress of syslog", m.path, "%w", err)
	}
	return nil
}
