/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which MSRs are a vCPU's state: those of KVM_GET_MSR_INDEX_LIST that the guest can use,
 * and those that KVM keeps without listing them. Numbers: Intel SDM volume 4; AMD APM volume
 * 2, appendix A; Linux Documentation/virt/kvm/x86/msr.rst.
 */
#include "vmm/x86/cpu_msrs.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "vmm/x86/cpu_state.h"

#define MSR_MCG_CAP 0x179
#define MSR_MC0_CTL 0x400
#define MC_BANKS_MAX 32
#define MC_BANK_MSRS 4 /* control, status, address, misc */

struct range {
	uint32_t first, last;
};

/* Listed, and not saved here. */
static const struct range left_out[] = {
	{ MSR_IA32_TSC, MSR_IA32_TSC },			  /* x86_time */
	{ MSR_IA32_TSC_DEADLINE, MSR_IA32_TSC_DEADLINE }, /* x86_time */
	{ MSR_KVM_WALL_CLOCK, MSR_KVM_WALL_CLOCK },	  /* x86_time */
	{ MSR_KVM_WALL_CLOCK_NEW, MSR_KVM_WALL_CLOCK_NEW },
	/* The guest has no nested virtualization and no PMU: cpuid.c hides them. */
	{ 0x480, 0x493 },	    /* VMX capabilities */
	{ 0xc0010117, 0xc0010117 }, /* VM_HSAVE_PA */
	{ 0xc0000104, 0xc0000104 }, /* AMD64_TSC_RATIO */
	{ 0xc1, 0xc8 },		    /* PMC0-7 */
	{ 0x186, 0x18d },	    /* PERFEVTSEL0-7 */
	{ 0x309, 0x30c },	    /* FIXED_CTR0-3 */
	{ 0x345, 0x345 },	    /* PERF_CAPABILITIES */
	{ 0x38d, 0x390 },	    /* FIXED_CTR_CTRL, PERF_GLOBAL_* */
	{ 0x3f1, 0x3f2 },	    /* PEBS */
	{ 0x600, 0x600 },	    /* DS_AREA */
	{ 0xc0010000, 0xc0010007 }, /* PERFEVTSEL, PERFCTR of AMD */
	{ 0xc0010200, 0xc001020b },
	{ 0xc0000300, 0xc0000303 },
	{ 0x560, 0x58f },	    /* processor trace */
	{ 0x40000000, 0x400001ff }, /* Hyper-V's, not offered */
};

/* Not listed before Linux 6.12 or at all; the guest sets them, and firmware would. */
static const struct range unlisted[] = {
	{ 0x200, 0x20f },				      /* MTRR_PHYSBASE0 - MTRR_PHYSMASK7 */
	{ 0x250, 0x250 }, { 0x258, 0x259 }, { 0x268, 0x26f }, /* MTRR_FIX* */
	{ 0x277, 0x277 },				      /* PAT */
	{ 0x2ff, 0x2ff },				      /* MTRR_DEF_TYPE */
};

static bool within(const struct range *ranges, size_t count, uint32_t index)
{
	for (size_t i = 0; i < count; i++)
		if (index >= ranges[i].first && index <= ranges[i].last)
			return true;
	return false;
}

static void add(struct kvm_msr_list_buffer *list, uint32_t index)
{
	for (uint32_t i = 0; i < list->nmsrs; i++)
		if (list->indices[i] == index)
			return;
	/* KVM lists some 200 of 1024. */
	if (list->nmsrs < KVM_MSRS_MAX)
		list->indices[list->nmsrs++] = index;
}

int x86_msrs_find(const struct kvm *kvm, struct kvm_msr_list_buffer *list, struct error *err)
{
	int r = kvm_msr_list(kvm, list, err);
	uint32_t kept = 0;

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < list->nmsrs; i++)
		if (!within(left_out, ARRAY_SIZE(left_out), list->indices[i]))
			list->indices[kept++] = list->indices[i];
	list->nmsrs = kept;
	for (size_t i = 0; i < ARRAY_SIZE(unlisted); i++)
		for (uint32_t index = unlisted[i].first; index <= unlisted[i].last; index++)
			add(list, index);
	for (uint32_t i = 0; i < MC_BANKS_MAX * MC_BANK_MSRS; i++)
		add(list, MSR_MC0_CTL + i);
	return 0;
}

/* Machine check banks that there are. */
static uint32_t banks(int vcpu_fd)
{
	uint64_t cap;

	return kvm_vcpu_get_msr(vcpu_fd, MSR_MCG_CAP, &cap, NULL)
		       ? 0
		       : (uint32_t)MIN(cap & 0xff, (uint64_t)MC_BANKS_MAX);
}

/* Reads entries [0, nmsrs), dropping those that KVM refuses. */
static int read_all(int vcpu_fd, struct kvm_msrs_buffer *msrs, struct error *err)
{
	_cleanup_free_ struct kvm_msrs_buffer *rest = malloc(sizeof(*rest));
	uint32_t kept = 0, at = 0;

	if (!rest)
		return error_set_errno(err, ENOMEM, "read MSRs");
	while (at < msrs->nmsrs) {
		int done;

		rest->nmsrs = msrs->nmsrs - at;
		rest->pad = 0;
		memcpy(rest->entries, msrs->entries + at, rest->nmsrs * sizeof(rest->entries[0]));
		done = kvm_vcpu_get_msrs(vcpu_fd, rest, err);
		if (done < 0)
			return done;
		/* kept <= at: what is overwritten was looked at. */
		memmove(msrs->entries + kept, rest->entries,
			(size_t)done * sizeof(rest->entries[0]));
		kept += (uint32_t)done;
		at += (uint32_t)done + 1;
	}
	msrs->nmsrs = kept;
	return 0;
}

int x86_msrs_save(int vcpu_fd, const struct kvm_msr_list_buffer *list, struct state_writer *writer,
		  struct error *err)
{
	_cleanup_free_ struct kvm_msrs_buffer *msrs = calloc(1, sizeof(*msrs));
	uint32_t end = MSR_MC0_CTL + MC_BANKS_MAX * MC_BANK_MSRS;
	uint32_t have = MSR_MC0_CTL + banks(vcpu_fd) * MC_BANK_MSRS;
	int r;

	if (!msrs)
		return error_set_errno(err, ENOMEM, "read MSRs");
	for (uint32_t i = 0; i < list->nmsrs && i < KVM_MSRS_MAX; i++) {
		uint32_t index = list->indices[i];

		if (index < have || index >= end)
			msrs->entries[msrs->nmsrs++].index = index;
	}
	r = read_all(vcpu_fd, msrs, err);
	if (!r)
		state_put_bytes(writer, "msrs", msrs->entries,
				msrs->nmsrs * sizeof(msrs->entries[0]));
	return r;
}

/* KVM stopped at this one. */
static int tolerate(int vcpu_fd, const struct kvm_msr_entry *entry, struct error *err)
{
	uint64_t now;

	if (!kvm_vcpu_get_msr(vcpu_fd, entry->index, &now, NULL) && now == entry->data)
		return 0;
	return error_set(err, EPROTONOSUPPORT,
			 "this host's KVM refuses MSR %#x = %#llx of the guest", entry->index,
			 (unsigned long long)entry->data);
}

int x86_msrs_load(int vcpu_fd, const struct state_node *node, struct error *err)
{
	_cleanup_free_ struct kvm_msrs_buffer *msrs = calloc(1, sizeof(*msrs));
	const uint8_t *blob;
	const void *data;
	size_t len;
	int r;

	if (!msrs)
		return error_set_errno(err, ENOMEM, "load MSRs");
	r = state_get_blob(node, "msrs", &data, &len, err);
	if (r)
		return r;
	blob = data;
	if (len % sizeof(msrs->entries[0]) || len > sizeof(msrs->entries))
		return error_set(err, EINVAL, "property msrs has %zu bytes", len);
	while (len) {
		int done;

		memcpy(msrs->entries, blob, len);
		msrs->nmsrs = (uint32_t)(len / sizeof(msrs->entries[0]));
		done = kvm_vcpu_set_msrs(vcpu_fd, msrs, err);
		if (done < 0)
			return done;
		if ((uint32_t)done < msrs->nmsrs) {
			r = tolerate(vcpu_fd, &msrs->entries[done], err);
			if (r)
				return r;
			done++;
		}
		blob += (size_t)done * sizeof(msrs->entries[0]);
		len -= (size_t)done * sizeof(msrs->entries[0]);
	}
	return 0;
}
