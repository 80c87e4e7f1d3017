/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What vhost-net writes to RAM, past everybody who could mark it dirty: frames into the
 * driver's buffers, and the rings. The kernel keeps a log of it, a bit for each page
 * from gpa 0 on, one log for all queue pairs; it sets bits, we take them.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "devices/virtio/virtio_net_priv.h"

#define PAGE 4096ULL /* the kernel's log is of such, whatever backs RAM */

struct net_vhost_log {
	struct dirty_source source; /* first */
	struct virtio_net *net;
	uint64_t *words; /* NULL: not started */
	size_t bytes;
};

static struct net_vhost_log *log_of(struct dirty_source *source)
{
	return container_of(source, struct net_vhost_log, source);
}

struct set_log {
	struct net_pair *pair;
	void *words;
	struct error *err;
	int result;
};

static void set_pairs_log(void *opaque)
{
	struct set_log *s = opaque;

	s->result = vhost_set_log(&s->pair->vhost, s->words, s->err);
}

static int set_all(struct virtio_net *net, void *words, struct error *err)
{
	struct set_log s = { .words = words, .err = err };

	for (unsigned int i = 0; !s.result && i < net->pair_count; i++) {
		s.pair = net->pairs[i];
		loop_call(s.pair->loop, set_pairs_log, &s);
	}
	return s.result;
}

static uint64_t end_of_ram(const struct guest_memory *memory)
{
	uint64_t end = 0;

	for (unsigned int i = 0; i < guest_memory_region_count(memory); i++) {
		const struct guest_memory_region *r = guest_memory_region(memory, i);

		end = MAX(end, r->gpa + r->size);
	}
	return end;
}

static void unmap(struct net_vhost_log *log)
{
	if (log->words)
		munmap(log->words, log->bytes);
	log->words = NULL;
}

static void stop(struct dirty_source *source)
{
	struct net_vhost_log *log = log_of(source);

	if (!log->words)
		return;
	set_all(log->net, NULL, NULL);
	unmap(log);
}

static int start(struct dirty_source *source, struct error *err)
{
	struct net_vhost_log *log = log_of(source);
	void *words;
	int r;

	if (log->words)
		return error_set(err, EBUSY, "%s: vhost's writes are tracked already",
				 log->net->dev.id);
	log->bytes = (size_t)align_up(end_of_ram(log->net->dev.host->memory) / PAGE / 8, PAGE);
	/* As much of it as there are pages written is ever touched. */
	words = mmap(NULL, log->bytes, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (words == MAP_FAILED)
		return error_set_errno(err, errno, "%s: track vhost's writes", log->net->dev.id);
	log->words = words;
	r = set_all(log->net, words, err);
	if (r) {
		stop(source);
		return error_prefix(err, "%s", log->net->dev.id);
	}
	return 0;
}

/* Takes what a word of the log has of pages [first, end), page `first` being the bitmap's
 * first. */
static void take_word(struct net_vhost_log *log, uint64_t word, uint64_t first, uint64_t end,
		      struct dirty_bitmap *bitmap)
{
	uint64_t page = 64 * word, mask = UINT64_MAX, bits;

	/* Looking first costs less: most are 0, and untouched. */
	if (!__atomic_load_n(&log->words[word], __ATOMIC_RELAXED))
		return;
	if (page < first)
		mask &= UINT64_MAX << (first - page);
	if (end - page < 64)
		mask &= (1ULL << (end - page)) - 1;
	bits = __atomic_fetch_and(&log->words[word], htole64(~mask), __ATOMIC_ACQ_REL);
	for (bits = le64toh(bits) & mask; bits; bits &= bits - 1)
		dirty_bitmap_set(bitmap, page + (unsigned int)__builtin_ctzll(bits) - first, 1);
}

static int collect(struct dirty_source *source, const struct guest_memory_region *region,
		   struct dirty_bitmap *bitmap, struct error *err)
{
	struct net_vhost_log *log = log_of(source);
	uint64_t first = region->gpa / PAGE, end = first + region->size / PAGE;

	if (!log->words)
		return error_set(err, EINVAL, "collect vhost's writes: they are not tracked");
	if (end > 8 * log->bytes)
		return error_set(err, EINVAL,
				 "collect vhost's writes: RAM at 0x%llx was not there at the start",
				 (unsigned long long)region->gpa);
	for (uint64_t word = first / 64; word < (end + 63) / 64; word++)
		take_word(log, word, first, end, bitmap);
	return 0;
}

/* Its life is the device's. */
static void free_source(struct dirty_source *source)
{
	stop(source);
}

int net_dirty_source(struct virtio_device *dev, struct dirty_source **source, struct error *err)
{
	static const struct dirty_source_ops ops = {
		.name = "vhost-net",
		.start = start,
		.stop = stop,
		.collect = collect,
		.free = free_source,
	};
	struct virtio_net *net = container_of(dev, struct virtio_net, dev);

	if (!net->use_vhost)
		return 0;
	if (!net->log)
		net->log = calloc(1, sizeof(*net->log));
	if (!net->log)
		return error_set_errno(err, ENOMEM, "%s: track vhost's writes", dev->id);
	net->log->source.ops = &ops;
	net->log->net = net;
	*source = &net->log->source;
	return 0;
}

void net_log_free(struct net_vhost_log *log)
{
	if (log)
		unmap(log);
	free(log);
}
