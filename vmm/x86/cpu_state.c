/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/x86/cpu_state.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "vmm/x86/cpu_msrs.h"

#define VCPU_VERSION 1

/* The largest of the parts, and aligned. */
union part_buffer {
	struct kvm_sregs2 sregs2;
	struct kvm_lapic_state lapic;
	struct kvm_xcrs xcrs;
	uint8_t bytes[4096];
};

/* CPUID */

static size_t entries_size(uint32_t count)
{
	return count * sizeof(struct kvm_cpuid_entry2);
}

static struct x86_cpuid *cpuid_new(uint32_t count, struct error *err)
{
	struct x86_cpuid *cpuid =
		calloc(1, offsetof(struct x86_cpuid, entries) + entries_size(count));

	if (cpuid)
		cpuid->head.nent = count;
	else
		error_set_errno(err, ENOMEM, "copy CPUID");
	return cpuid;
}

struct x86_cpuid *x86_cpuid_copy(const struct x86_cpuid *cpuid, struct error *err)
{
	struct x86_cpuid *copy = cpuid_new(cpuid->head.nent, err);

	if (copy)
		memcpy(copy->entries, cpuid->entries, entries_size(cpuid->head.nent));
	return copy;
}

void x86_cpuid_save(const struct x86_cpuid *cpuid, struct state_writer *writer)
{
	state_put_bytes(writer, "cpuid", cpuid->entries, entries_size(cpuid->head.nent));
}

int x86_cpuid_load(struct x86_cpuid **cpuid, const struct state_node *node, struct error *err)
{
	const void *data;
	size_t len;
	int r = state_get_blob(node, "cpuid", &data, &len, err);

	if (r)
		return r;
	if (!len || len % sizeof(struct kvm_cpuid_entry2) || len > entries_size(X86_CPUID_ENTRIES))
		return error_set(err, EINVAL, "property cpuid has %zu bytes", len);
	*cpuid = cpuid_new((uint32_t)(len / sizeof(struct kvm_cpuid_entry2)), err);
	if (!*cpuid)
		return -ENOMEM;
	memcpy((*cpuid)->entries, data, len);
	return 0;
}

/* Time */

int x86_time_read(int vcpu_fd, struct x86_time *time, struct error *err)
{
	int r;

	*time = (struct x86_time){ .khz = kvm_vcpu_tsc_khz(vcpu_fd) };
	r = kvm_vcpu_get_msr(vcpu_fd, MSR_IA32_TSC, &time->tsc, err);
	if (!r && kvm_vcpu_get_msr(vcpu_fd, MSR_IA32_TSC_DEADLINE, &time->deadline, NULL))
		time->deadline = 0;
	if (!r && kvm_vcpu_get_msr(vcpu_fd, MSR_KVM_WALL_CLOCK_NEW, &time->wall_clock, NULL))
		time->wall_clock = 0;
	if (!r)
		time->has_offset = !kvm_vcpu_get_tsc_offset(vcpu_fd, &time->offset, NULL);
	return r;
}

static uint64_t tsc_after(const struct x86_time *time, uint64_t elapsed)
{
	return time->tsc + (uint64_t)((unsigned __int128)elapsed * time->khz / 1000000);
}

/* Offsets are counted in the guest's ticks. That of the first vCPU is moved by as much as its
 * TSC lacks, those of the others by as much as that one's was. */
static int set_by_offset(const int *vcpu_fds, const struct x86_time *times, unsigned int count,
			 uint64_t elapsed, struct error *err)
{
	uint64_t offset, now, moved;
	int r = kvm_vcpu_get_tsc_offset(vcpu_fds[0], &offset, err);

	if (!r)
		r = kvm_vcpu_get_msr(vcpu_fds[0], MSR_IA32_TSC, &now, err);
	if (r)
		return r;
	moved = offset + tsc_after(&times[0], elapsed) - now - times[0].offset;
	for (unsigned int i = 0; !r && i < count; i++)
		r = kvm_vcpu_set_tsc_offset(vcpu_fds[i], times[i].offset + moved, err);
	return r;
}

/* KVM takes values written within a second for meant to be in step. */
static int set_by_value(const int *vcpu_fds, const struct x86_time *times, unsigned int count,
			uint64_t elapsed, struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; !r && i < count; i++)
		r = kvm_vcpu_set_msr(vcpu_fds[i], MSR_IA32_TSC, tsc_after(&times[i], elapsed), err);
	return r;
}

int x86_time_set(const int *vcpu_fds, const struct x86_time *times, unsigned int count,
		 uint64_t elapsed, struct error *err)
{
	bool offsets = true;
	uint64_t ignored;
	int r;

	for (unsigned int i = 0; i < count; i++)
		offsets = offsets && times[i].has_offset;
	offsets = offsets && !kvm_vcpu_get_tsc_offset(vcpu_fds[0], &ignored, NULL);
	r = (offsets ? set_by_offset : set_by_value)(vcpu_fds, times, count, elapsed, err);
	for (unsigned int i = 0; !r && i < count; i++)
		if (times[i].deadline)
			r = kvm_vcpu_set_msr(vcpu_fds[i], MSR_IA32_TSC_DEADLINE, times[i].deadline,
					     err);
	if (!r && times[0].wall_clock)
		r = kvm_vcpu_set_msr(vcpu_fds[0], MSR_KVM_WALL_CLOCK_NEW, times[0].wall_clock, err);
	return r;
}

static void save_time(const struct x86_time *time, struct state_writer *writer)
{
	state_put_u32(writer, "tsc-khz", time->khz);
	state_put_u64(writer, "tsc", time->tsc);
	if (time->has_offset)
		state_put_u64(writer, "tsc-offset", time->offset);
	state_put_u64(writer, "tsc-deadline", time->deadline);
	state_put_u64(writer, "wall-clock", time->wall_clock);
}

static int load_time(int vcpu_fd, struct x86_time *time, const struct state_node *node,
		     struct error *err)
{
	int r = state_get_u32(node, "tsc-khz", &time->khz, err);

	if (!r)
		r = state_get_u64(node, "tsc", &time->tsc, err);
	if (!r)
		r = state_get_u64(node, "tsc-deadline", &time->deadline, err);
	if (!r)
		r = state_get_u64(node, "wall-clock", &time->wall_clock, err);
	time->has_offset = state_has(node, "tsc-offset");
	if (!r && time->has_offset)
		r = state_get_u64(node, "tsc-offset", &time->offset, err);
	if (!r && time->khz && time->khz != kvm_vcpu_tsc_khz(vcpu_fd))
		r = kvm_vcpu_set_tsc_khz(vcpu_fd, time->khz, err);
	return r;
}

/* The rest */

static int save_part(int vcpu_fd, enum kvm_vcpu_part part, struct state_writer *writer,
		     struct error *err)
{
	union part_buffer buffer;
	int r = kvm_vcpu_get(vcpu_fd, part, &buffer, err);

	if (!r)
		state_put_bytes(writer, kvm_part_name(part), &buffer, kvm_part_size(part));
	return r;
}

static int load_part(int vcpu_fd, enum kvm_vcpu_part part, const struct state_node *node,
		     struct error *err)
{
	union part_buffer buffer;
	int r = state_get_bytes(node, kvm_part_name(part), &buffer, kvm_part_size(part), err);

	return r ? r : kvm_vcpu_set(vcpu_fd, part, &buffer, err);
}

static int save_mp_state(int vcpu_fd, struct state_writer *writer, struct error *err)
{
	struct kvm_mp_state state;
	int r = kvm_vcpu_get(vcpu_fd, KVM_PART_MP_STATE, &state, err);

	if (!r)
		state_put_u32(writer, "mp-state", state.mp_state);
	return r;
}

static int load_mp_state(int vcpu_fd, const struct state_node *node, struct error *err)
{
	struct kvm_mp_state state;
	int r = state_get_u32(node, "mp-state", &state.mp_state, err);

	return r ? r : kvm_vcpu_set(vcpu_fd, KVM_PART_MP_STATE, &state, err);
}

static int save_xsave(const struct kvm *kvm, int vcpu_fd, struct state_writer *writer,
		      struct error *err)
{
	size_t size = kvm_xsave_size(kvm);
	_cleanup_free_ uint8_t *data = NULL;
	int r;

	if (size > KVM_XSAVE_SIZE_MAX)
		return error_set(err, E2BIG, "XSAVE state has %zu bytes", size);
	data = calloc(1, size);
	if (!data)
		return error_set_errno(err, ENOMEM, "save XSAVE state");
	r = kvm_vcpu_get_xsave(vcpu_fd, data, size, err);
	if (r < 0)
		return r;
	state_put_bytes(writer, "xsave", data, size);
	return 0;
}

/* Another host may have more room, or less: what it has none for must not be in use. */
static int load_xsave(const struct kvm *kvm, int vcpu_fd, const struct state_node *node,
		      struct error *err)
{
	size_t size = kvm_xsave_size(kvm), len;
	_cleanup_free_ uint8_t *data = calloc(1, size);
	const void *blob;
	int r;

	if (!data)
		return error_set_errno(err, ENOMEM, "load XSAVE state");
	r = state_get_blob(node, "xsave", &blob, &len, err);
	if (r)
		return r;
	if (len < sizeof(struct kvm_xsave) || len > KVM_XSAVE_SIZE_MAX)
		return error_set(err, EINVAL, "property xsave has %zu bytes", len);
	for (size_t i = size; i < len; i++)
		if (((const uint8_t *)blob)[i])
			return error_set(
				err, EPROTONOSUPPORT,
				"the guest uses %zu bytes of XSAVE state, this host has %zu", len,
				size);
	memcpy(data, blob, MIN(len, size));
	return kvm_vcpu_set_xsave(vcpu_fd, data, err);
}

static int save_all(const struct kvm *kvm, int vcpu_fd, const struct x86_vcpu_state *state,
		    const struct kvm_msr_list_buffer *msrs, struct state_writer *writer,
		    struct error *err)
{
	bool sregs2 = kvm_part_supported(kvm, KVM_PART_SREGS2);
	int r;

	x86_cpuid_save(state->cpuid, writer);
	save_time(&state->time, writer);
	r = save_mp_state(vcpu_fd, writer, err);
	if (!r)
		r = save_part(vcpu_fd, KVM_PART_REGS, writer, err);
	if (!r)
		r = save_part(vcpu_fd, sregs2 ? KVM_PART_SREGS2 : KVM_PART_SREGS, writer, err);
	if (!r)
		r = save_xsave(kvm, vcpu_fd, writer, err);
	if (!r && kvm_part_supported(kvm, KVM_PART_XCRS))
		r = save_part(vcpu_fd, KVM_PART_XCRS, writer, err);
	if (!r)
		r = save_part(vcpu_fd, KVM_PART_DEBUGREGS, writer, err);
	if (!r)
		r = save_part(vcpu_fd, KVM_PART_LAPIC, writer, err);
	if (!r)
		r = x86_msrs_save(vcpu_fd, msrs, writer, err);
	if (!r)
		r = save_part(vcpu_fd, KVM_PART_EVENTS, writer, err);
	return r;
}

int x86_vcpu_save(const struct kvm *kvm, int vcpu_fd, const char *name,
		  const struct x86_vcpu_state *state, const struct kvm_msr_list_buffer *msrs,
		  struct state_writer *writer, struct error *err)
{
	int r;

	state_begin(writer, name, "vcpu", VCPU_VERSION);
	r = save_all(kvm, vcpu_fd, state, msrs, writer, err);
	state_end(writer);
	return r ? error_prefix(err, "save vCPU %s", name) : 0;
}

/* Which of the two forms was written is the other host's matter. */
static int load_sregs(const struct kvm *kvm, int vcpu_fd, const struct state_node *node,
		      struct error *err)
{
	if (!state_has(node, kvm_part_name(KVM_PART_SREGS2)))
		return load_part(vcpu_fd, KVM_PART_SREGS, node, err);
	if (!kvm_part_supported(kvm, KVM_PART_SREGS2))
		return error_set(err, EPROTONOSUPPORT,
				 "this host's KVM does not know sregs2 (Linux 5.14)");
	return load_part(vcpu_fd, KVM_PART_SREGS2, node, err);
}

/* In the order that the header gives. */
static int load_all(const struct kvm *kvm, int vcpu_fd, const struct state_node *node,
		    struct x86_vcpu_state *state, struct error *err)
{
	int r = load_time(vcpu_fd, &state->time, node, err);

	if (!r)
		r = kvm_vcpu_set_cpuid(vcpu_fd, state->cpuid, err);
	if (!r)
		r = load_sregs(kvm, vcpu_fd, node, err);
	if (!r)
		r = load_part(vcpu_fd, KVM_PART_REGS, node, err);
	if (!r)
		r = load_xsave(kvm, vcpu_fd, node, err);
	if (!r && state_has(node, kvm_part_name(KVM_PART_XCRS)))
		r = load_part(vcpu_fd, KVM_PART_XCRS, node, err);
	if (!r)
		r = load_part(vcpu_fd, KVM_PART_DEBUGREGS, node, err);
	if (!r)
		r = load_part(vcpu_fd, KVM_PART_LAPIC, node, err);
	if (!r)
		r = x86_msrs_load(vcpu_fd, node, err);
	if (!r)
		r = load_part(vcpu_fd, KVM_PART_EVENTS, node, err);
	if (!r)
		r = load_mp_state(vcpu_fd, node, err);
	return r;
}

int x86_vcpu_load(const struct kvm *kvm, int vcpu_fd, const struct state_node *node,
		  struct x86_vcpu_state *state, struct error *err)
{
	static const char *const known[] = { "sregs2", "xsave", "msrs", "tsc-offset", NULL };
	struct x86_cpuid *cpuid = NULL;
	char path[96];
	int r = state_expect(node, "vcpu", VCPU_VERSION, known, NULL, err);

	if (!r)
		r = x86_cpuid_load(&cpuid, node, err);
	if (r)
		return r;
	free(state->cpuid);
	state->cpuid = cpuid;
	r = load_all(kvm, vcpu_fd, node, state, err);
	if (!r)
		return 0;
	state_path(node, path, sizeof(path));
	return error_prefix(err, "load %s", path);
}
