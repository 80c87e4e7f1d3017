/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An assigned device moved by a migration that is anything, from and to a device that is
 * anything. The first byte says which:
 *
 *   0  the state tree of the function around it, loaded (what loads is saved, and loads)
 *   1  steps of a migration, in any order, over a device whose every answer (state, sizes,
 *      offsets, data, errors) is the input's: by features
 *   2  the same by a migration region, in part mapped
 *   3  its log of DMA
 *
 * Beside what the sanitizers find: no access leaves the region, no read exceeds its buffer,
 * each stream ends once, bits behind the end of a bitmap stay clear.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/unit/helpers/fake_host.h"
#include "tests/unit/helpers/fake_vfio_transport.h"
#include "tests/unit/helpers/vfio_state_device.h"
#include "vfio/device_dirty.h"
#include "vfio/device_migration.h"
#include "vfio/uapi_vfio.h"
#include "vfio/vfio_pci.h"

#define INPUT_MAX 16384
#define REGION_SIZE 8192U
#define REGION_INDEX 9U

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
	if (!holds)
		abort();
}

/* The input, read to its end; then zeros. */
struct input {
	const uint8_t *at, *end;
};

static uint64_t take(struct input *in, unsigned int bytes)
{
	uint64_t value = 0;

	for (unsigned int i = 0; i < bytes && in->at < in->end; i++)
		value |= (uint64_t)*in->at++ << 8 * i;
	return value;
}

static void fill(struct input *in, void *data, size_t len)
{
	size_t n = MIN(len, (size_t)(in->end - in->at));

	memset(data, 0, len);
	memcpy(data, in->at, n);
	in->at += n;
}

/* A device that answers with the input. */
struct device {
	struct vfio_transport transport;
	struct vfio_transport_ops ops;
	struct dma_space space;
	struct dma_space_ops space_ops;
	struct input *in;
	bool region, mapped;
	int memfd;
	unsigned int streams; /* open now */
	uint8_t bitmap_tail;
};

static struct device *device_of(struct vfio_transport *t)
{
	return container_of(t, struct device, transport);
}

/* Now and then, as the input has it. */
static bool fails(struct device *d)
{
	return take(d->in, 1) > 0xf0;
}

static int fail(struct device *d, struct error *err)
{
	static const int codes[] = { EIO, ENOMSG, EINVAL, E2BIG, ENOTTY, ECONNRESET, EAGAIN };

	return error_set(err, codes[take(d->in, 1) % ARRAY_SIZE(codes)], "fuzz: fails");
}

static void report(struct device *d, const struct vfio_device_feature_dma_logging_report *r)
{
	uint64_t *words = (uint64_t *)(uintptr_t)r->bitmap;
	size_t count;

	require(is_power_of_2(r->page_size) && r->page_size >= GUEST_PAGE_SIZE);
	require(!(r->iova % r->page_size) && !(r->length % r->page_size));
	count = (r->length / r->page_size + 63) / 64;
	for (size_t i = 0; i < count; i++)
		words[i] |= take(d->in, 1) * 0x0101010101010101ULL;
}

static int feature(struct vfio_transport *t, uint32_t flags, void *data, size_t len,
		   struct error *err)
{
	struct device *d = device_of(t);
	uint32_t number = flags & VFIO_DEVICE_FEATURE_MASK;
	struct vfio_device_feature_mig_state *state = data;
	struct vfio_device_feature_dma_logging_control *control = data;

	if (d->region && number <= VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE)
		return error_set(err, ENOTTY, "fuzz: no features");
	if (fails(d))
		return fail(d, err);
	if (flags & VFIO_DEVICE_FEATURE_PROBE)
		return 0;
	if (number == VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT) {
		report(d, data);
		return (int)len;
	}
	if (number == VFIO_DEVICE_FEATURE_DMA_LOGGING_START) {
		require(control->num_ranges == 1 || control->num_ranges == 2);
		control->page_size = 1ULL << take(d->in, 1) % 64;
		control->page_size += take(d->in, 1) > 0xf0;
		return 0;
	}
	if (flags & VFIO_DEVICE_FEATURE_GET) {
		fill(d->in, data, len);
		return take(d->in, 1) > 0xf8 ? (int)(len / 2) : (int)len;
	}
	if (number == VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE) {
		state->data_fd = take(d->in, 1) & 1 ? 1000 : -1;
		d->streams += state->data_fd >= 0;
	}
	return 0;
}

static ssize_t stream_read(struct vfio_transport *t, int fd, void *data, size_t len,
			   unsigned int wait_ms, struct error *err)
{
	struct device *d = device_of(t);
	size_t n = take(d->in, 1);

	require(fd == 1000 || fd == -1);
	if (n > 0xf0)
		return fail(d, err);
	n = MIN(n, len);
	fill(d->in, data, n);
	return (ssize_t)n;
}

static int stream_write(struct vfio_transport *t, int fd, const void *data, size_t len,
			struct error *err)
{
	struct device *d = device_of(t);

	require(fd == 1000 || fd == -1);
	return fails(d) ? fail(d, err) : 0;
}

static int precopy_info(struct vfio_transport *t, int fd, struct vfio_precopy_info *info,
			struct error *err)
{
	struct device *d = device_of(t);

	if (fails(d))
		return fail(d, err);
	fill(d->in, info, sizeof(*info));
	return 0;
}

static void stream_end(struct vfio_transport *t, int fd)
{
	struct device *d = device_of(t);

	if (fd < 0)
		return;
	require(fd == 1000 && d->streams);
	d->streams--;
}

static int region_info(struct vfio_transport *t, uint32_t index, struct vfio_region *region,
		       struct error *err)
{
	struct device *d = device_of(t);

	*region = (struct vfio_region){ .index = index, .map_fd = -1 };
	if (!d->region || index != REGION_INDEX)
		return 0;
	region->type = 3;
	region->subtype = 1;
	region->size = REGION_SIZE;
	region->readable = region->writable = true;
	region->mappable = d->mapped;
	region->area_count = d->mapped;
	region->areas[0] = (struct vfio_area){ 4096, 4096 };
	return 0;
}

static int region_read(struct vfio_transport *t, const struct vfio_region *region, uint64_t offset,
		       void *data, size_t len, struct error *err)
{
	struct device *d = device_of(t);

	require(region->index == REGION_INDEX && len <= REGION_SIZE && offset <= REGION_SIZE - len);
	if (fails(d))
		return fail(d, err);
	/* Registers within bounds more often than not. */
	fill(d->in, data, len == 8 && take(d->in, 1) < 0xc0 ? 2 : len);
	if (len == 8)
		memset((uint8_t *)data + 2, 0, take(d->in, 1) < 0xc0 ? 6 : 0);
	return 0;
}

static int region_write(struct vfio_transport *t, const struct vfio_region *region, uint64_t offset,
			const void *data, size_t len, struct error *err)
{
	struct device *d = device_of(t);

	require(region->index == REGION_INDEX && len <= REGION_SIZE && offset <= REGION_SIZE - len);
	require(offset >= 0x20 || (offset == 0 && len == 4) || (offset == 0x18 && len == 8));
	if (offset == 0x18)
		require(load_le64(data) && load_le64(data) <= REGION_SIZE - 0x20);
	return fails(d) ? fail(d, err) : 0;
}

static int region_map(struct vfio_transport *t, const struct vfio_region *region, uint64_t offset,
		      uint64_t size, void **address, struct error *err)
{
	struct device *d = device_of(t);

	*address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, d->memfd, (off_t)offset);
	return *address == MAP_FAILED ? error_set(err, ENOMEM, "fuzz: mmap") : 0;
}

static int reset(struct vfio_transport *t, struct error *err)
{
	return 0;
}

static void device_init(struct device *d, struct input *in)
{
	*d = (struct device){
		.ops = {
			.name = "fuzz",
			.region_info = region_info,
			.region_read = region_read,
			.region_write = region_write,
			.region_map = region_map,
			.reset = reset,
			.feature = feature,
			.migration_read = stream_read,
			.migration_write = stream_write,
			.migration_precopy_info = precopy_info,
			.migration_end = stream_end,
		},
		.transport = { .name = "fuzz", .region_count = REGION_INDEX + 1, .is_pci = true,
			       .resettable = true, .fd = -1 },
		.space_ops = { .name = "fuzz" },
		.in = in,
		.memfd = memfd_create("fuzz", MFD_CLOEXEC),
	};
	require(d->memfd >= 0 && !ftruncate(d->memfd, REGION_SIZE));
	d->transport.ops = &d->ops;
	d->transport.space = &d->space;
	d->space.ops = &d->space_ops;
}

static void said(int r, const struct error *err)
{
	require(r >= 0 || (err->code == r && err->message[0]));
}

static void step(struct migratable *m, struct input *in)
{
	static uint8_t buf[512];
	struct migratable_pending pending;
	struct error err = ERROR_INIT;
	size_t len = take(in, 1) * 2;
	ssize_t n = 0;

	switch (take(in, 1) % 12) {
	case 0: n = m->ops->save_begin(m, &err); break;
	case 1: n = m->ops->save_pending(m, &pending, &err); break;
	case 2:
	case 3:
		n = m->ops->save_read(m, buf, len, &err);
		require(n <= (ssize_t)len);
		break;
	case 4: n = m->ops->quiesce(m, &err); break;
	case 5: n = m->ops->save_stop(m, &err); break;
	case 6: n = m->ops->save_end(m, &err); break;
	case 7: n = m->ops->rollback(m, &err); break;
	case 8: n = m->ops->load_begin(m, &err); break;
	case 9:
		fill(in, buf, len);
		n = m->ops->load_write(m, buf, len, &err);
		break;
	case 10: n = m->ops->load_end(m, &err); break;
	default:
		n = m->ops->resume(m, &err);
		said((int)n, &err);
		n = m->ops->run(m, &err);
		break;
	}
	said((int)n, &err);
}

static void move_device(struct input *in, bool region)
{
	const struct device_migration_options options = { .id = "vf0" };
	struct error err = ERROR_INIT;
	struct migratable *m;
	struct device d;

	device_init(&d, in);
	d.region = region;
	d.mapped = region && take(in, 1) & 1;
	m = device_migration_new(&d.transport, &options, &err);
	require(m != NULL);
	while (in->at < in->end)
		step(m, in);
	device_migration_free(m);
	require(!d.streams);
	close(d.memfd);
}

static void follow_device(struct input *in)
{
	const struct guest_memory_options options = {
		.size = 3 * MIB,
		.low_end = 2 * MIB,
		.high_start = 4 * GIB,
	};
	struct guest_memory *memory = guest_memory_new(&options, NULL);
	struct error err = ERROR_INIT;
	struct dirty_source *source;
	struct device d;

	require(memory != NULL);
	device_init(&d, in);
	source = device_dirty_source(&d.transport, memory, DEVICE_DIRTY_AUTO, &err);
	require(source || err.code < 0);
	while (source && in->at < in->end) {
		const struct guest_memory_region *region = guest_memory_region(memory, 1);
		struct dirty_bitmap bitmap;

		switch (take(in, 1) % 4) {
		case 0: said(source->ops->start(source, &err), &err); break;
		case 1: source->ops->stop(source); break;
		default:
			require(!dirty_bitmap_init(&bitmap, region->size / GUEST_PAGE_SIZE, NULL));
			said(source->ops->collect(source, region, &bitmap, &err), &err);
			require(dirty_bitmap_count(&bitmap) <= bitmap.pages);
			dirty_bitmap_destroy(&bitmap);
			break;
		}
	}
	if (source)
		source->ops->free(source);
	guest_memory_free(memory);
	close(d.memfd);
}

/* The function around a device. */

struct machine {
	struct fake_host h;
	struct fake_vfio_pci dev;
	struct pci_function *fn;
};

static int slot_add(void *opaque, uint64_t gpa, uint64_t size, void *hva, bool readonly,
		    struct error *err)
{
	return 1;
}

static void slot_remove(void *opaque, int slot)
{
}

static void device_lost(void *opaque, const char *id, const char *reason)
{
}

static void machine_init(struct machine *m)
{
	static const struct vfio_host_ops host_ops = { slot_add, slot_remove, device_lost };
	const struct vfio_host host = { .ops = &host_ops };
	const struct vfio_pci_options options = { .id = "vf0", .gpudirect_clique = -1 };

	require(!fake_host_init(&m->h));
	fake_vfio_pci_init(&m->dev);
	vfio_state_device(&m->dev);
	m->fn = vfio_pci_new(&m->h.host, &host, &m->dev.transport, &options, NULL);
	require(m->fn != NULL);
	m->fn->devfn = 3 << 3;
	m->fn->intx = (struct irq_line){ .interrupts = &m->h.host.interrupts, .gsi = 17 };
}

static void machine_destroy(struct machine *m)
{
	pci_function_unmap(m->fn);
	m->fn->ops->free(m->fn);
	require(!m->h.fake.routes && !m->h.fake.irqfd_count && !m->h.fake.misuses);
	fake_vfio_pci_destroy(&m->dev);
	fake_host_destroy(&m->h);
}

static void load_function(const uint8_t *data, size_t size)
{
	static struct machine m, again;
	struct state_node root, node = { .offset = -1 };
	struct state_writer *writer;
	struct error err = ERROR_INIT;
	uint8_t *copy = malloc(size + 1);
	void *blob;
	size_t len;
	int r;

	require(copy != NULL);
	memcpy(copy, data, size);
	if (!state_tree_open(copy, size, &root, NULL) && state_next_child(&root, &node)) {
		machine_init(&m);
		r = pci_function_load(m.fn, &node, &err);
		said(r, &err);
		if (!r) {
			writer = state_writer_new(NULL);
			require(writer && !pci_function_save(m.fn, writer, &err));
			require(!state_writer_finish(writer, &blob, &len, &err));
			state_writer_free(writer);
			machine_init(&again);
			node.offset = -1;
			require(!state_tree_open(blob, len, &root, &err));
			require(state_next_child(&root, &node));
			require(!pci_function_load(again.fn, &node, &err));
			machine_destroy(&again);
			free(blob);
		}
		machine_destroy(&m);
	}
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data + 1, data + size };

	if (size < 2 || size > INPUT_MAX)
		return -1;
	switch (data[0] % 4) {
	case 0: load_function(data + 1, size - 1); break;
	case 1: move_device(&in, false); break;
	case 2: move_device(&in, true); break;
	default: follow_device(&in); break;
	}
	return 0;
}
