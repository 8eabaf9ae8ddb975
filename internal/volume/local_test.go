package volume

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/internal/metadata"

	"golang.org/x/sys/unix"
)

func TestCheckOptions(t *testing.T) {
	for _, tt := range []struct {
		opts map[string]string
		err  string
	}{
		{nil, ""},
		{map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}, ""},
		{map[string]string{"type": "none", "device": "/d", "o": "bind"}, ""},
		{map[string]string{"type": "nfs", "device": ":/export", "o": "addr=files.example,rw"}, ""},
		{map[string]string{"type": "cifs", "device": "//files.example/share", "o": "user=u"}, ""},
		{map[string]string{"colour": "red"}, `invalid option: "colour"`},
		{map[string]string{"device": "x"}, `missing required option: "type"`},
		{map[string]string{"type": "x"}, `missing required option: "device"`},
		{map[string]string{"o": "ro"}, "missing required option"},
		{map[string]string{"type": "none", "device": "d", "o": "bind"}, "must be an absolute path"},
		{map[string]string{"type": "ext4", "device": "disk.img", "o": "loop"}, "must be an absolute path"},
		{map[string]string{"type": "cifs", "device": "//files.example:445/share"}, "port not allowed in CIFS device URL"},
	} {
		err := CheckOptions(tt.opts)
		if (tt.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%v: %v, want %q", tt.opts, err, tt.err)
		}
	}
}

func TestMountOptionsAreFlagsOrTheFileSystems(t *testing.T) {
	o := readMountOptions("nfs", "rw,ro,nosuid,noexec,exec,soft,vers=4,rshared,,loop")
	if o.flags != unix.MS_RDONLY|unix.MS_NOSUID || o.propagation != unix.MS_SHARED|unix.MS_REC || !o.loop || strings.Join(o.data, ",") != "soft,vers=4" {
		t.Errorf("%+v", o)
	}
	if o := readMountOptions("bind", ""); o.flags != unix.MS_BIND || o.propagation != unix.MS_PRIVATE {
		t.Errorf("%+v", o)
	}
}

// The kernel knows no names: the engine looks servers up, as docker's does.
func TestServersAreLookedUp(t *testing.T) {
	for _, tt := range []struct{ typ, device, o, wantDevice, wantData string }{
		{"nfs", ":/x", "addr=localhost,vers=4", ":/x", "addr=127.0.0.1,vers=4"},
		{"nfs4", ":/x", "addr=10.0.0.9", ":/x", "addr=10.0.0.9"},
		{"nfs", "localhost:/x", "vers=4", "localhost:/x", "vers=4"},
		{"cifs", "//localhost/share", "user=u", "//127.0.0.1/share", "user=u"},
		{"cifs", "//localhost/share", "addr=localhost", "//localhost/share", "addr=127.0.0.1"},
		{"cifs", "//10.0.0.9/share", "", "//10.0.0.9/share", ""},
	} {
		device, data, err := resolveServer(tt.typ, tt.device, readMountOptions(tt.typ, tt.o).data)
		if got := strings.Join(data, ","); err != nil || device != tt.wantDevice || got != tt.wantData {
			t.Errorf("%s %s %s: %s %s %v", tt.typ, tt.device, tt.o, device, got, err)
		}
	}
	if _, _, err := resolveServer("nfs", ":/x", []string{"addr=no.such.host.invalid"}); err == nil || !strings.Contains(err.Error(), "error resolving passed in network volume address") {
		t.Errorf("%v", err)
	}
}

func TestFailedMountsAreToldWithoutSecrets(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it tries to mount")
	}
	at := t.TempDir()
	err := mountLocal(Volume{Options: map[string]string{"type": "nosuchfs", "device": "//1.2.3.4/s", "o": "ro,user=u,password=hush"}}, at)
	if err == nil {
		t.Fatal("mounted")
	}
	for _, want := range []string{"error while mounting volume '" + at + "'", "failed to mount local volume: mount //1.2.3.4/s:" + at + ", flags: 0x1, data: user=u,password=********: no such device"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %s", err, want)
		}
	}
	if strings.Contains(err.Error(), "hush") {
		t.Errorf("%v tells the password", err)
	}
}

// mountedStore has a volume with options, and unmounts it in the end.
func mountedStore(t *testing.T, options map[string]string) *Store {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts")
	}
	s, db := openStore(t, t.TempDir())
	t.Cleanup(func() { db.Close() })
	v := Volume{Name: "v1", Options: options}
	if _, err := s.Make(v); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unmount(s.Path("v1")) })
	if err := db.Update(func(tx *metadata.Tx) error { return s.Put(tx, []Volume{v}) }); err != nil {
		t.Fatal(err)
	}
	return s
}

// A volume stays mounted as long as anybody uses it, however users come and go.
func TestMountEndsWithItsLastUser(t *testing.T) {
	s := mountedStore(t, map[string]string{"type": "tmpfs", "device": "tmpfs"})
	var all sync.WaitGroup
	for _, user := range []string{"a", "b", "c", "d"} {
		all.Go(func() {
			file := filepath.Join(s.Path("v1"), user)
			for range 200 {
				if err := s.Mount("v1", user); err != nil {
					t.Error(err)
					return
				}
				if err := os.WriteFile(file, nil, 0o600); err != nil {
					t.Error(err)
				}
				if _, err := os.Stat(file); err != nil {
					t.Errorf("%s lost its mount: %v", user, err)
				}
				if used, err := s.Unmount("v1", user); err != nil || !used {
					t.Errorf("unmount: %v %v", used, err)
				}
			}
		})
	}
	all.Wait()
	if s.Mounted("v1") {
		t.Error("still mounted")
	}
	if used, err := s.Unmount("v1", "nobody"); used || err != nil {
		t.Errorf("a stranger was a user: %v", err)
	}
	if left, _ := os.ReadDir(s.Path("v1")); len(left) != 0 {
		t.Errorf("written beside the mount: %v", left)
	}
}

// A file with a file system in it is a device as long as it is mounted.
func TestLoop(t *testing.T) {
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skip("needs mkfs.ext4")
	}
	image := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 4<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs, "-q", "-F", image).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("needs loop devices")
	}
	s := mountedStore(t, map[string]string{"type": "ext4", "device": image, "o": "loop,nosuid"})
	for range 2 {
		if err := s.Mount("v1", "a"); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(s.Path("v1"), "lost+found")); err != nil {
			t.Error(err)
		}
		if !loops(image) {
			t.Error("no loop device has the image")
		}
		if _, err := s.Unmount("v1", "a"); err != nil {
			t.Fatal(err)
		}
	}
	// The kernel frees it in its own time.
	for deadline := time.Now().Add(30 * time.Second); loops(image); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the loop device is kept")
		}
	}
	s.byName["v1"] = Volume{Name: "v1", Options: map[string]string{"type": "ext4", "device": image + ".none", "o": "loop"}}
	if err := s.Mount("v1", "a"); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "disk.img.none") {
		t.Errorf("%v", err)
	}
}

func loops(file string) bool {
	backing, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, b := range backing {
		if text, err := os.ReadFile(b); err == nil && strings.TrimSpace(string(text)) == file {
			return true
		}
	}
	return false
}

// While the image's files are copied into a volume, a container that has it already
// swaps what was just made for a link to the host: nothing there changes.
func TestPopulateIsNotLedOutOfTheVolume(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it gives files away")
	}
	root := t.TempDir()
	canary := filepath.Join(root, "canary")
	if err := os.WriteFile(canary, []byte("host"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(canary, filepath.Join(root, "node")); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, kind := range []uint32{unix.S_IFIFO, unix.S_IFCHR, unix.S_IFBLK} {
		made := unix.Stat_t{Mode: kind | 0o6777, Uid: 1234, Gid: 1234}
		if err := ownerModeTimes(int(dir.Fd()), "node", &made); err == nil {
			t.Error("a link passed for what was made")
		}
		var st unix.Stat_t
		if err := unix.Lstat(canary, &st); err != nil || st.Mode&0o7777 != 0o600 || st.Uid != 0 || st.Mtim.Sec == 0 {
			t.Fatalf("the host's file has mode %o, owner %d, %v", st.Mode&0o7777, st.Uid, err)
		}
	}
}
