/* SPDX-License-Identifier: Apache-2.0 */
/* Entered in 64-bit mode, interrupts off, first 4 GiB mapped one to one; RSI: the zero page. */
	.section .text.start, "ax"
	.globl start
start:
	lea	stack_end(%rip), %rsp
	mov	%rsi, %rdi
	call	guest_start
0:	hlt
	jmp	0b

	.bss
	.balign	16
	.skip	65536
stack_end:
	.section .note.GNU-stack, "", @progbits
