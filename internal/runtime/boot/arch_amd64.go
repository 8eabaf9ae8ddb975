package boot

const (
	elfMachine = 62 // EM_X86_64
	textBase   = 0x400000
	dataBase   = 0x600000
	opsBase    = 0x2000000
	dataOffset = 0x1000 // of the data segment in the image
	pageAlign  = 0x1000
)
