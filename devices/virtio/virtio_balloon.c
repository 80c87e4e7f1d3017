/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <linux/virtio_balloon.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/virtio/queue_thread.h"
#include "devices/virtio/virtio_simple.h"

#define QUEUE_SIZE 128
#define PAGE (1ULL << VIRTIO_BALLOON_PFN_SHIFT)
/* Page numbers looked at together, and taken of one chain in all. */
#define BATCH 256
#define CHAIN_PFNS_MAX (16 * KIB)

/*
 * The reporting queue is number 4; drivers that skip the queues of features not
 * offered (statistics 2, hints 3; Linux does) find it at 2. We offer neither of
 * those, so whatever comes on 2 to 4 is a report.
 */
enum { INFLATE, DEFLATE, REPORTING_FIRST, QUEUES_PLAIN = 2, QUEUES_REPORTING = 5 };
enum { COUNTER_INFLATED, COUNTER_DEFLATED, COUNTER_REPORTED, COUNTERS };

struct virtio_balloon {
	struct virtio_device dev;
	atomic_uint num_pages; /* wanted */
	atomic_uint actual;    /* as the driver says */
	struct queue_thread thread;
	struct virtio_counter counters[COUNTERS];
	struct iovec iov[QUEUE_SIZE + 2];
	uint64_t gpa[QUEUE_SIZE + 2];
};

static struct virtio_balloon *balloon_of(struct virtio_device *dev)
{
	return container_of(dev, struct virtio_balloon, dev);
}

static void count(struct virtio_balloon *balloon, unsigned int counter, uint64_t n)
{
	atomic_fetch_add(&balloon->counters[counter].value, n);
}

static int compare_pfns(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* Gives back runs of adjacent pages. What is not RAM is the guest's mistake, and
 * costs it nothing else. */
static void discard_pfns(struct virtio_balloon *balloon, uint32_t *pfns, size_t n)
{
	size_t end;

	qsort(pfns, n, sizeof(*pfns), compare_pfns);
	for (size_t start = 0; start < n; start = end) {
		uint64_t gpa = pfns[start] * PAGE, len;

		for (end = start + 1; end < n && pfns[end] - pfns[end - 1] <= 1; end++)
			;
		len = (pfns[end - 1] + 1ULL) * PAGE - gpa;
		if (!guest_memory_discard(balloon->dev.host->memory, gpa, len))
			count(balloon, COUNTER_INFLATED, len);
	}
}

static int64_t inflate(struct virtio_balloon *balloon, const struct virtqueue_chain *chain)
{
	uint32_t pfns[BATCH];
	size_t done = 0, n;

	while (done < CHAIN_PFNS_MAX * sizeof(*pfns)) {
		n = virtqueue_chain_read(chain, done, pfns, sizeof(pfns)) / sizeof(*pfns);
		if (!n)
			break;
		for (size_t i = 0; i < n; i++)
			pfns[i] = le32toh(pfns[i]);
		discard_pfns(balloon, pfns, n);
		done += n * sizeof(*pfns);
	}
	return 0;
}

/* Free pages as buffers "written" by us: they read as zero from now on. */
static int64_t report(struct virtio_balloon *balloon, const struct virtqueue_chain *chain)
{
	for (unsigned int i = chain->readable; i < chain->readable + chain->writable; i++) {
		uint64_t len = chain->iov[i].iov_len;

		if (!guest_memory_discard(balloon->dev.host->memory, chain->gpa[i], len))
			count(balloon, COUNTER_REPORTED, len);
	}
	return 0;
}

static int64_t handle(struct virtio_device *dev, unsigned int queue, struct virtqueue_chain *chain)
{
	struct virtio_balloon *balloon = balloon_of(dev);

	if (queue == INFLATE)
		return inflate(balloon, chain);
	/* Deflating takes nothing: pages come back as the guest touches them. */
	if (queue == DEFLATE)
		count(balloon, COUNTER_DEFLATED, chain->readable_len / sizeof(uint32_t) * PAGE);
	else if (virtio_device_has(dev, VIRTIO_BALLOON_F_REPORTING))
		return report(balloon, chain);
	return 0;
}

static bool serve(struct virtio_device *dev, unsigned int queue)
{
	struct virtio_balloon *balloon = balloon_of(dev);
	struct virtqueue_chain chain = {
		.iov = balloon->iov,
		.gpa = balloon->gpa,
		.iov_max = ARRAY_SIZE(balloon->iov),
	};

	return queue_thread_drain(dev, queue, &chain, handle);
}

static const struct queue_thread_ops thread_ops = { .serve = serve };

static int activate(struct virtio_device *dev, struct error *err)
{
	return queue_thread_start(&balloon_of(dev)->thread, dev, &thread_ops, err);
}

static void pause_balloon(struct virtio_device *dev)
{
	queue_thread_stop(&balloon_of(dev)->thread);
}

/* A driver that starts anew has given up nothing. */
static void deactivate(struct virtio_device *dev)
{
	queue_thread_stop(&balloon_of(dev)->thread);
	atomic_store(&balloon_of(dev)->actual, 0);
}

static void resume(struct virtio_device *dev)
{
	struct error err = ERROR_INIT;

	if (activate(dev, &err))
		virtio_device_needs_reset(dev, err.message);
}

/* num_pages and actual; the rest belongs to features not offered. */
static void read_config(struct virtio_balloon *balloon, uint8_t config[8])
{
	store_le32(config, atomic_load(&balloon->num_pages));
	store_le32(config + 4, atomic_load(&balloon->actual));
}

static void config_read(struct virtio_device *dev, uint32_t offset, void *data, unsigned int len)
{
	uint8_t config[8];

	read_config(balloon_of(dev), config);
	memset(data, 0, len);
	if (offset < sizeof(config))
		memcpy(data, config + offset, MIN((size_t)len, sizeof(config) - offset));
}

static void config_write(struct virtio_device *dev, uint32_t offset, const void *data,
			 unsigned int len)
{
	struct virtio_balloon *balloon = balloon_of(dev);
	uint8_t config[8];

	if (offset >= sizeof(config) || len > sizeof(config) - offset)
		return;
	read_config(balloon, config);
	memcpy(config + offset, data, len);
	atomic_store(&balloon->actual, load_le32(config + 4));
}

/* The pages given up are holes in RAM, and saved as such. */
static int save(struct virtio_device *dev, struct state_writer *writer, struct error *err)
{
	state_put_u32(writer, "num-pages", atomic_load(&balloon_of(dev)->num_pages));
	state_put_u32(writer, "actual", atomic_load(&balloon_of(dev)->actual));
	return 0;
}

static int load(struct virtio_device *dev, const struct state_node *node, struct error *err)
{
	uint64_t ram = guest_memory_size(dev->host->memory) / PAGE;
	uint32_t num_pages = 0, actual = 0;
	int r = state_get_u32_max(node, "num-pages", (uint32_t)MIN(ram, (uint64_t)UINT32_MAX),
				  &num_pages, err);

	/* The driver may say what it likes. */
	if (!r)
		r = state_get_u32(node, "actual", &actual, err);
	if (r)
		return r;
	atomic_store(&balloon_of(dev)->num_pages, num_pages);
	atomic_store(&balloon_of(dev)->actual, actual);
	return 0;
}

static void free_balloon(struct virtio_device *dev)
{
	free(balloon_of(dev));
}

static const struct virtio_device_ops ops = {
	.config_read = config_read,
	.config_write = config_write,
	.activate = activate,
	.deactivate = deactivate,
	.save = save,
	.load = load,
	.pause = pause_balloon,
	.resume = resume,
	.free = free_balloon,
};

static int check_size(const struct virtio_device *dev, uint64_t size, struct error *err)
{
	uint64_t ram = guest_memory_size(dev->host->memory);

	if (size % PAGE)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "%s: balloon of %" PRIu64 " bytes: not a multiple of %llu",
				      dev->id, size, PAGE);
	if (size > ram)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "%s: balloon of %" PRIu64
				      " bytes: the guest has only %" PRIu64,
				      dev->id, size, ram);
	return 0;
}

int virtio_balloon_resize(struct virtio_device *dev, uint64_t size, struct error *err)
{
	int r = check_size(dev, size, err);

	if (r)
		return r;
	atomic_store(&balloon_of(dev)->num_pages, (unsigned int)(size / PAGE));
	virtio_device_config_changed(dev);
	return 0;
}

uint64_t virtio_balloon_actual(const struct virtio_device *dev)
{
	const struct virtio_balloon *balloon = container_of(dev, const struct virtio_balloon, dev);

	return atomic_load(&balloon->actual) * PAGE;
}

struct virtio_device *virtio_balloon_new(struct device_host *host, const char *id, uint64_t size,
					 bool deflate_on_oom, bool free_page_reporting,
					 struct error *err)
{
	struct virtio_balloon *balloon = calloc(1, sizeof(*balloon));

	if (!balloon) {
		error_set_errno(err, ENOMEM, "create %s", id);
		return NULL;
	}
	balloon->dev.ops = &ops;
	balloon->dev.host = host;
	snprintf(balloon->dev.id, sizeof(balloon->dev.id), "%s", id);
	if (check_size(&balloon->dev, size, err)) {
		free(balloon);
		return NULL;
	}
	atomic_store(&balloon->num_pages, (unsigned int)(size / PAGE));
	balloon->dev.type = VIRTIO_BALLOON;
	balloon->dev.config_size = 8;
	balloon->dev.queue_count = free_page_reporting ? QUEUES_REPORTING : QUEUES_PLAIN;
	for (unsigned int i = 0; i < balloon->dev.queue_count; i++)
		balloon->dev.queues[i].size_max = QUEUE_SIZE;
	if (deflate_on_oom)
		balloon->dev.device_features |= VIRTIO_FEATURE(VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
	if (free_page_reporting)
		balloon->dev.device_features |= VIRTIO_FEATURE(VIRTIO_BALLOON_F_REPORTING);
	balloon->counters[COUNTER_INFLATED].name = "inflated_bytes";
	balloon->counters[COUNTER_DEFLATED].name = "deflated_bytes";
	balloon->counters[COUNTER_REPORTED].name = "reported_bytes";
	balloon->dev.counters = balloon->counters;
	balloon->dev.counter_count = COUNTERS;
	return &balloon->dev;
}
