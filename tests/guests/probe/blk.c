/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio-blk driver (virtio 1.2, modern PCI, one split queue), polled. Requests go
 * through one buffer; `bench` keeps several in flight.
 */
#include "probe.h"

#define VENDOR 0x1af4
#define DEVICE_BLK 0x1042
#define DEVICE_BLK_TRANSITIONAL 0x1001

/* Layout of struct virtio_pci_common_cfg. */
#define DEVICE_FEATURE_SELECT 0
#define DEVICE_FEATURE 4
#define DRIVER_FEATURE_SELECT 8
#define DRIVER_FEATURE 12
#define DEVICE_STATUS 20
#define QUEUE_SELECT 22
#define QUEUE_SIZE 24
#define QUEUE_ENABLE 28
#define QUEUE_NOTIFY_OFF 30
#define QUEUE_DESC 32
#define QUEUE_DRIVER 40
#define QUEUE_DEVICE 48

#define STATUS_ACKNOWLEDGE 1
#define STATUS_DRIVER 2
#define STATUS_DRIVER_OK 4
#define STATUS_FEATURES_OK 8
#define FEATURE_FLUSH (1U << 9)
#define FEATURE_VERSION_1 (1U << 0) /* of the upper 32 bits */

#define CAP_COMMON 1
#define CAP_NOTIFY 2
#define CAP_DEVICE 4

#define REQUEST_IN 0
#define REQUEST_OUT 1
#define REQUEST_FLUSH 4

#define SECTOR 512U
#define QUEUE 128U /* descriptors, if the device has as many */
#define DEPTH_MAX (QUEUE / 4)
#define BUFFER (128U << 10)
#define TIMEOUT_US 30000000UL

enum { DESC_NEXT = 1, DESC_WRITE = 2 };

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct request {
	uint32_t type, reserved;
	uint64_t sector;
	uint8_t status;
} __attribute__((aligned(32)));

/* All at PROBE_BUFFERS; data buffers follow. */
struct rings {
	struct desc desc[QUEUE];
	struct {
		uint16_t flags, idx, ring[QUEUE], used_event;
	} avail;
	struct {
		uint16_t flags, idx;
		struct {
			uint32_t id, len;
		} ring[QUEUE];
		uint16_t avail_event;
	} used __attribute__((aligned(64)));
	struct request requests[DEPTH_MAX];
};

static volatile struct rings *const rings = (volatile struct rings *)PROBE_BUFFERS;
#define DATA (PROBE_BUFFERS + 0x10000UL)
_Static_assert(sizeof(struct rings) <= 0x10000, "data follows");
_Static_assert(DATA + BUFFER <= PROBE_END, "the buffers' area");

static struct {
	uint64_t common, notify, config;
	uint32_t notify_multiplier;
	uint64_t notify_at, capacity;
	uint16_t queue_size, used_idx;
	unsigned int index;
	bool ready, flush;
} blk;

static bool find_caps(const struct pci_device *d)
{
	uint8_t at = (uint8_t)mmio_read(d->config + 0x34, 1);

	blk.common = blk.notify = blk.config = 0;
	for (unsigned int i = 0; at && i < 48; i++) {
		uint64_t cap = d->config + at;
		uint8_t type = (uint8_t)mmio_read(cap + 3, 1);

		at = (uint8_t)mmio_read(cap + 1, 1);
		if ((uint8_t)mmio_read(cap, 1) != 9 || type < CAP_COMMON || type > CAP_DEVICE)
			continue;
		uint64_t bar = pci_bar(d, (unsigned int)mmio_read(cap + 4, 1));
		uint64_t where = bar + mmio_read(cap + 8, 4);

		if (!bar)
			continue;
		if (type == CAP_COMMON)
			blk.common = where;
		else if (type == CAP_DEVICE)
			blk.config = where;
		else if (type == CAP_NOTIFY) {
			blk.notify = where;
			blk.notify_multiplier = (uint32_t)mmio_read(cap + 16, 4);
		}
	}
	return blk.common && blk.notify && blk.config;
}

static void set_status(uint8_t status)
{
	mmio_write(blk.common + DEVICE_STATUS, 1, status);
}

static bool negotiate(void)
{
	uint32_t features;

	set_status(0);
	while (mmio_read(blk.common + DEVICE_STATUS, 1))
		cpu_relax();
	set_status(STATUS_ACKNOWLEDGE | STATUS_DRIVER);
	mmio_write(blk.common + DEVICE_FEATURE_SELECT, 4, 0);
	features = (uint32_t)mmio_read(blk.common + DEVICE_FEATURE, 4) & FEATURE_FLUSH;
	blk.flush = features;
	mmio_write(blk.common + DRIVER_FEATURE_SELECT, 4, 0);
	mmio_write(blk.common + DRIVER_FEATURE, 4, features);
	mmio_write(blk.common + DRIVER_FEATURE_SELECT, 4, 1);
	mmio_write(blk.common + DRIVER_FEATURE, 4, FEATURE_VERSION_1);
	set_status(STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
	return mmio_read(blk.common + DEVICE_STATUS, 1) & STATUS_FEATURES_OK;
}

static void put64(unsigned int reg, uint64_t value)
{
	mmio_write(blk.common + reg, 4, (uint32_t)value);
	mmio_write(blk.common + reg + 4, 4, value >> 32);
}

static bool set_up_queue(void)
{
	__builtin_memset((void *)PROBE_BUFFERS, 0, sizeof(struct rings));
	blk.used_idx = 0;
	mmio_write(blk.common + QUEUE_SELECT, 2, 0);
	blk.queue_size = (uint16_t)mmio_read(blk.common + QUEUE_SIZE, 2);
	if (blk.queue_size > QUEUE)
		blk.queue_size = QUEUE;
	if (blk.queue_size < 4)
		return false;
	mmio_write(blk.common + QUEUE_SIZE, 2, blk.queue_size);
	put64(QUEUE_DESC, (uint64_t)rings->desc);
	put64(QUEUE_DRIVER, (uint64_t)&rings->avail);
	put64(QUEUE_DEVICE, (uint64_t)&rings->used);
	blk.notify_at =
		blk.notify + mmio_read(blk.common + QUEUE_NOTIFY_OFF, 2) * blk.notify_multiplier;
	mmio_write(blk.common + QUEUE_ENABLE, 2, 1);
	rings->avail.flags = 1; /* no interrupts */
	return true;
}

static bool blk_init(unsigned int index)
{
	struct pci_device d;

	if (blk.ready && blk.index == index)
		return true;
	blk.ready = false;
	if (!pci_find(VENDOR, DEVICE_BLK, DEVICE_BLK_TRANSITIONAL, index, &d))
		print("error no virtio-blk device %u\n", index);
	else if (!find_caps(&d))
		print("error virtio capabilities missing, or BARs without address\n");
	else if (!negotiate())
		print("error features refused\n");
	else if (!set_up_queue())
		print("error no queue\n");
	else
		blk.ready = true;
	if (blk.ready) {
		set_status(STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK |
			   STATUS_DRIVER_OK);
		blk.capacity = mmio_read(blk.config, 4) | mmio_read(blk.config + 4, 4) << 32;
		blk.index = index;
	}
	return blk.ready;
}

/* Puts request `slot` (three descriptors of its own) into the ring, without a kick. */
static void submit(unsigned int slot, uint32_t type, uint64_t sector, uint64_t data, uint32_t len)
{
	volatile struct desc *d = &rings->desc[3 * slot];
	volatile struct request *r = &rings->requests[slot];
	uint16_t data_flags = DESC_NEXT | (type == REQUEST_IN ? DESC_WRITE : 0);
	uint16_t status = (uint16_t)(3 * slot + (len ? 2 : 1));

	r->type = type;
	r->reserved = 0;
	r->sector = sector;
	r->status = 0xff;
	d[0].addr = (uint64_t)r;
	d[0].len = 16;
	d[0].flags = DESC_NEXT;
	d[0].next = (uint16_t)(3 * slot + 1);
	if (len) {
		d[1].addr = data;
		d[1].len = len;
		d[1].flags = data_flags;
		d[1].next = status;
	}
	rings->desc[status].addr = (uint64_t)&r->status;
	rings->desc[status].len = 1;
	rings->desc[status].flags = DESC_WRITE;
	rings->avail.ring[rings->avail.idx % blk.queue_size] = (uint16_t)(3 * slot);
	__asm__ volatile("" ::: "memory");
	rings->avail.idx++;
}

static void kick(void)
{
	__sync_synchronize();
	if (!(rings->used.flags & 1))
		mmio_write(blk.notify_at, 2, 0);
}

/* The next completed slot, or -1 after a long time. */
static int reap(void)
{
	uint64_t end = rdtsc() + TIMEOUT_US / 1000 * platform.tsc_khz;
	int slot;

	while (rings->used.idx == blk.used_idx) {
		if (rdtsc() > end)
			return -1;
		cpu_relax();
	}
	slot = (int)rings->used.ring[blk.used_idx % blk.queue_size].id / 3;
	blk.used_idx++;
	return slot;
}

static bool transfer(uint32_t type, uint64_t sector, uint32_t len)
{
	submit(0, type, sector, DATA, len);
	kick();
	if (reap() < 0) {
		print("error request timed out\n");
		blk.ready = false;
		return false;
	}
	if (rings->requests[0].status) {
		print("error status=%u sector=%lu\n", rings->requests[0].status, sector);
		return false;
	}
	return true;
}

static void fill_sectors(uint64_t sector, uint32_t count, uint64_t seed)
{
	uint64_t *to = (uint64_t *)DATA;

	for (uint32_t s = 0; s < count; s++)
		for (unsigned int k = 0; k < SECTOR / 8; k++)
			*to++ = pattern(seed, sector + s, 0, k);
}

static bool check_sectors(uint64_t sector, uint32_t count, uint64_t seed)
{
	const uint64_t *from = (const uint64_t *)DATA;

	for (uint32_t s = 0; s < count; s++) {
		for (unsigned int k = 0; k < SECTOR / 8; k++) {
			if (*from++ == pattern(seed, sector + s, 0, k))
				continue;
			print("blk check bad sector=%lu\n", sector + s);
			return false;
		}
	}
	return true;
}

/* read, write, check: <sector> <n> [<seed>] */
static void run(const char *what, char *args)
{
	bool is_write = equal(what, "write"), is_check = equal(what, "check");
	uint64_t sector, count, seed = 0, hash = FNV_INIT;

	if (!next_number(&args, &sector) || !next_number(&args, &count) ||
	    ((is_write || is_check) && !next_number(&args, &seed))) {
		print("error <sector> <n> [<seed>] wanted\n");
		return;
	}
	while (count) {
		uint32_t n = count < BUFFER / SECTOR ? (uint32_t)count : BUFFER / SECTOR;

		if (is_write)
			fill_sectors(sector, n, seed);
		if (!transfer(is_write ? REQUEST_OUT : REQUEST_IN, sector, n * SECTOR))
			return;
		if (is_check && !check_sectors(sector, n, seed))
			return;
		hash = fnv(hash, (const void *)DATA, n * SECTOR);
		sector += n;
		count -= n;
	}
	print("blk %s ok sum=%lx\n", what, hash);
}

/* rand | seq <ms> <depth>: 4 KiB random or 64 KiB sequential reads. */
static void bench(char *args)
{
	bool is_rand = equal(next_word(&args), "rand");
	uint32_t len = is_rand ? 4096 : 65536;
	uint64_t ms, depth, done = 0, next = 0, blocks = blk.capacity / (len / SECTOR);
	uint64_t start, end, inflight = 0;

	if (!next_number(&args, &ms) || !next_number(&args, &depth) || !depth || !blocks) {
		print("error rand|seq <ms> <depth> wanted\n");
		return;
	}
	if (depth > blk.queue_size / 4U)
		depth = blk.queue_size / 4U;
	if (!is_rand && depth > 16)
		depth = 16;
	start = rdtsc();
	end = start + ms * platform.tsc_khz;
	for (unsigned int slot = 0; inflight < depth || inflight;) {
		if (inflight == depth || rdtsc() >= end) {
			int completed = reap();

			if (completed < 0 || rings->requests[completed].status) {
				print("error request failed\n");
				blk.ready = false;
				return;
			}
			slot = (unsigned int)completed;
			inflight--;
			done++;
		} else if (!done) {
			slot = (unsigned int)inflight;
		}
		if (rdtsc() >= end) {
			if (!inflight)
				break;
			continue;
		}
		next = is_rand ? pattern(1, done + inflight, 0, 0) : next + 1;
		submit(slot, REQUEST_IN, next % blocks * (len / SECTOR), DATA + slot * len, len);
		inflight++;
		kick();
	}
	end = rdtsc();
	ms = (end - start) / platform.tsc_khz;
	print("blk bench ok requests=%lu bytes=%lu ms=%lu\n", done, done * len, ms);
}

void command_blk(char *args)
{
	const char *what = next_word(&args);
	uint64_t index = blk.ready ? blk.index : 0;

	if (equal(what, "use")) {
		if (!next_number(&args, &index)) {
			print("error <index> wanted\n");
			return;
		}
		blk.ready = false;
	}
	if (!blk_init((unsigned int)index))
		return;
	if (equal(what, "use") || equal(what, "info"))
		print("blk %s ok sectors=%lu queue=%u\n", what, blk.capacity, blk.queue_size);
	else if (equal(what, "read") || equal(what, "sum") || equal(what, "write") ||
		 equal(what, "check"))
		run(what, args);
	else if (equal(what, "flush")) {
		if (transfer(REQUEST_FLUSH, 0, 0))
			print("blk flush ok\n");
	} else if (equal(what, "bench"))
		bench(args);
	else
		print("error blk use|info|read|sum|write|check|flush|bench\n");
}
