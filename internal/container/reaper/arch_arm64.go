package reaper

const (
	elfMachine = 183     // EM_AARCH64
	pageAlign  = 0x10000 // pages may be 64 KiB
)
