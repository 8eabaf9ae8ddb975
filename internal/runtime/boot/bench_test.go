package boot

import (
	"testing"

	"golang.org/x/sys/unix"
)

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		p := New()
		fail := p.Label()
		p.OnFail(fail)
		p.Call(unix.SYS_PRCTL, Int(unix.PR_SET_DUMPABLE), Int(0))
		p.Bind(fail)
		p.Call(unix.SYS_EXIT_GROUP, Int(0))
		img, err := p.Image()
		if err != nil {
			b.Fatal(err)
		}
		l := Launch{CgroupFD: -1, Name: "berth-init"}
		pid, fd, err := l.Start(img)
		if err != nil {
			b.Fatal(err)
		}
		unix.Wait4(pid, nil, 0, nil)
		fd.Close()
	}
}
