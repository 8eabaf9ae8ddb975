#include "textflag.h"

// machine is the whole program. It is not called in this process; its bytes are
// copied into an image of its own, so it must be position independent and refer
// to no symbol.
//
//	R12 stack at entry, R13 next candidate and later the child, R14 environment,
//	R15 arguments of the user's program, BX errno of the last execve
TEXT ·machine(SB),NOSPLIT|NOFRAME,$0-0
	MOVQ	SP, R12
	MOVQ	0(R12), CX
	LEAQ	16(R12), R13
	LEAQ	16(R12)(CX*8), R14
	MOVQ	R13, R15
separator:
	MOVQ	(R15), AX
	TESTQ	AX, AX
	JEQ	usage
	ADDQ	$8, R15
	CMPB	(AX), $0
	JNE	separator
	SUBQ	$512, SP
	MOVQ	$-1, AX
	MOVQ	AX, 0(SP)
	MOVQ	$2, DI			// SIG_SETMASK
	MOVQ	SP, SI
	XORQ	DX, DX
	MOVQ	DX, 8(SP)		// the program's mask: empty, whatever the init started with
	MOVQ	$8, R10
	MOVQ	$14, AX			// rt_sigprocmask
	SYSCALL
	MOVQ	$17, DI			// SIGCHLD
	XORQ	SI, SI
	XORQ	DX, DX
	XORQ	R10, R10
	XORQ	R8, R8
	MOVQ	$56, AX			// clone
	SYSCALL
	TESTQ	AX, AX
	JEQ	child
	JLT	usage
	MOVQ	AX, R13
	MOVQ	8(R12), DI
name:					// what ps shows: the init, "--", the command
	INCQ	DI
	CMPB	-1(DI), $0
	JNE	name
	MOVW	$0x2d2d, (DI)		// "--"
	MOVB	$0, 2(DI)
	ADDQ	$3, DI
	MOVQ	(R15), SI
	MOVQ	-16(R14), DX		// the last argument
end:
	INCQ	DX
	CMPB	-1(DX), $0
	JNE	end
show:
	MOVB	(SI), AX
	MOVB	AX, (DI)
	INCQ	SI
	INCQ	DI
	CMPQ	SI, DX
	JNE	show
clear:
	MOVB	$0, (DI)
	INCQ	DI
	CMPQ	DI, DX
	JNE	clear
wait:
	MOVQ	SP, DI
	XORQ	SI, SI
	XORQ	DX, DX
	MOVQ	$8, R10
	MOVQ	$128, AX		// rt_sigtimedwait
	SYSCALL
	TESTQ	AX, AX
	JLE	wait
	CMPQ	AX, $17
	JEQ	reap
	MOVQ	R13, DI
	MOVQ	AX, SI
	MOVQ	$62, AX			// kill
	SYSCALL
	JMP	wait
reap:
	MOVQ	$-1, DI
	LEAQ	16(SP), SI
	MOVQ	$1, DX			// WNOHANG
	XORQ	R10, R10
	MOVQ	$61, AX			// wait4
	SYSCALL
	TESTQ	AX, AX
	JLE	wait
	CMPQ	AX, R13
	JNE	reap
	MOVL	16(SP), DI
	MOVL	DI, AX
	ANDL	$127, AX
	JNE	signalled
	SHRL	$8, DI
	ANDL	$255, DI
	JMP	exit
signalled:
	MOVL	AX, DI
	ADDL	$128, DI
	JMP	exit
usage:
	MOVQ	$127, DI
exit:
	MOVQ	$231, AX		// exit_group
	SYSCALL
child:
	XORQ	DI, DI
	XORQ	SI, SI
	MOVQ	$109, AX		// setpgid
	SYSCALL
	MOVQ	$39, AX			// getpid
	SYSCALL
	MOVQ	AX, 16(SP)
	XORQ	DI, DI
	MOVQ	$0x5410, SI		// TIOCSPGRP
	LEAQ	16(SP), DX
	MOVQ	$16, AX			// ioctl
	SYSCALL
	MOVQ	$2, DI
	LEAQ	8(SP), SI
	XORQ	DX, DX
	MOVQ	$8, R10
	MOVQ	$14, AX			// rt_sigprocmask
	SYSCALL
	MOVQ	$127, BX
candidate:
	MOVQ	(R13), DI
	CMPB	(DI), $0
	JEQ	failed
	ADDQ	$8, R13
	MOVQ	R15, SI
	MOVQ	R14, DX
	MOVQ	$59, AX			// execve
	SYSCALL
	CMPQ	AX, $-2			// ENOENT
	JEQ	candidate
	CMPQ	AX, $-20		// ENOTDIR
	JEQ	candidate
	MOVQ	$126, BX
	JMP	candidate
failed:
	MOVQ	BX, DI
	JMP	exit
	MOVQ	$0x6e65697468746562, AX

// func machineCode() unsafe.Pointer
TEXT ·machineCode(SB),NOSPLIT,$0-8
	LEAQ	·machine(SB), AX
	MOVQ	AX, ret+0(FP)
	RET
