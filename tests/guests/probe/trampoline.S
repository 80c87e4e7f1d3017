/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the other CPUs start: copied to AP_TRAMPOLINE, entered in real mode by SIPI,
 * one CPU at a time. ap_start says what this one gets.
 */
#include "probe.h"

#define CODE32 0x08
#define CODE64 0x10
#define DATA 0x18
#define TSS 0x30
#define HERE(symbol) ((symbol) - ap_trampoline + AP_TRAMPOLINE)

	.text
	.globl ap_trampoline, ap_trampoline_end
	.code16
ap_trampoline:
	cli
	xorw %ax, %ax
	movw %ax, %ds
	lgdtl HERE(ap_gdt_pointer)
	movl $0x11, %eax /* ET, PE */
	movl %eax, %cr0
	ljmpl $CODE32, $HERE(ap_32)
	.code32
ap_32:
	movl $DATA, %eax
	movl %eax, %ds
	movl %eax, %ss
	movl $0x20, %eax
	movl %eax, %cr4
	movl $pml4, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx
	movl $0x100, %eax
	xorl %edx, %edx
	wrmsr
	movl $0x80000011, %eax
	movl %eax, %cr0
	ljmp $CODE64, $ap_64
	.balign 8
ap_gdt_pointer:
	.word 6 * 8 - 1
	.long gdt
ap_trampoline_end:

	.code64
ap_64:
	movl $DATA, %eax
	movl %eax, %ss
	movl %eax, %ds
	movl %eax, %es
	movl $ap_start, %ebx
	lgdt AP_GDT(%rbx)
	movq AP_RING0_STACK(%rbx), %rsp
	movl $TSS, %eax
	ltr %ax
	lidt idt_pointer
	movq AP_RING3_STACK(%rbx), %rdi
	movq AP_FUNCTION(%rbx), %rsi
	jmp enter_ring3
