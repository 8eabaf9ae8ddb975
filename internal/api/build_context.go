package api

import (
	"bufio"
	"errors"
	"net/http"

	"berth/internal/build/source"
	"berth/internal/fault"
	"berth/internal/wire"
	"berth/internal/wire/manifest"
)

// maxContextList bounds the list of what is in a context, in bytes.
const maxContextList = 256 << 20

// buildContext is POST /berth/build/context; see wire.BuildContext.
func buildContext(x *exchange) error {
	body := bufio.NewReaderSize(http.MaxBytesReader(x.ResponseWriter, x.r.Body, maxContextList), 64<<10)
	doc, err := readLine(body, wire.MaxBuildRequest)
	if err != nil {
		return err
	}
	var w wire.BuildContext
	if err := decodeStrict(doc, &w); err != nil {
		return err
	}
	sent := source.Sent{Key: w.Key, Slot: w.Slot, Name: w.Name, Once: w.Once}
	if len(w.Sum) != len(sent.Sum) || len(w.Base) != 0 && len(w.Base) != len(sent.Sum) {
		return fault.New(fault.Invalid, "receive build context", w.Name, "a sum has 32 bytes")
	}
	sent.Sum = [32]byte(w.Sum)
	if len(w.Base) > 0 {
		base := [32]byte(w.Base)
		sent.Base = &base
	}
	if sent.Entries, err = manifest.ReadAll(body); err != nil {
		return err
	}
	in, err := x.api.engine.BuildReceive(x.ctx(), sent)
	if errors.Is(err, source.ErrUnknownBase) {
		return x.reply(http.StatusOK, wire.BuildContextAnswer{Whole: true})
	}
	if err != nil {
		return err
	}
	return x.reply(http.StatusOK, wire.BuildContextAnswer{ID: in.ID, Missing: ranges(in.Missing)})
}

// ranges joins neighbours among ascending numbers.
func ranges(list []int) [][2]int {
	var out [][2]int
	for _, n := range list {
		if last := len(out) - 1; last >= 0 && out[last][1] == n {
			out[last][1]++
		} else {
			out = append(out, [2]int{n, n + 1})
		}
	}
	return out
}
