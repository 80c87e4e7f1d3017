/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "devices/virtio/queue_thread.h"
#include "devices/virtio/virtio_simple.h"

#define QUEUE_SIZE 64
/* What one request gets at most: a guest that wants more asks again. */
#define REQUEST_BYTES_MAX (64 * KIB)
#define RETRY_NS 1000000000ULL
#define LOG_BURST 3

enum { COUNTER_BYTES, COUNTER_REQUESTS, COUNTERS };

struct virtio_rng {
	struct virtio_device dev;
	int source; /* -1: getrandom() */
	struct queue_thread thread;
	struct loop_source *retry; /* in the thread's loop */
	struct log_limit log_limit;
	struct virtio_counter counters[COUNTERS];
	struct iovec iov[QUEUE_SIZE + 2];
	uint64_t gpa[QUEUE_SIZE + 2];
};

static struct virtio_rng *rng_of(struct virtio_device *dev)
{
	return container_of(dev, struct virtio_rng, dev);
}

static ssize_t read_source(const struct virtio_rng *rng, void *buf, size_t len)
{
	ssize_t n;

	do
		n = rng->source < 0 ? getrandom(buf, len, 0) : read(rng->source, buf, len);
	while (n < 0 && errno == EINTR);
	return n;
}

/* The bytes written, fewer than asked where the source has no more now. */
static size_t fill(struct virtio_rng *rng, const struct virtqueue_chain *chain)
{
	size_t done = 0;

	for (unsigned int i = chain->readable; i < chain->readable + chain->writable;) {
		size_t left = REQUEST_BYTES_MAX - done;
		uint8_t *to = chain->iov[i].iov_base;
		size_t len = MIN(chain->iov[i].iov_len, left), got = 0;

		while (got < len) {
			ssize_t n = read_source(rng, to + got, len - got);

			if (n <= 0)
				return done + got;
			got += (size_t)n;
		}
		done += got;
		if (done == REQUEST_BYTES_MAX)
			break;
		i++;
	}
	return done;
}

static int64_t handle(struct virtio_device *dev, unsigned int queue, struct virtqueue_chain *chain)
{
	struct virtio_rng *rng = rng_of(dev);
	size_t n = fill(rng, chain);

	/* An answer of no bytes would be asked for again at once, for ever. */
	if (!n && chain->writable && rng->retry) {
		log_limited(dev->host->log, &rng->log_limit, LOG_LEVEL_WARNING,
			    "%s: the source of entropy gives nothing now; asking it every second",
			    dev->id);
		loop_timer_set(rng->retry, RETRY_NS);
		return -EAGAIN;
	}
	atomic_fetch_add(&rng->counters[COUNTER_BYTES].value, n);
	atomic_fetch_add(&rng->counters[COUNTER_REQUESTS].value, 1);
	return (int64_t)n;
}

static bool serve(struct virtio_device *dev, unsigned int queue)
{
	struct virtio_rng *rng = rng_of(dev);
	struct virtqueue_chain chain = {
		.iov = rng->iov,
		.gpa = rng->gpa,
		.iov_max = ARRAY_SIZE(rng->iov),
	};

	return queue_thread_drain(dev, queue, &chain, handle);
}

static void retry(void *opaque)
{
	struct virtio_rng *rng = opaque;

	if (serve(&rng->dev, 0))
		eventfd_signal(rng->dev.kick_fd[0]);
}

static void started(struct virtio_device *dev, struct loop *loop)
{
	struct virtio_rng *rng = rng_of(dev);

	rng->retry = rng->source < 0 ? NULL : loop_timer_new(loop, retry, rng, NULL);
}

static void stopping(struct virtio_device *dev)
{
	struct virtio_rng *rng = rng_of(dev);

	loop_remove(rng->retry);
	rng->retry = NULL;
}

static const struct queue_thread_ops thread_ops = {
	.started = started,
	.stopping = stopping,
	.serve = serve,
};

static void config_read(struct virtio_device *dev, uint32_t offset, void *data, unsigned int len)
{
	memset(data, 0, len);
}

static int activate(struct virtio_device *dev, struct error *err)
{
	return queue_thread_start(&rng_of(dev)->thread, dev, &thread_ops, err);
}

static void deactivate(struct virtio_device *dev)
{
	queue_thread_stop(&rng_of(dev)->thread);
}

static void resume(struct virtio_device *dev)
{
	struct error err = ERROR_INIT;

	if (activate(dev, &err))
		virtio_device_needs_reset(dev, err.message);
}

static void free_rng(struct virtio_device *dev)
{
	struct virtio_rng *rng = rng_of(dev);

	cleanup_close(&rng->source);
	free(rng);
}

static const struct virtio_device_ops ops = {
	.config_read = config_read,
	.activate = activate,
	.deactivate = deactivate,
	.pause = deactivate,
	.resume = resume,
	.free = free_rng,
};

/* Never blocking: a reset must not wait for a slow generator. */
static int open_source(const char *path, struct error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0)
		return error_set_errno(err, errno, "open source of entropy %s", path);
	if (fstat(fd, &st) || S_ISDIR(st.st_mode)) {
		close(fd);
		return error_set_errno(err, EISDIR, "open source of entropy %s", path);
	}
	return fd;
}

struct virtio_device *virtio_rng_new(struct device_host *host, const char *id, const char *source,
				     struct error *err)
{
	struct virtio_rng *rng;
	int fd = -1;

	/* The kernel's generator needs no file. */
	if (source && strcmp(source, "/dev/urandom") != 0 && strcmp(source, "/dev/random") != 0) {
		fd = open_source(source, err);
		if (fd < 0)
			return NULL;
	}
	rng = calloc(1, sizeof(*rng));
	if (!rng) {
		error_set_errno(err, ENOMEM, "create %s", id);
		cleanup_close(&fd);
		return NULL;
	}
	rng->source = fd;
	rng->dev.ops = &ops;
	rng->dev.host = host;
	snprintf(rng->dev.id, sizeof(rng->dev.id), "%s", id);
	rng->dev.type = VIRTIO_RNG;
	rng->dev.queue_count = 1;
	rng->dev.queues[0].size_max = QUEUE_SIZE;
	rng->counters[COUNTER_BYTES].name = "bytes";
	rng->counters[COUNTER_REQUESTS].name = "requests";
	rng->dev.counters = rng->counters;
	rng->dev.counter_count = COUNTERS;
	atomic_init(&rng->log_limit.burst_left, LOG_BURST);
	return &rng->dev;
}
