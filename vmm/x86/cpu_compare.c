/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/x86/cpu_compare.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "vmm/x86/cpu_state.h"

#define CPU_VERSION 1
/* KVM takes a frequency for the host's own that is off by less than this: its module
 * parameter tsc_tolerance_ppm. */
#define TSC_TOLERANCE_PPM 250U

#define BIT(n) (1U << (n))

/* Words of feature bits: each that the guest has, the host must have. But for those that KVM
 * emulates whatever the host has, that mirror a control register, or that say what a
 * processor does not do. */
static const struct feature_word {
	uint32_t function, index;
	enum x86_cpuid_register reg;
	uint32_t aside;
} feature_words[] = {
	/* x2APIC, TSC deadline, OSXSAVE, hypervisor */
	{ 0x1, 0, X86_ECX, BIT(21) | BIT(24) | BIT(27) | BIT(31) },
	{ 0x1, 0, X86_EDX, BIT(28) },	       /* HTT: topology */
	{ 0x7, 0, X86_EBX, BIT(6) | BIT(13) }, /* FDP only on exceptions, no FCS and FDS */
	{ 0x7, 0, X86_ECX, BIT(4) },	       /* OSPKE */
	{ 0x7, 0, X86_EDX, 0 },
	{ 0x7, 1, X86_EAX, 0 },
	{ 0x7, 1, X86_EDX, 0 },
	{ 0x7, 2, X86_EDX, 0 },
	{ 0xd, 0, X86_EAX, 0 },
	{ 0xd, 0, X86_EDX, 0 },
	{ 0xd, 1, X86_EAX, 0 },
	{ 0x40000001, 0, X86_EAX, 0 },
	{ 0x80000001, 0, X86_ECX, BIT(1) | BIT(22) }, /* CMP_LEGACY, TOPOEXT: topology */
	{ 0x80000001, 0, X86_EDX, 0 },
	{ 0x80000007, 0, X86_EDX, 0 },
	{ 0x80000008, 0, X86_EBX, 0 },
	{ 0x80000021, 0, X86_EAX, 0 },
};

static const struct kvm_cpuid_entry2 *find(const struct x86_cpuid *cpuid, uint32_t function,
					   uint32_t index)
{
	for (uint32_t i = 0; i < cpuid->head.nent && i < X86_CPUID_ENTRIES; i++) {
		const struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		if (e->function == function &&
		    (e->index == index || !(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX)))
			return e;
	}
	return NULL;
}

static uint32_t value(const struct x86_cpuid *cpuid, uint32_t function, uint32_t index,
		      enum x86_cpuid_register reg)
{
	const struct kvm_cpuid_entry2 *e = find(cpuid, function, index);

	if (!e)
		return 0;
	switch (reg) {
	case X86_EAX: return e->eax;
	case X86_EBX: return e->ebx;
	case X86_ECX: return e->ecx;
	case X86_EDX: return e->edx;
	}
	return 0;
}

struct vendor {
	char name[13];
};

static struct vendor vendor_of(const struct x86_cpuid *cpuid)
{
	struct vendor vendor = { "" };

	store_le32(vendor.name, value(cpuid, 0, 0, X86_EBX));
	store_le32(vendor.name + 4, value(cpuid, 0, 0, X86_EDX));
	store_le32(vendor.name + 8, value(cpuid, 0, 0, X86_ECX));
	/* It is printed, and may come from a file. */
	for (size_t i = 0; i < sizeof(vendor.name) - 1 && vendor.name[i]; i++)
		if (vendor.name[i] < ' ' || vendor.name[i] > '~')
			vendor.name[i] = '?';
	return vendor;
}

void x86_cpu_save(const struct x86_cpuid *given, uint32_t tsc_khz, struct state_writer *writer)
{
	struct vendor vendor = vendor_of(given);

	state_begin(writer, "cpu", "cpu", CPU_VERSION);
	state_put_string(writer, "vendor", vendor.name);
	state_put_u32(writer, "tsc-khz", tsc_khz);
	x86_cpuid_save(given, writer);
	state_end(writer);
}

static int check_vendor(const struct x86_cpuid *supported, const struct x86_cpuid *guest,
			struct error *err)
{
	struct vendor here = vendor_of(supported), there = vendor_of(guest);

	if (!strcmp(here.name, there.name))
		return 0;
	return error_set(err, EPROTONOSUPPORT, "the guest's CPU is a %s, this host's a %s",
			 there.name, here.name);
}

static void append_name(char *list, size_t size, const struct feature_word *word, unsigned int bit)
{
	static const char *const registers[] = { "eax", "ebx", "ecx", "edx" };
	const char *name = x86_feature_name(word->function, word->index, word->reg, bit);
	size_t used = strlen(list);
	const char *comma = used ? ", " : "";

	if (name)
		snprintf(list + used, size - used, "%s%s", comma, name);
	else
		snprintf(list + used, size - used, "%sCPUID 0x%x.%u %s bit %u", comma,
			 word->function, word->index, registers[word->reg], bit);
}

static int check_features(const struct x86_cpuid *supported, const struct x86_cpuid *guest,
			  struct error *err)
{
	unsigned int count = 0;
	char list[320] = "";

	for (size_t i = 0; i < ARRAY_SIZE(feature_words); i++) {
		const struct feature_word *w = &feature_words[i];
		uint32_t missing = value(guest, w->function, w->index, w->reg) &
				   ~value(supported, w->function, w->index, w->reg) & ~w->aside;

		for (unsigned int bit = 0; bit < 32; bit++)
			if (missing & BIT(bit)) {
				count++;
				append_name(list, sizeof(list), w, bit);
			}
	}
	if (!count)
		return 0;
	return error_set(err, EPROTONOSUPPORT,
			 "this host's CPU, or its KVM, lacks what the guest has: %s", list);
}

/* A component of XSAVE's state may lie elsewhere, and the guest has saved it. */
static int check_xsave(const struct x86_cpuid *supported, const struct x86_cpuid *guest,
		       struct error *err)
{
	uint64_t in_use = value(guest, 0xd, 0, X86_EAX) | (uint64_t)value(guest, 0xd, 0, X86_EDX)
								  << 32;

	for (unsigned int n = 2; n < 63; n++) {
		uint32_t there = value(guest, 0xd, n, X86_EBX),
			 here = value(supported, 0xd, n, X86_EBX);

		if (in_use >> n & 1 && there != here)
			return error_set(err, EPROTONOSUPPORT,
					 "component %u of the XSAVE state is at %u on this host, "
					 "at %u for the guest",
					 n, here, there);
	}
	return 0;
}

static int check_addresses(const struct x86_cpuid *supported, const struct x86_cpuid *guest,
			   struct error *err)
{
	static const struct {
		const char *name;
		unsigned int shift;
	} kinds[] = { { "physical", 0 }, { "virtual", 8 } };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		uint32_t there = value(guest, 0x80000008, 0, X86_EAX) >> kinds[i].shift & 0xff;
		uint32_t here = value(supported, 0x80000008, 0, X86_EAX) >> kinds[i].shift & 0xff;

		if (there > here)
			return error_set(err, EPROTONOSUPPORT,
					 "the guest has %s addresses of %u bits, this host's CPU "
					 "%u",
					 kinds[i].name, there, here);
	}
	return 0;
}

static int check_tsc(const struct x86_host_cpu *host, uint32_t khz, struct error *err)
{
	uint32_t apart = khz > host->tsc_khz ? khz - host->tsc_khz : host->tsc_khz - khz;

	if (!khz || !host->tsc_khz || host->tsc_scaling ||
	    (uint64_t)apart * 1000000 <= (uint64_t)host->tsc_khz * TSC_TOLERANCE_PPM)
		return 0;
	return error_set(
		err, EPROTONOSUPPORT,
		"the guest's TSC runs at %u kHz, this host's at %u kHz, and its CPU has no "
		"TSC scaling",
		khz, host->tsc_khz);
}

int x86_cpu_check(const struct x86_host_cpu *host, const struct state_node *node, struct error *err)
{
	_cleanup_free_ struct x86_cpuid *guest = NULL;
	uint32_t khz;
	int r = state_expect(node, "cpu", CPU_VERSION, NULL, NULL, err);

	if (!r)
		r = state_get_u32(node, "tsc-khz", &khz, err);
	if (!r)
		r = x86_cpuid_load(&guest, node, err);
	if (!r)
		r = check_vendor(host->supported, guest, err);
	if (!r)
		r = check_features(host->supported, guest, err);
	if (!r)
		r = check_xsave(host->supported, guest, err);
	if (!r)
		r = check_addresses(host->supported, guest, err);
	if (!r)
		r = check_tsc(host, khz, err);
	return r;
}
