package reaper

const (
	elfMachine = 62 // EM_X86_64
	pageAlign  = 0x1000
)
