#include "textflag.h"

// The layout constants mirror program.go.
#define HEADER  $0x600000
#define END     $0x6e65697468746562

// machine is the whole code of a container's init: it executes the operations
// of a Program one after the other and never returns. It is not called in this
// process; its bytes are copied into the image of the init, so it must be
// position independent, use no stack and refer to no symbol.
//
//	R15 header, R12 current operation
TEXT ·machine(SB),NOSPLIT|NOFRAME,$0-0
	MOVQ	HEADER, R15
	MOVQ	0(R15), R12
loop:
	MOVL	4(R12), BX
	MOVQ	8(R12), DI
	MOVQ	16(R12), SI
	MOVQ	24(R12), DX
	MOVQ	32(R12), R10
	MOVQ	40(R12), R8
	MOVQ	48(R12), R9
	BTL	$0, BX
	JCC	arg1
	MOVQ	(DI), DI
arg1:
	BTL	$1, BX
	JCC	arg2
	MOVQ	(SI), SI
arg2:
	BTL	$2, BX
	JCC	arg3
	MOVQ	(DX), DX
arg3:
	BTL	$3, BX
	JCC	arg4
	MOVQ	(R10), R10
arg4:
	BTL	$4, BX
	JCC	arg5
	MOVQ	(R8), R8
arg5:
	BTL	$5, BX
	JCC	dispatch
	MOVQ	(R9), R9
dispatch:
	MOVL	0(R12), AX
	CMPL	AX, $0xffffffff
	JEQ	test
	CMPL	AX, $0xfffffffe
	JEQ	store
	CMPL	AX, $0xfffffffd
	JEQ	add
	SYSCALL
	MOVQ	56(R12), CX
	MOVQ	AX, (CX)
	CMPQ	AX, $-4095
	JCC	error
next:
	MOVQ	80(R12), R12
	JMP	loop
error:
	NEGQ	AX
	MOVQ	AX, BX
	CMPQ	BX, $63
	JLS	known
	MOVQ	$63, BX
known:
	MOVQ	64(R12), CX
	BTQ	BX, CX
	JCS	handled
fail:
	MOVQ	R12, 16(R15)
	MOVQ	AX, 24(R15)
	MOVQ	8(R15), R12
	JMP	loop
handled:
	MOVQ	72(R12), R12
	JMP	loop
test:
	MOVQ	(DI), AX
	ANDQ	SI, AX
	CMPQ	AX, DX
	JEQ	next
	MOVQ	72(R12), CX
	TESTQ	CX, CX
	JNE	handled
	MOVQ	R10, AX
	JMP	fail
store:
	MOVQ	SI, (DI)
	JMP	next
add:
	ADDQ	SI, (DI)
	JMP	next
	MOVQ	END, AX

// func machineCode() unsafe.Pointer
TEXT ·machineCode(SB),NOSPLIT,$0-8
	LEAQ	·machine(SB), AX
	MOVQ	AX, ret+0(FP)
	RET

// func spawn(a *spawnArgs)
//
// The child shares this process's memory and, until its execveat, this thread's
// stack: it works in registers alone. All signals stay blocked around the
// clone, so that no handler of ours can run in the child.
TEXT ·spawn(SB),NOSPLIT,$0-8
	MOVQ	a+0(FP), R12
	MOVQ	$2, DI			// SIG_SETMASK
	LEAQ	80(R12), SI
	LEAQ	88(R12), DX
	MOVQ	$8, R10
	MOVQ	$14, AX			// rt_sigprocmask
	SYSCALL
	MOVQ	0(R12), DI
	MOVQ	8(R12), SI
	MOVQ	$435, AX		// clone3
	SYSCALL
	TESTQ	AX, AX
	JEQ	child
	MOVQ	AX, 72(R12)
	MOVQ	$2, DI
	LEAQ	88(R12), SI
	XORQ	DX, DX
	MOVQ	$8, R10
	MOVQ	$14, AX
	SYSCALL
	RET
child:
	MOVQ	16(R12), R13
	MOVQ	24(R12), BX
keep:
	TESTQ	BX, BX
	JEQ	exec
	MOVLQSX	(R13), DI
	MOVQ	$2, SI			// F_SETFD: survive the exec
	XORQ	DX, DX
	MOVQ	$72, AX			// fcntl
	SYSCALL
	ADDQ	$4, R13
	DECQ	BX
	JMP	keep
exec:
	MOVQ	32(R12), DI
	MOVQ	40(R12), SI
	MOVQ	48(R12), DX
	MOVQ	56(R12), R10
	MOVQ	$0x1000, R8		// AT_EMPTY_PATH
	MOVQ	$322, AX		// execveat
	SYSCALL
	NEGQ	AX
	MOVQ	AX, 64(R12)
	MOVQ	$127, DI
	MOVQ	$60, AX			// exit
	SYSCALL
	INT	$3
