/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm_state.h"

#include <errno.h>
#include <time.h>

#include "base/bytes.h"

#define IRQCHIP_VERSION 1
#define CLOCK_VERSION 1
#define NS_PER_S 1000000000ULL

static const struct chip {
	const char *name;
	uint32_t id;
	size_t size;
} chips[] = {
	{ "pic-master", KVM_IRQCHIP_PIC_MASTER, sizeof(struct kvm_pic_state) },
	{ "pic-slave", KVM_IRQCHIP_PIC_SLAVE, sizeof(struct kvm_pic_state) },
	{ "ioapic", KVM_IRQCHIP_IOAPIC, sizeof(struct kvm_ioapic_state) },
};

int kvm_irqchip_save(const struct kvm *kvm, struct state_writer *writer, struct error *err)
{
	int r = 0;

	state_begin(writer, "irqchip", "irqchip", IRQCHIP_VERSION);
	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(chips); i++) {
		struct kvm_irqchip chip = { .chip_id = chips[i].id };

		r = kvm_get_irqchip(kvm, &chip, err);
		if (r >= 0)
			state_put_bytes(writer, chips[i].name, &chip.chip, chips[i].size);
	}
	state_end(writer);
	return r < 0 ? r : 0;
}

int kvm_irqchip_load(const struct kvm *kvm, const struct state_node *node, struct error *err)
{
	int r = state_expect(node, "irqchip", IRQCHIP_VERSION, NULL, NULL, err);

	for (size_t i = 0; !r && i < ARRAY_SIZE(chips); i++) {
		struct kvm_irqchip chip = { .chip_id = chips[i].id };

		r = state_get_bytes(node, chips[i].name, &chip.chip, chips[i].size, err);
		if (r)
			return r;
		r = kvm_set_irqchip(kvm, &chip, err);
		if (r < 0)
			return error_prefix(err, "load %s", chips[i].name);
	}
	return r;
}

static uint64_t realtime_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

int kvm_clock_read(const struct kvm *kvm, struct kvm_clock *clock, struct error *err)
{
	struct kvm_clock_data data;
	int r = kvm_get_clock(kvm, &data, err);

	if (r < 0)
		return r;
	clock->clock = data.clock;
	/* KVM has a pair of one instant where its clock is the TSC. */
	clock->realtime = data.flags & KVM_CLOCK_REALTIME ? data.realtime : realtime_now();
	return 0;
}

int kvm_clock_continue(const struct kvm *kvm, const struct kvm_clock *clock, struct error *err)
{
	const struct kvm_clock_data data = { .clock = clock->clock };
	int r = kvm_set_clock(kvm, &data, err);

	return r < 0 ? r : 0;
}

int kvm_clock_advance(const struct kvm *kvm, const struct kvm_clock *clock, uint64_t *elapsed,
		      struct error *err)
{
	struct kvm_clock_data data = { .clock = clock->clock, .realtime = clock->realtime };
	uint64_t now = realtime_now();
	int r;

	/* Since Linux 5.16 KVM does this itself, at one instant. */
	if ((unsigned int)kvm_check(kvm, KVM_CAP_ADJUST_CLOCK) & KVM_CLOCK_REALTIME)
		data.flags = KVM_CLOCK_REALTIME;
	else if (now > clock->realtime)
		data.clock += now - clock->realtime;
	r = kvm_set_clock(kvm, &data, err);
	if (r >= 0)
		r = kvm_get_clock(kvm, &data, err);
	if (r < 0)
		return r;
	*elapsed = data.clock > clock->clock ? data.clock - clock->clock : 0;
	return 0;
}

void kvm_clock_save(const struct kvm_clock *clock, struct state_writer *writer)
{
	state_begin(writer, "clock", "clock", CLOCK_VERSION);
	state_put_u64(writer, "clock", clock->clock);
	state_put_u64(writer, "realtime", clock->realtime);
	state_end(writer);
}

int kvm_clock_load(struct kvm_clock *clock, const struct state_node *node, struct error *err)
{
	int r = state_expect(node, "clock", CLOCK_VERSION, NULL, NULL, err);

	if (!r)
		r = state_get_u64(node, "clock", &clock->clock, err);
	if (!r)
		r = state_get_u64(node, "realtime", &clock->realtime, err);
	return r;
}
