package client

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"
	"testing/quick"
)

// plain is a CreateRequest as package json writes it.
type plain CreateRequest

// TestARequestIsWrittenAsPackageJSONWouldWriteIt compares requests with random
// fields set, empty or absent.
func TestARequestIsWrittenAsPackageJSONWouldWriteIt(t *testing.T) {
	zero, total := 0, 0
	check := func(r CreateRequest, seed uint64) bool {
		if r.Config == nil {
			r.Config = &Config{Image: "base"}
		}
		random := rand.New(rand.NewPCG(seed, seed))
		for _, v := range []reflect.Value{reflect.ValueOf(r.Config).Elem(), reflect.ValueOf(&r.HostConfig).Elem().Elem()} {
			for i := range fields(v) {
				if total++; random.IntN(3) > 0 {
					zero++
					v.Field(i).SetZero()
				}
			}
		}
		got, err := json.Marshal(&r)
		if err != nil {
			t.Error(err)
			return false
		}
		p := plain(r)
		want, err := json.Marshal(&p)
		if err != nil {
			t.Error(err)
			return false
		}
		if string(got) != string(want) {
			t.Errorf("written as\n%s\nnot as\n%s", got, want)
		}
		return string(got) == string(want)
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 200}); err != nil {
		t.Fatal(err)
	}
	if zero == 0 || zero == total {
		t.Errorf("%d of %d fields were absent: nothing was compared", zero, total)
	}
	for _, r := range []*CreateRequest{{}, {Config: &Config{}}, {HostConfig: &HostConfig{}}} {
		got, err := json.Marshal(r)
		want, _ := json.Marshal((*plain)(r))
		if err != nil || string(got) != string(want) {
			t.Errorf("%+v is written as %s, not as %s: %v", r, got, want, err)
		}
	}
}

func fields(v reflect.Value) int {
	if !v.IsValid() {
		return 0
	}
	return v.NumField()
}
