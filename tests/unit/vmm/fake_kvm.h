/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM's descriptors, for tests that save and load state: ioctl() of the program that
 * includes this is the one below. What is set is there to be got; calls are recorded in
 * order; one of them can be made to fail.
 */
#ifndef TESTS_UNIT_VMM_FAKE_KVM_H
#define TESTS_UNIT_VMM_FAKE_KVM_H

#include <errno.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/bytes.h"
#include "vmm/kvm_vcpu.h"

#define FAKE_KVM 9000
#define FAKE_VM 9001
#define FAKE_VCPU 9010 /* and those after it */
#define FAKE_VCPUS 4
#define FAKE_MSRS 1024
#define FAKE_CALLS 256
#define FAKE_PART_MAX 4096

struct fake_vcpu {
	uint8_t parts[KVM_PARTS][FAKE_PART_MAX];
	uint8_t xsave[16384];
	uint32_t msr_index[FAKE_MSRS];
	uint64_t msr_value[FAKE_MSRS];
	unsigned int msr_count;
	uint8_t cpuid[8 + 256 * 40];
	uint32_t tsc_khz;
	uint64_t tsc_offset;
};

static struct fake_kvm {
	struct fake_vcpu vcpus[FAKE_VCPUS];
	struct kvm_irqchip chips[3];
	struct kvm_clock_data clock;
	uint64_t realtime; /* at KVM_SET_CLOCK, where that wants it */

	unsigned long calls[FAKE_CALLS]; /* in order, but those that only ask */
	unsigned int call_count;
	unsigned long fail; /* this request, the nth of it, fails so */
	unsigned int fail_nth;
	int fail_errno;

	uint32_t refused_msr;		  /* cannot be set; 0: none */
	int sregs2, xsave2, adjust_clock; /* capabilities */
	bool no_tsc_offset;
} fake;

static const struct fake_part {
	unsigned long get, set;
} fake_parts[KVM_PARTS] = {
	[KVM_PART_MP_STATE] = { KVM_GET_MP_STATE, KVM_SET_MP_STATE },
	[KVM_PART_REGS] = { KVM_GET_REGS, KVM_SET_REGS },
	[KVM_PART_SREGS] = { KVM_GET_SREGS, KVM_SET_SREGS },
	[KVM_PART_SREGS2] = { KVM_GET_SREGS2, KVM_SET_SREGS2 },
	[KVM_PART_XCRS] = { KVM_GET_XCRS, KVM_SET_XCRS },
	[KVM_PART_DEBUGREGS] = { KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS },
	[KVM_PART_LAPIC] = { KVM_GET_LAPIC, KVM_SET_LAPIC },
	[KVM_PART_EVENTS] = { KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS },
};

/* KVM_GET_MSR_INDEX_LIST's. */
static const uint32_t fake_msr_list[] = { 0x174, 0x10, 0x6e0, 0xc0000082, 0x480, 0x4b564d01 };

static struct kvm fake_kvm_handle(void)
{
	return (struct kvm){ .fd = FAKE_KVM, .vm_fd = FAKE_VM };
}

static void fake_kvm_fail(unsigned long request, unsigned int nth, int code)
{
	fake.fail = request;
	fake.fail_nth = nth;
	fake.fail_errno = code;
}

static uint64_t *fake_msr(struct fake_vcpu *vcpu, uint32_t index)
{
	for (unsigned int i = 0; i < vcpu->msr_count; i++)
		if (vcpu->msr_index[i] == index)
			return &vcpu->msr_value[i];
	return NULL;
}

static void fake_msr_set(struct fake_vcpu *vcpu, uint32_t index, uint64_t value)
{
	uint64_t *at = fake_msr(vcpu, index);

	if (!at && vcpu->msr_count < FAKE_MSRS) {
		vcpu->msr_index[vcpu->msr_count] = index;
		at = &vcpu->msr_value[vcpu->msr_count++];
	}
	if (at)
		*at = value;
}

/* Everything zero, but MSRs 0x174, TSC, deadline, LSTAR, system time, PAT, MTRR type. */
static void fake_kvm_reset(void)
{
	static const uint32_t there[] = { 0x174,      0x10,	  0x6e0, 0xc0000082,
					  0x4b564d00, 0x4b564d01, 0x277, 0x2ff };

	memset(&fake, 0, sizeof(fake));
	fake.sregs2 = 1;
	fake.adjust_clock = 0xe;
	for (unsigned int n = 0; n < FAKE_VCPUS; n++) {
		fake.vcpus[n].tsc_khz = 2000000;
		for (size_t i = 0; i < ARRAY_SIZE(there); i++)
			fake_msr_set(&fake.vcpus[n], there[i], 0);
	}
}

/* Where it is among the recorded calls, -1: nowhere. */
static int fake_kvm_position(unsigned long request)
{
	for (unsigned int i = 0; i < fake.call_count; i++)
		if (fake.calls[i] == request)
			return (int)i;
	return -1;
}

static int fake_msrs(struct fake_vcpu *vcpu, struct kvm_msrs *msrs, bool set)
{
	for (uint32_t i = 0; i < msrs->nmsrs; i++) {
		struct kvm_msr_entry *e = &msrs->entries[i];

		if (!fake_msr(vcpu, e->index) || (set && e->index == fake.refused_msr))
			return (int)i;
		if (set)
			fake_msr_set(vcpu, e->index, e->data);
		else
			e->data = *fake_msr(vcpu, e->index);
	}
	return (int)msrs->nmsrs;
}

static int fake_tsc_offset(struct fake_vcpu *vcpu, const struct kvm_device_attr *attr, bool set)
{
	uint64_t *user = (uint64_t *)(uintptr_t)attr->addr;

	if (fake.no_tsc_offset)
		return -ENXIO;
	if (set) {
		/* The TSC is the host's and this. */
		*fake_msr(vcpu, 0x10) += *user - vcpu->tsc_offset;
		vcpu->tsc_offset = *user;
	} else {
		*user = vcpu->tsc_offset;
	}
	return 0;
}

static int fake_vcpu_ioctl(struct fake_vcpu *vcpu, unsigned long request, void *arg)
{
	size_t xsave = fake.xsave2 > 4096 ? (size_t)fake.xsave2 : 4096;

	for (unsigned int i = 0; i < KVM_PARTS; i++) {
		if (request == fake_parts[i].get)
			memcpy(arg, vcpu->parts[i], kvm_part_size(i));
		else if (request == fake_parts[i].set)
			memcpy(vcpu->parts[i], arg, kvm_part_size(i));
		else
			continue;
		return 0;
	}
	switch (request) {
	case KVM_GET_XSAVE: memcpy(arg, vcpu->xsave, 4096); return 0;
	case KVM_GET_XSAVE2: memcpy(arg, vcpu->xsave, xsave); return 0;
	case KVM_SET_XSAVE: memcpy(vcpu->xsave, arg, xsave); return 0;
	case KVM_GET_MSRS: return fake_msrs(vcpu, arg, false);
	case KVM_SET_MSRS: return fake_msrs(vcpu, arg, true);
	case KVM_SET_CPUID2:
		memcpy(vcpu->cpuid, arg, 8 + ((struct kvm_cpuid2 *)arg)->nent * 40UL);
		return 0;
	case KVM_GET_TSC_KHZ: return (int)vcpu->tsc_khz;
	case KVM_SET_TSC_KHZ: vcpu->tsc_khz = (uint32_t)(uintptr_t)arg; return 0;
	case KVM_GET_DEVICE_ATTR: return fake_tsc_offset(vcpu, arg, false);
	case KVM_SET_DEVICE_ATTR: return fake_tsc_offset(vcpu, arg, true);
	default: return -ENOTTY;
	}
}

static int fake_vm_ioctl(unsigned long request, void *arg)
{
	struct kvm_irqchip *chip = arg;
	struct kvm_clock_data *clock = arg;

	switch (request) {
	case KVM_CHECK_EXTENSION:
		switch ((uintptr_t)arg) {
		case KVM_CAP_SREGS2: return fake.sregs2;
		case KVM_CAP_XCRS: return 1;
		case KVM_CAP_XSAVE2: return fake.xsave2;
		case KVM_CAP_ADJUST_CLOCK: return fake.adjust_clock;
		default: return 0;
		}
	case KVM_GET_IRQCHIP: *chip = fake.chips[chip->chip_id % 3]; return 0;
	case KVM_SET_IRQCHIP: fake.chips[chip->chip_id % 3] = *chip; return 0;
	case KVM_GET_CLOCK: *clock = fake.clock; return 0;
	case KVM_SET_CLOCK:
		fake.clock.clock = clock->clock;
		if (clock->flags & KVM_CLOCK_REALTIME && fake.realtime > clock->realtime)
			fake.clock.clock += fake.realtime - clock->realtime;
		return 0;
	default: return -ENOTTY;
	}
}

static int fake_list(struct kvm_msr_list_buffer *list)
{
	list->nmsrs = ARRAY_SIZE(fake_msr_list);
	memcpy(list->indices, fake_msr_list, sizeof(fake_msr_list));
	return 0;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;
	int r;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (request == fake.fail && fake.fail_nth && --fake.fail_nth == 0) {
		errno = fake.fail_errno;
		return -1;
	}
	if (request != KVM_CHECK_EXTENSION && request != KVM_GET_TSC_KHZ &&
	    fake.call_count < FAKE_CALLS)
		fake.calls[fake.call_count++] = request;
	if (fd == FAKE_KVM)
		r = request == KVM_GET_MSR_INDEX_LIST ? fake_list(arg) : -ENOTTY;
	else if (fd == FAKE_VM)
		r = fake_vm_ioctl(request, arg);
	else if (fd >= FAKE_VCPU && fd < FAKE_VCPU + FAKE_VCPUS)
		r = fake_vcpu_ioctl(&fake.vcpus[fd - FAKE_VCPU], request, arg);
	else
		r = -EBADF;
	if (r >= 0)
		return r;
	errno = -r;
	return -1;
}

#endif
