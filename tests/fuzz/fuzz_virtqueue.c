/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtqueues over hostile memory, split and packed.
 *
 * Input: 16 bytes of set-up (below), up to 256 bytes of steps, then what lies in RAM
 * from 0 on. A step is one byte: what the device does next, or, with two bytes more,
 * what the driver writes into RAM meanwhile. Every range a chain offers must be guest
 * RAM, and every promise of virtqueue.h about counts and lengths must hold.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "devices/virtio/virtqueue.h"

#define RAM 0x10000 /* then a second region, then a hole, then a third */
#define HELD 8
#define STEPS 256
#define IOVS 40

struct set_up {
	uint8_t flags; /* 1 packed, 2 event_idx, 4 indirect */
	uint8_t size;
	uint16_t desc, driver, device; /* in units of 2, up to the second region */
	uint16_t steps;
	uint8_t reserved[6];
};

struct held {
	struct virtqueue_chain chain;
	struct iovec iov[IOVS];
	uint64_t gpa[IOVS];
	bool used;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
	if (!condition)
		abort();
}

static struct guest_memory *make_memory(void)
{
	struct guest_memory_options options = { .size = RAM,
						.low_end = 3 * GIB,
						.high_start = 4 * GIB };
	struct guest_memory *memory = guest_memory_new(&options, NULL);
	const uint64_t more[][2] = { { RAM, 0x4000 }, { 0x20000, 0x1000 } };

	require(memory != NULL);
	for (unsigned int i = 0; i < ARRAY_SIZE(more); i++) {
		int fd = memfd_create("more", MFD_CLOEXEC | MFD_ALLOW_SEALING);

		require(fd >= 0 && !ftruncate(fd, (off_t)more[i][1]));
		require(!guest_memory_add(memory, more[i][0], more[i][1], fd, 0, NULL));
	}
	return memory;
}

/* The gpa of a host range, which must be RAM of one region. */
static uint64_t gpa_of(const struct guest_memory *memory, const struct iovec *iov)
{
	const uint8_t *p = iov->iov_base;

	for (unsigned int i = 0; i < guest_memory_region_count(memory); i++) {
		const struct guest_memory_region *r = guest_memory_region(memory, i);

		if (p >= r->hva && p < r->hva + r->size) {
			require(iov->iov_len <= r->size - (uint64_t)(p - r->hva));
			return r->gpa + (uint64_t)(p - r->hva);
		}
	}
	abort();
}

static void check_chain(const struct virtqueue *vq, const struct virtqueue_chain *chain)
{
	uint64_t readable = 0, writable = 0;

	require(chain->head < vq->size);
	require(chain->readable + chain->writable <= chain->iov_max);
	require(chain->count >= 1 && chain->count <= vq->size);
	for (unsigned int i = 0; i < chain->readable + chain->writable; i++) {
		require(chain->iov[i].iov_len > 0);
		require(gpa_of(vq->memory, &chain->iov[i]) == chain->gpa[i]);
		if (i < chain->readable)
			readable += chain->iov[i].iov_len;
		else
			writable += chain->iov[i].iov_len;
	}
	require(readable == chain->readable_len && writable == chain->writable_len);
	require(readable + writable <= 4 * GIB);
}

static void pop(struct virtqueue *vq, struct held *held)
{
	bool was_broken = vq->broken;
	int r;

	held->chain =
		(struct virtqueue_chain){ .iov = held->iov, .gpa = held->gpa, .iov_max = IOVS };
	r = virtqueue_pop(vq, &held->chain);
	if (r == -EBADMSG) {
		require(!was_broken && vq->broken && vq->fault);
		return;
	}
	require(r == 0 || r == 1);
	require(!(was_broken && r));
	if (r) {
		check_chain(vq, &held->chain);
		held->used = true;
	}
	require(vq->in_flight <= vq->size);
}

static void give_back(struct virtqueue *vq, struct held *held, bool unpop)
{
	uint8_t buf[64] = { 0 };

	if (!held->used)
		return;
	held->used = false;
	if (unpop) {
		virtqueue_unpop(vq, &held->chain);
		return;
	}
	virtqueue_chain_read(&held->chain, 3, buf, sizeof(buf));
	virtqueue_chain_write(&held->chain, 5, buf, sizeof(buf));
	virtqueue_push(vq, &held->chain, (uint32_t)held->chain.writable_len);
}

static void run(struct virtqueue *vq, const uint8_t *steps, size_t count)
{
	static struct held held[HELD];
	struct held *last = NULL;

	memset(held, 0, sizeof(held));
	for (size_t i = 0; i < count; i++) {
		struct held *h = &held[steps[i] >> 4 & (HELD - 1)];

		switch (steps[i] & 7) {
		case 0:
		case 1:
			if (!h->used) {
				pop(vq, h);
				last = h;
			}
			break;
		case 2:
			give_back(vq, h, false);
			last = NULL;
			break;
		case 3: /* only the one popped last */
			if (last)
				give_back(vq, last, true);
			last = NULL;
			break;
		case 4: virtqueue_should_signal(vq); break;
		case 5: virtqueue_set_notifications(vq, steps[i] & 8); break;
		case 6: virtqueue_empty(vq); break;
		default:
			if (i + 2 >= count)
				return;
			guest_memory_write(vq->memory,
					   (uint64_t)(steps[i] >> 3) << 8 | steps[i + 1],
					   &steps[i + 2], 1);
			i += 2;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct guest_memory *memory; /* kept: mapping it costs more than a run */
	struct virtqueue vq = { .size_max = 32 };
	struct set_up set_up;
	size_t steps;

	if (size < sizeof(set_up))
		return -1;
	memcpy(&set_up, data, sizeof(set_up));
	data += sizeof(set_up);
	size -= sizeof(set_up);
	steps = MIN(MIN((size_t)set_up.steps, size), (size_t)STEPS);
	if (!memory)
		memory = make_memory();
	for (unsigned int i = 0; i < guest_memory_region_count(memory); i++)
		guest_memory_zero(memory, guest_memory_region(memory, i)->gpa,
				  guest_memory_region(memory, i)->size);
	guest_memory_write(memory, 0, data + steps, MIN(size - steps, (size_t)RAM));
	vq.memory = memory;
	vq.packed = set_up.flags & 1;
	vq.event_idx = set_up.flags & 2;
	vq.indirect = set_up.flags & 4;
	vq.size = set_up.size;
	vq.desc = 2ULL * set_up.desc;
	vq.driver = 2ULL * set_up.driver;
	vq.device = 2ULL * set_up.device;
	if (virtqueue_start(&vq, NULL))
		require(!vq.ready);
	run(&vq, data, steps);
	return 0;
}
