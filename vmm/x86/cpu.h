/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The x86 side of a vCPU: CPUID with topology, registers at boot.
 * KVM ABI: linux/kvm.h, Linux Documentation/virt/kvm/api.rst.
 */
#ifndef VMM_X86_CPU_H
#define VMM_X86_CPU_H

#include <linux/kvm.h>
#include <stdint.h>

#include "base/error.h"
#include "vmm/x86/boot.h"

struct x86_topology {
	unsigned int threads_per_core, cores_per_die, dies_per_package, packages; /* >= 1 */
};

#define X86_CPUID_ENTRIES 256

/* As KVM_SET_CPUID2 takes it: struct kvm_cpuid2 with room for its entries. */
struct x86_cpuid {
	struct {
		uint32_t nent, padding;
	} head;
	struct kvm_cpuid_entry2 entries[X86_CPUID_ENTRIES];
};

/* What KVM offers on this host (KVM_GET_SUPPORTED_CPUID), read once per VM. */
int x86_cpuid_supported(int kvm_fd, struct x86_cpuid *cpuid, struct error *err);
/* Physical address bits from leaf 0x80000008 (36 where absent). */
unsigned int x86_cpuid_phys_bits(const struct x86_cpuid *cpuid);
/* The APIC id of a vCPU under a topology (package, die, core, thread fields, each
 * rounded up to a power of two). */
uint32_t x86_apic_id(const struct x86_topology *topology, unsigned int cpu);
/* Turns the supported set into that of one vCPU: APIC id and topology (leaves 1, 4,
 * 0xb, 0x1f, 0x80000008, 0x8000001d/1e), hypervisor bit, KVM leaves (kvmclock ...), TSC
 * deadline timer, x2APIC. Pure. */
void x86_cpuid_for_vcpu(struct x86_cpuid *cpuid, const struct x86_topology *topology,
			unsigned int cpu);

/* Makes the vCPU ready to run: CPUID, MSRs, FPU, LINT0/1, and for the boot CPU
 * (boot not NULL) registers, segments and control registers as its protocol wants
 * them; the others wait for SIPI. *given, where not NULL, is the CPUID it got, malloc'ed. */
int x86_vcpu_setup(int vcpu_fd, unsigned int cpu, const struct x86_cpuid *supported,
		   const struct x86_topology *topology, const struct x86_boot *boot,
		   struct x86_cpuid **given, struct error *err);

#endif
