package boot

const (
	elfMachine = 183 // EM_AARCH64
	textBase   = 0x400000
	dataBase   = 0x610000
	opsBase    = 0x2000000
	dataOffset = 0x10000 // of the data segment in the image: pages may be 64 KiB
	pageAlign  = 0x10000
)
