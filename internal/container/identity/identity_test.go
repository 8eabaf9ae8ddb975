package identity

import (
	"io"
	"slices"
	"strings"
	"testing"

	"berth/internal/fault"
)

const passwd = `root:x:0:0:root:/root:/bin/sh
# a comment
1000:x:0:0:a user whose name is a number:/evil:/bin/sh
www:x:33:33::/var/www:/bin/false
bad:x:notanumber:1::/:/
big:x:4294967296:0::/:/
`

const group = `root:x:0:root
wheel:x:10:root,www
web:x:44:www,other
500:x:0:
users:x:100:
`

func text(s string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
}

func TestResolve(t *testing.T) {
	files := Files{Passwd: text(passwd), Group: text(group)}
	tests := []struct {
		spec     string
		extra    []string
		uid, gid uint32
		groups   []uint32
		home     string
		err      string
	}{
		{"", nil, 0, 0, []uint32{0, 10}, "/root", ""},
		{"root", nil, 0, 0, []uint32{0, 10}, "/root", ""},
		{"www", nil, 33, 33, []uint32{33, 10, 44}, "/var/www", ""},
		{"www", []string{"users", "7"}, 33, 33, []uint32{33, 10, 44, 7, 100}, "/var/www", ""},
		{"www:users", nil, 33, 100, []uint32{100}, "/var/www", ""},
		{"33:5", nil, 33, 5, []uint32{5}, "/var/www", ""},
		{"1000", nil, 1000, 0, []uint32{0}, "/", ""},
		{"7:500", nil, 7, 500, []uint32{500}, "/", ""},
		{"7:", nil, 7, 0, []uint32{0}, "/", ""},
		{"2147483647", nil, 2147483647, 0, []uint32{0}, "/", ""},
		{"2147483648", nil, 0, 0, nil, "", "range"},
		{"4294967296", nil, 0, 0, nil, "", "range"},
		{"99999999999999999999999", nil, 0, 0, nil, "", "range"},
		{"-1", nil, 0, 0, nil, "", "range"},
		{"0:4294967296", nil, 0, 0, nil, "", "range"},
		{"", []string{"4294967296"}, 0, 0, nil, "", "range"},
		{"nobody", nil, 0, 0, nil, "", "unable to find user nobody"},
		{"bad", nil, 0, 0, nil, "", "unable to find user bad"},
		{"big", nil, 0, 0, nil, "", "unable to find user big"},
		{"www:nogroup", nil, 0, 0, nil, "", "unable to find group nogroup"},
		{"www", []string{"nogroup"}, 0, 0, nil, "", "unable to find group nogroup"},
	}
	for _, tt := range tests {
		t.Run(tt.spec+"+"+strings.Join(tt.extra, ","), func(t *testing.T) {
			id, err := Resolve(tt.spec, tt.extra, files)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !fault.Is(err, fault.Invalid) {
					t.Fatalf("got %v, want an error with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(id.Groups[1:])
			slices.Sort(tt.groups[1:])
			if id.UID != tt.uid || id.GID != tt.gid || !slices.Equal(id.Groups, tt.groups) || id.Home != tt.home {
				t.Errorf("got %+v, want uid %d gid %d groups %v home %s", id, tt.uid, tt.gid, tt.groups, tt.home)
			}
		})
	}
}

func TestResolveWithoutFiles(t *testing.T) {
	missing := func() (io.ReadCloser, error) { return nil, fault.New(fault.NotFound, "open", "x", "missing") }
	id, err := Resolve("5:6", []string{"7"}, Files{Passwd: missing, Group: missing})
	if err != nil || id.UID != 5 || id.GID != 6 || !slices.Equal(id.Groups, []uint32{6, 7}) {
		t.Errorf("got %+v, %v", id, err)
	}
	if _, err := Resolve("www", nil, Files{Passwd: missing, Group: missing}); err == nil {
		t.Error("a name without a passwd file was accepted")
	}
}

// endless yields a group file that never ends and whose first line is as long.
type endless struct{ read int64 }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	e.read += int64(len(p))
	return len(p), nil
}

func TestGiantFilesAreReadWithinBounds(t *testing.T) {
	src := &endless{}
	files := Files{
		Passwd: text(passwd),
		Group:  func() (io.ReadCloser, error) { return io.NopCloser(src), nil },
	}
	if _, err := Resolve("www", nil, files); err != nil {
		t.Fatal(err)
	}
	if src.read > maxFile+8192 {
		t.Errorf("read %d bytes, the bound is %d", src.read, maxFile)
	}
}

func FuzzResolve(f *testing.F) {
	f.Add("www:users", "wheel", passwd, group)
	f.Add("", "", "", "")
	f.Add("0", "1", ":::::\n:", "a:b:1:c")
	f.Fuzz(func(t *testing.T, spec, extra, passwd, group string) {
		id, err := Resolve(spec, []string{extra}, Files{Passwd: text(passwd), Group: text(group)})
		if err != nil {
			return
		}
		if id.UID > maxID || id.GID > maxID || len(id.Groups) == 0 || id.Groups[0] != id.GID {
			t.Errorf("%q: %+v", spec, id)
		}
		user, _, _ := strings.Cut(spec, ":")
		if n, numeric, _ := number(user); numeric && id.UID != n {
			t.Errorf("%q became uid %d", spec, id.UID)
		}
	})
}
