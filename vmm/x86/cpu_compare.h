/* SPDX-License-Identifier: Apache-2.0 */
/*
 * May a guest of another host run here? What its CPUs promise it, against what this host's
 * KVM supports.
 *
 *   cpu, version 1
 *     vendor    "GenuineIntel"
 *     cpuid     struct kvm_cpuid_entry2[], as given to the first vCPU
 *     tsc-khz   frequency of its TSC, 0: not known
 */
#ifndef VMM_X86_CPU_COMPARE_H
#define VMM_X86_CPU_COMPARE_H

#include "base/state_tree.h"
#include "vmm/x86/cpu.h"

/* Begins and ends the node "cpu". */
void x86_cpu_save(const struct x86_cpuid *given, uint32_t tsc_khz, struct state_writer *writer);

struct x86_host_cpu {
	const struct x86_cpuid *supported; /* x86_cpuid_supported() */
	uint32_t tsc_khz;		   /* 0: not known */
	bool tsc_scaling;		   /* KVM_CAP_TSC_CONTROL */
};

/* -EPROTONOSUPPORT names what is missing, by the name that it has in Linux' /proc/cpuinfo
 * and in processor manuals ("avx512f"), or the CPUID leaf, register and bit. */
int x86_cpu_check(const struct x86_host_cpu *host, const struct state_node *node,
		  struct error *err);

/* The name of a feature bit, or NULL. */
enum x86_cpuid_register { X86_EAX, X86_EBX, X86_ECX, X86_EDX };
const char *x86_feature_name(uint32_t function, uint32_t index, enum x86_cpuid_register reg,
			     unsigned int bit);

#endif
