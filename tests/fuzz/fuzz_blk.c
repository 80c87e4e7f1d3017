/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk against a hostile driver: chains of any shape with requests of any kind,
 * over system calls, which do the same as io_uring in an order that repeats.
 *
 * Input: one byte of set-up, then operations of 8 bytes (struct op). Afterwards the
 * file must have the size it had, and a read-only one the same contents.
 */
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "devices/virtio/virtio_blk.h"

#define RAM (256 * KIB)
#define QUEUE_SIZE 16
#define DRIVER 0x1000
#define DEVICE 0x2000
#define HEADERS 0x3000 /* 16 of them; anything may be pointed to */
#define DISK (64 * KIB)
#define OPS_MAX 256

struct op {
	uint8_t kind;
	uint8_t index;
	uint16_t a, b, c;
} __attribute__((packed));

enum {
	DESCRIPTOR, /* index; address a * 16; length b; flags and next in c */
	HEADER,	    /* index; type a; sector b, far away where c is odd */
	PUBLISH,    /* head index */
	POKE,	    /* the byte at a * 4 + c becomes index */
	KICK,
	PAUSE,
	KINDS,
};

struct transport {
	struct virtio_device *dev;
	uint8_t *ram;
	uint16_t avail;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
	if (!condition)
		abort();
}

static void signal_queue(void *opaque, unsigned int queue)
{
	require(queue == 0);
}

static void ignore(void *opaque)
{
}

static void needs_reset(void *opaque, const char *reason)
{
	require(reason && *reason);
}

static int no_fd(void *opaque, unsigned int queue)
{
	return -1;
}

static void run_op(struct transport *t, const struct op *op)
{
	static const uint32_t types[] = {
		VIRTIO_BLK_T_IN,
		VIRTIO_BLK_T_OUT,
		VIRTIO_BLK_T_FLUSH,
		VIRTIO_BLK_T_GET_ID,
		VIRTIO_BLK_T_DISCARD,
		VIRTIO_BLK_T_WRITE_ZEROES,
		5,
		UINT32_MAX,
	};
	uint16_t a = le16toh(op->a), b = le16toh(op->b), c = le16toh(op->c);
	uint8_t *p;

	switch (op->kind % KINDS) {
	case DESCRIPTOR:
		p = t->ram + 16 * (op->index % QUEUE_SIZE);
		store_le64(p, (uint64_t)a * 16);
		store_le32(p + 8, b);
		store_le16(p + 12, c & 7);
		store_le16(p + 14, (c >> 3) % (QUEUE_SIZE + 1));
		break;
	case HEADER:
		p = t->ram + HEADERS + 16 * (op->index % 16);
		store_le32(p, types[a % ARRAY_SIZE(types)]);
		store_le64(p + 8, b | (c & 1 ? (uint64_t)c << 48 : 0));
		break;
	case PUBLISH:
		p = t->ram + DRIVER;
		store_le16(p + 4 + 2 * (t->avail % QUEUE_SIZE), op->index % (QUEUE_SIZE + 1));
		__atomic_store_n((uint16_t *)(p + 2), htole16(++t->avail), __ATOMIC_RELEASE);
		break;
	case POKE: t->ram[((uint32_t)a * 4 + c) % RAM] = op->index; break;
	case KICK: eventfd_signal(t->dev->kick_fd[0]); break;
	default: t->dev->ops->pause(t->dev); t->dev->ops->resume(t->dev);
	}
}

static void start(struct transport *t, struct guest_memory *memory, uint8_t flags)
{
	struct virtqueue *vq = &t->dev->queues[0];
	struct error err = ERROR_INIT;

	t->dev->features = t->dev->device_features | VIRTIO_FEATURE(VIRTIO_F_VERSION_1);
	vq->memory = memory;
	vq->size = QUEUE_SIZE;
	vq->desc = 0;
	vq->driver = DRIVER;
	vq->device = DEVICE;
	vq->packed = flags & 1;
	vq->event_idx = flags & 2;
	vq->indirect = true;
	t->dev->kick_fd[0] = eventfd_new();
	require(!virtqueue_start(vq, &err));
	require(!t->dev->ops->activate(t->dev, &err));
	t->dev->active = true;
}

static int make_disk(char *path, size_t len)
{
	static uint8_t contents[DISK];
	int fd = memfd_create("disk", MFD_CLOEXEC);

	require(fd >= 0);
	memset(contents, 0x5a, sizeof(contents));
	require(!fd_write_full(fd, contents, sizeof(contents)));
	snprintf(path, len, "/proc/self/fd/%d", fd);
	return fd;
}

static void check_disk(int fd, bool readonly)
{
	static uint8_t contents[DISK];
	struct stat st;

	require(!fstat(fd, &st) && st.st_size == DISK);
	if (!readonly)
		return;
	require(!fd_pread_full(fd, contents, sizeof(contents), 0));
	for (size_t i = 0; i < sizeof(contents); i++)
		require(contents[i] == 0x5a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct virtio_transport_ops ops = {
		.signal = signal_queue,
		.config_changed = ignore,
		.needs_reset = needs_reset,
		.call_fd = no_fd,
	};
	struct guest_memory_options ram = { .size = RAM,
					    .low_end = 3 * GIB,
					    .high_start = 4 * GIB };
	struct device_host host = { .memory = guest_memory_new(&ram, NULL) };
	char path[64];
	int fd = make_disk(path, sizeof(path));
	uint8_t flags = size ? *data : 0;
	struct virtio_blk_options options = {
		.path = path,
		.queues = 1,
		.queue_size = QUEUE_SIZE,
		.disable_io_uring = true,
		.readonly = flags & 4,
		.discard = true,
		.serial = "fuzz",
	};
	struct transport t = { .dev = NULL };

	require(host.memory != NULL);
	t.dev = virtio_blk_new(&host, "disk", &options, NULL);
	t.ram = guest_memory_ptr(host.memory, 0, RAM);
	require(t.dev && t.ram);
	t.dev->transport_ops = &ops;
	start(&t, host.memory, flags);
	for (size_t at = 1, n = 0; at + sizeof(struct op) <= size && n < OPS_MAX;
	     at += sizeof(struct op), n++) {
		struct op op;

		memcpy(&op, data + at, sizeof(op));
		run_op(&t, &op);
	}
	/* What was published is served before the pause. */
	eventfd_signal(t.dev->kick_fd[0]);
	t.dev->ops->pause(t.dev);
	t.dev->ops->deactivate(t.dev);
	close(t.dev->kick_fd[0]);
	t.dev->ops->free(t.dev);
	check_disk(fd, options.readonly);
	close(fd);
	guest_memory_free(host.memory);
	return 0;
}
