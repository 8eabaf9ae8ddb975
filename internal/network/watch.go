package network

import (
	"encoding/binary"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// watcher puts our table back when somebody removes it or parts of it, as a
// flush of the whole ruleset or a reload of the host's firewall does.
type watcher struct {
	m       *Manager
	conn    *netlink.Conn
	damaged chan struct{} // holds at most one wish to repair
	done    chan struct{}
}

const (
	// repairPause is the least time between two repairs, so that many removals
	// in a row cost one; the first is repaired at once.
	repairPause = 10 * time.Millisecond
	// When something keeps on removing the table, more than calmRepairs times in
	// calmWindow, we keep putting it back, but slowly.
	calmRepairs = 20
	calmWindow  = 10 * time.Second
	fightPause  = time.Second
	watchBuffer = 4 << 20 // bytes of announcements that may wait for us
)

func startWatcher(m *Manager) (*watcher, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	if err != nil {
		return nil, err
	}
	_ = conn.SetReadBuffer(watchBuffer)
	_ = conn.SetBPF(othersOnly(m.firewall.portID)) // else harms sorts them out
	w := &watcher{m: m, conn: conn, damaged: make(chan struct{}, 1), done: make(chan struct{})}
	go w.listen()
	go w.repair()
	return w, nil
}

// othersOnly is a socket filter that keeps the announcements of our own changes
// away, so that publishing a port wakes nobody. One datagram holds announcements
// of one transaction.
func othersOnly(sender uint32) []bpf.RawInstruction {
	const senderOffset = 12 // in the netlink header, in the machine's byte order
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: senderOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(u32(sender)), SkipTrue: 1},
		bpf.RetConstant{Val: 1<<32 - 1},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return nil
	}
	return program
}

// stop ends the watch; a nil watcher is none.
func (w *watcher) stop() {
	if w != nil {
		close(w.done)
		w.conn.Close()
	}
}

// listen wishes for a repair at the end of each transaction that did harm.
func (w *watcher) listen() {
	harmed := false
	for {
		msgs, err := w.conn.Receive()
		select {
		case <-w.done:
			return
		default:
		}
		if err != nil {
			// Announcements were lost: we cannot know what was in them.
			w.wish()
			time.Sleep(repairPause)
			continue
		}
		for _, msg := range msgs {
			harmed = harmed || w.harms(msg)
			if harmed && msg.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
				harmed = false
				w.wish()
			}
		}
	}
}

// harms tells whether a message announces the removal of something of ours by
// somebody else.
func (w *watcher) harms(msg netlink.Message) bool {
	if msg.Header.PID == w.m.firewall.portID || uint16(msg.Header.Type)>>8 != unix.NFNL_SUBSYS_NFTABLES {
		return false
	}
	switch uint16(msg.Header.Type) & 0xff {
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE, unix.NFT_MSG_DELSET, unix.NFT_MSG_DELSETELEM:
	default:
		return false
	}
	return tableOf(msg.Data) == w.m.names.table
}

// tableOf returns the table's name, the first attribute of all these messages.
func tableOf(data []byte) string {
	const header, tableName = 4, 1
	for kind, value := range attributes(data[min(header, len(data)):]) {
		if kind == tableName {
			return unix.ByteSliceToString(value)
		}
	}
	return ""
}

func (w *watcher) wish() {
	select {
	case w.damaged <- struct{}{}:
	default:
	}
}

func (w *watcher) repair() {
	var window time.Time
	repairs := 0
	for {
		select {
		case <-w.done:
			return
		case <-w.damaged:
		}
		if time.Since(window) > calmWindow {
			window, repairs = time.Now(), 0
		}
		repairs++
		w.m.log.Warn("somebody removed rules from our nftables table; putting it back", "table", w.m.names.table)
		if err := w.m.repairFirewall(); err != nil {
			w.m.log.Error("cannot put the nftables table back", "error", err)
			w.wish()
		}
		pause := repairPause
		if repairs > calmRepairs {
			pause = fightPause
		}
		select {
		case <-w.done:
			return
		case <-time.After(pause):
		}
	}
}

// repairFirewall writes the whole table again. Datagrams that passed while it
// was gone have left flows that lead nowhere.
func (m *Manager) repairFirewall() error {
	if err := m.firewall.rebuild(); err != nil {
		return err
	}
	m.ports.mu.Lock()
	var list []*binding
	for _, b := range m.ports.byKey {
		list = append(list, b)
	}
	m.ports.mu.Unlock()
	m.flows.forget(list)
	return nil
}
