/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/helpers/fake_driver.h"

#include <linux/virtio_ring.h>
#include <string.h>

#define WRAP 0x8000

static void *at(const struct fake_driver *driver, uint64_t gpa, uint64_t len)
{
	const struct guest_memory_region *ram = driver->ram;

	if (gpa < ram->gpa || gpa - ram->gpa > ram->size || len > ram->size - (gpa - ram->gpa))
		ck_abort_msg("fake driver: 0x%llx is not in the first region of RAM",
			     (unsigned long long)gpa);
	return ram->hva + (gpa - ram->gpa);
}

static uint16_t load16(const struct fake_driver *driver, uint64_t gpa)
{
	return le16toh(__atomic_load_n((uint16_t *)at(driver, gpa, 2), __ATOMIC_ACQUIRE));
}

static void store16(const struct fake_driver *driver, uint64_t gpa, uint16_t v)
{
	__atomic_store_n((uint16_t *)at(driver, gpa, 2), htole16(v), __ATOMIC_RELEASE);
}

static void store32(const struct fake_driver *driver, uint64_t gpa, uint32_t v)
{
	__atomic_store_n((uint32_t *)at(driver, gpa, 4), htole32(v), __ATOMIC_RELEASE);
}

static uint16_t forward(const struct fake_driver *driver, uint16_t position, unsigned int n)
{
	unsigned int index = (position & ~WRAP) + n, wrap = position & WRAP;

	if (index >= driver->size) {
		index -= driver->size;
		wrap ^= WRAP;
	}
	return (uint16_t)(index | wrap);
}

uint64_t fake_driver_layout(struct fake_driver *driver, struct guest_memory *memory,
			    const struct guest_memory_region *ram, uint64_t gpa, uint16_t size,
			    bool packed)
{
	uint64_t end;

	memset(driver, 0, sizeof(*driver));
	driver->memory = memory;
	driver->ram = ram;
	driver->size = size;
	driver->packed = packed;
	driver->event_idx = driver->indirect = true;
	driver->desc = align_up(gpa, 4096);
	driver->driver = driver->desc + 16 * (uint64_t)size;
	driver->device = align_up(driver->driver + 6 + 2 * (uint64_t)size, 4096);
	end = align_up(driver->device + 6 + 8 * (uint64_t)size, 4096);
	memset(at(driver, driver->desc, end - driver->desc), 0, end - driver->desc);
	if (packed)
		driver->avail = driver->used = driver->kicked = WRAP;
	return end;
}

void fake_driver_configure(const struct fake_driver *driver, struct virtqueue *vq)
{
	vq->memory = driver->memory;
	if (!vq->size_max)
		vq->size_max = VIRTQUEUE_SIZE_MAX;
	vq->size = driver->size;
	vq->desc = driver->desc;
	vq->driver = driver->driver;
	vq->device = driver->device;
	vq->packed = driver->packed;
	vq->event_idx = driver->event_idx;
	vq->indirect = driver->indirect;
}

static void write_descriptor(struct fake_driver *driver, uint64_t gpa, uint64_t addr, uint32_t len,
			     uint16_t a, uint16_t b)
{
	uint8_t *p = at(driver, gpa, 16);

	store_le64(p, addr);
	store_le32(p + 8, len);
	store_le16(p + 12, a);
	__atomic_store_n((uint16_t *)(p + 14), htole16(b), __ATOMIC_RELEASE);
}

void fake_driver_set_descriptor(struct fake_driver *driver, uint16_t index, uint64_t addr,
				uint32_t len, uint16_t flags, uint16_t next)
{
	write_descriptor(driver, driver->desc + 16 * (uint64_t)index, addr, len,
			 driver->packed ? next : flags, driver->packed ? flags : next);
}

void fake_driver_set_avail(struct fake_driver *driver, uint16_t index)
{
	driver->avail = index;
	store16(driver, driver->driver + 2, index);
}

void fake_driver_publish(struct fake_driver *driver, uint16_t head)
{
	store16(driver, driver->driver + 4 + 2 * (uint64_t)(driver->avail % driver->size), head);
	fake_driver_set_avail(driver, driver->avail + 1);
}

uint16_t fake_driver_packed_flags(uint16_t position)
{
	return position & WRAP ? 1 << VRING_PACKED_DESC_F_AVAIL : 1 << VRING_PACKED_DESC_F_USED;
}

static uint16_t buffer_flags(const struct fake_buffer *buffer, bool more)
{
	return (buffer->writable ? VRING_DESC_F_WRITE : 0) | (more ? VRING_DESC_F_NEXT : 0);
}

/* The head is made available last. */
static uint16_t add_packed(struct fake_driver *driver, const struct fake_buffer *buffers,
			   unsigned int n, uint16_t extra)
{
	uint16_t id = driver->next++ % driver->size;

	driver->next %= driver->size;
	driver->counts[id] = (uint16_t)n;
	for (unsigned int i = n; i-- > 0;) {
		uint16_t position = forward(driver, driver->avail, i);

		fake_driver_set_descriptor(driver, position & ~WRAP, buffers[i].gpa, buffers[i].len,
					   buffer_flags(&buffers[i], i + 1 < n) | extra |
						   fake_driver_packed_flags(position),
					   id);
	}
	driver->avail = forward(driver, driver->avail, n);
	return id;
}

static uint16_t add_split(struct fake_driver *driver, const struct fake_buffer *buffers,
			  unsigned int n, uint16_t extra)
{
	uint16_t head = driver->next;

	for (unsigned int i = 0; i < n; i++) {
		uint16_t next = (driver->next + 1) % driver->size;

		fake_driver_set_descriptor(driver, driver->next, buffers[i].gpa, buffers[i].len,
					   buffer_flags(&buffers[i], i + 1 < n) | extra, next);
		driver->next = next;
	}
	fake_driver_publish(driver, head);
	return head;
}

static uint16_t add(struct fake_driver *driver, const struct fake_buffer *buffers, unsigned int n,
		    uint16_t extra)
{
	if (!n || n > driver->size)
		ck_abort_msg("fake driver: chain of %u in a ring of %u", n, driver->size);
	return driver->packed ? add_packed(driver, buffers, n, extra)
			      : add_split(driver, buffers, n, extra);
}

uint16_t fake_driver_add(struct fake_driver *driver, const struct fake_buffer *buffers,
			 unsigned int n)
{
	return add(driver, buffers, n, 0);
}

uint16_t fake_driver_add_indirect(struct fake_driver *driver, uint64_t table_gpa,
				  const struct fake_buffer *buffers, unsigned int n)
{
	struct fake_buffer table = { .gpa = table_gpa, .len = n * 16 };

	for (unsigned int i = 0; i < n; i++) {
		/* The packed form has no chaining within the table. */
		uint16_t flags = buffer_flags(&buffers[i], !driver->packed && i + 1 < n);
		uint16_t next = (uint16_t)(driver->packed ? 0 : i + 1);

		write_descriptor(driver, table_gpa + 16 * (uint64_t)i, buffers[i].gpa,
				 buffers[i].len, driver->packed ? next : flags,
				 driver->packed ? flags : next);
	}
	return add(driver, &table, 1, VRING_DESC_F_INDIRECT);
}

static bool used_packed(struct fake_driver *driver, uint16_t *id, uint32_t *len)
{
	uint64_t gpa = driver->desc + 16 * (uint64_t)(driver->used & ~WRAP);
	uint16_t flags = load16(driver, gpa + 14);
	bool wrap = driver->used & WRAP;

	if (!!(flags & 1 << VRING_PACKED_DESC_F_AVAIL) != wrap ||
	    !!(flags & 1 << VRING_PACKED_DESC_F_USED) != wrap)
		return false;
	*len = load_le32(at(driver, gpa + 8, 4));
	*id = load_le16(at(driver, gpa + 12, 2));
	if (*id >= driver->size)
		ck_abort_msg("fake driver: used id %u of a ring of %u", *id, driver->size);
	driver->used = forward(driver, driver->used, driver->counts[*id]);
	return true;
}

bool fake_driver_used(struct fake_driver *driver, uint16_t *id, uint32_t *len)
{
	uint64_t entry = driver->device + 4 + 8 * (uint64_t)(driver->used % driver->size);

	if (driver->packed)
		return used_packed(driver, id, len);
	if (load16(driver, driver->device + 2) == driver->used)
		return false;
	*id = (uint16_t)load_le32(at(driver, entry, 4));
	*len = load_le32(at(driver, entry + 4, 4));
	driver->used++;
	return true;
}

void fake_driver_set_interrupts(struct fake_driver *driver, bool on)
{
	if (driver->packed)
		store32(driver, driver->driver,
			(on ? VRING_PACKED_EVENT_FLAG_ENABLE : VRING_PACKED_EVENT_FLAG_DISABLE)
				<< 16);
	else
		store16(driver, driver->driver, on ? 0 : VRING_AVAIL_F_NO_INTERRUPT);
}

void fake_driver_set_used_event(struct fake_driver *driver, uint16_t position)
{
	if (driver->packed)
		store32(driver, driver->driver, VRING_PACKED_EVENT_FLAG_DESC << 16 | position);
	else
		store16(driver, driver->driver + 4 + 2 * (uint64_t)driver->size, position);
}

bool fake_driver_wants_kick(struct fake_driver *driver)
{
	uint16_t old = driver->kicked;

	driver->kicked = driver->avail;
	__sync_synchronize();
	/* The device says ENABLE or DISABLE only, never a position. */
	if (driver->packed)
		return load16(driver, driver->device + 2) != VRING_PACKED_EVENT_FLAG_DISABLE;
	if (!driver->event_idx)
		return !(load16(driver, driver->device) & VRING_USED_F_NO_NOTIFY);
	return vring_need_event(load16(driver, driver->device + 4 + 8 * (uint64_t)driver->size),
				driver->avail, old);
}
