/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the PVH entry (32-bit, ring 0) to main() in ring 3 with IOPL 3, and back into
 * ring 0 for interrupts, exceptions and the gate. Everything that can be computed at
 * link time is (page tables, IDT, TSS descriptor): ring 0 may be emulated.
 */
#include "probe.h"
#include "tests/testdev/testdev_regs.h"

#define IMAGE 0x100000
#define CODE32 0x08
#define CODE64 0x10
#define DATA 0x18
#define USER_DATA 0x23
#define USER_CODE 0x2b
#define TSS 0x30

#define RFLAGS_USER 0x3202 /* IOPL 3, IF: not every host keeps IOPL, see tss */

	.section .note.pvh, "a", @note
	.long 4, 8, 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.quad start32

	.section .head, "awx", @progbits
head:
	.code32
	.globl start32
start32:
	movb $MARK_ENTRY, %al
	outb %al, $DEBUG_PORT
	movl %ebx, start_info
	movl $pml4, %eax
	movl %eax, %cr3
	movl $0x20, %eax /* PAE */
	movl %eax, %cr4
	movl $0xc0000080, %ecx
	movl $0x100, %eax /* EFER.LME */
	xorl %edx, %edx
	wrmsr
	movl $0x80000011, %eax /* PG, ET, PE */
	movl %eax, %cr0
	lgdt gdt_pointer
	ljmp $CODE64, $start64

	.code64
start64:
	movl $DATA, %eax
	movl %eax, %ss
	movl %eax, %ds
	movl %eax, %es
	movl $ring0_stack_end, %esp
	movl $TSS, %eax
	ltr %ax
	lidt idt_pointer
	movb $0xff, %al /* no interrupt of an 8259 is wanted */
	outb %al, $0x21
	outb %al, $0xa1
	movl $(ring3_stack_end - 8), %edi
	movl $main, %esi
	jmp enter_ring3

/* For every CPU: %rdi stack, %rsi function; does not return. */
	.globl enter_ring3
enter_ring3:
	movl $USER_DATA, %eax
	movl %eax, %ds
	movl %eax, %es
	pushq %rax
	pushq %rdi
	pushq $RFLAGS_USER
	pushq $USER_CODE
	pushq %rsi
	xorl %ebp, %ebp
	iretq

/*
 * Ring 3 has no syscall that works on every host this runs on, but an invalid
 * opcode always enters ring 0.
 * uint64_t gate(enum gate, uint64_t a, uint64_t b, uint32_t *out)
 */
	.globl gate
gate:
	movl %edi, %eax
gate_instruction:
	ud2
	ret

/* ring 0, on the stack: rip, cs, rflags, rsp, ss */
invalid_opcode:
	cmpq $gate_instruction, (%rsp)
	jne invalid_opcode_fault
	addq $2, (%rsp)
	cmpl $GATE_WAIT, %eax
	je gate_wait
	cmpl $GATE_CPUID, %eax
	je gate_cpuid
	cmpl $GATE_READ_MSR, %eax
	je gate_read_msr
	cmpl $GATE_WRITE_MSR, %eax
	je gate_write_msr
	cmpl $GATE_TRIPLE_FAULT, %eax
	je gate_triple_fault
gate_halt: /* for good */
	cli
	hlt
	jmp gate_halt
/* Sleeps until an interrupt, unless there was one: *a is no longer b. */
gate_wait:
	cmpq %rdx, (%rsi)
	jne 1f
	sti
	hlt
	cli
1:	iretq
gate_cpuid: /* a: leaf, b: subleaf; out: eax, ebx, ecx, edx */
	pushq %rbx
	movq %rcx, %rdi
	movl %esi, %eax
	movl %edx, %ecx
	cpuid
	movl %eax, (%rdi)
	movl %ebx, 4(%rdi)
	movl %ecx, 8(%rdi)
	movl %edx, 12(%rdi)
	popq %rbx
	iretq
gate_read_msr:
	movl %esi, %ecx
	rdmsr
	shlq $32, %rdx
	orq %rdx, %rax
	iretq
gate_write_msr:
	movl %esi, %ecx
	movl %edx, %eax
	shrq $32, %rdx
	wrmsr
	iretq
gate_triple_fault:
	lidt no_idt
	ud2

nmi:
	incq nmi_count
	iretq

invalid_opcode_fault:
	pushq $0
	pushq $6
/* On the stack: vector, error code, rip, ... : goes on in ring 3, in fault(). */
exception:
	popq fault_vector
	popq fault_error
	popq fault_rip
	movq %cr2, %rax
	movq %rax, fault_address
	movl $ring0_stack_end, %esp
	movl $(ring3_stack_end - 8), %edi
	movl $fault, %esi
	jmp enter_ring3

	.macro exception_stub vector, has_error=0
exception_\vector:
	.if !\has_error
	pushq $0
	.endif
	pushq $\vector
	jmp exception
	.endm
	.irp v, 0, 1, 3, 4, 5, 7, 9, 15, 16, 18, 19, 20, 22, 23, 24, 25, 26, 27, 28, 31
	exception_stub \v
	.endr
	.irp v, 8, 10, 11, 12, 13, 14, 17, 21, 29, 30
	exception_stub \v, 1
	.endr

	.macro interrupt_stub vector
interrupt_\vector:
	incq irq_count + 8 * (\vector - 32)
	jmp interrupt
	.endm
	.irp v, 32, 33, 34, 35, 36, 37, 39, 40, 41, 42, 43, 44, 45, 46
	interrupt_stub \v
	.endr
/* The testdev's INTx: its causes are counted and cleared before the end of the interrupt,
 * else it would come again. */
interrupt_38:
	incq irq_count + 8 * (VECTOR_INTX - 32)
	pushq %rax
	pushq %rcx
	movq intx_bar0, %rax
	movl TESTDEV_IRQ_STATUS(%rax), %ecx
	movl %ecx, TESTDEV_IRQ_ACK(%rax)
	testl $TESTDEV_IRQ_DMA, %ecx
	jz 1f
	incq intx_causes
1:	testl $TESTDEV_IRQ_TRIGGERED, %ecx
	jz 1f
	incq intx_causes + 8
1:	testl $TESTDEV_IRQ_DOORBELL, %ecx
	jz 1f
	incq intx_causes + 16
1:	popq %rcx
	popq %rax
interrupt:
	incq irq_total
	pushq %rax
	movl $(LAPIC_BASE + LAPIC_EOI), %eax
	movl $0, (%rax)
	popq %rax
spurious:
	iretq

/* The image starts on 64 KiB, so that bits 31-16 of all that is in here are known. */
	.macro idt_gate handler
	.word \handler - head, CODE64, 0x8e00, IMAGE >> 16
	.long 0, 0
	.endm
	.balign 16
idt:
	.irp v, 0, 1
	idt_gate exception_\v
	.endr
	idt_gate nmi
	.irp v, 3, 4, 5
	idt_gate exception_\v
	.endr
	idt_gate invalid_opcode
	.irp v, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
	idt_gate exception_\v
	.endr
	.irp v, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46
	idt_gate interrupt_\v
	.endr
	idt_gate spurious
idt_end:
	.globl idt_pointer
idt_pointer:
	.word idt_end - idt - 1
	.quad idt
no_idt:
	.word 0
	.quad 0

	.balign 16
	.globl gdt
gdt:
	.quad 0
	.quad 0x00cf9b000000ffff /* CODE32 */
	.quad 0x00af9b000000ffff /* CODE64 */
	.quad 0x00cf93000000ffff /* DATA */
	.quad 0x00cff3000000ffff /* USER_DATA */
	.quad 0x00affb000000ffff /* USER_CODE */
	.word tss_end - tss - 1, tss - head /* TSS */
	.byte IMAGE >> 16, 0x89, 0, 0
	.quad 0
gdt_end:
gdt_pointer:
	.word gdt_end - gdt - 1
	.quad gdt

/* Its I/O bitmap opens every port: KVM over page tables (PVM) runs ring 3 with an
 * IOPL of 0, and consults the bitmap when that traps. */
	.balign 16
tss:
	.long 0
	.quad ring0_stack_end
	.fill 88, 1, 0
	.word 0, 0x68
	.fill 8192, 1, 0
	.byte 0xff
tss_end:

/* Identity map of the first 4 GiB, 2 MiB a page, for ring 3. map.c adds to it. */
	.section .tables, "aw", @progbits
	.balign 4096
	.globl pml4
pml4:
	.quad pdpt + 0x7
	.fill 511, 8, 0
pdpt:
	.quad pd + 0x7, pd + 0x1007, pd + 0x2007, pd + 0x3007
	.fill 508, 8, 0
pd:
	.set address, 0
	.rept 2048
	.quad address + 0xe7
	.set address, address + 0x200000
	.endr

	.bss
	.balign 16
	.skip 2048
ring0_stack_end:
	.skip 12288
	.globl ring3_stack_end
ring3_stack_end:
	.globl start_info
start_info:
	.quad 0
