/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest that ends the stopwatch: its first instructions write one byte to the
 * serial port, which every VMM passes on at once. Then it sleeps.
 */
	.section .note.pvh, "a", @note
	.long 4, 4, 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long start

	.text
	.code32
	.globl start
start:
	movw $0x3f8, %dx
	movb $0x06, %al
	outb %al, %dx
1:	cli
	hlt
	jmp 1b
