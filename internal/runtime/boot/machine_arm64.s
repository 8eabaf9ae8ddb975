#include "textflag.h"

// The layout constants mirror program.go.
#define HEADER  $0x610000
#define END     $0x6e65697468746562

// machine is the whole code of a container's init: it executes the operations
// of a Program one after the other and never returns. It is not called in this
// process; its bytes are copied into the image of the init, so it must be
// position independent, use no stack and refer to no symbol.
//
//	R20 header, R19 current operation
TEXT ·machine(SB),NOSPLIT|NOFRAME,$0-0
	MOVD	HEADER, R20
	MOVD	0(R20), R19
loop:
	MOVWU	4(R19), R9
	MOVD	8(R19), R0
	MOVD	16(R19), R1
	MOVD	24(R19), R2
	MOVD	32(R19), R3
	MOVD	40(R19), R4
	MOVD	48(R19), R5
	TBZ	$0, R9, arg1
	MOVD	(R0), R0
arg1:
	TBZ	$1, R9, arg2
	MOVD	(R1), R1
arg2:
	TBZ	$2, R9, arg3
	MOVD	(R2), R2
arg3:
	TBZ	$3, R9, arg4
	MOVD	(R3), R3
arg4:
	TBZ	$4, R9, arg5
	MOVD	(R4), R4
arg5:
	TBZ	$5, R9, dispatch
	MOVD	(R5), R5
dispatch:
	MOVWU	0(R19), R8
	MOVD	$0xffffffff, R10
	CMP	R10, R8
	BEQ	test
	MOVD	$0xfffffffe, R10
	CMP	R10, R8
	BEQ	store
	MOVD	$0xfffffffd, R10
	CMP	R10, R8
	BEQ	add
	SVC
	MOVD	56(R19), R10
	MOVD	R0, (R10)
	CMN	$4095, R0
	BHS	error
next:
	MOVD	80(R19), R19
	B	loop
error:
	NEG	R0, R0
	MOVD	R0, R9
	CMP	$63, R9
	BLS	known
	MOVD	$63, R9
known:
	MOVD	64(R19), R10
	LSR	R9, R10, R10
	TBNZ	$0, R10, handled
fail:
	MOVD	R19, 16(R20)
	MOVD	R0, 24(R20)
	MOVD	8(R20), R19
	B	loop
handled:
	MOVD	72(R19), R19
	B	loop
test:
	MOVD	(R0), R9
	AND	R1, R9, R9
	CMP	R2, R9
	BEQ	next
	MOVD	72(R19), R10
	CBNZ	R10, handled
	MOVD	R3, R0
	B	fail
store:
	MOVD	R1, (R0)
	B	next
add:
	MOVD	(R0), R9
	ADD	R1, R9, R9
	MOVD	R9, (R0)
	B	next
	WORD	$0x68746562
	WORD	$0x6e656974

// func machineCode() unsafe.Pointer
TEXT ·machineCode(SB),NOSPLIT,$0-8
	MOVD	$·machine(SB), R0
	MOVD	R0, ret+0(FP)
	RET

// func spawn(a *spawnArgs)
//
// The child shares this process's memory and, until its execveat, this thread's
// stack: it works in registers alone. All signals stay blocked around the
// clone, so that no handler of ours can run in the child.
TEXT ·spawn(SB),NOSPLIT,$0-8
	MOVD	a+0(FP), R19
	MOVD	$2, R0			// SIG_SETMASK
	ADD	$80, R19, R1
	ADD	$88, R19, R2
	MOVD	$8, R3
	MOVD	$135, R8		// rt_sigprocmask
	SVC
	MOVD	0(R19), R0
	MOVD	8(R19), R1
	MOVD	$435, R8		// clone3
	SVC
	CBZ	R0, child
	MOVD	R0, 72(R19)
	MOVD	$2, R0
	ADD	$88, R19, R1
	MOVD	$0, R2
	MOVD	$8, R3
	MOVD	$135, R8
	SVC
	RET
child:
	MOVD	16(R19), R20
	MOVD	24(R19), R21
keep:
	CBZ	R21, exec
	MOVW	(R20), R0
	MOVD	$2, R1			// F_SETFD: survive the exec
	MOVD	$0, R2
	MOVD	$25, R8			// fcntl
	SVC
	ADD	$4, R20
	SUB	$1, R21
	B	keep
exec:
	MOVD	32(R19), R0
	MOVD	40(R19), R1
	MOVD	48(R19), R2
	MOVD	56(R19), R3
	MOVD	$0x1000, R4		// AT_EMPTY_PATH
	MOVD	$281, R8		// execveat
	SVC
	NEG	R0, R0
	MOVD	R0, 64(R19)
	MOVD	$127, R0
	MOVD	$93, R8			// exit
	SVC
	BRK
