/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPUID of a vCPU: what KVM supports on this host, minus what the VM cannot carry
 * (nested virtualization, the PMU), with this vCPU's place in the topology.
 * Leaves: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E; KVM's own: Linux
 * Documentation/virt/kvm/x86/cpuid.rst.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/bytes.h"
#include "vmm/x86/cpu.h"

#define BIT(n) (1U << (n))

#define ECX1_VMX BIT(5)
#define ECX1_PDCM BIT(15)
#define ECX1_X2APIC BIT(21)
#define ECX1_TSC_DEADLINE BIT(24)
#define ECX1_HYPERVISOR BIT(31)
#define EDX1_HTT BIT(28)
#define ECX8_1_CMP_LEGACY BIT(1)
#define ECX8_1_SVM BIT(2)
#define ECX8_1_TOPOEXT BIT(22)
#define ECX8_1_PERFCTR_CORE BIT(23)
#define ECX8_1_PERFCTR_NB BIT(24)
#define ECX8_1_PERFCTR_LLC BIT(28)

/* Level types of leaves 0xb and 0x1f. */
enum level { LEVEL_NONE = 0, LEVEL_SMT = 1, LEVEL_CORE = 2, LEVEL_DIE = 5 };

int x86_cpuid_supported(int kvm_fd, struct x86_cpuid *cpuid, struct error *err)
{
	memset(cpuid, 0, sizeof(*cpuid));
	cpuid->head.nent = X86_CPUID_ENTRIES;
	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, &cpuid->head) < 0)
		return error_set_errno(err, errno, "KVM_GET_SUPPORTED_CPUID");
	return 0;
}

static struct kvm_cpuid_entry2 *find(struct x86_cpuid *cpuid, uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < cpuid->head.nent && i < X86_CPUID_ENTRIES; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		if (e->function == function &&
		    (e->index == index || !(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX)))
			return e;
	}
	return NULL;
}

static void drop(struct x86_cpuid *cpuid, uint32_t function)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < cpuid->head.nent; i++)
		if (cpuid->entries[i].function != function)
			cpuid->entries[kept++] = cpuid->entries[i];
	cpuid->head.nent = kept;
}

static void add(struct x86_cpuid *cpuid, const struct kvm_cpuid_entry2 *entry)
{
	/* KVM offers some sixty entries of 256: the few of ours find room. */
	if (cpuid->head.nent < X86_CPUID_ENTRIES)
		cpuid->entries[cpuid->head.nent++] = *entry;
}

unsigned int x86_cpuid_phys_bits(const struct x86_cpuid *cpuid)
{
	const struct kvm_cpuid_entry2 *e = find((struct x86_cpuid *)cpuid, 0x80000008, 0);
	unsigned int bits = e ? e->eax & 0xff : 0;

	return bits ? bits : 36;
}

/* Bits that tell n things apart. */
static unsigned int bits_for(unsigned int n)
{
	unsigned int bits = 0;

	while (bits < 31 && (1U << bits) < n)
		bits++;
	return bits;
}

/* Where the fields of an APIC id start. */
struct shifts {
	unsigned int core, die, package;
};

static struct shifts topology_shifts(const struct x86_topology *t)
{
	struct shifts s = { .core = bits_for(t->threads_per_core) };

	s.die = s.core + bits_for(t->cores_per_die);
	s.package = s.die + bits_for(t->dies_per_package);
	return s;
}

uint32_t x86_apic_id(const struct x86_topology *topology, unsigned int cpu)
{
	struct shifts s = topology_shifts(topology);
	unsigned int thread = cpu % topology->threads_per_core;
	unsigned int core = cpu / topology->threads_per_core;
	unsigned int die = core / topology->cores_per_die;
	unsigned int package = die / topology->dies_per_package;

	core %= topology->cores_per_die;
	die %= topology->dies_per_package;
	return thread | core << s.core | die << s.die | package << s.package;
}

static bool is_amd(struct x86_cpuid *cpuid)
{
	const struct kvm_cpuid_entry2 *e = find(cpuid, 0, 0);

	/* "AuthenticAMD", "HygonGenuine" */
	return e && (e->ebx == 0x68747541 || e->ebx == 0x6f677948);
}

/* Leaves 0xb and 0x1f: one subleaf per level, then one that says "no more". */
static void add_levels(struct x86_cpuid *cpuid, uint32_t function, uint32_t apic_id,
		       const struct x86_topology *t, bool with_dies)
{
	struct shifts s = topology_shifts(t);
	unsigned int per_die = t->threads_per_core * t->cores_per_die;
	unsigned int per_package = per_die * t->dies_per_package;
	const struct {
		enum level level;
		unsigned int shift, threads;
	} levels[] = {
		{ LEVEL_SMT, s.core, t->threads_per_core },
		{ LEVEL_CORE, with_dies ? s.die : s.package, with_dies ? per_die : per_package },
		{ with_dies ? LEVEL_DIE : LEVEL_NONE, with_dies ? s.package : 0,
		  with_dies ? per_package : 0 },
		{ LEVEL_NONE, 0, 0 },
	};

	drop(cpuid, function);
	for (uint32_t i = 0; i < (with_dies ? 4U : 3U); i++)
		add(cpuid, &(struct kvm_cpuid_entry2){
				   .function = function,
				   .index = i,
				   .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
				   .eax = levels[i].shift,
				   .ebx = levels[i].threads,
				   .ecx = i | (uint32_t)levels[i].level << 8,
				   .edx = apic_id,
			   });
}

static void set_extended_levels(struct x86_cpuid *cpuid, uint32_t apic_id,
				const struct x86_topology *t, bool amd)
{
	struct kvm_cpuid_entry2 *e = find(cpuid, 0, 0);
	/* Leaf 0x1f knows dies; without dies it would say what 0xb says. */
	bool dies = !amd && t->dies_per_package > 1;

	if (e)
		e->eax = MAX(e->eax, dies ? 0x1fU : 0xbU);
	add_levels(cpuid, 0xb, apic_id, t, false);
	drop(cpuid, 0x1f);
	if (dies)
		add_levels(cpuid, 0x1f, apic_id, t, true);
}

/* Who shares which cache: leaf 4, and 0x8000001d of the same form on AMD. The first
 * two levels belong to a core, the last to a die. */
static void set_caches(struct x86_cpuid *cpuid, uint32_t function, const struct x86_topology *t)
{
	struct shifts s = topology_shifts(t);

	for (uint32_t i = 0; i < cpuid->head.nent; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid->entries[i];
		unsigned int level = e->eax >> 5 & 7;
		unsigned int sharing = (1U << (level <= 2 ? s.core : s.die)) - 1;
		unsigned int cores = (1U << (s.package - s.core)) - 1;

		if (e->function != function || !(e->eax & 0x1f))
			continue;
		e->eax &= 0x3fff;
		e->eax |= (sharing & 0xfff) << 14;
		if (function == 4)
			e->eax |= MIN(cores, 0x3fU) << 26;
	}
}

static void set_amd_topology(struct x86_cpuid *cpuid, uint32_t apic_id,
			     const struct x86_topology *t)
{
	struct shifts s = topology_shifts(t);
	unsigned int threads = t->threads_per_core * t->cores_per_die * t->dies_per_package;
	const struct kvm_cpuid_entry2 *max = find(cpuid, 0x80000000, 0);
	bool has_leaf = max && max->eax >= 0x8000001e;
	struct kvm_cpuid_entry2 *features = find(cpuid, 0x80000001, 0);
	struct kvm_cpuid_entry2 *sizes = find(cpuid, 0x80000008, 0);

	if (sizes)
		sizes->ecx = (sizes->ecx & ~0xf0ffU) | (threads - 1) | s.package << 12;
	if (features) {
		features->ecx &= ~(ECX8_1_CMP_LEGACY | ECX8_1_TOPOEXT);
		if (threads > 1)
			features->ecx |= ECX8_1_CMP_LEGACY;
	}
	/* 0x80000026 would describe the host's own levels. */
	drop(cpuid, 0x80000026);
	drop(cpuid, 0x8000001e);
	if (!has_leaf)
		return;
	/* KVM gives leaf 0x8000001d from the host where that has TOPOEXT. */
	features = find(cpuid, 0x80000001, 0);
	if (features)
		features->ecx |= ECX8_1_TOPOEXT;
	add(cpuid, &(struct kvm_cpuid_entry2){
			   .function = 0x8000001e,
			   .eax = apic_id,
			   .ebx = (apic_id >> s.core & 0xff) | (t->threads_per_core - 1) << 8,
			   .ecx = apic_id >> s.package & 0xff,
		   });
}

static void hide(struct x86_cpuid *cpuid, uint32_t function)
{
	for (uint32_t i = 0; i < cpuid->head.nent; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		if (e->function == function)
			e->eax = e->ebx = e->ecx = e->edx = 0;
	}
}

/* A guest hypervisor's state and performance counters do not move with the VM. */
static void hide_unmovable(struct x86_cpuid *cpuid)
{
	struct kvm_cpuid_entry2 *e = find(cpuid, 1, 0);

	if (e)
		e->ecx &= ~(ECX1_VMX | ECX1_PDCM);
	e = find(cpuid, 0x80000001, 0);
	if (e)
		e->ecx &= ~(ECX8_1_SVM | ECX8_1_PERFCTR_CORE | ECX8_1_PERFCTR_NB |
			    ECX8_1_PERFCTR_LLC);
	hide(cpuid, 0xa);
	hide(cpuid, 0x8000000a);
	hide(cpuid, 0x80000022);
}

void x86_cpuid_for_vcpu(struct x86_cpuid *cpuid, const struct x86_topology *topology,
			unsigned int cpu)
{
	uint32_t apic_id = x86_apic_id(topology, cpu);
	struct shifts s = topology_shifts(topology);
	struct kvm_cpuid_entry2 *e = find(cpuid, 1, 0);
	bool amd = is_amd(cpuid);

	hide_unmovable(cpuid);
	if (e) {
		e->ebx &= 0x0000ffff;
		e->ebx |= MIN(1U << s.package, 0xffU) << 16 | apic_id << 24;
		/* KVM emulates both whatever the host has; its list leaves the
		 * deadline timer to the one who made the interrupt controller. */
		e->ecx |= ECX1_X2APIC | ECX1_TSC_DEADLINE | ECX1_HYPERVISOR;
		e->edx &= ~EDX1_HTT;
		if (s.package)
			e->edx |= EDX1_HTT;
	}
	set_caches(cpuid, 4, topology);
	set_caches(cpuid, 0x8000001d, topology);
	if (amd)
		set_amd_topology(cpuid, apic_id, topology);
	set_extended_levels(cpuid, apic_id, topology, amd);
}
