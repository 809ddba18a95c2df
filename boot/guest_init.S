/* SPDX-License-Identifier: Apache-2.0 */
/* guest/init, carried inside the VMM's read-only data: initramfs.c packs it. */
	.section .rodata
	.balign 16
	.globl guest_init_start
	.globl guest_init_end
guest_init_start:
	.incbin INIT_PATH
guest_init_end:
	.section .note.GNU-stack, "", %progbits
