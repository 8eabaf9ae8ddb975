package plan

import (
	"reflect"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMountOptions(t *testing.T) {
	private, rshared := Propagation{unix.MS_PRIVATE, false}, Propagation{unix.MS_SHARED, true}
	for _, c := range []struct {
		in   []string
		want MountOptions
	}{
		{nil, MountOptions{}},
		{[]string{"rbind", "ro", "nosuid"}, MountOptions{Bind: true, Recursive: true, Set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID}},
		{[]string{"ro", "rw"}, MountOptions{Clear: unix.MOUNT_ATTR_RDONLY}},
		{[]string{"rw", "ro"}, MountOptions{Set: unix.MOUNT_ATTR_RDONLY}},
		{[]string{"rro", "rnodev", "rdev"}, MountOptions{RecSet: unix.MOUNT_ATTR_RDONLY, RecClear: unix.MOUNT_ATTR_NODEV}},
		// The last of the access times counts; their attribute has several bits.
		{[]string{"noatime", "strictatime"}, MountOptions{Set: unix.MOUNT_ATTR_STRICTATIME, Clear: unix.MOUNT_ATTR__ATIME}},
		{[]string{"relatime"}, MountOptions{Set: unix.MOUNT_ATTR_RELATIME, Clear: unix.MOUNT_ATTR__ATIME}},
		{[]string{"rnoatime"}, MountOptions{RecSet: unix.MOUNT_ATTR_NOATIME, RecClear: unix.MOUNT_ATTR__ATIME}},
		{[]string{"private", "rshared"}, MountOptions{Propagation: []Propagation{private, rshared}}},
		{[]string{"size=5", "mode=755", "newinstance"}, MountOptions{Data: []string{"size=5", "mode=755", "newinstance"}}},
		{[]string{"sync", "dirsync", "async"}, MountOptions{SuperFlags: []string{"dirsync"}}},
		{[]string{"tmpcopyup", "defaults", "", "ridmap", "remount"}, MountOptions{CopyUp: true, IDMap: true, IDMapRecursive: true, Remount: true}},
	} {
		if got := ParseMountOptions(c.in); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v: %+v, want %+v", c.in, got, c.want)
		}
	}
	for _, o := range KnownMountOptions() {
		if got := ParseMountOptions([]string{o}); len(got.Data) != 0 {
			t.Errorf("%s is known and taken for data", o)
		}
	}
}

func TestCandidates(t *testing.T) {
	for _, c := range []struct {
		name string
		env  []string
		want []string
	}{
		{"/bin/sh", []string{"PATH=/x"}, []string{"/bin/sh"}},
		{"./sh", nil, []string{"./sh"}},
		{"sh", []string{"PATH=/a:/b/"}, []string{"/a/sh", "/b/sh"}},
		{"sh", []string{"PATH=:/b"}, []string{"sh", "/b/sh"}},
		{"sh", []string{"PATH=/old", "PATH=/new"}, []string{"/new/sh"}},
	} {
		if got := Candidates(c.name, c.env); !slices.Equal(got, c.want) {
			t.Errorf("%s %v: %v", c.name, c.env, got)
		}
	}
	if got := Candidates("sh", nil); len(got) != 6 || got[0] != "/usr/local/sbin/sh" {
		t.Errorf("without PATH: %v", got)
	}
}

func TestMask(t *testing.T) {
	if got := Mask([]string{"CAP_CHOWN", "KILL", "CAP_CHECKPOINT_RESTORE", "CAP_OF_TOMORROW"}); got != 1|1<<5|1<<40 {
		t.Errorf("got %#x", got)
	}
}
