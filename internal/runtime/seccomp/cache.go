package seccomp

import (
	"hash/maphash"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// maxCached bounds the cache; a machine has few profiles.
const maxCached = 16

// cache keeps compiled filters by content: most containers of a machine share
// one profile, whose compilation costs more than the rest of their program.
var cache struct {
	mu      sync.Mutex // guards filters
	filters map[uint64]*Filter
}

var seed = maphash.MakeSeed()

// Cached is Compile, which remembers its last results. The filter must not be
// changed.
func Cached(cfg *specs.LinuxSeccomp) (*Filter, error) {
	key := digest(cfg)
	cache.mu.Lock()
	f := cache.filters[key]
	cache.mu.Unlock()
	if f != nil {
		return f, nil
	}
	f, err := Compile(cfg)
	if err != nil {
		return nil, err
	}
	cache.mu.Lock()
	defer cache.mu.Unlock()
	if len(cache.filters) >= maxCached || cache.filters == nil {
		cache.filters = map[uint64]*Filter{}
	}
	cache.filters[key] = f
	return f, nil
}

// digest hashes everything that the filter depends on. The seed is random, so
// nobody can construct two configurations with one digest.
func digest(cfg *specs.LinuxSeccomp) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	str := func(s string) { h.WriteString(s); h.WriteByte(0) }
	num := func(n uint64) {
		var b [8]byte
		for i := range b {
			b[i] = byte(n >> (8 * i))
		}
		h.Write(b[:])
	}
	opt := func(n *uint) {
		if n == nil {
			num(1 << 63)
			return
		}
		num(uint64(*n))
	}
	str(string(cfg.DefaultAction))
	opt(cfg.DefaultErrnoRet)
	str(cfg.ListenerPath)
	str(cfg.ListenerMetadata)
	num(uint64(len(cfg.Architectures)))
	for _, a := range cfg.Architectures {
		str(string(a))
	}
	num(uint64(len(cfg.Flags)))
	for _, f := range cfg.Flags {
		str(string(f))
	}
	for _, s := range cfg.Syscalls {
		str(string(s.Action))
		opt(s.ErrnoRet)
		num(uint64(len(s.Names)))
		for _, n := range s.Names {
			str(n)
		}
		num(uint64(len(s.Args)))
		for _, a := range s.Args {
			num(uint64(a.Index))
			num(a.Value)
			num(a.ValueTwo)
			str(string(a.Op))
		}
	}
	return h.Sum64()
}
