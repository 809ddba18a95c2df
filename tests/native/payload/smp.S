/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the other CPUs begin, in real mode, after INIT and SIPI: smp.c copies
 * this to SMP_PAGE and sets smp_cr3. Nothing that needs more than moves, one
 * descriptor table and far jumps: a KVM that emulates each instruction runs it.
 */
#define PAGE 0x8000
#define AT(label) (PAGE + (label) - smp_begin)
#define STACK_SHIFT 13

	.section .rodata
	.globl smp_begin, smp_end, smp_cr3
	.code16
smp_begin:
	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	lgdtl	AT(gdtr)
	movl	%cr0, %eax
	orl	$1, %eax
	movl	%eax, %cr0
	ljmpl	$0x8, $AT(protected)
	.code32
protected:
	movw	$0x10, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movl	$0x20, %eax		/* PAE */
	movl	%eax, %cr4
	movl	AT(smp_cr3), %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx	/* EFER.LME */
	rdmsr
	orl	$0x100, %eax
	wrmsr
	movl	%cr0, %eax
	orl	$0x80000000, %eax
	movl	%eax, %cr0
	ljmpl	$0x18, $AT(long_mode)
	.code64
long_mode:
	movl	$1, %eax
	lock xaddl %eax, smp_arrived
	movl	%eax, %edi
	incl	%eax
	shll	$STACK_SHIFT, %eax
	leaq	smp_stacks(%rax), %rsp
	movq	$smp_entry, %rax
	call	*%rax
0:	hlt
	jmp	0b
	.balign	8
gdt:	.quad	0
	.quad	0x00cf9b000000ffff	/* 32-bit code, data, 64-bit code: flat, accessed */
	.quad	0x00cf93000000ffff
	.quad	0x00af9b000000ffff
gdtr:	.word	31
	.long	AT(gdt)
	.balign	4
smp_cr3:
	.long	0
smp_end:

	.bss
	.balign	16
smp_stacks:
	.skip	8 << STACK_SHIFT
	.section .note.GNU-stack, "", @progbits
