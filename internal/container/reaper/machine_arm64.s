#include "textflag.h"

// machine: see machine_amd64.s.
//
//	R19 stack at entry, R20 next candidate and later the child, R21 environment,
//	R22 arguments of the user's program, R23 exit code of a failed execve
TEXT ·machine(SB),NOSPLIT|NOFRAME,$0-0
	MOVD	RSP, R19
	MOVD	0(R19), R9
	ADD	$16, R19, R20
	LSL	$3, R9, R9
	ADD	R9, R20, R21
	MOVD	R20, R22
separator:
	MOVD	(R22), R9
	CBZ	R9, usage
	ADD	$8, R22, R22
	MOVBU	(R9), R10
	CBNZ	R10, separator
	SUB	$512, RSP, R24
	MOVD	R24, RSP
	MOVD	$-1, R9
	MOVD	R9, 0(R24)
	MOVD	$2, R0			// SIG_SETMASK
	MOVD	R24, R1
	MOVD	$0, R2
	MOVD	ZR, 8(R24)		// the program's mask: empty, whatever the init started with
	MOVD	$8, R3
	MOVD	$135, R8		// rt_sigprocmask
	SVC
	MOVD	$17, R0			// SIGCHLD
	MOVD	$0, R1
	MOVD	$0, R2
	MOVD	$0, R3
	MOVD	$0, R4
	MOVD	$220, R8		// clone
	SVC
	CBZ	R0, child
	TBNZ	$63, R0, usage
	MOVD	R0, R20
	MOVD	8(R19), R9
name:					// what ps shows: the init, "--", the command
	MOVBU	(R9), R10
	ADD	$1, R9, R9
	CBNZ	R10, name
	MOVD	$0x2d, R10		// "-"
	MOVB	R10, (R9)
	MOVB	R10, 1(R9)
	MOVB	ZR, 2(R9)
	ADD	$3, R9, R9
	MOVD	(R22), R11
	SUB	$16, R21, R12
	MOVD	(R12), R12		// the last argument
end:
	MOVBU	(R12), R10
	ADD	$1, R12, R12
	CBNZ	R10, end
show:
	MOVBU	(R11), R10
	MOVB	R10, (R9)
	ADD	$1, R11, R11
	ADD	$1, R9, R9
	CMP	R12, R11
	BNE	show
clear:
	MOVB	ZR, (R9)
	ADD	$1, R9, R9
	CMP	R12, R9
	BNE	clear
wait:
	MOVD	R24, R0
	MOVD	$0, R1
	MOVD	$0, R2
	MOVD	$8, R3
	MOVD	$137, R8		// rt_sigtimedwait
	SVC
	CMP	$0, R0
	BLE	wait
	CMP	$17, R0
	BEQ	reap
	MOVD	R0, R1
	MOVD	R20, R0
	MOVD	$129, R8		// kill
	SVC
	B	wait
reap:
	MOVD	$-1, R0
	ADD	$16, R24, R1
	MOVD	$1, R2			// WNOHANG
	MOVD	$0, R3
	MOVD	$260, R8		// wait4
	SVC
	CMP	$0, R0
	BLE	wait
	CMP	R20, R0
	BNE	reap
	MOVWU	16(R24), R9
	AND	$127, R9, R10
	CBNZ	R10, signalled
	LSR	$8, R9, R9
	AND	$255, R9, R0
	B	exit
signalled:
	ADD	$128, R10, R0
	B	exit
usage:
	MOVD	$127, R0
exit:
	MOVD	$94, R8			// exit_group
	SVC
child:
	MOVD	$0, R0
	MOVD	$0, R1
	MOVD	$154, R8		// setpgid
	SVC
	MOVD	$172, R8		// getpid
	SVC
	MOVD	R0, 16(R24)
	MOVD	$0, R0
	MOVD	$0x5410, R1		// TIOCSPGRP
	ADD	$16, R24, R2
	MOVD	$29, R8			// ioctl
	SVC
	MOVD	$2, R0
	ADD	$8, R24, R1
	MOVD	$0, R2
	MOVD	$8, R3
	MOVD	$135, R8		// rt_sigprocmask
	SVC
	MOVD	$127, R23
candidate:
	MOVD	(R20), R0
	MOVBU	(R0), R9
	CBZ	R9, failed
	ADD	$8, R20, R20
	MOVD	R22, R1
	MOVD	R21, R2
	MOVD	$221, R8		// execve
	SVC
	CMN	$2, R0			// ENOENT
	BEQ	candidate
	CMN	$20, R0			// ENOTDIR
	BEQ	candidate
	MOVD	$126, R23
	B	candidate
failed:
	MOVD	R23, R0
	B	exit
	WORD	$0x68746562		// the mark as it lies in memory: "beth"
	WORD	$0x6e656974		// "tien"

// func machineCode() unsafe.Pointer
TEXT ·machineCode(SB),NOSPLIT,$0-8
	MOVD	$·machine(SB), R0
	MOVD	R0, ret+0(FP)
	RET
