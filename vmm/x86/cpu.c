/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's state before its first instruction. All of it is set, whatever KVM's
 * defaults are on this host. KVM takes CPUID only before a vCPU's first run.
 * Entry states: Linux Documentation/arch/x86/boot.rst (64-bit boot protocol), Xen
 * docs/misc/pvh.pandoc.
 */
#include "vmm/x86/cpu.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/bytes.h"
#include "vmm/x86/cpu_state.h"
#include "vmm/x86/layout.h"

#define CR0_PE 0x1ULL
#define CR0_ET 0x10ULL
#define CR0_PG 0x80000000ULL
#define CR4_PAE 0x20ULL
#define EFER_LME 0x100ULL
#define EFER_LMA 0x400ULL
#define RFLAGS_FIXED 0x2ULL

#define APIC_BASE_ENABLE 0x800ULL
#define APIC_BASE_BSP 0x100ULL

#define MSR_TSC 0x10
#define MSR_SYSENTER_CS 0x174
#define MSR_SYSENTER_ESP 0x175
#define MSR_SYSENTER_EIP 0x176
#define MSR_MISC_ENABLE 0x1a0
#define MSR_MTRR_DEF_TYPE 0x2ff
#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_CSTAR 0xc0000083
#define MSR_SYSCALL_MASK 0xc0000084
#define MSR_KERNEL_GS_BASE 0xc0000102

#define MISC_ENABLE_FAST_STRING 0x1ULL
#define MTRR_ENABLE_WRITE_BACK 0x806ULL

/* Local APIC registers, as offsets into its page. */
#define LAPIC_DFR 0xe0
#define LAPIC_SPIV 0xf0
#define LAPIC_LVT_TIMER 0x320
#define LAPIC_LVT_THERMAL 0x330
#define LAPIC_LVT_COUNTER 0x340
#define LAPIC_LVT_LINT0 0x350
#define LAPIC_LVT_LINT1 0x360
#define LAPIC_LVT_ERROR 0x370
#define LVT_MASKED 0x10000U
#define LVT_EXTINT 0x700U
#define LVT_NMI 0x400U

/* VMware's timing leaf, which KVM guests read too (Linux, the probe): TSC and local
 * APIC timer frequency in kHz. KVM's APIC timer counts nanoseconds. */
#define CPUID_HYPERVISOR 0x40000000U
#define CPUID_TIMING 0x40000010U
#define APIC_TIMER_KHZ 1000000U

static int fail(struct error *err, const char *what)
{
	return error_set_errno(err, errno, "set up vCPU: %s", what);
}

static void add_timing(struct x86_cpuid *cpuid, int vcpu_fd)
{
	int khz = ioctl(vcpu_fd, KVM_GET_TSC_KHZ, 0);

	if (khz <= 0 || cpuid->head.nent >= X86_CPUID_ENTRIES)
		return;
	for (uint32_t i = 0; i < cpuid->head.nent; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		if (e->function != CPUID_HYPERVISOR)
			continue;
		e->eax = MAX(e->eax, CPUID_TIMING);
		cpuid->entries[cpuid->head.nent++] = (struct kvm_cpuid_entry2){
			.function = CPUID_TIMING,
			.eax = (uint32_t)khz,
			.ebx = APIC_TIMER_KHZ,
		};
		return;
	}
}

static int set_cpuid(int vcpu_fd, unsigned int cpu, const struct x86_cpuid *supported,
		     const struct x86_topology *topology, struct x86_cpuid **given,
		     struct error *err)
{
	struct x86_cpuid cpuid = *supported;

	x86_cpuid_for_vcpu(&cpuid, topology, cpu);
	add_timing(&cpuid, vcpu_fd);
	if (ioctl(vcpu_fd, KVM_SET_CPUID2, &cpuid.head) < 0)
		return fail(err, "KVM_SET_CPUID2");
	if (!given)
		return 0;
	*given = x86_cpuid_copy(&cpuid, err);
	return *given ? 0 : -ENOMEM;
}

static int set_msrs(int vcpu_fd, struct error *err)
{
	static const struct kvm_msr_entry wanted[] = {
		{ .index = MSR_SYSENTER_CS },
		{ .index = MSR_SYSENTER_ESP },
		{ .index = MSR_SYSENTER_EIP },
		{ .index = MSR_STAR },
		{ .index = MSR_LSTAR },
		{ .index = MSR_CSTAR },
		{ .index = MSR_SYSCALL_MASK },
		{ .index = MSR_KERNEL_GS_BASE },
		{ .index = MSR_TSC },
		{ .index = MSR_MISC_ENABLE, .data = MISC_ENABLE_FAST_STRING },
		/* No firmware sets MTRRs up: all memory is write-back. */
		{ .index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLE_WRITE_BACK },
	};
	struct {
		uint32_t nmsrs, padding; /* struct kvm_msrs */
		struct kvm_msr_entry entries[ARRAY_SIZE(wanted)];
	} msrs = { .nmsrs = ARRAY_SIZE(wanted) };
	int done;

	memcpy(msrs.entries, wanted, sizeof(wanted));
	done = ioctl(vcpu_fd, KVM_SET_MSRS, &msrs);
	if (done < 0)
		return fail(err, "KVM_SET_MSRS");
	if ((size_t)done < ARRAY_SIZE(wanted))
		return error_set(err, EINVAL, "set up vCPU: KVM refuses MSR %#x = %#llx",
				 wanted[done].index, (unsigned long long)wanted[done].data);
	return 0;
}

static int set_fpu(int vcpu_fd, struct error *err)
{
	struct kvm_fpu fpu = { .fcw = 0x37f, .mxcsr = 0x1f80 };

	return ioctl(vcpu_fd, KVM_SET_FPU, &fpu) ? fail(err, "KVM_SET_FPU") : 0;
}

static int set_lapic(int vcpu_fd, struct error *err)
{
	static const struct {
		unsigned int reg;
		uint32_t value;
	} reset[] = {
		{ LAPIC_DFR, 0xffffffff },
		{ LAPIC_SPIV, 0xff },
		{ LAPIC_LVT_TIMER, LVT_MASKED },
		{ LAPIC_LVT_THERMAL, LVT_MASKED },
		{ LAPIC_LVT_COUNTER, LVT_MASKED },
		/* As firmware leaves them: PIC through LINT0, NMI through LINT1. */
		{ LAPIC_LVT_LINT0, LVT_EXTINT },
		{ LAPIC_LVT_LINT1, LVT_NMI },
		{ LAPIC_LVT_ERROR, LVT_MASKED },
	};
	struct kvm_lapic_state now, lapic = { 0 };

	if (ioctl(vcpu_fd, KVM_GET_LAPIC, &now))
		return fail(err, "KVM_GET_LAPIC");
	/* ID and version are all that a reset leaves. */
	memcpy(lapic.regs + 0x20, now.regs + 0x20, 4);
	memcpy(lapic.regs + 0x30, now.regs + 0x30, 4);
	for (size_t i = 0; i < ARRAY_SIZE(reset); i++)
		store_le32(lapic.regs + reset[i].reg, reset[i].value);
	return ioctl(vcpu_fd, KVM_SET_LAPIC, &lapic) ? fail(err, "KVM_SET_LAPIC") : 0;
}

static void set_code(struct kvm_segment *s, uint16_t selector, bool is_64)
{
	*s = (struct kvm_segment){
		.limit = 0xffffffff,
		.selector = selector,
		.type = 0xb, /* execute, read, accessed */
		.s = 1,
		.present = 1,
		.g = 1,
		.l = is_64,
		.db = !is_64,
	};
}

static void set_data(struct kvm_sregs *sregs, uint16_t selector)
{
	struct kvm_segment data = {
		.limit = 0xffffffff,
		.selector = selector,
		.type = 0x3, /* read, write, accessed */
		.s = 1,
		.present = 1,
		.g = 1,
		.db = 1,
	};

	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
}

static void boot_sregs(struct kvm_sregs *sregs, const struct x86_boot *boot)
{
	bool is_64 = boot->protocol == X86_BOOT_LINUX64;

	set_code(&sregs->cs, is_64 ? 0x10 : 0x8, is_64);
	set_data(sregs, is_64 ? 0x18 : 0x10);
	sregs->ldt = (struct kvm_segment){ .unusable = 1 };
	/* Both the protocol and VMX want a busy TSS, though nobody uses it. */
	sregs->tr = (struct kvm_segment){ .limit = 0x67, .type = 0xb, .present = 1 };
	sregs->gdt = (struct kvm_dtable){ 0 };
	sregs->idt = (struct kvm_dtable){ 0 };
	sregs->cr0 = CR0_PE | CR0_ET;
	sregs->cr2 = sregs->cr3 = sregs->cr4 = sregs->cr8 = sregs->efer = 0;
	if (is_64) {
		sregs->gdt = (struct kvm_dtable){ .base = boot->gdt, .limit = 4 * 8 - 1 };
		sregs->cr0 |= CR0_PG;
		sregs->cr3 = boot->page_tables;
		sregs->cr4 = CR4_PAE;
		sregs->efer = EFER_LME | EFER_LMA;
	}
}

static int set_registers(int vcpu_fd, const struct x86_boot *boot, struct error *err)
{
	struct kvm_regs regs = { .rflags = RFLAGS_FIXED };
	struct kvm_sregs sregs;

	if (ioctl(vcpu_fd, KVM_GET_SREGS, &sregs))
		return fail(err, "KVM_GET_SREGS");
	/* Also takes the local APIC out of x2APIC mode. */
	sregs.apic_base = X86_LAPIC_BASE | APIC_BASE_ENABLE;
	memset(sregs.interrupt_bitmap, 0, sizeof(sregs.interrupt_bitmap));
	if (boot) {
		sregs.apic_base |= APIC_BASE_BSP;
		boot_sregs(&sregs, boot);
		regs.rip = boot->entry;
		if (boot->protocol == X86_BOOT_LINUX64)
			regs.rsi = boot->parameters;
		else
			regs.rbx = boot->parameters;
	}
	if (ioctl(vcpu_fd, KVM_SET_SREGS, &sregs))
		return fail(err, "KVM_SET_SREGS");
	if (ioctl(vcpu_fd, KVM_SET_REGS, &regs))
		return fail(err, "KVM_SET_REGS");
	return 0;
}

/* Drops what was pending: interrupts, exceptions, NMI, SMM. */
static int set_events(int vcpu_fd, bool boot_cpu, struct error *err)
{
	struct kvm_vcpu_events events = { 0 };
	struct kvm_mp_state state = {
		.mp_state = boot_cpu ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_UNINITIALIZED,
	};

	if (ioctl(vcpu_fd, KVM_SET_VCPU_EVENTS, &events))
		return fail(err, "KVM_SET_VCPU_EVENTS");
	if (ioctl(vcpu_fd, KVM_SET_MP_STATE, &state))
		return fail(err, "KVM_SET_MP_STATE");
	return 0;
}

int x86_vcpu_setup(int vcpu_fd, unsigned int cpu, const struct x86_cpuid *supported,
		   const struct x86_topology *topology, const struct x86_boot *boot,
		   struct x86_cpuid **given, struct error *err)
{
	int r = set_cpuid(vcpu_fd, cpu, supported, topology, given, err);

	if (!r)
		r = set_msrs(vcpu_fd, err);
	if (!r)
		r = set_fpu(vcpu_fd, err);
	if (!r)
		r = set_registers(vcpu_fd, boot, err);
	/* After the APIC base: leaving x2APIC mode changes the ID's form. */
	if (!r)
		r = set_lapic(vcpu_fd, err);
	if (!r)
		r = set_events(vcpu_fd, boot != NULL, err);
	return r;
}
