package layer

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// randomTree fills a directory with n things of all kinds that a container can
// make.
func randomTree(t testing.TB, root string, rng *rand.Rand, n int) {
	t.Helper()
	dirs, files := []string{root}, []string{}
	name := func() string {
		d := dirs[rng.IntN(len(dirs))]
		names := []string{"file", "with space", "new\nline", "ütf-8", "\xff\xfe", strings.Repeat("n", 255), "=eq", "tab\t", "%41", "-dash", "~", "日本"}
		return filepath.Join(d, fmt.Sprintf("%.240s%d", names[rng.IntN(len(names))], rng.IntN(1000)))
	}
	var made []string
	for range n {
		p := name()
		var err error
		switch k := rng.IntN(20); {
		case k < 6:
			if err = os.Mkdir(p, 0o755); err == nil {
				dirs = append(dirs, p)
			}
		case k < 13:
			data := make([]byte, rng.IntN(3000))
			for i := range data {
				data[i] = byte(rng.Uint32())
			}
			if err = os.WriteFile(p, data, 0o600); err == nil {
				files = append(files, p)
			}
		case k < 15:
			err = os.Symlink([]string{"target", "/abs/olute", strings.Repeat("x/", 80) + "y", "new\nline\xff"}[rng.IntN(4)], p)
		case k < 17 && len(files) > 0:
			err = os.Link(files[rng.IntN(len(files))], p)
		case k == 17:
			err = unix.Mkfifo(p, 0o600)
		case k == 18:
			err = unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(uint32(1+rng.IntN(300)), uint32(rng.IntN(100000)))))
		default:
			err = unix.Mknod(p, unix.S_IFBLK|0o600, int(unix.Mkdev(uint32(1+rng.IntN(300)), uint32(rng.IntN(100000)))))
		}
		if errors.Is(err, os.ErrExist) || errors.Is(err, unix.ENAMETOOLONG) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, p)
	}
	for i := len(made) - 1; i >= 0; i-- {
		randomAttributes(t, made[i], rng)
	}
}

// randomAttributes gives a file owner, mode, attributes and times.
func randomAttributes(t testing.TB, p string, rng *rand.Rand) {
	t.Helper()
	fi, err := os.Lstat(p)
	if err != nil {
		t.Fatal(err)
	}
	uids := []int{0, 0, 0, 1000, 65534, 3_000_000}
	err = os.Lchown(p, uids[rng.IntN(len(uids))], uids[rng.IntN(len(uids))])
	if fi.Mode()&os.ModeSymlink == 0 {
		modes := []uint32{0o644, 0o755, 0o4755, 0o2775, 0o1777, 0, 0o7777}
		err = errors.Join(err, unix.Chmod(p, modes[rng.IntN(len(modes))]))
	}
	if fi.Mode().IsRegular() || fi.IsDir() {
		if rng.IntN(3) == 0 {
			err = errors.Join(err, unix.Lsetxattr(p, "user.k"+fmt.Sprint(rng.IntN(5)), []byte("v\x00\n="), 0))
		}
		if rng.IntN(8) == 0 {
			err = errors.Join(err, unix.Lsetxattr(p, "user.=100%3D", nil, 0))
		}
		if rng.IntN(5) == 0 {
			err = errors.Join(err, unix.Lsetxattr(p, "system.posix_acl_access", acl, 0))
		}
		if fi.IsDir() && rng.IntN(5) == 0 {
			err = errors.Join(err, unix.Lsetxattr(p, "system.posix_acl_default", acl, 0))
		}
	}
	if fi.Mode().IsRegular() && rng.IntN(5) == 0 {
		err = errors.Join(err, unix.Lsetxattr(p, capability, []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	}
	seconds := []int64{0, 1, -1, -1_000_000_000, 1_700_000_000, 4_000_000_000, 9_000_000_000}
	at := unix.Timespec{Sec: seconds[rng.IntN(len(seconds))], Nsec: []int64{0, 1, 999_999_999, 500_000_000}[rng.IntN(4)]}
	err = errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW))
	if err != nil {
		t.Fatalf("%q: %v", p, err)
	}
}

// acl is user::rwx,user:1000:r--,group::r-x,mask::r-x,other::r-- as the kernel
// stores it.
var acl = []byte("\x02\x00\x00\x00" +
	"\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xe8\x03\x00\x00" + "\x04\x00\x05\x00\xff\xff\xff\xff" +
	"\x10\x00\x05\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff")
