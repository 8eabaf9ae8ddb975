package gitref

import "testing"

func TestAddresses(t *testing.T) {
	for _, tt := range []struct {
		in  string
		ok  bool
		bad bool
		ref Ref
	}{
		{in: "https://e.com/r.git", ok: true, ref: Ref{Remote: "https://e.com/r.git"}},
		{in: "https://e.com/r.git#main:a/./b/", ok: true, ref: Ref{Remote: "https://e.com/r.git", Ref: "main", Subdir: "a/b"}},
		{in: "https://e.com/r.git?tag=v1&subdir=x", ok: true, ref: Ref{Remote: "https://e.com/r.git", Ref: "refs/tags/v1", Subdir: "x"}},
		{in: "git@e.com:o/r.git#f00d", ok: true, ref: Ref{Remote: "git@e.com:o/r.git", Ref: "f00d"}},
		{in: "ssh://git@e.com:22/r", ok: true, ref: Ref{Remote: "ssh://git@e.com:22/r"}},
		{in: "https://e.com/file.tgz"}, {in: "dir/x.git"}, {in: "./a"}, {in: "file:///r.git"}, {in: "ext::sh -c x"}, {in: "C:/x"},
		{in: "https://e.com/r.git#:../../etc", ok: true, bad: true},
		{in: "https://e.com/r.git#:a/../../b", ok: true, bad: true},
		{in: "https://e.com/r.git#--upload-pack=x", ok: true, bad: true},
		{in: "https://e.com/r.git#a..b", ok: true, bad: true},
		{in: "https://e.com/r.git?ref=a&ref=b", ok: true, bad: true},
		{in: "https://e.com/r.git?x=1", ok: true, bad: true},
		{in: "https://e.com/r.git?checksum=zz", ok: true, bad: true},
		{in: "ssh://-oProxyCommand=x/r.git", ok: true, bad: true},
		{in: "ssh://-x@e.com/r.git", ok: true, bad: true},
		{in: "git@-e.com:r.git"},
	} {
		got, ok, err := Parse(tt.in)
		if ok != tt.ok || (err != nil) != tt.bad || err == nil && got != tt.ref {
			t.Errorf("%s: %+v %v %v", tt.in, got, ok, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("https://e.com/r.git?ref=a#b:c")
	f.Add("git@e.com:r.git#x:y")
	f.Fuzz(func(t *testing.T, s string) {
		r, ok, err := Parse(s)
		if err == nil && ok && (len(r.Remote) == 0 || r.Remote[0] == '-' || len(r.Ref) > 0 && r.Ref[0] == '-') {
			t.Errorf("%q gives %+v", s, r)
		}
	})
}
