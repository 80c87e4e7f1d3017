/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/virtio/virtio_blk.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "devices/virtio/virtio_blk_private.h"

static struct virtio_blk *blk_of(struct virtio_device *dev)
{
	return container_of(dev, struct virtio_blk, dev);
}

/* Log2 of how many logical blocks make a physical one. */
static uint8_t physical_exponent(const struct blk_file *file, uint32_t logical)
{
	return file->physical > logical ? (uint8_t)__builtin_ctz(file->physical / logical) : 0;
}

/* The unit the guest addresses the disk in. */
static uint32_t logical_block(const struct virtio_blk *blk)
{
	return MAX((uint32_t)SECTOR_SIZE, blk->file.align);
}

static void fill_config(struct virtio_blk *blk, struct virtio_blk_config *config)
{
	const struct blk_file *file = &blk->file;
	uint32_t logical = logical_block(blk);
	uint8_t exponent = physical_exponent(file, logical);
	uint32_t segments = 1;

	/* A chain has a header and a status besides, and must fit the queue. */
	if (blk->queue_size > 3)
		segments = MIN(blk->queue_size - 2, (unsigned int)BLK_SEG_MAX);
	*config = (struct virtio_blk_config){
		.capacity = htole64(atomic_load(&blk->sectors)),
		.seg_max = htole32(segments),
		.blk_size = htole32(logical),
		.physical_block_exp = exponent,
		.min_io_size = htole16((uint16_t)(1U << exponent)),
		.wce = atomic_load(&blk->writeback),
		.num_queues = htole16((uint16_t)blk->dev.queue_count),
	};
	if (!(blk->dev.device_features & VIRTIO_FEATURE(VIRTIO_BLK_F_DISCARD)))
		return;
	config->max_discard_sectors = htole32(BLK_ZERO_SECTORS_MAX);
	config->max_discard_seg = htole32(1);
	config->discard_sector_alignment = htole32(file->physical >> SECTOR_SHIFT);
	config->max_write_zeroes_sectors = htole32(BLK_ZERO_SECTORS_MAX);
	config->max_write_zeroes_seg = htole32(1);
	config->write_zeroes_may_unmap = 1;
}

static void config_read(struct virtio_device *dev, uint32_t offset, void *data, unsigned int len)
{
	struct virtio_blk_config config;

	memset(data, 0, len);
	if (offset >= sizeof(config))
		return;
	fill_config(blk_of(dev), &config);
	memcpy(data, (uint8_t *)&config + offset, MIN((size_t)len, sizeof(config) - offset));
}

/* Writes have to reach the medium by themselves where the driver cannot flush, or
 * chose so (virtio 1.2, 5.2.5.2). */
static void update_dsync(struct virtio_blk *blk)
{
	bool dsync = !virtio_device_has(&blk->dev, VIRTIO_BLK_F_FLUSH);

	if (virtio_device_has(&blk->dev, VIRTIO_BLK_F_CONFIG_WCE))
		dsync = !atomic_load(&blk->writeback);
	atomic_store(&blk->dsync, dsync);
}

static void config_write(struct virtio_device *dev, uint32_t offset, const void *data,
			 unsigned int len)
{
	struct virtio_blk *blk = blk_of(dev);
	uint32_t wce = offsetof(struct virtio_blk_config, wce);

	/* The one writable field. */
	if (offset > wce || len <= wce - offset || !virtio_device_has(dev, VIRTIO_BLK_F_CONFIG_WCE))
		return;
	atomic_store(&blk->writeback, ((const uint8_t *)data)[wce - offset] != 0);
	if (dev->active)
		update_dsync(blk);
}

static void deactivate(struct virtio_device *dev)
{
	struct virtio_blk *blk = blk_of(dev);

	for (unsigned int i = 0; i < dev->queue_count; i++)
		blk_queue_stop(&blk->queues[i]);
	atomic_store(&blk->writeback, true);
}

static int activate(struct virtio_device *dev, struct error *err)
{
	struct virtio_blk *blk = blk_of(dev);
	int r = 0;

	update_dsync(blk);
	for (unsigned int i = 0; i < dev->queue_count && !r; i++)
		if (dev->queues[i].ready)
			r = blk_queue_start(&blk->queues[i], blk, i, err);
	if (r)
		deactivate(dev);
	else if (dev->restored && blk->capacity_differs)
		virtio_device_config_changed(dev);
	return r;
}

static void pause_device(struct virtio_device *dev)
{
	for (unsigned int i = 0; i < dev->queue_count; i++)
		blk_queue_pause(&blk_of(dev)->queues[i]);
}

static void resume(struct virtio_device *dev)
{
	for (unsigned int i = 0; i < dev->queue_count; i++)
		blk_queue_resume(&blk_of(dev)->queues[i]);
}

static int save(struct virtio_device *dev, struct state_writer *writer, struct error *err)
{
	struct virtio_blk *blk = blk_of(dev);

	state_put_bool(writer, "readonly", blk->file.readonly);
	state_put_u32(writer, "block-size", logical_block(blk));
	state_put_u64(writer, "capacity", atomic_load(&blk->sectors));
	state_put_bool(writer, "write-cache", atomic_load(&blk->writeback));
	rate_limiter_save(&blk->limiter, writer, "rate-limit");
	return 0;
}

/* A disk that shrank lost data, or is another one. */
static int check_file(struct virtio_blk *blk, const struct state_node *node, struct error *err)
{
	uint64_t capacity = 0, here = atomic_load(&blk->sectors);
	uint32_t block = 0;
	int r = state_match_u32(node, "readonly", blk->file.readonly, err);

	if (!r)
		r = state_get_u32(node, "block-size", &block, err);
	if (!r && (!is_power_of_2(block) || block < logical_block(blk) || block > BLK_ALIGN_MAX))
		r = state_refuse(node, "block-size", err, "is %" PRIu32 ", disk %s has %" PRIu32,
				 block, blk->file.path, logical_block(blk));
	if (!r)
		r = state_get_u64(node, "capacity", &capacity, err);
	if (!r && capacity > here)
		r = state_refuse(node, "capacity", err,
				 "is %" PRIu64 " sectors, disk %s has only %" PRIu64, capacity,
				 blk->file.path, here);
	blk->capacity_differs = capacity != here;
	return r;
}

static int load(struct virtio_device *dev, const struct state_node *node, struct error *err)
{
	struct virtio_blk *blk = blk_of(dev);
	bool writeback = true;
	int r = check_file(blk, node, err);

	if (!r)
		r = state_get_bool(node, "write-cache", &writeback, err);
	if (!r)
		r = rate_limiter_load(&blk->limiter, node, "rate-limit", clock_ns(), err);
	if (!r)
		atomic_store(&blk->writeback, writeback);
	return r;
}

static int keep(struct virtio_device *dev, struct kept *kept, bool paused, struct error *err)
{
	return paused ? 0 : blk_file_keep(&blk_of(dev)->file, kept, dev->id, err);
}

static void free_device(struct virtio_device *dev)
{
	struct virtio_blk *blk = blk_of(dev);

	blk_file_close(&blk->file);
	pthread_mutex_destroy(&blk->limiter_lock);
	free(blk);
}

static const struct virtio_device_ops ops = {
	.config_read = config_read,
	.config_write = config_write,
	.activate = activate,
	.deactivate = deactivate,
	.save = save,
	.load = load,
	.pause = pause_device,
	.resume = resume,
	.keep = keep,
	.free = free_device,
};

static uint64_t features_of(const struct virtio_blk_options *options)
{
	uint64_t features =
		VIRTIO_FEATURE(VIRTIO_BLK_F_SEG_MAX) | VIRTIO_FEATURE(VIRTIO_BLK_F_BLK_SIZE) |
		VIRTIO_FEATURE(VIRTIO_BLK_F_TOPOLOGY) | VIRTIO_FEATURE(VIRTIO_BLK_F_FLUSH) |
		VIRTIO_FEATURE(VIRTIO_BLK_F_CONFIG_WCE);

	if (options->queues > 1)
		features |= VIRTIO_FEATURE(VIRTIO_BLK_F_MQ);
	if (options->readonly)
		features |= VIRTIO_FEATURE(VIRTIO_BLK_F_RO);
	else if (options->discard)
		features |= VIRTIO_FEATURE(VIRTIO_BLK_F_DISCARD) |
			    VIRTIO_FEATURE(VIRTIO_BLK_F_WRITE_ZEROES);
	return features;
}

static int check_options(const struct virtio_blk_options *o, struct error *err)
{
	if (!o->path || !*o->path)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL, "open disk: no path");
	if (!o->queues || o->queues > BLK_QUEUES_MAX)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "disk %s: num_queues=%u is not in 1-%d", o->path, o->queues,
				      BLK_QUEUES_MAX);
	if (!is_power_of_2(o->queue_size) || o->queue_size > VIRTQUEUE_SIZE_MAX)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "disk %s: queue_size=%u is not a power of two up to %d",
				      o->path, o->queue_size, VIRTQUEUE_SIZE_MAX);
	if (o->serial && strlen(o->serial) > VIRTIO_BLK_ID_BYTES)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "disk %s: serial '%.64s' has more than %d bytes", o->path,
				      o->serial, VIRTIO_BLK_ID_BYTES);
	return 0;
}

static void init_counters(struct virtio_blk *blk)
{
	static const char *const names[COUNTERS] = {
		[COUNT_READ_BYTES] = "read_bytes", [COUNT_WRITE_BYTES] = "write_bytes",
		[COUNT_READ_OPS] = "read_ops",	   [COUNT_WRITE_OPS] = "write_ops",
		[COUNT_FLUSH_OPS] = "flush_ops",   [COUNT_DISCARD_OPS] = "discard_ops",
		[COUNT_ERRORS] = "errors",
	};

	for (unsigned int i = 0; i < COUNTERS; i++)
		blk->counters[i].name = names[i];
	blk->dev.counters = blk->counters;
	blk->dev.counter_count = COUNTERS;
}

static void init_limiter(struct virtio_blk *blk, const struct virtio_blk_options *options)
{
	rate_limiter_init(&blk->limiter, &options->rate_limit, clock_ns());
	blk->limited = !rate_limiter_unlimited(&blk->limiter);
	pthread_mutex_init(&blk->limiter_lock, NULL);
}

struct virtio_device *virtio_blk_new(struct device_host *host, const char *id,
				     const struct virtio_blk_options *options, struct error *err)
{
	struct virtio_blk *blk;
	uint64_t sectors = 0;

	if (check_options(options, err))
		return NULL;
	blk = calloc(1, sizeof(*blk));
	if (!blk) {
		error_set_errno(err, ENOMEM, "create disk %s", options->path);
		return NULL;
	}
	blk->log_limit = (struct log_limit)LOG_LIMIT_INIT(10);
	blk->dev.ops = &ops;
	blk->dev.host = host;
	blk->dev.type = VIRTIO_BLK;
	blk->dev.device_features = features_of(options);
	blk->dev.queue_count = options->queues;
	blk->dev.config_size = sizeof(struct virtio_blk_config);
	snprintf(blk->dev.id, sizeof(blk->dev.id), "%s", id);
	for (unsigned int i = 0; i < options->queues; i++)
		blk->dev.queues[i].size_max = (uint16_t)options->queue_size;
	blk->queue_size = options->queue_size;
	blk->use_ring = !options->disable_io_uring;
	if (options->serial)
		memcpy(blk->serial, options->serial, strlen(options->serial));
	atomic_store(&blk->writeback, true);
	init_counters(blk);
	init_limiter(blk, options);
	if (blk_file_open(&blk->file, options, host->kept, id, host->log, err) ||
	    blk_file_sectors(&blk->file, &sectors, host->log, err)) {
		free_device(&blk->dev);
		return NULL;
	}
	atomic_store(&blk->sectors, sectors);
	return &blk->dev;
}

int virtio_blk_resize(struct virtio_device *dev, struct error *err)
{
	struct virtio_blk *blk = blk_of(dev);
	uint64_t sectors;
	int r = blk_file_sectors(&blk->file, &sectors, dev->host->log, err);

	if (r)
		return r;
	if (atomic_exchange(&blk->sectors, sectors) != sectors && dev->transport_ops)
		virtio_device_config_changed(dev);
	return 0;
}

int virtio_blk_release_lock(struct virtio_device *dev, struct error *err)
{
	return blk_file_unlock(&blk_of(dev)->file, err);
}

int virtio_blk_take_lock(struct virtio_device *dev, struct error *err)
{
	return blk_file_lock(&blk_of(dev)->file, err);
}
