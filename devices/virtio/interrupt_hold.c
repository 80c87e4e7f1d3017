/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/virtio/interrupt_hold.h"

#include "base/bytes.h"

/* Requests further apart are no stream. */
#define GAP_NS_MAX 1000000U
/* Times before more are tried: where that is in vain it costs a moment each time. */
#define TRY_MORE 8U
#define TRY_AT_ALL 64U
#define VAIN_MAX 4U /* each doubles that */

void interrupt_hold_arrived(struct interrupt_hold *hold, unsigned int count, uint64_t now_ns)
{
	uint64_t gap = (now_ns - hold->arrived_ns) / MAX(count, 1U);

	if (gap <= GAP_NS_MAX)
		hold->gap_ns = (7 * hold->gap_ns + gap) / 8;
	hold->arrived_ns = now_ns;
}

bool interrupt_hold_full(const struct interrupt_hold *hold, unsigned int completions)
{
	return completions >= MAX(hold->limit, 1U);
}

uint64_t interrupt_hold_ns(const struct interrupt_hold *hold)
{
	return MIN(MAX(2 * hold->gap_ns, (uint64_t)INTERRUPT_HOLD_NS_MIN),
		   (uint64_t)INTERRUPT_HOLD_NS_MAX);
}

uint64_t interrupt_hold_left(const struct interrupt_hold *hold, uint64_t now_ns)
{
	uint64_t gone = now_ns - hold->arrived_ns, whole = interrupt_hold_ns(hold);

	return gone < whole ? whole - gone : 0;
}

void interrupt_hold_told(struct interrupt_hold *hold)
{
	hold->limit = MAX(hold->limit, 1U);
	hold->missed = false;
	if (++hold->streak < (hold->limit > 1 ? TRY_MORE : TRY_AT_ALL << hold->vain))
		return;
	if (hold->limit > 1)
		hold->vain = 0;
	hold->streak = 0;
	hold->limit = MIN(2 * hold->limit, INTERRUPT_HOLD_MAX);
}

void interrupt_hold_over(struct interrupt_hold *hold, unsigned int completions)
{
	hold->streak = 0;
	if (hold->limit > 2 && !hold->missed) {
		hold->missed = true;
		return;
	}
	hold->missed = false;
	if (completions <= 1)
		hold->vain = MIN(hold->vain + 1, VAIN_MAX);
	hold->limit = MIN(MAX(completions, 1U), INTERRUPT_HOLD_MAX);
}
