/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vfio-user client and a server that says anything. What the server will ever say is
 * in the socket before the client opens it, and the end of file behind it, so nothing
 * waits: ids count up from 1, so answers can be right.
 *
 * The input is a list of steps: a good reply to the command the client sends at that
 * point, with some of its bytes changed; a command of the server; a message of raw bytes;
 * raw bytes. Descriptors come along where a step says so.
 */
#include <errno.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "vfio/user_private.h"

#define RAM (64 * KIB)
/* A socket's buffer takes this, with what the kernel counts for a message; the client's
 * commands are left in the other one. */
#define STREAM_MAX (128 * 1024)
#define MESSAGE_COST 1536

struct input {
	const uint8_t *p;
	size_t left;
};

static struct {
	struct guest_memory *memory;
	int memfd, eventfd;
} f;

static uint32_t take(struct input *in, unsigned int bytes)
{
	uint32_t v = 0;

	for (unsigned int i = 0; i < bytes && in->left; i++, in->left--)
		v |= (uint32_t)*in->p++ << 8 * i;
	return v;
}

static void init(void)
{
	struct guest_memory_options options = {
		.size = RAM,
		.low_end = RAM / 2,
		.high_start = 4 * GIB,
	};
	struct error err = ERROR_INIT;

	f.memory = guest_memory_new(&options, &err);
	f.memfd = memfd_create("fuzz", MFD_CLOEXEC);
	f.eventfd = eventfd_new();
	if (!f.memory || ftruncate(f.memfd, 0x4000))
		abort();
}

/* Good replies, in the order of the commands of open() and exercise(). */
static const struct {
	uint16_t command;
	uint8_t index; /* of the region or interrupt asked about */
	uint16_t len;
} script[] = {
	{ VFIO_USER_VERSION, 0, 4 },
	{ VFIO_USER_DEVICE_GET_INFO, 0, 16 },
	{ VFIO_USER_DMA_MAP, 0, 0 },
	{ VFIO_USER_DMA_MAP, 0, 0 },
	{ VFIO_USER_DEVICE_GET_REGION_INFO, 0, 96 },
	{ VFIO_USER_DEVICE_GET_REGION_IO_FDS, 0, 96 },
	{ VFIO_USER_DEVICE_GET_REGION_INFO, 1, 32 },
	{ VFIO_USER_DEVICE_GET_REGION_IO_FDS, 1, 16 },
	{ VFIO_USER_DEVICE_GET_IRQ_INFO, 0, 16 },
	{ VFIO_USER_DEVICE_GET_IRQ_INFO, 1, 16 },
	{ VFIO_USER_DEVICE_GET_IRQ_INFO, 2, 16 },
	{ VFIO_USER_DEVICE_SET_IRQS, 0, 0 },
	{ VFIO_USER_REGION_READ, 0, 24 },
	{ VFIO_USER_REGION_WRITE, 0, 16 },
	{ VFIO_USER_DEVICE_FEATURE, 0, 16 },
	{ VFIO_USER_DEVICE_FEATURE, 0, 40 },
	{ VFIO_USER_MIG_DATA_READ, 0, 16 },
	{ VFIO_USER_MIG_DATA_WRITE, 0, 8 },
	{ VFIO_USER_DIRTY_PAGES, 0, 8 },
	{ VFIO_USER_DIRTY_PAGES, 0, 48 },
	{ VFIO_USER_DMA_UNMAP, 0, 48 },
	{ VFIO_USER_DEVICE_RESET, 0, 0 },
};

static void fill_region(uint8_t *p, uint8_t index)
{
	struct {
		struct vfio_region_info info;
		struct {
			struct vfio_info_cap_header header;
			uint32_t nr_areas, reserved;
		} sparse;
		struct vfio_region_sparse_mmap_area areas[2];
		struct vfio_region_info_cap_type type;
	} *r = (void *)p;

	r->info = (struct vfio_region_info){ .argsz = index ? 32 : 96,
					     .flags = index ? 3 : 15,
					     .index = index,
					     .cap_offset = index ? 0 : 32,
					     .size = 0x4000 };
	if (index)
		return;
	r->sparse.header = (struct vfio_info_cap_header){ 1, 1, 80 };
	r->sparse.nr_areas = 2;
	r->areas[0] = (struct vfio_region_sparse_mmap_area){ 0, 0x1000 };
	r->areas[1] = (struct vfio_region_sparse_mmap_area){ 0x2000, 0x1000 };
	r->type.header = (struct vfio_info_cap_header){ 2, 1, 0 };
}

static void fill_io_fds(uint8_t *p, uint8_t index)
{
	struct {
		struct vfio_user_region_io_fds head;
		struct vfio_user_io_fd entries[2];
	} *r = (void *)p;

	r->head = (struct vfio_user_region_io_fds){ index ? 16 : 96, 0, index, index ? 0 : 2 };
	if (index)
		return;
	r->entries[0] = (struct vfio_user_io_fd){ .offset = 0x10, .size = 4 };
	r->entries[1] = (struct vfio_user_io_fd){ .offset = 0x20, .fd_index = 0 };
}

/* The payload of reply n, its length. */
static size_t good_payload(unsigned int n, const struct input *in, uint8_t *p)
{
	static const char caps[] = "{\"capabilities\":{\"max_msg_fds\":4,"
				   "\"migration\":{\"pgsize\":4096}}}";
	uint32_t *words = (void *)p;
	uint64_t *longs = (void *)p;

	memset(p, 0, 128);
	switch (script[n].command) {
	case VFIO_USER_VERSION:
		words[0] = 0x10000;
		memcpy(p + 4, caps, sizeof(caps));
		return 4 + sizeof(caps);
	case VFIO_USER_DEVICE_GET_INFO: memcpy(p, (uint32_t[]){ 16, 3, 9, 5 }, 16); break;
	case VFIO_USER_DEVICE_GET_REGION_INFO: fill_region(p, script[n].index); break;
	case VFIO_USER_DEVICE_GET_REGION_IO_FDS: fill_io_fds(p, script[n].index); break;
	case VFIO_USER_DEVICE_GET_IRQ_INFO:
		memcpy(p, (uint32_t[]){ 16, 1, script[n].index, 1 }, 16);
		break;
	case VFIO_USER_REGION_READ:
	case VFIO_USER_REGION_WRITE: words[3] = 8; break;
	case VFIO_USER_MIG_DATA_READ: words[1] = 8; break;
	case VFIO_USER_DIRTY_PAGES:
		longs[3] = 4096;
		longs[4] = 8;
		longs[5] = 5;
		break;
	case VFIO_USER_DMA_UNMAP:
		longs[3] = 4096;
		longs[4] = 8;
		break;
	default: break;
	}
	return script[n].len;
}

struct stream {
	int sock;
	size_t sent;
	unsigned int next; /* reply */
};

static void emit(struct stream *s, const uint8_t *data, size_t len, uint32_t fds)
{
	int list[8] = { 0 };
	unsigned int count = fds & 7;

	for (unsigned int i = 0; i < count; i++)
		list[i] = fds & 8 ? f.eventfd : f.memfd;
	if (!len || s->sent + len + MESSAGE_COST > STREAM_MAX ||
	    fd_send(s->sock, data, len, list, count))
		return;
	s->sent += len + MESSAGE_COST;
}

static void emit_message(struct stream *s, uint16_t id, uint16_t command, uint32_t flags,
			 uint8_t *m, size_t payload, uint32_t fds)
{
	struct vfio_user_header h = { id, command, (uint32_t)(sizeof(h) + payload), flags, 0 };

	memcpy(m, &h, sizeof(h));
	emit(s, m, sizeof(h) + payload, fds);
}

static void good_reply(struct stream *s, struct input *in, bool change)
{
	static uint8_t m[4096];
	unsigned int n = s->next % ARRAY_SIZE(script);
	size_t len = good_payload(n, in, m + 16);
	uint32_t fds = script[n].command == VFIO_USER_DEVICE_GET_REGION_INFO && !script[n].index ? 1
		       : script[n].command == VFIO_USER_DEVICE_GET_REGION_IO_FDS && !script[n].index
			       ? 9
			       : 0;
	uint32_t flags = VFIO_USER_TYPE_REPLY;
	uint8_t what = change ? (uint8_t)take(in, 1) : 0;

	s->next++;
	for (unsigned int i = 0; i < (what & 3); i++) {
		uint32_t at = take(in, 1) % 128;

		m[16 + at] = (uint8_t)take(in, 1);
	}
	if (what & 4)
		len = take(in, 2) % (sizeof(m) - 16);
	if (what & 8)
		fds = take(in, 1);
	if (what & 16)
		flags |= take(in, 1);
	emit_message(s, (uint16_t)s->next, script[n].command, flags, m, len, fds);
}

static void server_command(struct stream *s, struct input *in)
{
	static uint8_t m[4096];
	uint8_t what = (uint8_t)take(in, 1);
	struct vfio_user_dma_access a = {
		.iova = what & 1 ? 4 * GIB + take(in, 2) : take(in, 3),
		.count = what & 2 ? take(in, 4) : take(in, 1),
	};
	bool write = what & 4;
	size_t data = write && a.count < 2048 ? a.count : 0;

	memcpy(m + 16, &a, sizeof(a));
	emit_message(s, 9, write ? VFIO_USER_DMA_WRITE : VFIO_USER_DMA_READ,
		     what & 8 ? VFIO_USER_NO_REPLY : 0, m, sizeof(a) + data, what & 16 ? 1 : 0);
}

static void raw(struct stream *s, struct input *in, bool message)
{
	static uint8_t m[4096];
	uint32_t len = take(in, 1), at = message ? 16 : 0;
	uint16_t command = message ? (uint16_t)take(in, 1) : 0;
	uint32_t flags = message ? take(in, 1) : 0;

	for (uint32_t i = 0; i < len; i++)
		m[at + i] = (uint8_t)take(in, 1);
	if (message)
		emit_message(s, (uint16_t)s->next + 1, command, flags, m, len, 0);
	else
		emit(s, m, len, 0);
}

static void speak(struct stream *s, struct input *in)
{
	for (unsigned int steps = 0; in->left && steps < 100; steps++) {
		uint8_t what = (uint8_t)take(in, 1);

		switch (what % 8) {
		case 0: server_command(s, in); break;
		case 1: raw(s, in, true); break;
		case 2: raw(s, in, false); break;
		case 3: good_reply(s, in, true); break;
		default: /* several */
			for (unsigned int i = 0; i < 1U + what / 8; i++)
				good_reply(s, in, false);
			break;
		}
	}
	shutdown(s->sock, SHUT_WR);
}

/* What comes out is within bounds: the contract of transport.h. */
static void check_region(const struct vfio_region *r)
{
	uint64_t end = 0;

	if (r->area_count > VFIO_SPARSE_AREAS_MAX || (r->area_count && r->map_fd < 0))
		abort();
	for (unsigned int i = 0; i < r->area_count; i++) {
		if (!r->areas[i].size || r->areas[i].offset < end || r->areas[i].size > r->size ||
		    r->areas[i].offset > r->size - r->areas[i].size)
			abort();
		end = r->areas[i].offset + r->areas[i].size;
	}
}

static void use_region(struct vfio_transport *t, uint32_t index)
{
	struct vfio_region r;
	struct vfio_ioeventfd io[8];
	int n;

	if (t->ops->region_info(t, index, &r, NULL))
		return;
	check_region(&r);
	n = t->ops->region_ioeventfds(t, &r, io, 8, NULL);
	for (int i = 0; i < n; i++)
		if (io[i].fd < 0 || io[i].offset >= r.size)
			abort();
	for (unsigned int i = 0; i < r.area_count; i++) {
		void *p;

		if (r.areas[i].size > MIB ||
		    t->ops->region_map(t, &r, r.areas[i].offset, r.areas[i].size, &p, NULL))
			continue;
		if (r.readable)
			(void)*(volatile uint8_t *)((uint8_t *)p + r.areas[i].size - 1);
		munmap(p, r.areas[i].size);
	}
}

static void exercise(struct vfio_transport *t)
{
	uint64_t bits[8] = { 0 }, data[1] = { 0 };
	struct vfio_device_feature_dma_logging_report report = {
		.length = RAM / 2,
		.page_size = 4096,
		.bitmap = (uintptr_t)bits,
	};
	struct vfio_region bar0 = { .size = 8 };
	struct dirty_bitmap bitmap;
	struct vfio_irq irq;

	use_region(t, 0);
	use_region(t, 1);
	for (uint32_t i = 0; i < 3; i++)
		if (!t->ops->irq_info(t, i, &irq, NULL) && irq.count > 2048)
			abort();
	t->ops->set_irq_fds(t, 2, 0, 1, &f.eventfd, NULL);
	t->ops->region_read(t, &bar0, 0, data, 8, NULL);
	t->ops->region_write(t, &bar0, 0, data, 8, NULL);
	t->ops->feature(t, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION, data, 8, NULL);
	t->ops->feature(t, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
			&report, sizeof(report), NULL);
	user_migration_read(t, -1, data, 8, 0, NULL);
	user_migration_write(t, -1, data, 8, NULL);
	if (dirty_bitmap_init(&bitmap, RAM / 2 / GUEST_PAGE_SIZE, NULL))
		abort();
	if (!t->space->ops->dirty_start(t->space, NULL))
		t->space->ops->dirty_collect(t->space, 0, RAM / 2, false, &bitmap, NULL);
	t->space->ops->unmap(t->space, 0, RAM / 2, &bitmap, NULL);
	dirty_bitmap_destroy(&bitmap);
	t->ops->reset(t, NULL);
}

static void stop(void *opaque)
{
	loop_stop(opaque);
}

/* What is left in the socket, and the end of it, are the loop's; told once. */
static void lost(void *opaque, const char *reason)
{
	if (++*(unsigned int *)opaque > 1 || !*reason)
		abort();
}

static void run_loop(struct loop *loop)
{
	for (int i = 0; i < 8; i++) {
		loop_post(loop, stop, loop);
		loop_run(loop);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct input in = { bytes, size };
	struct stream s = { 0 };
	unsigned int losses = 0;
	struct error err = ERROR_INIT;
	struct vfio_user_options options = {
		.socket = "fuzz", .lost = lost, .opaque = &losses, .keep_state = true
	};
	struct vfio_transport *t;
	int pair[2];

	if (!f.memory)
		init();
	options.memory = f.memory;
	options.loop = loop_new(&err);
	if (!options.loop || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		abort();
	s.sock = pair[0];
	speak(&s, &in);
	t = vfio_transport_open_user_fd(&options, pair[1], 1000, &err);
	if (t) {
		exercise(t);
		run_loop(options.loop);
		if (losses != 1)
			abort();
		t->ops->close(t);
	} else {
		if (!err.message[0] || err.code >= 0)
			abort();
		close(pair[1]);
	}
	close(pair[0]);
	loop_free(options.loop);
	return 0;
}
